package blob

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// conditions are a request's If-… headers. ETags are compared with their quotes
// stripped: clients send them as lists or as headers spell them (blob.md 1.2).
type conditions struct {
	match, noneMatch []string // nil if absent
	since, unchanged time.Time
}

// The two sets of names: for what a request is about, and for a copy's source.
var (
	ownConditions    = [4]string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"}
	sourceConditions = [4]string{"x-ms-source-if-match", "x-ms-source-if-none-match", "x-ms-source-if-modified-since", "x-ms-source-if-unmodified-since"}
)

func readConditions(h http.Header, names [4]string) (c conditions, err error) {
	c.match = etagList(h.Values(names[0]))
	c.noneMatch = etagList(h.Values(names[1]))
	if c.since, err = headerTime(h, names[2]); err != nil {
		return c, err
	}
	c.unchanged, err = headerTime(h, names[3])
	return c, err
}

func etagList(values []string) []string {
	var tags []string
	for _, v := range values {
		for tag := range strings.SplitSeq(v, ",") {
			tag = strings.TrimSpace(tag)
			if n := len(tag); n >= 2 && tag[0] == '"' && tag[n-1] == '"' {
				tag = tag[1 : n-1]
			}
			tags = append(tags, tag)
		}
	}
	return tags
}

func headerTime(h http.Header, name string) (time.Time, error) {
	text := h.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := http.ParseTime(text)
	if err != nil {
		return t, newError(codeInvalidHeader, "The value of %s is not a date.", name)
	}
	return t, nil
}

// oneOf tells whether an ETag is in a list, or the list has a star.
func oneOf(tags []string, etag uint64) bool {
	text := etagText(etag)
	for _, t := range tags {
		if t == "*" || strings.EqualFold(t, text) {
			return true
		}
	}
	return false
}

func (c conditions) star() bool {
	return slices.Contains(c.noneMatch, "*")
}

// newer tells whether a time of a record, to the second as clients see it, is
// after t.
func newer(modified int64, t time.Time) bool {
	return time.UnixMilli(modified).Truncate(time.Second).After(t)
}

// checkWrite is for an operation on what exists: 412 if a condition fails.
func (c conditions) checkWrite(etag uint64, modified int64) error {
	if c.match != nil && !oneOf(c.match, etag) ||
		c.noneMatch != nil && oneOf(c.noneMatch, etag) ||
		!c.since.IsZero() && !newer(modified, c.since) ||
		!c.unchanged.IsZero() && newer(modified, c.unchanged) {
		return errCondition()
	}
	return nil
}

// checkPut is for an operation that makes or replaces a blob: what exists and
// must not is 409 here, not 412; what must match and is missing is 412.
// Source: blob.md 1.3, 5.11.
func (c conditions) checkPut(old *blobRecord) error {
	if !old.live() {
		if c.match != nil {
			return errCondition()
		}
		return nil
	}
	if c.star() {
		return newError(BlobAlreadyExists, "The specified blob already exists.")
	}
	return c.checkWrite(old.ETag, old.Modified)
}

// checkRead is for GET and HEAD: 412, or 304 if the client has it already.
func (c conditions) checkRead(etag uint64, modified int64) error {
	if c.match != nil && !oneOf(c.match, etag) || !c.unchanged.IsZero() && newer(modified, c.unchanged) {
		return errCondition()
	}
	if c.noneMatch != nil {
		if oneOf(c.noneMatch, etag) {
			return errNotModified()
		}
	} else if !c.since.IsZero() && !newer(modified, c.since) {
		return errNotModified()
	}
	return nil
}

func errNotModified() *Error {
	e := errCondition()
	e.Status = http.StatusNotModified
	return e
}
