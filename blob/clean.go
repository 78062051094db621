package blob

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/store"
)

// cleanJob is something that became invisible and is to be cleared away soon: the
// staged blocks of a blob, or a deleted container.
type cleanJob struct {
	blob      blobKey
	container string
}

// later hands a job to the cleaner. One that doesn't fit is left to the sweep.
func (s *Service) later(j cleanJob) {
	select {
	case s.work <- j:
	default:
	}
}

// clean is the service's own goroutine.
func (s *Service) clean(ctx context.Context) {
	var tick <-chan time.Time
	if s.o.SweepEvery > 0 {
		t := time.NewTicker(s.o.SweepEvery)
		defer t.Stop()
		tick = t.C
		s.cleanUp(ctx, "sweeping", s.sweep)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-s.work:
			s.cleanUp(ctx, "clearing away", func(ctx context.Context) error { return s.runJob(ctx, j) })
		case <-tick:
			s.cleanUp(ctx, "sweeping", s.sweep)
		}
	}
}

func (s *Service) cleanUp(ctx context.Context, what string, do func(context.Context) error) {
	if err := do(ctx); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, what+" what nothing refers to", "error", err)
	}
}

func (s *Service) runJob(ctx context.Context, j cleanJob) error {
	if j.container != "" {
		return s.cleanContainer(ctx, j.container)
	}
	return s.cleanBlob(ctx, j.blob)
}

// together is how many records are deleted at once, so that an engine can sync
// them in one go.
const together = 16

// doomed is a record to delete, and the files that nothing refers to afterwards,
// as far as is known.
type doomed struct {
	key     string
	version store.Version
	files   []string
}

// deleteAll deletes records. One that has changed meanwhile stays.
func (s *Service) deleteAll(ctx context.Context, list []doomed) error {
	for len(list) > 0 {
		n := min(together, len(list))
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i, d := range list[:n] {
			wg.Go(func() {
				err := s.meta.Delete(ctx, d.key, d.version)
				if _, changed := errors.AsType[*store.ConflictError](err); changed {
					return
				}
				if err == nil {
					for _, file := range d.files {
						s.files.drop(file)
					}
				}
				errs[i] = err
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// cleanBlob deletes a blob's dead staged blocks, and then the mark of the blob
// itself if it was deleted.
func (s *Service) cleanBlob(ctx context.Context, key blobKey) error {
	r, version, err := s.getBlob(ctx, key)
	if err != nil {
		return err
	}
	files := r.files()
	now, keep := s.now().UnixMilli(), s.o.StagedFor.Milliseconds()
	var dead []doomed
	for e, err := range s.meta.List(ctx, stagedPrefix(key), "") {
		if err != nil {
			return err
		}
		var b stagedRecord
		if err := decodeJSON(e.Value, &b); err != nil {
			return err
		}
		if !b.dead(r, now, keep) {
			continue
		}
		d := doomed{key: e.Key, version: e.Version}
		// A block that was committed or dropped is in the blob now or never will
		// be. One that expired may be on its way into a blob; the sweep sees.
		if r != nil && b.Stamp <= r.BlocksBefore && !files[b.File] && validFileID(b.File) {
			d.files = []string{b.File}
		}
		dead = append(dead, d)
	}
	if err := s.deleteAll(ctx, dead); err != nil {
		return err
	}
	if r != nil && r.Deleted {
		return s.deleteAll(ctx, []doomed{{key: key.meta(), version: version}})
	}
	return nil
}

// cleanContainer deletes what is left of a deleted container, whose id is never
// given again.
func (s *Service) cleanContainer(ctx context.Context, id string) error {
	for _, prefix := range []string{blobsPrefix(id), "blob/u/" + id + "/"} {
		for {
			list, err := s.page(ctx, prefix)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				break
			}
			if err := s.deleteAll(ctx, list); err != nil {
				return err
			}
		}
	}
	return nil
}

// page returns some records below a prefix of a deleted container.
func (s *Service) page(ctx context.Context, prefix string) ([]doomed, error) {
	var list []doomed
	for e, err := range s.meta.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		d := doomed{key: e.Key, version: store.AnyVersion}
		var b stagedRecord
		if r, err := decodeBlob(e.Value); err == nil {
			d.files = slices.Collect(maps.Keys(r.files()))
		} else if err := decodeJSON(e.Value, &b); err == nil && validFileID(b.File) {
			d.files = []string{b.File}
		}
		list = append(list, d)
		if len(list) == 1024 {
			break
		}
	}
	return list, nil
}

// removeBlob deletes a blob if check agrees. While the cleaner has not yet
// deleted the staged blocks that this drops, a mark keeps them invisible.
func (s *Service) removeBlob(ctx context.Context, key blobKey, check func(old *blobRecord) error) error {
	done, err := s.turns.take(ctx, key.meta())
	if err != nil {
		return err
	}
	defer done()
	for range maxAttempts {
		old, version, err := s.getBlob(ctx, key)
		if err != nil {
			return err
		}
		if err := check(old); err != nil {
			return err
		}
		blocks, err := s.hasStaged(ctx, key)
		if err != nil {
			return err
		}
		if blocks {
			tick, terr := s.tick(ctx, max(old.ETag, old.BlocksBefore))
			if terr != nil {
				return terr
			}
			mark := &blobRecord{ETag: tick, Modified: old.Modified, BlocksBefore: tick, Deleted: true}
			_, err = s.meta.Put(context.WithoutCancel(ctx), key.meta(), mark.encode(), version)
		} else {
			err = s.meta.Delete(context.WithoutCancel(ctx), key.meta(), version)
		}
		if _, lost := errors.AsType[*store.ConflictError](err); lost {
			continue
		}
		if err != nil {
			return storageError("deleting a blob's record", err)
		}
		s.dropFiles(old, nil)
		if blocks {
			s.later(cleanJob{blob: key})
		}
		return nil
	}
	return errContention()
}

func (s *Service) hasStaged(ctx context.Context, key blobKey) (bool, error) {
	for _, err := range s.meta.List(ctx, stagedPrefix(key), "") {
		if err != nil {
			return false, storageError("listing blocks", err)
		}
		return true, nil
	}
	return false, nil
}

// references is what one snapshot of Meta tells the sweep.
type references struct {
	live   map[string]bool  // ids of containers
	seen   map[string]bool  // ids of containers that records belong to
	blocks map[blobKey]bool // blobs with staged blocks, or marks of deleted ones
}

// sweep removes the files that no record refers to, expired and dead blocks, and
// what is left of deleted containers. The order makes it safe: files are listed
// and those pinned set aside; only then Meta is read, in one snapshot. So a file
// that is about to get its record is pinned, or has it in the snapshot; and each
// file is looked at once more, under the folder's lock, before it goes.
func (s *Service) sweep(ctx context.Context) error {
	files, err := s.files.unpinned()
	if err != nil {
		return err
	}
	refs := references{map[string]bool{}, map[string]bool{}, map[blobKey]bool{}}
	for e, err := range s.meta.List(ctx, "blob/", "") {
		if err == nil {
			err = refs.note(e, files)
		}
		if err != nil {
			return err
		}
	}
	removed := 0
	for id := range files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.files.sweep(id); err != nil {
			return err
		}
		removed++
	}
	if removed > 0 {
		s.log.InfoContext(ctx, "removed files that no blob refers to", "files", removed)
	}
	for id := range refs.seen {
		if !refs.live[id] {
			if err := s.cleanContainer(ctx, id); err != nil {
				return err
			}
		}
	}
	for key := range refs.blocks {
		if err := s.cleanBlob(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// note takes a record's references, and takes its files off the list. A record
// that can't be read stops the sweep: it may refer to anything.
func (refs references) note(e store.Entry, files map[string]bool) error {
	switch {
	case strings.HasPrefix(e.Key, "blob/b/"):
		r, err := decodeBlob(e.Value)
		if err != nil {
			return err
		}
		for _, seg := range r.Segments {
			delete(files, seg.File)
		}
		id, name, _ := strings.Cut(strings.TrimPrefix(e.Key, "blob/b/"), "/")
		refs.seen[id] = true
		if r.Deleted {
			refs.blocks[blobKey{id, name}] = true
		}
	case strings.HasPrefix(e.Key, "blob/u/"):
		var b stagedRecord
		if err := decodeJSON(e.Value, &b); err != nil {
			return err
		}
		delete(files, b.File)
		if key, _, ok := splitStaged(e.Key); ok {
			refs.seen[key.container] = true
			refs.blocks[key] = true
		}
	case strings.HasPrefix(e.Key, "blob/c/"):
		var c containerRecord
		if err := decodeJSON(e.Value, &c); err != nil {
			return err
		}
		refs.live[c.ID] = true
	}
	return nil
}
