package compat

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

// capturedEvent is an event as capture/main.py prints it.
type capturedEvent struct {
	Sequence   string              `json:"sequence"`
	Offset     string              `json:"offset"`
	Enqueued   string              `json:"enqueued"`
	Key        *string             `json:"key"`
	System     map[string][]string `json:"system"`
	Properties map[string][]string `json:"properties"`
	Body       []string            `json:"body"`
}

func str(s string) []string { return []string{"string", s} }

func raw(s string) []string {
	if len(s) > 1000 {
		return []string{"bytes of", fmt.Sprintf("%x", sha256.Sum256([]byte(s)))}
	}
	return []string{"bytes", base64.StdEncoding.EncodeToString([]byte(s))}
}

func num(n int64) []string { return []string{"long", strconv.FormatInt(n, 10)} }

func dbl(f float64) []string { return []string{"double", strconv.FormatFloat(f, 'x', -1, 64)} }

// captured is what a producer sends and what a reader of the file is to find.
type captured struct {
	msg    goamqp.Message
	system map[string][]string
	props  map[string][]string
	body   []string
}

// capturedEvents have each type of application property that the SDKs can send,
// and each kind of body.
func capturedEvents() []captured {
	at := time.UnixMilli(1_700_000_000_123)
	return []captured{
		{msg: goamqp.Message{Data: [][]byte{[]byte(`{"a": 1}`)}}, body: raw(`{"a": 1}`)},
		{
			msg: goamqp.Message{
				Annotations: goamqp.Annotations{"x-opt-partition-key": "clé", "mine": uint16(65535)},
				Properties: &goamqp.MessageProperties{
					MessageID: "id", UserID: []byte{0, 255}, CorrelationID: goamqp.UUID{1, 2, 3}, ContentType: new("application/json"),
					CreationTime: &at, GroupSequence: new(uint32(7)), Subject: new(""),
				},
				ApplicationProperties: map[string]any{
					"null": nil, "true": true, "false": false, "ubyte": uint8(255), "ushort": uint16(65535), "uint": uint32(math.MaxUint32),
					"ulong": uint64(math.MaxInt64), "ulong beyond": uint64(math.MaxUint64), "byte": int8(-128), "short": int16(-32768), "int": int32(math.MinInt32),
					"long": int64(math.MinInt64), "float": float32(1.5), "double": -0.1, "timestamp": at, "uuid": goamqp.UUID{0xAB},
					"binary": []byte("\x00\xff"), "string": "é\u0000\n", "symbol": goamqp.Symbol("s"), "": "", "infinite": math.Inf(1),
				},
				Data: [][]byte{{}},
			},
			system: map[string][]string{
				"x-opt-partition-key": str("clé"), "mine": num(65535), "message-id": str("id"), "user-id": raw("\x00\xff"),
				"correlation-id": str("01020300-0000-0000-0000-000000000000"), "content-type": str("application/json"),
				"creation-time": num(at.UnixMilli()), "group-sequence": num(7), "subject": str(""),
			},
			props: map[string][]string{
				"null": {"null"}, "true": str("True"), "false": str("False"), "ubyte": num(255), "ushort": num(65535), "uint": num(math.MaxUint32),
				"ulong": num(math.MaxInt64), "ulong beyond": str("18446744073709551615"), "byte": num(-128), "short": num(-32768), "int": num(math.MinInt32),
				"long": num(math.MinInt64), "float": dbl(1.5), "double": dbl(-0.1), "timestamp": num(at.UnixMilli()), "uuid": str("ab000000-0000-0000-0000-000000000000"),
				"binary": raw("\x00\xff"), "string": str("é\u0000\n"), "symbol": str("s"), "": str(""), "infinite": dbl(math.Inf(1)),
			},
			body: raw(""),
		},
		{msg: goamqp.Message{Data: [][]byte{[]byte("two "), []byte("sections")}}, body: raw("two sections")},
		{msg: goamqp.Message{Value: "a string"}, body: raw("a string")},
		{msg: goamqp.Message{Value: int64(5)}, body: raw("\x55\x05")},
		{msg: goamqp.Message{Sequence: [][]any{{int64(5)}}}, body: raw("\xd0\x00\x00\x00\x06\x00\x00\x00\x01\x55\x05")},
		{msg: goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: uint64(9)}}, system: map[string][]string{"message-id": num(9)}, body: []string{"null"}},
		{msg: goamqp.Message{Data: [][]byte{[]byte(strings.Repeat("large ", 50_000))}}, body: raw(strings.Repeat("large ", 50_000))},
		{msg: goamqp.Message{Data: [][]byte{[]byte("the end")}}, body: raw("the end")},
	}
}

const (
	captureFirst = 1 << 40
	captureTime  = 1_782_920_849_123 // 2026-07-01 15:47:29.123
)

// capturedText is a value as a Parquet file has it.
func capturedText(v []string) []string {
	switch v[0] {
	case "long":
		return str(v[1])
	case "bytes":
		return str(`"` + v[1] + `"`)
	case "double":
		f, _ := strconv.ParseFloat(v[1], 64)
		if math.IsInf(f, 1) {
			return str(`"Infinity"`)
		}
		return str(strconv.FormatFloat(f, 'g', -1, 64))
	}
	return v
}

// writeCaptured stores events as a broker does, and writes them to files: f is
// called with each row.
func writeCaptured(t *testing.T, events []captured, write func(*row.Row) error) {
	t.Helper()
	var b message.Builder
	for i := range events {
		msg, err := events[i].msg.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var p message.Parsed
		if err := p.Parse(msg); err != nil {
			t.Fatal(err)
		}
		b.Add(&p, message.Marks{}, 0)
	}
	batch := b.Batch()
	defer batch.Release()
	first := event.SequenceNumber(captureFirst)
	var d row.Decoder
	for i := range batch.Records {
		r := &batch.Records[i]
		r.First, r.Enqueued = first, captureTime
		for x, err := range d.Rows(r, 0) {
			if err == nil {
				err = write(x)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		first = r.Next()
	}
}

type captureWriter interface {
	Write(*row.Row) error
	Close() error
}

// TestCapturedFiles has the usual Python libraries read captured files, and
// compares what they find with what a producer sent.
func TestCapturedFiles(t *testing.T) {
	c := loadClient(t, "capture/client.json")
	c.install(t)
	dir := t.TempDir()
	sync := avro.Marker("ns", "hub", 0, captureFirst)
	deflate := avro.Options{Codec: avro.CodecDeflate, Sync: sync}
	readers := map[string][]string{".avro": {"avro", "fastavro", "sample"}, ".parquet": {"pyarrow", "duckdb"}}
	var cases []string
	wanted := map[string][]captured{}
	for _, f := range []struct {
		name   string
		events []captured
		writer func(io.Writer) captureWriter
		size   int64
	}{
		{"plain.avro", capturedEvents(), func(w io.Writer) captureWriter { return avro.NewWriter(w, avro.Options{Sync: sync}) }, 0},
		{"deflate.avro", capturedEvents(), func(w io.Writer) captureWriter { return avro.NewWriter(w, deflate) }, 0},
		{"empty.avro", nil, func(w io.Writer) captureWriter { return avro.NewWriter(w, avro.Options{Sync: sync}) }, 508},
		{"header.avro", nil, func(w io.Writer) captureWriter { return avro.NewWriter(w, avro.Options{Sync: sync, HeaderOnly: true}) }, 490},
		{"empty-deflate.avro", nil, func(w io.Writer) captureWriter { return avro.NewWriter(w, deflate) }, 0},
		{"all.parquet", capturedEvents(), func(w io.Writer) captureWriter { return parquet.NewWriter(w, parquet.Options{}) }, 0},
		{"groups.parquet", capturedEvents(), func(w io.Writer) captureWriter { return parquet.NewWriter(w, parquet.Options{RowGroup: 1}) }, 0},
		{"empty.parquet", nil, func(w io.Writer) captureWriter { return parquet.NewWriter(w, parquet.Options{}) }, 0},
	} {
		file, err := os.Create(filepath.Join(dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		w := f.writer(file)
		if f.events != nil {
			writeCaptured(t, f.events, w.Write)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		info, err := file.Stat()
		if err != nil || f.size != 0 && info.Size() != f.size {
			t.Errorf("%s has %d bytes, not %d, %v", f.name, info.Size(), f.size, err)
		}
		file.Close()
		for _, library := range readers[filepath.Ext(f.name)] {
			cases = append(cases, library+":"+f.name)
		}
		wanted[f.name] = f.events
	}
	got := c.run(t, []string{"MILLRACE_FILES=" + dir}, cases)
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			if !got[name].OK {
				t.Fatal(got[name].Detail)
			}
			var events []capturedEvent
			if err := json.Unmarshal([]byte(got[name].Detail), &events); err != nil {
				t.Fatal(err)
			}
			_, file, _ := strings.Cut(name, ":")
			compareCaptured(t, events, wanted[file], filepath.Ext(file) == ".parquet")
		})
	}
}

func compareCaptured(t *testing.T, got []capturedEvent, want []captured, typed bool) {
	if len(got) != len(want) {
		t.Fatalf("%d events, not %d", len(got), len(want))
	}
	for i := range want {
		number := fmt.Sprint(captureFirst + i)
		w := capturedEvent{
			Sequence: number, Offset: number, Enqueued: "7/1/2026 3:47:29 PM",
			System: map[string][]string{}, Properties: map[string][]string{}, Body: want[i].body,
		}
		as := func(v []string) []string { return v }
		if typed {
			w.Enqueued, as = strconv.Itoa(captureTime), capturedText
			if key, ok := want[i].system["x-opt-partition-key"]; ok {
				w.Key = &key[1]
			}
		}
		for k, v := range want[i].system {
			w.System[k] = as(v)
		}
		for k, v := range want[i].props {
			w.Properties[k] = as(v)
		}
		// Python and Go write the digits of a hexadecimal number differently.
		for _, m := range []map[string][]string{got[i].System, got[i].Properties} {
			for k, v := range m {
				if v[0] == "double" {
					f, err := strconv.ParseFloat(v[1], 64)
					if err != nil {
						t.Fatal(err)
					}
					m[k] = dbl(f)
				}
			}
		}
		if d := cmp.Diff(w, got[i]); d != "" {
			t.Errorf("event %d: %s", i, d)
		}
	}
}
