package once

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// renewal keeps claims while a function runs: it extends them at every third of their
// lease. Runner.run starts it, and stops it before it marks the claims or gives them up.
// Most functions end before the first third, and never see its goroutine.
//
// All times are this process's monotonic clock's. A lease is counted from before the
// call that the ledger granted it in, so here it ends earlier than there.
type renewal struct {
	ledger Ledger
	lease  time.Duration
	until  time.Time               // when it is given up: at the function's time-out; never if zero
	end    context.CancelCauseFunc // of the function's context
	first  *time.Timer             // which starts the goroutine
	cancel context.CancelFunc      // of the goroutine's context
	ended  chan struct{}

	held []Claim   // the goroutine's, until it has ended
	ends time.Time // and this: of the lease
}

// renew starts to keep claims whose lease ends at a time. When they are lost, or over
// since the ledger could not be reached, it calls end with the cause.
func (r Runner) renew(ctx context.Context, held []Claim, ends, until time.Time, end context.CancelCauseFunc) *renewal {
	k := &renewal{ledger: r.Ledger, lease: r.lease(), until: until, end: end, ended: make(chan struct{}), held: held, ends: ends}
	// Who is told to stop still holds its claims until it has.
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.first = time.AfterFunc(k.pause(), func() {
		defer close(k.ended)
		k.run(ctx)
	})
	return k
}

// pause is how long it is to the next third of the lease.
func (k *renewal) pause() time.Duration { return time.Until(k.ends) - k.lease*2/3 }

// run extends the claims until the context ends, the time-out, or they are lost or over.
func (k *renewal) run(ctx context.Context) {
	// The function's context ends with the lease, whatever a call to the ledger does
	// meanwhile.
	var failed atomic.Pointer[error]
	expire := func() {
		if why := failed.Load(); why != nil {
			k.end(fmt.Errorf("%w, and could not be extended: %w", ErrLease, *why))
			return
		}
		k.end(ErrLease)
	}
	over := time.AfterFunc(time.Until(k.ends), expire)
	defer over.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-pause.C:
			if !k.until.IsZero() && !now.Before(k.until) {
				return // the function's context has ended
			}
			if !now.Before(k.ends) {
				expire()
				return
			}
		}
		asked := time.Now()
		limited, cancel := context.WithDeadline(ctx, k.ends)
		extended, err := k.ledger.Extend(limited, k.held, k.lease)
		cancel()
		switch {
		case err == nil:
			k.held, k.ends = extended, asked.Add(k.lease)
			over.Reset(time.Until(k.ends))
			pause.Reset(k.pause())
		case isLost(err):
			k.end(fmt.Errorf("%w: %w", ErrLease, err))
			return
		default:
			failed.Store(&err)
			pause.Reset(k.lease / 20)
		}
	}
}

// stop ends the goroutine, if there is one, waits for it, and returns the claims as they
// were extended last and when they are over.
func (k *renewal) stop() ([]Claim, time.Time) {
	k.cancel()
	if !k.first.Stop() {
		<-k.ended
	}
	return k.held, k.ends
}
