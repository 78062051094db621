package once_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
)

// events are some that one receiver was delivered.
func events(numbers ...int64) []once.Event {
	o := once.NewOrder(ledgertest.Stream("0"))
	var events []once.Event
	for _, n := range numbers {
		events = append(events, o.Event(n))
	}
	return events
}

func TestDo(t *testing.T) {
	l := once.NewMemory(time.Hour)
	e := events(7)[0]
	calls := 0
	do := func(fail error) (bool, error) {
		return once.Do(t.Context(), l, e, func(context.Context) error {
			calls++
			return fail
		})
	}
	wrong := errors.New("wrong")
	if ran, err := do(wrong); !ran || !errors.Is(err, wrong) {
		t.Fatal(ran, err)
	}
	if ran, err := do(nil); !ran || err != nil {
		t.Fatal(ran, err)
	}
	if ran, err := do(nil); ran || err != nil {
		t.Fatal(ran, err)
	}
	if calls != 2 {
		t.Fatal(calls, "calls")
	}
}

func TestDoPanics(t *testing.T) {
	l := once.NewMemory(time.Hour)
	e := events(0)[0]
	func() {
		defer func() { _ = recover() }()
		once.Do(t.Context(), l, e, func(context.Context) error { panic("wrong") })
	}()
	if ran, err := once.Do(t.Context(), l, e, func(context.Context) error { return nil }); !ran || err != nil {
		t.Fatal(ran, err)
	}
}

// TestBatchInOrder has somebody else hold an event in the middle of a batch, and one
// that is there twice.
func TestBatchInOrder(t *testing.T) {
	l := once.NewMemory(time.Hour)
	batch := events(0, 1, 2, 2, 3, 4, 5)
	held, err := l.Claim(t.Context(), batch[4:5], time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := once.Do(t.Context(), l, batch[1], func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	var got []int
	run := func(_ context.Context, fresh []int) error {
		got = append(got, fresh...)
		return nil
	}
	settled, err := once.DoBatch(t.Context(), l, batch, run)
	busy, ok := errors.AsType[*once.BusyError](err)
	if !ok || busy.Event.Sequence != 3 || settled != 4 || !slices.Equal(got, []int{0, 2}) {
		t.Fatal(settled, err, got)
	}
	if err := l.Mark(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	if settled, err = once.DoBatch(t.Context(), l, batch, run); err != nil || settled != 7 || !slices.Equal(got, []int{0, 2, 5, 6}) {
		t.Fatal(settled, err, got)
	}
	if s, _ := l.Status(t.Context(), batch[0].Stream); s != (once.Status{Settled: 5}) {
		t.Fatalf("%+v", s)
	}
	wrong := errors.New("wrong")
	settled, err = once.DoBatch(t.Context(), l, events(4, 5, 6, 7), func(context.Context, []int) error { return wrong })
	if settled != 2 || !errors.Is(err, wrong) {
		t.Fatal(settled, err)
	}
}

// TestWait has a claimer vanish: another gets the event when the lease is over.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := once.NewMemory(time.Hour)
		batch := events(0, 1, 2)
		if _, err := l.Claim(t.Context(), batch[1:2], time.Minute); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var got []int
		settled, err := once.Runner{Ledger: l, Wait: true}.DoBatch(t.Context(), batch, func(_ context.Context, fresh []int) error {
			got = append(got, fresh...)
			return nil
		})
		if settled != 3 || err != nil || !slices.Equal(got, []int{0, 1, 2}) {
			t.Fatal(settled, err, got)
		}
		if took := time.Since(began); took < time.Minute || took > 62*time.Second {
			t.Fatal("it took", took)
		}
		if _, err := l.Claim(t.Context(), events(9), time.Hour); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := (once.Runner{Ledger: l, Wait: true}).Do(ctx, events(9)[0], nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// unmarking is a ledger that can't be reached to mark.
type unmarking struct{ once.Ledger }

var errUnreachable = errors.New("unreachable")

func (unmarking) Mark(context.Context, []once.Claim) error { return errUnreachable }

func TestMaybeDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := once.NewMemory(time.Hour)
		e := events(0)[0]
		ran, err := once.Do(t.Context(), unmarking{l}, e, func(context.Context) error { return nil })
		maybe, ok := errors.AsType[*once.MarkError](err)
		if !ran || !ok || !errors.Is(err, errUnreachable) {
			t.Fatal(ran, err)
		}
		if err := l.Mark(t.Context(), maybe.Claims); err != nil {
			t.Fatal(err)
		}
		if ran, err := once.Do(t.Context(), l, e, nil); ran || err != nil {
			t.Fatal(ran, err)
		}
	})
}

// TestStopped has a process told to stop while it works: what it did is marked.
func TestStopped(t *testing.T) {
	l := once.NewMemory(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	ran, err := once.Do(ctx, l, events(0)[0], func(context.Context) error {
		cancel()
		return nil
	})
	if !ran || err != nil {
		t.Fatal(ran, err)
	}
	if ran, err := once.Do(ctx, l, events(1)[0], nil); ran || !errors.Is(err, context.Canceled) {
		t.Fatal(ran, err)
	}
}

func TestOrder(t *testing.T) {
	o := once.NewOrder(ledgertest.Stream("0"))
	for _, c := range [][2]int64{{10, 10}, {11, 0}, {15, 3}, {12, 0}, {16, 0}} {
		if e := o.Event(c[0]); e.Sequence != c[0] || e.Gap != c[1] {
			t.Errorf("%+v, want a gap of %d", e, c[1])
		}
	}
}
