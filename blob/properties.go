package blob

import (
	"net/http"
	"strings"
)

// Get and Set Blob Metadata: comp=metadata. Setting replaces the whole set, and
// renews ETag and Last-Modified; it is how partitions are claimed and
// checkpoints written. Set HTTP Headers: comp=properties; what is not given is
// cleared. Delete Blob: 202. Source: blob.md 1.2, 1.3.

func (s *Service) getBlobMetadata(req *request) error {
	r, _, _, err := s.findBlob(req)
	if err != nil {
		return err
	}
	if err := req.checkRead(r); err != nil {
		return err
	}
	req.setVersion(r.ETag, r.Modified)
	req.setMetadata(r.Metadata)
	req.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Service) setBlobMetadata(req *request) error {
	metadata, err := readMetadata(req.Header)
	if err != nil {
		return err
	}
	return s.update(req, func(r *blobRecord) { r.Metadata = metadata })
}

func (s *Service) setBlobProperties(req *request) error {
	if req.Header.Get("x-ms-blob-content-length") != "" || req.Header.Get("x-ms-sequence-number-action") != "" {
		return errNotImplemented("page blobs")
	}
	props, err := readProperties(req.Header, false)
	if err != nil {
		return err
	}
	return s.update(req, func(r *blobRecord) {
		r.ContentType, r.ContentEncoding, r.ContentLanguage = props.ContentType, props.ContentEncoding, props.ContentLanguage
		r.CacheControl, r.Disposition, r.MD5 = props.CacheControl, props.Disposition, props.MD5
	})
}

// update changes what a blob says of itself, not its content.
func (s *Service) update(req *request, change func(*blobRecord)) error {
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	r, err := s.changeBlob(req.Context(), key, func(old *blobRecord) (*blobRecord, error) {
		if err := req.checkChange(cond, old); err != nil {
			return nil, err
		}
		next := *old
		next.Lease = old.leaseKept(req.now)
		change(&next)
		return &next, s.stamp(req.Context(), &next, old)
	})
	if err != nil {
		return err
	}
	req.setVersion(r.ETag, r.Modified)
	req.set("x-ms-request-server-encrypted", "true")
	req.w.WriteHeader(http.StatusOK)
	return nil
}

// checkChange is what changing an existing blob depends on. A missing one is 404
// whatever the conditions are.
func (req *request) checkChange(cond conditions, old *blobRecord) error {
	if !old.live() {
		return errBlobNotFound()
	}
	if err := cond.checkWrite(old.ETag, old.Modified); err != nil {
		return err
	}
	return old.Lease.checkBlobWrite(req)
}

func (s *Service) deleteBlob(req *request) error {
	if req.query.get("snapshot") != "" || req.query.get("versionid") != "" {
		return errBlobNotFound()
	}
	if strings.EqualFold(req.Header.Get("x-ms-delete-snapshots"), "only") {
		req.w.WriteHeader(http.StatusAccepted) // there are none
		return nil
	}
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	err = s.removeBlob(req.Context(), key, func(old *blobRecord) error { return req.checkChange(cond, old) })
	if err != nil {
		return err
	}
	req.set("x-ms-delete-type-permanent", "true")
	req.w.WriteHeader(http.StatusAccepted)
	return nil
}
