package hub_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store/segment"
)

// TestFailuresRestartsAndCrashes has a disk fail and be well again, the broker start
// anew on it, and the power go, in any order: what was acknowledged is there.
func TestFailuresRestartsAndCrashes(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: outer, disk: sim.NewDisk(), kv: segment.NewMemoryKV()}
		w.now.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
		w.open()
		defer func() { w.close() }()
		p := w.hub("h", 1, hub.Settings{}).At(0)
		var broken atomic.Bool
		fault := func(op, _ string) error {
			if broken.Load() && op != "create" {
				return errors.New("broken")
			}
			return nil
		}
		w.disk.SetFault(fault)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		acked := 0
		check := func() {
			if _, err := appendTo(p, 1, "check"); err != nil {
				t.Fatal(err)
			}
			acked++
			i, err := p.Info(context.Background())
			if err != nil || int(i.Next) < acked {
				t.Fatalf("%d events are acknowledged and %d are there, %v", acked, i.Next, err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					if _, err := appendTo(p, 1, strings.Repeat("x", 500)); err == nil {
						acked++
					}
				}
			},
			"break": func(*rapid.T) { broken.Store(true) },
			"mend":  func(*rapid.T) { broken.Store(false); w.pass(time.Second) },
			"restart": func(*rapid.T) {
				broken.Store(false)
				w.pass(time.Second)
				w.reopen()
				p = w.at("h")
				check()
			},
			"crash": func(*rapid.T) {
				broken.Store(false)
				w.crash(rng)
				w.disk.SetFault(fault)
				p = w.at("h")
				check()
			},
		})
	})
}
