package azure

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millrace/millrace/capture"
)

// upload is one file on its way.
type upload struct {
	*Storage
	to   *blockblob.Client
	file *capture.File
	src  *os.File
}

// Put implements capture.Destination.
func (s *Storage) Put(ctx context.Context, container, name string, f *capture.File) error {
	c, err := s.container(container)
	if err != nil {
		return err
	}
	src, err := f.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	u := &upload{s, c.NewBlockBlobClient(name), f, src}
	err = u.put(ctx)
	if refused(err, bloberror.ContainerNotFound) && s.o.CreateContainer {
		if err := s.create(ctx, c); err != nil {
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
	return fmt.Errorf("put a captured file: %w", err)
}

// create makes the container. That another made it first is as good.
func (s *Storage) create(ctx context.Context, c *container.Client) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	_, err := c.Create(ctx, nil)
	if err = clean(err); err != nil && !refused(err, bloberror.ContainerAlreadyExists) {
		return fmt.Errorf("make a container for captured files: %w", err)
	}
	return nil
}

func (u *upload) put(ctx context.Context) error {
	if u.file.Size <= u.o.BlockSize {
		return u.whole(ctx)
	}
	// All the blocks for nothing would be a waste.
	if there, err := u.isThere(ctx); err != nil || there {
		if there {
			return capture.ErrExists
		}
		return err
	}
	return u.blocks(ctx)
}

func (u *upload) isThere(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err := u.to.GetProperties(ctx, nil)
	if err = clean(err); missing(err) {
		return false, nil
	}
	return err == nil, err
}

// absent has a request fail if there is a blob of the name.
func absent() *blob.AccessConditions {
	return &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: new(azcore.ETagAny)}}
}

func (u *upload) headers() *blob.HTTPHeaders {
	h := &blob.HTTPHeaders{}
	if u.file.ContentType != "" {
		h.BlobContentType = &u.file.ContentType
	}
	return h
}

func (u *upload) metadata() map[string]*string {
	m := make(map[string]*string, len(u.file.Metadata))
	for k, v := range u.file.Metadata {
		m[k] = &v
	}
	return m
}

// piece is a part of the file, and its MD5, which the service compares. Azurite knows
// no other sum.
func (u *upload) piece(from, size int64) (io.ReadSeekCloser, []byte, error) {
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
		return nil, nil, fmt.Errorf("read %s: %w", u.file.Path, err)
	}
	return streaming.NopCloser(r), sum.Sum(nil), nil
}

// whole is Put Blob.
func (u *upload) whole(ctx context.Context) error {
	body, sum, err := u.piece(0, u.file.Size)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err = u.to.Upload(ctx, body, &blockblob.UploadOptions{
		HTTPHeaders: u.headers(), Metadata: u.metadata(), AccessConditions: absent(),
		TransactionalValidation: blob.TransferValidationTypeMD5(sum),
	})
	return clean(err)
}

// blocks is Put Block, as often as there is something left, and Put Block List.
func (u *upload) blocks(ctx context.Context) error {
	size := max(u.o.BlockSize, (u.file.Size+maxBlocks-1)/maxBlocks)
	var ids []string
	for from := int64(0); from < u.file.Size; from += size {
		id, err := u.block(ctx, from, min(size, u.file.Size-from))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err := u.to.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{
		HTTPHeaders: u.headers(), Metadata: u.metadata(), AccessConditions: absent(),
	})
	return clean(err)
}

// block stages a part of the file and returns its id: where it is, and what it is.
// All ids have one length, as the service wants.
func (u *upload) block(ctx context.Context, from, size int64) (string, error) {
	body, sum, err := u.piece(from, size)
	if err != nil {
		return "", err
	}
	id := base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint64(nil, uint64(from)), sum...))
	ctx, cancel := context.WithTimeout(ctx, u.o.Timeout)
	defer cancel()
	_, err = u.to.StageBlock(ctx, id, body, &blockblob.StageBlockOptions{
		TransactionalValidation: blob.TransferValidationTypeMD5(sum),
	})
	return id, clean(err)
}
