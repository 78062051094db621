package segment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// log is the state of one open log. A log whose write failed is dead: its
// successor is loaded from disk.
type log struct {
	s     *Store
	id    store.LogID
	epoch uint64
	done  chan struct{}

	retention atomic.Int64 // time.Duration
	keepBytes atomic.Int64
	revived   atomic.Bool // dead, and what it acknowledged is in new files

	// The committer's own.
	next     event.SequenceNumber // what the next event gets, ahead of visible during a round
	enqueued int64                // of event next-1
	round    roundState

	mu      sync.Mutex
	err     error               // set once; the log is dead
	frozen  bool                // dead, but read as it is until it can be revived
	refused *store.CorruptError // the log is damaged: appends are refused
	first   event.SequenceNumber
	visible event.SequenceNumber
	visTime int64
	tail    tail
	pending int // bytes in tail that no segment has
	waiters []*waiter
	used    time.Time // of the last append or read of a file

	files    sync.Mutex // serialises what follows; may be held over disk operations
	active   *segmentFile
	creating *segmentFile         // one that could not be made yet
	flushed  event.SequenceNumber // what the segments have, synced or not
	flushedT int64
	made     int // files made, and how many of them a sync of the folders covers
	madeSync int
	scratch  []entry
	gather   gather

	segments atomic.Pointer[[]*segmentFile] // oldest first; the last is active, if open
}

// roundState is what a log has in the round that is being committed.
type roundState struct {
	touched bool
	direct  bool
	bytes   int
	fresh   []entry
	err     error
}

type waiter struct {
	after event.SequenceNumber
	fn    func()
}

func (l *log) dir() string { return path.Join("logs", l.id.String()) }

// Append implements store.Log.
func (l *log) Append(b *event.Batch, done func(error)) {
	if n := b.Size(); n > MaxBatch {
		done(&store.TooLargeError{Size: n, Limit: MaxBatch})
		return
	}
	if b.Count == 0 {
		done(errors.New("a batch without events can't be stored"))
		return
	}
	l.s.enqueue(item{l: l, b: b, done: done})
}

// Epoch implements store.Log.
func (l *log) Epoch() uint64 { return l.epoch }

// Done implements store.Log.
func (l *log) Done() <-chan struct{} { return l.done }

// Err implements store.Log.
func (l *log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Configure implements store.Log.
func (l *log) Configure(c store.LogConfig) error {
	l.configure(c)
	return nil
}

func (l *log) configure(c store.LogConfig) {
	l.retention.Store(int64(c.Retention))
	l.keepBytes.Store(c.Bytes)
}

// Within implements store.SizeLimited: whole files from the newest on, that one
// always.
func (l *log) Within(bytes int64) event.SequenceNumber {
	segs := *l.segments.Load()
	l.mu.Lock()
	first := l.first
	bytes -= int64(l.pending)
	l.mu.Unlock()
	for i := len(segs) - 1; i > 0; i-- {
		if bytes -= segs[i].end.Load(); bytes < segs[i-1].end.Load() {
			return max(first, segs[i].first)
		}
	}
	return first
}

// usable returns why appends are refused, if they are.
func (l *log) usable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.refused != nil {
		return l.refused
	}
	return nil
}

// fail ends the log: appends, reads and waiters get err.
func (l *log) fail(err error) {
	l.mu.Lock()
	if l.err != nil && !l.frozen {
		l.mu.Unlock()
		return
	}
	if l.err == nil {
		l.err = err
		close(l.done)
	}
	l.frozen = false
	ws := l.waiters
	l.waiters = nil
	l.mu.Unlock()
	for _, w := range ws {
		w.fn()
	}
}

// freeze lets a dead log be read up to what it acknowledged, which is in memory
// and in its files, until it is revived. It returns false where there is nothing
// more to be read.
func (l *log) freeze() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return true
	}
	if l.revived.Load() || errors.Is(l.err, store.ErrDeleted) || errors.Is(l.err, store.ErrClosed) {
		return false
	}
	l.frozen = true
	return true
}

// unreadable returns why reads are refused, if they are. l.mu is held.
func (l *log) unreadable() error {
	if l.frozen {
		return nil
	}
	return l.err
}

// publish makes the round's records visible.
func (l *log) publish() error {
	l.mu.Lock()
	if err := l.err; err != nil {
		l.mu.Unlock()
		return err
	}
	l.tail.push(l.round.fresh)
	if !l.round.direct {
		l.pending += l.round.bytes
	}
	l.visible, l.visTime = l.next, l.enqueued
	var wake []*waiter
	keep := l.waiters[:0]
	for _, w := range l.waiters {
		if w.after+1 < l.visible {
			wake = append(wake, w)
		} else {
			keep = append(keep, w)
		}
	}
	clear(l.waiters[len(keep):])
	l.waiters = keep
	l.mu.Unlock()
	for _, w := range wake {
		w.fn()
	}
	return nil
}

// Notify implements store.Reader.
func (l *log) Notify(after event.SequenceNumber, fn func()) (stop func()) {
	l.mu.Lock()
	if l.unreadable() != nil || after+1 < l.visible {
		l.mu.Unlock()
		fn()
		return func() {}
	}
	w := &waiter{after, fn}
	l.waiters = append(l.waiters, w)
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, x := range l.waiters {
			if x == w {
				last := len(l.waiters) - 1
				l.waiters[i] = l.waiters[last]
				l.waiters[last] = nil
				l.waiters = l.waiters[:last]
				return
			}
		}
	}
}

// Bounds implements store.Reader.
func (l *log) Bounds(ctx context.Context) (store.Bounds, error) {
	if err := ctx.Err(); err != nil {
		return store.Bounds{}, err
	}
	segs := *l.segments.Load()
	var bytes int64
	for _, g := range segs {
		bytes += g.end.Load()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.unreadable(); err != nil {
		return store.Bounds{}, err
	}
	return store.Bounds{First: l.first, Next: l.visible, LastEnqueued: l.visTime, Bytes: bytes + int64(l.pending)}, nil
}

// flush writes to the segments what only the journal and the memory have.
func (l *log) flush() error {
	l.files.Lock()
	defer l.files.Unlock()
	return l.flushLocked(nil)
}

// flushLocked writes the pending records and then fresh ones, which are not
// visible yet. l.files is held.
func (l *log) flushLocked(fresh []entry) error {
	l.mu.Lock()
	if err := l.err; err != nil {
		l.mu.Unlock()
		return err
	}
	es := l.tail.entries()
	es = es[sort.Search(len(es), func(i int) bool { return es[i].first >= l.flushed }):]
	l.scratch = append(l.scratch[:0], es...)
	taken := l.pending
	l.used = l.s.o.Now()
	l.mu.Unlock()

	l.scratch = append(l.scratch, fresh...)
	err := l.writeOut(l.scratch)
	clear(l.scratch)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.pending -= taken
	l.mu.Unlock()
	return nil
}

// writeOut appends records to the active segment, rolling where a batch begins.
func (l *log) writeOut(es []entry) error {
	for len(es) > 0 {
		if err := l.roll(&es[0]); err != nil {
			return err
		}
		n := 1
		size := l.active.end.Load() + int64(es[0].len)
		for n < len(es) && (!es[n].start || size < l.s.o.SegmentBytes) {
			size += int64(es[n].len)
			n++
		}
		if err := l.writeRun(es[:n]); err != nil {
			return err
		}
		es = es[n:]
	}
	return nil
}

// writeRun appends records to the active segment in one write.
func (l *log) writeRun(es []entry) error {
	g := l.active
	l.gather.begin(g.salt, g.end.Load())
	f := frame{log: l.id, durable: g.synced}
	for i := range es {
		l.gather.add(&f, &es[i])
	}
	end, err := l.gather.write(g.f)
	if err != nil {
		return err
	}
	e := &es[len(es)-1]
	g.end.Store(end)
	l.flushed, l.flushedT = e.next(), e.enqueued
	return nil
}

// roll makes sure that there is an active segment, open, with room for e.
func (l *log) roll(e *entry) error {
	if g := l.active; g != nil {
		if g.f == nil {
			f, err := l.s.disk.Open(path.Join(l.dir(), g.name), false)
			if err != nil {
				return err
			}
			g.f = f
		}
		if g.since == 0 && g.end.Load() == fileHeaderSize {
			g.since = e.enqueued
		}
		if !e.start || g.end.Load() == fileHeaderSize || !l.due(g, e) {
			return nil
		}
		if err := l.seal(); err != nil {
			return err
		}
	}
	return l.create(e)
}

// due tells whether g has had its fill.
func (l *log) due(g *segmentFile, e *entry) bool {
	limit := l.s.o.SegmentBytes
	if keep := l.keepBytes.Load(); keep > 0 {
		limit = min(limit, max(keep/sizeParts, minSegment))
	}
	if g.end.Load()+int64(e.len) > limit {
		return true
	}
	keep := time.Duration(l.retention.Load())
	if keep == 0 {
		return false
	}
	age := time.Duration(e.enqueued-g.since) * time.Millisecond
	return g.since > 0 && age >= max(keep/rollParts, minRoll)
}

// seal ends the active segment: synced, closed, never written to again.
func (l *log) seal() error {
	g := l.active
	if g.synced < g.end.Load() {
		if err := g.sync(g.f); err != nil {
			return err
		}
		g.synced = g.end.Load()
	}
	if g.f != nil {
		if err := g.f.Close(); err != nil {
			return err
		}
		g.f = nil
	}
	l.active = nil
	return nil
}

// create starts a segment at e.
func (l *log) create(e *entry) error {
	if err := l.syncMade(); err != nil { // no file may outlive the entry of the one before
		return err
	}
	g := l.creating
	if g == nil || g.first != e.first { // a second try uses the same name
		g = newSegment(e, l.epoch)
		l.creating = g
	}
	if err := l.begin(g, g.name); err != nil {
		return err
	}
	l.creating = nil
	l.adopt(g)
	return nil
}

// begin makes a segment's file, under the given name, with its header.
func (l *log) begin(g *segmentFile, name string) error {
	dir := l.dir()
	if err := l.s.disk.MkdirAll(dir); err != nil {
		return err
	}
	f, err := l.s.disk.Open(path.Join(dir, name), true)
	if err != nil {
		return err
	}
	h := segmentHeader{salt: g.salt, log: l.id, first: g.first, enqueued: g.since}
	if err := f.WriteAt([][]byte{h.encode()}, 0); err != nil {
		f.Close()
		return err
	}
	g.f = f
	g.end.Store(fileHeaderSize)
	return nil
}

// adopt makes a segment the active one.
func (l *log) adopt(g *segmentFile) {
	l.active = g
	l.made++
	old := *l.segments.Load()
	segs := append(old[:len(old):len(old)], g)
	l.segments.Store(&segs)
}

// syncLocked makes what the segments have durable. l.files is held.
func (l *log) syncLocked() error {
	g := l.active
	if g != nil && g.f != nil && g.synced < g.end.Load() {
		if err := g.sync(g.f); err != nil {
			return err
		}
		g.synced = g.end.Load()
	}
	return l.syncMade()
}

// syncMade makes the files made so far findable after a loss of power.
func (l *log) syncMade() error {
	if l.madeSync == l.made {
		return nil
	}
	if err := l.syncDirs(); err != nil {
		return err
	}
	l.madeSync = l.made
	return nil
}

// syncDirs syncs the log's folder and those above it.
func (l *log) syncDirs() error {
	dir := l.dir()
	for _, d := range []string{dir, path.Dir(dir), "logs"} {
		if err := l.s.disk.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// checkpointLocked is what the database is to know of the log. l.files is held.
func (l *log) checkpointLocked() checkpoint {
	c := checkpoint{next: l.flushed, enqueued: l.flushedT}
	if segs := *l.segments.Load(); len(segs) > 0 {
		g := segs[len(segs)-1]
		c.segment, c.epoch, c.offset = g.first, g.epoch, g.synced
	}
	l.mu.Lock()
	c.first = l.first
	l.mu.Unlock()
	return c
}

// Trim implements store.Log.
func (l *log) Trim(ctx context.Context, before event.SequenceNumber) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.files.Lock()
	defer l.files.Unlock()
	l.mu.Lock()
	err := l.err
	before = min(before, l.visible)
	if err != nil || before <= l.first {
		l.mu.Unlock()
		return err
	}
	all := before == l.visible
	l.first = before
	l.mu.Unlock()

	if all { // nothing is left: the active segment goes too
		if err := l.flushLocked(nil); err != nil {
			return err
		}
	}
	if err := l.syncLocked(); err != nil {
		return err
	}
	if err := l.s.saveCheckpoint(l.id, l.checkpointLocked()); err != nil {
		return err
	}
	if all && l.active != nil && l.flushed == before {
		if err := l.seal(); err != nil {
			return err
		}
	}
	return l.removeBefore(before)
}

// removeBefore deletes the files that hold nothing at or after a number. The
// newest stays while it is active.
func (l *log) removeBefore(before event.SequenceNumber) error {
	segs := *l.segments.Load()
	n := 0
	for n < len(segs) && segs[n] != l.active {
		end := l.flushed
		if n+1 < len(segs) {
			end = segs[n+1].first
		}
		if end > before {
			break
		}
		n++
	}
	if n == 0 {
		return nil
	}
	keep := segs[n:len(segs):len(segs)]
	l.segments.Store(&keep)
	for _, g := range segs[:n] {
		err := l.s.disk.Remove(path.Join(l.dir(), g.name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an expired segment: %w", err)
		}
	}
	return nil
}

// rest closes the descriptor of a log that is idle and wholly in its segment.
func (l *log) rest(before time.Time) {
	if !l.files.TryLock() {
		return
	}
	defer l.files.Unlock()
	g := l.active
	l.mu.Lock()
	idle := l.used.Before(before) && l.pending == 0
	l.mu.Unlock()
	if idle && g != nil && g.f != nil && g.synced == g.end.Load() {
		if g.f.Close() == nil {
			g.f = nil
		}
	}
}
