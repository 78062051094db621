package processor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

func TestOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Handle: func(_ context.Context, batch Batch) error {
			if len(batch.Events) != 1 || batch.Partition != "0" || batch.Attempt != 1 {
				t.Errorf("%+v", batch)
			}
			return nil
		}}, 0, 1, 2, 5)
		b.run(time.Second)
		b.want(0, 1, 2, 5)
		if got := b.settled(); got != 5 {
			t.Errorf("settled is %d", got)
		}
		if !slices.Equal(b.shelf.written, []int64{5}) {
			t.Errorf("checkpoints %v at the end", b.shelf.written)
		}
		if got := b.Stats(); got != (Stats{Processed: 4, Checkpoints: 1}) {
			t.Errorf("%+v", got)
		}
	})
}

// TestBatches: a batch is full, or its first event has waited long enough.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		var at []time.Duration
		start := time.Now()
		b := newBench(t, Options{Batch: 4, MaxWait: 2 * time.Second, CheckpointInterval: time.Hour, Handle: func(_ context.Context, batch Batch) error {
			sizes, at = append(sizes, len(batch.Events)), append(at, time.Since(start))
			return nil
		}}, numbers(0, 6)...)
		go func() {
			time.Sleep(10 * time.Second)
			b.line.add(6)
			time.Sleep(time.Second)
			b.line.add(7)
		}()
		b.run(time.Minute)
		b.want(numbers(0, 8)...)
		if !slices.Equal(sizes, []int{4, 2, 2}) || !slices.Equal(at, []time.Duration{0, 2 * time.Second, 12 * time.Second}) {
			t.Errorf("batches of %v at %v", sizes, at)
		}
	})
}

// TestCheckpoints: every so many events or so often, whichever is first, also while a
// batch waits; and again if one could not be written.
func TestCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{CheckpointEvents: 3, CheckpointInterval: 10 * time.Second, Handle: fine, Batch: 100, MaxWait: time.Second}, numbers(0, 4)...)
		go func() {
			time.Sleep(30 * time.Second) // at 1 s: 0 to 3, by their number
			b.line.add(4)                // at 31 s done, due at 41 s
			time.Sleep(20 * time.Second)
			b.shelf.fail(errAway)
			b.line.add(5) // at 51 s, due at 61 s and not written, 71 s
			time.Sleep(15 * time.Second)
			b.shelf.fail(nil)
			time.Sleep(time.Minute)
			b.shelf.fail(errAway)
		}()
		b.run(3 * time.Minute)
		b.want(numbers(0, 6)...)
		if !slices.Equal(b.shelf.written, []int64{3, 4, 5}) {
			t.Errorf("checkpoints %v", b.shelf.written)
		}
		if n := strings.Count(b.log.String(), "checkpoint can't be written"); n != 1 {
			t.Errorf("the log says it %d times:\n%s", n, b.log)
		}
	})
}

// TestCancel: what is under way when the end comes is let finish, marked and
// checkpointed; what gives up is neither.
func TestCancel(t *testing.T) {
	for _, finishes := range []bool{true, false} {
		t.Run(fmt.Sprint(finishes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, Options{Handle: func(ctx context.Context, batch Batch) error {
					if batch.Events[0].SequenceNumber == 1 {
						<-ctx.Done()
						if !finishes {
							return ctx.Err()
						}
						time.Sleep(time.Second)
					}
					return nil
				}}, 0, 1, 2)
				if err := b.run(10 * time.Second); !errors.Is(err, context.Canceled) {
					t.Errorf("it ends with %v", err)
				}
				want := numbers(0, 1)
				if finishes {
					want = numbers(0, 2)
				}
				b.want(want...)
				last := want[len(want)-1]
				if got := b.settled(); got != last || !slices.Equal(b.shelf.written, []int64{last}) {
					t.Errorf("settled is %d, checkpoints %v", got, b.shelf.written)
				}
				if len(b.drawer.letters) > 0 || b.Stats().Failed > 0 {
					t.Errorf("an end is no failure: %+v, %+v", b.drawer.letters, b.Stats())
				}
			})
		})
	}
}

// TestStolen: who has lost the partition writes no checkpoint.
func TestStolen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Handle: fine}, 0, 1)
		b.line.err = &azeventhubs.Error{Code: azeventhubs.ErrorCodeOwnershipLost}
		if err := b.run(time.Minute); !stolen(err) {
			t.Errorf("it ends with %v", err)
		}
		b.want(0, 1)
		if len(b.shelf.written) > 0 {
			t.Errorf("checkpoints %v", b.shelf.written)
		}
	})
}

// TestLimit: so many are processed, not one more, and what was done before does not count.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Batch: 4, Limit: 6, Handle: fine}, numbers(0, 20)...)
		s := b.stream
		s.Partition = "0"
		if err := b.ledger.Settle(t.Context(), s, 2); err != nil {
			t.Fatal(err)
		}
		if err := b.run(time.Minute); !errors.Is(err, errLimit) {
			t.Errorf("it ends with %v", err)
		}
		b.want(numbers(3, 9)...)
		if !slices.Equal(b.shelf.written, []int64{8}) {
			t.Errorf("checkpoints %v", b.shelf.written)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Namespace: "n", Group: "g", Handle: fine}
	for want, change := range map[string]func(*Options){
		"Namespace":     func(o *Options) { o.Namespace = "" },
		"one of Handle": func(o *Options) { o.Handle = nil },
		"needs a Ledger": func(o *Options) {
			o.Handle, o.HandleTx = nil, func(context.Context, *sql.Tx, Batch) error { return nil }
		},
		"1 to 5000":        func(o *Options) { o.Batch = 5001 },
		"is negative":      func(o *Options) { o.Limit = -1 },
		"is not smaller":   func(o *Options) { o.MinBackoff, o.MaxBackoff = 2, 1 },
		"checkpoint store": func(o *Options) { o.Partitions = nil },
	} {
		o := good
		o.Partitions = []string{"0"}
		change(&o)
		if _, err := New(nil, nil, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestHubMadeAgain: a hub that was deleted and made again while its events are processed
// ends everything, since its numbers mean other events.
func TestHubMadeAgain(t *testing.T) {
	made := time.Now()
	ctx, stop := context.WithCancelCause(t.Context())
	p := &Processor{stop: stop}
	p.stream.Generation = generation(azeventhubs.EventHubProperties{CreatedOn: made})
	if err := p.sameHub(azeventhubs.EventHubProperties{Name: "orders", CreatedOn: made}); err != nil || ctx.Err() != nil {
		t.Error(err, ctx.Err())
	}
	err := p.sameHub(azeventhubs.EventHubProperties{Name: "orders", CreatedOn: made.Add(time.Second)})
	if err == nil || !final(err) || !errors.Is(context.Cause(ctx), err) || !strings.Contains(err.Error(), "orders was deleted and made again") {
		t.Error(err, context.Cause(ctx))
	}
}
