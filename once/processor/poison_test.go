package processor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRetry: what fails is tried again, after pauses that grow.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		var attempts []int
		start := time.Now()
		b := newBench(t, Options{MinBackoff: time.Second, MaxBackoff: 4 * time.Second, Attempts: 100, Handle: func(_ context.Context, batch Batch) error {
			at, attempts = append(at, time.Since(start)), append(attempts, batch.Attempt)
			if len(at) < 6 {
				return errors.New("not yet")
			}
			return nil
		}}, 0)
		b.run(time.Minute)
		b.want(0)
		if !slices.Equal(attempts, []int{1, 2, 3, 4, 5, 6}) {
			t.Errorf("attempts %v", attempts)
		}
		for i, want := range []time.Duration{1, 2, 4, 4, 4} {
			if pause := at[i+1] - at[i]; pause < want*time.Second*3/4 || pause > want*time.Second*5/4 {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
	})
}

// TestPoison: one event that never succeeds is put aside, and takes nobody with it.
func TestPoison(t *testing.T) {
	for _, batch := range []int{1, 4} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failure := errors.New("it has no head")
				b := newBench(t, Options{Batch: batch, Attempts: 3, Handle: func(_ context.Context, batch Batch) error {
					if slices.ContainsFunc(batch.Events, isNumber(2)) {
						return failure
					}
					return nil
				}}, numbers(0, 8)...)
				b.run(time.Minute)
				b.want(0, 1, 3, 4, 5, 6, 7)
				if len(b.drawer.letters) != 1 {
					t.Fatalf("put aside: %+v", b.drawer.letters)
				}
				d := b.drawer.letters[0]
				if d.Event.SequenceNumber != 2 || d.Attempts != 3 || !errors.Is(d.Err, failure) || d.Permanent || d.Stream.Partition != "0" {
					t.Errorf("put aside: %+v", d)
				}
				if got := b.settled(); got != 7 {
					t.Errorf("settled is %d", got)
				}
				if got := b.Stats(); got.Processed != 7 || got.Parked != 1 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestPoisonNamed: a handler that knows which event is the poison has it put aside at
// once, and the rest again without it.
func TestPoisonNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls [][]int64
		b := newBench(t, Options{Batch: 5, Handle: func(_ context.Context, batch Batch) error {
			var list []int64
			poison := -1
			for i, e := range batch.Events {
				list = append(list, e.SequenceNumber)
				if e.SequenceNumber == 1 || e.SequenceNumber == 3 {
					poison = i
				}
			}
			calls = append(calls, list)
			if poison >= 0 {
				return fmt.Errorf("wrapped: %w", &PoisonError{Index: poison, Err: errors.New("rotten")})
			}
			return nil
		}}, numbers(0, 5)...)
		b.run(time.Minute)
		b.want(0, 2, 4)
		if len(b.drawer.letters) != 2 || b.drawer.letters[0].Event.SequenceNumber != 1 || !b.drawer.letters[0].Permanent || b.drawer.letters[1].Event.SequenceNumber != 3 {
			t.Errorf("put aside: %+v", b.drawer.letters)
		}
		if b.Stats().Processed != 3 || b.settled() != 4 {
			t.Errorf("%+v, settled is %d; calls %v", b.Stats(), b.settled(), calls)
		}
	})
}

// TestPoisonSomewhere: a handler that does not know which event it is has the batch tried
// one by one at once.
func TestPoisonSomewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		b := newBench(t, Options{Batch: 4, Handle: func(_ context.Context, batch Batch) error {
			if calls++; slices.ContainsFunc(batch.Events, isNumber(2)) {
				return &PoisonError{Index: -1, Err: errors.New("rotten")}
			}
			return nil
		}}, numbers(0, 4)...)
		b.run(time.Minute)
		b.want(0, 1, 3)
		if d := b.drawer.letters; len(d) != 1 || d[0].Event.SequenceNumber != 2 || !d[0].Permanent || calls != 5 {
			t.Errorf("put aside %+v after %d calls", d, calls)
		}
	})
}

// TestPoisonWithNowhereToGo: without dead letters the partition waits at the event, and
// nothing behind it is marked.
func TestPoisonWithNowhereToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{DeadLetters: nowhere{}, Handle: func(_ context.Context, batch Batch) error {
			if batch.Events[0].SequenceNumber == 1 {
				return &PoisonError{Err: errors.New("rotten")}
			}
			return nil
		}}, numbers(0, 3)...)
		b.run(time.Hour)
		b.want(0)
		if got := b.settled(); got != 0 {
			t.Errorf("settled is %d", got)
		}
		if got := b.Stats().Failed; got < 100 || got > 200 {
			t.Errorf("%d attempts in an hour", got)
		}
	})
}

// TestDeadLettersAway: an event that can't be put aside holds its partition, and is put
// aside when that is possible again.
func TestDeadLettersAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Attempts: 1, Handle: func(_ context.Context, batch Batch) error {
			if batch.Events[0].SequenceNumber == 0 {
				return errors.New("no")
			}
			return nil
		}}, 0, 1)
		b.drawer.err = errAway
		go func() {
			time.Sleep(10 * time.Minute)
			b.mu.Lock()
			if len(b.done) > 0 || b.Stats().Parked > 0 {
				t.Errorf("done %v, %+v", b.done, b.Stats())
			}
			b.mu.Unlock()
			b.drawer.mu.Lock()
			b.drawer.err = nil
			b.drawer.mu.Unlock()
		}()
		b.run(time.Hour)
		b.want(1)
		if len(b.drawer.letters) != 1 || b.settled() != 1 {
			t.Errorf("put aside %+v, settled %d", b.drawer.letters, b.settled())
		}
	})
}

func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Attempts: 2, Handle: func(_ context.Context, batch Batch) error {
			if batch.Events[0].SequenceNumber == 1 {
				panic("the floor gave way")
			}
			return nil
		}}, 0, 1, 2)
		b.run(time.Minute)
		b.want(0, 2)
		p, ok := errors.AsType[*PanicError](b.drawer.letters[0].Err)
		if !ok || p.Value != "the floor gave way" || !strings.Contains(string(p.Stack), "poison_test.go") {
			t.Errorf("put aside: %+v", b.drawer.letters)
		}
		if !strings.Contains(b.log.String(), "poison_test.go") {
			t.Errorf("no stack in the log:\n%s", b.log)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Attempts: 2, Timeout: 3 * time.Second, Handle: func(ctx context.Context, batch Batch) error {
			if batch.Events[0].SequenceNumber == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}, 0, 1, 2)
		b.run(time.Minute)
		b.want(0, 2)
		if d := b.drawer.letters; len(d) != 1 || !errors.Is(d[0].Err, context.DeadlineExceeded) {
			t.Errorf("put aside: %+v", d)
		}
	})
}

// TestUnavailable: a handler that says that something is away is asked again for ever.
func TestUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		b := newBench(t, Options{Attempts: 2, Ledger: none, Handle: func(context.Context, Batch) error {
			if calls++; calls < 50 {
				return fmt.Errorf("wrapped: %w", Unavailable(errAway))
			}
			return nil
		}}, 0)
		b.run(time.Hour)
		b.want(0)
		if len(b.drawer.letters) > 0 || strings.Count(b.log.String(), "WARN") != 1 {
			t.Errorf("put aside: %+v, log:\n%s", b.drawer.letters, b.log)
		}
	})
}
