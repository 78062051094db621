package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/archive"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

// start is when the first window of all tests begins; they have a minute each.
var start = time.Date(2026, 3, 14, 15, 0, 0, 0, time.UTC)

// name is that of a window's file.
func name(hub string, partition, window int, suffix string) string {
	return fmt.Sprintf("ns/%s/%d/%s%s", hub, partition, start.Add(time.Duration(window)*time.Minute).Format("2006/01/02/15/04/05"), suffix)
}

// file is a captured file with the events of some numbers, each enqueued a second
// after the one before, from a window's start on.
func file(t *testing.T, suffix string, window int, numbers ...event.SequenceNumber) []byte {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		Write(*row.Row) error
		Close() error
	} = avro.NewWriter(&b, avro.Options{})
	if suffix == capture.SuffixParquet {
		w = parquet.NewWriter(&b, parquet.Options{})
	}
	for i, n := range numbers {
		at := start.Add(time.Duration(window)*time.Minute + time.Duration(i)*time.Second)
		r := row.Row{Sequence: n, Offset: []byte(strconv.FormatInt(int64(n), 10)), Enqueued: at.UnixMilli(), Body: fmt.Appendf(nil, "event %d", n)}
		if err := w.Write(&r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func numbers(first, last event.SequenceNumber) (n []event.SequenceNumber) {
	for ; first <= last; first++ {
		n = append(n, first)
	}
	return n
}

// memory is a destination that keeps metadata, as storage services do.
type memory struct {
	capture.Destination
	files  map[string][]byte
	meta   map[string]map[string]string
	opened []string
	// bare has lists without metadata, as S3's are.
	bare bool
	// fail is the error of reading on after what there is.
	fail error
}

func (m *memory) put(name string, b []byte, first, last, count int64) {
	if m.files == nil {
		m.files, m.meta = map[string][]byte{}, map[string]map[string]string{}
	}
	sum := crc64.Checksum(b, crc64.MakeTable(0x9a6c9329ac4bc9b5))
	m.files[name] = b
	m.meta[name] = map[string]string{
		"firstseq": fmt.Sprint(first), "lastseq": fmt.Sprint(last), "count": fmt.Sprint(count), "crc64": strconv.FormatUint(sum, 16),
	}
}

func (m *memory) List(_ context.Context, _, prefix string) iter.Seq2[capture.Object, error] {
	return func(yield func(capture.Object, error) bool) {
		for _, name := range slices.Sorted(maps.Keys(m.files)) {
			o := capture.Object{Name: name, Size: int64(len(m.files[name]))}
			if !m.bare {
				o.Metadata = m.meta[name]
			}
			if strings.HasPrefix(name, prefix) && !yield(o, nil) {
				return
			}
		}
	}
}

func (m *memory) Stat(_ context.Context, _, name string) (capture.Object, error) {
	b, ok := m.files[name]
	if !ok {
		return capture.Object{}, capture.ErrMissing
	}
	return capture.Object{Name: name, Size: int64(len(b)), Metadata: m.meta[name]}, nil
}

func (m *memory) Open(_ context.Context, _, name string) (io.ReadCloser, error) {
	m.opened = append(m.opened, name)
	b, ok := m.files[name]
	if !ok {
		return nil, capture.ErrMissing
	}
	var r io.Reader = bytes.NewReader(b)
	if m.fail != nil {
		r = io.MultiReader(r, failing{m.fail})
	}
	return io.NopCloser(r), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func list(t *testing.T, l *archive.Location, pattern string) ([]*archive.File, int) {
	t.Helper()
	format, err := capture.ParseNameFormat(pattern)
	if err != nil {
		t.Fatal(err)
	}
	files, others, err := l.List(t.Context(), format)
	if err != nil {
		t.Fatal(err)
	}
	return files, others
}

func inMemory(m *memory) *archive.Location {
	return &archive.Location{Destination: m, Container: "c", Text: "mem://c/"}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{name("orders", 10, 1, ".avro"), name("orders", 2, 1, ".parquet"), name("orders", 2, 0, ".avro"), name("orders2", 0, 0, ".avro"), "readme.txt", "ns/odd.avro"} {
		at := filepath.Join(dir, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, file(t, filepath.Ext(n), 0), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		root, within, pattern string
		want                  []string
		others                int
	}{
		{"", "", capture.DefaultNameFormat, []string{"orders/2 15:00:00", "orders/2 15:01:00", "orders/10 15:01:00", "orders2/0 15:00:00", "?"}, 1},
		{"", "ns/orders", capture.DefaultNameFormat, []string{"orders/2 15:00:00", "orders/2 15:01:00", "orders/10 15:01:00"}, 0},
		{"", "ns/orders/", capture.DefaultNameFormat, []string{"orders/2 15:00:00", "orders/2 15:01:00", "orders/10 15:01:00"}, 0},
		{"", "ns/order", capture.DefaultNameFormat, nil, 0},
		{"", name("orders", 10, 1, ".avro"), capture.DefaultNameFormat, []string{"orders/10 15:01:00"}, 0},
		{"ns/orders/2/2026/03", "", capture.DefaultNameFormat, []string{"orders/2 15:00:00", "orders/2 15:01:00"}, 0},
		{"ns/orders/2", "", "x/" + capture.DefaultNameFormat, []string{"?", "?"}, 0},
	} {
		root := filepath.Join(dir, filepath.FromSlash(c.root))
		d, err := folder.New(root)
		if err != nil {
			t.Fatal(err)
		}
		files, others := list(t, &archive.Location{Destination: d, Within: c.within, Above: filepath.ToSlash(root) + "/"}, c.pattern)
		var got []string
		for _, f := range files {
			text := "?"
			if f.Named {
				text = fmt.Sprintf("%s/%d %s", f.Of.EventHub, f.Of.Partition, f.Of.Start.Format(time.TimeOnly))
			}
			got = append(got, text)
		}
		if d := cmp.Diff(c.want, got); d != "" || others != c.others {
			t.Errorf("%+v: %d others\n%s", c, others, d)
		}
	}
}

func TestListAmbiguous(t *testing.T) {
	m := &memory{}
	m.put("nsa1a1b/2026/03/14/15/00/00.avro", nil, 0, -1, 0)
	format, err := capture.ParseNameFormat("{Namespace}a{EventHub}a{PartitionId}b/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}")
	if err != nil {
		t.Fatal(err)
	}
	m.put("xaaya7b/2026/03/14/15/00/00.avro", nil, 0, -1, 0)
	if _, _, err := inMemory(m).List(t.Context(), format); !errors.Is(err, capture.ErrAmbiguousName) {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		what  string
		files [][]event.SequenceNumber // of one partition, window after window
		want  []string
	}{
		{"in order", [][]event.SequenceNumber{{5, 6}, {}, {7}, {8, 9}}, nil},
		{"gap", [][]event.SequenceNumber{{0, 1}, {}, {4, 5}}, []string{"gap 2 3"}},
		{"hole", [][]event.SequenceNumber{{0, 1, 5}, {6}}, []string{"hole 0 5"}},
		{"overlap", [][]event.SequenceNumber{{0, 1, 2}, {2, 3}, {4}}, []string{"overlap 2 2"}},
		{"within", [][]event.SequenceNumber{{0, 1, 2, 3}, {1, 2}, {4}}, []string{"overlap 1 2"}},
		{"anew", [][]event.SequenceNumber{{8, 9}, {0, 1}}, []string{"overlap 0 1"}},
	} {
		m := &memory{}
		for i, n := range c.files {
			b := file(t, ".avro", i, n...)
			if len(n) == 0 {
				m.put(name("h", 0, i, ".avro"), b, 7, 6, 0)
				continue
			}
			m.put(name("h", 0, i, ".avro"), b, int64(n[0]), int64(n[len(n)-1]), int64(len(n)))
		}
		m.put(name("h", 1, 0, ".avro"), nil, 50, 60, 11) // another's numbers don't count
		for _, counted := range []bool{true, false} {
			files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
			for _, f := range files {
				if !f.Counted {
					t.Fatalf("%s: nothing is known of %s", c.what, f.Place())
				}
				if !counted && f.Of.Partition == 0 { // read instead
					f.Counted, f.Facts = false, archive.Facts{}
					if err := f.Count(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			var got []string
			for _, p := range archive.Check(files) {
				got = append(got, fmt.Sprintf("%s %d %d", p.Kind, p.First, p.Last))
				if text := p.String(); !strings.Contains(text, "ns/h partition 0: ") || !strings.Contains(text, p.Before.Place()) {
					t.Error(text)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s, counted %t: %s", c.what, counted, d)
			}
		}
	}
}

// TestCheckUncounted says nothing of what lies beyond a file that nobody has read.
func TestCheckUncounted(t *testing.T) {
	m := &memory{}
	for i, n := range []event.SequenceNumber{0, 1, 2} {
		m.put(name("h", 0, i, ".avro"), file(t, ".avro", i, n), int64(n), int64(n), 1)
	}
	delete(m.meta, name("h", 0, 1, ".avro"))
	files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
	if found := archive.Check(files); found != nil {
		t.Errorf("%v", &found[0])
	}
}

func TestDamage(t *testing.T) {
	for _, suffix := range []string{".avro", ".parquet"} {
		whole := file(t, suffix, 0, numbers(0, 99)...)
		flipped := bytes.Clone(whole)
		if suffix == ".avro" { // in a body, where the format does not show it
			flipped[bytes.Index(flipped, []byte("event 50"))] ^= 1
		} else {
			flipped[len(flipped)/3] ^= 1
		}
		for what, b := range map[string][]byte{"cut": whole[:len(whole)-30], "empty": {}, "flipped": flipped, "whole": whole} {
			m := &memory{}
			m.put(name("h", 0, 0, suffix), whole, 0, 99, 100)
			m.files[name("h", 0, 0, suffix)] = b
			files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
			err := files[0].Count(t.Context())
			var damage *archive.DamageError
			switch {
			case what == "whole" && err == nil && files[0].Events == 100:
			case what != "whole" && errors.As(err, &damage) && strings.HasPrefix(err.Error(), "mem://c/ns/h/0/"):
			default:
				t.Errorf("%s%s: %v", what, suffix, err)
			}
		}
	}
}

// TestLearn reads a file only if nothing is kept with it.
func TestLearn(t *testing.T) {
	m := &memory{bare: true}
	m.put(name("h", 0, 0, ".avro"), file(t, ".avro", 0, 3, 4), 3, 4, 2)
	m.put(name("h", 0, 1, ".avro"), file(t, ".avro", 1, 5), 5, 5, 1)
	delete(m.meta, name("h", 0, 1, ".avro"))
	files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
	for i, want := range []archive.Facts{{Events: 2, First: 3, Last: 4}, {Events: 1, First: 5, Last: 5}} {
		if f := files[i]; f.Counted {
			t.Errorf("the list tells of %s", f.Place())
		} else if err := f.Learn(t.Context()); err != nil || f.Facts != want || len(m.opened) != i {
			t.Errorf("%v, %+v, %q", err, f.Facts, m.opened)
		}
	}
	m.files[name("h", 0, 0, ".avro")] = file(t, ".avro", 0, 3, 5) // another's bytes
	files, _ = list(t, inMemory(m), capture.DefaultNameFormat)
	var damage *archive.DamageError
	if err := files[0].Count(t.Context()); !errors.As(err, &damage) {
		t.Error(err)
	}
}

// TestTruncatedAvro names the byte, after the events that could be read.
func TestTruncatedAvro(t *testing.T) {
	b := file(t, ".avro", 0, numbers(0, 9)...)
	m := &memory{files: map[string][]byte{"x.avro": b[:len(b)-avro.SyncSize-3]}}
	files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
	r, err := files[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := event.SequenceNumber(0); ; n++ {
		e, err := r.Next()
		if err != nil {
			if want := fmt.Sprintf("mem://c/x.avro: not a captured Avro file, at byte %d: it ends in the middle", len(b)-avro.SyncSize-3); n != 9 || err.Error() != want {
				t.Errorf("after %d events: %v", n, err)
			}
			return
		}
		if e.Sequence != n {
			t.Fatalf("event %d comes as %d", n, e.Sequence)
		}
	}
}

// TestLostConnection is no damage.
func TestLostConnection(t *testing.T) {
	lost := errors.New("the line is dead")
	for _, suffix := range []string{".avro", ".parquet"} {
		t.Setenv("TMPDIR", t.TempDir())
		b := file(t, suffix, 0, numbers(0, 99)...)
		m := &memory{files: map[string][]byte{"x" + suffix: b[:len(b)/2]}, fail: lost}
		files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
		err := files[0].Count(t.Context())
		var damage *archive.DamageError
		if !errors.Is(err, lost) || errors.As(err, &damage) || !strings.HasPrefix(err.Error(), "mem://c/x.") && suffix == ".avro" {
			t.Errorf("%s: %v", suffix, err)
		}
		if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
			t.Errorf("%s: %v is left", suffix, left)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	m := &memory{}
	for p := range 2 {
		for i := range 4 {
			suffix := []string{".avro", ".parquet"}[i%2]
			first := event.SequenceNumber(10 * i)
			m.put(name("h", p, i, suffix), file(t, suffix, i, numbers(first, first+9)...), int64(first), int64(first)+9, 10)
		}
	}
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for _, c := range []struct {
		what        string
		q           archive.Query
		first, last event.SequenceNumber
		opened      int // files of a partition
	}{
		{"all", archive.Query{}, 0, 39, 4},
		{"from", archive.Query{From: 15}, 15, 39, 3},
		{"since", archive.Query{Since: at(2*time.Minute + 3*time.Second)}, 23, 39, 2},
		{"since the start of a window", archive.Query{Since: at(2 * time.Minute)}, 20, 39, 3},
		{"until", archive.Query{Until: at(time.Minute + 5*time.Second)}, 0, 14, 2},
		{"both", archive.Query{Since: at(61 * time.Second), Until: at(2*time.Minute + time.Second)}, 11, 20, 2},
	} {
		m.opened = nil
		files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
		var got [2][]event.SequenceNumber
		for e, err := range archive.Events(t.Context(), files, c.q) {
			if err != nil {
				t.Fatal(err)
			}
			p := e.File.Of.Partition
			got[p] = append(got[p], e.Sequence)
			if want := fmt.Sprintf("event %d", e.Sequence); string(e.Body) != want {
				t.Fatalf("%s is %s", want, e.Body)
			}
		}
		for p := range got {
			if d := cmp.Diff(numbers(c.first, c.last), got[p]); d != "" {
				t.Errorf("%s, partition %d: %s", c.what, p, d)
			}
		}
		if len(m.opened) != 2*c.opened {
			t.Errorf("%s: %d files were opened: %q", c.what, len(m.opened), m.opened)
		}
	}
	if left, _ := os.ReadDir(os.TempDir()); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestEventsAfterDamage goes on with the next file, or not.
func TestEventsAfterDamage(t *testing.T) {
	m := &memory{}
	for i := range 3 {
		first := event.SequenceNumber(10 * i)
		m.put(name("h", 0, i, ".avro"), file(t, ".avro", i, numbers(first, first+9)...), int64(first), int64(first)+9, 10)
	}
	broken := name("h", 0, 1, ".avro")
	m.files[broken] = m.files[broken][:len(m.files[broken])-40]
	files, _ := list(t, inMemory(m), capture.DefaultNameFormat)
	for _, goOn := range []bool{true, false} {
		var got []event.SequenceNumber
		damaged := 0
		for e, err := range archive.Events(t.Context(), files, archive.Query{}) {
			var damage *archive.DamageError
			if errors.As(err, &damage) && damage.File.Name == broken {
				if damaged++; !goOn {
					break
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Sequence)
		}
		whole := slices.Contains(got, 29)
		if damaged != 1 || whole != goOn || !slices.Contains(got, 10) || slices.Contains(got, 19) {
			t.Errorf("going on: %t; %v, %d damaged", goOn, got, damaged)
		}
	}
	delete(m.files, broken) // after it was listed: no damage, and the end
	n := 0
	for _, err := range archive.Events(t.Context(), files, archive.Query{From: 10}) {
		if n++; !errors.Is(err, capture.ErrMissing) {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d events follow a file that can't be opened", n)
	}
}
