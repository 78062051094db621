package once_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/once"
)

// faulty is a ledger that can go away, hang, and answer late.
type faulty struct {
	once.Ledger
	away       atomic.Bool  // refuse what changes it
	hangs      atomic.Bool  // do not answer an extension, even if its context ends
	late       atomic.Int64 // answer claims after so long
	extensions atomic.Int64 // that were asked for
	back       chan struct{}
}

func newFaulty(l once.Ledger) *faulty { return &faulty{Ledger: l, back: make(chan struct{})} }

func (f *faulty) Claim(ctx context.Context, events []once.Event, lease time.Duration) ([]once.Claim, error) {
	claims, err := f.Ledger.Claim(ctx, events, lease)
	time.Sleep(time.Duration(f.late.Load()))
	return claims, err
}

func (f *faulty) Extend(ctx context.Context, claims []once.Claim, lease time.Duration) ([]once.Claim, error) {
	f.extensions.Add(1)
	if f.hangs.Load() {
		<-f.back
	}
	if f.away.Load() {
		return nil, errUnreachable
	}
	return f.Ledger.Extend(ctx, claims, lease)
}

func (f *faulty) Mark(ctx context.Context, claims []once.Claim) error {
	if f.away.Load() {
		return errUnreachable
	}
	return f.Ledger.Mark(ctx, claims)
}

func (f *faulty) Release(ctx context.Context, claims []once.Claim) error {
	if f.away.Load() {
		return errUnreachable
	}
	return f.Ledger.Release(ctx, claims)
}

// lease is that of the tests here.
const lease = 9 * time.Second

// wants checks what an event is to somebody else, who does not claim it for long.
func wants(t *testing.T, l once.Ledger, e once.Event, state once.State) {
	t.Helper()
	c, err := l.Claim(t.Context(), []once.Event{e}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if c[0].State == once.Claimed {
		if err := l.Release(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if c[0].State != state {
		t.Fatalf("%v is %v, want %v", e, c[0].State, state)
	}
}

// bubble runs a test in virtual time, with a ledger and an event.
func bubble(t *testing.T, test func(t *testing.T, l *faulty, e once.Event)) {
	synctest.Test(t, func(t *testing.T) { test(t, newFaulty(once.NewMemory(time.Hour)), events(0)[0]) })
}

// TestLeaseIsExtended has a function run for ten leases, while which nobody else gets
// its event.
func TestLeaseIsExtended(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		ran, err := once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, func(ctx context.Context) error {
			for range 100 {
				time.Sleep(lease / 10)
				wants(t, l, e, once.Busy)
			}
			return ctx.Err()
		})
		if !ran || err != nil {
			t.Fatal(ran, err)
		}
		wants(t, l, e, once.Done)
		if n := l.extensions.Load(); n < 29 || n > 30 {
			t.Errorf("%d extensions, of three in a lease", n)
		}
	})
}

// TestLeaseExtendedUnderSettle has everything be settled while a function runs for
// longer than its lease: nobody else can have had the event, so it is not lost.
func TestLeaseExtendedUnderSettle(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		ran, err := once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, func(ctx context.Context) error {
			time.Sleep(time.Second)
			if err := l.Settle(ctx, e.Stream, 5); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * lease)
			return ctx.Err()
		})
		if !ran || err != nil {
			t.Fatal(ran, err)
		}
	})
}

// TestLostInMidRun has somebody else be given the event, since the ledger's clock is put
// forward: the function is told, and the other's claim stays.
func TestLostInMidRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var step atomic.Int64
		l := once.NewMemoryClock(time.Hour, func() time.Time { return time.Now().Add(time.Duration(step.Load())) })
		e := events(0)[0]
		ran, err := once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, func(ctx context.Context) error {
			time.Sleep(time.Second)
			step.Add(int64(time.Hour))
			if c, err := l.Claim(ctx, []once.Event{e}, time.Hour); err != nil || c[0].State != once.Claimed {
				t.Error(c, err)
			}
			began := time.Now()
			<-ctx.Done()
			if took := time.Since(began); took > lease/3 {
				t.Error("it was told after", took)
			}
			return ctx.Err()
		})
		if _, lost := errors.AsType[*once.LostError](err); !ran || !lost || !errors.Is(err, once.ErrLease) || !errors.Is(err, context.Canceled) {
			t.Fatal(ran, err)
		}
		wants(t, l, e, once.Busy)
	})
}

// TestLedgerAwayInMidRun has the ledger refuse, or hang: the function's context ends
// when the lease does, and not before, and nothing is marked.
func TestLedgerAwayInMidRun(t *testing.T) {
	for name, fault := range map[string]func(l *faulty) *atomic.Bool{
		"refuses": func(l *faulty) *atomic.Bool { return &l.away },
		"hangs":   func(l *faulty) *atomic.Bool { return &l.hangs },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *faulty, e once.Event) {
				began := time.Now()
				ran, err := once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, func(ctx context.Context) error {
					time.Sleep(lease/3 + time.Second) // one extension later
					fault(l).Store(true)
					<-ctx.Done()
					if at := time.Since(began); at != lease/3+lease {
						t.Errorf("the context ended after %v, want %v", at, lease/3+lease)
					}
					fault(l).Store(false)
					close(l.back)
					return ctx.Err()
				})
				if !ran || !errors.Is(err, once.ErrLease) || errors.Is(err, errUnreachable) != (name == "refuses") {
					t.Fatal(ran, err)
				}
				wants(t, l, e, once.Claimed)
			})
		})
	}
}

// TestLedgerAwayForAMoment has the ledger be away for less than a lease: nothing is to
// be seen of it.
func TestLedgerAwayForAMoment(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		ran, err := once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, func(ctx context.Context) error {
			for range 5 {
				l.away.Store(true)
				time.Sleep(lease / 2)
				l.away.Store(false)
				time.Sleep(lease / 2)
				wants(t, l, e, once.Busy)
			}
			return ctx.Err()
		})
		if !ran || err != nil {
			t.Fatal(ran, err)
		}
		wants(t, l, e, once.Done)
	})
}

// TestLedgerAwayAtTheMark has the ledger be away when a function has succeeded: the mark
// is tried until the lease is over, or the process is told to stop.
func TestLedgerAwayAtTheMark(t *testing.T) {
	for _, c := range []struct {
		name        string
		away, stop  time.Duration
		took        [2]time.Duration
		marked      bool
		wantsToGive once.State
	}{
		{name: "for a moment", away: 5 * time.Second, took: [2]time.Duration{5 * time.Second, 6 * time.Second}, marked: true, wantsToGive: once.Done},
		{name: "for good", away: time.Hour, took: [2]time.Duration{lease - time.Second, lease}, wantsToGive: once.Claimed},
		{name: "told to stop", away: time.Hour, stop: 2 * time.Second, took: [2]time.Duration{2 * time.Second, 2 * time.Second}, wantsToGive: once.Claimed},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *faulty, e once.Event) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.stop > 0 {
					time.AfterFunc(c.stop, cancel)
				}
				var began time.Time
				ran, err := once.Runner{Ledger: l, Lease: lease}.Do(ctx, e, func(context.Context) error {
					began = time.Now()
					l.away.Store(true)
					time.AfterFunc(c.away, func() { l.away.Store(false) })
					return nil
				})
				took := time.Since(began)
				maybe, ok := errors.AsType[*once.MarkError](err)
				if !ran || ok == c.marked || (err == nil) != c.marked {
					t.Fatal(ran, err)
				}
				if took < c.took[0] || took > c.took[1] {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				time.Sleep(lease)
				wants(t, l.Ledger, e, c.wantsToGive)
				time.Sleep(time.Hour)
				if ok {
					if err := l.Mark(t.Context(), maybe.Claims); err != nil {
						t.Fatal(err)
					}
					wants(t, l, e, once.Done)
				}
			})
		})
	}
}

// TestTimeout has a function hang: its context ends, and somebody else has the event a
// lease later at most.
func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		timeout, want time.Duration
	}{
		{time.Minute, time.Minute},
		{time.Second, time.Second}, // less than the lease
		{0, once.DefaultTimeout},
	} {
		bubble(t, func(t *testing.T, l *faulty, e once.Event) {
			began := time.Now()
			ran, err := once.Runner{Ledger: l, Lease: lease, Timeout: c.timeout}.Do(t.Context(), e, func(ctx context.Context) error {
				<-ctx.Done()
				if at := time.Since(began); at != c.want || !errors.Is(context.Cause(ctx), once.ErrTimeout) {
					t.Errorf("the context ended after %v for %v", at, context.Cause(ctx))
				}
				wants(t, l, e, once.Busy) // who has not returned may still be at it
				time.Sleep(lease)
				if ran, err := once.Do(t.Context(), l, e, func(context.Context) error { return nil }); !ran || err != nil {
					t.Error(ran, err)
				}
				return nil
			})
			if _, lost := errors.AsType[*once.LostError](err); !ran || !lost {
				t.Fatal(ran, err)
			}
		})
	}
}

// TestTimeoutIsSaid has a function that heeds its time-out: the error says so, and the
// event is free at once.
func TestTimeoutIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		ran, err := once.Runner{Ledger: l, Lease: lease, Timeout: time.Minute}.Do(t.Context(), e, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if !ran || !errors.Is(err, once.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(ran, err)
		}
		wants(t, l, e, once.Claimed)
	})
}

// TestNoTimeout has a function run for a day, with a lease of seconds.
func TestNoTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		ran, err := once.Runner{Ledger: l, Lease: lease, Timeout: -1}.Do(t.Context(), e, func(ctx context.Context) error {
			time.Sleep(24 * time.Hour)
			return ctx.Err()
		})
		if !ran || err != nil {
			t.Fatal(ran, err)
		}
	})
}

// TestPanicInMidRun has a function panic after some leases: its claims are given up at
// once, and nothing goes on in the background, which the bubble would wait for.
func TestPanicInMidRun(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		func() {
			defer func() {
				if recover() != "wrong" {
					t.Error("the panic did not come through")
				}
			}()
			once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, func(context.Context) error {
				time.Sleep(3 * lease)
				panic("wrong")
			})
		}()
		wants(t, l, e, once.Claimed)
		asked := l.extensions.Load()
		time.Sleep(10 * lease)
		if n := l.extensions.Load(); n != asked {
			t.Errorf("%d extensions after the panic", n-asked)
		}
	})
}

// TestCancelledInMidRun has a process be told to stop, while its function needs some
// more leases for what it has begun: its event stays its own, and is marked.
func TestCancelledInMidRun(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		ctx, cancel := context.WithCancel(t.Context())
		ran, err := once.Runner{Ledger: l, Lease: lease}.Do(ctx, e, func(ctx context.Context) error {
			time.Sleep(time.Second)
			cancel()
			<-ctx.Done()
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, once.ErrLease) {
				t.Error(err)
			}
			time.Sleep(3 * lease)
			wants(t, l, e, once.Busy)
			return nil
		})
		if !ran || err != nil {
			t.Fatal(ran, err)
		}
		wants(t, l, e, once.Done)
	})
}

// TestClockSteps has the ledger's clock be set forward and back while functions run,
// and two contend for each event: nobody has one while another is at it, but for claims
// that were over by the ledger's clock, whose claimers are told.
func TestClockSteps(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []time.Duration
		taken bool // by the other
	}{
		{"back", []time.Duration{-time.Hour}, false},
		{"back and forth", []time.Duration{-lease / 3, 0, -lease / 3, lease / 3}, false},
		{"back and forth by more than a lease", []time.Duration{-time.Hour, 0}, true},
		{"forward a little", []time.Duration{lease / 3, 2 * lease / 3}, false},
		{"forward", []time.Duration{time.Hour}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at atomic.Int64
				l := once.NewMemoryClock(24*time.Hour, func() time.Time { return time.Now().Add(time.Duration(at.Load())) })
				e := events(0)[0]
				r := once.Runner{Ledger: l, Lease: lease, Wait: true}
				inside, taken, done := false, false, make(chan error)
				go func() {
					time.Sleep(time.Second)
					_, err := r.Do(t.Context(), e, func(context.Context) error {
						taken = inside
						return nil
					})
					done <- err
				}()
				_, err := r.Do(t.Context(), e, func(ctx context.Context) error {
					inside = true
					defer func() { inside = false }()
					for _, step := range c.steps {
						time.Sleep(lease/2 + time.Millisecond) // amid two extensions
						at.Store(int64(step))
					}
					select {
					case <-time.After(3 * lease):
					case <-ctx.Done():
					}
					return ctx.Err()
				})
				if other := <-done; other != nil || taken != c.taken {
					t.Fatalf("the other: %v, while the first was at it: %v, want %v", other, taken, c.taken)
				}
				if c.taken != errors.Is(err, once.ErrLease) || !c.taken && err != nil {
					t.Fatal(err)
				}
				wants(t, l, e, once.Done)
			})
		})
	}
}

// TestClockBackAfterDeath has a claimer die, and then the clock be set back: its event
// waits for as much longer, and is not lost.
func TestClockBackAfterDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at atomic.Int64
		l := once.NewMemoryClock(24*time.Hour, func() time.Time { return time.Now().Add(time.Duration(at.Load())) })
		e := events(0)[0]
		if _, err := l.Claim(t.Context(), []once.Event{e}, lease); err != nil {
			t.Fatal(err)
		}
		at.Store(int64(-time.Hour))
		began := time.Now()
		ran, err := once.Runner{Ledger: l, Wait: true}.Do(t.Context(), e, func(context.Context) error { return nil })
		if took := time.Since(began); !ran || err != nil || took < time.Hour || took > time.Hour+lease+2*time.Second {
			t.Fatal(ran, err, took)
		}
	})
}

// TestLateClaim has the ledger answer a claim after the lease that it gave is over: the
// function is not called.
func TestLateClaim(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, e once.Event) {
		l.late.Store(int64(lease))
		ran, err := once.Runner{Ledger: l, Lease: lease}.Do(t.Context(), e, nil)
		if ran || !errors.Is(err, once.ErrLease) {
			t.Fatal(ran, err)
		}
		l.late.Store(int64(lease) - 1)
		if ran, err := (once.Runner{Ledger: l, Lease: lease}).Do(t.Context(), e, func(ctx context.Context) error {
			time.Sleep(3 * lease)
			return ctx.Err()
		}); !ran || err != nil {
			t.Fatal("a claim that was answered in time:", ran, err)
		}
	})
}

// TestBatchIsExtended has a batch of which one is lost: the function is told, and of
// what it does nevertheless the rest is marked.
func TestBatchIsExtended(t *testing.T) {
	bubble(t, func(t *testing.T, l *faulty, _ once.Event) {
		batch := events(0, 1, 2)
		settled, err := once.Runner{Ledger: l, Lease: lease}.DoBatch(t.Context(), batch, func(ctx context.Context, fresh []int) error {
			if !slices.Equal(fresh, []int{0, 1, 2}) {
				t.Error(fresh)
			}
			l.away.Store(true)
			time.Sleep(lease + time.Second) // over
			l.away.Store(false)
			if !errors.Is(context.Cause(ctx), once.ErrLease) {
				t.Error(context.Cause(ctx))
			}
			wants(t, l, batch[0], once.Claimed)
			if ran, err := once.Do(t.Context(), l, batch[1], func(context.Context) error { return nil }); !ran || err != nil {
				t.Error(ran, err)
			}
			return nil
		})
		lost, ok := errors.AsType[*once.LostError](err)
		if settled != 0 || !ok || len(lost.Claims) != 1 || lost.Claims[0].Event != batch[1] {
			t.Fatal(settled, err)
		}
		wants(t, l, batch[0], once.Done)
		wants(t, l, batch[2], once.Done)
	})
}
