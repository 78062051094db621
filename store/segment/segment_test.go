package segment_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
	"github.com/millrace/millrace/store/storetest"
)

func TestContract(t *testing.T) {
	for name, o := range map[string]segment.Options{
		"default":       {},
		"interval":      {Sync: segment.Sync{Policy: segment.SyncInterval, Interval: time.Millisecond}},
		"never":         {Sync: segment.Sync{Policy: segment.SyncNever}},
		"small cache":   {CacheBytes: 1},
		"small segment": {CacheBytes: 1, SegmentBytes: 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Engine{New: func(t *testing.T) func(func() time.Time) (store.Store, error) {
				dir := t.TempDir()
				return func(now func() time.Time) (store.Store, error) {
					o := o
					o.Dir, o.Now, o.Reserve = dir, now, -1
					return segment.Open(t.Context(), o)
				}
			}})
		})
	}
	t.Run("simulated disk", func(t *testing.T) {
		storetest.Run(t, storetest.Engine{New: func(t *testing.T) func(func() time.Time) (store.Store, error) {
			disk, kv := sim.NewDisk(), segment.NewMemoryKV()
			return func(now func() time.Time) (store.Store, error) {
				return segment.Open(t.Context(), segment.Options{Disk: disk, KV: kv, Now: now})
			}
		}})
	})
}
