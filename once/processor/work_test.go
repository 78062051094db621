package processor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
)

// line is a partition that delivers events by their numbers, and then waits.
type line struct {
	mu   sync.Mutex
	left []*azeventhubs.ReceivedEventData
	more chan struct{} // closed and made anew when something is added
	err  error         // what comes after the events; nil: nothing
}

func newLine(numbers ...int64) *line {
	l := &line{more: make(chan struct{})}
	l.add(numbers...)
	return l
}

func (l *line) add(numbers ...int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range numbers {
		e := &azeventhubs.ReceivedEventData{SequenceNumber: n, Offset: fmt.Sprint(n)}
		e.Body = fmt.Append(nil, n)
		l.left = append(l.left, e)
	}
	close(l.more)
	l.more = make(chan struct{})
}

func (l *line) ReceiveEvents(ctx context.Context, count int, _ *azeventhubs.ReceiveEventsOptions) (got []*azeventhubs.ReceivedEventData, _ error) {
	for {
		l.mu.Lock()
		n := min(count-len(got), len(l.left))
		got = append(got, l.left[:n]...)
		l.left = l.left[n:]
		more, err := l.more, l.err
		l.mu.Unlock()
		if len(got) == count {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			if len(got) > 0 {
				return got, nil
			}
			return nil, ctx.Err()
		}
	}
}

// shelf is a checkpoint store that keeps the checkpoints of one partition.
type shelf struct {
	azeventhubs.CheckpointStore
	mu      sync.Mutex
	written []int64
	err     error
}

func (s *shelf) SetCheckpoint(_ context.Context, c azeventhubs.Checkpoint, _ *azeventhubs.SetCheckpointOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.written = append(s.written, *c.SequenceNumber)
	return nil
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// drawer keeps what is put aside.
type drawer struct {
	mu      sync.Mutex
	letters []DeadLetter
	err     error
}

func (d *drawer) Park(_ context.Context, l DeadLetter) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.letters = append(d.letters, l)
	}
	return d.err
}

// bench is a processor of one partition that delivers numbers, in virtual time.
type bench struct {
	*Processor
	t      *testing.T
	line   *line
	shelf  *shelf
	drawer *drawer
	ledger *flaky
	log    *strings.Builder

	mu   sync.Mutex
	done map[int64]int // by number: how often it was processed with success
}

// flaky is a ledger that can be away.
type flaky struct {
	once.Ledger
	mu        sync.Mutex
	away      error // of all calls
	awayMarks int   // so many marks fail with it
}

func (f *flaky) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = err
}

func (f *flaky) state() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

func (f *flaky) Claim(ctx context.Context, events []once.Event, lease time.Duration) ([]once.Claim, error) {
	if err := f.state(); err != nil {
		return nil, err
	}
	return f.Ledger.Claim(ctx, events, lease)
}

func (f *flaky) Mark(ctx context.Context, claims []once.Claim) error {
	f.mu.Lock()
	err := f.away
	if f.awayMarks > 0 {
		f.awayMarks--
		err = errAway
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Ledger.Mark(ctx, claims)
}

func (f *flaky) Extend(ctx context.Context, claims []once.Claim, lease time.Duration) ([]once.Claim, error) {
	if err := f.state(); err != nil {
		return nil, err
	}
	return f.Ledger.Extend(ctx, claims, lease)
}

func (f *flaky) Status(ctx context.Context, s once.Stream) (once.Status, error) {
	if err := f.state(); err != nil {
		return once.Status{}, err
	}
	return f.Ledger.Status(ctx, s)
}

var errAway = errors.New("it is away")

func newBench(t *testing.T, o Options, numbers ...int64) *bench {
	b := &bench{t: t, line: newLine(numbers...), shelf: &shelf{}, drawer: &drawer{}, done: map[int64]int{}, log: &strings.Builder{}}
	b.ledger = &flaky{Ledger: once.NewMemory(time.Hour)}
	o.Namespace, o.Group = "test.local", "$Default"
	if o.Ledger == nil {
		o.Ledger = b.ledger
	} else if o.Ledger == none {
		o.Ledger = nil
	}
	if o.DeadLetters == nil {
		o.DeadLetters = b.drawer
	} else if _, ok := o.DeadLetters.(nowhere); ok {
		o.DeadLetters = nil
	}
	if o.Handle != nil {
		inner := o.Handle
		o.Handle = func(ctx context.Context, batch Batch) error {
			if err := inner(ctx, batch); err != nil {
				return err
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, e := range batch.Events {
				b.done[e.SequenceNumber]++
			}
			return nil
		}
	}
	o.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	var err error
	if b.Processor, err = New(nil, b.shelf, o); err != nil {
		t.Fatal(err)
	}
	b.stream = once.Stream{Namespace: "test.local", Hub: "hub", Group: "$Default"}
	return b
}

// none is no ledger, where a bench would otherwise make one; nowhere no dead letters.
var none once.Ledger = (*once.Memory)(nil)

type nowhere struct{ DeadLetters }

// run has the partition processed for a time, in which it should have come to rest.
func (b *bench) run(d time.Duration) error {
	ctx, cancel := context.WithCancelCause(b.t.Context())
	b.stop = cancel
	over := make(chan error)
	go func() { over <- b.reader("0", b.line).run(ctx) }()
	time.Sleep(d)
	cancel(nil)
	return <-over
}

// want checks that exactly these were processed, each once.
func (b *bench) want(numbers ...int64) {
	b.t.Helper()
	for _, n := range numbers {
		if b.done[n] != 1 {
			b.t.Errorf("%d was processed %d times, not once", n, b.done[n])
		}
	}
	if len(b.done) != len(numbers) {
		b.t.Errorf("processed were %v, not %v", b.done, numbers)
	}
	if b.t.Failed() {
		b.t.Log(b.log)
	}
}

// settled is what the ledger knows as done.
func (b *bench) settled() int64 {
	b.t.Helper()
	n, err := b.Processor.settled(context.Background(), "0")
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func fine(context.Context, Batch) error { return nil }

func isNumber(n int64) func(*azeventhubs.ReceivedEventData) bool {
	return func(e *azeventhubs.ReceivedEventData) bool { return e.SequenceNumber == n }
}

func numbers(from, to int64) (list []int64) {
	for n := from; n < to; n++ {
		list = append(list, n)
	}
	return list
}

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
		if !ok || p.Value != "the floor gave way" || !strings.Contains(string(p.Stack), "work_test.go") {
			t.Errorf("put aside: %+v", b.drawer.letters)
		}
		if !strings.Contains(b.log.String(), "work_test.go") {
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
