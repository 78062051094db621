package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
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
