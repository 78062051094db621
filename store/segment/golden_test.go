package segment_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
	"github.com/millrace/millrace/store/storetest"
)

// The data folder of format version 1, taken from a store that was killed: two
// partitions, some events in segments, some in the journal alone. Every later
// Millrace opens it. -write-golden makes it anew; a change of the format adds a
// file instead.
const golden = "testdata/format-1.tar.gz"

var writeGolden = flag.Bool("write-golden", false, "make "+golden+" anew")

const (
	goldenBatches = 24
	goldenTime    = 1_790_000_000_000 // Unix ms of the first batch; each is a second after the last
)

func goldenBody(p uint32, i int) string {
	return fmt.Sprintf("partition %d, batch %d %s", p, i, strings.Repeat(".", 11*i))
}

func goldenOptions(dir string) segment.Options {
	var ms atomic.Int64
	ms.Store(goldenTime)
	return segment.Options{Dir: dir, Reserve: -1, SegmentBytes: 2000, JournalBytes: 64 << 10, Now: func() time.Time {
		return time.UnixMilli(ms.Add(1000))
	}}
}

func TestGoldenFolder(t *testing.T) {
	if *writeGolden {
		makeGolden(t)
	}
	dir := t.TempDir()
	unpack(t, golden, dir)
	o := segment.Options{Dir: dir, Reserve: -1}
	r, err := segment.Verify(t.Context(), o, nil)
	if err != nil || len(r.Damage) > 0 || !r.Unclean || r.JournalRecords == 0 || r.Segments == 0 {
		t.Fatalf("before the first start: %+v, %v", r, err)
	}
	checkDrawings(t, dir)
	s, err := segment.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for p := range uint32(2) {
		l, err := s.Open(t.Context(), store.LogID{Hub: 7, Partition: p}, store.LogConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range goldenBatches {
			want = append(want, goldenBody(p, i), "second record")
		}
		got, err := storetest.Bodies(l, 0)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("partition %d has %d records, %v", p, len(got), err)
		}
		b := storetest.Batch(1, "one more")
		if err := storetest.Append(l, b); err != nil {
			t.Fatal(err)
		}
		if b.First != goldenBatches*6 {
			t.Errorf("partition %d goes on at %d", p, b.First)
		}
	}
	e, err := s.Meta().Get(t.Context(), "a key")
	if err != nil || string(e.Value) != "a value" {
		t.Errorf("meta has %q, %v", e.Value, err)
	}
}

// checkDrawings reads a segment as docs/FORMAT.md draws it, with none of the
// package's own code.
func checkDrawings(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "logs", "0000000000000007", "0", "*.seg"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	le, table := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	if string(b[:8]) != "MRSEG\x00\x00\x01" || le.Uint64(b[16:]) != 7 || le.Uint32(b[24:]) != 0 || le.Uint64(b[32:]) != 0 ||
		le.Uint32(b[60:]) != crc32.Checksum(b[:60], table) {
		t.Errorf("the segment's header is %x", b[:64])
	}
	f := b[64:]
	if string(f[:4]) != "MRF1" || le.Uint64(f[8:]) != 7 || le.Uint32(f[16:]) != 0 || le.Uint32(f[20:]) != 0 {
		t.Errorf("the first frame is %x", f[:32])
	}
	h, body := f[32:96], f[96:96+len(goldenBody(0, 0))]
	if le.Uint32(h) != crc32.Checksum(h[4:], table) || le.Uint32(h[4:]) != crc32.Checksum(body, table) ||
		int(le.Uint32(h[8:])) != len(body) || h[12] != 1 || event.Encoding(h[13]) != event.EncodingKafka || le.Uint16(h[14:]) != 2 ||
		le.Uint32(h[16:]) != 3 || le.Uint64(h[24:]) != 0 || le.Uint64(h[32:]) < goldenTime || string(body) != goldenBody(0, 0) {
		t.Errorf("the first record is %x %q", h, body)
	}
}

// makeGolden writes the folder of a store that is still open, as a kill would
// leave it.
func makeGolden(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	s, err := segment.Open(t.Context(), goldenOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Meta().Put(t.Context(), "a key", []byte("a value"), 0); err != nil {
		t.Fatal(err)
	}
	for i := range goldenBatches {
		for p := range uint32(2) {
			l, err := s.Open(t.Context(), store.LogID{Hub: 7, Partition: p}, store.LogConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if err := storetest.Append(l, storetest.Batch(3, goldenBody(p, i), "second record")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(golden)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	err = errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), z.Close(), out.Close())
	if err != nil {
		t.Fatal(err)
	}
}

func unpack(t testing.TB, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().Mode()&fs.ModeDir != 0 {
			err = os.MkdirAll(name, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
