package segment

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// item is an append that waits for its round.
type item struct {
	l    *log
	b    *event.Batch
	done func(error)
	err  error
}

// enqueue hands an append to the committer.
func (s *Store) enqueue(it item) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		it.done(store.ErrClosed)
		return
	}
	s.queue = append(s.queue, it)
	first := len(s.queue) == 1
	s.mu.Unlock()
	if first {
		s.kick()
	}
}

// kick wakes the committer.
func (s *Store) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take moves queued appends into the round, up to maxRound bytes and at least
// one; more says whether some are left.
func (s *Store) take() (more, closing bool) {
	c := &s.c
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := 0, 0
	for n < len(s.queue) && (n == 0 || bytes < maxRound) {
		bytes += s.queue[n].b.Size()
		n++
	}
	c.items = append(c.items[:0], s.queue[:n]...)
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	return rest > 0, s.closing
}

// committer is the state of the one goroutine that writes.
type committer struct {
	items   []item
	touched []*log
	slab    *event.Slab // small records are gathered here
	slabEnd int
	list    roundList
	opening []byte
	gather  gather

	cache    []cached // the records in memory, oldest first
	cacheAt  int
	cacheLen int64

	checkedSpace  time.Time
	writtenSpace  int64
	full          bool
	unsynced      map[*log]struct{} // under SyncInterval: segments written to directly
	directBytes   int64             // since the last checkpoint
	sinceRotation time.Time
}

// cached says that the n oldest records of a log are next to leave the memory.
type cached struct {
	l     *log
	n     int
	bytes int64
}

// commit is the committer's loop.
func (s *Store) commit() {
	defer s.wg.Done()
	var tick <-chan time.Time
	if s.o.Sync.Policy == SyncInterval {
		t := time.NewTicker(s.o.Sync.Interval)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-s.wake:
		case <-tick:
			s.syncInterval()
		}
		for {
			more, closing := s.take()
			if len(s.c.items) > 0 {
				s.roundTrip()
			}
			if closing && !more {
				return
			}
			if !more {
				break
			}
		}
	}
}

// roundTrip takes one group of appends from the queue to their callers.
func (s *Store) roundTrip() {
	c := &s.c
	if s.o.Stall != nil {
		s.o.Stall()
	}
	s.checkSpace()
	need := s.admit()
	if need > 0 {
		s.place(need)
	}
	for _, l := range c.touched {
		if l.round.direct && l.round.err == nil {
			l.round.err = s.writeDirect(l)
		}
	}
	for _, l := range c.touched {
		s.finish(l)
	}
	for i := range c.items {
		it := &c.items[i]
		if it.err == nil {
			it.err = it.l.round.err
		}
		it.done(it.err)
	}
	clear(c.items)
	for _, l := range c.touched {
		clear(l.round.fresh)
		l.round = roundState{fresh: l.round.fresh[:0]}
	}
	s.settle()
	clear(c.touched)
	c.touched = c.touched[:0]
}

// admit numbers the batches, lays out their records in memory, and decides for
// each log where its bytes go. It returns how many go to the journal.
func (s *Store) admit() (journal int64) {
	c := &s.c
	now := s.o.Now().UnixMilli()
	for i := range c.items {
		it := &c.items[i]
		l := it.l
		if it.err = l.usable(); it.err == nil && c.full {
			it.err = store.ErrFull
		}
		if it.err != nil {
			continue
		}
		if !l.round.touched {
			l.round.touched = true
			c.touched = append(c.touched, l)
		}
		b := it.b
		l.enqueued = max(now, l.enqueued)
		b.First, b.Enqueued = l.next, l.enqueued
		l.next += event.SequenceNumber(b.Count)
		s.layOut(l, b)
	}
	few := 0
	for _, l := range c.touched {
		if l.round.bytes >= directBytes {
			few++
		}
	}
	// The journal saves syncs. Where there are none to save, a write to each of a
	// few segments costs less than one to the journal and those all the same later.
	once := s.o.Sync.Policy == SyncNever && len(c.touched) <= directFew
	for _, l := range c.touched {
		l.round.direct = once || l.round.bytes >= directMuch || l.round.bytes >= directBytes && few <= directFew
		if !l.round.direct {
			journal += int64(l.round.bytes)
		}
	}
	return journal
}

// layOut writes the headers of a batch's records and adds them to the round.
func (s *Store) layOut(l *log, b *event.Batch) {
	c := &s.c
	first, producer := b.First, b.Producer
	for i := range b.Records {
		r := &b.Records[i]
		h := r.Header
		h.First, h.Enqueued, h.Epoch, h.Producer = first, b.Enqueued, l.epoch, producer
		h.Flags = 0
		if i == 0 {
			h.Flags |= event.FlagBatchStart
		}
		if i == len(b.Records)-1 {
			h.Flags |= event.FlagBatchEnd
		}
		first = h.Next()
		producer.Sequence = event.NextSequence(producer.Sequence, h.Count)

		slab, at := b.Slab(i)
		off, size := at-event.Headroom, frameSize(len(r.Body))
		if size < copyBelow {
			if c.slab == nil || c.slabEnd+size > len(c.slab.B) {
				if c.slab != nil {
					c.slab.Release()
				}
				c.slab, c.slabEnd = event.NewSlab(event.SlabSize), 0
			}
			copy(c.slab.B[c.slabEnd+frameOverhead:], r.Body)
			slab, off = c.slab, c.slabEnd
			c.slabEnd += size
		}
		slab.Retain()
		run := slab.B[off : off+size]
		h.Encode(run[event.FrameRoom:])
		clear(run[frameOverhead+len(r.Body):])
		l.round.fresh = append(l.round.fresh, entry{
			slab: slab, off: int32(off), len: int32(size),
			first: h.First, count: int32(h.Count), start: i == 0, enqueued: b.Enqueued,
		})
		l.round.bytes += size
	}
}

// place writes to the journal what goes there, and syncs.
func (s *Store) place(records int64) {
	c := &s.c
	c.list.logs = c.list.logs[:0]
	for _, l := range c.touched {
		if !l.round.direct {
			c.list.logs = append(c.list.logs, roundLog{l.id, l.next})
		}
	}
	err := s.makeRoom(records)
	if err == nil {
		err = s.writeJournal(records)
	}
	if err != nil {
		s.journalFailed(err)
		for _, l := range c.touched {
			if !l.round.direct {
				l.round.err = fmt.Errorf("%w: %w", store.ErrUnknown, err)
			}
		}
	}
}

// makeRoom sees to it that the current journal file takes the round.
func (s *Store) makeRoom(records int64) error {
	c := &s.c
	var before roundList
	if j := s.journal; j != nil {
		need := roundSize(records, &c.list, &j.last)
		spare := s.spare.Load()
		if (j.off+need <= j.size || j.off == journalBlock) && (j.filled || spare == nil) {
			return nil // an empty file takes any round, and grows
		}
		before = roundList{start: -j.synced, length: j.last.length, gen: j.gen, logs: j.last.logs}
		s.journal = nil
		s.retire(j) // the keeper's from here on
	}
	j := s.spare.Swap(nil)
	if j == nil {
		s.log.Debug("no spare journal file is ready; making one")
		var err error
		if j, err = s.newJournalFile(); err != nil {
			return err
		}
		if err := s.begin(j); err != nil {
			j.f.Close()
			return err
		}
	}
	if now := s.o.Now(); now.Sub(c.sinceRotation) < time.Minute {
		s.busy.Store(true) // rotating fast: the next files are larger
	}
	c.sinceRotation = s.o.Now()
	j.last = before
	s.journal = j
	return nil
}

// roundSize is how much of a journal file a round takes, its list and the rest of
// its last block included.
func roundSize(records int64, this, last *roundList) int64 {
	return alignBlock(records + int64(frameSize(roundBody(this, last))))
}

// writeJournal writes the round's frames in one go and syncs them.
func (s *Store) writeJournal(records int64) error {
	c, j := &s.c, s.journal
	c.list.start = j.off
	c.list.length = roundSize(records, &c.list, &j.last)
	c.opening = j.roundFrame(c.opening, &c.list)
	c.gather.begin(j.salt, j.off)
	c.gather.raw(c.opening)
	for _, l := range c.touched {
		if l.round.direct {
			continue
		}
		f := frame{log: l.id, durable: j.synced}
		for i := range l.round.fresh {
			c.gather.add(&f, &l.round.fresh[i])
		}
		j.dirty[l] = struct{}{}
	}
	if pad := c.list.start + c.list.length - c.gather.off; pad > 0 {
		c.gather.raw(zeros[:pad])
	}
	end, err := c.gather.write(j.f)
	if err != nil {
		return err
	}
	j.off = end
	c.writtenSpace += records
	j.last.start, j.last.length, j.last.gen = c.list.start, c.list.length, 0
	j.last.logs = append(j.last.logs[:0], c.list.logs...)
	if s.o.Sync.Policy == SyncAlways {
		return s.syncJournal()
	}
	return nil
}

func (s *Store) syncJournal() error {
	j := s.journal
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.synced = j.off
	return nil
}

// writeDirect takes a log's round straight to its segment.
func (s *Store) writeDirect(l *log) error {
	c := &s.c
	l.files.Lock()
	defer l.files.Unlock()
	err := l.flushLocked(l.round.fresh)
	if err == nil {
		c.writtenSpace += int64(l.round.bytes)
		c.directBytes += int64(l.round.bytes)
		if s.o.Sync.Policy == SyncAlways {
			err = l.syncLocked()
		} else if s.o.Sync.Policy == SyncInterval {
			c.unsynced[l] = struct{}{}
		}
	}
	if err != nil {
		if dead := l.Err(); dead != nil {
			return dead
		}
		return fmt.Errorf("%w: %w", store.ErrUnknown, err)
	}
	s.mu.Lock()
	s.moved[l] = struct{}{}
	s.mu.Unlock()
	return nil
}

// finish publishes a log's round, or ends the log.
func (s *Store) finish(l *log) {
	c := &s.c
	if l.round.err == nil {
		l.round.err = l.publish()
	} else {
		s.failed(l, l.round.err)
	}
	if l.round.err != nil {
		for i := range l.round.fresh {
			l.round.fresh[i].slab.Release()
		}
		return
	}
	var bytes int64
	for i := range l.round.fresh {
		if n := len(l.round.fresh[i].slab.B); int(l.round.fresh[i].len) >= copyBelow {
			bytes += int64(n)
		} else {
			bytes += int64(l.round.fresh[i].len)
		}
	}
	c.cache = append(c.cache, cached{l, len(l.round.fresh), bytes})
	c.cacheLen += bytes
}

// failed ends a log after a write whose outcome is unknown.
func (s *Store) failed(l *log, err error) {
	if l.Err() == nil {
		s.log.Error("a write failed; the partition is closed until it has been reopened", "partition", l.id.String(), "error", err)
	}
	l.fail(err)
}

// settle is what a round owes after its callers have been told: the segments of
// logs that have much in the journal, and the bounds of the memory.
func (s *Store) settle() {
	c := &s.c
	for _, l := range c.touched {
		l.mu.Lock()
		much := l.pending >= flushBytes && l.err == nil
		l.mu.Unlock()
		if much {
			s.flushOrComplain(l)
		}
	}
	for c.cacheLen > s.o.CacheBytes {
		e := &c.cache[c.cacheAt]
		if !s.evict(e) {
			break // the disk is full: what it can't take stays in memory, and admit refuses more
		}
		c.cacheLen -= e.bytes
		*e = cached{}
		c.cacheAt++
	}
	if c.cacheAt > 64 && c.cacheAt > len(c.cache)/2 {
		n := copy(c.cache, c.cache[c.cacheAt:])
		clear(c.cache[n:])
		c.cache, c.cacheAt = c.cache[:n], 0
	}
	if c.directBytes >= 4*s.o.JournalBytes {
		c.directBytes = 0
		s.kickKeeper()
	}
}

// flushOrComplain flushes a log, and reports whether nothing of it is left in
// memory alone.
func (s *Store) flushOrComplain(l *log) bool {
	err := l.flush()
	if err == nil || l.Err() != nil {
		return true
	}
	var se *syncError
	if errors.As(err, &se) {
		s.failed(l, fmt.Errorf("%w: %w", store.ErrUnknown, err))
		return false
	}
	if !s.c.full {
		s.log.Error("a partition's file can't be written; appends are refused until it can", "partition", l.id.String(), "error", err)
	}
	s.c.full, s.c.checkedSpace = true, s.o.Now()
	s.stuck.Store(l)
	return false
}

// evict drops a log's oldest records from memory, which its segments have.
func (s *Store) evict(e *cached) bool {
	l := e.l
	l.mu.Lock()
	es := l.tail.entries()
	n := min(e.n, len(es))
	dead := l.err != nil
	unflushed := n > 0 && !dead && l.pending > 0
	l.mu.Unlock()
	if unflushed && !s.flushOrComplain(l) && l.Err() == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if dead || l.err != nil {
		return true // revive or the collector has them
	}
	l.tail.pop(min(n, len(l.tail.entries())))
	return true
}

// checkSpace decides now and then whether the disk has room. It asks often
// enough to notice before the reserve is used up.
func (s *Store) checkSpace() {
	c := &s.c
	now := s.o.Now()
	if now.Sub(c.checkedSpace) < 250*time.Millisecond && now.After(c.checkedSpace.Add(-time.Second)) && c.writtenSpace < 8<<20 {
		return
	}
	c.checkedSpace, c.writtenSpace = now, 0
	free, total, err := s.disk.Free()
	if err != nil {
		s.log.Warn("the free space of the data disk is unknown", "error", err)
		return
	}
	reserve := s.reserve(total)
	full := int64(free) < reserve
	if l := s.stuck.Load(); l != nil && !full {
		if l.flush() != nil && l.Err() == nil {
			full = true
		} else {
			s.stuck.Store(nil)
		}
	}
	if full != c.full {
		if full {
			s.log.Error("the data disk is full: appends are refused, reads go on", "free", free, "reserve", reserve)
		} else {
			s.log.Info("the data disk has room again: appends are accepted", "free", free)
		}
	}
	c.full = full
	s.full.Store(full)
}

// reserve is the free space to keep, in bytes, on a disk of the given size.
func (s *Store) reserve(total uint64) int64 {
	switch r := s.o.Reserve; {
	case r < 0:
		return 0
	case r > 0:
		return r
	}
	return int64(min(1<<30, total/20))
}

// syncInterval is the sync that SyncInterval does every interval.
func (s *Store) syncInterval() {
	c := &s.c
	if j := s.journal; j != nil && j.synced < j.off {
		if err := s.syncJournal(); err != nil {
			s.journalFailed(err)
		}
	}
	for l := range c.unsynced {
		delete(c.unsynced, l)
		l.files.Lock()
		err := l.syncLocked()
		l.files.Unlock()
		if err != nil && l.Err() == nil {
			s.failed(l, fmt.Errorf("%w: %w", store.ErrUnknown, err))
		}
	}
}

// journalFailed gives up the current journal file: what it holds beyond the
// last sync is unknown. Every log with records in it ends; opening one again
// first brings what was acknowledged to its segment, on another file.
func (s *Store) journalFailed(err error) {
	j := s.journal
	if j == nil {
		s.log.Error("no journal file can be had", "error", err)
		return
	}
	s.log.Error("the journal can't be written; it is replaced", "file", j.name, "error", err)
	s.journal = nil
	j.broken = true
	for l := range j.dirty {
		s.failed(l, fmt.Errorf("%w: %w", store.ErrUnknown, err))
	}
	s.retire(j) // the keeper's from here on
}
