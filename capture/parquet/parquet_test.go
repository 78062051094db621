package parquet_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	lib "github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

func prop(name string, v row.Value) row.Property { return row.Property{Name: []byte(name), Value: v} }
func text(s string) row.Value                    { return row.Value{Kind: row.String, Text: []byte(s)} }

// write is a file of rows.
func write(t testing.TB, opts parquet.Options, rows ...row.Row) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewWriter(&b, opts)
	for i := range rows {
		if err := w.Write(&rows[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Size() != int64(b.Len()) || w.Events() != int64(len(rows)) {
		t.Fatalf("%d bytes and %d events, not %d and %d", w.Size(), w.Events(), b.Len(), len(rows))
	}
	return b.Bytes()
}

// clone keeps a row beyond the next.
func clone(r *row.Row) row.Row {
	c := *r
	c.Offset, c.Body = bytes.Clone(r.Offset), bytes.Clone(r.Body)
	props := func(ps []row.Property) []row.Property {
		out := []row.Property{}
		for _, p := range ps {
			p.Name, p.Value.Text = bytes.Clone(p.Name), bytes.Clone(p.Value.Text)
			out = append(out, p)
		}
		return out
	}
	c.System, c.Properties = props(r.System), props(r.Properties)
	return c
}

// texts is a row as a file gives it back: with values of text.
func texts(r row.Row) row.Row {
	c := clone(&r)
	for _, ps := range [][]row.Property{c.System, c.Properties} {
		for i := range ps {
			if v := ps[i].Value; v.Kind != row.String && v.Kind != row.Null {
				ps[i].Value = row.Value{Kind: row.String, Text: v.AppendJSON(nil)}
			}
		}
	}
	return c
}

var same = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) })

var sameProperty = cmp.Comparer(func(a, b row.Property) bool {
	return bytes.Equal(a.Name, b.Name) && a.Value.Kind == b.Value.Kind && bytes.Equal(a.Value.Text, b.Value.Text)
})

// check reads a file and compares.
func check(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, file []byte, want []row.Row) {
	t.Helper()
	r, err := parquet.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range want {
		x, err := r.Next()
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		w := texts(want[i])
		if w.Offset == nil {
			w.Offset = []byte{}
		}
		if d := cmp.Diff(w, clone(x), same, sameProperty); d != "" {
			t.Fatalf("event %d: %s", i, d)
		}
	}
	if x, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("then %+v, %v", x, err)
	}
}

func samples() []row.Row {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC).UnixMilli()
	return []row.Row{
		{Sequence: 0, Offset: []byte("0"), Enqueued: at, Body: []byte("body")},
		{
			Sequence: math.MaxInt64, Offset: []byte("9223372036854775807"), Enqueued: -1,
			System: []row.Property{
				prop("b", row.Value{Kind: row.Bytes, Text: []byte("\x00\xff")}), prop("l", row.Value{Kind: row.Long, Long: -7}),
				prop("x-opt-partition-key", text("é")),
			},
			Properties: []row.Property{
				prop("", text("")), prop("d", row.Value{Kind: row.Double, Double: 1.5}), prop("n", row.Value{}),
				prop("nan", row.Value{Kind: row.Double, Double: math.NaN()}), prop("s", text(`"quoted"`)),
			},
			Body: []byte{},
		},
		{Sequence: 7, Offset: []byte("7"), Enqueued: at, Properties: []row.Property{prop("only", row.Value{})}},
	}
}

func TestColumns(t *testing.T) {
	file := write(t, parquet.Options{}, samples()...)
	check(t, file, samples())
	f, err := lib.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `message EventData {
	required int64 SequenceNumber (INT(64,true));
	required binary Offset (STRING);
	required int64 EnqueuedTimeUtc (TIMESTAMP(isAdjustedToUTC=true,unit=MILLIS));
	optional binary PartitionKey (STRING);
	required group SystemProperties (MAP) {
		repeated group key_value {
			required binary key (STRING);
			required binary value (STRING);
		}
	}
	required group Properties (MAP) {
		repeated group key_value {
			required binary key (STRING);
			optional binary value (STRING);
		}
	}
	optional binary Body;
}`
	if got := f.Schema().String(); got != want {
		t.Error(got)
	}
	if got := f.Metadata().CreatedBy; got != "millrace version 1(build capture)" {
		t.Error(got)
	}
}

func TestNoEvents(t *testing.T) {
	check(t, write(t, parquet.Options{}), nil)
}

// noise is what can't be compressed.
func noise(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestRowGroups: they end by size, and a writer keeps little more than one, of
// events that can't be compressed.
func TestRowGroups(t *testing.T) {
	for _, c := range []struct{ limit, groups, most int }{{1 << 20, 16, 12 << 20}, {0, 2, 20 << 20}} {
		const size, events = 4096, 4000
		var file bytes.Buffer
		file.Grow(events * size * 2)
		w := parquet.NewWriter(&file, parquet.Options{RowGroup: c.limit})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		most := 0
		for i := range events {
			x := row.Row{Sequence: event.SequenceNumber(i), Offset: fmt.Append(nil, i), Body: noise(size, uint64(i))}
			if err := w.Write(&x); err != nil {
				t.Fatal(err)
			}
			if i%250 == 249 {
				runtime.GC()
				runtime.ReadMemStats(&after)
				most = max(most, int(after.HeapAlloc)-int(before.HeapAlloc))
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := lib.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("row groups of %d KiB: %d, and %d KiB kept at most", c.limit>>10, len(f.RowGroups()), most>>10)
		if n := len(f.RowGroups()); n != c.groups {
			t.Errorf("%d row groups, not %d", n, c.groups)
		}
		if most > c.most && !testing.Short() { // the race detector has memory of its own
			t.Errorf("%d bytes are kept", most)
		}
	}
}

// TestLargeEvents are larger than pages, and than a row group.
func TestLargeEvents(t *testing.T) {
	big := row.Row{Sequence: 1, Offset: []byte("1"), Body: noise(3<<20, 2)}
	many := row.Row{Sequence: 2, Offset: []byte("2"), Body: []byte("x")}
	for i := range 50_000 {
		many.Properties = append(many.Properties, prop(fmt.Sprintf("%06d", i), text(strings.Repeat("v", i%30))))
	}
	rows := []row.Row{samples()[0], big, samples()[1], many, big, samples()[2]}
	check(t, write(t, parquet.Options{RowGroup: 1 << 20}, rows...), rows)
	check(t, write(t, parquet.Options{RowGroup: math.MaxInt}, rows...), rows)
}

var values = rapid.Custom(func(t *rapid.T) row.Value {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return row.Value{Kind: row.Long, Long: rapid.Int64().Draw(t, "long")}
	case 1:
		return row.Value{Kind: row.Double, Double: rapid.Float64().Draw(t, "double")}
	case 2:
		return text(rapid.String().Draw(t, "text"))
	case 3:
		return row.Value{Kind: row.Bytes, Text: rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")}
	}
	return row.Value{}
})

func properties(t *rapid.T, name string, nulls bool) []row.Property {
	out := []row.Property{}
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"", "a", "b", "é", "x-opt-partition-key", "z"}), 0, 6, rapid.ID).Draw(t, name) {
		if v := values.Draw(t, k); nulls || v.Kind != row.Null {
			out = append(out, prop(k, v))
		}
	}
	slices.SortFunc(out, func(a, b row.Property) int { return bytes.Compare(a.Name, b.Name) })
	return out
}

// TestRoundTrip reads what was written, and finds it the same when it is written
// again.
func TestRoundTrip(t *testing.T) {
	rows := rapid.Custom(func(t *rapid.T) row.Row {
		r := row.Row{
			Sequence: event.SequenceNumber(rapid.Int64Min(0).Draw(t, "sequence")), Offset: []byte(rapid.String().Draw(t, "offset")),
			Enqueued: rapid.Int64().Draw(t, "enqueued"),
			System:   properties(t, "system", false), Properties: properties(t, "properties", true),
		}
		if size := rapid.IntRange(-1, 2000).Draw(t, "size"); size >= 0 {
			r.Body = bytes.Repeat([]byte{rapid.Byte().Draw(t, "body")}, size)
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		opts := parquet.Options{RowGroup: rapid.SampledFrom([]int{1, 100, 1000, 0}).Draw(t, "row group")}
		want := rapid.SliceOfN(rows, 0, 20).Draw(t, "rows")
		var files [2]bytes.Buffer
		for i := range files {
			w := parquet.NewWriter(&files[i], opts)
			for j := range want {
				c := clone(&want[j])
				if err := w.Write(&c); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(files[0].Bytes(), files[1].Bytes()) {
			t.Fatal("the file is another when it is written again")
		}
		check(t, files[0].Bytes(), want)
	})
}

// TestDeterminism writes enough for many pages, dictionaries that end, and pools
// that have been used.
func TestDeterminism(t *testing.T) {
	var rows []row.Row
	for i := range 30_000 {
		rows = append(rows, row.Row{
			Sequence: event.SequenceNumber(i), Offset: fmt.Append(nil, i), Body: noise(i%100, uint64(i)),
			System:     []row.Property{prop("x-opt-partition-key", text(fmt.Sprint("key-", i%20_000)))},
			Properties: []row.Property{prop(fmt.Sprint("name-", i), text("value")), prop("zz", row.Value{Kind: row.Long, Long: int64(i)})},
		})
	}
	first := write(t, parquet.Options{}, rows...)
	check(t, first, rows)
	for range 2 {
		if !bytes.Equal(first, write(t, parquet.Options{}, rows...)) {
			t.Fatal("the file is another when it is written again")
		}
	}
}

func TestWriterErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	w := parquet.NewWriter(failing{broken}, parquet.Options{RowGroup: 1})
	if err := w.Write(&row.Row{Body: noise(1<<20, 1)}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Error(err)
	}
	w = parquet.NewWriter(io.Discard, parquet.Options{})
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if w.Write(&row.Row{}) == nil || w.Close() == nil {
		t.Error("a closed file took an event")
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestOtherFiles(t *testing.T) {
	var other bytes.Buffer
	w := lib.NewGenericWriter[struct{ A int64 }](&other)
	w.Write([]struct{ A int64 }{{1}})
	w.Close()
	for name, file := range map[string][]byte{
		"nothing": nil, "few bytes": []byte("PAR1PAR1"), "an Avro file": []byte("Obj\x01 and so on and on"),
		"a long footer": []byte("PAR1\x00\x00\xff\xff\xff\x7fPAR1"), "no footer": []byte("PAR1\xff\x01\x00\x00\x00PAR1"), "other columns": other.Bytes(),
	} {
		_, err := parquet.NewReader(bytes.NewReader(file), int64(len(file)))
		if !errors.Is(err, parquet.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("disk on fire")
	if _, err := parquet.NewReader(failingAt{broken}, 1000); !errors.Is(err, broken) || errors.Is(err, parquet.ErrFormat) {
		t.Error(err)
	}
}

type failingAt struct{ err error }

func (f failingAt) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// everything reads a file to its end or an error, and returns the latter.
func everything(file []byte) error {
	r, err := parquet.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return err
	}
	defer r.Close()
	for err == nil {
		_, err = r.Next()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestDamage changes each byte of a file, and cuts it everywhere: that is read, or
// an error of ours.
func TestDamage(t *testing.T) {
	file := write(t, parquet.Options{}, samples()...)
	for i := range file {
		if err := everything(file[:i]); !errors.Is(err, parquet.ErrFormat) {
			t.Fatalf("%d of %d bytes: %v", i, len(file), err)
		}
		for _, flip := range []byte{1 << (i % 8), 0xFF} {
			x := bytes.Clone(file)
			x[i] ^= flip
			if err := everything(x); err != nil && !errors.Is(err, parquet.ErrFormat) {
				t.Fatalf("byte %d, 0x%02x flipped: %v", i, flip, err)
			}
		}
	}
}

// FuzzReader reads whatever comes as a file: events, or an error of ours.
func FuzzReader(f *testing.F) {
	f.Add(write(f, parquet.Options{}))
	f.Add(write(f, parquet.Options{}, samples()...))
	f.Add(write(f, parquet.Options{RowGroup: 1}, samples()...))
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := everything(file); err != nil && !errors.Is(err, parquet.ErrFormat) {
			t.Fatal(err)
		}
	})
}

// FuzzDamage changes bytes of a file that is otherwise whole: each three of changes
// are a place and what to put there.
func FuzzDamage(f *testing.F) {
	file := write(f, parquet.Options{RowGroup: 1}, samples()...)
	f.Add([]byte{4, 0, 1})
	f.Add([]byte{100, 0, 255, 200, 0, 255, 0, 1, 127})
	f.Fuzz(func(t *testing.T, changes []byte) {
		x := bytes.Clone(file)
		for ; len(changes) >= 3; changes = changes[3:] {
			x[(int(changes[0])|int(changes[1])<<8)%len(x)] = changes[2]
		}
		if err := everything(x); err != nil && !errors.Is(err, parquet.ErrFormat) {
			t.Fatal(err)
		}
	})
}
