package processor

import (
	"context"
	"database/sql"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
)

// work is a batch on its way to being done, front to back.
type work struct {
	events []*azeventhubs.ReceivedEventData // those that are left
	ids    []once.Event

	alone    bool  // one by one, after the batch has failed
	attempts int   // of what is tried next
	waiting  int   // times in a row that something else than the handler failed
	dead     *dead // an event that is to be put aside, or nil
	named    bool  // the handler has just said which
}

// dead is an event that is to be put aside once those before it are done.
type dead struct {
	at        int // its index in what is left
	attempts  int
	err       error
	permanent bool
}

// process gets a batch done: each event is processed, was before, or is put aside. It
// returns early only with the context's end.
func (r *reader) process(ctx context.Context, events []*azeventhubs.ReceivedEventData) error {
	w := &work{events: events, ids: make([]once.Event, len(events))}
	for i, e := range events {
		w.ids[i] = r.order.Event(e.SequenceNumber)
		if r.p.o.ID != nil {
			w.ids[i].ID = r.p.o.ID(e)
		}
	}
	r.begin(ctx, events[0].SequenceNumber)
	for len(w.events) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.checkpointIfDue(ctx) // what is left may take for ever
		end, err := r.p.take(ctx)
		if err != nil {
			return err
		}
		err = r.step(ctx, w)
		end()
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// begin has the ledger know where the partition was begun. The first event that is marked
// does that, too, but where Start is the latest event, whoever follows a process that died
// before would begin behind it.
func (r *reader) begin(ctx context.Context, first int64) {
	if r.begun || r.p.o.Ledger == nil || first == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	r.begun = r.p.o.Ledger.Settle(ctx, r.stream, first-1) == nil
}

// take waits for this reader's turn, if there is a limit.
func (p *Processor) take(ctx context.Context) (end func(), err error) {
	if p.o.Limit == 0 {
		return func() {}, ctx.Err()
	}
	select {
	case <-p.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if ctx.Err() != nil { // both were ready
		p.turn <- struct{}{}
		return nil, context.Cause(ctx)
	}
	return func() { p.turn <- struct{}{} }, nil
}

// count takes events off the limit, and ends everything when it is reached.
func (p *Processor) count(n int) {
	if p.o.Limit == 0 {
		return
	}
	if p.left.Add(-int64(n)) == 0 {
		p.stop(errLimit)
	}
}

// step tries what is next, and goes on, puts an event aside, or pauses.
func (r *reader) step(ctx context.Context, w *work) error {
	if w.dead != nil && w.dead.at == 0 {
		return r.park(ctx, w)
	}
	n := len(w.events)
	if w.alone {
		n = 1
	}
	if w.dead != nil {
		n = min(n, w.dead.at) // those before it
	}
	if r.p.o.Limit > 0 {
		n = min(n, int(r.p.left.Load()))
	}
	settled, err := r.attempt(ctx, w, n)
	r.forward(w, settled)
	if err == nil {
		return nil
	}
	return r.failed(ctx, w, n-settled, err)
}

// forward takes events off the front that are done.
func (r *reader) forward(w *work, n int) {
	if n == 0 {
		return
	}
	r.advance(w.events[n-1], n)
	w.events, w.ids = w.events[n:], w.ids[n:]
	if w.dead != nil {
		w.dead.at -= n
	}
	if w.waiting > 0 {
		r.log.Info("going on", "after", r.last.SequenceNumber)
	}
	w.attempts, w.waiting = 0, 0
}

// attempt has the first n events processed, and returns how many from the front are done.
func (r *reader) attempt(ctx context.Context, w *work, n int) (settled int, err error) {
	var ran []int
	call := func(ctx context.Context, tx *sql.Tx, fresh []int) error {
		if err := r.handle(ctx, tx, w, fresh); err != nil {
			return &handlerError{err}
		}
		ran = fresh
		return nil
	}
	switch {
	case r.p.o.Ledger == nil:
		if err = call(ctx, nil, sequence(n)); err == nil {
			settled = n
		}
	case r.p.o.HandleTx != nil:
		limited, cancel := r.p.limited(ctx) // the commit, too: a database that hangs says nothing
		err = r.p.o.Ledger.(Transactor).DoBatchTx(limited, w.ids[:n], call)
		cancel()
		if err == nil {
			settled = n
		} else {
			ran = nil // rolled back, or not known to be committed
		}
	default:
		settled, err = r.p.runner().DoBatch(ctx, w.ids[:n], func(ctx context.Context, fresh []int) error {
			return call(ctx, nil, fresh)
		})
		if settled, err = r.marked(ctx, settled, ran, err); err != nil && settled <= last(ran) {
			ran = nil
		}
	}
	r.p.stats.processed.Add(int64(len(ran)))
	r.p.stats.skipped.Add(int64(settled - len(ran)))
	r.p.count(len(ran))
	return settled, err
}

// limited is a context that ends with the time of an attempt.
func (p *Processor) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.o.Timeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, p.o.Timeout, once.ErrTimeout)
}

// sequence is 0, 1, 2 and so on, n of them.
func sequence(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// last is the last of some indexes, or -1.
func last(indexes []int) int {
	if len(indexes) == 0 {
		return -1
	}
	return indexes[len(indexes)-1]
}

func (p *Processor) runner() once.Runner {
	return once.Runner{Ledger: p.o.Ledger, Lease: p.o.Lease, Timeout: p.o.Timeout}
}

// marked sees to it that what ran is marked, if the ledger was away when it had
// succeeded: it tries until the ledger is back, or the context ends. Nothing else would
// do, since whoever is given the events meanwhile processes them a second time.
func (r *reader) marked(ctx context.Context, settled int, ran []int, err error) (int, error) {
	for failures := 0; ; failures++ {
		mark, ok := errors.AsType[*once.MarkError](err)
		if !ok {
			return settled, err
		}
		if failures == 0 {
			r.log.Warn("events are processed, and the ledger can't be told; trying again", "events", len(ran), "error", mark.Err)
		}
		if r.p.pause(ctx, failures) != nil {
			r.log.Error("events were processed, and the ledger could not be told: unless it got the mark, they will be processed again", "events", len(ran), "error", mark.Err)
			return settled, err
		}
		short, cancel := context.WithTimeout(ctx, farewell)
		again := r.p.o.Ledger.Mark(short, mark.Claims)
		cancel()
		switch {
		case again == nil:
			r.log.Info("the ledger has been told")
			return last(ran) + 1, nil // what is between them was done before
		case lost(again):
			return settled, again
		}
	}
}

func lost(err error) bool {
	_, ok := errors.AsType[*once.LostError](err)
	return ok
}

// handle calls the handler with some of the events.
func (r *reader) handle(ctx context.Context, tx *sql.Tx, w *work, fresh []int) error {
	b := Batch{Partition: r.stream.Partition, Attempt: w.attempts + 1, Events: make([]*azeventhubs.ReceivedEventData, len(fresh))}
	for i, at := range fresh {
		b.Events[i] = w.events[at]
	}
	if r.p.o.Ledger == nil { // else the transaction has its own limit, or the runner
		var cancel context.CancelFunc
		ctx, cancel = r.p.limited(ctx)
		defer cancel()
	}
	err := guarded(func() error {
		if tx != nil {
			return r.p.o.HandleTx(ctx, tx, b)
		}
		return r.p.o.Handle(ctx, b)
	})
	poison, ok := errors.AsType[*PoisonError](err)
	w.named = false
	switch {
	case !ok || r.p.o.DeadLetters == nil || poison.Index >= len(fresh):
	case poison.Index >= 0:
		w.named, w.dead = true, &dead{at: fresh[poison.Index], attempts: w.attempts + 1, err: poison.Err, permanent: true}
	case len(fresh) == 1:
		w.named, w.dead = true, &dead{at: fresh[0], attempts: w.attempts + 1, err: poison.Err, permanent: true}
	default:
		w.alone = true
	}
	return err
}
