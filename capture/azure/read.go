package azure

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millrace/millrace/capture"
)

// Stat implements capture.Destination.
func (s *Storage) Stat(ctx context.Context, container, name string) (capture.Object, error) {
	c, err := s.container(container)
	if err != nil {
		return capture.Object{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	p, err := c.NewBlobClient(name).GetProperties(ctx, nil)
	if err = clean(err); err != nil {
		return capture.Object{}, notFound("look for a captured file", err)
	}
	return capture.Object{Name: name, Size: value(p.ContentLength), Modified: value(p.LastModified), Metadata: lower(p.Metadata)}, nil
}

// Open implements capture.Destination. What is read goes on with another request if
// the connection breaks; ctx ends it.
func (s *Storage) Open(ctx context.Context, container, name string) (io.ReadCloser, error) {
	c, err := s.container(container)
	if err != nil {
		return nil, err
	}
	// The body lasts longer than the request: no deadline, but a watch on its answer.
	bctx, cancel := context.WithCancel(ctx)
	watch := time.AfterFunc(s.o.Timeout, cancel)
	r, err := c.NewBlobClient(name).DownloadStream(bctx, nil)
	if !watch.Stop() {
		if err == nil {
			r.Body.Close()
		}
		err = fmt.Errorf("no answer within %v", s.o.Timeout)
	}
	if err = clean(err); err != nil {
		cancel()
		return nil, notFound("open a captured file", err)
	}
	return &body{r.NewRetryReader(bctx, &blob.RetryReaderOptions{EarlyCloseAsError: true}), cancel}, nil
}

// body is what is read, with errors that are fit to be shown.
type body struct {
	r      io.ReadCloser
	cancel context.CancelFunc
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return io.EOF itself
		err = fmt.Errorf("read a captured file: %w", clean(err))
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	defer b.cancel()
	return b.r.Close()
}

// List implements capture.Destination, in the order of the names' UTF-8, from one
// page of the service's to the next. A container that is missing has no files.
func (s *Storage) List(ctx context.Context, name, prefix string) iter.Seq2[capture.Object, error] {
	return func(yield func(capture.Object, error) bool) {
		c, err := s.container(name)
		if err != nil {
			yield(capture.Object{}, err)
			return
		}
		o := &container.ListBlobsFlatOptions{Include: container.ListBlobsInclude{Metadata: true}, MaxResults: s.pageSize}
		if prefix != "" {
			o.Prefix = &prefix
		}
		for pages := c.NewListBlobsFlatPager(o); pages.More(); {
			page, err := s.next(ctx, pages.NextPage)
			if missing(err) {
				return
			}
			if err != nil {
				yield(capture.Object{}, fmt.Errorf("list captured files: %w", err))
				return
			}
			if page.Segment == nil {
				continue
			}
			for _, item := range page.Segment.BlobItems {
				if f, ok := file(item); ok && !yield(f, nil) {
					return
				}
			}
		}
	}
}

// next reads a page of a list.
func (s *Storage) next(ctx context.Context, page func(context.Context) (container.ListBlobsFlatResponse, error)) (container.ListBlobsFlatResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	p, err := page(ctx)
	return p, clean(err)
}

// file is a file in a list. Blobs of other types, and what stands for a folder in
// accounts with a hierarchical namespace, are none.
func file(item *container.BlobItem) (capture.Object, bool) {
	p := item.Properties
	if item.Name == nil || p == nil || p.BlobType != nil && *p.BlobType != container.BlobTypeBlockBlob {
		return capture.Object{}, false
	}
	m := lower(item.Metadata)
	if m["hdi_isfolder"] == "true" {
		return capture.Object{}, false
	}
	return capture.Object{Name: *item.Name, Size: value(p.ContentLength), Modified: value(p.LastModified), Metadata: m}, true
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// lower has metadata's names in lower case: headers come in any.
func lower(m map[string]*string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[strings.ToLower(k)] = value(v)
	}
	return out
}
