package blob

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"net/http"
	"os"
	"time"
)

// maxInline is how much content a blob's record holds itself.
const maxInline = 64 << 10

// maxIntoOne is how many bytes are read into memory at most, for checksums of
// ranges.
const maxIntoOne = 4 << 20

// nvme is the polynomial of the service's CRC-64, known as CRC-64/NVME.
// Source: blob.md 2.4.
var nvme = crc64.MakeTable(0x9A6C9329AC4BC9B5)

// payload is content that has arrived and is not yet part of a record: in
// memory, or in a file that the payload has pinned. Whoever gets one closes it.
type payload struct {
	size   int64
	inline []byte
	file   string
	md5    [md5.Size]byte
	crc    uint64

	files   *folder
	settled bool // the file has, or may have, its record
}

// settle takes note of how the Put of the record went that refers to the
// payload. If nobody knows, the file stays pinned: what the next start finds in
// Meta decides.
func (p *payload) settle(err error) {
	if p.file == "" || p.settled || err != nil && !unknownOutcome(err) {
		return
	}
	p.settled = true
	if err == nil {
		p.files.unpin(p.file)
	}
}

// close ends the payload; its file goes, unless it was settled.
func (p *payload) close() {
	if p.file != "" && !p.settled {
		p.settled = true
		p.files.drop(p.file)
		p.files.unpin(p.file)
	}
}

// fill makes the payload the content of a record.
func (p *payload) fill(r *blobRecord) {
	r.Size, r.inline, r.Segments = p.size, p.inline, nil
	if p.file != "" {
		r.Segments = []segment{{File: p.file, Size: p.size}}
	}
}

// bodyError is a failure of the client or its connection, not of the disk.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "reading the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// bodyReader marks the errors of reading as the client's.
type bodyReader struct{ r io.Reader }

// Read implements io.Reader.
func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	return n, err
}

// receive stores content from a reader: up to inlineMax bytes in memory, more
// in a file; never more than limit, whose excess is found without reading it if
// the size was announced (size is -1 if not). At most inlineMax bytes plus a
// buffer are held. Errors are *Error.
func (s *Service) receive(ctx context.Context, body io.Reader, size, inlineMax, limit int64) (*payload, error) {
	if size > limit {
		return nil, errTooLarge(limit)
	}
	body = bodyReader{body}
	p := &payload{files: s.files}
	sum, crc := md5.New(), crc64.New(nvme)

	var head bytes.Buffer
	if size <= inlineMax {
		head.Grow(int(max(size, 0)) + bytes.MinRead) // ReadFrom wants spare room
		if _, err := head.ReadFrom(io.LimitReader(body, inlineMax+1)); err != nil {
			return nil, receiveError(err)
		}
	}
	var err error
	if size <= inlineMax && int64(head.Len()) <= inlineMax {
		p.inline = head.Bytes()
		p.size = int64(head.Len())
		sum.Write(p.inline)
		crc.Write(p.inline)
	} else {
		all := io.LimitReader(io.MultiReader(&head, body), limit+1)
		p.file, err = s.files.write(func(w io.Writer) error {
			p.size, err = copyInto(ctx, w, io.TeeReader(all, io.MultiWriter(sum, crc)))
			if err == nil && p.size > limit {
				err = errTooLarge(limit)
			}
			if err == nil && size >= 0 && p.size != size {
				err = &bodyError{io.ErrUnexpectedEOF}
			}
			return err
		})
	}
	if err == nil && size >= 0 && p.size != size {
		err = &bodyError{io.ErrUnexpectedEOF}
	}
	if err != nil {
		return nil, receiveError(err)
	}
	p.finish(sum, crc)
	return p, nil
}

func (p *payload) finish(sum hash.Hash, crc hash.Hash64) {
	sum.Sum(p.md5[:0])
	p.crc = crc.Sum64()
}

// copyInto copies with a buffer of its own size, and stops when the request has
// been given up.
func copyInto(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, 64<<10)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, &bodyError{err}
		}
		n, err := io.ReadFull(r, buf)
		total += int64(n)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return total, fmt.Errorf("writing a file of content: %w", werr)
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func errTooLarge(limit int64) *Error {
	return newError(codeTooLarge, "The request body is too large and exceeds the maximum permissible limit of %d bytes.", limit)
}

func receiveError(err error) *Error {
	if body, ok := errors.AsType[*bodyError](err); ok {
		e := newError(codeInvalidInput, "The request body ended before it was complete.")
		if errors.Is(err, os.ErrDeadlineExceeded) {
			e = newError(codeTimedOut, "The request body did not arrive in time.")
		}
		e.Err = body.err
		return e
	}
	return storageError("storing the content", err)
}

// body returns a request's body and its size, -1 for a chunked one. A pause
// longer than Options.BodyTimeout ends it.
func (s *Service) body(req *request) (io.Reader, int64, error) {
	if req.Header.Get("x-ms-structured-body") != "" {
		return nil, 0, errNotImplemented("structured bodies")
	}
	size := req.ContentLength
	if size == 0 && req.Header.Get("Content-Length") == "" {
		return nil, 0, newError(codeMissingLength, "Content-Length HTTP header was not specified.")
	}
	if size == 0 || req.Body == nil {
		return http.NoBody, 0, nil
	}
	return &patientReader{r: req.Body, extend: func() { s.expectBody(req) }, end: func() { s.setReadDeadline(req, time.Time{}) }}, size, nil
}

// expectBody gives the body, or its next part, so long to arrive. It also bounds
// how long net/http waits for a body that nobody has read before it answers.
func (s *Service) expectBody(req *request) {
	if s.o.BodyTimeout > 0 && req.ContentLength != 0 {
		s.setReadDeadline(req, time.Now().Add(s.o.BodyTimeout))
	}
}

// setReadDeadline sets the connection's, if it can have one.
func (s *Service) setReadDeadline(req *request, t time.Time) {
	if s.o.BodyTimeout > 0 {
		http.NewResponseController(req.w).SetReadDeadline(t) //nolint:errcheck // a connection without deadlines has none
	}
}

// patientReader gives each read its own deadline.
type patientReader struct {
	r           io.Reader
	extend, end func()
}

// Read implements io.Reader.
func (p *patientReader) Read(b []byte) (int, error) {
	p.extend()
	n, err := p.r.Read(b)
	if err == io.EOF {
		// net/http goes on reading to notice a client that leaves; a deadline
		// would look like one.
		p.end()
	}
	return n, err
}

// receiveBody stores a request's body and compares it with the checksums that
// the client sent: Content-MD5, x-ms-content-crc64.
func (s *Service) receiveBody(req *request, inlineMax int64) (*payload, error) {
	want, err := readChecksums(req.Header, "Content-MD5", "x-ms-content-crc64")
	if err != nil {
		return nil, err
	}
	body, size, err := s.body(req)
	if err != nil {
		return nil, err
	}
	p, err := s.receive(req.Context(), body, size, inlineMax, s.o.MaxBodySize)
	if err != nil {
		return nil, err
	}
	if err := want.compare(p.md5[:], p.crc); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// checksums are those that a request announces.
type checksums struct {
	md5    []byte
	crc    uint64
	hasCRC bool
}

func readChecksums(h http.Header, md5Name, crcName string) (c checksums, err error) {
	if c.md5, err = readMD5(h, md5Name); err != nil {
		return c, err
	}
	if text := h.Get(crcName); text != "" {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(b) != 8 {
			return c, newError(codeInvalidHeader, "The value of %s is not 8 bytes in base64.", crcName)
		}
		c.crc, c.hasCRC = binary.LittleEndian.Uint64(b), true
	}
	return c, nil
}

func readMD5(h http.Header, name string) ([]byte, error) {
	text := h.Get(name)
	if text == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != md5.Size {
		return nil, newError(codeInvalidMD5, "The value of %s is not an MD5 in base64.", name)
	}
	return b, nil
}

func (c checksums) compare(sum []byte, crc uint64) error {
	if c.md5 != nil && !bytes.Equal(c.md5, sum) {
		return newError(codeMD5Mismatch, "The MD5 value specified in the request did not match with the MD5 value calculated by the server.")
	}
	if c.hasCRC && c.crc != crc {
		return newError(codeCrcMismatch, "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.")
	}
	return nil
}

func crcText(crc uint64) string {
	return base64.StdEncoding.EncodeToString(binary.LittleEndian.AppendUint64(nil, crc))
}

func md5Text(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

// readDocument reads a small XML body of at most max bytes whole, with its
// checksums compared.
func (s *Service) readDocument(req *request, limit int64) ([]byte, error) {
	want, err := readChecksums(req.Header, "Content-MD5", "x-ms-content-crc64")
	if err != nil {
		return nil, err
	}
	body, size, err := s.body(req)
	if err != nil {
		return nil, err
	}
	p, err := s.receive(req.Context(), body, size, limit, limit)
	if err != nil {
		return nil, err
	}
	defer p.close()
	return p.inline, want.compare(p.md5[:], p.crc)
}
