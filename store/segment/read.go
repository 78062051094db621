package segment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// readStep is how much a reader takes from a file at once.
const readStep = 64 << 10

// reader implements store.Reader. It keeps the place in the file where its last
// read ended, so that reading on costs no search.
type reader struct {
	*log
	f    File
	seg  *segmentFile
	off  int64 // where next begins in seg
	next event.SequenceNumber
}

// Close implements store.Reader.
func (r *reader) Close() error {
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f, r.seg = nil, nil
	return err
}

// Close ends the owner's reader; the log itself stays with the store.
func (o *owner) Close() error { return o.reader.Close() }

// Read implements store.Reader.
func (o *owner) Read(ctx context.Context, from event.SequenceNumber, max int) (*event.Chunk, error) {
	return o.reader.Read(ctx, from, max)
}

// Recent implements store.Reader.
func (o *owner) Recent(from event.SequenceNumber, max int) (*event.Chunk, bool) {
	return o.reader.Recent(from, max)
}

// Seek implements store.Reader.
func (o *owner) Seek(ctx context.Context, enqueued int64) (event.SequenceNumber, error) {
	return o.reader.Seek(ctx, enqueued)
}

// Read implements store.Reader.
func (r *reader) Read(ctx context.Context, from event.SequenceNumber, max int) (*event.Chunk, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := event.NewChunk()
	visible, done, err := r.readTail(c, from, max)
	if err == nil && !done {
		err = r.readFile(c, from, visible, max)
	} else if done && r.f != nil {
		r.Close() // at the tail nothing of the file is needed
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Recent implements store.Reader. What a file holds counts as recent while it
// is in the system's cache and the reader stands before it.
func (r *reader) Recent(from event.SequenceNumber, max int) (*event.Chunk, bool) {
	c := event.NewChunk()
	visible, done, err := r.readTail(c, from, max)
	if err == nil && !done && r.f != nil && r.next == from {
		stop, ok := r.stays(from)
		if f, can := r.f.(cachedReader); ok && can {
			done = r.readRun(c, from, min(stop, visible), max, f) == nil && !c.Empty()
		}
	}
	if err != nil || !done {
		c.Close()
		return nil, false
	}
	return c, true
}

// stays tells whether from lies in the segment that the reader is in, and where
// that ends.
func (r *reader) stays(from event.SequenceNumber) (stop event.SequenceNumber, ok bool) {
	segs := *r.segments.Load()
	i := sort.Search(len(segs), func(i int) bool { return segs[i].first > from })
	if i == 0 || segs[i-1] != r.seg {
		return 0, false
	}
	if i < len(segs) {
		return segs[i].first, true
	}
	return anyNumber, true
}

// readTail serves from memory, if what is asked for is there.
func (r *reader) readTail(c *event.Chunk, from event.SequenceNumber, max int) (visible event.SequenceNumber, done bool, err error) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unreadable(); err != nil {
		return 0, false, err
	}
	if from < l.first || from > l.visible {
		return 0, false, &store.OutOfRangeError{From: from, First: l.first, Next: l.visible}
	}
	if from == l.visible {
		return l.visible, true, nil
	}
	es := l.tail.entries()
	if len(es) == 0 || es[0].first > from {
		l.used = l.s.o.Now()
		return l.visible, false, nil
	}
	es = es[l.tail.at(from):]
	var last *event.Slab
	bytes := 0
	for i := range es {
		e := &es[i]
		if i > 0 && bytes+int(e.len) > max {
			break
		}
		bytes += int(e.len)
		var h event.Header
		if err := h.Decode(e.bytes()[event.FrameRoom:]); err != nil {
			return 0, false, fmt.Errorf("a record in memory: %w", err)
		}
		if e.slab != last {
			last = e.slab
			last.Retain()
			c.Hold(last)
		}
		c.Add(&h, e.bytes()[frameOverhead:frameOverhead+h.BodyLen])
	}
	return l.visible, true, nil
}

// readFile serves from the segments.
func (r *reader) readFile(c *event.Chunk, from, visible event.SequenceNumber, max int) error {
	for c.Empty() {
		stop, err := r.locate(from)
		if err != nil {
			return err
		}
		if r.off >= r.limit() {
			return r.damage(r.off, fmt.Sprintf("the segment ends before sequence number %d", from))
		}
		if err := r.readRun(c, from, min(stop, visible), max, nil); err != nil {
			return err
		}
	}
	return nil
}

// gone says what a read finds whose segment has been removed.
func (r *reader) gone(from event.SequenceNumber) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.unreadable(); err != nil {
		return err
	}
	return &store.OutOfRangeError{From: from, First: r.first, Next: r.visible}
}

// limit is where the segment's frames end. What follows in the file, if
// anything, is not the log's.
func (r *reader) limit() int64 { return r.seg.end.Load() }

// locate makes sure that the reader stands at or before from, in its segment.
// stop is where the next segment takes over: what this one holds beyond was
// given up.
func (r *reader) locate(from event.SequenceNumber) (stop event.SequenceNumber, err error) {
	segs := *r.segments.Load()
	i := sort.Search(len(segs), func(i int) bool { return segs[i].first > from })
	if i == 0 {
		return 0, r.gone(from)
	}
	stop = anyNumber
	if i < len(segs) {
		stop = segs[i].first
	}
	g := segs[i-1]
	if r.f != nil && r.seg == g && r.next <= from && r.next+1024 > from {
		return stop, nil // here, or a little further on
	}
	if err := r.enter(g, fileHeaderSize, g.first); err != nil {
		return 0, err
	}
	return stop, r.bisect(func(h *event.Header) bool { return h.First <= from })
}

// enter opens a segment with the reader standing at off.
func (r *reader) enter(g *segmentFile, off int64, next event.SequenceNumber) error {
	if r.seg != g || r.f == nil {
		r.Close()
		f, err := r.s.disk.Open(path.Join(r.dir(), g.name), false)
		if err != nil {
			return r.openFailed(g, err)
		}
		r.f, r.seg = f, g
	}
	r.off, r.next = off, next
	return nil
}

// openFailed tells a segment that was trimmed a moment ago from one that is lost.
func (r *reader) openFailed(g *segmentFile, err error) error {
	if slices.Contains(*r.segments.Load(), g) {
		return err
	}
	return r.gone(g.first)
}

// bisect moves the reader forward to the last place, give or take readStep,
// before which all frames satisfy before. Frames are found by their magic and
// their salted checksum, so no index has to be kept.
func (r *reader) bisect(before func(*event.Header) bool) error {
	lo, hi := r.off, r.limit()
	sc := newScanner(r.f, r.seg.salt, lo, hi)
	sc.step = readStep
	var x found
	for hi-lo > readStep {
		mid := lo + (hi-lo)/2
		err := sc.resync(mid, &x)
		switch {
		case err == nil && x.off < hi && before(&x.Header):
			lo = x.off
			r.off, r.next = x.off, x.First
		case err == nil || notAFrame(err) || errors.Is(err, io.EOF):
			hi = mid
		default:
			return err
		}
	}
	return nil
}

// readRun reads on from where the reader stands and adds the records that hold
// from or follow it, below stop, up to max bytes. It may add none when the
// reader stands further back than one step. With cached, it only takes what is
// in the system's cache.
func (r *reader) readRun(c *event.Chunk, from, stop event.SequenceNumber, max int, cached cachedReader) error {
	end := r.limit()
	size := int(min(readStep, end-r.off))
	if size <= 0 {
		return nil
	}
	slab := event.NewSlab(size)
	defer func() { // unless the chunk holds it
		if slab != nil {
			slab.Release()
		}
	}()
	b := slab.B[:size]
	if cached != nil {
		b = b[:cached.ReadCached(b, r.off)]
	} else if _, err := r.f.ReadAt(b, r.off); err != nil {
		return fmt.Errorf("read %s: %w", r.seg.name, err)
	}
	for pos := 0; pos < len(b) && r.next < stop; {
		var f frame
		var h event.Header
		if len(b)-pos < frameOverhead && end-r.off > int64(len(b)-pos) {
			break // the rest of this frame comes with the next read
		}
		if err := f.decode(&h, b[pos:], r.seg.salt, r.off); err != nil {
			return r.damage(r.off, err.Error())
		}
		n := frameSize(h.BodyLen)
		if h.First != r.next || f.log != r.id || f.kind != kindRecord {
			return r.damage(r.off, errFollows.Error())
		}
		if pos+n > len(b) {
			if pos > 0 || !c.Empty() || cached != nil {
				break
			}
			// A record larger than a step: read it whole.
			if r.off+int64(n) > end {
				return r.damage(r.off, "the record is longer than the file")
			}
			slab.Release()
			slab = event.NewSlab(n)
			b = slab.B[:n]
			if _, err := r.f.ReadAt(b, r.off); err != nil {
				return fmt.Errorf("read %s: %w", r.seg.name, err)
			}
		}
		rec := event.Record{Header: h, Body: b[pos+frameOverhead : pos+frameOverhead+h.BodyLen]}
		if err := rec.Check(); err != nil {
			return r.damage(r.off, err.Error())
		}
		if h.Next() > from {
			if !c.Empty() && pos+n > max {
				break
			}
			c.Add(&h, rec.Body)
		}
		pos += n
		r.off += int64(n)
		r.next = h.Next()
	}
	if !c.Empty() {
		c.Hold(slab)
		slab = nil
	}
	return nil
}

// damage names a place in the segment that is not what was written.
func (r *reader) damage(off int64, detail string) error {
	err := &store.CorruptError{Log: r.id, File: path.Join(r.dir(), r.seg.name), Offset: off, Detail: detail}
	r.Close()
	r.s.log.Error("damage was found while reading", "error", err)
	return err
}

// Seek implements store.Reader.
func (r *reader) Seek(ctx context.Context, enqueued int64) (event.SequenceNumber, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	l := r.log
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return 0, l.err
	}
	first, visible, newest := l.first, l.visible, l.visTime
	es := l.tail.entries()
	inTail := visible
	i := sort.Search(len(es), func(i int) bool { return es[i].enqueued >= enqueued })
	if i < len(es) {
		inTail = es[i].first
	}
	whole := i > 0 || len(es) > 0 && es[0].first <= first // the answer is in memory
	l.mu.Unlock()
	if first == visible || enqueued > newest {
		return visible, nil
	}
	if whole {
		return max(inTail, first), nil
	}
	n, err := r.seekFile(enqueued, visible)
	if err != nil {
		return 0, err
	}
	return max(min(n, inTail), first), nil
}

// seekFile finds the first record in the segments enqueued at or after a time.
func (r *reader) seekFile(enqueued int64, visible event.SequenceNumber) (event.SequenceNumber, error) {
	segs := *r.segments.Load()
	// The last segment that begins before the time holds the answer, or the one
	// after it begins with it.
	lo, hi := 0, len(segs)
	for lo < hi {
		mid := (lo + hi) / 2
		t, err := r.firstEnqueued(segs[mid])
		if err != nil {
			return 0, err
		}
		if t < enqueued {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		if len(segs) == 0 {
			return visible, nil
		}
		return segs[0].first, nil
	}
	after := visible
	if lo < len(segs) {
		after = segs[lo].first
	}
	g := segs[lo-1]
	if err := r.enter(g, fileHeaderSize, g.first); err != nil {
		return 0, err
	}
	if err := r.bisect(func(h *event.Header) bool { return h.Enqueued < enqueued }); err != nil {
		return 0, err
	}
	sc := newScanner(r.f, g.salt, r.off, r.limit())
	sc.step = readStep
	var x found
	for {
		off := sc.off
		err := sc.next(&x)
		switch {
		case errors.Is(err, io.EOF):
			return after, nil
		case notAFrame(err):
			return 0, r.damage(off, err.Error())
		case err != nil:
			return 0, err
		case x.First >= after:
			return after, nil
		case x.Enqueued >= enqueued:
			return x.First, nil
		}
	}
}

// firstEnqueued is when a segment's first record was enqueued: from its header,
// or, if that is damaged, from the record.
func (r *reader) firstEnqueued(g *segmentFile) (int64, error) {
	if err := r.enter(g, fileHeaderSize, g.first); err != nil {
		return 0, err
	}
	b := make([]byte, fileHeaderSize)
	var h segmentHeader
	if _, err := r.f.ReadAt(b, 0); err == nil && h.decode(b) == nil && h.salt == g.salt {
		return h.enqueued, nil
	}
	var x found
	if err := newScanner(r.f, g.salt, fileHeaderSize, r.limit()).next(&x); err != nil {
		return 0, errors.Join(r.damage(fileHeaderSize, "neither the header nor the first record can be read"), err)
	}
	return x.Enqueued, nil
}
