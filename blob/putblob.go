package blob

import (
	"net/http"
	"strconv"
	"strings"
)

// Put Blob: PUT /container/blob with x-ms-blob-type BlockBlob (the whole content)
// or AppendBlob (empty at first). 201. Page blobs are not offered.
// Source: blob.md 1.2, 2.4.

func (s *Service) putBlob(req *request) error {
	kind, err := putType(req)
	if err != nil {
		return err
	}
	props, err := readProperties(req.Header, true)
	if err != nil {
		return err
	}
	cond, err := readConditions(req.Header, ownConditions)
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
	p, err := s.receiveBody(req, maxInline)
	if err != nil {
		return err
	}
	defer p.close()
	if kind == appendBlob && p.size != 0 {
		return newError(codeInvalidHeader, "An append blob is created empty; Content-Length must be 0.")
	}
	if err := props.takeMD5(kind, p); err != nil {
		return err
	}
	r, err := s.changeBlob(req.Context(), key, func(old *blobRecord) (*blobRecord, error) {
		if err := req.checkPut(cond, old); err != nil {
			return nil, err
		}
		next := *props
		next.Type = kind
		p.fill(&next)
		next.Lease = old.leaseKept(req.now)
		err := s.stamp(req.Context(), &next, old)
		next.BlocksBefore = max(next.BlocksBefore, next.ETag) // drops staged blocks
		return &next, err
	})
	p.settle(err)
	if err != nil {
		return err
	}
	s.later(cleanJob{blob: key})
	req.setVersion(r.ETag, r.Modified)
	if len(r.MD5) > 0 {
		req.set("Content-MD5", md5Text(r.MD5))
	}
	req.set("x-ms-content-crc64", crcText(p.crc))
	req.set("x-ms-request-server-encrypted", "true")
	req.w.WriteHeader(http.StatusCreated)
	return nil
}

// takeMD5 compares the MD5 that the client gave for the blob, or else, for the
// whole content of a block blob, takes the one computed.
func (r *blobRecord) takeMD5(kind string, p *payload) error {
	if r.MD5 != nil {
		return checksums{md5: r.MD5}.compare(p.md5[:], p.crc)
	}
	if kind == blockBlob {
		r.MD5 = p.md5[:]
	}
	return nil
}

func putType(req *request) (string, error) {
	switch kind := req.Header.Get("x-ms-blob-type"); {
	case kind == "":
		return "", newError(codeMissingHeader, "The header x-ms-blob-type is required.")
	case strings.EqualFold(kind, blockBlob):
		return blockBlob, nil
	case strings.EqualFold(kind, appendBlob):
		return appendBlob, nil
	case strings.EqualFold(kind, "PageBlob"):
		return "", errNotImplemented("page blobs")
	}
	return "", newError(codeInvalidHeader, "The value of x-ms-blob-type is not a type of blobs.")
}

// precheckPut refuses before the body has been read: a client may wait for 100
// Continue. What it finds may change; checkPut decides once more.
func (s *Service) precheckPut(req *request, cond conditions, key blobKey) error {
	old, _, err := s.getBlob(req.Context(), key)
	if err != nil {
		return err
	}
	return req.checkPut(cond, old)
}

// checkPut is what making or replacing a blob depends on: its conditions, its
// lease, and whether the signature may replace at all.
func (req *request) checkPut(cond conditions, old *blobRecord) error {
	if err := cond.checkPut(old); err != nil {
		return err
	}
	if !old.live() {
		if req.Header.Get("x-ms-lease-id") != "" {
			return newError(codeLeaseNotPresentBlob, "There is currently no lease on the blob.")
		}
		return nil
	}
	if req.createOnly {
		return errPermission()
	}
	return old.Lease.checkBlobWrite(req)
}

// readProperties takes a blob's headers and metadata from a request: the
// x-ms-blob-… ones and, if the body is the content itself, the standard ones in
// their place.
func readProperties(h http.Header, standard bool) (*blobRecord, error) {
	get := func(own, plain string) string {
		if v := h.Get(own); v != "" || !standard || plain == "" {
			return v
		}
		return h.Get(plain)
	}
	r := &blobRecord{
		ContentType:     get("x-ms-blob-content-type", "Content-Type"),
		ContentEncoding: get("x-ms-blob-content-encoding", "Content-Encoding"),
		ContentLanguage: get("x-ms-blob-content-language", "Content-Language"),
		CacheControl:    get("x-ms-blob-cache-control", "Cache-Control"),
		Disposition:     get("x-ms-blob-content-disposition", ""),
	}
	var err error
	if r.MD5, err = readMD5(h, "x-ms-blob-content-md5"); err != nil {
		return nil, err
	}
	r.Metadata, err = readMetadata(h)
	return r, err
}

// contentType is the blob's, or the service's default.
func (r *blobRecord) contentType() string {
	if r.ContentType == "" {
		return "application/octet-stream"
	}
	return r.ContentType
}

// setProperties writes what every answer about a blob's state has.
func (req *request) setProperties(r *blobRecord) {
	req.setVersion(r.ETag, r.Modified)
	req.set("x-ms-blob-type", r.Type)
	req.set("x-ms-creation-time", httpTime(r.Created))
	req.set("x-ms-server-encrypted", "true")
	req.set("Accept-Ranges", "bytes")
	r.Lease.setHeaders(req)
	if r.Type == appendBlob {
		req.set("x-ms-blob-committed-block-count", strconv.Itoa(r.Appends))
	} else {
		req.set("x-ms-access-tier", "Hot")
		req.set("x-ms-access-tier-inferred", "true")
	}
	req.setMetadata(r.Metadata)
	if c := r.Copy; c != nil {
		req.set("x-ms-copy-id", c.ID)
		req.set("x-ms-copy-source", c.Source)
		req.set("x-ms-copy-status", "success")
		req.set("x-ms-copy-completion-time", httpTime(c.At))
		size := strconv.FormatInt(r.Size, 10)
		req.set("x-ms-copy-progress", size+"/"+size)
	}
	// A shared access signature may put other values in the place of these.
	sas := func(field, value string) string {
		if v := req.query.get(field); req.bySAS && v != "" {
			return v
		}
		return value
	}
	req.set("Content-Type", sas("rsct", r.contentType()))
	req.setNonEmpty("Content-Encoding", sas("rsce", r.ContentEncoding))
	req.setNonEmpty("Content-Language", sas("rscl", r.ContentLanguage))
	req.setNonEmpty("Cache-Control", sas("rscc", r.CacheControl))
	req.setNonEmpty("Content-Disposition", sas("rscd", r.Disposition))
}
