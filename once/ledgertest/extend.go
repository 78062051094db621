package ledgertest

import (
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/once"
)

// extend extends claims, none of which is lost.
func (f *fixture) extend(lease time.Duration, claims ...once.Claim) []once.Claim {
	f.Helper()
	extended, err := f.Extend(f.Context(), claims, lease)
	if err != nil {
		f.Fatal(err)
	}
	if len(extended) != len(claims) {
		f.Fatalf("%d answers for %d claims", len(extended), len(claims))
	}
	for i, c := range extended {
		if c.Event != claims[i].Event || c.Token != claims[i].Token || c.State != once.Claimed {
			f.Fatalf("%+v was extended to %+v", claims[i], c)
		}
	}
	return extended
}

// testExtend has claims be extended in time: they hold, as long as they are then said
// to, and no longer.
func testExtend(t *testing.T, f *fixture) {
	events := []once.Event{number(0), number(7), id("a")}
	c := f.extend(long, f.claim(short, events...)...)
	f.pass(later)
	busy := f.is(once.Busy, events...)
	for i := range busy {
		if !busy[i].Until.Equal(c[i].Until) {
			t.Fatalf("%v is busy until %v, and extended until %v", events[i], busy[i].Until, c[i].Until)
		}
	}
	f.mark(c...)
	f.is(once.Done, events...)

	vanished := f.extend(short, f.claim(long, number(1))...)
	f.pass(later)
	next := f.is(once.Claimed, number(1))
	f.lost(vanished...)
	f.mark(next...)
}

// testExtendOver has claims be extended that are over, but nobody else's.
func testExtendOver(t *testing.T, f *fixture) {
	events := []once.Event{number(0), number(7), id("a")}
	c := f.claim(short, events...)
	f.pass(later)
	c = f.extend(long, c...)
	f.is(once.Busy, events...)
	if err := f.Release(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	f.status(once.Status{Settled: -1})
	f.mark(f.is(once.Claimed, events...)...)
}

// testExtendLost has some claims be another's by now: they are not extended, but the
// others are.
func testExtendLost(t *testing.T, f *fixture) {
	mine := f.claim(short, number(0), number(1), number(2), id("a"), id("b"))
	f.pass(later)
	f.mark(f.is(once.Claimed, number(2))...)
	taken := f.is(once.Claimed, number(0), id("a"))
	extended, err := f.Extend(t.Context(), mine, long)
	lost, ok := errors.AsType[*once.LostError](err)
	if !ok || len(lost.Claims) != 3 || len(extended) != len(mine) {
		t.Fatalf("extending gave %v, %v", extended, err)
	}
	for _, l := range lost.Claims {
		if l != mine[0] && l != mine[2] && l != mine[3] {
			t.Errorf("%+v is lost", l)
		}
	}
	for i, c := range extended {
		if held := i == 1 || i == 4; held != c.Until.After(mine[i].Until) {
			t.Errorf("%+v was answered for %+v", c, mine[i])
		}
	}
	f.is(once.Busy, number(0), number(1), id("a"), id("b"))
	f.mark(taken...)
	f.mark(extended[1], extended[4])
	f.lost(mine[0], mine[3])
	f.status(once.Status{Settled: 2})
}

// testExtendDone has claims be extended of what is done: it stays done. What was settled
// while a claim held is nobody else's, so it holds on.
func testExtendDone(t *testing.T, f *fixture) {
	events := []once.Event{number(0), number(5), id("a")}
	c := f.is(once.Claimed, events...)
	f.mark(c...)
	f.extend(short, c...)
	f.pass(later)
	f.mark(c...)
	f.is(once.Done, events...)
	f.status(once.Status{Settled: 0, Marks: 1})

	holds, over := f.is(once.Claimed, number(2)), f.claim(short, number(3))
	f.pass(later)
	if err := f.Settle(t.Context(), Stream("0"), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Extend(t.Context(), over, long); err == nil {
		t.Error("a claim that was over when its event was settled was extended")
	}
	brief := f.extend(short, holds...)
	f.pass(later)
	f.lost(brief...)
	f.mark(f.extend(long, holds...)...)
	f.status(once.Status{Settled: 3, Marks: 1})
}
