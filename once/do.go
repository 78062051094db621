package once

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultLease is how long a claim lasts if a [Runner] does not say.
const DefaultLease = 30 * time.Second

// DefaultTimeout is how long a function may run if a [Runner] does not say.
const DefaultTimeout = 5 * time.Minute

// farewell is how long a mark or a release may take, also after the context has ended:
// a process that is told to stop still marks what it has done.
const farewell = 5 * time.Second

// Between tries there are pauses, each twice as long as the last.
const shortest, longest = 20 * time.Millisecond, time.Second

// Runner processes events over a ledger. Its fields may not change while it is used;
// it may be used from many goroutines.
type Runner struct {
	Ledger Ledger

	// Lease is how long a claim lasts: DefaultLease if it is zero. While the function
	// runs, its claims are extended at every third of it. The function's context ends,
	// with the cause ErrLease, when they are lost, or over since the ledger could not
	// be reached in time. When a claimer dies, its events wait for so long.
	Lease time.Duration

	// Timeout is how long the function of a call may run: if it is zero DefaultTimeout,
	// or the lease if that is longer; negative for no limit. Then its context ends with
	// the cause ErrTimeout, and its claims are not extended any more: one that hangs
	// holds its events for another lease at most.
	Timeout time.Duration

	// Wait waits while somebody else claims the next event, as long as the context
	// lasts, instead of returning a [BusyError].
	Wait bool
}

// Do calls fn if the event is not done, and marks it; see [Runner.Do].
func Do(ctx context.Context, l Ledger, e Event, fn func(ctx context.Context) error) (ran bool, err error) {
	return Runner{Ledger: l}.Do(ctx, e, fn)
}

// DoBatch calls fn with those events that are not done, and marks them; see
// [Runner.DoBatch].
func DoBatch(ctx context.Context, l Ledger, events []Event, fn func(ctx context.Context, fresh []int) error) (settled int, err error) {
	return Runner{Ledger: l}.DoBatch(ctx, events, fn)
}

// Do calls fn if the event is not done, and marks it. It says whether fn was called.
//
// An event that is done is no error: fn is not called. If fn fails, its claim is given
// up at once, and its error returned; the event may be tried again. If its context had
// ended by then for [ErrLease] or [ErrTimeout], the error is that, too. If somebody else
// claims the event the error is a [BusyError]. If fn succeeded, it is a [MarkError] or
// a [LostError] if the mark failed; a ledger that can't be reached is tried again until
// the lease is over.
func (r Runner) Do(ctx context.Context, e Event, fn func(ctx context.Context) error) (ran bool, err error) {
	_, err = r.DoBatch(ctx, []Event{e}, func(ctx context.Context, _ []int) error {
		ran = true
		return fn(ctx)
	})
	return ran, err
}

// DoBatch calls fn with the indexes of those events that are not done, and marks them
// together when it returns nil. It returns how many events from the first on are done,
// now or before: events[settled-1] is what a checkpoint may be written for. If all are
// done, fn is not called.
//
// Events are processed in order: where somebody else claims one, fn is called for those
// before it and not for those after, and the error is a [BusyError]. With Wait, fn is
// called again for the rest. Otherwise as for Do; the batch fails as one.
func (r Runner) DoBatch(ctx context.Context, events []Event, fn func(ctx context.Context, fresh []int) error) (settled int, err error) {
	for pause := shortest; settled < len(events); pause = min(2*pause, longest) {
		n, err := r.round(ctx, events, settled, fn)
		settled += n
		if _, busy := errors.AsType[*BusyError](err); err != nil && (!busy || !r.Wait) {
			return settled, err
		}
		if err == nil {
			continue
		}
		if n > 0 {
			pause = shortest
		}
		if !sleep(ctx, pause) {
			return settled, context.Cause(ctx)
		}
	}
	return settled, nil
}

// sleep says false if the context ends before a time has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lease is how long a claim lasts.
func (r Runner) lease() time.Duration {
	if r.Lease == 0 {
		return DefaultLease
	}
	return r.Lease
}

// timeout is how long a function may run, or no limit if it is negative.
func (r Runner) timeout() time.Duration {
	if r.Timeout == 0 {
		return max(DefaultTimeout, r.lease())
	}
	return r.Timeout
}

// round claims the events from an index on, runs what it was given up to the first
// that is somebody else's, and returns how many it got done.
func (r Runner) round(ctx context.Context, events []Event, from int, fn func(ctx context.Context, fresh []int) error) (int, error) {
	lease := r.lease()
	if lease < time.Millisecond {
		return 0, ErrShortLease
	}
	asked, at := distinct(events, from)
	ends := time.Now().Add(lease) // the ledger begins to count later, never earlier
	// A ledger that hangs says nothing, and an answer after the lease is worth nothing.
	prompt, cancel := context.WithDeadlineCause(ctx, ends, ErrLease)
	claims, err := r.Ledger.Claim(prompt, asked, lease)
	cancel()
	if err != nil {
		return 0, fmt.Errorf("once: claim: %w", err)
	}
	settled := len(events) - from
	var held, after []Claim
	var fresh []int
	var busy error
	for i, c := range claims {
		switch {
		case c.State == Busy && busy == nil:
			busy = &BusyError{Event: c.Event, Until: c.Until}
			settled = at[i] - from
		case c.State == Claimed && busy == nil:
			held = append(held, c)
			fresh = append(fresh, at[i])
		case c.State == Claimed:
			after = append(after, c)
		}
	}
	r.release(ctx, after)
	if len(held) > 0 {
		if err := r.run(ctx, ends, held, fresh, fn); err != nil {
			return fresh[0] - from, err
		}
	}
	return settled, busy
}

// distinct returns the events from an index on, without those that are there a second
// time, and their indexes.
func distinct(events []Event, from int) (asked []Event, at []int) {
	asked, at = make([]Event, 0, len(events)-from), make([]int, 0, len(events)-from)
	type identity struct {
		stream   Stream
		sequence int64
		id       string
	}
	seen := make(map[identity]bool, len(events)-from)
	for i := from; i < len(events); i++ {
		e := events[i]
		k := identity{e.Stream, e.Sequence, ""}
		if e.ID != "" {
			k.stream.Partition, k.sequence, k.id = "", 0, e.ID
		}
		if !seen[k] {
			seen[k] = true
			asked, at = append(asked, e), append(at, i)
		}
	}
	return asked, at
}

// run calls fn with the events that are held, and marks them or gives them up.
func (r Runner) run(ctx context.Context, ends time.Time, held []Claim, fresh []int, fn func(ctx context.Context, fresh []int) error) error {
	succeeded := false
	defer func() { // of a panic, too
		if !succeeded {
			r.release(ctx, held)
		}
	}()
	if !time.Now().Before(ends) {
		return fmt.Errorf("%w: the ledger has taken as long to answer", ErrLease)
	}
	limited, stop, until := ctx, context.CancelFunc(func() {}), time.Time{}
	if timeout := r.timeout(); timeout >= 0 {
		until = time.Now().Add(timeout)
		limited, stop = context.WithDeadlineCause(ctx, until, ErrTimeout)
	}
	defer stop()
	leased, end := context.WithCancelCause(limited)
	defer end(nil)
	err := func() error {
		kept := r.renew(ctx, held, ends, until, end)
		defer func() { held, ends = kept.stop() }()
		return fn(leased, fresh)
	}()
	if err != nil {
		if cause := context.Cause(leased); errors.Is(cause, ErrLease) || errors.Is(cause, ErrTimeout) {
			return fmt.Errorf("%w: %w", cause, err)
		}
		return err
	}
	succeeded = true
	return r.mark(ctx, ends, held)
}

// mark marks claims. A ledger that can't be reached is tried again while they hold, since
// nobody else can tell that their events are done; once the context has ended, it is not.
func (r Runner) mark(ctx context.Context, ends time.Time, held []Claim) error {
	for pause := shortest; ; pause = min(2*pause, longest) {
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		err := r.Ledger.Mark(last, held)
		stop()
		if err == nil || isLost(err) {
			return err
		}
		if errors.Is(err, ErrInvalid) || ctx.Err() != nil || !time.Now().Add(pause).Before(ends) {
			return &MarkError{Claims: held, Err: err}
		}
		sleep(ctx, pause) // when it ends meanwhile, this is the last try
	}
}

func isLost(err error) bool {
	_, lost := errors.AsType[*LostError](err)
	return lost
}

// release gives claims up. If that fails they end with their lease.
func (r Runner) release(ctx context.Context, claims []Claim) {
	if len(claims) == 0 {
		return
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer stop()
	_ = r.Ledger.Release(last, claims)
}
