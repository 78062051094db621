package blob

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"hash/crc64"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/store"
)

// Get Blob: GET /container/blob, whole or one range; 200 or 206.
// Get Blob Properties: HEAD likewise, always about the whole.
// Source: blob.md 1.3, 2.4.

func (s *Service) getBlobProperties(req *request) error {
	r, _, _, err := s.findBlob(req)
	if err != nil {
		return err
	}
	if err := req.checkRead(r); err != nil {
		return err
	}
	req.setProperties(r)
	if len(r.MD5) > 0 {
		req.set("Content-MD5", md5Text(r.MD5))
	}
	req.set("Content-Length", strconv.FormatInt(r.Size, 10))
	req.w.WriteHeader(http.StatusOK)
	return nil
}

// checkRead is what reading a blob depends on. An answer of 304 has the version.
func (req *request) checkRead(r *blobRecord) error {
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	if err := r.Lease.checkBlobRead(req); err != nil {
		return err
	}
	err = cond.checkRead(r.ETag, r.Modified)
	if err != nil {
		req.setVersion(r.ETag, r.Modified)
	}
	return err
}

func (s *Service) getBlobContent(req *request) error {
	r, key, version, err := s.findBlob(req)
	if err != nil {
		return err
	}
	if r, err = s.pinBlob(req.Context(), key, r, version); err != nil {
		return err
	}
	defer s.unpinBlob(r)
	if err := req.checkRead(r); err != nil {
		return err
	}
	req.size = r.Size
	span, err := req.readRange(r.Size)
	if err != nil {
		return err
	}
	sums, err := s.rangeChecksums(req, r, span)
	if err != nil {
		return err
	}
	// The first file is opened before anything is answered, so that a damaged
	// store gives an error and not half an answer.
	content := s.open(r, span.start, span.length)
	defer content.close()
	if err := content.next(); err != nil {
		return storageError("reading the content", err)
	}
	req.setProperties(r)
	for name, value := range sums {
		req.set(name, value)
	}
	req.set("Content-Length", strconv.FormatInt(span.length, 10))
	status := http.StatusOK
	if span.partial {
		status = http.StatusPartialContent
		req.set("Content-Range", span.header(r.Size))
		if len(r.MD5) > 0 {
			req.set("x-ms-blob-content-md5", md5Text(r.MD5))
		}
	} else if len(r.MD5) > 0 {
		req.set("Content-MD5", md5Text(r.MD5))
	}
	req.w.WriteHeader(status)
	// An error from here on can only cut the answer short: net/http closes the
	// connection, and the client sees that bytes are missing.
	if err := content.writeTo(req.w); err != nil {
		s.logCut(req, err)
	}
	return nil
}

// logCut tells of an answer that was cut short: our own failure to read a file,
// or, as far less, a client that went away.
func (s *Service) logCut(req *request, err error) {
	level := slog.LevelDebug
	if _, ours := errors.AsType[*fs.PathError](err); ours || errors.Is(err, io.ErrUnexpectedEOF) {
		level = slog.LevelError
	}
	s.log.Log(req.Context(), level, "a blob was sent in part", "id", req.id, "error", err)
}

// span is a run of a blob's bytes.
type span struct {
	start, length int64
	partial       bool
}

func (p span) header(size int64) string {
	return "bytes " + strconv.FormatInt(p.start, 10) + "-" + strconv.FormatInt(p.start+p.length-1, 10) +
		"/" + strconv.FormatInt(size, 10)
}

// readRange reads x-ms-range, or else Range: "bytes=a-b" or "bytes=a-". Another
// form of Range is passed over, as HTTP allows; of x-ms-range it is refused.
func (req *request) readRange(size int64) (span, error) {
	text := req.Header.Get("x-ms-range")
	own := text != ""
	if !own {
		text = req.Header.Get("Range")
	}
	start, end, ok := parseRange(text)
	if !ok {
		if own {
			return span{}, newError(codeInvalidHeader, "The value of x-ms-range is not of the form bytes=a-b or bytes=a-.")
		}
		return span{0, size, false}, nil
	}
	if start >= size { // so also any range of an empty blob
		return span{}, newError(codeInvalidRange, "The range specified is invalid for the current size of the resource.")
	}
	return span{start, min(end, size-1) - start + 1, true}, nil
}

// parseRange reads a range; end is inclusive, and very large if it is open.
func parseRange(text string) (start, end int64, ok bool) {
	rest, ok := strings.CutPrefix(text, "bytes=")
	from, to, dash := strings.Cut(strings.TrimSpace(rest), "-")
	if !ok || !dash || !digits(from) || to != "" && !digits(to) {
		return 0, 0, false
	}
	start, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		start = 1<<63 - 1 // beyond any blob
	}
	end = 1<<63 - 1
	if to != "" {
		if n, err := strconv.ParseInt(to, 10, 64); err == nil {
			end = n
		}
	}
	return start, end, end >= start
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// rangeChecksums computes the checksums that a client wants of a range.
func (s *Service) rangeChecksums(req *request, r *blobRecord, p span) (map[string]string, error) {
	wantMD5 := strings.EqualFold(req.Header.Get("x-ms-range-get-content-md5"), "true")
	wantCRC := strings.EqualFold(req.Header.Get("x-ms-range-get-content-crc64"), "true")
	if !wantMD5 && !wantCRC {
		return nil, nil
	}
	if !p.partial {
		return nil, newError(codeInvalidHeader, "Checksums of a range need a range.")
	}
	if p.length > maxIntoOne {
		return nil, newError(codeOutOfRangeInput, "Checksums are for ranges of %d bytes at most.", maxIntoOne)
	}
	var b bytes.Buffer
	content := s.open(r, p.start, p.length)
	defer content.close()
	if err := content.writeTo(&b); err != nil {
		return nil, storageError("reading the content", err)
	}
	sums := map[string]string{}
	if wantMD5 {
		sum := md5.Sum(b.Bytes())
		sums["Content-MD5"] = md5Text(sum[:])
	}
	if wantCRC {
		sums["x-ms-content-crc64"] = crcText(crc64.Checksum(b.Bytes(), nvme))
	}
	return sums, nil
}

// pinBlob pins the files of a blob, and returns the record whose files are
// pinned for sure: one that replaced it while we pinned may have removed them.
func (s *Service) pinBlob(ctx context.Context, key blobKey, r *blobRecord, version store.Version) (*blobRecord, error) {
	for range maxAttempts {
		for file := range r.files() {
			s.files.pin(file)
		}
		if len(r.Segments) == 0 {
			return r, nil
		}
		again, now, err := s.getBlob(ctx, key)
		if err == nil && now == version {
			return r, nil
		}
		s.unpinBlob(r)
		if err != nil {
			return nil, err
		}
		if !again.live() {
			return nil, errBlobNotFound()
		}
		r, version = again, now
	}
	return nil, errContention()
}

func (s *Service) unpinBlob(r *blobRecord) {
	for file := range r.files() {
		s.files.unpin(file)
	}
}

// content reads a span of a blob, file by file. The files are pinned by whoever
// made it.
type content struct {
	files  *folder
	inline []byte
	rest   []segment
	skip   int64 // bytes of the first of rest that come before the span
	left   int64
	now    io.ReadCloser // the part of the span in the file that is open
	size   int64         // of now
}

func (s *Service) open(r *blobRecord, start, length int64) *content {
	c := &content{files: s.files, rest: r.Segments, skip: start, left: length}
	if len(r.Segments) == 0 {
		c.inline, c.left = r.inline[start:start+length], 0
	}
	for len(c.rest) > 0 && c.skip >= c.rest[0].Size {
		c.skip -= c.rest[0].Size
		c.rest = c.rest[1:]
	}
	return c
}

// next opens the next file, if the span goes on and none is open.
func (c *content) next() error {
	if c.now != nil || c.left == 0 {
		return nil
	}
	segment := c.rest[0]
	file, err := c.files.open(segment.File)
	if err != nil {
		return err
	}
	if c.skip > 0 {
		if _, err := file.Seek(c.skip, io.SeekStart); err != nil {
			file.Close()
			return err
		}
	}
	c.now, c.size = file, min(c.left, segment.Size-c.skip)
	c.rest, c.skip = c.rest[1:], 0
	return nil
}

// writeTo writes the span. Files go to the socket without passing through us
// where the system can.
func (c *content) writeTo(w io.Writer) error {
	if _, err := w.Write(c.inline); err != nil {
		return err
	}
	for c.left > 0 {
		if err := c.next(); err != nil {
			return err
		}
		n, err := io.CopyN(w, c.now, c.size)
		c.left -= n
		c.close()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if len(c.inline) > 0 {
		n := copy(p, c.inline)
		c.inline = c.inline[n:]
		return n, nil
	}
	for {
		if err := c.next(); err != nil {
			return 0, err
		}
		if c.now == nil {
			return 0, io.EOF
		}
		n, err := c.now.Read(p[:min(int64(len(p)), c.size)])
		c.size, c.left = c.size-int64(n), c.left-int64(n)
		if c.size == 0 {
			c.close()
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (c *content) close() {
	if c.now != nil {
		c.now.Close()
		c.now = nil
	}
}
