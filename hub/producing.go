package hub

import (
	"context"
	"sync"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// producers is what a partition knows of its producers. It belongs to one opening
// of the log, and is read from there: when a write has failed, what the log holds
// when it is opened again decides what was stored.
//
// Of each producer one batch is under way at a time, and the others wait their
// turn: so whether a batch repeats one, or follows it, is asked when the fate of
// all before it is known. When one fails, those that wait fail with it, as they
// were sent in the belief that it would be stored; the producer sends them all
// again, in their order.
type producers struct {
	p   *Partition
	log store.Log

	mu     sync.Mutex
	byID   map[int64]*producer
	uses   uint64
	under  int                  // batches given to the log whose end has not come
	upTo   event.SequenceNumber // all batches before it are known here
	failed error                // what is known is not all: why
	// kept says that the database knows that there are producers: else an opening
	// would not look for them. It does before the first batch of one is stored.
	kept    bool
	keeping bool                 // it is being told
	saved   event.SequenceNumber // what the snapshot in the database covers
	// joins counts what instances have said of themselves that no batch tells, and
	// savedJoins how many of them the snapshot has.
	joins, savedJoins int
	savedAt           int64 // Partition.in then, less what an opening has read

	saving  sync.Mutex // one snapshot at a time; guards version
	version store.Version
}

// produce stores a batch of a producer.
func (ps *producers) produce(a *appending) {
	ps.mu.Lock()
	if ps.failed != nil {
		ps.mu.Unlock()
		a.finish(ps.failed)
		return
	}
	s := ps.get(a.b.Producer.ID)
	s.queue = append(s.queue, a)
	ps.mu.Unlock()
	ps.next(s)
}

// get returns a producer, and makes room for it if it is new. ps.mu is held.
func (ps *producers) get(id int64) *producer {
	s := ps.byID[id]
	if s == nil {
		if len(ps.byID) >= maxProducers {
			ps.forgetOldest()
		}
		s = &producer{id: id}
		ps.byID[id] = s
	}
	ps.uses++
	s.used = ps.uses
	return s
}

func (ps *producers) forgetOldest() {
	var oldest *producer
	for _, s := range ps.byID {
		if !s.busy() && (oldest == nil || s.used < oldest.used) {
			oldest = s
		}
	}
	if oldest != nil {
		delete(ps.byID, oldest.id)
	}
}

// next begins what waits of a producer, if it is time.
func (ps *producers) next(s *producer) {
	for {
		ps.mu.Lock()
		if s.under || s.joining > 0 || len(s.queue) == 0 {
			ps.mu.Unlock()
			return
		}
		if !ps.kept {
			ps.keep()
			ps.mu.Unlock()
			return
		}
		a := s.queue[0]
		s.queue[0] = nil
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil
		}
		repeats, err := s.judge(a.b, ps.p.Entity())
		switch {
		case err != nil:
			ps.mu.Unlock()
			a.finish(err)
		case repeats != nil:
			a.b.First, a.b.Enqueued = repeats.first, repeats.enqueued
			ps.mu.Unlock()
			a.repeated()
		default:
			s.under = true
			ps.under++
			a.of, a.producer = ps, s
			ps.mu.Unlock()
			ps.log.Append(a.b, a.produced)
			return
		}
	}
}

// finishProduced is finish for a batch of a producer.
func (a *appending) finishProduced(err error) {
	ps, s, b := a.of, a.producer, a.b
	var fails []*appending
	ps.mu.Lock()
	s.under = false
	ps.under--
	if err == nil {
		s.stored(b.Producer.Epoch, published{b.Producer.Sequence, b.Count, b.First, b.Enqueued, contentOf(b)})
		ps.upTo = max(ps.upTo, b.First+event.SequenceNumber(b.Count))
	} else {
		fails, s.queue = s.queue, nil
	}
	for _, ch := range s.idle {
		close(ch)
	}
	s.idle = nil
	ps.mu.Unlock()
	a.finish(err)
	for _, w := range fails {
		w.finish(err)
	}
	ps.next(s)
}

// keep has the database told that there are producers, behind the caller's back,
// and then begins what waits. ps.mu is held.
func (ps *producers) keep() {
	if ps.keeping {
		return
	}
	ps.keeping = true
	n := ps.p.hub.ns.all
	n.wg.Go(func() {
		err := ps.save(n.ctx)
		if err != nil && n.ctx.Err() != nil {
			err = store.ErrClosed
		}
		ps.mu.Lock()
		ps.keeping = false
		var all []*producer
		var fails []*appending
		for _, s := range ps.byID {
			all = append(all, s)
			if err != nil && !s.under {
				fails, s.queue = append(fails, s.queue...), nil
			}
		}
		ps.mu.Unlock()
		for _, a := range fails {
			a.finish(err)
		}
		if err == nil {
			for _, s := range all {
				ps.next(s)
			}
		}
	})
}

// JoinProducer lets an instance of a producer begin, and returns what it is to go
// by: its id, its epoch, and the sequence number of the last event that it has
// published. An instance with a higher epoch than the one before takes over: what
// the other sends is refused with ProducerFenced from then on, also after a
// restart; so is an instance with a lower one. What the claim leaves open is the
// broker's to say: a new id, the producer's epoch or 0, its last number or 0.
func (p *Partition) JoinProducer(ctx context.Context, c Claim) (event.Producer, error) {
	l, err := p.openOwn(ctx)
	if err != nil {
		return event.Producer{}, fromStore(err, p.Entity())
	}
	ps := l.producers
	s, err := ps.claimed(ctx, &c)
	if err != nil {
		return event.Producer{}, fromStore(err, p.Entity())
	}
	err = ps.takeOver(ctx, s)
	var who event.Producer
	if err == nil {
		var changed bool
		if who, changed, err = s.join(&c, p.Entity()); changed {
			ps.joins++
		}
	}
	s.joining--
	unsaved := ps.savedJoins < ps.joins // by this one, or one whose saving failed
	ps.mu.Unlock()
	if err == nil && unsaved { // so that it holds after a restart
		err = ps.save(ctx)
	}
	ps.next(s)
	return who, fromStore(err, p.Entity())
}

// claimed returns the producer that a claim is about, as one that is joined.
func (ps *producers) claimed(ctx context.Context, c *Claim) (s *producer, err error) {
	for {
		var id int64
		if c.ID != nil {
			id = *c.ID
		} else if id, err = ps.p.hub.ns.all.newProducerID(ctx); err != nil {
			return nil, err
		}
		ps.mu.Lock()
		switch {
		case ps.failed != nil:
			err = ps.failed
		case c.ID == nil && ps.byID[id] != nil: // somebody has chosen it
			ps.mu.Unlock()
			continue
		default:
			s = ps.get(id)
			s.joining++
		}
		ps.mu.Unlock()
		return s, err
	}
}

// takeOver waits until nothing of a producer is under way, and returns with ps.mu
// held.
func (ps *producers) takeOver(ctx context.Context, s *producer) error {
	ps.mu.Lock()
	for s.under {
		ch := make(chan struct{})
		s.idle = append(s.idle, ch)
		ps.mu.Unlock()
		select {
		case <-ctx.Done():
			ps.mu.Lock()
			return ctx.Err()
		case <-ch:
		}
		ps.mu.Lock()
	}
	return nil
}

// openOwn is open for what only the hub's own needs of it.
func (p *Partition) openOwn(ctx context.Context) (*openLog, error) {
	for {
		if _, err := p.open(ctx); err != nil {
			return nil, err
		}
		if l := p.log.Load(); l.usable() {
			return l, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}
