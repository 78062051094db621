package avro_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"

	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/row"
)

// container is a file with any schema, codec and blocks.
func container(schema, codec string, blocks ...[]byte) []byte {
	str := func(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }
	b := append([]byte("Obj\x01"), 4)
	b = str(str(b, "avro.schema"), schema)
	b = str(str(b, "avro.codec"), codec)
	b = append(append(b, 0), make([]byte, avro.SyncSize)...)
	for _, x := range blocks {
		b = append(append(b, x...), make([]byte, avro.SyncSize)...)
	}
	return b
}

// block is a block's numbers and content.
func block(count int64, content string) []byte {
	return append(binary.AppendVarint(binary.AppendVarint(nil, count), int64(len(content))), content...)
}

// plain is an event of the service's schema: number 1, at a time, without
// properties and body.
const plain = "\x02\x021\x261/2/2026 3:04:05 AM\x00\x00\x00"

// TestOldSchema: until 2018 the service had no null among the values of Properties.
func TestOldSchema(t *testing.T) {
	old := strings.Replace(avro.Schema, `"bytes","null"]`, `"bytes"]`, 1)
	x := "\x00\x020\x2a11/16/2016 4:44:11 PM\x02\x1ex-opt-publisher\x04\x12buddy1234\x00\x00\x02\x04{}"
	got := read(t, container(old, "null", block(1, x)))
	want := []row.Row{{
		Offset: []byte("0"), Enqueued: 1479314651000, System: []row.Property{prop("x-opt-publisher", text("buddy1234"))},
		Properties: []row.Property{}, Body: []byte("{}"),
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestOtherSchemas: the same fields in another order, of like types, among others.
func TestOtherSchemas(t *testing.T) {
	const schema = `{"type":"record","name":"X","fields":[
		{"name":"extra","type":{"type":"map","values":["null","int"]}},
		{"name":"Body","type":"string"},
		{"name":"more","type":["null","boolean","float"]},
		{"name":"Properties","type":{"type":"map","values":["boolean","float",{"type":"string","avro.java.string":"String"}]}},
		{"name":"SystemProperties","type":{"type":"map","values":["null","int"]}},
		{"name":"EnqueuedTimeUtc","type":"string"},
		{"name":"Offset","type":"long"},
		{"name":"SequenceNumber","type":"int"}]}`
	var file bytes.Buffer
	w, err := goavro.NewOCFWriter(goavro.OCFConfig{W: &file, Schema: schema, CompressionName: "deflate"})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Append([]any{map[string]any{
		"extra": map[string]any{"a": goavro.Union("int", 1), "b": nil}, "Body": "text", "more": goavro.Union("float", 1.5),
		"Properties":       map[string]any{"p": goavro.Union("boolean", true)},
		"SystemProperties": map[string]any{"n": nil, "s": goavro.Union("int", -3)},
		"EnqueuedTimeUtc":  "1/2/2026 3:04:05\u202fAM", "Offset": 1 << 40, "SequenceNumber": 9,
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, file.Bytes())
	for i := range got {
		// goavro writes maps in any order.
		if len(got[i].System) != 1 {
			t.Errorf("%+v", got[i].System)
		}
	}
	want := []row.Row{{
		Sequence: 9, Offset: []byte("1099511627776"), Enqueued: 1767323045000, Body: []byte("text"),
		System: []row.Property{prop("s", long(-3))}, Properties: []row.Property{prop("p", text("True"))},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestMapsInBlocks: a map may come in several blocks, with their sizes.
func TestMapsInBlocks(t *testing.T) {
	x := "\x02\x021\x261/2/2026 3:04:05 AM" + "\x01\x08\x02a\x00\x02" + "\x02\x02b\x00\x04" + "\x00" + "\x00\x00"
	got := read(t, container(avro.Schema, "null", block(0, ""), block(1, x), block(0, ""), block(0, "")))
	want := []row.Property{prop("a", long(1)), prop("b", long(2))}
	if len(got) != 1 || !cmp.Equal(got[0].System, want) {
		t.Errorf("%+v", got)
	}
}

// TestDamagedFiles: each is refused, with the byte near which it is damaged.
func TestDamagedFiles(t *testing.T) {
	at := int64(avro.HeaderSize)
	huge := string(binary.AppendVarint(nil, 1<<40))
	schema := func(old, new string) string {
		s := strings.Replace(avro.Schema, old, new, 1)
		if s == avro.Schema {
			panic(old)
		}
		return s
	}
	for _, c := range []struct {
		name   string
		file   []byte
		offset int64
		want   string
	}{
		{"nothing", nil, 0, "it ends in the middle"},
		{"something else", []byte("PAR1 and so on"), 4, "it begins with 50 41 52 31"},
		{"a header cut", container(avro.Schema, "null")[:300], 300, "it ends in the middle"},
		{"no schema", append([]byte("Obj\x01\x00"), make([]byte, 16)...), 21, "schema is not that of a record"},
		{"a header of many entries", append([]byte("Obj\x01"), huge...), 10, "a header of 1099511627776 entries"},
		{"a long entry", append([]byte("Obj\x01\x02"), huge...), 11, "an entry of 1099511627776 bytes"},
		{"a negative entry", []byte("Obj\x01\x02\x01"), 6, "an entry of -1 bytes"},
		{"another codec", container(avro.Schema, "snappy"), 492, `its codec is "snappy"; captured files have null or deflate`},
		{"an enum", container(`{"type":"enum"}`, "null"), 66, `that of a "enum", not of a record`},
		{"a field less", container(schema(`{"name":"Offset","type":"string"},`, ""), "null"), 456, "has no field Offset: it was not captured"},
		{"a field twice", container(schema("EnqueuedTimeUtc", "Offset"), "null"), 481, `has the field "Offset" twice`},
		{"a field of a record", container(schema(`"EnqueuedTimeUtc","type":"string"`, `"EnqueuedTimeUtc","type":{"type":"record","fields":[]}`), "null"), 511, "is no simple one"},
		{"a field of another type", container(schema(`"EnqueuedTimeUtc","type":"string"`, `"EnqueuedTimeUtc","type":"long"`), "null"), 488, "EnqueuedTimeUtc has a type that captured files don't have"},
		{"a body that is a map", container(schema(`"type":["null","bytes"]`, `"type":{"type":"map","values":"long"}`), "null"), 504, "Body has a type that captured files don't have"},
		{"a union of none", container(schema(`"type":["null","bytes"]`, `"type":[]`), "null"), 476, "a union of 0 types"},
		{"a union in a union", container(schema(`"type":["null","bytes"]`, `"type":["null",["bytes"]]`), "null"), 492, "is no simple one"},
		{"an event more than there is", container(avro.Schema, "null", block(2, plain)), at + 2 + int64(len(plain)), "a block ends in the middle of an event"},
		{"an event less", container(avro.Schema, "null", block(1, plain+plain)), at + 2 + int64(len(plain)), "26 bytes more than its events"},
		{"more events than bytes", container(avro.Schema, "null", block(1<<40, plain)), at + 7, "a block of 1099511627776 events in 26 bytes"},
		{"fewer events than none", container(avro.Schema, "null", block(-1, plain)), at + 2, "a block of -1 events"},
		{"a block of fewer bytes than none", container(avro.Schema, "null", []byte{2, 1}), at + 2, "in -1 bytes"},
		{"a block without an end", container(avro.Schema, "null", append([]byte{2}, huge...)), at + 7 + 3, `field EnqueuedTimeUtc: "" is no time`},
		{"a wrong marker", append(container(avro.Schema, "null", block(1, plain))[:len(container(avro.Schema, "null", block(1, plain)))-1], 1), at + 2 + int64(len(plain)) + 16, "the sync marker"},
		{"a marker cut", container(avro.Schema, "null", block(1, plain))[:530], 530, "it ends in the middle"},
		{"a long text", container(avro.Schema, "null", block(1, "\x02"+huge)), at + 2 + 7, "of 1099511627776, where an event has 67108864 at most"},
		{"a text longer than its block", container(avro.Schema, "null", block(1, "\x02\x7e")), at + 4, "of 63, with 0 left in the block"},
		{"a text of less than nothing", container(avro.Schema, "null", block(1, "\x02\x01"+plain)), at + 4, "of -1"},
		{"a number that is too long", container(avro.Schema, "null", block(1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"+plain)), at + 12, "more than 64 bits"},
		{"a branch that is not there", container(avro.Schema, "null", block(1, plain[:len(plain)-1]+"\x04")), at + 2 + int64(len(plain)), "branch 2 of a union of 2"},
		{"a map with many entries", container(avro.Schema, "null", block(1, plain[:len(plain)-3]+huge)), at + 2 + int64(len(plain)) - 3 + 6, "a map of more than 1048576 entries"},
		{"no time", container(avro.Schema, "null", block(1, "\x02\x021\x26not the time it is.\x00\x00\x00")), at + 2 + 3 + 20, `"not the time it is." is no time of the form`},
		{"no deflated block", container(avro.Schema, "deflate", block(1, "\xff\xff\xff")), 493, "a compressed block is damaged"},
		{"a deflated block cut", container(avro.Schema, "deflate", block(1, "\x63")), 493, "ends in the middle"},
		{"a deflated block with more behind it", container(avro.Schema, "deflate", block(0, "\x03\x00\x00")), 493, "bytes more than its events"},
		{"events without content", container(avro.Schema, "deflate", []byte{2, 0}), 493, "a block of 1 events in 0 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := avro.NewReader(bytes.NewReader(c.file))
			for err == nil {
				_, err = r.Next()
			}
			var f *avro.FormatError
			if !errors.As(err, &f) || !strings.Contains(f.Detail, c.want) || f.Offset != c.offset {
				t.Errorf("%v", err)
			}
			if r != nil {
				if _, again := r.Next(); again != err {
					t.Errorf("then %v", again)
				}
			}
		})
	}
}

// TestTruncated: cut anywhere, a file is never taken for a whole one with fewer
// bytes, other than between blocks.
func TestTruncated(t *testing.T) {
	for _, codec := range codecs {
		file := write(t, avro.Options{Codec: codec}, samples()...)
		for n := range file {
			r, err := avro.NewReader(bytes.NewReader(file[:n]))
			for err == nil {
				_, err = r.Next()
			}
			var f *avro.FormatError
			whole := n == len(write(t, avro.Options{Codec: codec, HeaderOnly: true}))
			if errors.Is(err, io.EOF) != whole || !whole && !errors.As(err, &f) {
				t.Fatalf("%s, %d of %d bytes: %v", codec, n, len(file), err)
			}
		}
	}
}

func TestReaderOfABrokenDisk(t *testing.T) {
	broken := errors.New("disk on fire")
	file := write(t, avro.Options{}, samples()...)
	r, err := avro.NewReader(io.MultiReader(bytes.NewReader(file[:len(file)-20]), failingReader{broken}))
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), fmt.Sprint("at byte ", len(file)-20)) {
		t.Error(err)
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// allocated is how many bytes fn allocates, give or take what the runtime keeps
// for small objects.
func allocated(fn func()) uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	before := s[0].Value.Uint64()
	fn()
	metrics.Read(s)
	return s[0].Value.Uint64() - before
}

// memoryOf is how much may be allocated for a file of n bytes. What is compressed may
// grow a thousand times; of that, three bytes may be a property, which takes 96 and is
// moved as its list grows.
func memoryOf(n int) uint64 { return uint64(200_000*n + 8<<20) }

// TestMemory reads an event of many properties from a short file.
func TestMemory(t *testing.T) {
	const n = 1 << 17
	event := strings.TrimSuffix(plain, "\x00\x00\x00") + string(binary.AppendVarint(nil, n)) + strings.Repeat("\x00\x00\x00", n) + "\x00\x00\x00"
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = io.WriteString(w, event)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	file := container(avro.Schema, "deflate", block(1, b.String()))
	var got *row.Row
	size := allocated(func() {
		r, err := avro.NewReader(bytes.NewReader(file))
		if err == nil {
			got, err = r.Next()
		}
		if err != nil {
			t.Fatal(err)
		}
		got = new(clone(got))
	})
	if len(got.System) != n || size > memoryOf(len(file)) {
		t.Errorf("%d properties, %d bytes of memory for %d of file", len(got.System), size, len(file))
	}
}

// FuzzReader reads whatever comes as a file: events or an error that names a byte,
// in memory that the bytes are worth; and what it read, it reads again after it
// has been written.
func FuzzReader(f *testing.F) {
	for _, codec := range codecs {
		f.Add(write(f, avro.Options{Codec: codec}, samples()...))
		f.Add(write(f, avro.Options{Codec: codec}))
	}
	f.Add(container(avro.Schema, "null", block(0, ""), block(2, plain+plain)))
	f.Add(container(strings.Replace(avro.Schema, `"bytes","null"]`, `"bytes"]`, 1), "null", block(1, plain)))
	f.Fuzz(func(t *testing.T, file []byte) {
		var rows []row.Row
		var err error
		var read int64
		size := allocated(func() {
			var r *avro.Reader
			if r, err = avro.NewReader(bytes.NewReader(file)); err != nil {
				return
			}
			for n := 0; ; n++ {
				var x *row.Row
				if x, err = r.Next(); err != nil {
					read = r.Offset()
					return
				}
				if n < 100 {
					rows = append(rows, clone(x))
				}
			}
		})
		var format *avro.FormatError
		switch {
		case errors.Is(err, io.EOF):
			if read != int64(len(file)) {
				t.Fatalf("the end after %d of %d bytes", read, len(file))
			}
		case !errors.As(err, &format) || format.Offset < 0 || format.Offset > int64(len(file)):
			t.Fatalf("%v, of %d bytes", err, len(file))
		}
		if size > memoryOf(len(file)) {
			t.Fatalf("%d bytes of memory for %d of file", size, len(file))
		}
		for i := range rows {
			if rows[i].Enqueued%1000 != 0 {
				t.Fatalf("%d ms", rows[i].Enqueued)
			}
		}
		again := write(t, avro.Options{}, rows...)
		r, err := avro.NewReader(bytes.NewReader(again))
		if err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			x, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			same := clone(x)
			if rows[i].Offset == nil { // an empty one, of a union's null
				same.Offset = nil
			}
			if d := cmp.Diff(rows[i], same, cmp.Comparer(sameValue)); d != "" {
				t.Fatal(d)
			}
		}
	})
}

// sameValue compares values, also those that are no number.
func sameValue(a, b row.Value) bool {
	return a.Kind == b.Kind && bytes.Equal(a.AppendJSON(nil), b.AppendJSON(nil))
}
