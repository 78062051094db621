package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// Partition is one ordered log of a hub. Its storage is opened when it is first
// used, and opened again after a failed write.
type Partition struct {
	hub   *EventHub
	index int

	// log is the open log, nil while it has to be opened.
	log atomic.Pointer[openLog]

	mu      sync.Mutex
	waiting []*appending  // appends that came while the log was being opened
	opened  chan struct{} // while the log is being opened; closed when it is
	ended   bool

	trimAt time.Time // retention's: when to look at it next

	// The bytes that came and went since the start, and each second in the last
	// whole rateWindow.
	in, out         atomic.Int64
	inRate, outRate atomic.Int64
	last            byteTotals // at its end; Namespaces.metering guards it
}

type openLog struct {
	store.Log
	producers *producers
}

// append gives the log an append. A producer's batch waits for what is known of it.
func (l *openLog) append(a *appending) {
	if a.b.Producer.Set {
		l.producers.produce(a)
		return
	}
	l.Append(a.b, a.finished)
}

// usable tells whether the log is still this node's.
func (l *openLog) usable() bool {
	if l == nil {
		return false
	}
	select {
	case <-l.Done():
		return false
	default:
		return true
	}
}

func newPartition(h *EventHub, i int) *Partition { return &Partition{hub: h, index: i} }

// Hub is the hub that the partition is of.
func (p *Partition) Hub() *EventHub { return p.hub }

// Index is the partition's number, and in decimal its id.
func (p *Partition) Index() int { return p.index }

// Entity is the partition's path, for messages.
func (p *Partition) Entity() string { return fmt.Sprintf("%s/Partitions/%d", p.hub.Name, p.index) }

func (p *Partition) logID() store.LogID {
	return store.LogID{Hub: p.hub.id, Partition: uint32(p.index)}
}

// appending is an append under way. Its callback is made once, so that an
// append allocates nothing.
type appending struct {
	p        *Partition
	b        *event.Batch
	done     func(error)
	bytes    int64
	finished func(error)

	// Of a producer's batch.
	of       *producers
	producer *producer
	produced func(error)
}

var appendings sync.Pool

func newAppending() *appending {
	a, _ := appendings.Get().(*appending)
	if a == nil {
		a = &appending{}
		a.finished, a.produced = a.finish, a.finishProduced
	}
	return a
}

func (a *appending) finish(err error) {
	p, b := a.p, a.b
	m := &p.hub.Metrics
	if err == nil {
		p.in.Add(a.bytes)
		m.IncomingMessages.Add(int64(b.Count))
		m.IncomingBytes.Add(a.bytes)
		m.Requests[Success].Add(1)
	} else {
		err = fromStore(err, p.Entity())
		m.Requests[resultOf(err)].Add(1)
	}
	a.end(err)
}

// repeated is finish for a producer's batch that was stored before: it is
// acknowledged like the first.
func (a *appending) repeated() {
	a.p.hub.Metrics.Requests[Success].Add(1)
	a.end(nil)
}

// end tells who waits for the append how it ended.
func (a *appending) end(err error) {
	p, done := a.p, a.done
	*a = appending{finished: a.finished, produced: a.produced}
	appendings.Put(a)
	if f := p.hub.fault.Load(); f != nil && err == nil && f.late(p.hub, done) {
		return
	}
	done(err)
}

// Append stores a batch. done is called once and must not block: in the order of
// the appends, from another goroutine, or at once, if the batch is refused for
// the hub's status (Disabled) or its namespace's throughput units (Busy). An
// error is an *Error. b is the partition's until then; afterwards the caller
// releases it.
//
// A batch with a Producer is stored once: one that repeats a recent one of the
// producer's, in its numbers and (AMQP's) content, is acknowledged with that one's First and
// Enqueued; one that does not follow the last is refused with OutOfSequence, one
// of an older instance with ProducerFenced. Batches of one producer may be under
// way together: when one fails, those that wait behind it fail with its error, and
// those that come later are out of sequence until it is sent again. Batches of
// several producers have no order.
func (p *Partition) Append(b *event.Batch, done func(error)) { p.append(b, nil, done) }

// append is Append by a client of an application group, if that isn't nil.
func (p *Partition) append(b *event.Batch, by *governed, done func(error)) {
	a := newAppending()
	a.p, a.b, a.done, a.bytes = p, b, done, int64(b.Size())
	p.hub.Metrics.IncomingRequests.Add(1)
	if err := p.admit(a.bytes, int64(b.Count), by); err != nil {
		a.finish(err)
		return
	}
	if l := p.log.Load(); l.usable() {
		l.append(a)
		return
	}
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		a.finish(store.ErrDeleted)
		return
	}
	if l := p.log.Load(); l.usable() && p.opened == nil {
		p.mu.Unlock()
		l.append(a)
		return
	}
	p.waiting = append(p.waiting, a)
	p.startOpening()
	p.mu.Unlock()
}

// admit tells why a batch is not taken, if it isn't.
func (p *Partition) admit(bytes, events int64, by *governed) error {
	h := p.hub
	if h.shut.Load()&shutToSend != 0 {
		return h.disabled()
	}
	if f := h.fault.Load(); f != nil {
		if err := f.refused(h); err != nil {
			return err
		}
	}
	if by != nil { // no tier has both application groups and throughput units
		if err := by.admit(bytes, events); err != nil {
			return err
		}
	}
	if t := h.ns.throughput.Load(); t != nil {
		if wait := t.admit(bytes, events); wait > 0 {
			return throttled(h.ns.Name, wait)
		}
	}
	return nil
}

// startOpening opens the log behind the caller's back. p.mu is held.
func (p *Partition) startOpening() {
	if p.opened != nil {
		return
	}
	p.opened = make(chan struct{})
	n := p.hub.ns.all
	n.wg.Go(func() { p.openHere(n.ctx) }) //nolint:errcheck // those who wait are told
}

func (p *Partition) openLog(ctx context.Context) (*openLog, error) {
	l, err := p.hub.ns.all.o.Store.Open(ctx, p.logID(), p.config(p.hub.Settings()))
	if err != nil {
		switch {
		case errors.Is(err, store.ErrDeleted), errors.Is(err, store.ErrClosed):
		case errors.Is(err, store.ErrFull): // the store has said so once, and this comes with every append
			p.hub.ns.all.log.Debug("a partition can't be opened for appends", "partition", p.Entity(), "error", err)
		default:
			p.hub.ns.all.log.Error("a partition can't be opened", "partition", p.Entity(), "error", err)
		}
		return nil, err
	}
	ps, err := p.loadProducers(ctx, l)
	if err != nil {
		p.hub.ns.all.log.Error("what is known of a partition's producers can't be read", "partition", p.Entity(), "error", err)
		return nil, err
	}
	return &openLog{l, ps}, nil
}

// open returns the log, opening it if need be.
func (p *Partition) open(ctx context.Context) (store.Log, error) {
	for {
		if l := p.log.Load(); l.usable() {
			return l, nil
		}
		p.mu.Lock()
		if p.ended {
			p.mu.Unlock()
			return nil, notFound(p.hub.ns.Name, p.Entity())
		}
		opened := p.opened
		if opened == nil {
			// It may have been opened since it was asked for: another opening would
			// have its own idea of the producers.
			if l := p.log.Load(); l.usable() {
				p.mu.Unlock()
				return l, nil
			}
			p.opened = make(chan struct{})
			p.mu.Unlock()
			return p.openHere(ctx)
		}
		p.mu.Unlock()
		select { // somebody else is at it
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-opened:
		}
	}
}

// openHere opens the log, gives it the appends that came meanwhile, in their
// order, and only then lets others append. If the log can't be opened, those
// appends fail, and what comes later is a new try. p.opened is set.
func (p *Partition) openHere(ctx context.Context) (store.Log, error) {
	l, err := p.openLog(ctx)
	for {
		p.mu.Lock()
		as := p.waiting
		p.waiting = nil
		if done := err != nil || len(as) == 0; done {
			close(p.opened)
			p.opened = nil
			if err == nil {
				p.log.Store(l)
			}
			p.mu.Unlock()
			for _, a := range as {
				a.finish(err)
			}
			return l, err
		}
		p.mu.Unlock()
		for _, a := range as {
			l.append(a)
		}
	}
}

// config is what the engine is to know of the hub.
func (p *Partition) config(s Settings) store.LogConfig {
	return store.LogConfig{Retention: max(0, s.Retention), Bytes: s.perPartition(p.hub.Partitions())}
}

// perPartition is what each of so many partitions may keep, 0 without a limit.
func (s *Settings) perPartition(partitions int) int64 { return s.MaxBytes / int64(max(1, partitions)) }

// configure tells the log of changed settings.
func (p *Partition) configure(s Settings) {
	p.mu.Lock()
	p.trimAt = time.Time{}
	p.mu.Unlock()
	if l := p.log.Load(); l.usable() {
		l.Configure(p.config(s)) //nolint:errcheck // a log that is lost is configured when it is opened again
	}
}

// end is the partition's deletion.
func (p *Partition) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
}

// Info is what a partition holds.
type Info struct {
	First event.SequenceNumber // of the oldest event retained
	Next  event.SequenceNumber // the number of the event to come
	// LastEnqueued is when event Next-1 was enqueued; zero if there never was one.
	LastEnqueued time.Time
	Empty        bool
	Bytes        int64
}

// Last is the number of the newest event, -1 if there never was one.
func (i *Info) Last() event.SequenceNumber { return i.Next - 1 }

// Info returns what the partition holds now.
func (p *Partition) Info(ctx context.Context) (Info, error) {
	l, err := p.open(ctx)
	if err == nil {
		b, err := l.Bounds(ctx)
		if err != nil {
			return Info{}, fromStore(err, p.Entity())
		}
		return infoOf(b), nil
	}
	r, rerr := p.OpenReader(ctx) // of a log that can't be appended to
	if rerr != nil {
		return Info{}, fromStore(err, p.Entity())
	}
	defer r.Close()
	return r.Info(ctx)
}

func infoOf(b store.Bounds) Info {
	i := Info{First: b.First, Next: b.Next, Empty: b.Empty(), Bytes: b.Bytes}
	if b.Next > 0 {
		i.LastEnqueued = time.UnixMilli(b.LastEnqueued).UTC()
	}
	return i
}

// Reader reads a partition's records. It is for one goroutine at a time, except
// Notify and Info.
type Reader struct {
	p *Partition
	r store.Reader
}

// OpenReader opens a reader.
func (p *Partition) OpenReader(ctx context.Context) (*Reader, error) {
	// A failed log is reopened first. Where that can't be, it may still be read.
	if _, err := p.open(ctx); errors.As(err, new(*Error)) || errors.Is(err, store.ErrDeleted) {
		return nil, fromStore(err, p.Entity())
	}
	r, err := p.hub.ns.all.o.Store.OpenReader(ctx, p.logID())
	if err != nil {
		return nil, fromStore(err, p.Entity())
	}
	return &Reader{p: p, r: r}, nil
}

// Close frees what the reader holds.
func (r *Reader) Close() error { return r.r.Close() }

// Start resolves a position to the number of the first event to read. A
// position older than what is retained means the oldest event; one beyond the
// last event is refused with kind InvalidPosition, in the service's words
// (amqp.md 5.4).
func (r *Reader) Start(ctx context.Context, pos event.Position) (event.SequenceNumber, error) {
	b, err := r.r.Bounds(ctx)
	if err != nil {
		return 0, fromStore(err, r.p.Entity())
	}
	switch pos.Origin {
	case event.Latest:
		return b.Next, nil
	case event.AtSequence, event.AtOffset:
		n := pos.Sequence
		if !pos.Inclusive {
			n++
		}
		if n > b.Next {
			what := "sequence number"
			if pos.Origin == event.AtOffset {
				what = "offset"
			}
			return 0, fail(InvalidPosition, r.p.Entity(), "The supplied %s '%d' is invalid. The last %s in the system is '%d'", what, pos.Sequence, what, b.Next-1)
		}
		return max(n, b.First), nil
	case event.AtEnqueued:
		ms := pos.Enqueued.UnixMilli()
		if !pos.Inclusive {
			ms++
		}
		n, err := r.r.Seek(ctx, ms)
		if err != nil {
			return 0, fromStore(err, r.p.Entity())
		}
		return n, nil
	}
	return b.First, nil
}

// Read returns records, the first of which holds from, or begins after it when
// retention has removed that meanwhile. At the tail the chunk is empty. The
// caller closes it.
func (r *Reader) Read(ctx context.Context, from event.SequenceNumber, max int) (*event.Chunk, error) {
	for {
		c, err := r.r.Read(ctx, from, max)
		var oor *store.OutOfRangeError
		if errors.As(err, &oor) && from < oor.First {
			from = oor.First
			continue
		}
		if err != nil {
			return nil, fromStore(err, r.p.Entity())
		}
		return c, nil
	}
}

// Recent is Read for what is in memory or at the tail; false for all else.
func (r *Reader) Recent(from event.SequenceNumber, max int) (*event.Chunk, bool) {
	return r.r.Recent(from, max)
}

// Notify calls fn once when an event after the given one is there, or the log
// ends. fn must not block.
func (r *Reader) Notify(after event.SequenceNumber, fn func()) (stop func()) {
	return r.r.Notify(after, fn)
}

// Info returns what the partition holds now.
func (r *Reader) Info(ctx context.Context) (Info, error) {
	b, err := r.r.Bounds(ctx)
	if err != nil {
		return Info{}, fromStore(err, r.p.Entity())
	}
	return infoOf(b), nil
}
