package blob

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
)

// Append Block: PUT comp=appendblock adds to an append blob; 201, with where the
// block went in x-ms-blob-append-offset. Source: blob.md 2.5.

func (s *Service) appendBlock(req *request) error {
	if req.Header.Get("x-ms-copy-source") != "" {
		return errNotImplemented("Append Block From URL")
	}
	cond, err := readAppendConditions(req)
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	old, _, err := s.getBlob(req.Context(), key)
	if err != nil {
		return err
	}
	if err := cond.check(req, old, req.ContentLength); err != nil {
		return err
	}
	if req.ContentLength == 0 && req.Header.Get("Content-Length") != "" {
		return newError(codeInvalidHeader, "An appended block has at least one byte; Content-Length is 0.")
	}
	p, err := s.receiveBody(req, maxInline)
	if err != nil {
		return err
	}
	defer p.close()

	r, offset, err := s.appendPayload(req, key, cond, p)
	if err != nil {
		return err
	}
	req.setVersion(r.ETag, r.Modified)
	if req.Header.Get("Content-MD5") != "" {
		req.set("Content-MD5", md5Text(p.md5[:]))
	}
	req.set("x-ms-content-crc64", crcText(p.crc))
	req.set("x-ms-blob-append-offset", strconv.FormatInt(offset, 10))
	req.set("x-ms-blob-committed-block-count", strconv.Itoa(r.Appends))
	req.set("x-ms-request-server-encrypted", "true")
	req.w.WriteHeader(http.StatusCreated)
	return nil
}

// appendPayload adds a payload to a blob, and returns where it went. It settles
// the payload.
func (s *Service) appendPayload(req *request, key blobKey, cond appendConditions, p *payload) (r *blobRecord, offset int64, err error) {
	var merged string // a file that an attempt has written in place of the last
	r, err = s.changeBlob(req.Context(), key, func(old *blobRecord) (*blobRecord, error) {
		if merged != "" { // of an attempt that lost
			s.discard([]string{merged})
			merged = ""
		}
		if err := cond.check(req, old, p.size); err != nil {
			return nil, err
		}
		next := *old
		offset = old.Size
		next.Lease = old.leaseKept(req.now)
		var err error
		if merged, err = s.extend(old, &next, p); errors.Is(err, fs.ErrNotExist) {
			return nil, errStale // another append has replaced the last file
		} else if err != nil {
			return nil, storageError("storing the content", err)
		}
		next.Appends++
		next.MD5 = nil // it is no longer that of the content
		return &next, s.stamp(req.Context(), &next, old)
	})
	switch {
	case merged == "":
	case err == nil:
		s.files.unpin(merged)
	case !unknownOutcome(err):
		s.discard([]string{merged})
	}
	if err == nil && !r.files()[p.file] {
		p.close() // its bytes went elsewhere
	} else {
		p.settle(err)
	}
	return r, offset, err
}

// extend adds a payload to next, a copy of old's record. Small content stays
// inline. When it outgrows that, and whenever the last file is small, the old
// end and the new bytes become one file, which is returned, pinned: so a log
// written line by line does not become a file per line.
func (s *Service) extend(old, next *blobRecord, p *payload) (merged string, err error) {
	next.Size = old.Size + p.size
	if len(old.Segments) == 0 && next.Size <= maxInline && p.file == "" {
		next.inline = append(bytes.Clone(old.inline), p.inline...)
		return "", nil
	}
	next.inline = nil
	next.Segments = append([]segment(nil), old.Segments...)
	tail := segment{Size: int64(len(old.inline))}
	if n := len(old.Segments); n > 0 && old.Segments[n-1].Size < maxInline {
		tail = old.Segments[n-1]
		next.Segments = next.Segments[:n-1]
	}
	if tail.Size == 0 && p.file != "" {
		next.Segments = append(next.Segments, segment{File: p.file, Size: p.size})
		return "", nil
	}
	merged, err = s.files.write(func(w io.Writer) error {
		if err := s.copyOut(w, tail, old.inline); err != nil {
			return err
		}
		return s.copyOut(w, segment{File: p.file, Size: p.size}, p.inline)
	})
	if err != nil {
		return "", err
	}
	next.Segments = append(next.Segments, segment{File: merged, Size: tail.Size + p.size})
	return merged, nil
}

// copyOut writes a file, or what stands inline in its place.
func (s *Service) copyOut(w io.Writer, seg segment, inline []byte) error {
	if seg.File == "" {
		_, err := w.Write(inline)
		return err
	}
	file, err := s.files.open(seg.File)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyN(w, file, seg.Size)
	return err
}

// appendConditions are those of Append Block.
type appendConditions struct {
	conditions
	position, maxSize int64 // -1 if not given
}

func readAppendConditions(req *request) (c appendConditions, err error) {
	if c.conditions, err = readConditions(req.Header, ownConditions); err != nil {
		return c, err
	}
	c.position, c.maxSize = -1, -1
	for name, to := range map[string]*int64{
		"x-ms-blob-condition-appendpos": &c.position, "x-ms-blob-condition-maxsize": &c.maxSize,
	} {
		if text := req.Header.Get(name); text != "" {
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil || *to < 0 {
				return c, newError(codeInvalidHeader, "The value of %s is not a size.", name)
			}
		}
	}
	return c, nil
}

func (c appendConditions) check(req *request, old *blobRecord, adding int64) error {
	if err := req.checkChange(c.conditions, old); err != nil {
		return err
	}
	switch {
	case old.Type != appendBlob:
		return errBlobType()
	case c.position >= 0 && c.position != old.Size:
		return newError(codeAppendPosition, "The append position condition specified was not met: the blob has %d bytes.", old.Size)
	case c.maxSize >= 0 && old.Size+max(adding, 0) > c.maxSize:
		return newError(codeMaxSizeCondition, "The max blob size condition specified was not met.")
	case old.Appends >= maxBlocks:
		return newError(codeBlockCount, "An append blob has %d blocks at most.", maxBlocks)
	}
	return nil
}
