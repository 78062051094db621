package hub_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/storetest"
)

// offered is what was taken of an offer in one millisecond of virtual time.
type offered struct{ bytes, events int64 }

// TestThroughputUnits offers twice what the units allow, in virtual time, and
// holds what is taken in any ten seconds to them.
func TestThroughputUnits(t *testing.T) {
	const seconds = 60
	all := []int{1, 4, 20, 40}
	if testing.Short() {
		all = all[:2]
	}
	for _, units := range all {
		for _, size := range []int{100, 16 << 10} {
			w := newWorld(t)
			if err := w.ns.Update(t.Context(), setTier(hub.Standard, units)); err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, uint64(units)))
			perBatch := max(1, min(64<<10/size, 8))
			limit := max(float64(hub.UnitIncomingBytes*units)/float64(size*perBatch), float64(hub.UnitIncomingEvents*units)/float64(perBatch))
			var taken [seconds * 1000]offered
			in := hub.NewThroughput(w.ns)
			due := 0.0
			for ms := range taken {
				w.pass(time.Millisecond)
				for due += 2 * limit / 1000 * (0.5 + r.Float64()); due >= 1; due-- {
					if in.Admit(int64(size*perBatch), int64(perBatch)) == 0 {
						taken[ms].bytes += int64(size * perBatch)
						taken[ms].events += int64(perBatch)
					}
				}
			}
			for from := 0; from+10_000 <= len(taken); from += 100 {
				var sum offered
				for _, x := range taken[from : from+10_000] {
					sum.bytes += x.bytes
					sum.events += x.events
				}
				share := max(float64(sum.bytes)/float64(10*hub.UnitIncomingBytes*units), float64(sum.events)/float64(10*hub.UnitIncomingEvents*units))
				if share < 0.97 || share > 1.03 {
					t.Fatalf("%d units, %d bytes: in the ten seconds from %d ms on, %.3f of the units was taken", units, size, from, share)
				}
			}
		}
	}
}

func TestThrottledAppend(t *testing.T) {
	w := newWorld(t)
	h := w.hub("orders", 1, hub.Settings{})
	if err := w.ns.Update(t.Context(), setTier(hub.Standard, 1)); err != nil {
		t.Fatal(err)
	}
	w.append(h.At(0), 2000, "x") // a batch passes whole; the next waits for it
	_, err := appendTo(h.At(0), 1, "x")
	var e *hub.Error
	if !errors.As(err, &e) || e.Kind != hub.Busy || !strings.Contains(e.Text, "50002") || e.RetryAfter <= time.Second || e.RetryAfter > 2*time.Second {
		t.Fatalf("%+v", err)
	}
	if m := &h.Metrics; m.Requests[hub.ServerBusy].Load() != 1 || m.IncomingMessages.Load() != 2000 {
		t.Errorf("%d busy, %d messages", m.Requests[hub.ServerBusy].Load(), m.IncomingMessages.Load())
	}
	w.pass(e.RetryAfter + time.Millisecond)
	w.append(h.At(0), 1, "x")

	if wait := w.ns.Delivered(100, 4096); wait <= 0 || wait > time.Second {
		t.Errorf("after a second's events a receiver waits %s", wait)
	}
	if err := w.ns.Update(t.Context(), setTier(hub.Premium, 1)); err != nil {
		t.Fatal(err)
	}
	if w.ns.Limited() || w.ns.Delivered(1<<40, 1) != 0 {
		t.Error("premium is throttled by number")
	}
	w.append(h.At(0), 2000, "x")
	w.append(h.At(0), 2000, "x")
}

// TestAutoInflate raises the load step by step: the units follow, up to the
// maximum, and stay.
func TestAutoInflate(t *testing.T) {
	w := newWorld(t)
	h := w.hub("orders", 1, hub.Settings{})
	on := func(s *hub.NamespaceSettings) error {
		s.Tier, s.AutoInflate, s.MaximumCapacity = hub.Standard, true, 4
		return nil
	}
	if err := w.ns.Update(t.Context(), on); err != nil {
		t.Fatal(err)
	}
	refused := func(perSecond int) (n int) {
		for range 50 {
			w.pass(20 * time.Millisecond)
			if _, err := appendTo(h.At(0), perSecond/50, "x"); kind(err) == hub.Busy {
				n++
				wait(t, func() bool { return len(w.all.Pressures()) == 0 })
			} else if err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	units := func() int { return w.ns.Settings().Capacity }
	if refused(900) != 0 || units() != 1 {
		t.Fatalf("%d units below the limit of one", units())
	}
	for _, step := range []struct{ load, units int }{{1800, 2}, {2700, 3}, {3600, 4}, {4500, 4}, {500, 4}} {
		for range 3 {
			refused(step.load)
		}
		wait(t, func() bool { return units() == step.units })
		if n := refused(min(step.load, 4000*9/10)); n > 2 { // what is still owed
			t.Errorf("at %d events/s and %d units, %d requests were refused", step.load, units(), n)
		}
	}
	if got := w.ns.Metrics.Inflations.Load(); got != 3 {
		t.Errorf("%d steps", got)
	}
	w.reopen()
	if s := w.ns.Settings(); s.Capacity != 4 || !s.AutoInflate {
		t.Errorf("after a restart: %+v", s)
	}
	for _, bad := range []hub.NamespaceSettings{
		{Tier: hub.Basic, AutoInflate: true, MaximumCapacity: 4}, {Tier: hub.Premium, AutoInflate: true, MaximumCapacity: 4},
		{Tier: hub.Standard, Capacity: 5, AutoInflate: true, MaximumCapacity: 4}, {Tier: hub.Standard, AutoInflate: true, MaximumCapacity: 41},
	} {
		if err := w.ns.Update(t.Context(), func(s *hub.NamespaceSettings) error { *s = bad; return nil }); kind(err) != hub.InvalidArgument {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// wait waits for what another goroutine does.
func wait(t *testing.T, done func() bool) {
	t.Helper()
	for range 5000 {
		if done() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it does not come about")
}

// BenchmarkAdmit is what a namespace's units, and its application groups, cost an
// append.
func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b)
	h := w.hub("orders", 1, hub.Settings{})
	c := w.ns.Client(&auth.Claims{Name: "r", Local: true, OfNamespace: true})
	group := hub.ApplicationGroup{Name: "g", Identifier: "SASKeyName=r", Policies: []hub.ThrottlingPolicy{
		{Name: "a", Metric: hub.IncomingMessages, Limit: hub.MaxPolicyLimit}, {Name: "b", Metric: hub.IncomingBytes, Limit: hub.MaxPolicyLimit}}}
	for _, bench := range []struct {
		name   string
		tier   hub.Tier
		groups []hub.ApplicationGroup
	}{{"off", hub.Premium, nil}, {"units", hub.Standard, nil}, {"group", hub.Premium, []hub.ApplicationGroup{group}}} {
		if err := w.ns.Update(b.Context(), func(s *hub.NamespaceSettings) error {
			s.Tier, s.Capacity, s.ApplicationGroups = bench.tier, 1, bench.groups
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		batch := storetest.Batch(1, "x")
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.now.Add(10)
				if err := h.At(0).AdmitFrom(&c, batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
