package hub_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/hub"
)

func TestRates(t *testing.T) {
	w := newWorld(t)
	h := w.hub("orders", 2, hub.Settings{})
	tick := func(d time.Duration) {
		w.pass(d)
		w.all.Sample()
	}
	check := func(what string, in, out int64) {
		t.Helper()
		if gotIn, gotOut := h.At(0).Rates(); gotIn != in || gotOut != out {
			t.Errorf("%s: %d in, %d out; want %d, %d", what, gotIn, gotOut, in, out)
		}
		if in, out := h.At(1).Rates(); in != 0 || out != 0 {
			t.Errorf("%s: the other partition has %d in, %d out", what, in, out)
		}
	}
	send := func(out int64) int64 {
		before := h.Metrics.IncomingBytes.Load()
		w.append(h.At(0), 10, strings.Repeat("x", 100))
		h.At(0).Delivered(out)
		h.Metrics.OutgoingBytes.Add(out)
		return h.Metrics.IncomingBytes.Load() - before
	}
	tick(0)
	check("at the start", 0, 0)
	n := send(5000)
	tick(4999 * time.Millisecond)
	check("within the first window", 0, 0)
	tick(time.Millisecond)
	check("after it", n/5, 1000)
	send(0)
	tick(10 * time.Second) // a late look is no higher rate
	check("after a long one", n/10, 0)
	tick(5 * time.Second)
	check("after silence", 0, 0)
	tick(5 * time.Second)
	check("and more", 0, 0)
	n = send(50)
	tick(5 * time.Second)
	check("after all that", n/5, 10)
	w.pass(-time.Hour)
	send(50)
	tick(0)
	check("the clock is set back", n/5, 10)
	tick(5 * time.Second)
	check("and goes on", n/5, 10)
}
