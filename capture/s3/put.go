package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/millrace/millrace/capture"
)

// upload is one file on its way.
type upload struct {
	*Storage
	bucket, name string
	file         *capture.File
	src          *os.File
}

// Put implements capture.Destination.
func (s *Storage) Put(ctx context.Context, container, name string, f *capture.File) error {
	bucket, err := s.bucket(container)
	if err != nil {
		return err
	}
	src, err := f.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	u := &upload{s, bucket, name, f, src}
	err = u.put(ctx)
	if noBucket(err) && s.o.CreateBucket {
		if err := s.create(ctx, bucket); err != nil {
			return err
		}
		err = u.put(ctx)
	}
	switch {
	case err == nil:
		return nil
	case exists(err):
		return capture.ErrExists
	case ctx.Err() == nil && unclear(err):
		if there, _ := u.isThere(ctx); there { // otherwise the first error tells more
			return capture.ErrExists
		}
	}
	if unconditional(err) && !s.o.CheckThenPut {
		err = fmt.Errorf("%w; a store that knows no conditional writes can be used with CheckThenPut", err)
	}
	return fmt.Errorf("put a captured file: %w", err)
}

// create makes the bucket. That it was made meanwhile is as good.
func (s *Storage) create(ctx context.Context, bucket string) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	err := s.clean(s.client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: s.o.Region}))
	if err != nil && !bucketExists(err) {
		return fmt.Errorf("make a bucket for captured files: %w", err)
	}
	return nil
}

func (u *upload) put(ctx context.Context) error {
	if u.o.CheckThenPut || u.file.Size > u.o.PartSize { // all the parts for nothing would be a waste
		if there, err := u.isThere(ctx); err != nil || there {
			if there {
				return capture.ErrExists
			}
			return err
		}
	}
	if u.file.Size > u.o.PartSize {
		return u.parts(ctx)
	}
	return u.whole(ctx)
}

func (u *upload) isThere(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err := u.client.StatObject(ctx, u.bucket, u.name, minio.StatObjectOptions{})
	if err = u.clean(err); missing(err) {
		return false, nil
	}
	return err == nil, err
}

// condition has the request that makes the object fail if there is one of the name.
func (u *upload) condition(o minio.PutObjectOptions) minio.PutObjectOptions {
	if !u.o.CheckThenPut {
		o.SetMatchETagExcept("*")
	}
	return o
}

func (u *upload) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{ContentType: u.file.ContentType, UserMetadata: u.file.Metadata}
}

// piece is a part of the file, and the checksum of it, which the store compares.
func (u *upload) piece(from, size int64) (*io.SectionReader, string, error) {
	sum := md5.New()
	r := io.NewSectionReader(u.src, from, size)
	n, err := io.Copy(sum, r)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", u.file.Path, err)
	}
	return r, base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}

// whole is PutObject.
func (u *upload) whole(ctx context.Context) error {
	body, sum, err := u.piece(0, u.file.Size)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err = u.client.PutObject(ctx, u.bucket, u.name, body, u.file.Size, sum, "", u.condition(u.options()))
	return u.clean(err)
}

// parts is CreateMultipartUpload, UploadPart as often as there is something left, and
// CompleteMultipartUpload. The client's own PutObject has the condition on the first
// of these, where it means nothing.
func (u *upload) parts(ctx context.Context) (err error) {
	id, err := u.begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if left := u.abort(ctx, id); left != nil {
			err = fmt.Errorf("%w (%v)", err, left) //nolint:errorlint // the first decides
		}
	}()
	size := max(u.o.PartSize, (u.file.Size+maxParts-1)/maxParts)
	var parts []minio.CompletePart
	for from := int64(0); from < u.file.Size; from += size {
		part, err := u.part(ctx, id, len(parts)+1, from, min(size, u.file.Size-from))
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err = u.client.CompleteMultipartUpload(ctx, u.bucket, u.name, id, parts, u.condition(minio.PutObjectOptions{}))
	return u.clean(err)
}

func (u *upload) begin(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	id, err := u.client.NewMultipartUpload(ctx, u.bucket, u.name, u.options())
	return id, u.clean(err)
}

func (u *upload) part(ctx context.Context, id string, number int, from, size int64) (minio.CompletePart, error) {
	body, sum, err := u.piece(from, size)
	if err != nil {
		return minio.CompletePart{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	p, err := u.client.PutObjectPart(ctx, u.bucket, u.name, id, number, body, size, minio.PutObjectPartOptions{Md5Base64: sum})
	return minio.CompletePart{PartNumber: number, ETag: p.ETag}, u.clean(err)
}

// abortTime is how long it may take to clear away what failed.
const abortTime = 10 * time.Second

// abort ends an upload, though ctx may have ended.
func (u *upload) abort(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(abortTime, u.o.Timeout))
	defer cancel()
	err := u.clean(u.client.AbortMultipartUpload(ctx, u.bucket, u.name, id))
	if err == nil || missing(err) {
		return nil
	}
	return fmt.Errorf("its parts are left: abort the multipart upload: %w", err)
}
