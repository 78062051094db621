package blob

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Copy Blob: PUT with x-ms-copy-source; 202 and already done. The source is a
// blob of the same account, addressed at this server. Put Blob From URL (the same
// with x-ms-blob-type) answers 201. Source: blob.md 2.5.

func (s *Service) copyBlob(req *request) error {
	fromURL := req.Header.Get("x-ms-blob-type") != ""
	if kind := req.Header.Get("x-ms-blob-type"); fromURL && !strings.EqualFold(kind, blockBlob) {
		return errNotImplemented("copying into other than block blobs")
	}
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	own, err := readProperties(req.Header, false)
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	if err := s.precheckPut(req, cond, key); err != nil {
		return err
	}
	source, err := s.copySource(req)
	if err != nil {
		return err
	}
	next, pinned, err := s.duplicate(source)
	if err != nil {
		s.discard(pinned)
		return storageError("copying the content", err)
	}
	next.overlay(own, fromURL)
	next.Copy = &copyInfo{ID: newUUID(), Source: withoutQuery(req.Header.Get("x-ms-copy-source")), At: s.now().UnixMilli()}
	r, err := s.changeBlob(req.Context(), key, func(old *blobRecord) (*blobRecord, error) {
		if err := req.checkPut(cond, old); err != nil {
			return nil, err
		}
		again := *next
		again.Lease = old.leaseKept(req.now)
		err := s.stamp(req.Context(), &again, old)
		again.BlocksBefore = max(again.BlocksBefore, again.ETag)
		return &again, err
	})
	switch {
	case err == nil:
		s.unpinAll(pinned)
	case !unknownOutcome(err):
		s.discard(pinned)
	}
	if err != nil {
		return err
	}
	s.later(cleanJob{blob: key})
	req.answerCopy(r, fromURL)
	return nil
}

func (req *request) answerCopy(r *blobRecord, fromURL bool) {
	req.setVersion(r.ETag, r.Modified)
	if fromURL {
		req.set("x-ms-request-server-encrypted", "true")
		if len(r.MD5) > 0 {
			req.set("Content-MD5", md5Text(r.MD5))
		}
		req.w.WriteHeader(http.StatusCreated)
		return
	}
	req.set("x-ms-copy-id", r.Copy.ID)
	req.set("x-ms-copy-status", "success")
	req.w.WriteHeader(http.StatusAccepted)
}

// overlay gives a copy what the request says in place of the source's: metadata,
// if there is any, and for Put Blob From URL the headers.
func (r *blobRecord) overlay(own *blobRecord, headers bool) {
	if len(own.Metadata) > 0 {
		r.Metadata = own.Metadata
	}
	if !headers {
		return
	}
	for _, f := range []struct{ to, from *string }{
		{&r.ContentType, &own.ContentType}, {&r.ContentEncoding, &own.ContentEncoding},
		{&r.ContentLanguage, &own.ContentLanguage}, {&r.CacheControl, &own.CacheControl},
		{&r.Disposition, &own.Disposition},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if own.MD5 != nil {
		r.MD5 = own.MD5
	}
}

func withoutQuery(source string) string {
	source, _, _ = strings.Cut(source, "?")
	return source
}

// copySource returns the blob that a request copies, with its files pinned.
func (s *Service) copySource(req *request) (*blobRecord, error) {
	a, q, err := s.parseSource(req)
	if err != nil {
		return nil, err
	}
	// Who signed with the account's key may read all of it; who has a shared
	// access signature needs one for the source.
	if req.bySAS {
		if _, err := s.checkSAS(req, q, a, &opGetBlob); err != nil {
			e := newError(codeSourceUnverified, "The source of the copy is not covered by a signature.")
			e.Status, e.Err = http.StatusForbidden, err
			return nil, e
		}
	}
	c, _, err := s.getContainer(req.Context(), a.account, a.container)
	if err != nil {
		return nil, err
	}
	key := blobKey{c.ID, a.blob}
	r, version, err := s.getBlob(req.Context(), key)
	if err != nil {
		return nil, err
	}
	if !r.live() {
		return nil, errBlobNotFound()
	}
	if r, err = s.pinBlob(req.Context(), key, r, version); err != nil {
		return nil, err
	}
	cond, err := readConditions(req.Header, sourceConditions)
	if err == nil && cond.checkWrite(r.ETag, r.Modified) != nil {
		err = newError(codeSourceCondition, "The source condition specified using HTTP conditional header(s) is not met.")
	}
	if err != nil {
		s.unpinBlob(r)
		return nil, err
	}
	return r, nil
}

// parseSource reads x-ms-copy-source.
func (s *Service) parseSource(req *request) (address, query, error) {
	text := req.Header.Get("x-ms-copy-source")
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return address{}, nil, newError(codeInvalidHeader, "The value of x-ms-copy-source is not a URL.")
	}
	rawPath, rawQuery, _ := strings.Cut(text[strings.Index(text, u.Host)+len(u.Host):], "?")
	q, err := parseQuery(rawQuery)
	if err != nil {
		return address{}, nil, err
	}
	a, err := s.parseAddress(u.Host, rawPath)
	if err != nil {
		return address{}, nil, err
	}
	if a.container != "" && a.blob == "" {
		a.container, a.blob = "$root", a.container
	}
	if !sameServer(u.Host, req.Host) || a.account != req.addr.account || a.blob == "" {
		return address{}, nil, errNotImplemented("copying from another account or server")
	}
	if q.get("snapshot") != "" || q.get("versionid") != "" {
		return address{}, nil, errBlobNotFound()
	}
	return a, q, a.check()
}

// sameServer tells whether two Host headers mean this server: the same host, or
// both loopback, with the same port. Labels that are accounts don't count.
func sameServer(a, b string) bool {
	hostA, portA := splitHost(a)
	hostB, portB := splitHost(b)
	if portA != portB {
		return false
	}
	if hostA == hostB || loopback(hostA) && loopback(hostB) {
		return true
	}
	_, restA, _ := strings.Cut(hostA, ".")
	_, restB, _ := strings.Cut(hostB, ".")
	return restA != "" && restA == restB && !isAddress(hostA) && !isAddress(hostB)
}

func splitHost(s string) (host, port string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host = s
	}
	return strings.ToLower(strings.Trim(host, "[]")), port
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && a.IsLoopback()
}

// duplicate makes a record with the content of another, in files of its own,
// which come back pinned. The source's files are unpinned.
func (s *Service) duplicate(source *blobRecord) (next *blobRecord, pinned []string, err error) {
	defer s.unpinBlob(source)
	r := *source
	r.Lease, r.BlocksBefore, r.Copy = nil, 0, nil
	r.Segments = nil
	twins := map[string]string{} // a blob may use a file twice
	for _, seg := range source.Segments {
		twin := twins[seg.File]
		if twin == "" {
			if twin, err = s.files.link(seg.File); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					err = storageError("copying the content", errBadRecord)
				}
				return nil, pinned, err
			}
			twins[seg.File] = twin
			pinned = append(pinned, twin)
		}
		seg.File = twin
		r.Segments = append(r.Segments, seg)
	}
	return &r, pinned, nil
}

// receiveSource stores a range of a copy's source as content of its own, as if it
// had come in the body: Put Block From URL. x-ms-source-range says which range,
// x-ms-source-content-md5 and -crc64 what its checksums must be.
func (s *Service) receiveSource(req *request) (*payload, error) {
	want, err := readChecksums(req.Header, "x-ms-source-content-md5", "x-ms-source-content-crc64")
	if err != nil {
		return nil, err
	}
	source, err := s.copySource(req)
	if err != nil {
		return nil, err
	}
	defer s.unpinBlob(source)
	start, end := int64(0), source.Size-1
	if text := req.Header.Get("x-ms-source-range"); text != "" {
		var ok bool
		if start, end, ok = parseRange(text); !ok {
			return nil, newError(codeInvalidHeader, "The value of x-ms-source-range is not of the form bytes=a-b.")
		}
		end = min(end, source.Size-1)
	}
	if start > end {
		return nil, newError(codeInvalidRange, "The range of the source is empty, or past its end.")
	}
	from := s.open(source, start, end-start+1)
	defer from.close()
	p, err := s.receive(req.Context(), from, end-start+1, -1, s.o.MaxBodySize)
	if err != nil {
		return nil, err
	}
	if err := want.compare(p.md5[:], p.crc); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// discard removes files that got no record.
func (s *Service) discard(pinned []string) {
	for _, file := range pinned {
		s.files.drop(file)
		s.files.unpin(file)
	}
}

// abortCopy: copies are done when they are answered, so there is none to abort.
func (s *Service) abortCopy(req *request) error {
	if _, _, _, err := s.findBlob(req); err != nil {
		return err
	}
	return newError(codeNoPendingCopy, "There is currently no pending copy operation.")
}
