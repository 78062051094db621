package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/hub"
)

// second lets a virtual second pass in which a hub is sent so many events.
func (w *world) second(h *hub.EventHub, events int) {
	w.t.Helper()
	for n := events; n > 0; n -= 1000 {
		w.append(h.At(0), min(n, 1000), "x")
	}
	w.pass(time.Second)
	w.all.Sample()
}

func TestLoadAndPlan(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("orders", 4, hub.Settings{})
	w.all.Sample()
	start := w.clock()
	for minute := range 5 {
		for s := range 60 {
			switch {
			case minute == 1 && s == 30:
				w.second(h, 3500)
			case minute == 3:
				w.second(h, 0)
			default:
				w.second(h, 10)
			}
		}
	}
	w.second(h, 0) // the fifth minute is over; what comes in its last second counts for the next
	loads, err := w.ns.Loads(ctx, start)
	if err != nil || len(loads) != 5 {
		t.Fatalf("%+v, %v", loads, err)
	}
	if l := loads[1]; l.In.Events != 59*10+3500 || l.PeakIn.Events != 3500 || l.Units() != 4 || !l.Minute.Equal(start.Add(time.Minute)) {
		t.Errorf("%+v, %d units", l, l.Units())
	}
	if l := loads[2]; l.In.Events != 600 || l.PeakIn.Events != 10 || l.Units() != 1 {
		t.Errorf("%+v", l)
	}
	p, err := w.ns.Plan(ctx, start, 2)
	// Seven days of retention are more than basic has.
	if err != nil || p.Tier != hub.Standard || p.Capacity != 4 || p.Units != 4 || len(p.Minutes) != 5 || p.AtCapacity != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if len(p.Reasons) != 1 || !strings.Contains(p.Reasons[0], "24 hours") {
		t.Errorf("reasons: %q", p.Reasons)
	}

	// The last minute of a run is kept, and what the next adds to it.
	w.second(h, 5)
	w.reopen()
	if h, err = w.ns.EventHub("orders"); err != nil {
		t.Fatal(err)
	}
	w.all.Sample()
	w.second(h, 7)
	w.pass(time.Minute)
	w.all.Sample()
	if loads, err = w.ns.Loads(ctx, start.Add(5*time.Minute)); err != nil || len(loads) != 1 || loads[0].In.Events != 22 || loads[0].PeakIn.Events != 10 {
		t.Errorf("over a restart: %+v, %v", loads, err)
	}

	// What is old goes.
	for d := range 40 {
		w.pass(24 * time.Hour)
		w.second(h, 1)
		w.pass(time.Minute)
		w.second(h, 0)
		_ = d
	}
	if loads, err = w.ns.Loads(ctx, start); err != nil || len(loads) < 30 || len(loads) > 33 {
		t.Errorf("after forty days there are %d minutes, %v", len(loads), err)
	}
}

func TestPlanOfWhatThereIs(t *testing.T) {
	for _, c := range []struct {
		partitions int
		retention  time.Duration
		tier       hub.Tier
		capacity   int
	}{
		{4, 24 * time.Hour, hub.Basic, 1}, {4, 48 * time.Hour, hub.Standard, 1}, {64, 48 * time.Hour, hub.Premium, 1},
		{4, 30 * 24 * time.Hour, hub.Premium, 1}, {500, time.Hour, hub.Dedicated, 1}, {1, -1, hub.Unlimited, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			w := newWorld(t)
			w.hub("orders", c.partitions, hub.Settings{Retention: c.retention})
			if p, err := w.ns.Plan(t.Context(), w.clock(), 0); err != nil || p.Tier != c.tier || p.Capacity != c.capacity {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}
