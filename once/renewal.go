package once

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// renewal keeps claims while a function runs: a goroutine extends them at every third of
// their lease. Runner.run starts it, and stops it before it marks the claims or gives
// them up.
//
// All times are this process's monotonic clock's. A lease is counted from before the
// call that the ledger granted it in, so here it ends earlier than there.
type renewal struct {
	ledger Ledger
	lease  time.Duration
	until  time.Time // when it is given up: at the function's time-out; never if zero
	cancel context.CancelFunc
	ended  chan struct{}

	// over ends the function's context at the end of the lease, whatever a call to the
	// ledger does meanwhile. failed is why the last extension failed.
	over   *time.Timer
	failed atomic.Pointer[error]

	held []Claim   // the goroutine's, until it has ended
	ends time.Time // and this: of the lease
}

// renew starts to keep claims whose lease ends at a time. When they are lost, or over
// since the ledger could not be reached, it calls end once with the cause.
func (r Runner) renew(ctx context.Context, held []Claim, ends, until time.Time, end context.CancelCauseFunc) *renewal {
	k := &renewal{ledger: r.Ledger, lease: r.lease(), until: until, ended: make(chan struct{}), held: held, ends: ends}
	k.over = time.AfterFunc(time.Until(ends), func() {
		if why := k.failed.Load(); why != nil {
			end(fmt.Errorf("%w, and could not be extended: %w", ErrLease, *why))
			return
		}
		end(ErrLease)
	})
	// Who is told to stop still holds its claims until it has.
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(k.ended)
		if err := k.run(ctx); err != nil {
			end(fmt.Errorf("%w: %w", ErrLease, err))
		}
	}()
	return k
}

// run extends the claims until the context ends, the time-out, or they are over. The
// error is that they are lost.
func (k *renewal) run(ctx context.Context) error {
	pause := time.Until(k.ends) - k.lease*2/3
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-timer.C:
			if !now.Before(k.ends) || !k.until.IsZero() && !now.Before(k.until) {
				return nil
			}
		}
		asked := time.Now()
		limited, cancel := context.WithDeadline(ctx, k.ends)
		extended, err := k.ledger.Extend(limited, k.held, k.lease)
		cancel()
		switch {
		case err == nil:
			k.held, k.ends = extended, asked.Add(k.lease)
			k.over.Reset(time.Until(k.ends))
			pause = time.Until(k.ends) - k.lease*2/3
		case isLost(err):
			return err
		default:
			k.failed.Store(&err)
			pause = k.lease / 20
		}
		timer.Reset(pause)
	}
}

// stop ends the goroutine, waits for it, and returns the claims as they were extended
// last and when they are over.
func (k *renewal) stop() ([]Claim, time.Time) {
	k.cancel()
	<-k.ended
	k.over.Stop()
	return k.held, k.ends
}
