// Package ledgertest is the suite that every ledger passes: what package once
// promises of one, tried from outside. A ledger's test calls Run.
//
// It knows the contract alone, and no ledger but the one in memory, which is the model.
package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/once"
)

// Engine opens ledgers for the suite.
type Engine struct {
	// New returns an empty ledger that keeps ids for KeepIDs, and a function that lets
	// time pass by its clock.
	New func(t testing.TB) (l once.Ledger, pass func(time.Duration))

	// Wall says that pass waits, so that less of it is asked for.
	Wall bool

	// Slow says that the ledger is, so that the random tests are shorter.
	Slow bool
}

// KeepIDs is how long the ledgers of the suite keep ids.
const KeepIDs = 10 * time.Second

const (
	long  = time.Hour             // a lease that does not end in a test
	short = 2 * time.Millisecond  // one that ends when time passes
	later = 10 * time.Millisecond // what passes then
)

// Run runs the suite.
func Run(t *testing.T, e Engine) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"Once", testOnce},
		{"BusyUntilReleased", testBusy},
		{"ExpiredClaimIsFenced", testFenced},
		{"ExpiredButNobodyElses", testExpiredAlone},
		{"MarkTwice", testMarkTwice},
		{"Extend", testExtend},
		{"ExtendAfterItIsOver", testExtendOver},
		{"ExtendLost", testExtendLost},
		{"ExtendDone", testExtendDone},
		{"OutOfOrder", testOutOfOrder},
		{"Gaps", testGaps},
		{"GapOverAbandoned", testGapOverAbandoned},
		{"Redelivered", testRedelivered},
		{"Settle", testSettle},
		{"SettledUnderAClaim", testSettledUnderAClaim},
		{"StreamsAreIndependent", testStreams},
		{"IDs", testIDs},
		{"IDsAreForgotten", testIDsForgotten},
		{"Refused", testRefused},
		{"Cancelled", testCancelled},
		{"TwiceInACall", testTwiceInACall},
		{"LargeBatch", testLargeBatch},
		{"Race", testRace},
		{"Model", testModel},
		{"Consumers", testConsumers},
		{"Bounded", testBounded},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, pass := e.New(t)
			c.test(t, &fixture{T: t, Ledger: l, pass: pass, engine: e})
		})
	}
}

// fixture is a ledger under test.
type fixture struct {
	*testing.T
	once.Ledger
	pass   func(time.Duration)
	engine Engine
}

// Stream returns a stream for tests.
func Stream(partition string) once.Stream {
	return once.Stream{Namespace: "Example.servicebus.windows.net", Hub: "orders", Group: "$Default", Partition: partition}
}

func number(n int64) once.Event { return once.Event{Stream: Stream("0"), Sequence: n} }

func after(n, gap int64) once.Event { return once.Event{Stream: Stream("0"), Sequence: n, Gap: gap} }

func id(s string) once.Event { return once.Event{Stream: Stream(""), ID: s} }

// claim claims events and returns the answers.
func (f *fixture) claim(lease time.Duration, events ...once.Event) []once.Claim {
	f.Helper()
	claims, err := f.Claim(f.Context(), events, lease)
	if err != nil {
		f.Fatal(err)
	}
	if len(claims) != len(events) {
		f.Fatalf("%d answers for %d events", len(claims), len(events))
	}
	for i, c := range claims {
		if c.Event != events[i] {
			f.Fatalf("the answer %d is for %v, not %v", i, c.Event, events[i])
		}
	}
	return claims
}

// is claims events and checks what they are.
func (f *fixture) is(want once.State, events ...once.Event) []once.Claim {
	f.Helper()
	claims := f.claim(long, events...)
	for _, c := range claims {
		if c.State != want {
			f.Fatalf("%v is %v, want %v", c.Event, c.State, want)
		}
	}
	return claims
}

func (f *fixture) mark(claims ...once.Claim) {
	f.Helper()
	if err := f.Mark(f.Context(), claims); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) lost(claims ...once.Claim) {
	f.Helper()
	err := f.Mark(f.Context(), claims)
	lost, ok := errors.AsType[*once.LostError](err)
	if !ok || len(lost.Claims) != len(claims) {
		f.Fatalf("marking gave %v, want that all %d are lost", err, len(claims))
	}
}

func (f *fixture) status(want once.Status) {
	f.Helper()
	got, err := f.Status(f.Context(), Stream("0"))
	if err != nil {
		f.Fatal(err)
	}
	if got != want {
		f.Fatalf("the status is %+v, want %+v", got, want)
	}
}

func testOnce(t *testing.T, f *fixture) {
	f.status(once.Status{Settled: -1})
	c := f.is(once.Claimed, number(0), number(1))
	f.status(once.Status{Settled: -1, Claims: 2})
	f.mark(c...)
	f.is(once.Done, number(0), number(1))
	f.status(once.Status{Settled: 1})
	f.is(once.Claimed, number(2))
}

func testBusy(t *testing.T, f *fixture) {
	c := f.is(once.Claimed, number(0))
	busy := f.is(once.Busy, number(0))
	if !busy[0].Until.Equal(c[0].Until) {
		t.Fatalf("busy until %v, and claimed until %v", busy[0].Until, c[0].Until)
	}
	if err := f.Release(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	f.status(once.Status{Settled: -1})
	f.mark(f.is(once.Claimed, number(0))...)
	if err := f.Release(t.Context(), c); err != nil {
		t.Fatal("releasing what somebody else has done:", err)
	}
	f.is(once.Done, number(0))
}

func testFenced(t *testing.T, f *fixture) {
	for _, e := range []once.Event{number(0), number(7), id("a")} {
		stale := f.claim(short, e)
		f.pass(later)
		next := f.is(once.Claimed, e)
		if next[0].Token <= stale[0].Token {
			t.Fatalf("the token %d follows %d", next[0].Token, stale[0].Token)
		}
		f.lost(stale...)
		if err := f.Release(t.Context(), stale); err != nil {
			t.Fatal(err)
		}
		f.is(once.Busy, e)
		f.mark(next...)
		f.is(once.Done, e)
		f.lost(stale...)
	}
}

func testExpiredAlone(t *testing.T, f *fixture) {
	c := f.claim(short, number(0), number(2), id("a"))
	f.pass(later)
	f.mark(c...)
	f.is(once.Done, number(0), number(2), id("a"))
}

func testMarkTwice(t *testing.T, f *fixture) {
	c := f.is(once.Claimed, number(0), number(5), id("a"))
	f.mark(c...)
	f.mark(c...)
	f.is(once.Done, number(0), number(5), id("a"))
}

func testOutOfOrder(t *testing.T, f *fixture) {
	c := f.is(once.Claimed, number(0), number(1), number(2), number(3), number(4))
	f.mark(c[3], c[1])
	f.status(once.Status{Settled: -1, Marks: 2, Claims: 3})
	f.mark(c[0])
	f.status(once.Status{Settled: 1, Marks: 1, Claims: 2})
	f.is(once.Busy, number(2), number(4))
	f.mark(c[2])
	f.status(once.Status{Settled: 3, Claims: 1})
	f.mark(c[4])
	f.status(once.Status{Settled: 4})
}

func testGaps(t *testing.T, f *fixture) {
	// Retention has taken what is before 10, and 13 to 19 do not exist.
	c := f.is(once.Claimed, after(10, 10), number(11), number(12), after(20, 7), number(21))
	f.mark(c[4], c[3], c[1])
	f.status(once.Status{Settled: -1, Marks: 3, Claims: 2})
	f.mark(c[0])
	f.status(once.Status{Settled: 11, Marks: 2, Claims: 1})
	f.mark(c[2])
	f.status(once.Status{Settled: 21})
}

// testGapOverAbandoned has a claim that retention outruns: it is not in the way.
func testGapOverAbandoned(t *testing.T, f *fixture) {
	f.is(once.Claimed, number(0), number(2))
	f.mark(f.is(once.Claimed, number(1))...)
	f.mark(f.is(once.Claimed, after(5, 5))...)
	f.status(once.Status{Settled: 5})

	f.is(once.Claimed, number(6), number(8))
	f.mark(f.is(once.Claimed, after(10, 3))...) // 7, 8 and 9 are gone, 6 is not
	f.status(once.Status{Settled: 5, Marks: 1, Claims: 1})
}

// testRedelivered has a receiver opened again at what is marked above a number that was
// given up: as it was opened there, the number is not wanted any more.
func testRedelivered(t *testing.T, f *fixture) {
	f.mark(f.is(once.Claimed, number(1), number(2))...)
	f.status(once.Status{Settled: -1, Marks: 2})
	f.is(once.Done, after(1, 1))
	f.status(once.Status{Settled: 2})
}

func testSettle(t *testing.T, f *fixture) {
	c := f.is(once.Claimed, number(3), number(11), number(12), number(14))
	f.mark(c[1], c[2], c[3])
	settle := func(n int64, want once.Status) {
		t.Helper()
		if err := f.Settle(t.Context(), Stream("0"), n); err != nil {
			t.Fatal(err)
		}
		f.status(want)
	}
	settle(10, once.Status{Settled: 12, Marks: 1})
	settle(5, once.Status{Settled: 12, Marks: 1})
	settle(13, once.Status{Settled: 14})
	f.is(once.Done, number(0), number(3), number(14))
	f.is(once.Claimed, number(15))
}

func testSettledUnderAClaim(t *testing.T, f *fixture) {
	holds := f.is(once.Claimed, number(0))
	over := f.claim(short, number(1))
	f.pass(later)
	if err := f.Settle(t.Context(), Stream("0"), 1); err != nil {
		t.Fatal(err)
	}
	f.mark(holds...)
	f.lost(over...)
}

func testStreams(t *testing.T, f *fixture) {
	f.mark(f.is(once.Claimed, number(0))...)
	for _, change := range []func(*once.Stream){
		func(s *once.Stream) { s.Namespace = "other" },
		func(s *once.Stream) { s.Hub = "other" },
		func(s *once.Stream) { s.Group = "$default" }, // Azure compares groups without case, a ledger with
		func(s *once.Stream) { s.Partition = "1" },
		func(s *once.Stream) { s.Generation = "2026-11-25" },
		func(s *once.Stream) { s.Hub, s.Group = "orders/$Default", "x" },
		func(s *once.Stream) { s.Hub, s.Group = "orders", "$Default/x" },
	} {
		e := number(0)
		change(&e.Stream)
		f.mark(f.is(once.Claimed, e)...)
	}
	same := number(0)
	same.Namespace, same.Hub = "example.SERVICEBUS.windows.net", "Orders"
	f.is(once.Done, same)
}

func testIDs(t *testing.T, f *fixture) {
	names := []once.Event{id("a"), id("A"), id("ä"), id("a "), id("a\x00b"), id("a:b"), id("0"), id("-1")}
	c := f.is(once.Claimed, names...)
	f.is(once.Busy, names...)
	f.mark(c...)
	f.is(once.Done, names...)
	elsewhere := id("a")
	elsewhere.Partition, elsewhere.Sequence, elsewhere.Gap = "7", 12, 3
	f.is(once.Done, elsewhere)
	f.is(once.Claimed, number(0))
	f.status(once.Status{Settled: -1, Claims: 1})
}

func testIDsForgotten(t *testing.T, f *fixture) {
	f.mark(f.is(once.Claimed, id("a"))...)
	f.pass(KeepIDs + later)
	f.is(once.Claimed, id("a"))
}

func testRefused(t *testing.T, f *fixture) {
	bad := []once.Event{
		number(-1), number(once.MaxSequence + 1), after(3, -1), after(3, 4),
		{Stream: Stream("")}, {ID: "a"}, {},
		id(strings.Repeat("x", once.MaxID+1)),
	}
	for _, e := range bad {
		if _, err := f.Claim(t.Context(), []once.Event{number(0), e}, long); !errors.Is(err, once.ErrInvalid) {
			t.Errorf("claiming %+v gave %v", e, err)
		}
		if err := f.Mark(t.Context(), []once.Claim{{Event: e}}); !errors.Is(err, once.ErrInvalid) {
			t.Errorf("marking %+v gave %v", e, err)
		}
		if _, err := f.Extend(t.Context(), []once.Claim{{Event: e}}, long); !errors.Is(err, once.ErrInvalid) {
			t.Errorf("extending %+v gave %v", e, err)
		}
	}
	if _, err := f.Claim(t.Context(), []once.Event{number(0)}, time.Microsecond); err == nil {
		t.Error("a lease of a microsecond was taken")
	}
	if _, err := f.Extend(t.Context(), nil, time.Microsecond); err == nil {
		t.Error("a claim was extended by a microsecond")
	}
	if c := f.claim(long); len(c) != 0 {
		t.Error("no events gave", c)
	}
	f.mark()
	f.extend(long)
	f.status(once.Status{Settled: -1})
	f.mark(f.is(once.Claimed, number(once.MaxSequence))...)
	f.is(once.Done, number(once.MaxSequence))
}

func testCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Claim(ctx, []once.Event{number(0)}, long); !errors.Is(err, context.Canceled) {
		t.Errorf("claiming gave %v", err)
	}
	c := f.is(once.Claimed, number(0))
	if err := f.Mark(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("marking gave %v", err)
	}
	if _, err := f.Extend(ctx, c, long); !errors.Is(err, context.Canceled) {
		t.Errorf("extending gave %v", err)
	}
	f.mark(c...)
}

func testTwiceInACall(t *testing.T, f *fixture) {
	c := f.claim(long, number(0), number(0), id("a"), id("a"))
	for i, want := range []once.State{once.Claimed, once.Busy, once.Claimed, once.Busy} {
		if c[i].State != want {
			t.Errorf("answer %d is %v, want %v", i, c[i].State, want)
		}
	}
}

func testLargeBatch(t *testing.T, f *fixture) {
	var events []once.Event
	for i := range int64(1200) {
		e := once.Event{Stream: Stream(fmt.Sprint(i % 3)), Sequence: i / 3}
		if i%4 == 0 {
			e = id(fmt.Sprint("id", i))
		}
		events = append(events, e)
	}
	c := f.is(once.Claimed, events...)
	f.mark(c...)
	f.is(once.Done, events...)
}

// testRace has many claim the same events at the same time.
func testRace(t *testing.T, f *fixture) {
	const claimers, rounds = 8, 20
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	for range claimers {
		wg.Go(func() {
			for r := range int64(rounds) {
				events := []once.Event{number(2 * r), id(fmt.Sprint(r)), number(2*r + 1)}
				claims, err := f.Claim(t.Context(), events, long)
				if err != nil {
					t.Error(err)
					return
				}
				var mine []once.Claim
				mu.Lock()
				for _, c := range claims {
					if c.State == once.Claimed {
						got[c.Event.String()]++
						mine = append(mine, c)
					}
				}
				mu.Unlock()
				if err := f.Mark(t.Context(), mine); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for e, n := range got {
		if n != 1 {
			t.Errorf("%s was given %d times", e, n)
		}
	}
	if len(got) != 3*rounds {
		t.Errorf("%d events were given, want %d", len(got), 3*rounds)
	}
	f.status(once.Status{Settled: 2*rounds - 1})
}
