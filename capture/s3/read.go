package s3

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/millrace/millrace/capture"
)

// Stat implements capture.Destination.
func (s *Storage) Stat(ctx context.Context, container, name string) (capture.Object, error) {
	bucket, err := s.bucket(container)
	if err != nil {
		return capture.Object{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	i, err := s.client.StatObject(ctx, bucket, name, minio.StatObjectOptions{})
	if err = s.clean(err); err != nil {
		return capture.Object{}, notFound("look for a captured file", err)
	}
	m := make(map[string]string, len(i.UserMetadata))
	for k, v := range i.UserMetadata {
		m[strings.ToLower(k)] = v
	}
	return capture.Object{Name: name, Size: i.Size, Modified: i.LastModified, Metadata: m}, nil
}

// watch ends a request that gets no answer in time.
type watch struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelFunc
}

func (s *Storage) watch(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancel(ctx)
	return ctx, &watch{time.AfterFunc(s.o.Timeout, cancel), s.o.Timeout, cancel}
}

// stop is called with each answer; again is to wait for another.
func (w *watch) stop(err error) error {
	if !w.timer.Stop() {
		return fmt.Errorf("no answer within %v", w.after)
	}
	return err
}

func (w *watch) again() { w.timer.Reset(w.after) }

// Open implements capture.Destination. ctx ends what is read.
func (s *Storage) Open(ctx context.Context, container, name string) (io.ReadCloser, error) {
	bucket, err := s.bucket(container)
	if err != nil {
		return nil, err
	}
	ctx, w := s.watch(ctx)
	r, _, _, err := s.client.GetObject(ctx, bucket, name, minio.GetObjectOptions{})
	opened := err == nil
	if err = w.stop(s.clean(err)); err != nil {
		w.cancel()
		if opened {
			r.Close()
		}
		return nil, notFound("open a captured file", err)
	}
	return &body{s, r, w.cancel}, nil
}

// body is what is read, with errors that are fit to be shown.
type body struct {
	s      *Storage
	r      io.ReadCloser
	cancel context.CancelFunc
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return io.EOF itself
		err = fmt.Errorf("read a captured file: %w", b.s.clean(err))
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	defer b.cancel()
	return b.r.Close()
}

// List implements capture.Destination, in the order of the names' UTF-8, from one
// page of the store's to the next. Lists have no metadata. A bucket that is missing
// has no files.
func (s *Storage) List(ctx context.Context, container, prefix string) iter.Seq2[capture.Object, error] {
	return func(yield func(capture.Object, error) bool) {
		bucket, err := s.bucket(container)
		if err != nil {
			yield(capture.Object{}, err)
			return
		}
		ctx, w := s.watch(ctx)
		defer w.cancel()
		for i := range s.client.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, MaxKeys: s.pageSize}) {
			if err := w.stop(s.clean(i.Err)); err != nil {
				if !missing(err) {
					yield(capture.Object{}, fmt.Errorf("list captured files: %w", err))
				}
				return
			}
			if strings.HasSuffix(i.Key, "/") { // what stands for a folder
				w.again()
				continue
			}
			if !yield(capture.Object{Name: i.Key, Size: i.Size, Modified: i.LastModified}, nil) {
				return
			}
			w.again()
		}
		// The client's list just ends when its context has.
		if err := w.stop(ctx.Err()); err != nil {
			yield(capture.Object{}, fmt.Errorf("list captured files: %w", err))
		}
	}
}
