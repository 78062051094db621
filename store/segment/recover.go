package segment

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// checkpoint is what the database knows of a log: up to where it was synced,
// and what it held there. Opening a log reads only what follows.
type checkpoint struct {
	segment  event.SequenceNumber // the first number of the segment
	epoch    uint64               // in which the segment was made
	offset   int64                // durable, in that segment; 0 when there was none
	next     event.SequenceNumber
	enqueued int64
	first    event.SequenceNumber // trimmed up to here
}

// of tells whether the checkpoint is of a segment.
func (c *checkpoint) of(g *segmentFile) bool {
	return c.offset > 0 && c.segment == g.first && c.epoch == g.epoch
}

func (c *checkpoint) encode(id store.LogID) []byte {
	var b []byte
	le := binary.LittleEndian
	for _, v := range []int64{int64(c.segment), int64(c.epoch), c.offset, int64(c.next), c.enqueued, int64(c.first)} {
		b = le.AppendUint64(b, uint64(v))
	}
	return seal(id.String(), b)
}

func (c *checkpoint) decode(id store.LogID, b []byte) error {
	le := binary.LittleEndian
	if b, err := unseal(id.String(), b); err != nil || len(b) != 48 {
		return &store.CorruptError{Log: id, File: kvFile, Detail: "the checkpoint of this partition does not match its checksum"}
	}
	v := func(i int) int64 { return int64(le.Uint64(b[8*i:])) }
	*c = checkpoint{event.SequenceNumber(v(0)), uint64(v(1)), v(2), event.SequenceNumber(v(3)), v(4), event.SequenceNumber(v(5))}
	return nil
}

// merge brings an older checkpoint up to date: neither position goes back. A
// segment of a later epoch comes after all of earlier ones, whatever they hold:
// they may have been given up.
func (c *checkpoint) merge(n checkpoint) {
	first := max(c.first, n.first)
	if cmp.Or(cmp.Compare(n.epoch, c.epoch), cmp.Compare(n.segment, c.segment), cmp.Compare(n.offset, c.offset)) >= 0 {
		*c = n
	}
	c.first = first
}

// putCheckpoints stores checkpoints, except of logs deleted meanwhile.
func putCheckpoints(tx KVTx, m map[store.LogID]checkpoint) error {
	for id, n := range m {
		if tx.Get(bucketEngine, deletedKey(id)) != nil {
			continue
		}
		var c checkpoint
		if b := tx.Get(bucketLogs, id.String()); b != nil {
			if err := c.decode(id, b); err != nil {
				return err
			}
		}
		c.merge(n)
		if err := tx.Put(bucketLogs, id.String(), c.encode(id)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) saveCheckpoint(id store.LogID, c checkpoint) error {
	return s.kv.Update(func(tx KVTx) error { return putCheckpoints(tx, map[store.LogID]checkpoint{id: c}) })
}

// loadState reads what the database says of a log: its checkpoint, and the
// damage that was found before, if any.
func (s *Store) loadState(id store.LogID) (c checkpoint, damage *store.CorruptError, err error) {
	err = s.kv.View(func(tx KVTx) error {
		if tx.Get(bucketEngine, deletedKey(id)) != nil {
			return store.ErrDeleted
		}
		if b := tx.Get(bucketEngine, damageKey(id)); b != nil {
			damage = &store.CorruptError{}
			b, err := unseal(damageKey(id), b)
			if err == nil {
				err = json.Unmarshal(b, damage)
			}
			if err != nil {
				return fmt.Errorf("%s: the note of damage to partition %s is itself damaged: %w", kvFile, id, err)
			}
		}
		if b := tx.Get(bucketLogs, id.String()); b != nil {
			return c.decode(id, b)
		}
		return nil
	})
	return c, damage, err
}

// load opens a log: its files, the end of the last of them, and no more.
func (s *Store) load(id store.LogID, epoch uint64) (*log, error) {
	c, damage, err := s.loadState(id)
	if err != nil {
		return nil, err
	}
	l := &log{s: s, id: id, epoch: epoch, done: make(chan struct{}), used: s.o.Now()}
	segs, err := s.listSegments(l.dir())
	if err != nil {
		return nil, err
	}
	l.segments.Store(&segs)
	at := batchTail{next: c.next, whole: c.next, enqueued: c.enqueued}
	if err := s.loadTail(l, c, &at); err != nil && !errors.As(err, &l.refused) {
		return nil, err
	}
	lowest := at.whole
	if segs := *l.segments.Load(); len(segs) > 0 {
		lowest = min(lowest, segs[0].first)
	}
	lastEpoch := uint64(0)
	if segs := *l.segments.Load(); len(segs) > 0 {
		lastEpoch = segs[len(segs)-1].epoch
	}
	switch kept := c.offset > 0 && c.first < c.next; { // there should be files
	case l.refused != nil:
	case damage != nil:
		l.refused = damage
	case kept && at.whole < c.next && lastEpoch <= c.epoch:
		l.refused = &store.CorruptError{Log: id, File: l.dir(),
			Detail: fmt.Sprintf("the last event found is number %d, but %d was stored: a segment is missing", at.whole-1, c.next-1)}
	case kept && lowest > c.first:
		l.refused = &store.CorruptError{Log: id, File: l.dir(),
			Detail: fmt.Sprintf("the segment that holds sequence number %d is missing", c.first)}
	}
	if l.refused != nil {
		s.log.Error("a partition is damaged: its appends are refused, what is whole can be read", "error", l.refused)
	}
	l.next, l.visible, l.flushed = at.whole, at.whole, at.whole
	l.enqueued, l.visTime, l.flushedT = at.enqueued, at.enqueued, at.enqueued
	l.first = max(c.first, lowest)
	return l, nil
}

// closeFile closes the file that load opened.
func (l *log) closeFile() {
	if l.active != nil && l.active.f != nil {
		l.active.f.Close()
		l.active.f = nil
	}
}

// listSegments returns the segments of a folder, oldest first, with their
// sizes, and removes what failed writes left beside them.
func (s *Store) listSegments(dir string) ([]*segmentFile, error) {
	segs, leftover, err := s.findSegments(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range leftover {
		if err := s.disk.Remove(path.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return segs, nil
}

// findSegments tells the files that make up a log from leftovers. Of what a log
// wrote before it was given up after a failed write, whatever lies at or after
// the first number of a later epoch's segment is not the log's.
func (s *Store) findSegments(dir string) (segs []*segmentFile, leftover []string, err error) {
	names, err := s.disk.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var all []*segmentFile
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) {
			leftover = append(leftover, name)
		}
		first, epoch, salt, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		g := &segmentFile{name: name, first: first, epoch: epoch, salt: salt}
		size, err := s.sizeOf(path.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		g.end.Store(size)
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *segmentFile) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.epoch, b.epoch))
	})
	for i, g := range all {
		if len(segs) > 0 && g.epoch < segs[len(segs)-1].epoch || i+1 < len(all) && all[i+1].first == g.first {
			leftover = append(leftover, g.name)
			continue
		}
		segs = append(segs, g)
	}
	return segs, leftover, nil
}

func (s *Store) sizeOf(name string) (int64, error) {
	f, err := s.disk.Open(name, false)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size()
}

// loadTail finds where the last segment ends, and cuts what a crash left after
// it. The active segment is then open for writing.
func (s *Store) loadTail(l *log, c checkpoint, at *batchTail) error {
	segs := *l.segments.Load()
	if len(segs) == 0 {
		return nil
	}
	g := segs[len(segs)-1]
	if g.end.Load() < fileHeaderSize && !c.of(g) {
		// A crash between making the file and writing to it.
		if err := s.disk.Remove(path.Join(l.dir(), g.name)); err != nil {
			return err
		}
		segs = segs[: len(segs)-1 : len(segs)-1]
		l.segments.Store(&segs)
		return s.loadTail(l, c, at)
	}
	f, err := s.disk.Open(path.Join(l.dir(), g.name), false)
	if err != nil {
		return err
	}
	known := int64(0)
	from := int64(fileHeaderSize)
	*at = batchTail{next: g.first, whole: g.first, enqueued: c.enqueued}
	if c.of(g) {
		known, from = c.offset, max(c.offset, fileHeaderSize)
		*at = batchTail{next: c.next, whole: c.next, enqueued: c.enqueued}
	}
	at.end = from
	end := g.end.Load()
	if end < from {
		f.Close()
		return &store.CorruptError{Log: l.id, File: path.Join(l.dir(), g.name), Offset: end,
			Detail: fmt.Sprintf("the file ends here; it was %d bytes long", from)}
	}
	if err := s.checkHeader(f, g, l); err != nil {
		s.log.Warn("a segment's header is damaged; its name says what is needed", "error", err)
	}
	if err := s.findEnd(f, g, l.id, at, known); err != nil {
		f.Close()
		return fmt.Errorf("%w", s.name(err, l.id, path.Join(l.dir(), g.name)))
	}
	if at.end < end {
		s.log.Warn("cut an unfinished write at the end of a partition", "partition", l.id.String(),
			"file", g.name, "offset", at.end, "bytes", end-at.end, "next", int64(at.whole))
		if err := errors.Join(f.Truncate(at.end), f.Sync()); err != nil {
			f.Close()
			return err
		}
	}
	if err := writeAgain(f, known, at.end); err != nil {
		s.log.Warn("the end of a partition can't be written again: it can be read, and what is appended goes to another file", "partition", l.id.String(), "file", g.name, "error", err)
		g.syncErr = &syncError{err}
	}
	g.f, g.synced = f, known
	g.end.Store(at.end)
	l.active = g
	if known == 0 {
		l.made = 1
	}
	return nil
}

// writeAgain writes a part of a file over itself. Where a sync failed before this
// process began, the system has what was written in its cache alone and takes it for
// being on disk: the next sync would say so, and a loss of power take it back.
func writeAgain(f File, from, to int64) error {
	b := make([]byte, min(max(to-from, 0), 1<<20))
	for from < to {
		b = b[:min(int64(len(b)), to-from)]
		if _, err := f.ReadAt(b, from); err != nil {
			return err
		}
		if err := f.WriteAt([][]byte{b}, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}

// checkHeader reads a segment's header, and when its first record was enqueued.
func (s *Store) checkHeader(f File, g *segmentFile, l *log) error {
	b := make([]byte, fileHeaderSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	var h segmentHeader
	if err := h.decode(b); err != nil {
		return &store.CorruptError{Log: l.id, File: path.Join(l.dir(), g.name), Detail: err.Error()}
	}
	if h.salt != g.salt || h.first != g.first || h.log != l.id {
		return &store.CorruptError{Log: l.id, File: path.Join(l.dir(), g.name), Detail: "the file's name and its header differ"}
	}
	g.since = h.enqueued
	return nil
}

// findEnd follows the records from at on, until they end. It returns a
// *store.CorruptError, without its names, if they should not end there.
func (s *Store) findEnd(f io.ReaderAt, g *segmentFile, id store.LogID, at *batchTail, known int64) error {
	sc := newScanner(f, g.salt, at.end, g.end.Load())
	var x found
	for {
		off := sc.off
		err := sc.next(&x)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			if at.follow(&x, id) {
				continue
			}
			err = errFollows
		}
		if errors.Is(err, event.ErrVersion) {
			return fmt.Errorf("%w; use the newer program that wrote it", err)
		}
		if !notAFrame(err) && !errors.Is(err, errFollows) {
			return err
		}
		bad, derr := sc.damaged(off, known)
		if derr != nil {
			return derr
		}
		if bad {
			return &store.CorruptError{Offset: off, Detail: err.Error()}
		}
		return nil
	}
}

var errFollows = errors.New("the record here does not continue the one before")

// name completes an error that findEnd returned.
func (s *Store) name(err error, id store.LogID, file string) error {
	var c *store.CorruptError
	if errors.As(err, &c) {
		c.Log, c.File = id, file
	}
	return err
}
