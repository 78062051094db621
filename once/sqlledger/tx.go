package sqlledger

import (
	"context"
	"database/sql"

	"github.com/millrace/millrace/once"
)

// DoTx calls fn with a transaction in which the event is marked, if it is not done, and
// commits. It says whether fn was called, and, without an error, has had its effect.
//
// Effect and mark are committed together or not at all: exactly once. If fn fails the
// transaction is rolled back, and its error returned. If the commit fails, it is not
// known whether it came to pass; calling DoTx again with the event finds out, and does
// what is left to do. Errors of the database (a deadlock, a serialization failure, a
// busy SQLite) are returned as the driver has them, wrapped: call again. fn is called
// once at most.
//
// An event that somebody claims with [once.Do] is a [once.BusyError].
func (l *Ledger) DoTx(ctx context.Context, e once.Event, fn func(ctx context.Context, tx *sql.Tx) error) (ran bool, err error) {
	err = l.DoBatchTx(ctx, []once.Event{e}, func(ctx context.Context, tx *sql.Tx, _ []int) error {
		ran = true
		return fn(ctx, tx)
	})
	return ran, err
}

// DoBatchTx is DoTx for a batch: fn is called with the indexes of those events that are
// not done, and the effects of all are committed with their marks. If all are done, fn
// is not called. Without an error the last event is what a checkpoint may be written
// for; [Ledger.Status] has it, too, for who keeps no other.
func (l *Ledger) DoBatchTx(ctx context.Context, events []once.Event, fn func(ctx context.Context, tx *sql.Tx, fresh []int) error) error {
	if len(events) == 0 {
		return ctx.Err()
	}
	called := false
	return l.inTx(ctx, events, &called, func(tx *sql.Tx) error {
		fresh, err := l.MarkTx(ctx, tx, events)
		if err != nil || len(fresh) == 0 {
			return err
		}
		called = true // and is not again
		return fn(ctx, tx, fresh)
	})
}

// MarkTx marks events in a transaction of the caller's, and returns the indexes of those
// that were not done: their effects belong into the same transaction, after the call.
// The mark holds when the transaction is committed, and is gone if it is rolled back, as
// it must be after an error.
//
// The transaction holds the partition's book until it ends. It may be of any isolation
// level from READ COMMITTED on. One that marks events of several partitions does so in
// one call, or, with others that do, may meet a deadlock, which the database ends; so
// may, in MySQL, those that are the first ever to mark events of a partition.
//
// If somebody claims one of the events with [once.Do], the error is a [once.BusyError].
func (l *Ledger) MarkTx(ctx context.Context, tx *sql.Tx, events []once.Event) (fresh []int, err error) {
	isFresh := make([]bool, len(events))
	err = l.each(ctx, tx, events, func(p *page, at []int) error {
		for _, i := range at {
			e := events[i]
			state, until, err := p.look(ctx, e)
			if err != nil {
				return err
			}
			switch state {
			case once.Busy:
				return &once.BusyError{Event: e, Until: until}
			case once.Claimed:
				isFresh[i] = true
				if err := p.mark(ctx, keyOf(e), l.done(p, e, p.token)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, f := range isFresh {
		if f {
			fresh = append(fresh, i)
		}
	}
	return fresh, nil
}
