package avro_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro/ocf"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

var codecs = []avro.Codec{avro.CodecNull, avro.CodecDeflate}

// write is a file of rows.
func write(t testing.TB, opts avro.Options, rows ...row.Row) []byte {
	t.Helper()
	var b bytes.Buffer
	w := avro.NewWriter(&b, opts)
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
		out := make([]row.Property, 0, len(ps))
		for _, p := range ps {
			p.Name, p.Value.Text = bytes.Clone(p.Name), bytes.Clone(p.Value.Text)
			out = append(out, p)
		}
		return out
	}
	c.System, c.Properties = props(r.System), props(r.Properties)
	return c
}

// read is what a file has.
func read(t testing.TB, file []byte) []row.Row {
	t.Helper()
	r, err := avro.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var rows []row.Row
	for {
		x, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, clone(x))
	}
}

func prop(name string, v row.Value) row.Property { return row.Property{Name: []byte(name), Value: v} }
func long(n int64) row.Value                     { return row.Value{Kind: row.Long, Long: n} }
func double(f float64) row.Value                 { return row.Value{Kind: row.Double, Double: f} }
func text(s string) row.Value                    { return row.Value{Kind: row.String, Text: []byte(s)} }
func bin(s string) row.Value                     { return row.Value{Kind: row.Bytes, Text: []byte(s)} }

// samples have every kind of value and body.
func samples() []row.Row {
	second := time.Date(2020, 6, 25, 15, 47, 29, 0, time.UTC).UnixMilli()
	return []row.Row{
		{Sequence: 0, Offset: []byte("0"), Enqueued: second, System: []row.Property{}, Properties: []row.Property{}, Body: []byte("body")},
		{
			Sequence: math.MaxInt64, Offset: []byte("9223372036854775807"), Enqueued: second,
			System:     []row.Property{prop("b", bin("\x00\xff")), prop("d", double(-1.5)), prop("l", long(math.MinInt64)), prop("x-opt-partition-key", text("é"))},
			Properties: []row.Property{prop("", text("")), prop("b", bin("")), prop("d", double(math.Inf(1))), prop("l", long(-1)), prop("n", row.Value{}), prop("s", text("x"))},
			Body:       []byte{},
		},
		{Sequence: 7, Offset: []byte("7"), Enqueued: second - 86_400_000, System: []row.Property{}, Properties: []row.Property{}},
	}
}

// TestLengths: the vendor's samples know files without events by 508 bytes, so the
// lengths are a contract.
func TestLengths(t *testing.T) {
	sync := avro.Marker("ns", "hub", 1, 0)
	header := write(t, avro.Options{Sync: sync, HeaderOnly: true})
	empty := write(t, avro.Options{Sync: sync})
	got := [...]int{len(header), avro.HeaderSize, len(empty), avro.EmptySize}
	if want := [...]int{490, 490, 508, 508}; got != want {
		t.Errorf("%v bytes, not %v", got, want)
	}
	if want := slices.Concat(header, []byte{0, 0}, sync[:]); !bytes.Equal(empty, want) {
		t.Errorf("% x", empty[490:])
	}
	golden := slices.Concat([]byte("Obj\x01\x04\x14avro.codec\x08null\x16avro.schema\xec\x06"), []byte(avro.Schema), []byte{0}, sync[:])
	if !bytes.Equal(header, golden) {
		t.Errorf("% x\n% x", header, golden)
	}
	// The codec has three letters more, and the empty block is a compressed one:
	// Apache's Python library takes no other.
	deflated := write(t, avro.Options{Codec: avro.CodecDeflate, Sync: sync})
	if b := deflated[493:]; b[0] != 0 || b[1] == 0 || len(b) != 2+int(b[1]/2)+avro.SyncSize {
		t.Errorf("% x", b)
	}
	for _, file := range [][]byte{header, empty, write(t, avro.Options{Codec: avro.CodecDeflate})} {
		if rows := read(t, file); rows != nil {
			t.Errorf("%+v", rows)
		}
	}
}

// TestServiceBytes: the first event of a file of the service, of 2018 (public, in
// Microsoft's own samples for Data Lake Analytics), is what we make of it.
func TestServiceBytes(t *testing.T) {
	want := "\xda\x40\x0c353424\x2a12/7/2018 10:22:49 AM\x00" +
		"\x04\x08GUID\x04\x482f5f92bc-8cef-45fe-a59e-26a623b0bc53\x12RandomInt\x00\xec\x08\x00" + "\x02\x12Message 1"
	file := write(t, avro.Options{}, row.Row{
		Sequence: 4141, Offset: []byte("353424"), Enqueued: time.Date(2018, 12, 7, 10, 22, 49, 999_000_000, time.UTC).UnixMilli(),
		Properties: []row.Property{prop("GUID", text("2f5f92bc-8cef-45fe-a59e-26a623b0bc53")), prop("RandomInt", long(566))},
		Body:       []byte("Message 1"),
	})
	block := append(binary.AppendVarint([]byte{2}, int64(len(want))), want...)
	if got := file[avro.HeaderSize : len(file)-avro.SyncSize]; !bytes.Equal(got, block) {
		t.Errorf("%q\n%q", got, block)
	}
}

// TestTimes is M/d/yyyy h:mm:ss tt in the culture en-US, in UTC.
func TestTimes(t *testing.T) {
	for want, at := range map[string]time.Time{
		"6/25/2020 3:47:29 PM":   time.Date(2020, 6, 25, 15, 47, 29, 0, time.UTC),
		"1/2/2026 12:00:00 AM":   time.Date(2026, 1, 2, 0, 0, 0, 1, time.UTC),
		"12/31/2026 12:59:59 PM": time.Date(2026, 12, 31, 12, 59, 59, 999_999_999, time.UTC),
		"12/31/1969 11:59:59 PM": time.UnixMilli(-1),
	} {
		file := write(t, avro.Options{}, row.Row{Enqueued: at.UnixMilli()})
		if !bytes.Contains(file, append([]byte{byte(2 * len(want))}, want...)) {
			t.Errorf("%s is not in %q", want, file[avro.HeaderSize:])
		}
		if got := read(t, file)[0].Enqueued; got != at.Truncate(time.Second).UnixMilli() && at.Unix() > 0 {
			t.Errorf("%s is read as %v", want, time.UnixMilli(got).UTC())
		}
	}
}

// TestBlocks: where blocks end is a matter of the events alone, and none is empty.
func TestBlocks(t *testing.T) {
	for _, codec := range codecs {
		var rows []row.Row
		for i, size := range []int{0, 1, avro.BlockSize - 1000, 5000, 200, avro.BlockSize, 10, 3 << 20, avro.BlockSize - 100, 20_000, 1} {
			rows = append(rows, row.Row{
				Sequence: event.SequenceNumber(i), Offset: fmt.Append(nil, i), Body: bytes.Repeat([]byte{byte(i)}, size),
				System: []row.Property{}, Properties: []row.Property{},
			})
		}
		file := write(t, avro.Options{Codec: codec, Sync: avro.Marker("n", "h", 0, 0)}, rows...)
		var counts []int64
		header := len(write(t, avro.Options{Codec: codec, HeaderOnly: true}))
		for b := file[header:]; len(b) > 0; {
			count, n := binary.Varint(b)
			size, m := binary.Varint(b[n:])
			counts = append(counts, count)
			b = b[n+m+int(size)+avro.SyncSize:]
		}
		if want := []int64{4, 2, 2, 2, 1}; !slices.Equal(counts, want) {
			t.Errorf("%s: blocks of %v events, not %v", codec, counts, want)
		}
		if d := cmp.Diff(rows, read(t, file), cmp.Comparer(bytes.Equal)); d != "" {
			t.Errorf("%s: %s", codec, d)
		}
	}
}

// kinds is a value as other libraries give it back.
func kinds(v row.Value) any {
	switch v.Kind {
	case row.Long:
		return v.Long
	case row.Double:
		return v.Double
	case row.String:
		return string(v.Text)
	case row.Bytes:
		return append([]byte{}, v.Text...)
	}
	return nil
}

func wanted(r *row.Row) map[string]any {
	props := func(ps []row.Property) map[string]any {
		m := map[string]any{}
		for _, p := range ps {
			m[string(p.Name)] = kinds(p.Value)
		}
		return m
	}
	var body any
	if r.Body != nil {
		body = append([]byte{}, r.Body...)
	}
	return map[string]any{
		"SequenceNumber": int64(r.Sequence), "Offset": string(r.Offset),
		"EnqueuedTimeUtc":  time.UnixMilli(r.Enqueued).UTC().Format("1/2/2006 3:04:05 PM"),
		"SystemProperties": props(r.System), "Properties": props(r.Properties), "Body": body,
	}
}

// unwrap takes goavro's unions off: a map of one key, the type's name.
func unwrap(v any) any {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for _, x := range m {
			return x
		}
	}
	return v
}

// TestGoavro has LinkedIn's library read a file. It refuses empty blocks, so files
// without events are not for it.
func TestGoavro(t *testing.T) {
	for _, codec := range codecs {
		rows := samples()
		r, err := goavro.NewOCFReader(bytes.NewReader(write(t, avro.Options{Codec: codec}, rows...)))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for r.Scan() {
			x, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			got := x.(map[string]any)
			got["Body"] = unwrap(got["Body"])
			for _, name := range []string{"SystemProperties", "Properties"} {
				for k, v := range got[name].(map[string]any) {
					got[name].(map[string]any)[k] = unwrap(v)
				}
			}
			if d := cmp.Diff(wanted(&rows[n]), got); d != "" {
				t.Errorf("%s, event %d: %s", codec, n, d)
			}
			n++
		}
		if r.Err() != nil || n != len(rows) {
			t.Errorf("%s: %d events, %v", codec, n, r.Err())
		}
	}
}

// TestTwmb has twmb/avro read files, those without events too.
func TestTwmb(t *testing.T) {
	type captured struct {
		SequenceNumber   int64          `avro:"SequenceNumber"`
		Offset           string         `avro:"Offset"`
		EnqueuedTimeUtc  string         `avro:"EnqueuedTimeUtc"`
		SystemProperties map[string]any `avro:"SystemProperties"`
		Properties       map[string]any `avro:"Properties"`
		Body             *[]byte        `avro:"Body"`
	}
	for _, codec := range codecs {
		for _, rows := range [][]row.Row{samples(), nil} {
			r, err := ocf.NewReader(bytes.NewReader(write(t, avro.Options{Codec: codec}, rows...)))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for {
				var x captured
				if err := r.Decode(&x); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				var body any
				if x.Body != nil {
					body = append([]byte{}, *x.Body...)
				}
				got := map[string]any{
					"SequenceNumber": x.SequenceNumber, "Offset": x.Offset, "EnqueuedTimeUtc": x.EnqueuedTimeUtc,
					"SystemProperties": x.SystemProperties, "Properties": x.Properties, "Body": body,
				}
				if d := cmp.Diff(wanted(&rows[n]), got); d != "" {
					t.Errorf("%s, event %d: %s", codec, n, d)
				}
				n++
			}
			if n != len(rows) {
				t.Errorf("%s: %d events of %d", codec, n, len(rows))
			}
		}
	}
}

// values, properties and rows are as a Decoder makes them.
var values = rapid.Custom(func(t *rapid.T) row.Value {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return long(rapid.Int64().Draw(t, "long"))
	case 1:
		return double(rapid.Float64().Draw(t, "double"))
	case 2:
		return text(rapid.String().Draw(t, "text"))
	case 3:
		return bin(string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
	}
	return row.Value{}
})

func properties(t *rapid.T, name string, nulls bool) []row.Property {
	out := []row.Property{}
	for _, k := range rapid.SliceOfNDistinct(rapid.String(), 0, 8, rapid.ID).Draw(t, name) {
		if v := values.Draw(t, k); nulls || v.Kind != row.Null {
			out = append(out, prop(k, v))
		}
	}
	slices.SortFunc(out, func(a, b row.Property) int { return bytes.Compare(a.Name, b.Name) })
	return out
}

var rows = rapid.Custom(func(t *rapid.T) row.Row {
	r := row.Row{
		Sequence: event.SequenceNumber(rapid.Int64Min(0).Draw(t, "sequence")),
		Offset:   []byte(rapid.String().Draw(t, "offset")),
		Enqueued: 1000 * rapid.Int64Range(-60_000_000_000, 250_000_000_000).Draw(t, "enqueued"),
		System:   properties(t, "system", false), Properties: properties(t, "properties", true),
	}
	if size := rapid.IntRange(-1, 40_000).Draw(t, "size"); size >= 0 {
		r.Body = bytes.Repeat([]byte{rapid.Byte().Draw(t, "body")}, size)
	}
	return r
})

// TestRoundTrip reads what was written, and finds it the same when it is written
// again, from other memory and in other pieces.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opts := avro.Options{
			Codec: rapid.SampledFrom(codecs).Draw(t, "codec"), HeaderOnly: rapid.Bool().Draw(t, "header only"),
			Sync: avro.Marker(rapid.String().Draw(t, "namespace"), rapid.String().Draw(t, "hub"), rapid.Uint32().Draw(t, "partition"), 1),
		}
		want := rapid.SliceOfN(rows, 0, 12).Draw(t, "rows")
		var file, again bytes.Buffer
		for _, b := range []*bytes.Buffer{&file, &again} {
			w := avro.NewWriter(b, opts)
			for i := range want {
				c := clone(&want[i])
				if err := w.Write(&c); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(file.Bytes(), again.Bytes()) {
			t.Fatal("the file is another when it is written again")
		}
		r, err := avro.NewReader(iotest{&file})
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			x, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want[i], clone(x)); d != "" {
				t.Fatal(d)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) || r.Offset() != int64(again.Len()) {
			t.Fatalf("%v after %d of %d bytes", err, r.Offset(), again.Len())
		}
	})
}

// iotest gives few bytes at once.
type iotest struct{ r io.Reader }

func (i iotest) Read(b []byte) (int, error) { return i.r.Read(b[:min(len(b), 1+len(b)/7)]) }

func TestMarker(t *testing.T) {
	seen := map[[16]byte]string{}
	for _, m := range []struct {
		namespace, hub string
		partition      uint32
		first          event.SequenceNumber
	}{{"a", "b", 0, 0}, {"a b", "", 0, 0}, {"", "a b", 0, 0}, {"a", "b", 1, 0}, {"a", "b", 0, 1}, {"a", "b", 10, 0}, {"a", "b", 1, 00}, {"b", "a", 0, 0}} {
		x := avro.Marker(m.namespace, m.hub, m.partition, m.first)
		if other, ok := seen[x]; ok && other != fmt.Sprint(m) {
			t.Errorf("%v has the marker of %s", m, other)
		}
		seen[x] = fmt.Sprint(m)
	}
	// It is part of what a file is, so it never changes.
	if got := fmt.Sprintf("%x", avro.Marker("ns", "hub", 3, 42)); got != "f8172ae256fc6f4613dd782dc9bb44c7" {
		t.Error(got)
	}
}

func TestWriterErrors(t *testing.T) {
	null := row.Row{Sequence: 5, System: []row.Property{prop("x", row.Value{})}}
	w := avro.NewWriter(io.Discard, avro.Options{})
	if err := w.Write(&null); err == nil || !strings.Contains(err.Error(), `event 5: the system property "x" is null`) {
		t.Error(err)
	}
	if err := avro.NewWriter(io.Discard, avro.Options{Codec: "snappy"}).Close(); err == nil || !strings.Contains(err.Error(), "snappy") {
		t.Error(err)
	}
	broken := errors.New("disk on fire")
	w = avro.NewWriter(failing{broken}, avro.Options{})
	if err := w.Write(&row.Row{Body: make([]byte, avro.BlockSize)}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Error(err)
	}
	w = avro.NewWriter(io.Discard, avro.Options{})
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Write(&row.Row{}); err == nil || w.Size() != avro.EmptySize {
		t.Error(err, w.Size())
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
