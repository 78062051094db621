package blob

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// newestVersion is what a request without x-ms-version is taken for, and what
// it is told: the newest that we have seen a client send.
const newestVersion = "2026-12-06"

// request is one request on its way through the service.
type request struct {
	*http.Request
	w       http.ResponseWriter
	id      string // x-ms-request-id
	now     time.Time
	version string // x-ms-version as sent, or ""
	addr    address
	query   query
	op      *operation

	// Who asks: the account's key, or a shared access signature.
	bySAS      bool
	createOnly bool // may create blobs, but not replace them

	size int64 // of the blob asked for, once known; -1 before
}

// newRequest fills in what every answer has, so that errors have it too.
func (s *Service) newRequest(w http.ResponseWriter, r *http.Request) *request {
	req := &request{Request: r, w: w, id: newUUID(), now: s.now(), size: -1}
	req.set("x-ms-request-id", req.id)
	req.set("Server", "Millrace-Blob")
	req.set("Date", req.now.UTC().Format(http.TimeFormat))
	if id := r.Header.Get("x-ms-client-request-id"); id != "" && len(id) <= 1024 {
		req.set("x-ms-client-request-id", id)
	}
	req.version = r.Header.Get("x-ms-version")
	if _, err := time.Parse(time.DateOnly, req.version); err == nil {
		req.set("x-ms-version", req.version)
	} else {
		req.set("x-ms-version", newestVersion)
	}
	return req
}

// read takes the address and the query apart.
func (req *request) read(s *Service) error {
	if req.version != "" {
		if _, err := time.Parse(time.DateOnly, req.version); err != nil {
			return newError(codeInvalidHeader, "The value of x-ms-version is not a date such as %s.", newestVersion)
		}
	}
	rawPath, rawQuery := rawTarget(req.Request)
	req.addr.rawPath = rawPath
	q, err := parseQuery(rawQuery)
	if err != nil {
		return err
	}
	req.query = q
	req.addr, err = s.parseAddress(req.Host, rawPath)
	if err != nil {
		return err
	}
	if s.accounts[req.addr.account] == nil {
		return newError(codeAuthFailed, "There is no account %q here; the path starts with the account's name.", req.addr.account)
	}
	// One step that is not said to be a container is a blob in the container
	// $root.
	if req.addr.container != "" && req.addr.blob == "" && q.get("restype") == "" && req.Method != http.MethodOptions {
		req.addr.container, req.addr.blob = "$root", req.addr.container
	}
	return req.addr.check()
}

// rawTarget returns path and query as they came over the wire: signatures and
// names depend on every escape (blob.md 2.2, 5.4).
func rawTarget(r *http.Request) (path, query string) {
	target := r.RequestURI
	if target == "" { // a request made by code, not read from a connection
		target = r.URL.EscapedPath()
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
	}
	if _, rest, ok := strings.Cut(target, "://"); ok && !strings.HasPrefix(target, "/") {
		i := strings.IndexAny(rest, "/?")
		if i < 0 {
			i = len(rest)
		}
		target = rest[i:]
	}
	path, query, _ = strings.Cut(target, "?")
	if path == "" {
		path = "/"
	}
	return path, query
}

// param is one query parameter.
type param struct {
	name    string // lower case
	value   string // decoded, a plus sign being a space
	literal string // decoded, a plus sign being itself
}

// query is a request's parameters in the order sent. Unlike url.Values it keeps
// semicolons, and both readings of a plus sign.
type query []param

// maxParams bounds the work on a request that nobody has authenticated yet.
const maxParams = 200

func parseQuery(raw string) (query, error) {
	var q query
	for piece := range strings.SplitSeq(raw, "&") {
		if piece == "" {
			continue
		}
		if len(q) == maxParams {
			return nil, newError(codeInvalidURI, "The query has more than %d parameters.", maxParams)
		}
		rawName, rawValue, _ := strings.Cut(piece, "=")
		name, err1 := url.QueryUnescape(rawName)
		value, err2 := url.QueryUnescape(rawValue)
		literal, err3 := url.PathUnescape(rawValue)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, newError(codeInvalidURI, "The query is not percent-encoded text.")
		}
		q = append(q, param{strings.ToLower(name), value, literal})
	}
	return q, nil
}

// get returns a parameter's first value, "" if it isn't there.
func (q query) get(name string) string {
	for _, p := range q {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// set sets a response header under exactly this name. http.Header.Set would
// capitalise x-ms names, after which the Python SDK finds none of them
// (blob.md 5.1).
func (req *request) set(name, value string) {
	req.w.Header()[name] = []string{value}
}

// setNonEmpty sets a header that has a value.
func (req *request) setNonEmpty(name, value string) {
	if value != "" {
		req.set(name, value)
	}
}

// writeXML answers with a document.
func (req *request) writeXML(status int, x *xmlWriter) {
	body := x.bytes()
	req.set("Content-Type", "application/xml")
	req.set("Content-Length", strconv.Itoa(len(body)))
	req.w.WriteHeader(status)
	if req.Method != http.MethodHead {
		req.w.Write(body) //nolint:errcheck // who reads no more has gone away
	}
}

// versionBefore tells whether the client speaks a version older than the given
// date. Dates in this form sort as text.
func (req *request) versionBefore(date string) bool {
	return req.version != "" && req.version < date
}

// newUUID returns a random UUID, version 4.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, since Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
