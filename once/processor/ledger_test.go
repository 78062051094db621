package processor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
)

// TestLedgerAway: while the ledger is away nothing is processed that it can't claim, and
// what is processed already is marked when it comes back: nothing twice, nothing put
// aside.
func TestLedgerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		b = newBench(t, Options{Batch: 2, Attempts: 2, Handle: func(_ context.Context, batch Batch) error {
			if batch.Events[0].SequenceNumber == 2 {
				b.ledger.set(errAway) // between the effect and the mark
			}
			return nil
		}}, numbers(0, 8)...)
		go func() {
			time.Sleep(5 * time.Minute)
			b.mu.Lock()
			if len(b.done) != 4 {
				t.Errorf("processed while the ledger is away: %v", b.done)
			}
			b.mu.Unlock()
			b.ledger.set(nil)
			time.Sleep(5 * time.Minute)
			b.ledger.set(errAway) // while nothing goes on
			b.line.add(8)
			time.Sleep(5 * time.Minute)
			b.mu.Lock()
			if len(b.done) != 8 {
				t.Errorf("processed while the ledger is away: %v", b.done)
			}
			b.mu.Unlock()
			b.ledger.set(nil)
		}()
		b.run(time.Hour)
		b.want(numbers(0, 9)...)
		if len(b.drawer.letters) > 0 || b.Stats().Failed > 0 || b.settled() != 8 {
			t.Errorf("%+v, %+v, settled %d", b.drawer.letters, b.Stats(), b.settled())
		}
		if log := b.log.String(); strings.Count(log, "the ledger can't be told") != 1 || strings.Count(log, "the ledger can't be used") != 1 {
			t.Errorf("the log should say each once:\n%s", log)
		}
	})
}

// TestLedgerAwayInHandler: a handler that fails because the ledger's store is away has
// not failed its events.
func TestLedgerAwayInHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		b = newBench(t, Options{Attempts: 2, Handle: func(context.Context, Batch) error {
			return b.ledger.state() // as if its effects were there
		}}, 0)
		go func() {
			for range 10 {
				b.ledger.set(errAway)
				time.Sleep(time.Minute)
				b.ledger.set(nil)
				time.Sleep(time.Minute)
			}
		}()
		b.run(time.Hour)
		b.want(0)
		if len(b.drawer.letters) > 0 {
			t.Errorf("put aside: %+v", b.drawer.letters)
		}
	})
}

// TestClaimed: an event that a process claimed that died is waited for, and processed
// when its lease is over.
func TestClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at time.Duration
		b := newBench(t, Options{Batch: 10, Handle: func(_ context.Context, batch Batch) error {
			if slices.ContainsFunc(batch.Events, isNumber(3)) {
				at = time.Since(start)
			}
			return nil
		}}, numbers(0, 5)...)
		s := b.stream
		s.Partition = "0"
		if _, err := b.ledger.Claim(t.Context(), []once.Event{{Stream: s, Sequence: 3}}, 40*time.Second); err != nil {
			t.Fatal(err)
		}
		b.run(5 * time.Minute)
		b.want(numbers(0, 5)...)
		if at < 40*time.Second || at > 60*time.Second {
			t.Errorf("it is processed after %v", at)
		}
	})
}

// TestLost: who is slower than its lease, since the ledger's clock went ahead, is told,
// and another's mark stands.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead time.Duration
		ledger := once.NewMemoryClock(time.Hour, func() time.Time { return time.Now().Add(ahead) })
		var b *bench
		b = newBench(t, Options{Ledger: ledger, Handle: func(context.Context, Batch) error {
			ahead += time.Minute
			s := b.stream
			s.Partition = "0"
			_, err := once.Do(context.Background(), ledger, once.Event{Stream: s, Sequence: 0}, func(context.Context) error { return nil })
			return err
		}}, 0)
		b.run(5 * time.Minute)
		if got := b.settled(); got != 0 || b.done[0] != 1 || b.Stats().Processed != 0 || b.Stats().Skipped != 1 {
			t.Errorf("settled is %d, done %v, %+v", got, b.done, b.Stats())
		}
		if !strings.Contains(b.log.String(), "it may be processed twice") {
			t.Errorf("the log:\n%s", b.log)
		}
	})
}

// TestLedgerAwayForLong: a handler that runs while the ledger is away for longer than the
// lease is told to end, and has not failed its event.
func TestLedgerAwayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *bench
		calls := 0
		b = newBench(t, Options{Attempts: 1, Lease: 10 * time.Second, Handle: func(ctx context.Context, _ Batch) error {
			if calls++; calls > 1 {
				return nil
			}
			b.ledger.set(errAway)
			<-ctx.Done()
			b.ledger.set(nil) // back at once, so that nobody can tell by asking it
			return ctx.Err()
		}}, 0)
		b.run(5 * time.Minute)
		b.want(0)
		if len(b.drawer.letters) > 0 || b.Stats().Failed > 0 {
			t.Errorf("%+v, %+v", b.drawer.letters, b.Stats())
		}
	})
}

// TestDone: what the ledger knows is not processed again, and checkpointed all the same.
func TestDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Batch: 3, Handle: fine}, numbers(0, 6)...)
		s := b.stream
		s.Partition = "0"
		if err := b.ledger.Settle(t.Context(), s, 3); err != nil {
			t.Fatal(err)
		}
		b.run(time.Minute)
		b.want(4, 5)
		if got := b.Stats(); got.Skipped != 4 || got.Processed != 2 {
			t.Errorf("%+v", got)
		}
		if !slices.Equal(b.shelf.written, []int64{5}) {
			t.Errorf("checkpoints %v", b.shelf.written)
		}
	})
}

// TestIDs: by an id of its producer's an event that was sent twice is one.
func TestIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Batch: 2, Handle: fine, ID: func(e *azeventhubs.ReceivedEventData) string {
			return fmt.Sprint("order ", e.SequenceNumber%3)
		}}, numbers(0, 9)...)
		b.run(time.Minute)
		b.want(0, 1, 2)
		if got := b.Stats(); got.Skipped != 6 || !slices.Equal(b.shelf.written, []int64{8}) {
			t.Errorf("%+v, checkpoints %v", got, b.shelf.written)
		}
	})
}

// transactor is a ledger whose transactions are in memory.
type transactor struct {
	*flaky
	commit func() error
}

func (x *transactor) DoBatchTx(ctx context.Context, events []once.Event, fn func(ctx context.Context, tx *sql.Tx, fresh []int) error) error {
	_, err := once.DoBatch(ctx, x.flaky, events, func(ctx context.Context, fresh []int) error {
		if err := fn(ctx, new(sql.Tx), fresh); err != nil {
			return err
		}
		return x.commit()
	})
	return err
}

func (x *transactor) Transient(err error) bool { return errors.Is(err, errAway) }

// TestTransientInTransaction: what the database's errors do in a handler is not the
// events' fault.
func TestTransientInTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &transactor{flaky: &flaky{Ledger: once.NewMemory(time.Hour)}, commit: func() error { return nil }}
		calls := 0
		b := newBench(t, Options{Ledger: x, Attempts: 2, HandleTx: func(context.Context, *sql.Tx, Batch) error {
			if calls++; calls < 20 {
				return fmt.Errorf("insert: %w", errAway)
			}
			return nil
		}}, 0)
		b.run(time.Hour)
		if len(b.drawer.letters) > 0 || b.Stats().Processed != 1 || b.Stats().Failed != 0 {
			t.Errorf("%+v, %+v", b.drawer.letters, b.Stats())
		}
	})
}

// TestTransactions: a commit that fails is the database's fault, whatever it says, and
// tried again without end; a handler's own failure counts.
func TestTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commits, calls := 0, 0
		x := &transactor{flaky: &flaky{Ledger: once.NewMemory(time.Hour)}, commit: func() error {
			if commits++; commits < 20 {
				return errors.New("could not serialize")
			}
			return nil
		}}
		b := newBench(t, Options{Ledger: x, Attempts: 2, Batch: 3, HandleTx: func(_ context.Context, tx *sql.Tx, batch Batch) error {
			if calls++; tx == nil {
				t.Error("no transaction")
			}
			if slices.ContainsFunc(batch.Events, isNumber(1)) {
				return errors.New("rotten")
			}
			return nil
		}}, numbers(0, 3)...)
		b.run(time.Hour)
		if d := b.drawer.letters; len(d) != 1 || d[0].Event.SequenceNumber != 1 || b.settled() != 2 {
			t.Errorf("put aside %+v, settled %d, %d calls, %d commits\n%s", d, b.settled(), calls, commits, b.log)
		}
		if got := b.Stats(); got.Processed != 2 || got.Failed != 4 {
			t.Errorf("%+v", got)
		}
	})
}

// TestClockSteps: leases are the ledger's time. A ledger whose clock steps gives events
// away early or late; none is lost, and none done twice but for who was given it early.
func TestClockSteps(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var off time.Duration
				ledger := once.NewMemoryClock(time.Hour, func() time.Time {
					mu.Lock()
					defer mu.Unlock()
					return time.Now().Add(off)
				})
				b := newBench(t, Options{Ledger: ledger, Batch: 3, Handle: func(_ context.Context, batch Batch) error {
					if batch.Events[0].SequenceNumber == 3 {
						mu.Lock()
						off += step // between claim and mark
						mu.Unlock()
					}
					return nil
				}}, numbers(0, 9)...)
				b.run(time.Minute)
				b.want(numbers(0, 9)...)
				if n := b.settled(); n != 8 {
					t.Errorf("settled is %d", n)
				}
			})
		})
	}
}
