package segment

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// The keeper is the store's second goroutine. It does what is slow and urgent
// for nobody: it brings the segments of a full journal file up to date so that
// the file can be used again, keeps a spare filled, and puts idle logs to rest.

func (s *Store) keep() {
	defer s.wg.Done()
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.keeper:
		case <-t.C:
			s.rest()
		}
		if err := s.checkpoint(); err != nil {
			s.log.Error("a checkpoint failed; the journal grows until one succeeds", "error", err)
		}
		if err := s.prepare(); err != nil {
			s.log.Warn("no spare journal file can be prepared", "error", err)
		}
	}
}

func (s *Store) kickKeeper() {
	select {
	case s.keeper <- struct{}{}:
	default:
	}
}

// retire takes a journal file out of use. It stays live until a checkpoint has
// what it holds.
func (s *Store) retire(j *journalFile) {
	s.mu.Lock()
	s.retired = append(s.retired, j)
	s.mu.Unlock()
	s.kickKeeper()
}

// checkpoint makes durable, in the segments, what the retired journal files
// hold and what was written directly; notes in the database where each log then
// ends; and gives the files back.
func (s *Store) checkpoint() error {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	s.mu.Lock()
	files, moved := s.retired, s.moved
	s.retired, s.moved = nil, map[*log]struct{}{}
	s.mu.Unlock()
	if len(files) == 0 && len(moved) == 0 {
		return nil
	}
	logs := maps.Clone(moved)
	for _, j := range files {
		maps.Copy(logs, j.dirty)
	}
	states, failed, firstErr := s.bringUpAll(logs)
	var done, held []*journalFile
	for _, j := range files {
		whole := true
		for l := range j.dirty {
			whole = whole && !failed[l]
		}
		if whole {
			done = append(done, j)
		} else {
			held = append(held, j)
		}
	}
	err := s.kv.Update(func(tx KVTx) error {
		if err := putCheckpoints(tx, states); err != nil {
			return err
		}
		for _, j := range done {
			if err := tx.Delete(bucketEngine, journalKey(j.gen)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		held, done = files, nil
	}
	s.mu.Lock()
	s.retired = append(held, s.retired...)
	if err != nil {
		for l := range moved {
			s.moved[l] = struct{}{}
		}
	}
	s.mu.Unlock()
	for _, j := range done {
		s.release(j)
	}
	return errors.Join(firstErr, err)
}

// manyLogs is from how many on the disk is synced as a whole, not file by file.
// Tests lower it.
var manyLogs = 16

// bringUpAll flushes and syncs logs, and returns what to note in the database of
// each, and which of them failed.
func (s *Store) bringUpAll(logs map[*log]struct{}) (states map[store.LogID]checkpoint, failed map[*log]bool, first error) {
	states, failed = map[store.LogID]checkpoint{}, map[*log]bool{}
	fail := func(l *log, err error) {
		failed[l] = true
		if first == nil {
			first = fmt.Errorf("partition %s: %w", l.id, err)
		}
	}
	var flushed []*unsyncedLog
	for l := range logs {
		if l.revived.Load() || errors.Is(l.Err(), store.ErrDeleted) {
			continue
		}
		u, err := s.flushLog(l)
		if err != nil {
			fail(l, err)
			continue
		}
		flushed = append(flushed, u)
	}
	whole := s.syncAll(flushed)
	for _, u := range flushed {
		err := whole
		switch {
		case errors.Is(whole, errNotWhole):
			err = u.sync()
		case whole == nil && u.f != nil: // the committer's sync of the file may have failed before it
			err = u.g.failedSync()
		}
		if err != nil {
			fail(u.l, s.noteFailure(u.l, err))
			continue
		}
		states[u.l.id] = u.synced()
	}
	return states, failed, first
}

// syncAll syncs many logs in one go, if the disk can do that.
func (s *Store) syncAll(logs []*unsyncedLog) error {
	d, ok := s.disk.(wholeDisk)
	if !ok || len(logs) < manyLogs {
		return errNotWhole
	}
	if err := d.SyncAll(); err != nil && !errors.Is(err, errNotWhole) {
		return &syncError{err} // which of the files it was is not known
	} else if err != nil {
		return err
	}
	return nil
}

// bringUp flushes and syncs one log.
func (s *Store) bringUp(l *log) (checkpoint, error) {
	u, err := s.flushLog(l)
	if err != nil {
		return checkpoint{}, err
	}
	if err := u.sync(); err != nil {
		return checkpoint{}, s.noteFailure(l, err)
	}
	return u.synced(), nil
}

// unsyncedLog is a log that has been flushed: what a sync from now on covers.
type unsyncedLog struct {
	l    *log
	c    checkpoint
	g    *segmentFile
	f    File // nil if the segment is synced already
	end  int64
	made int
}

func (s *Store) flushLog(l *log) (*unsyncedLog, error) {
	l.files.Lock()
	defer l.files.Unlock()
	if err := l.flushLocked(nil); err != nil {
		return nil, s.noteFailure(l, err)
	}
	u := &unsyncedLog{l: l, c: l.checkpointLocked(), g: l.active, made: l.made}
	if g := l.active; g != nil {
		u.end = g.end.Load()
		if g.f != nil && g.synced < u.end {
			u.f = g.f
		}
	}
	return u, nil
}

// sync syncs the log's file and folders. It is done outside the log's lock, so
// that the committer can write to the log meanwhile.
func (u *unsyncedLog) sync() error {
	if u.f != nil {
		if err := u.g.sync(u.f); err != nil && !errors.Is(err, os.ErrClosed) { // closed: sealed meanwhile, and synced before
			return err
		}
	}
	u.l.files.Lock()
	behind := u.l.madeSync < u.made
	u.l.files.Unlock()
	if behind {
		return u.l.syncDirs()
	}
	return nil
}

// synced notes that a sync has succeeded.
func (u *unsyncedLog) synced() checkpoint {
	u.l.files.Lock()
	defer u.l.files.Unlock()
	u.l.madeSync = max(u.l.madeSync, u.made)
	if u.f != nil {
		u.g.synced = max(u.g.synced, u.end)
		u.c.offset = u.end
	}
	return u.c
}

// noteFailure ends a log whose sync failed; other failures, such as a full
// disk, are tried again.
func (s *Store) noteFailure(l *log, err error) error {
	var se *syncError
	if errors.As(err, &se) {
		s.failed(l, fmt.Errorf("%w: %w", store.ErrUnknown, err))
	}
	return err
}

// release gives back a journal file that nothing needs any more. One that could
// not be written is removed.
func (s *Store) release(j *journalFile) {
	s.mu.Lock()
	spares := len(s.free)
	keep := !j.broken && spares < 2
	j.dirty = nil
	if keep {
		s.free = append(s.free, j)
	}
	s.mu.Unlock()
	if keep {
		return
	}
	err := errors.Join(j.f.Close(), s.disk.Remove(path.Join(journalDir, j.name)))
	if err != nil {
		s.log.Warn("a journal file that is no longer needed can't be removed", "file", j.name, "error", err)
	}
}

// prepare sees to it that a filled file waits for the current one to be full.
func (s *Store) prepare() error {
	if s.spare.Load() != nil || s.full.Load() {
		return nil
	}
	s.mu.Lock()
	var j *journalFile
	if n := len(s.free); n > 0 {
		j = s.free[n-1]
		s.free = s.free[:n-1]
	}
	s.mu.Unlock()
	var err error
	if j == nil {
		j, err = s.newJournalFile()
	} else if j.f == nil {
		j.f, err = s.openJournal(j.name, false)
	}
	if err != nil {
		return err
	}
	j.size = max(j.size, s.o.JournalBytes)
	if s.busy.Load() {
		j.size = 4 * s.o.JournalBytes
	}
	if size, err := j.f.Size(); err == nil {
		j.size = max(j.size, min(size, 4*s.o.JournalBytes))
	}
	err = j.fill(s.stop)
	if err == nil && j.filled {
		if err = s.begin(j); err == nil {
			s.spare.Store(j)
			return nil
		}
	}
	if err != nil {
		j.broken = true
	}
	s.release(j)
	return err
}

// rest flushes the logs that have been idle for a while and closes their files.
func (s *Store) rest() {
	before := s.o.Now().Add(-idleAfter)
	s.mu.Lock()
	logs := make([]*log, 0, len(s.logs))
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	s.mu.Unlock()
	for _, l := range logs {
		l.mu.Lock()
		idle := l.err == nil && l.used.Before(before)
		pending := l.pending > 0
		l.mu.Unlock()
		if !idle {
			continue
		}
		if pending {
			if _, err := s.bringUp(l); err != nil {
				s.log.Warn("an idle partition can't be flushed", "partition", l.id.String(), "error", err)
				continue
			}
		}
		l.rest(before)
	}
}

// reviveAll makes the logs that ended by a failed write ready to be opened
// again: what they acknowledged is written to new files, so that no file whose
// sync failed is relied on, and the journal files given up are no longer needed.
func (s *Store) reviveAll() error {
	if err := s.nextEpoch(); err != nil {
		return err
	}
	s.mu.Lock()
	var dead []*log
	for _, l := range s.logs {
		if l.Err() != nil && !l.revived.Load() {
			dead = append(dead, l)
		}
	}
	s.mu.Unlock()
	states := map[store.LogID]checkpoint{}
	for _, l := range dead {
		c, err := s.revive(l)
		if err != nil {
			return fmt.Errorf("partition %s: %w", l.id, err)
		}
		states[l.id] = c
	}
	err := s.kv.Update(func(tx KVTx) error { return putCheckpoints(tx, states) })
	if err != nil {
		return err
	}
	for _, l := range dead {
		l.revived.Store(true)
		l.fail(store.ErrUnknown) // those who read it as it was open it again
		l.mu.Lock()
		l.tail.pop(len(l.tail.entries()))
		l.mu.Unlock()
	}
	if err := s.checkpoint(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.retired {
		if j.broken {
			return fmt.Errorf("the journal file %s is still needed", j.name)
		}
	}
	for _, l := range dead {
		delete(s.logs, l.id)
	}
	return nil
}

// revive writes to a new segment, synced, the acknowledged records of a dead log
// that no sync covers. The new segment's first number ends the one before it,
// whatever that holds beyond.
func (s *Store) revive(l *log) (checkpoint, error) {
	l.files.Lock()
	defer l.files.Unlock()
	l.mu.Lock()
	visible := l.visible
	pending := l.tail.entries()
	l.mu.Unlock()
	var es []entry
	defer func() {
		for i := range es {
			es[i].slab.Release()
		}
	}()
	next := l.flushed
	if g := l.active; g != nil {
		var err error
		if es, err = s.unsynced(l, g, visible); err != nil {
			return checkpoint{}, err
		}
	}
	start := visible
	if len(es) > 0 {
		next = es[len(es)-1].next()
	}
	for _, e := range pending {
		if e.first == next {
			e.slab.Retain()
			es = append(es, e)
			next = e.next()
		}
	}
	if len(es) > 0 {
		start = es[0].first
	}
	first := entry{first: start, enqueued: l.visTime}
	if len(es) > 0 {
		first.enqueued = es[0].enqueued
	}
	before, flushed, flushedT := l.active, l.flushed, l.flushedT
	c, err := l.rewrite(&first, es)
	if err != nil { // as if it had not been tried
		l.active, l.flushed, l.flushedT = before, flushed, flushedT
		return checkpoint{}, err
	}
	if before != nil && before.f != nil {
		before.f.Close()
	}
	return c, nil
}

// rewrite writes records to a new segment and makes it durable. It gets its name
// when it is whole: what a failed try leaves is not taken for a segment.
func (l *log) rewrite(first *entry, es []entry) (checkpoint, error) {
	g := newSegment(first, l.s.epoch.Load()) // later than any that the dead log made
	if err := l.begin(g, g.name+unfinished); err != nil {
		return checkpoint{}, err
	}
	defer func() {
		g.f.Close()
		g.f = nil
	}()
	l.active = g
	l.flushed, l.flushedT = first.first, l.visTime
	if len(es) > 0 {
		if err := l.writeRun(es); err != nil {
			return checkpoint{}, err
		}
	}
	if err := g.sync(g.f); err != nil {
		return checkpoint{}, err
	}
	g.synced = g.end.Load()
	dir := l.dir()
	if err := l.s.disk.Rename(path.Join(dir, g.name+unfinished), path.Join(dir, g.name)); err != nil {
		return checkpoint{}, err
	}
	if err := l.syncDirs(); err != nil {
		return checkpoint{}, err
	}
	l.adopt(g)
	return l.checkpointLocked(), nil
}

// unfinished ends the name of a segment that is being rewritten.
const unfinished = ".new"

// unsynced reads back the acknowledged records that were written to a segment
// after its last successful sync.
func (s *Store) unsynced(l *log, g *segmentFile, visible event.SequenceNumber) ([]entry, error) {
	f, err := s.disk.Open(path.Join(l.dir(), g.name), false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := newScanner(f, g.salt, max(g.synced, fileHeaderSize), g.end.Load())
	var es []entry
	var x found
	for sc.off < sc.end {
		if err := sc.next(&x); err != nil {
			return es, fmt.Errorf("read back %s at %d: %w", g.name, sc.off, err)
		}
		if x.Next() > visible {
			break
		}
		slab := event.NewSlab(x.size)
		copy(slab.B, x.run)
		es = append(es, entry{
			slab: slab, len: int32(x.size), first: x.First, count: int32(x.Count),
			start: x.Flags&event.FlagBatchStart != 0, enqueued: x.Enqueued,
		})
	}
	return es, nil
}
