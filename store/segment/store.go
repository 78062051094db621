package segment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/store"
)

// Store is the engine. It implements store.Store.
type Store struct {
	o    Options
	disk Disk
	kv   KV
	log  *slog.Logger
	// epoch is the ownership under which logs are opened: one more with every
	// start, and with every recovery from a failed write.
	epoch atomic.Uint64

	// The committer's.
	c       committer
	journal *journalFile
	wake    chan struct{}

	spare  atomic.Pointer[journalFile] // ready to be written to
	busy   atomic.Bool                 // journal files rotate fast
	full   atomic.Bool
	stuck  atomic.Pointer[log] // whose segment the disk had no room for
	keeper chan struct{}
	stop   chan struct{}
	wg     sync.WaitGroup

	opening sync.Mutex // serialises Open, Delete and the recovery of failed logs

	mu       sync.Mutex
	logs     map[store.LogID]*log
	queue    []item
	closing  bool
	retired  []*journalFile    // full or given up; live until what they hold is in segments
	moved    map[*log]struct{} // written to directly since the last checkpoint
	free     []*journalFile
	journals int // the largest number in a journal file's name

	keeping sync.Mutex // one checkpoint at a time
}

const (
	kvFile     = "meta.db"
	formatFile = "FORMAT"
	ownerFile  = "broker.pid"

	// formatVersion is the version of the data folder's layout.
	formatVersion = 1
)

// Errors of Open that a person must act on.
var (
	// ErrInUse: another process has the data folder open.
	ErrInUse = errors.New("the data folder is in use")
	// ErrNewer: the data folder was written by a newer version.
	ErrNewer = errors.New("the data folder was written by a newer version of Millrace")
)

// Open opens the store in o.Dir, recovering what an unclean stop left. It
// returns ErrInUse or ErrNewer, wrapped, without having changed anything.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		o:      o.withDefaults(),
		wake:   make(chan struct{}, 1),
		keeper: make(chan struct{}, 1),
		stop:   make(chan struct{}),
		logs:   map[store.LogID]*log{},
		moved:  map[*log]struct{}{},
	}
	s.disk, s.kv, s.log = s.o.Disk, s.o.KV, s.o.Logger
	s.c.unsynced = map[*log]struct{}{}
	if s.disk == nil {
		if err := s.openFolder(); err != nil {
			return nil, err
		}
	}
	if err := s.recover(ctx); err != nil {
		s.kv.Close()
		return nil, err
	}
	s.wg.Add(2)
	go s.commit()
	go s.keep()
	s.kickKeeper()
	return s, nil
}

// openFolder checks the data folder, makes it if need be, and locks it.
func (s *Store) openFolder() error {
	dir := s.o.Dir
	if err := checkFormat(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the data folder %s can't be made: %w", dir, err)
	}
	kv, err := openBolt(filepath.Join(dir, kvFile), false)
	if errors.Is(err, errLocked) {
		return fmt.Errorf("%w: %s is open in another broker%s; stop that one, or choose another folder with --data", ErrInUse, dir, ownerOf(dir))
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the data folder %s can't be written to: %w; change its owner or permissions, or choose another folder with --data", dir, err)
	}
	if err != nil {
		return err
	}
	s.disk, s.kv = NewDisk(dir), kv
	format := filepath.Join(dir, formatFile)
	if _, err := os.Stat(format); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(format, fmt.Appendf(nil, "millrace data, format %d\n", formatVersion), 0o600); err != nil {
			kv.Close()
			return err
		}
	}
	// Only to name the owner to whoever finds the folder locked.
	if err := os.WriteFile(filepath.Join(dir, ownerFile), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		kv.Close()
		return err
	}
	return nil
}

// checkFormat refuses a folder that a newer version has written.
func checkFormat(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the data folder %s can't be read: %w", dir, err)
	}
	var v int
	if _, err := fmt.Sscanf(string(b), "millrace data, format %d", &v); err != nil {
		return fmt.Errorf("%s is not a data folder's format file: %q; is %s the right folder?", filepath.Join(dir, formatFile), bytes.TrimSpace(b), dir)
	}
	if v > formatVersion {
		return fmt.Errorf("%w: %s has format %d and this program knows up to %d; run the newer version, or choose another folder with --data", ErrNewer, dir, v, formatVersion)
	}
	return nil
}

// ownerOf is " (process N)" when the folder says who has it.
func ownerOf(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil {
		return ""
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

// recover brings the store to where an append can be taken.
func (s *Store) recover(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, d := range []string{journalDir, "logs"} {
		if err := s.disk.MkdirAll(d); err != nil {
			return err
		}
	}
	// A process before this one may have failed to, and what it made is used again.
	for _, d := range []string{".", journalDir, "logs"} {
		if err := s.disk.SyncDir(d); err != nil {
			return err
		}
	}
	if err := s.kv.View(checkEngine); err != nil {
		return err
	}
	if err := s.nextEpoch(); err != nil {
		return err
	}
	if err := s.sweepDeleted(); err != nil {
		return err
	}
	if err := s.replayJournal(); err != nil {
		return fmt.Errorf("recover from the journal: %w", err)
	}
	return s.findFree()
}

// nextEpoch begins a new ownership, durably.
func (s *Store) nextEpoch() error {
	return s.kv.Update(func(tx KVTx) error {
		e, err := bump(tx, keyEpoch)
		s.epoch.Store(e)
		return err
	})
}

// sweepDeleted finishes the deletions that a crash interrupted.
func (s *Store) sweepDeleted() error {
	var ids []store.LogID
	err := s.kv.View(func(tx KVTx) error {
		return eachEngine(tx, deletedKeys, func(rest string, _ []byte) error {
			id, err := store.ParseLogID(rest)
			ids = append(ids, id)
			return err
		})
	})
	for _, id := range ids {
		err = errors.Join(err, s.removeFolder(id))
	}
	return err
}

// findFree collects the journal files that can be used again.
func (s *Store) findFree() error {
	names, err := s.disk.List(journalDir)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	err = s.kv.View(func(tx KVTx) error {
		return eachEngine(tx, keptKeys, func(rest string, _ []byte) error { kept[rest] = true; return nil })
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		var n int
		if _, err := fmt.Sscanf(name, "%06d.jnl", &n); err != nil {
			continue
		}
		s.journals = max(s.journals, n)
		if !kept[name] {
			s.free = append(s.free, &journalFile{name: name})
		}
	}
	return nil
}

// Open implements store.Store.
func (s *Store) Open(ctx context.Context, id store.LogID, c store.LogConfig) (store.Log, error) {
	l, err := s.open(ctx, id)
	if err != nil {
		return nil, err
	}
	l.configure(c)
	return &owner{log: l, reader: reader{log: l}}, nil
}

// OpenReader implements store.Store. A log that failed and can't be made ready
// for appends, such as on a disk without any room, can be read all the same.
func (s *Store) OpenReader(ctx context.Context, id store.LogID) (store.Reader, error) {
	l, err := s.open(ctx, id)
	if err != nil {
		if l = s.failedLog(id); l == nil || ctx.Err() != nil || !l.freeze() {
			return nil, err
		}
	}
	return &reader{log: l}, nil
}

// failedLog returns the log that a failed write has ended, if it is still there.
func (s *Store) failedLog(id store.LogID) *log {
	s.opening.Lock() // nobody is reviving it
	defer s.opening.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil
	}
	return s.logs[id]
}

// owner is a log with a reader of its own.
type owner struct {
	*log
	reader reader
}

var (
	_ store.Log    = (*owner)(nil)
	_ store.Reader = (*reader)(nil)
	_ store.Store  = (*Store)(nil)
)

func (s *Store) open(ctx context.Context, id store.LogID) (*log, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	l, closing := s.logs[id], s.closing
	s.mu.Unlock()
	if closing {
		return nil, store.ErrClosed
	}
	if l != nil && l.Err() == nil {
		return l, nil
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	l = s.logs[id]
	s.mu.Unlock()
	if l != nil {
		if l.Err() == nil {
			return l, nil
		}
		if err := s.reviveAll(); err != nil {
			if diskFull(err) {
				err = fmt.Errorf("%w: %w", store.ErrFull, err)
			}
			return nil, fmt.Errorf("reopen partition %s after a failed write: %w", id, err)
		}
	}
	l, err := s.load(id, s.epoch.Load())
	if err != nil {
		return nil, fmt.Errorf("open partition %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		l.closeFile()
		return nil, store.ErrClosed
	}
	s.logs[id] = l
	return l, nil
}

// diskFull tells whether a write failed for want of space.
func diskFull(err error) bool {
	const windowsDiskFull = syscall.Errno(112)
	return errors.Is(err, syscall.ENOSPC) || runtime.GOOS == "windows" && errors.Is(err, windowsDiskFull)
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, id store.LogID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	l := s.logs[id]
	delete(s.logs, id)
	s.mu.Unlock()
	if l != nil {
		l.fail(store.ErrDeleted)
	}
	err := s.kv.Update(func(tx KVTx) error {
		// The journal may still hold records of it, which must not come back.
		if err := tx.Put(bucketEngine, deletedKey(id), seal(deletedKey(id), nil)); err != nil {
			return err
		}
		if err := tx.Delete(bucketEngine, damageKey(id)); err != nil {
			return err
		}
		return tx.Delete(bucketLogs, id.String())
	})
	if err != nil {
		return err
	}
	if l != nil {
		l.files.Lock() // the committer may be writing to it
		defer l.files.Unlock()
		l.closeFile()
		l.active = nil
		none := []*segmentFile{}
		l.segments.Store(&none)
	}
	return s.removeFolder(id)
}

// removeFolder removes a log's folder, and its hub's once that is empty.
func (s *Store) removeFolder(id store.LogID) error {
	dir := path.Join("logs", id.String())
	if err := s.disk.RemoveAll(dir); err != nil {
		return err
	}
	s.disk.Remove(path.Dir(dir)) //nolint:errcheck // fails while there are other partitions
	return nil
}

// Meta implements store.Store.
func (s *Store) Meta() store.Meta { return meta{s.kv} }

// Full tells whether appends are refused for want of space.
func (s *Store) Full() bool { return s.full.Load() }

// Close implements store.Store. Nothing has to be recovered at the next start.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	s.mu.Unlock()
	s.kick()
	close(s.stop)
	s.wg.Wait()
	if j := s.journal; j != nil {
		s.retire(j)
	}
	s.mu.Lock()
	for _, l := range s.logs {
		s.moved[l] = struct{}{}
	}
	s.mu.Unlock()
	err := s.checkpoint()
	if j := s.spare.Load(); j != nil {
		err = errors.Join(err, s.kv.Update(func(tx KVTx) error { return tx.Delete(bucketEngine, journalKey(j.gen)) }), j.f.Close())
	}
	s.mu.Lock()
	logs := s.logs
	for _, j := range s.free {
		if j.f != nil {
			err = errors.Join(err, j.f.Close())
		}
	}
	s.mu.Unlock()
	for _, l := range logs {
		l.fail(store.ErrClosed)
		l.files.Lock()
		l.closeFile()
		l.files.Unlock()
	}
	if d, ok := s.disk.(io.Closer); ok {
		err = errors.Join(err, d.Close())
	}
	return errors.Join(err, s.kv.Close())
}

// idleAfter is how long a log's descriptor stays open unused.
const idleAfter = time.Minute
