package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
	"github.com/millrace/millrace/store/storetest"
)

// folder is the golden data folder on a simulated disk: a store that was killed.
type folder struct {
	disk  *sim.Disk
	kv    *segment.MemoryKV
	files []string // of journal and logs
	whole [2][]string
}

func goldenFolder(f *testing.F) *folder {
	f.Helper()
	dir := f.TempDir()
	file, err := os.Open(golden)
	if err != nil {
		f.Fatal(err)
	}
	file.Close()
	unpack(f, golden, dir)
	x := &folder{disk: sim.NewDisk()}
	if x.kv, err = segment.LoadKV(filepath.Join(dir, "meta.db")); err != nil {
		f.Fatal(err)
	}
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(name, "/") {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		x.files = append(x.files, name)
		return errors.Join(x.disk.MkdirAll(path.Dir(name)), put(x.disk, name, b), x.disk.SyncDir(path.Dir(name)))
	})
	if err != nil {
		f.Fatal(err)
	}
	for p := range x.whole {
		for i := range goldenBatches {
			x.whole[p] = append(x.whole[p], goldenBody(uint32(p), i), "second record")
		}
	}
	return x
}

func put(d *sim.Disk, name string, b []byte) error {
	f, err := d.Open(name, true)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(0), f.WriteAt([][]byte{b}, 0), f.Sync())
}

func contentsOf(d *sim.Disk, name string) ([]byte, error) {
	f, err := d.Open(name, false)
	if err != nil {
		return nil, err
	}
	b := make([]byte, d.Files()[name])
	_, err = f.ReadAt(b, 0)
	return b, err
}

// FuzzFolder changes a file of a data folder: a patch somewhere, the rest cut off
// or not, with checksums that match or as it is. The store opens, or says why
// not; what it then gives of a partition is what was written, in order, from the
// first on; a partition whose files are whole is as it was; appends are taken
// unless damage is known; and after the next start all is as before it. Nothing
// is allocated by the lengths that the file announces.
func FuzzFolder(f *testing.F) {
	x := goldenFolder(f)
	number := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	for i, name := range x.files {
		at := uint32(64) // a segment's first frame
		if strings.HasPrefix(name, "journal/") {
			at = 4096
		}
		file := uint8(i)
		f.Add(file, uint32(0), []byte{}, false, false)
		f.Add(file, uint32(0), []byte{}, true, false)
		f.Add(file, at, []byte{0}, false, false)
		f.Add(file, at+8, []byte{0xff}, false, true)                     // hub
		f.Add(file, at+20, []byte{1}, false, true)                       // kind
		f.Add(file, at+24, number(1<<62), false, true)                   // durable offset
		f.Add(file, at+40, []byte{0xff, 0xff, 0xff, 0xff}, false, true)  // body length
		f.Add(file, at+40, []byte{0xf0, 0xff, 0xff, 0x00}, true, true)   // body length
		f.Add(file, at+44, []byte{2}, false, true)                       // version
		f.Add(file, at+46, []byte{0}, false, true)                       // flags
		f.Add(file, at+48, []byte{0xff, 0xff, 0xff, 0xff}, false, true)  // count
		f.Add(file, at+56, number(1<<63-1), false, true)                 // first number
		f.Add(file, at+72, number(1<<64-1), false, true)                 // epoch
		f.Add(file, at+96, bytes.Repeat([]byte{0xff}, 48), false, true)  // a round's list
		f.Add(file, at+96+8, number(1<<63), false, true)                 // its start
		f.Add(file, uint32(1<<16), []byte("beyond the end"), true, true) // longer than it was
	}
	f.Fuzz(func(t *testing.T, file uint8, off uint32, patch []byte, cut, repair bool) {
		if off > 1<<17 || len(patch) > 1<<16 {
			return
		}
		name := x.files[int(file)%len(x.files)]
		d := x.disk.Crash(rand.New(rand.NewPCG(1, 2)), nil) // everything is synced: an exact copy
		was, err := contentsOf(d, name)
		if err != nil {
			t.Fatal(err)
		}
		is := patched(was, int(off), patch, cut)
		if repair {
			salt := segment.SaltOf(path.Base(name))
			if strings.HasPrefix(name, "journal/") && len(was) >= 16 {
				salt = binary.LittleEndian.Uint64(was[8:])
			}
			segment.RepairFrames(is, salt, 64)
		}
		if err := put(d, name, is); err != nil {
			t.Fatal(err)
		}
		c := change{folder: x, name: name, same: bytes.Equal(is, was), checksums: repair}
		o := goldenOptions("")
		o.Disk, o.KV, o.JournalBytes, o.CacheBytes = d, x.kv.Clone(), 16<<10, 64<<10
		c.check(t, o, len(is))
	})
}

func patched(b []byte, off int, patch []byte, cut bool) []byte {
	if cut {
		b = b[:min(off, len(b))]
	}
	is := slices.Clone(b)
	if len(patch) == 0 {
		return is
	}
	if n := off + len(patch); n > len(is) {
		is = append(is, make([]byte, n-len(is))...)
	}
	copy(is[off:], patch)
	return is
}

// change is what was done to a folder.
type change struct {
	*folder
	name      string
	same      bool
	checksums bool // match: what is read may be what nobody wrote
}

// touches tells whether a partition may have lost something.
func (c *change) touches(p int) bool {
	return !c.same && (strings.HasPrefix(c.name, "journal/") || strings.HasPrefix(c.name, "logs/0000000000000007/"+string(rune('0'+p))+"/"))
}

func (c *change) check(t *testing.T, o segment.Options, size int) {
	var report segment.Report
	var s *segment.Store
	var err error
	used := segment.Allocated(func() {
		if report, err = segment.Verify(t.Context(), o, nil); err != nil {
			c.reason(t, err)
		}
		s, err = segment.Open(t.Context(), o)
	})
	if limit := uint64(32<<20 + 64*size); used > limit {
		t.Fatalf("%d bytes are allocated", used)
	}
	if c.same && (err != nil || len(report.Damage) > 0) {
		t.Fatalf("nothing was changed: %v, %v", report.Damage, err)
	}
	if err != nil {
		c.reason(t, err)
		return
	}
	got := c.read(t, s, true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = segment.Open(t.Context(), o); err != nil {
		t.Fatalf("the second start: %v", err)
	}
	again := c.read(t, s, false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for p := range got {
		if !slices.Equal(got[p], again[p]) {
			t.Fatalf("partition %d had %d records, and after the next start %d", p, len(got[p]), len(again[p]))
		}
	}
}

// reason fails the test unless the error is one that an operator can act on, of
// a file whose checksums match; others cost a partition, and not the start.
func (c *change) reason(t *testing.T, err error) {
	t.Helper()
	var corrupt *store.CorruptError
	if !c.checksums || !errors.As(err, &corrupt) && !errors.Is(err, event.ErrVersion) {
		t.Fatalf("%s: %v", c.name, err)
	}
}

// read returns what the partitions hold, and appends to each.
func (c *change) read(t *testing.T, s *segment.Store, more bool) (out [2][]string) {
	var corrupt *store.CorruptError
	for p := range out {
		l, err := s.Open(t.Context(), store.LogID{Hub: 7, Partition: uint32(p)}, store.LogConfig{})
		if err != nil {
			if !c.touches(p) {
				t.Fatalf("partition %d: %v", p, err)
			}
			c.reason(t, err)
			continue
		}
		bounds, err := l.Bounds(t.Context())
		if err != nil {
			t.Fatalf("partition %d: bounds: %v", p, err)
		}
		got, err := storetest.Bodies(l, bounds.First)
		var beyond *store.OutOfRangeError
		if c.checksums && errors.As(err, &beyond) { // a record that lies about its count
			err = &store.CorruptError{}
		}
		lost := len(got) < len(c.whole[p])
		switch n := min(len(got), len(c.whole[p])); {
		case err != nil && !errors.As(err, &corrupt) || !c.touches(p) && (err != nil || lost):
			t.Fatalf("partition %d has %d records, %v", p, len(got), err)
		case !c.checksums && more && (bounds.First != 0 || !slices.Equal(got[:n], c.whole[p][:n]) || len(got) > len(c.whole[p])):
			t.Fatalf("partition %d has, from %d on, what was not written", p, bounds.First)
		}
		// Readers elsewhere in the log: they end, whatever they find.
		for _, from := range []event.SequenceNumber{bounds.Next / 2, bounds.Next} {
			if k, err := l.Read(t.Context(), from, 100); err == nil {
				k.Close()
			}
		}
		if _, err := l.Seek(context.Background(), goldenTime+5000); err != nil && !c.touches(p) {
			t.Fatalf("partition %d: seek: %v", p, err)
		}
		if more {
			b := storetest.Batch(1, "one more")
			switch aerr := storetest.Append(l, b); {
			case aerr == nil && err == nil:
				got = append(got, "one more")
			case aerr != nil && (!errors.As(aerr, &corrupt) || !c.touches(p)):
				t.Fatalf("partition %d: append: %v", p, aerr)
			}
			b.Release()
		}
		out[p] = got
		l.Close()
	}
	return out
}
