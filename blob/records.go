package blob

import (
	"context"
	"errors"
	"strings"

	"github.com/millrace/millrace/store"
)

// maxAttempts is how often a change is tried against writers of the same record
// in other processes. Each round that we lose, one of them has won.
const maxAttempts = 64

// The keys in Meta; doc.go has the list.
func serviceKey(account string) string         { return "blob/s/" + account }
func containerPrefix(account string) string    { return "blob/c/" + account + "/" }
func containerKey(account, name string) string { return containerPrefix(account) + name }
func blobsPrefix(containerID string) string    { return "blob/b/" + containerID + "/" }
func stagedPrefix(key blobKey) string          { return "blob/u/" + key.container + "/" + key.name + "\x00" }

// blobKey names a blob for good: its container's id, and its name.
type blobKey struct{ container, name string }

func (k blobKey) meta() string { return blobsPrefix(k.container) + k.name }

// splitStaged takes the key of a staged block apart.
func splitStaged(key string) (k blobKey, blockID string, ok bool) {
	rest, ok1 := strings.CutPrefix(key, "blob/u/")
	id, rest, ok2 := strings.Cut(rest, "/")
	i := strings.LastIndexByte(rest, 0)
	if !ok1 || !ok2 || i < 0 {
		return blobKey{}, "", false
	}
	return blobKey{id, rest[:i]}, rest[i+1:], true
}

// getContainer returns a container, or ContainerNotFound.
func (s *Service) getContainer(ctx context.Context, account, name string) (*containerRecord, store.Version, error) {
	e, err := s.meta.Get(ctx, containerKey(account, name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, errContainerNotFound()
	}
	if err != nil {
		return nil, 0, storageError("reading a container's record", err)
	}
	c := new(containerRecord)
	if err := decodeJSON(e.Value, c); err != nil {
		return nil, 0, storageError("reading a container's record", err)
	}
	return c, e.Version, nil
}

// getBlob returns what is stored for a blob: nil for nothing, else a record that
// may be but the mark of a deleted blob; ask live. The error is an *Error.
func (s *Service) getBlob(ctx context.Context, key blobKey) (*blobRecord, store.Version, error) {
	e, err := s.meta.Get(ctx, key.meta())
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, storageError("reading a blob's record", err)
	}
	r, err := decodeBlob(e.Value)
	if err != nil {
		return nil, 0, storageError("reading a blob's record", err)
	}
	return r, e.Version, nil
}

// changeBlob replaces a blob's record by what fn makes of it, if nobody else
// does meanwhile; else fn is asked again, with the new state. This one
// conditional Put decides every claim. fn gets nil for no record; it must not
// change old. The files that only the old record knew are removed. On an error
// of which unknownOutcome is true, the new record may yet have been stored.
func (s *Service) changeBlob(ctx context.Context, key blobKey, fn func(old *blobRecord) (*blobRecord, error)) (*blobRecord, error) {
	done, err := s.turns.take(ctx, key.meta())
	if err != nil {
		return nil, err
	}
	defer done()
	for range maxAttempts {
		old, version, err := s.getBlob(ctx, key)
		if err != nil {
			return nil, err
		}
		next, err := fn(old)
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// A client that leaves must not make us forget how the Put went.
		_, err = s.meta.Put(context.WithoutCancel(ctx), key.meta(), next.encode(), version)
		if err == nil {
			s.dropFiles(old, next)
			return next, nil
		}
		if _, lost := errors.AsType[*store.ConflictError](err); !lost {
			return nil, &putError{storageError("storing a blob's record", err)}
		}
	}
	return nil, errContention()
}

// errStale is what fn of changeBlob returns if it found that old has been
// replaced meanwhile.
var errStale = errors.New("the blob has changed")

// putError marks the failure of a Put of a record.
type putError struct{ err *Error }

func (e *putError) Error() string { return e.err.Error() }
func (e *putError) Unwrap() error { return e.err }

// unknownOutcome tells whether a record may have been stored although its Put,
// or a change that ended with one, returned the error.
func unknownOutcome(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		if _, put := errors.AsType[*putError](err); !put {
			return false // refused before the Put
		}
		err = e.Err
	}
	_, lost := errors.AsType[*store.ConflictError](err)
	return !lost && !errors.Is(err, store.ErrFull)
}

// changeContainer is changeBlob for a container that must exist.
func (s *Service) changeContainer(ctx context.Context, account, name string, fn func(c *containerRecord) error) (*containerRecord, error) {
	done, err := s.turns.take(ctx, containerKey(account, name))
	if err != nil {
		return nil, err
	}
	defer done()
	for range maxAttempts {
		c, version, err := s.getContainer(ctx, account, name)
		if err != nil {
			return nil, err
		}
		if err := fn(c); err != nil {
			return nil, err
		}
		_, err = s.meta.Put(context.WithoutCancel(ctx), containerKey(account, name), encodeJSON(c), version)
		if err == nil {
			return c, nil
		}
		if _, lost := errors.AsType[*store.ConflictError](err); !lost {
			return nil, storageError("storing a container's record", err)
		}
	}
	return nil, errContention()
}

func errContention() *Error {
	return newError(ServerBusy, "Too many writers change the same resource; try again.")
}

// dropFiles removes the files that old has and next has not.
func (s *Service) dropFiles(old, next *blobRecord) {
	if old == nil || len(old.Segments) == 0 {
		return
	}
	kept := next.files()
	for file := range old.files() {
		if !kept[file] {
			s.files.drop(file)
		}
	}
}

// files is the set of a record's files; r may be nil.
func (r *blobRecord) files() map[string]bool {
	set := map[string]bool{}
	if r != nil {
		for _, s := range r.Segments {
			set[s.File] = true
		}
	}
	return set
}

// find returns the container that a request is about and the key of its blob.
func (s *Service) find(req *request) (*containerRecord, blobKey, error) {
	c, _, err := s.getContainer(req.Context(), req.addr.account, req.addr.container)
	if err != nil {
		return nil, blobKey{}, err
	}
	return c, blobKey{c.ID, req.addr.blob}, nil
}

// findBlob returns the live blob that a request is about, with its record's
// version, or BlobNotFound.
func (s *Service) findBlob(req *request) (*blobRecord, blobKey, store.Version, error) {
	// There are no snapshots and no versions, so none is found.
	if req.query.get("snapshot") != "" || req.query.get("versionid") != "" {
		return nil, blobKey{}, 0, errBlobNotFound()
	}
	_, key, err := s.find(req)
	if err != nil {
		return nil, blobKey{}, 0, err
	}
	r, version, err := s.getBlob(req.Context(), key)
	if err != nil {
		return nil, blobKey{}, 0, err
	}
	if !r.live() {
		return nil, blobKey{}, 0, errBlobNotFound()
	}
	return r, key, version, nil
}
