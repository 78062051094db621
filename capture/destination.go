package capture

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Destination is where captured files go. Package capture/folder has one for a
// folder, capture/azure for Azure Blob Storage and what speaks its protocol, and
// capture/s3 for S3 and what speaks that. Its methods may be called by many
// goroutines. No error holds a credential.
type Destination interface {
	// Put stores a file under a name in a container, unless there is something of
	// that name: ErrExists then. Nobody sees the file before it is whole and, as
	// far as the destination promises that at all, durable. After another error it
	// is unknown whether it is there.
	Put(ctx context.Context, container, name string, f *File) error
	// Stat describes what has a name; ErrMissing if nothing has.
	Stat(ctx context.Context, container, name string) (Object, error)
	// Open reads what has a name; ErrMissing if nothing has.
	Open(ctx context.Context, container, name string) (io.ReadCloser, error)
	// List yields what has names that begin with a prefix, in an order that stays the
	// same.
	List(ctx context.Context, container, prefix string) iter.Seq2[Object, error]
	// URL is where others find a file.
	URL(container, name string) string
}

// Errors of destinations.
var (
	ErrExists  = errors.New("there is a file of this name already")
	ErrMissing = errors.New("there is no such file")
)

// File is what is put: a file on disk, whose owner keeps it until Put returns.
type File struct {
	Path string
	Size int64
	// Metadata is kept with the file where the destination can.
	Metadata    map[string]string
	ContentType string
}

// Object is a file at a destination.
type Object struct {
	Name     string
	Size     int64
	Modified time.Time
	// Metadata is what File had, by lower-case names; nil where the destination
	// keeps none.
	Metadata map[string]string
}
