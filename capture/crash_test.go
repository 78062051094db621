package capture_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

var (
	crashSeeds = flag.Int("crash-seeds", 100, "how many schedules TestCrashes goes through")
	crashSeed  = flag.Uint64("crash-seed", 0, "the one schedule that TestCrashes goes through, if not 0")
)

var errCrash = errors.New("the broker has been killed")

// faultyMeta has changes fail, before or after they are made.
type faultyMeta struct {
	store.Meta
	fail func(call string, after bool) error
}

func (m faultyMeta) Put(ctx context.Context, key string, value []byte, expect store.Version) (store.Version, error) {
	if !strings.HasPrefix(key, "capture") {
		return m.Meta.Put(ctx, key, value, expect)
	}
	if err := m.fail("meta put", false); err != nil {
		return 0, err
	}
	v, err := m.Meta.Put(ctx, key, value, expect)
	if ferr := m.fail("meta put", true); ferr != nil {
		return 0, ferr
	}
	return v, err
}

func (m faultyMeta) Delete(ctx context.Context, key string, expect store.Version) error {
	if err := m.fail("meta delete", false); err != nil {
		return err
	}
	err := m.Meta.Delete(ctx, key, expect)
	if ferr := m.fail("meta delete", true); ferr != nil {
		return ferr
	}
	return err
}

// TestCrashes kills the broker before and after every kind of step, and has the
// destination fail, in random order: what the files hold in the end is the log,
// each event once and in order.
func TestCrashes(t *testing.T) {
	if *crashSeed != 0 {
		crashes(t, *crashSeed)
		return
	}
	seeds := uint64(*crashSeeds)
	if testing.Short() {
		seeds = min(seeds, 25)
	}
	for seed := range seeds {
		if crashes(t, seed+1); t.Failed() {
			t.Fatalf("run it again with -crash-seed %d", seed+1)
		}
	}
}

func crashes(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	s := hub.Capture{Interval: time.Minute, Bytes: hub.MinCaptureBytes, SkipEmpty: r.IntN(2) == 0,
		Format: []hub.CaptureFormat{hub.CaptureAvro, hub.CaptureAvro, hub.CaptureAvroDeflate, hub.CaptureParquet}[r.IntN(4)]}
	dead, calm := false, false
	fail := func(call string, _ bool) error {
		switch {
		case calm:
			return nil
		case dead:
			return errCrash
		case r.IntN(12) == 0:
			dead = true
			return errCrash
		case r.IntN(8) == 0:
			return errDown
		}
		return nil
	}
	w := newWorldWith(t, s, func(w *world) {
		w.dest.fail = fail
		w.dest.plain = r.IntN(2) == 0
		w.meta = func(m store.Meta) store.Meta { return faultyMeta{m, fail} }
	})
	defer w.close()
	sent := make([][]string, len(w.parts))
	step := func(i int) {
		_, err := w.parts[i].Step(t.Context())
		if err != nil && !errors.Is(err, errDown) && !errors.Is(err, errCrash) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if dead {
			dead = false
			w.reopen()
		}
	}
	for range 150 {
		i := r.IntN(len(w.parts))
		switch n := r.IntN(20); {
		case n < 5:
			var bodies []string
			for range 1 + r.IntN(4) {
				body := fmt.Sprintf("%d-%d ", i, len(sent[i]))
				if r.IntN(10) == 0 {
					body += strings.Repeat("x", r.IntN(200<<10))
				}
				sent[i] = append(sent[i], body)
				bodies = append(bodies, body)
			}
			w.send(i, bodies...)
		case n < 7:
			w.pass(time.Duration(r.IntN(40_000)) * time.Millisecond)
		case n == 7 && r.IntN(4) == 0:
			w.now.Add(-int64(r.IntN(100_000)))
		case n == 8 && r.IntN(3) == 0:
			w.reopen()
		case n == 9 && r.IntN(10) == 0:
			w.set(func(c *hub.Capture) { c.Bytes = hub.MinCaptureBytes + int64(r.IntN(1000)) })
		default:
			step(i)
		}
	}
	calm = true
	for range 3 {
		w.settle()
		w.pass(2 * time.Minute)
	}
	w.settle()
	if n := w.hub.Metrics.CaptureLost.Load(); n != 0 {
		t.Errorf("seed %d: %d events are counted as lost", seed, n)
	}
	have := make([][]string, len(w.parts))
	next := make([]int64, len(w.parts))
	for _, f := range w.dest.read(t) {
		var i int
		if _, err := fmt.Sscanf(f.name, "localhost/orders/%d/", &i); err != nil {
			t.Fatal(err)
		}
		for _, seq := range f.seqs {
			if seq != next[i] {
				t.Fatalf("seed %d: %s goes on with event %d, not %d", seed, f.name, seq, next[i])
			}
			next[i]++
		}
		have[i] = append(have[i], f.bodies...)
	}
	for i := range sent {
		if !slices.Equal(have[i], sent[i]) {
			t.Errorf("seed %d: partition %d has %d events, and its files %d", seed, i, len(sent[i]), len(have[i]))
		}
	}
}
