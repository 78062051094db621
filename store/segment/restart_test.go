package segment_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
	"github.com/millrace/millrace/store/storetest"
)

// TestRestartAfterFailedSync: what a failed sync has made the system forget is still
// read by the next process, from the system's cache; it is written again before a
// sync is taken for its being on disk.
func TestRestartAfterFailedSync(t *testing.T) {
	for seed := range uint64(40) {
		disk, kv := sim.NewDisk(), segment.NewMemoryKV()
		open := func() *segment.Store {
			t.Helper()
			s, err := segment.Open(t.Context(), segment.Options{Disk: disk, KV: kv, JournalBytes: 100_000, SegmentBytes: 1 << 20, CacheBytes: 1, Reserve: -1})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			return s
		}
		id := store.LogID{Hub: 1}
		const events = 20
		s := open()
		l, err := s.Open(t.Context(), id, store.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for range events {
			if err := storetest.Append(l, storetest.Batch(1, strings.Repeat("x", 500))); err != nil {
				t.Fatal(err)
			}
		}
		disk.SetFault(func(op, name string) error {
			if op == "sync" && (strings.HasPrefix(name, "logs/")) {
				return errors.New("the disk is broken")
			}
			return nil
		})
		if err := s.Close(); err == nil {
			t.Fatal("no sync has failed")
		}
		disk.SetFault(nil)
		s = open() // a new process on the same system
		if l, err = s.Open(t.Context(), id, store.LogConfig{}); err != nil {
			t.Fatal(err)
		}
		const more = 400 // so that the journal's files are used again
		for range more {
			if err := storetest.Append(l, storetest.Batch(1, strings.Repeat("y", 500))); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Crash(rand.New(rand.NewPCG(seed, 1)), func() { kv = kv.Clone() })
		s = open()
		r, err := s.OpenReader(t.Context(), id)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		b, err := r.Bounds(t.Context())
		if err != nil || b.Next != events+more {
			t.Errorf("seed %d: %d of %d acknowledged events are there, %v", seed, b.Next, events+more, err)
		}
		for from := event.SequenceNumber(0); from < b.Next; {
			c, err := r.Read(t.Context(), from, 1<<20)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			from = c.Next()
			c.Close()
		}
		r.Close()
		s.Close()
	}
}

// TestRestartAfterFailedSyncOfFolder: a file of the journal whose name a process could
// not make durable is used by the next one, which does.
func TestRestartAfterFailedSyncOfFolder(t *testing.T) {
	for seed := range uint64(40) {
		disk, kv := sim.NewDisk(), segment.NewMemoryKV()
		open := func() *segment.Store {
			t.Helper()
			s, err := segment.Open(t.Context(), segment.Options{Disk: disk, KV: kv, JournalBytes: 100_000, Reserve: -1})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			return s
		}
		id := store.LogID{Hub: 1}
		s := open()
		l, err := s.Open(t.Context(), id, store.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		disk.SetFault(func(op, _ string) error {
			if op == "create" {
				return nil
			}
			return errors.New("the disk is broken")
		})
		if err := storetest.Append(l, storetest.Batch(1, "x")); err == nil {
			t.Fatal("an append succeeds on a broken disk")
		}
		s.Close() //nolint:errcheck // it fails
		disk.SetFault(nil)
		s = open() // a new process on the same system
		if l, err = s.Open(t.Context(), id, store.LogConfig{}); err != nil {
			t.Fatal(err)
		}
		if err := storetest.Append(l, storetest.Batch(1, "y")); err != nil {
			t.Fatal(err)
		}
		after := disk.Crash(rand.New(rand.NewPCG(seed, 1)), func() { kv = kv.Clone() })
		s.Close()
		disk = after
		s = open()
		r, err := s.OpenReader(t.Context(), id)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if b, err := r.Bounds(t.Context()); err != nil || b.Next < 1 {
			t.Errorf("seed %d: the acknowledged event is gone, %v", seed, err)
		}
		r.Close()
		s.Close()
	}
}
