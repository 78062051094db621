package blob

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSkew is how far a signed request's date may be off, either way.
const maxSkew = 15 * time.Minute

// authorizeKey checks an Authorization header of the schemes SharedKey and
// SharedKeyLite:
//
//	Authorization: SharedKey ACCOUNT:base64(HMAC-SHA256(key, string to sign))
//
// Source: blob.md 2.2.
func (s *Service) authorizeKey(req *request, scheme, credentials string) error {
	account, signature, ok := strings.Cut(credentials, ":")
	given, err := base64.StdEncoding.DecodeString(signature)
	if !ok || err != nil {
		return errInvalidAuth()
	}
	if strings.TrimSuffix(account, secondarySuffix) != req.addr.account {
		return errAuthFailed("The account that signed is not the one that is addressed.")
	}
	if err := s.checkDate(req); err != nil {
		return err
	}
	candidates := stringsToSign(req, strings.EqualFold(scheme, "SharedKeyLite"))
	for _, text := range candidates {
		if s.signedBy(req.addr.account, text, given) {
			return nil
		}
	}
	return errAuthFailed("The MAC signature found in the HTTP request is not the same as any computed signature. Server used following string to sign: '" + candidates[0] + "'.")
}

// signedBy tells whether one of an account's keys made the signature. All keys
// are compared, in constant time.
func (s *Service) signedBy(account, text string, signature []byte) bool {
	good := false
	for _, key := range s.accounts[account] {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		good = hmac.Equal(m.Sum(nil), signature) || good
	}
	return good
}

func errInvalidAuth() *Error {
	return newError(codeInvalidAuth, "Authentication information is not given in the correct format. Check the value of Authorization header.")
}

// errAuthFailed is a 403 whose detail stands in an element of its own.
func errAuthFailed(detail string) *Error {
	e := newError(codeAuthFailed, "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.")
	e.detail = detail
	return e
}

func (s *Service) checkDate(req *request) error {
	text := req.Header.Get("x-ms-date")
	if text == "" {
		text = req.Header.Get("Date")
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return errAuthFailed("The request has no valid x-ms-date or Date header.")
	}
	if off := req.now.Sub(at); !s.o.SkipDateCheck && (off > maxSkew || off < -maxSkew) {
		return errAuthFailed("Request date header too far from the server's clock: the header says " + text +
			", the server " + req.now.UTC().Format(http.TimeFormat) + ".")
	}
	return nil
}

// stringsToSign returns the texts that a client may have signed, the documented
// one first. Clients differ in the order of headers, in how an empty body's
// length is signed, in whether the secondary's account keeps its suffix, and in
// what a plus sign in the query means.
func stringsToSign(req *request, lite bool) []string {
	resources := []string{canonicalResource(req, req.addr.account, lite, false)}
	add := func(list []string, text string) []string {
		if slices.Contains(list, text) {
			return list
		}
		return append(list, text)
	}
	resources = add(resources, canonicalResource(req, req.addr.account, lite, true))
	if req.addr.secondary {
		resources = add(resources, canonicalResource(req, req.addr.account+secondarySuffix, lite, false))
	}
	lengths := signedLengths(req)
	if lite {
		lengths = lengths[:1]
	}
	headers := add([]string{canonicalHeaders(req.Header, collate)}, canonicalHeaders(req.Header, strings.Compare))

	var texts []string
	for _, length := range lengths {
		fixed := fixedHeaders(req, length, lite)
		for _, h := range headers {
			for _, resource := range resources {
				texts = append(texts, fixed+h+resource)
			}
		}
	}
	return texts
}

// signedLengths are the ways to sign the Content-Length: since 2015-02-21 a zero
// is signed as nothing.
func signedLengths(req *request) []string {
	length := req.Header.Get("Content-Length")
	if length == "" && req.ContentLength > 0 {
		length = strconv.FormatInt(req.ContentLength, 10)
	}
	if length != "" && strings.Trim(length, "0") != "" {
		return []string{length}
	}
	switch {
	case req.version == "":
		return []string{"", "0"}
	case req.versionBefore("2015-02-21"):
		return []string{"0", ""}
	}
	return []string{""}
}

func fixedHeaders(req *request, length string, lite bool) string {
	h := req.Header
	date := h.Get("Date")
	if _, own := h["X-Ms-Date"]; own {
		date = ""
	}
	if lite {
		return strings.Join([]string{req.Method, h.Get("Content-Md5"), h.Get("Content-Type"), date}, "\n") + "\n"
	}
	return strings.Join([]string{
		req.Method,
		h.Get("Content-Encoding"),
		h.Get("Content-Language"),
		length,
		h.Get("Content-Md5"),
		h.Get("Content-Type"),
		date,
		h.Get("If-Modified-Since"),
		h.Get("If-Match"),
		h.Get("If-None-Match"),
		h.Get("If-Unmodified-Since"),
		h.Get("Range"),
	}, "\n") + "\n"
}

// canonicalHeaders lists the x-ms-* headers, each with a line feed, in the order
// that less gives.
func canonicalHeaders(h http.Header, compare func(a, b string) int) string {
	values := map[string]string{}
	var names []string
	for name, v := range h {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "x-ms-") {
			continue
		}
		trimmed := make([]string, len(v))
		for i := range v {
			trimmed[i] = strings.TrimSpace(v[i])
		}
		values[lower] = strings.Join(trimmed, ",")
		names = append(names, lower)
	}
	slices.SortFunc(names, compare)
	var b strings.Builder
	for _, name := range names {
		b.WriteString(name + ":" + values[name] + "\n")
	}
	return b.String()
}

// collate orders header names as the service does, which imitates the sorting
// of en-US text: dashes don't count, and an underscore comes before any digit or
// letter. Equal names fall back to the order of bytes. Source: blob.md 2.2.
func collate(a, b string) int {
	weigh := strings.NewReplacer("-", "", "_", "\x01")
	if c := strings.Compare(weigh.Replace(a), weigh.Replace(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// canonicalResource is the account and the path as on the wire, which in path
// style holds the account once more, and the query's parameters, each on a line.
func canonicalResource(req *request, account string, lite, literalPlus bool) string {
	b := strings.Builder{}
	b.WriteString("/" + account + req.addr.rawPath)
	values := map[string][]string{}
	var names []string
	for _, p := range req.query {
		if lite && p.name != "comp" {
			continue
		}
		if values[p.name] == nil {
			names = append(names, p.name)
		}
		v := p.value
		if literalPlus {
			v = p.literal
		}
		values[p.name] = append(values[p.name], v)
	}
	slices.Sort(names)
	for _, name := range names {
		slices.Sort(values[name])
		if lite {
			b.WriteString("?" + name + "=" + strings.Join(values[name], ","))
			continue
		}
		b.WriteString("\n" + name + ":" + strings.Join(values[name], ","))
	}
	return b.String()
}
