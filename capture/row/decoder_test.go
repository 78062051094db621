package row_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

const enqueued = 1_795_600_000_123

// stored is a record of messages as the broker stores them.
func stored(t testing.TB, marks message.Marks, msgs ...[]byte) *event.Record {
	t.Helper()
	var b message.Builder
	for _, m := range msgs {
		var p message.Parsed
		if err := p.Parse(m); err != nil {
			t.Fatal(err)
		}
		b.Add(&p, marks, 1<<10)
	}
	batch := b.Batch()
	r := &batch.Records[0]
	r.First, r.Enqueued = 40, enqueued
	return r
}

func marshal(t testing.TB, m *goamqp.Message) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decode is the row of one message.
func decode(t testing.TB, msg []byte) *row.Row {
	t.Helper()
	var d row.Decoder
	for x, err := range d.Rows(stored(t, message.Marks{}, msg), 0) {
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	t.Fatal("no row")
	return nil
}

func long(n int64) row.Value     { return row.Value{Kind: row.Long, Long: n} }
func double(f float64) row.Value { return row.Value{Kind: row.Double, Double: f} }
func text(s string) row.Value    { return row.Value{Kind: row.String, Text: []byte(s)} }
func bin(s string) row.Value     { return row.Value{Kind: row.Bytes, Text: []byte(s)} }

// propertiesOf is a message with one application property, given encoded.
func propertiesOf(value []byte) []byte {
	b, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescAppProperties), 2)
	b = append(wire.AppendString(b, "p"), value...)
	wire.EndCompound(b, at)
	return wire.AppendBinary(wire.AppendDescriptor(b, wire.DescData), []byte("b"))
}

func list(items ...[]byte) []byte {
	b, at := wire.BeginList(nil, len(items))
	b = append(b, bytes.Join(items, nil)...)
	wire.EndCompound(b, at)
	return b
}

func mapOf(items ...[]byte) []byte {
	b, at := wire.BeginMap(nil, len(items))
	b = append(b, bytes.Join(items, nil)...)
	wire.EndCompound(b, at)
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// TestValues is the table of blob.md, section 4.1, on the wire's own encodings.
func TestValues(t *testing.T) {
	str, sym := wire.AppendString, wire.AppendSymbol
	deep := unhex("40")
	for range 40 {
		deep = list(deep)
	}
	for _, c := range []struct {
		name       string
		amqp       []byte
		want       row.Value
		incomplete bool
	}{
		{"null", unhex("40"), row.Value{}, false},
		{"true", unhex("41"), text("True"), false},
		{"false", unhex("42"), text("False"), false},
		{"boolean of a byte", unhex("56 01"), text("True"), false},
		{"ubyte", unhex("50 ff"), long(255), false},
		{"byte", unhex("51 ff"), long(-1), false},
		{"ushort", unhex("60 ffff"), long(65535), false},
		{"short", unhex("61 8000"), long(-32768), false},
		{"uint", unhex("70 ffffffff"), long(math.MaxUint32), false},
		{"uint 0", unhex("43"), long(0), false},
		{"small uint", unhex("52 07"), long(7), false},
		{"int", unhex("71 80000000"), long(math.MinInt32), false},
		{"small int", unhex("54 fe"), long(-2), false},
		{"ulong", unhex("80 7fffffffffffffff"), long(math.MaxInt64), false},
		{"ulong beyond a long", unhex("80 8000000000000000"), text("9223372036854775808"), false},
		{"ulong 0", unhex("44"), long(0), false},
		{"long", unhex("81 8000000000000000"), long(math.MinInt64), false},
		{"float", unhex("72 3fc00000"), double(1.5), false},
		{"double", unhex("82 3ff8000000000000"), double(1.5), false},
		{"infinite double", unhex("82 fff0000000000000"), double(math.Inf(-1)), false},
		{"timestamp", wire.AppendTimestamp(nil, -1), long(-1), false},
		{"char", unhex("73 0001f600"), text("😀"), false},
		{"char that is none", unhex("73 00110000"), text("\ufffd"), false},
		{"uuid", unhex("98 00112233445566778899aabbccddeeff"), text("00112233-4455-6677-8899-aabbccddeeff"), false},
		{"binary", wire.AppendBinary(nil, []byte{0, 0xFF}), bin("\x00\xFF"), false},
		{"empty binary", wire.AppendBinary(nil, nil), bin(""), false},
		{"string", str(nil, "é"), text("é"), false},
		{"empty string", str(nil, ""), text(""), false},
		{"string that is not UTF-8", str(nil, "a\xff\xfeb"), text("a\ufffd\ufffdb"), false},
		{"symbol", sym(nil, "s"), text("s"), false},
		{"decimal32", binary.BigEndian.AppendUint32([]byte{wire.CodeDecimal32}, (101-2)<<23|15), text("0.15"), false},
		{"a uri as .NET sends it", append(append([]byte{0}, sym(nil, "com.microsoft:uri")...), str(nil, "http://a/")...), text("http://a/"), false},
		{"a time span as .NET sends it", append(append([]byte{0}, sym(nil, "com.microsoft:timespan")...), wire.AppendLong(nil, 9)...), long(9), false},
		{"empty list", unhex("45"), text("[]"), false},
		{"list", list(wire.AppendLong(nil, 1), str(nil, "a\"\\\n\x01\x7f"), unhex("41"), unhex("40"), unhex("82 7ff8000000000001"),
			wire.AppendBinary(nil, []byte("x")), unhex("98 00112233445566778899aabbccddeeff"), unhex("73 00000022"), wire.AppendTimestamp(nil, 5),
			unhex("80 ffffffffffffffff"), unhex("72 7f800000"), unhex("00 53 05 54 07")),
			text(`[1,"a\"\\\n\u0001` + "\x7f" + `",true,null,"NaN","eA==","00112233-4455-6677-8899-aabbccddeeff","\"",5,18446744073709551615,"Infinity",7]`), false},
		{"map", mapOf(str(nil, "k"), list(unhex("54 05")), wire.AppendLong(nil, 3), mapOf(), unhex("41"), unhex("42"), sym(nil, "s"), str(nil, "\xff")),
			text(`{"k":[5],"3":{},"true":false,"s":"` + "\ufffd" + `"}`), false},
		{"map with a list as key", mapOf(list(), unhex("41")), text(`{"null":true}`), true},
		{"array of ints", unhex("e0 0a 02 71 00000001 fffffffe"), text("[1,-2]"), false},
		{"array of symbols", wire.AppendSymbols(nil, "a", "b"), text(`["a","b"]`), false},
		{"array of lists", unhex("f0 0000000b 00000002 c0 01 00 03 01 54 09"), text("[[],[9]]"), false},
		{"array that ends early", unhex("e0 06 02 71 00000001"), text("[1,null]"), true},
		{"array without an end", unhex("f0 00000005 ffffffff 40"), text("[null]"), true},
		{"list that ends early", unhex("c0 03 02 54 01"), text("[1,null]"), true},
		{"nested too deeply", deep, text(strings.Repeat("[", 32) + "null" + strings.Repeat("]", 32)), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := decode(t, propertiesOf(c.amqp))
			if len(x.Properties) != 1 || string(x.Properties[0].Name) != "p" {
				t.Fatalf("%+v", x.Properties)
			}
			if d := cmp.Diff(c.want, x.Properties[0].Value); d != "" {
				t.Error(d)
			}
			if x.Incomplete != c.incomplete {
				t.Errorf("incomplete: %v", x.Incomplete)
			}
			if v := x.Properties[0].Value; !json.Valid(v.AppendJSON(nil)) {
				t.Errorf("no JSON: %s", v.AppendJSON(nil))
			}
		})
	}
}

// TestDecimals writes decimals of each width by the standard's formulas.
func TestDecimals(t *testing.T) {
	d32 := func(sign, exponent, coefficient uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{wire.CodeDecimal32}, sign<<31|(exponent+101)<<23|coefficient)
	}
	d64 := func(sign, exponent, coefficient uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte{wire.CodeDecimal64}, sign<<63|(exponent+398)<<53|coefficient)
	}
	d128 := func(sign, exponent, hi, lo uint64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{wire.CodeDecimal128}, sign<<63|(exponent+6176)<<49|hi), lo)
	}
	minus := func(n int) uint64 { return uint64(-n) }
	for _, c := range []struct {
		amqp []byte
		want string
	}{
		{d32(0, 0, 0), "0"},
		{d32(1, 0, 0), "-0"},
		{d32(0, uint32(minus(2)), 150), "1.50"},
		{d32(1, uint32(minus(3)), 1), "-0.001"},
		{d32(0, uint32(minus(7)), 1), "1E-7"},
		{d32(0, uint32(minus(6)), 1), "0.000001"},
		{d32(0, 9, 15), "1.5E+10"},
		{d32(0, 1, 1), "1E+1"},
		{unhex("74 78000000"), "Infinity"},
		{unhex("74 f8000000"), "-Infinity"},
		{unhex("74 7c000000"), "NaN"},
		{unhex("74 6cb8967f"), "9999999"}, // the long form: 100 and 21 bits, exponent 0
		{unhex("74 6cbfffff"), "0"},       // more than seven digits
		{d64(0, minus(15), 1<<53-1), "9.007199254740991"},
		{unhex("84 6c7386f26fc0ffff"), "9999999999999999"},
		{d128(0, minus(2), 0, 150), "1.50"},
		{d128(1, 0, 0x1ed09bead87c0, 0x378d8e63ffffffff), "-" + strings.Repeat("9", 34)},
		{d128(0, 0, 0x1ed09bead87c0, 0x378d8e6400000000), "0"}, // 35 digits
		{d128(0, minus(30), 5, 0), "9.2233720368547758080E-11"},
		{d128(0, 0, 0, 10_000_000_000_000_000_000), "10000000000000000000"},
		{unhex("94 6c000000000000000000000000000001"), "0E-32"},
	} {
		v := decode(t, propertiesOf(c.amqp)).Properties[0].Value
		if v.Kind != row.String || string(v.Text) != c.want {
			t.Errorf("% x is %q, not %q", c.amqp, v.Text, c.want)
		}
	}
}

// TestColumns reads a message as an SDK sends it, with all that it can have.
func TestColumns(t *testing.T) {
	at := time.UnixMilli(1_500_000_000_500)
	msg := marshal(t, &goamqp.Message{
		Header:              &goamqp.MessageHeader{Durable: true},
		DeliveryAnnotations: goamqp.Annotations{"x-opt-delivery": "no"},
		Annotations: goamqp.Annotations{
			"x-opt-partition-key": "key", "x-opt-sequence-number": int64(1), "mine": int32(2), "nothing": nil, "content-type": "by the annotation",
		},
		Properties: &goamqp.MessageProperties{
			MessageID: goamqp.UUID{1}, UserID: []byte("user"), To: new("to"), Subject: new("s"), ReplyTo: new("r"), CorrelationID: uint64(7),
			ContentType: new("text/plain"), ContentEncoding: new("gzip"), AbsoluteExpiryTime: &at, CreationTime: &at,
			GroupID: new("g"), GroupSequence: new(uint32(9)), ReplyToGroupID: new("rg"),
		},
		ApplicationProperties: map[string]any{"b": int32(1), "a": "x", "c": nil, "": true},
		Data:                  [][]byte{[]byte("bo"), {}, []byte("d"), []byte("y")},
		Footer:                goamqp.Annotations{"f": "g"},
	})
	var d row.Decoder
	r := stored(t, message.Marks{Publisher: []byte("pub")}, msg, marshal(t, &goamqp.Message{Data: [][]byte{[]byte("two")}}))
	n := 0
	for x, err := range d.Rows(r, 0) {
		if err != nil {
			t.Fatal(err)
		}
		want := row.Row{
			Sequence: 40, Offset: []byte("40"), Enqueued: enqueued, Body: []byte("body"),
			System: []row.Property{
				{Name: []byte("absolute-expiry-time"), Value: long(at.UnixMilli())},
				{Name: []byte("content-encoding"), Value: text("gzip")},
				{Name: []byte("content-type"), Value: text("text/plain")},
				{Name: []byte("correlation-id"), Value: long(7)},
				{Name: []byte("creation-time"), Value: long(at.UnixMilli())},
				{Name: []byte("group-id"), Value: text("g")},
				{Name: []byte("group-sequence"), Value: long(9)},
				{Name: []byte("message-id"), Value: text("01000000-0000-0000-0000-000000000000")},
				{Name: []byte("mine"), Value: long(2)},
				{Name: []byte("reply-to"), Value: text("r")},
				{Name: []byte("reply-to-group-id"), Value: text("rg")},
				{Name: []byte("subject"), Value: text("s")},
				{Name: []byte("to"), Value: text("to")},
				{Name: []byte("user-id"), Value: bin("user")},
				{Name: []byte("x-opt-partition-key"), Value: text("key")},
				{Name: []byte("x-opt-publisher"), Value: text("pub")},
			},
			Properties: []row.Property{
				{Name: []byte(""), Value: text("True")}, {Name: []byte("a"), Value: text("x")},
				{Name: []byte("b"), Value: long(1)}, {Name: []byte("c"), Value: row.Value{}},
			},
		}
		if key, ok := x.PartitionKey(); n == 0 && (!ok || string(key) != "key") {
			t.Errorf("partition key %q, %v", key, ok)
		}
		if n == 1 {
			want = row.Row{Sequence: 41, Offset: []byte("41"), Enqueued: enqueued, Body: []byte("two"), Properties: []row.Property{},
				System: []row.Property{{Name: []byte("x-opt-publisher"), Value: text("pub")}}}
		}
		if diff := cmp.Diff(want, *x); diff != "" {
			t.Errorf("event %d: %s", n, diff)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d events", n)
	}
}

func TestBodies(t *testing.T) {
	section := func(code byte, v []byte) []byte { return append(wire.AppendDescriptor(nil, code), v...) }
	data := func(s string) []byte { return section(wire.DescData, wire.AppendBinary(nil, []byte(s))) }
	one, two := list(wire.AppendLong(nil, 1)), list(wire.AppendString(nil, "x"))
	for _, c := range []struct {
		name string
		msg  []byte
		want []byte
	}{
		{"none", section(wire.DescProperties, []byte{wire.CodeList0}), nil},
		{"empty data", data(""), []byte{}},
		{"data", data("x"), []byte("x")},
		{"data, empty and not", bytes.Join([][]byte{data(""), data("x"), data("")}, nil), []byte("x")},
		{"a string", section(wire.DescValue, wire.AppendString(nil, "é")), []byte("é")},
		{"an empty string", section(wire.DescValue, wire.AppendString(nil, "")), []byte{}},
		{"null", section(wire.DescValue, wire.AppendNull(nil)), nil},
		{"a number", section(wire.DescValue, wire.AppendLong(nil, 1)), wire.AppendLong(nil, 1)},
		{"binary as a value", section(wire.DescValue, wire.AppendBinary(nil, []byte("b"))), wire.AppendBinary(nil, []byte("b"))},
		{"a sequence", section(wire.DescSequence, one), one},
		{"sequences", append(section(wire.DescSequence, one), section(wire.DescSequence, two)...), append(slices.Clone(one), two...)},
		{"data by its symbol", append([]byte{0}, append(wire.AppendSymbol(nil, "amqp:data:binary"), wire.AppendBinary(nil, []byte("b"))...)...), []byte("b")},
	} {
		x := decode(t, c.msg)
		if !bytes.Equal(x.Body, c.want) || (x.Body == nil) != (c.want == nil) {
			t.Errorf("%s: %q, not %q", c.name, x.Body, c.want)
		}
	}
}

// TestRowsFrom starts in the middle of a record, and stops in it.
func TestRowsFrom(t *testing.T) {
	var msgs [][]byte
	for i := range 10 {
		msgs = append(msgs, marshal(t, &goamqp.Message{Data: [][]byte{fmt.Appendf(nil, "%d", i)}}))
	}
	r := stored(t, message.Marks{}, msgs...)
	var d row.Decoder
	for _, from := range []event.SequenceNumber{0, 40, 44, 49, 50, 1000} {
		want := max(from, 40)
		for x, err := range d.Rows(r, from) {
			if err != nil || x.Sequence != want || string(x.Body) != fmt.Sprint(want-40) {
				t.Fatalf("from %d: %+v, %v", from, x, err)
			}
			want++
		}
		if want != max(from, 50) {
			t.Errorf("from %d: up to %d", from, want)
		}
	}
	for x := range d.Rows(r, 43) {
		if x.Sequence == 45 {
			break
		}
	}
}

// TestRepeatedNames: AMQP forbids them, and a file's reader keeps one.
func TestRepeatedNames(t *testing.T) {
	s := wire.AppendString
	msg := append(wire.AppendDescriptor(nil, wire.DescAppProperties), mapOf(s(nil, "b"), s(nil, "1"), s(nil, "a"), s(nil, "2"), s(nil, "b"), s(nil, "3"))...)
	msg = append(append(msg, wire.AppendDescriptor(nil, wire.DescAppProperties)...), mapOf(s(nil, "a"), s(nil, "4"))...)
	x := decode(t, msg)
	want := []row.Property{{Name: []byte("a"), Value: text("4")}, {Name: []byte("b"), Value: text("3")}}
	if d := cmp.Diff(want, x.Properties); d != "" {
		t.Error(d)
	}
}

// TestWronglyEncodedProperties: what a producer got wrong does not stop a file.
func TestWronglyEncodedProperties(t *testing.T) {
	s := wire.AppendString
	good := append(s(nil, "a"), s(nil, "1")...)
	broken := append(slices.Clone(good), append(s(nil, "b"), 0xA1, 200)...) // a string that is cut
	app := append(wire.AppendDescriptor(nil, wire.DescAppProperties), wire.CodeMap8, byte(len(broken)+1), 4)
	msg := wire.AppendBinary(wire.AppendDescriptor(append(app, broken...), wire.DescData), []byte("body"))
	x := decode(t, msg)
	if !x.Incomplete || len(x.Properties) != 1 || string(x.Body) != "body" {
		t.Errorf("%+v", x)
	}
	props := append(wire.AppendDescriptor(nil, wire.DescProperties), wire.CodeList8, 5, 2, 0xA1, 1, 'm', 0xA1)
	x = decode(t, wire.AppendBinary(wire.AppendDescriptor(props, wire.DescData), []byte("body")))
	if !x.Incomplete || len(x.System) != 1 || string(x.Body) != "body" {
		t.Errorf("%+v", x)
	}
}

// TestManyProperties: more than anybody has are cut off, with those of the system
// on their own.
func TestManyProperties(t *testing.T) {
	var items, annotations [][]byte
	for i := range row.MaxProperties + 10 {
		items = append(items, wire.AppendString(nil, strconv.Itoa(i)), wire.AppendNull(nil))
		annotations = append(annotations, wire.AppendSymbol(nil, strconv.Itoa(i)), wire.AppendBool(nil, true))
	}
	msg := append(wire.AppendDescriptor(nil, wire.DescMessageAnn), mapOf(annotations...)...)
	msg = append(append(msg, wire.AppendDescriptor(nil, wire.DescAppProperties)...), mapOf(items...)...)
	x := decode(t, wire.AppendBinary(wire.AppendDescriptor(msg, wire.DescData), []byte("body")))
	if !x.Incomplete || len(x.Properties) != row.MaxProperties || len(x.System) != row.MaxProperties || string(x.Body) != "body" {
		t.Errorf("%v, %d and %d properties, %q", x.Incomplete, len(x.System), len(x.Properties), x.Body)
	}
}

func TestRecordsOfOtherKinds(t *testing.T) {
	var d row.Decoder
	for name, r := range map[string]*event.Record{
		"kafka":   {Header: event.Header{Encoding: event.EncodingKafka, Count: 1}},
		"cut":     {Header: event.Header{Encoding: event.EncodingAMQP, Count: 9}, Body: []byte("x")},
		"damaged": {Header: event.Header{Encoding: event.EncodingAMQP, Count: 1}, Body: []byte{1, 2, 3, 4}},
	} {
		var last error
		for x, err := range d.Rows(r, 0) {
			if last = err; err == nil {
				t.Errorf("%s: %+v", name, x)
			}
		}
		if last == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestAllocations: none for an event, whatever its properties.
func TestAllocations(t *testing.T) {
	msg := marshal(t, &goamqp.Message{
		Properties:            &goamqp.MessageProperties{MessageID: "id", ContentType: new("text/plain")},
		ApplicationProperties: map[string]any{"a": int32(1), "b": goamqp.UUID{}, "c": true, "d": 1.5, "e": "x", "f": time.Unix(1, 0)},
		Data:                  [][]byte{make([]byte, 512)},
	})
	r := stored(t, message.Marks{PartitionKey: []byte("k")}, msg, msg, msg, msg, msg, msg, msg, msg)
	var d row.Decoder
	if n := testing.AllocsPerRun(100, func() {
		for _, err := range d.Rows(r, 0) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}); n > 2 { // for the record
		t.Errorf("%v allocations for a record of eight events", n)
	}
}

// FuzzRows makes a row of whatever can be stored: never an error, text that is
// UTF-8, names that are sorted, and not much more than came.
func FuzzRows(f *testing.F) {
	f.Add(propertiesOf(list(unhex("41"), wire.AppendString(nil, "a\xff"))), []byte("k"))
	f.Add(propertiesOf(unhex("e0 0a 02 71 00000001 fffffffe")), []byte(nil))
	f.Add(propertiesOf(unhex("94 6c000000000000000000000000000001")), []byte(nil))
	f.Add(propertiesOf(mapOf(list(), unhex("41"))), []byte("\xff"))
	f.Add(marshal(f, &goamqp.Message{
		Annotations: goamqp.Annotations{"mine": "x"}, Properties: &goamqp.MessageProperties{MessageID: uint64(1), ContentType: new("c")},
		ApplicationProperties: map[string]any{"a": int32(1), "t": time.UnixMilli(1), "c": 1.5}, Data: [][]byte{[]byte("one"), []byte("two")},
	}), []byte("k"))
	f.Add(marshal(f, &goamqp.Message{Value: map[string]any{"a": int64(1)}}), []byte(nil))
	f.Fuzz(func(t *testing.T, msg, key []byte) {
		var p message.Parsed
		if p.Parse(msg) != nil || len(key) > 256 {
			return
		}
		if len(key) == 0 {
			key = nil
		}
		var d row.Decoder
		for x, err := range d.Rows(stored(t, message.Marks{PartitionKey: key}, msg), 0) {
			if err != nil {
				t.Fatal(err)
			}
			size := len(x.Body)
			for _, ps := range [][]row.Property{x.System, x.Properties} {
				for i := range ps {
					v := ps[i].Value
					size += len(ps[i].Name) + len(v.Text)
					if !utf8.Valid(ps[i].Name) || v.Kind == row.String && !utf8.Valid(v.Text) {
						t.Fatalf("%q: %q is not UTF-8", ps[i].Name, v.Text)
					}
					if i > 0 && bytes.Compare(ps[i-1].Name, ps[i].Name) >= 0 {
						t.Fatalf("%q comes before %q", ps[i-1].Name, ps[i].Name)
					}
					if !json.Valid(v.AppendJSON(nil)) {
						t.Fatalf("%s is no JSON", v.AppendJSON(nil))
					}
				}
			}
			for i := range x.System {
				if x.System[i].Value.Kind == row.Null {
					t.Fatalf("%q is null", x.System[i].Name)
				}
			}
			if size > 8*(len(msg)+len(key))+200 {
				t.Fatalf("%d bytes of %d", size, len(msg))
			}
		}
	})
}
