package segment

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/event"
)

// segmentFile is one file of a log.
type segmentFile struct {
	name  string // in the log's folder
	first event.SequenceNumber
	epoch uint64
	salt  salt
	end   atomic.Int64 // where the frames end

	// Under log.files.
	f      File // nil unless open for writing
	synced int64
	since  int64 // enqueued time of the first record, Unix ms; 0 when unknown

	syncing sync.Mutex
	syncErr error // the first failure, under syncing
}

// sync syncs the file, f being g.f. After a failure it never succeeds again: the
// system may have dropped what it could not write, and would report success.
// That the file has been closed meanwhile is no failure of the file's.
func (g *segmentFile) sync(f File) error {
	g.syncing.Lock()
	defer g.syncing.Unlock()
	if g.syncErr == nil {
		if err := f.Sync(); errors.Is(err, os.ErrClosed) {
			return err
		} else if err != nil {
			g.syncErr = &syncError{err}
		}
	}
	return g.syncErr
}

// failedSync returns the failure after which no sync of the file is to be trusted,
// not even one of the whole disk.
func (g *segmentFile) failedSync() error {
	g.syncing.Lock()
	defer g.syncing.Unlock()
	return g.syncErr
}

func newSegment(e *entry, epoch uint64) *segmentFile {
	salt := newSalt()
	return &segmentFile{name: segmentName(e.first, epoch, salt), first: e.first, epoch: epoch, salt: salt, since: e.enqueued}
}

// syncError marks a failed sync: the file's state on disk is unknown, and
// syncing it again would say that all is well.
type syncError struct{ err error }

func (e *syncError) Error() string { return e.err.Error() }

func (e *syncError) Unwrap() error { return e.err }
