package processor

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestPoisonBehindFailures: events that fail before one that is known to be poison have
// their pauses and their last attempt like any others.
func TestPoisonBehindFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		b := newBench(t, Options{Batch: 3, Attempts: 3, Handle: func(ctx context.Context, batch Batch) error {
			if calls++; calls > 100 {
				<-ctx.Done() // time stands still while it is tried without a pause
				return ctx.Err()
			}
			if i := slices.IndexFunc(batch.Events, isNumber(2)); i >= 0 {
				return &PoisonError{Index: i, Err: errors.New("rotten")}
			}
			if slices.ContainsFunc(batch.Events, isNumber(0)) {
				return errors.New("it has no head")
			}
			return nil
		}}, 0, 1, 2)
		b.run(time.Minute)
		b.want(1)
		if d := b.drawer.letters; len(d) != 2 || d[0].Event.SequenceNumber != 0 || d[0].Attempts != 3 || d[0].Permanent || d[1].Event.SequenceNumber != 2 || !d[1].Permanent {
			t.Errorf("put aside: %+v", d)
		}
	})
}

// TestOneByOneWithNowhereToGo: without dead letters, too, a batch is tried event by event
// in the end, so that those before the poison are done; and what is done is checkpointed
// although the batch is not.
func TestOneByOneWithNowhereToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{DeadLetters: nowhere{}, Batch: 5, Attempts: 3, Handle: func(_ context.Context, batch Batch) error {
			if slices.ContainsFunc(batch.Events, isNumber(3)) {
				return errors.New("it has no head")
			}
			return nil
		}}, numbers(0, 5)...)
		go func() {
			time.Sleep(59 * time.Minute)
			b.shelf.mu.Lock()
			defer b.shelf.mu.Unlock()
			if !slices.Equal(b.shelf.written, []int64{2}) {
				t.Errorf("checkpoints %v", b.shelf.written)
			}
		}()
		b.run(time.Hour)
		b.want(0, 1, 2)
		if got := b.settled(); got != 2 {
			t.Errorf("settled is %d", got)
		}
		if got := b.Stats().Failed; got < 100 || got > 200 {
			t.Errorf("%d attempts in an hour", got)
		}
	})
}

// TestFirstEventFails: where a partition is begun is known from its first event on, also
// if that is never done: who begins at the latest event would else begin behind it.
func TestFirstEventFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{DeadLetters: nowhere{}, Handle: func(context.Context, Batch) error { return errors.New("no") }}, 1000)
		b.run(time.Minute)
		if got := b.settled(); got != 999 {
			t.Errorf("settled is %d", got)
		}
	})
}

// TestBatchOfTheLimit: a batch does not wait for more events than the limit has left.
func TestBatchOfTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Batch: 4, MaxWait: -1, Limit: 6, Handle: fine}, numbers(0, 6)...)
		if err := b.run(time.Minute); !errors.Is(err, errLimit) {
			t.Errorf("it ends with %v", err)
		}
		b.want(numbers(0, 6)...)
	})
}
