package blob

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"
)

// address is what a request is about: an account, a container in it, or a blob
// in that. Names are decoded; rawPath is not.
type address struct {
	account   string
	secondary bool   // addressed as ACCOUNT-secondary, a read-only alias
	hostStyle bool   // the account stood in the host name, not in the path
	container string // "" for the account
	blob      string // "" for the container
	rawPath   string // as on the wire, "/" if it was empty; for signatures
}

// maxBlobName is the longest name of a blob, in characters.
const maxBlobName = 1024

const secondarySuffix = "-secondary"

// parseAddress reads host and raw path. A host name whose first label is an
// account of ours is host style (ACCOUNT.host); anything else, so also every IP
// address and plain name, is path style (/ACCOUNT/…). Source: blob.md 2.1.
func (s *Service) parseAddress(host, rawPath string) (address, error) {
	a := address{rawPath: rawPath}
	rest := strings.TrimPrefix(rawPath, "/")
	if label, dotted := hostLabel(host); dotted && s.accountOf(label, &a) {
		a.hostStyle = true
	} else {
		var first string
		first, rest, _ = strings.Cut(rest, "/")
		name, err := decodeSegment(first)
		if err != nil {
			return a, err
		}
		if !s.accountOf(name, &a) {
			a.account = name
			return a, nil // for the caller to refuse
		}
	}
	first, rest, _ := strings.Cut(rest, "/")
	var err error
	if a.container, err = decodeSegment(first); err != nil {
		return a, err
	}
	a.blob, err = decodeSegment(rest)
	return a, err
}

// accountOf sets the account if name is one of ours, or one's -secondary.
func (s *Service) accountOf(name string, a *address) bool {
	primary, secondary := strings.CutSuffix(name, secondarySuffix)
	if s.accounts[primary] == nil {
		return false
	}
	a.account, a.secondary = primary, secondary
	return true
}

// hostLabel returns a host's first label, lower case, if the host is a name with
// a dot in it.
func hostLabel(host string) (label string, dotted bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return "", false
	}
	label, _, dotted = strings.Cut(strings.ToLower(host), ".")
	return label, dotted
}

// decodeSegment undoes the percent-encoding once, and turns back slashes. It
// cleans nothing up: "//" and ".." are parts of names.
func decodeSegment(raw string) (string, error) {
	s, err := url.PathUnescape(raw)
	if err != nil || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return "", newError(codeInvalidURI, "The path is not percent-encoded UTF-8.")
	}
	return strings.ReplaceAll(s, `\`, "/"), nil
}

// check tells whether container and blob are names that may exist.
func (a address) check() error {
	if a.container != "" && !validContainer(a.container) {
		return newError(codeInvalidName, "The specified resource name contains invalid characters, or is too short or too long.")
	}
	if n := utf8.RuneCountInString(a.blob); n > maxBlobName {
		return newError(codeInvalidName, "The blob's name has %d characters, more than %d.", n, maxBlobName)
	}
	return nil
}

// validContainer tells whether a name is a container's: 3 to 63 lower-case
// letters, digits and single dashes inside, or one of the three special names.
func validContainer(name string) bool {
	switch name {
	case "$root", "$web", "$logs":
		return true
	}
	return len(name) >= 3 && len(name) <= 63 &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" &&
		name[0] != '-' && name[len(name)-1] != '-' && !strings.Contains(name, "--")
}

// canonicalName is how shared access signatures name a container or a blob: the
// account once, in either style.
func (a address) canonicalName(blob bool) string {
	name := "/blob/" + a.account + "/" + a.container
	if blob {
		name += "/" + a.blob
	}
	return name
}
