package blob

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Item is what the direct methods tell of a blob.
type Item struct {
	Name        string
	Size        int64  // bytes
	ETag        string // without quotes
	Modified    time.Time
	ContentType string
	Metadata    map[string]string // names in lower case
}

// UploadOptions go with [Service.Upload]; the zero value replaces what there is.
type UploadOptions struct {
	ContentType string            // default application/octet-stream
	Metadata    map[string]string // names in lower case, values in ASCII
	// IfAbsent fails with [BlobAlreadyExists] if there is such a blob.
	IfAbsent bool
	// IfMatch, unless "", fails with [ConditionNotMet] if the blob's ETag is
	// another, or there is no blob.
	IfMatch string
}

// noLimit is for content that we hand over ourselves.
const noLimit = 1 << 62

func (r *blobRecord) item(name string) Item {
	i := Item{
		Name: name, Size: r.Size, ETag: etagText(r.ETag), Modified: time.UnixMilli(r.Modified).UTC(),
		ContentType: r.contentType(), Metadata: make(map[string]string, len(r.Metadata)),
	}
	for _, p := range r.Metadata {
		i.Metadata[p[0]] = p[1]
	}
	return i
}

// CreateContainer makes a container; one that exists already is no error.
// Errors of this and the following methods are *Error, for names that can't be,
// too.
func (s *Service) CreateContainer(ctx context.Context, account, name string) error {
	if s.accounts[account] == nil || !validContainer(name) {
		return newError(codeInvalidName, "There is no account %q, or %q is no name for a container.", account, name)
	}
	_, err := s.makeContainer(ctx, account, name, nil)
	if e, ok := errors.AsType[*Error](err); ok && e.Code == codeContainerExists {
		return nil
	}
	return err
}

// Upload stores a blob of any size, as one Put Blob does: all of body or nothing.
// It is durable when Upload returns.
func (s *Service) Upload(ctx context.Context, account, container, name string, body io.Reader, o UploadOptions) (Item, error) {
	key, err := s.resolve(ctx, account, container, name)
	if err != nil {
		return Item{}, err
	}
	header := http.Header{}
	for k, v := range o.Metadata {
		header[metaPrefix+k] = []string{v}
	}
	metadata, err := readMetadata(header)
	if err != nil {
		return Item{}, err
	}
	var cond conditions
	if o.IfAbsent {
		cond.noneMatch = []string{"*"}
	}
	if o.IfMatch != "" {
		cond.match = etagList([]string{o.IfMatch})
	}
	p, err := s.receive(ctx, body, -1, maxInline, noLimit)
	if err != nil {
		return Item{}, err
	}
	defer p.close()
	r, err := s.changeBlob(ctx, key, func(old *blobRecord) (*blobRecord, error) {
		if err := s.checkDirect(cond, old); err != nil {
			return nil, err
		}
		next := &blobRecord{Type: blockBlob, ContentType: o.ContentType, Metadata: metadata, MD5: slices.Clone(p.md5[:])}
		p.fill(next)
		err := s.stamp(ctx, next, old)
		next.BlocksBefore = max(next.BlocksBefore, next.ETag)
		return next, err
	})
	p.settle(err)
	if err != nil {
		return Item{}, err
	}
	s.later(cleanJob{blob: key})
	return r.item(name), nil
}

// checkDirect is what replacing a blob depends on, for one who has no lease.
func (s *Service) checkDirect(cond conditions, old *blobRecord) error {
	if err := cond.checkPut(old); err != nil || !old.live() {
		return err
	}
	return old.Lease.check("", s.now(), codeLeaseIDMissing, codeLeaseNotPresentBlob, codeLeaseMismatchBlob)
}

// Stat returns what a blob says of itself.
func (s *Service) Stat(ctx context.Context, account, container, name string) (Item, error) {
	key, err := s.resolve(ctx, account, container, name)
	if err != nil {
		return Item{}, err
	}
	r, _, err := s.getBlob(ctx, key)
	if err != nil {
		return Item{}, err
	}
	if !r.live() {
		return Item{}, errBlobNotFound()
	}
	return r.item(name), nil
}

// Open returns a blob's content, of one state of it, whatever happens to the blob
// meanwhile. The caller closes the reader.
func (s *Service) Open(ctx context.Context, account, container, name string) (io.ReadCloser, Item, error) {
	key, err := s.resolve(ctx, account, container, name)
	if err != nil {
		return nil, Item{}, err
	}
	r, version, err := s.getBlob(ctx, key)
	if err != nil {
		return nil, Item{}, err
	}
	if !r.live() {
		return nil, Item{}, errBlobNotFound()
	}
	if r, err = s.pinBlob(ctx, key, r, version); err != nil {
		return nil, Item{}, err
	}
	return &reader{s: s, r: r, content: s.open(r, 0, r.Size)}, r.item(name), nil
}

// reader is an open blob.
type reader struct {
	s       *Service
	r       *blobRecord
	content *content
}

// Read implements io.Reader.
func (o *reader) Read(p []byte) (int, error) {
	if o.r == nil {
		return 0, errors.New("blob: read after Close")
	}
	return o.content.Read(p)
}

// Close implements io.Closer.
func (o *reader) Close() error {
	if o.r == nil {
		return nil
	}
	o.content.close()
	o.s.unpinBlob(o.r)
	o.r = nil
	return nil
}

// Items yields the blobs of a container whose names begin with prefix, in the
// order of their names' bytes, page by page: each page of 5,000 is one snapshot.
// The loop may change blobs. An error ends it.
func (s *Service) Items(ctx context.Context, account, container, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		c, _, err := s.getContainer(ctx, account, container)
		if err != nil {
			yield(Item{}, err)
			return
		}
		l := listRequest{prefix: prefix, max: maxResults}
		for {
			page, next, err := s.listPage(ctx, c.ID, l)
			if err != nil {
				yield(Item{}, err)
				return
			}
			for _, item := range page {
				if !yield(item.blob.item(item.name), nil) {
					return
				}
			}
			if next == "" {
				return
			}
			l.after = next
		}
	}
}

// Remove deletes a blob; [BlobNotFound] if there is none.
func (s *Service) Remove(ctx context.Context, account, container, name string) error {
	key, err := s.resolve(ctx, account, container, name)
	if err != nil {
		return err
	}
	return s.removeBlob(ctx, key, func(old *blobRecord) error {
		if !old.live() {
			return errBlobNotFound()
		}
		return s.checkDirect(conditions{}, old)
	})
}

// resolve returns the key of a blob in a container that exists.
func (s *Service) resolve(ctx context.Context, account, container, name string) (blobKey, error) {
	decoded, err := decodeSegment(strings.ReplaceAll(name, "%", "%25"))
	if err != nil || name == "" || decoded != name {
		return blobKey{}, newError(codeInvalidName, "%q is no name for a blob.", clip(name))
	}
	if err := (address{container: container, blob: name}).check(); err != nil {
		return blobKey{}, err
	}
	c, _, err := s.getContainer(ctx, account, container)
	if err != nil {
		return blobKey{}, err
	}
	return blobKey{c.ID, name}, nil
}
