package segment_test

import (
	"os"
	"path/filepath"
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

// TestDeletedFolders: a hub's folder goes with the last of its partitions.
func TestDeletedFolders(t *testing.T) {
	dir := t.TempDir()
	s, err := segment.Open(t.Context(), segment.Options{Dir: dir, Sync: segment.Sync{Policy: segment.SyncNever}, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := []store.LogID{{Hub: 1}, {Hub: 1, Partition: 1}}
	for _, id := range ids {
		l, err := s.Open(t.Context(), id, store.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := storetest.Append(l, storetest.Batch(1, "x")); err != nil {
			t.Fatal(err)
		}
		if err := l.Trim(t.Context(), 1); err != nil { // so that it has files
			t.Fatal(err)
		}
	}
	for i, id := range ids {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Join(dir, "logs"))
		if err != nil || len(left) != len(ids)-1-i {
			t.Errorf("with %d of %d partitions deleted there are the folders %v, %v", i+1, len(ids), left, err)
		}
	}
}
