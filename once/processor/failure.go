package processor

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/once"
)

// failed looks why the first n events that are left could not be got done, and pauses,
// or decides what becomes of them. Its error is the context's end.
func (r *reader) failed(ctx context.Context, w *work, n int, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	handler, isHandler := errors.AsType[*handlerError](err)
	if isHandler && !errors.Is(err, once.ErrLease) && !r.away(ctx, handler.err) {
		return r.tryAgain(ctx, w, n, handler.err)
	}
	longest := r.p.o.MaxBackoff
	message := "the ledger can't be used; waiting"
	switch busy, isBusy := errors.AsType[*once.BusyError](err); {
	case isHandler && errors.Is(err, once.ErrLease):
		w.dead = nil
		message = "the claim could not be kept while the handler ran; trying again"
	case isHandler:
		w.dead = nil
		message = "what the handler needs is away; waiting"
	case isBusy:
		message = "another process has claimed the event; waiting until it is done, or its claim is over"
		longest = max(time.Second, time.Until(busy.Until)/8)
	case lost(err):
		message = "the claim was over before the event was done, and another process has it: it may be processed twice"
	}
	if w.waiting == 0 {
		r.log.Warn(message, "sequence", w.events[0].SequenceNumber, "error", err)
	}
	w.waiting++
	return r.p.pauseAtMost(ctx, w.waiting-1, longest)
}

// away tells whether a handler failed because something is away, be it the ledger's
// store, which handlers often have their effects in.
func (r *reader) away(ctx context.Context, err error) bool {
	if unavailable(err) {
		return true
	}
	if l, ok := r.p.o.Ledger.(Transactor); ok && r.p.o.HandleTx != nil && l.Transient(err) {
		return true
	}
	if r.p.o.Ledger == nil {
		return false
	}
	_, down := r.p.settled(ctx, r.stream.Partition)
	return down != nil
}

// tryAgain counts a failed attempt at the first n events, and pauses before the next.
// After the last, a batch goes on one by one, and an event is put aside, if there is a
// place for it.
func (r *reader) tryAgain(ctx context.Context, w *work, n int, err error) error {
	r.p.stats.failed.Add(1)
	w.attempts++
	attributes := []any{"sequence", w.events[0].SequenceNumber, "events", n, "attempt", w.attempts, "error", err}
	if p, ok := errors.AsType[*PanicError](err); ok {
		attributes = append(attributes, "stack", string(p.Stack))
	}
	r.log.Warn("processing failed", attributes...)
	switch {
	case w.named:
		return nil // it is put aside, and the rest tried again
	case w.alone && n > 1:
		w.attempts = 0 // one of them is poison
		return nil
	case w.attempts < r.p.o.Attempts:
		return r.p.pause(ctx, w.attempts-1)
	case n > 1:
		w.alone, w.attempts = true, 0
	case r.p.o.DeadLetters == nil:
		return r.p.pause(ctx, w.attempts-1)
	default:
		w.dead = &dead{attempts: w.attempts, err: err}
	}
	return nil
}

// park puts the first event aside, and marks it.
func (r *reader) park(ctx context.Context, w *work) error {
	d := DeadLetter{Event: w.events[0], Stream: r.stream, Attempts: w.dead.attempts, Err: w.dead.err, Permanent: w.dead.permanent}
	var ran []int
	put := func(ctx context.Context, fresh []int) error {
		if err := guarded(func() error { return r.p.o.DeadLetters.Park(ctx, d) }); err != nil {
			return &handlerError{err}
		}
		ran = fresh
		return nil
	}
	var err error
	if r.p.o.Ledger == nil {
		err = put(ctx, []int{0})
	} else {
		var settled int
		settled, err = r.p.runner().DoBatch(ctx, w.ids[:1], put)
		_, err = r.marked(ctx, settled, ran, err)
	}
	if err == nil {
		r.p.stats.parked.Add(int64(len(ran)))
		r.p.count(len(ran))
		if len(ran) > 0 { // else another process was done with it meanwhile
			r.log.Error("an event could not be processed and is put aside", "sequence", d.Event.SequenceNumber, "attempts", d.Attempts, "error", d.Err)
		}
		r.forward(w, 1)
		w.dead = nil
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.waiting == 0 {
		r.log.Error("an event can't be processed, and can't be put aside; waiting", "sequence", d.Event.SequenceNumber, "error", err)
	}
	w.waiting++
	return r.p.pause(ctx, w.waiting-1)
}
