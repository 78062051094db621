package blob

import (
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"slices"

	"github.com/millrace/millrace/store"
)

// Containers: restype=container. Create 201, get 200, delete 202, Set Metadata
// (comp=metadata) and the stored access policies (comp=acl) 200. Public access is
// not offered. Source: blob.md 1.2, 2.5.

func (s *Service) createContainer(req *request) error {
	if access := req.Header.Get("x-ms-blob-public-access"); access != "" {
		return newError(codeNotPublic, "Public access is not permitted on this storage account.")
	}
	metadata, err := readMetadata(req.Header)
	if err != nil {
		return err
	}
	c, err := s.makeContainer(req.Context(), req.addr.account, req.addr.container, metadata)
	if err != nil {
		return err
	}
	req.setVersion(c.ETag, c.Modified)
	req.w.WriteHeader(http.StatusCreated)
	return nil
}

// makeContainer stores a new container.
func (s *Service) makeContainer(ctx context.Context, account, name string, metadata []pair) (*containerRecord, error) {
	etag, err := s.tick(ctx, 0)
	if err != nil {
		return nil, err
	}
	c := &containerRecord{ID: newFileID(), ETag: etag, Modified: s.now().UnixMilli(), Metadata: metadata}
	_, err = s.meta.Put(context.WithoutCancel(ctx), containerKey(account, name), encodeJSON(c), 0)
	if _, exists := errors.AsType[*store.ConflictError](err); exists {
		return nil, newError(codeContainerExists, "The specified container already exists.")
	}
	if err != nil {
		return nil, storageError("storing a container's record", err)
	}
	return c, nil
}

// getContainerProperties serves Get Container Properties and Get Container
// Metadata.
func (s *Service) getContainerProperties(req *request) error {
	c, _, err := s.getContainer(req.Context(), req.addr.account, req.addr.container)
	if err != nil {
		return err
	}
	if err := c.Lease.checkContainerRead(req); err != nil {
		return err
	}
	req.setVersion(c.ETag, c.Modified)
	req.setMetadata(c.Metadata)
	if req.query.get("comp") == "" {
		c.Lease.setHeaders(req)
		req.set("x-ms-has-immutability-policy", "false")
		req.set("x-ms-has-legal-hold", "false")
		req.set("x-ms-default-encryption-scope", "$account-encryption-key")
		req.set("x-ms-deny-encryption-scope-override", "false")
	}
	req.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Service) setContainerMetadata(req *request) error {
	metadata, err := readMetadata(req.Header)
	if err != nil {
		return err
	}
	return s.updateContainer(req, func(c *containerRecord) { c.Metadata = metadata })
}

// updateContainer changes a container's record under the request's conditions.
func (s *Service) updateContainer(req *request, change func(*containerRecord)) error {
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	c, err := s.changeContainer(req.Context(), req.addr.account, req.addr.container, func(c *containerRecord) error {
		if err := cond.checkWrite(c.ETag, c.Modified); err != nil {
			return err
		}
		if err := c.Lease.checkContainerRead(req); err != nil {
			return err
		}
		change(c)
		c.Modified = max(c.Modified, s.now().UnixMilli())
		c.ETag, err = s.tick(req.Context(), c.ETag)
		return err
	})
	if err != nil {
		return err
	}
	req.setVersion(c.ETag, c.Modified)
	req.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Service) deleteContainer(req *request) error {
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	for range maxAttempts {
		c, version, err := s.getContainer(req.Context(), req.addr.account, req.addr.container)
		if err != nil {
			return err
		}
		if err := cond.checkWrite(c.ETag, c.Modified); err != nil {
			return err
		}
		if err := c.Lease.checkContainerDelete(req); err != nil {
			return err
		}
		err = s.meta.Delete(req.Context(), containerKey(req.addr.account, req.addr.container), version)
		if _, lost := errors.AsType[*store.ConflictError](err); lost {
			continue
		}
		if err != nil {
			return storageError("deleting a container's record", err)
		}
		s.later(cleanJob{container: c.ID})
		req.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return errContention()
}

const maxPolicies = 5

// signedIdentifiers is the document of Get and Set Container ACL.
type signedIdentifiers struct {
	XMLName xml.Name `xml:"SignedIdentifiers"`
	List    []struct {
		ID     string `xml:"Id"`
		Policy struct {
			Start      string
			Expiry     string
			Permission string
		} `xml:"AccessPolicy"`
	} `xml:"SignedIdentifier"`
}

func (s *Service) getContainerACL(req *request) error {
	c, _, err := s.getContainer(req.Context(), req.addr.account, req.addr.container)
	if err != nil {
		return err
	}
	if err := c.Lease.checkContainerRead(req); err != nil {
		return err
	}
	req.setVersion(c.ETag, c.Modified)
	var x xmlWriter
	x.open("SignedIdentifiers")
	for _, p := range c.Policies {
		x.open("SignedIdentifier")
		x.element("Id", p.ID)
		x.open("AccessPolicy")
		x.nonEmpty("Start", p.Start)
		x.nonEmpty("Expiry", p.Expiry)
		x.nonEmpty("Permission", p.Permission)
		x.close("AccessPolicy")
		x.close("SignedIdentifier")
	}
	x.close("SignedIdentifiers")
	req.writeXML(http.StatusOK, &x)
	return nil
}

func (s *Service) setContainerACL(req *request) error {
	if access := req.Header.Get("x-ms-blob-public-access"); access != "" {
		return newError(codeNotPublic, "Public access is not permitted on this storage account.")
	}
	body, err := s.readDocument(req, maxSmallDocument)
	if err != nil {
		return err
	}
	var doc signedIdentifiers
	if len(body) > 0 { // none means no policies
		if err := parseXML(body, &doc); err != nil {
			return err
		}
	}
	if len(doc.List) > maxPolicies {
		return newError(codeInvalidXML, "A container has %d stored access policies at most.", maxPolicies)
	}
	var policies []policy
	for _, d := range doc.List {
		p := policy{d.ID, d.Policy.Start, d.Policy.Expiry, d.Policy.Permission}
		if err := p.check(policies); err != nil {
			return err
		}
		policies = append(policies, p)
	}
	return s.updateContainer(req, func(c *containerRecord) { c.Policies = policies })
}

func (p policy) check(before []policy) error {
	_, startOK := parseSASTime(p.Start)
	_, expiryOK := parseSASTime(p.Expiry)
	if p.ID == "" || len(p.ID) > 64 || !xmlLegal(p.ID) ||
		p.Start != "" && !startOK || p.Expiry != "" && !expiryOK ||
		slices.ContainsFunc(before, func(b policy) bool { return b.ID == p.ID }) {
		return newError(codeInvalidXML, "A stored access policy has no valid id, start or expiry, or an id twice.")
	}
	return nil
}
