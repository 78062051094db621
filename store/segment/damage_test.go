package segment_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
	"github.com/millrace/millrace/store/storetest"
)

// filled is a store with two logs of several segments, stopped cleanly.
func filled(t *testing.T, o segment.Options) segment.Options {
	t.Helper()
	o.SegmentBytes, o.JournalBytes, o.Reserve = 4000, 50_000, -1
	s, err := segment.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for p := range uint32(2) {
		l, err := s.Open(t.Context(), store.LogID{Hub: 1, Partition: p}, store.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			if err := storetest.Append(l, storetest.Batch(2, fmt.Sprintf("%d/%d", p, i), strings.Repeat("x", 7*i))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Meta().Put(t.Context(), fmt.Sprint("key", p), []byte("value"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestAnyByteOfASegment damages each byte of a cleanly stopped store's segments
// in turn: Verify names it, reading never returns anything but what was written,
// and the other partition is as it was.
func TestAnyByteOfASegment(t *testing.T) {
	disk, kv := sim.NewDisk(), segment.NewMemoryKV()
	o := filled(t, segment.Options{Disk: disk, KV: kv})
	if r, err := segment.Verify(t.Context(), o, nil); err != nil || len(r.Damage) > 0 || r.Events != 240 || r.Unclean {
		t.Fatalf("before any damage: %+v, %v", r, err)
	}
	whole := contents(t, o)
	step := int64(1)
	if testing.Short() {
		step = 37
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for name, size := range disk.Files() {
		if !strings.HasPrefix(name, "logs/0000000000000001/0/") {
			continue
		}
		for off := int64(0); off < size; off += step {
			c := o
			d := disk.Crash(rng, nil) // everything is synced: an exact copy
			c.Disk, c.KV = d, kv.Clone()
			d.Damage(name, off)
			r, err := segment.Verify(t.Context(), c, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !names(r.Damage, name) {
				t.Fatalf("%s, byte %d: not found: %v", name, off, r.Damage)
			}
			checkContained(t, c, whole, fmt.Sprintf("%s, byte %d", name, off))
		}
	}
}

// names tells whether some damage is a CorruptError in the file.
func names(damage []error, file string) bool {
	return slices.ContainsFunc(damage, func(err error) bool {
		var c *store.CorruptError
		return errors.As(err, &c) && c.File == file
	})
}

// contents reads both logs.
func contents(t *testing.T, o segment.Options) [2][]string {
	t.Helper()
	s, err := segment.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out [2][]string
	for p := range out {
		r, err := s.OpenReader(t.Context(), store.LogID{Hub: 1, Partition: uint32(p)})
		if err != nil {
			t.Fatal(err)
		}
		if out[p], err = storetest.Bodies(r, 0); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// checkContained opens a damaged store: partition 1 is untouched, and partition
// 0 gives what was written, up to the damage, or all of it.
func checkContained(t *testing.T, o segment.Options, whole [2][]string, where string) {
	t.Helper()
	s, err := segment.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("%s: open: %v", where, err)
	}
	defer s.Close()
	for p := range whole {
		r, err := s.OpenReader(t.Context(), store.LogID{Hub: 1, Partition: uint32(p)})
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		got, err := storetest.Bodies(r, 0)
		var c *store.CorruptError
		if err != nil && (p != 0 || !errors.As(err, &c)) {
			t.Fatalf("%s: partition %d: %v", where, p, err)
		}
		if len(got) > len(whole[p]) || !slices.Equal(got, whole[p][:len(got)]) {
			t.Fatalf("%s: partition %d: reading returned what was not written", where, p)
		}
		l, oerr := s.Open(t.Context(), store.LogID{Hub: 1, Partition: uint32(p)}, store.LogConfig{})
		if oerr != nil {
			t.Fatalf("%s: %v", where, oerr)
		}
		aerr := storetest.Append(l, storetest.Batch(1, "more"))
		if len(got) < len(whole[p]) && err == nil && !errors.As(aerr, &c) {
			t.Fatalf("%s: partition %d: %d of %d records, and neither a read nor an append complained: %v", where, p, len(got), len(whole[p]), aerr)
		}
		if p == 1 && aerr != nil {
			t.Fatalf("%s: the other partition: %v", where, aerr)
		}
		r.Close()
	}
}

// TestMissingSegment removes whole files.
func TestMissingSegment(t *testing.T) {
	disk, kv := sim.NewDisk(), segment.NewMemoryKV()
	o := filled(t, segment.Options{Disk: disk, KV: kv})
	whole := contents(t, o)
	for name := range disk.Files() {
		if !strings.HasPrefix(name, "logs/0000000000000001/0/") {
			continue
		}
		c := o
		d := disk.Crash(rand.New(rand.NewPCG(1, 2)), nil)
		c.Disk, c.KV = d, kv.Clone()
		if err := d.Remove(name); err != nil {
			t.Fatal(err)
		}
		r, err := segment.Verify(t.Context(), c, nil)
		if err != nil || len(r.Damage) == 0 {
			t.Fatalf("without %s: %v, %v", name, r.Damage, err)
		}
		s, err := segment.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		rd, err := s.OpenReader(t.Context(), store.LogID{Hub: 1})
		if err != nil {
			t.Fatal(err)
		}
		b, err := rd.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := storetest.Bodies(rd, b.First)
		if len(got) == len(whole[0]) {
			t.Fatalf("without %s everything can still be read (%v)", name, err)
		}
		s.Close()
	}
}

// TestDamageToTheJournal damages, after a crash, what the journal had made
// durable: the partition that it was of is refused, others are whole.
func TestDamageToTheJournal(t *testing.T) {
	found, pinned := 0, 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 7))
		disk, kv := sim.NewDisk(), segment.NewMemoryKV()
		o := segment.Options{Disk: disk, KV: kv, JournalBytes: 1 << 20}
		s, err := segment.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		const logs = 5
		want := map[uint32]int{}
		var last uint32
		for range 40 {
			p := uint32(rng.IntN(logs))
			last = p
			l, err := s.Open(t.Context(), store.LogID{Hub: 1, Partition: p}, store.LogConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if err := storetest.Append(l, storetest.Batch(1, strings.Repeat("y", rng.IntN(300)))); err != nil {
				t.Fatal(err)
			}
			want[p]++
		}
		d := disk.Crash(rng, func() { kv = kv.Clone() })
		s.Close()
		var names []string
		files := d.Files()
		for name, size := range files {
			if strings.HasPrefix(name, "journal/") && size > 5000 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		blocks := int(min(files[names[0]]/4096, 12))
		d.Damage(names[0], 4096*int64(1+rng.IntN(blocks-1))+int64(rng.IntN(500)))
		o.Disk, o.KV = d, kv
		s, err = segment.Open(t.Context(), o)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		refused := 0
		for p, n := range want {
			l, err := s.Open(t.Context(), store.LogID{Hub: 1, Partition: p}, store.LogConfig{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := storetest.Bodies(l, 0)
			if err != nil {
				t.Fatal(err)
			}
			var c *store.CorruptError
			aerr := storetest.Append(l, storetest.Batch(1, "more"))
			if errors.As(aerr, &c) {
				refused++
			} else if aerr != nil {
				t.Fatal(aerr)
			}
			if p == last && len(got) == n-1 {
				n-- // no later round says that the last one was durable: it may be a torn write
			}
			if len(got) < n && c == nil {
				t.Fatalf("seed %d: partition %d has %d of %d events, and nobody says so", seed, p, len(got), n)
			}
			if len(got) == n && c != nil {
				t.Errorf("seed %d: partition %d is whole, but refused: %v", seed, p, c)
			}
		}
		if refused > 0 {
			found++
		}
		if refused == 1 {
			pinned++
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// The rest hit a round's list, which costs nothing, or what its segment had
	// already: how many those are depends on how fast the keeper was.
	if found < 10 || pinned != found {
		t.Errorf("damage was found in %d stores, and pinned to one partition in %d", found, pinned)
	}
}

// TestAnyByteOfTheDatabase damages bytes of meta.db: what is then read is what
// was written, or an error.
func TestAnyByteOfTheDatabase(t *testing.T) {
	dir := t.TempDir()
	filled(t, segment.Options{Dir: dir})
	db, err := os.ReadFile(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	found, runs := 0, 400
	if testing.Short() {
		runs = 60
	}
	for range runs {
		off := rng.IntN(len(db))
		for db[off] == 0 { // most of it is empty pages
			off = rng.IntN(len(db))
		}
		c := t.TempDir()
		if err := os.CopyFS(c, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		bad := slices.Clone(db)
		bad[off] ^= 1 << rng.IntN(8)
		if err := os.WriteFile(filepath.Join(c, "meta.db"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		o := segment.Options{Dir: c, Reserve: -1}
		r, verr := segment.Verify(t.Context(), o, nil)
		if verr == nil && len(r.Damage) > 0 {
			verr = r.Damage[0]
		}
		if verr != nil {
			if found++; !strings.Contains(verr.Error(), "meta.db") {
				t.Errorf("byte %d: Verify does not name the file: %v", off, verr)
			}
			continue
		}
		if err := sameAsWritten(o); err != nil {
			t.Fatalf("byte %d: Verify found nothing, but %v", off, err)
		}
	}
	t.Logf("%d of %d flips found; the others were in bytes that mean nothing", found, runs)
	if found == 0 {
		t.Error("no damage was found")
	}
}

func sameAsWritten(o segment.Options) error {
	ctx := context.Background()
	s, err := segment.Open(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	for p := range uint32(2) {
		l, err := s.OpenReader(ctx, store.LogID{Hub: 1, Partition: p})
		if err != nil {
			return err
		}
		got, err := storetest.Bodies(l, 0)
		if err != nil || len(got) != 60 {
			return fmt.Errorf("%d records, %w", len(got), err)
		}
		e, err := s.Meta().Get(ctx, fmt.Sprint("key", p))
		if err != nil || string(e.Value) != "value" {
			return fmt.Errorf("%q, %w", e.Value, err)
		}
	}
	return nil
}

// TestFullDisk fills the disk: appends are refused with an error that says so,
// reads go on, and appends are taken again when space returns.
func TestFullDisk(t *testing.T) {
	for name, reserve := range map[string]int64{"reserve": 200_000, "no reserve": -1} {
		t.Run(name, func(t *testing.T) {
			disk, kv := sim.NewDisk(), segment.NewMemoryKV()
			disk.Capacity = 2_000_000
			began, calls := time.Now(), atomic.Int64{}
			o := segment.Options{Disk: disk, KV: kv, JournalBytes: 100_000, CacheBytes: 1, SegmentBytes: 100_000, Reserve: reserve,
				Now: func() time.Time { return began.Add(time.Duration(calls.Add(1)) * time.Second) }}
			s, err := segment.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			id := store.LogID{Hub: 1}
			var stored []event.SequenceNumber
			var full error
			for range 10_000 {
				l, err := s.Open(t.Context(), id, store.LogConfig{})
				if err != nil {
					full = err
					break
				}
				b := storetest.Batch(1, strings.Repeat("z", 1000))
				if err := storetest.Append(l, b); err != nil {
					full = err
					break
				}
				stored = append(stored, b.First)
			}
			if full == nil || !errors.Is(full, store.ErrFull) && !errors.Is(full, store.ErrUnknown) && !errors.Is(full, sim.ErrNoSpace) {
				t.Fatalf("after %d events: %v", len(stored), full)
			}
			if reserve > 0 && !errors.Is(full, store.ErrFull) {
				t.Errorf("with a reserve an append got %v", full)
			}
			r, err := s.OpenReader(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			got, err := storetest.Bodies(r, 0)
			if err != nil || len(got) != len(stored) {
				t.Fatalf("while full: %d of %d events, %v", len(got), len(stored), err)
			}
			if b, err := r.Bounds(t.Context()); err != nil || b.Next != event.SequenceNumber(len(stored)) {
				t.Errorf("while full: %+v, %v", b, err)
			}
			var woken atomic.Bool
			r.Notify(event.SequenceNumber(len(stored)-1), func() { woken.Store(true) })
			if woken.Load() {
				t.Error("a reader at the end is woken at once: it would come again and again")
			}
			disk.SetCapacity(20_000_000)
			l, err := s.Open(t.Context(), id, store.LogConfig{})
			if err != nil {
				t.Fatalf("with space again: %v", err)
			}
			if err := storetest.Append(l, storetest.Batch(1, "again")); err != nil {
				t.Fatalf("with space again: %v", err)
			}
			if !woken.Load() {
				t.Error("a reader at the end has heard nothing of the append")
			}
			if more, err := storetest.Bodies(r, 0); errors.Is(full, store.ErrFull) && (err != nil || len(more) != len(stored)+1) ||
				!errors.Is(full, store.ErrFull) && !errors.Is(err, store.ErrUnknown) {
				t.Errorf("the reader that was there while the disk was full gets %d events, %v", len(more), err)
			}
			got, err = storetest.Bodies(l, 0)
			if err != nil || len(got) < len(stored)+1 || got[len(got)-1] != "again" {
				t.Fatalf("with space again: %d of %d events, %v", len(got), len(stored)+1, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
