package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const sasPrefix = "SharedAccessSignature "

// MaxTokenSize is the longest token text, in bytes, that is looked at.
const MaxTokenSize = 64 << 10

// isSAS tells a shared access signature from other tokens by its text: pyamqp
// 5.11 declares its signatures as JWTs (amqp.md 2.2).
func isSAS(token string) bool {
	return len(token) >= len(sasPrefix) && strings.EqualFold(token[:len(sasPrefix)], sasPrefix)
}

// SignSAS makes a shared access signature for a resource, such as
// "sb://localhost/hub", that holds until the given moment (whole seconds). The
// key is the text that stands in connection strings; it is not decoded.
// Source: amqp.md 2.3.
func SignSAS(resource, keyName, key string, expires time.Time) string {
	sr := url.QueryEscape(resource)
	se := strconv.FormatInt(expires.Unix(), 10)
	sig := base64.StdEncoding.EncodeToString(sasDigest(sr, se, key))
	return sasPrefix + "sr=" + sr + "&sig=" + url.QueryEscape(sig) + "&se=" + se + "&skn=" + url.QueryEscape(keyName)
}

// sasDigest is the signature's value: the resource is signed exactly as it
// stands in the token, since each SDK encodes it differently.
func sasDigest(sr, se, key string) []byte {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(sr))
	m.Write([]byte{'\n'})
	m.Write([]byte(se))
	return m.Sum(nil)
}

// sas is a shared access signature taken apart.
type sas struct {
	sr, se  string // raw bytes, as signed
	digest  []byte
	path    string    // what sr covers, as EntityPath returns it
	names   [2]string // the two readings of skn; equal if it has no plus sign
	expires time.Time
}

// maxExpiry is the last second of the year 9999: beyond it a time can't be
// printed as the service prints it, and a token may as well never end.
const maxExpiry = 253402300799

// parseSAS takes a token apart without verifying it. The error is an *Error of
// kind Malformed.
func parseSAS(token string) (*sas, error) {
	if len(token) > MaxTokenSize {
		return nil, malformed(nil, "The token is longer than %d bytes.", MaxTokenSize)
	}
	if !isSAS(token) {
		return nil, malformed(nil, "The token does not start with SharedAccessSignature.")
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(strings.TrimSpace(token[len(sasPrefix):]), "&") {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, malformed(nil, "The token has a field without a value.")
		}
		name = strings.ToLower(name)
		if _, twice := fields[name]; twice {
			return nil, malformed(nil, "The token has a field twice.")
		}
		fields[name] = value
	}
	for _, name := range []string{"sr", "sig", "se", "skn"} {
		if fields[name] == "" {
			return nil, malformed(nil, "The token has no %s.", name)
		}
	}
	t := &sas{sr: fields["sr"], se: fields["se"]}
	return t, errors.Join(t.readResource(), t.readExpiry(), t.readName(fields["skn"]), t.readDigest(fields["sig"]))
}

func (t *sas) readResource() error {
	decoded, err := url.PathUnescape(t.sr)
	if err != nil {
		return malformed(err, "The token's sr is not percent-encoded text.")
	}
	t.path = resourcePath(decoded)
	return nil
}

// resourcePath is the path that a signed resource covers. Unlike an address in
// an attach, a resource names its host even if it leaves out the scheme, as
// "ns.servicebus.windows.net/hub" does; a first step that can't be a host name
// is taken as a path, which is the narrower reading.
func resourcePath(resource string) string {
	if !strings.Contains(resource, "://") {
		host, rest, _ := strings.Cut(strings.TrimLeft(resource, "/"), "/")
		if strings.ContainsAny(host, ".:") || strings.EqualFold(host, "localhost") {
			resource = rest
		}
	}
	return EntityPath(resource)
}

func (t *sas) readExpiry() error {
	seconds, err := strconv.ParseInt(t.se, 10, 64)
	if err != nil {
		if !errors.Is(err, strconv.ErrRange) || t.se[0] == '-' {
			return malformed(err, "The token's se is not a number of seconds.")
		}
		seconds = maxExpiry
	}
	t.expires = time.Unix(min(max(seconds, 0), maxExpiry), 0).UTC()
	return nil
}

// readName keeps both readings of a plus sign: Python writes a space so, and Go
// writes the name as it is.
func (t *sas) readName(skn string) error {
	var err1, err2 error
	t.names[0], err1 = url.PathUnescape(skn)
	t.names[1], err2 = url.QueryUnescape(skn)
	if err := errors.Join(err1, err2); err != nil {
		return malformed(err, "The token's skn is not percent-encoded text.")
	}
	return nil
}

// readDigest decodes the signature. A space can only be a plus sign that
// something decoded on the way, so that both readings come to the same.
func (t *sas) readDigest(sig string) error {
	decoded, err := url.PathUnescape(sig)
	if err != nil {
		return malformed(err, "The token's sig is not percent-encoded text.")
	}
	decoded = strings.TrimRight(strings.ReplaceAll(decoded, " ", "+"), "=")
	if t.digest, err = base64.RawStdEncoding.DecodeString(decoded); err != nil {
		return malformed(err, "The token's sig is not base64.")
	}
	return nil
}

// signedBy tells whether either key of the rule made the signature. Both are
// always tried and compared in constant time; an empty key signs nothing.
func (t *sas) signedBy(rule Rule) bool {
	good := false
	for _, key := range []string{rule.Primary, rule.Secondary} {
		match := hmac.Equal(sasDigest(t.sr, t.se, key), t.digest)
		good = good || match && key != ""
	}
	return good
}
