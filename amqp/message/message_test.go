package message_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

func marshal(t testing.TB, m *goamqp.Message) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// store normalises messages and returns the stored record.
func store(t testing.TB, key []byte, msgs ...[]byte) *event.Record {
	t.Helper()
	var b message.Builder
	var p message.Parsed
	for _, m := range msgs {
		if err := p.Parse(m); err != nil {
			t.Fatal(err)
		}
		b.Add(&p, message.Marks{PartitionKey: key}, len(m))
	}
	batch := b.Batch()
	if len(batch.Records) != 1 {
		t.Fatalf("%d records", len(batch.Records))
	}
	return &batch.Records[0]
}

func at(t testing.TB, r *event.Record, i int) message.Event {
	t.Helper()
	s, err := message.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.At(i)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// again is a stored event as a message that go-amqp reads.
func again(t testing.TB, e message.Event) *goamqp.Message {
	t.Helper()
	var b []byte
	if e.Items > 0 {
		b = wire.AppendDescriptor(b, wire.DescMessageAnn)
		b, _ = wire.BeginMap(b, e.Items)
		at := len(b)
		b = append(b, e.Annotations...)
		wire.EndCompound(b, at)
	}
	b = append(b, e.Sections...)
	var m goamqp.Message
	if err := m.UnmarshalBinary(b); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	return &m
}

func TestNormalise(t *testing.T) {
	ct := "text/plain"
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	msg := marshal(t, &goamqp.Message{
		Header: &goamqp.MessageHeader{Durable: true, Priority: 3},
		Annotations: goamqp.Annotations{
			"x-opt-partition-key": "k", "x-opt-sequence-number": int64(7), "x-opt-offset": "7", "x-opt-enqueued-time": now,
			"com.microsoft:producer-id": int64(1), "mine": "kept",
		},
		Properties:            &goamqp.MessageProperties{MessageID: "id", ContentType: &ct},
		ApplicationProperties: map[string]any{"a": int32(1), "b": uint8(2), "c": 1.5, "d": now, "e": true},
		Data:                  [][]byte{[]byte("one"), []byte("two")},
		Footer:                goamqp.Annotations{"f": "g"},
	})
	r := store(t, nil, msg)
	e := at(t, r, 0)
	m := again(t, e)
	if m.Header != nil {
		t.Error("the header is kept")
	}
	if len(m.Annotations) != 2 || m.Annotations["mine"] != "kept" || m.Annotations["x-opt-partition-key"] != "k" {
		t.Errorf("annotations %v", m.Annotations)
	}
	if !bytes.HasSuffix(msg, e.Sections) {
		t.Error("the other sections are not as they came")
	}
	for x, err := range (message.Codec{}).Events(r) {
		if err != nil || string(x.Body) != "onetwo" || x.PartitionKey != "k" {
			t.Errorf("%+v, %v", x, err)
		}
	}
}

func TestKeyOfTheBatch(t *testing.T) {
	bare := marshal(t, &goamqp.Message{Data: [][]byte{[]byte("x")}})
	keyed := marshal(t, &goamqp.Message{Annotations: goamqp.Annotations{"x-opt-partition-key": "own", "other": int32(5)}, Data: [][]byte{[]byte("y")}})
	noted := marshal(t, &goamqp.Message{Annotations: goamqp.Annotations{"other": int32(5)}, Data: [][]byte{[]byte("z")}})
	r := store(t, []byte("batch"), bare, keyed, noted)
	for i, want := range []string{"batch", "own", "batch"} {
		m := again(t, at(t, r, i))
		if m.Annotations["x-opt-partition-key"] != want {
			t.Errorf("event %d: %v", i, m.Annotations)
		}
		if i > 0 && m.Annotations["other"] != int32(5) {
			t.Errorf("event %d: %v", i, m.Annotations)
		}
	}
}

// TestSectionsInAnyOrder has pyamqp's order: delivery annotations and the header
// after the body, and a footer at the end.
func TestSectionsInAnyOrder(t *testing.T) {
	data := wire.AppendBinary(wire.AppendDescriptor(nil, wire.DescData), []byte("body"))
	header := append(wire.AppendDescriptor(nil, wire.DescHeader), wire.CodeList0)
	dann := append(wire.AppendDescriptor(nil, wire.DescDeliveryAnn), wire.CodeMap8, 1, 0)
	mann := append(wire.AppendDescriptor(nil, wire.DescMessageAnn), wire.CodeMap8, 1, 0)
	foot := append(wire.AppendDescriptor(nil, wire.DescFooter), wire.CodeMap8, 1, 0)
	props := append(wire.AppendDescriptor(nil, wire.DescProperties), wire.CodeList0)
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	e := at(t, store(t, nil, join(props, header, data, mann, dann, header, data, header, foot, header, data, header, data)), 0)
	if want := join(props, data, dann, data, foot, data, data); !bytes.Equal(e.Sections, want) || e.Items != 0 {
		t.Errorf("got  % x\nwant % x", e.Sections, want)
	}
}

func TestManyRecords(t *testing.T) {
	var b message.Builder
	var p message.Parsed
	var want []string
	for i := range 3000 {
		body := fmt.Sprintf("%d:%s", i, make([]byte, i%300))
		if i == 700 {
			body = string(make([]byte, 900_000))
		}
		want = append(want, body)
		m := marshal(t, &goamqp.Message{Data: [][]byte{[]byte(body)}})
		if err := p.Parse(m); err != nil {
			t.Fatal(err)
		}
		b.Add(&p, message.Marks{}, 1<<20)
	}
	batch := b.Batch()
	if batch.Count != len(want) {
		t.Fatalf("%d events", batch.Count)
	}
	n := 0
	for i := range batch.Records {
		r := &batch.Records[i]
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		if s, _ := batch.Slab(i); len(s.B) > event.SlabSize && r.Count > 1 {
			t.Errorf("record %d has %d events in %d bytes", i, r.Count, len(s.B))
		}
		for x, err := range (message.Codec{}).Events(r) {
			if err != nil || string(x.Body) != want[n] {
				t.Fatalf("event %d: %d bytes, %v", n, len(x.Body), err)
			}
			n++
		}
	}
	if n != len(want) || b.Batch() != nil {
		t.Errorf("%d events", n)
	}
}

// TestSmallStart: a builder that was told to expect little moves to larger slabs.
func TestSmallStart(t *testing.T) {
	var b message.Builder
	var p message.Parsed
	for i := range 500 {
		m := marshal(t, &goamqp.Message{Data: [][]byte{fmt.Appendf(nil, "%d", i)}, Annotations: goamqp.Annotations{"k": "v"}})
		if err := p.Parse(m); err != nil {
			t.Fatal(err)
		}
		b.Add(&p, message.Marks{}, len(m))
	}
	batch := b.Batch()
	if len(batch.Records) != 1 {
		t.Errorf("%d records", len(batch.Records))
	}
	i := 0
	for x, err := range (message.Codec{}).Events(&batch.Records[0]) {
		if err != nil || string(x.Body) != fmt.Sprint(i) {
			t.Fatalf("event %d: %q, %v", i, x.Body, err)
		}
		i++
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, m := range map[string][]byte{
		"unknown section":       {0, 0x53, 0x79, 0x40},
		"data that is a string": {0, 0x53, 0x75, 0xa1, 1, 'x'},
		"annotations as a list": {0, 0x53, 0x72, 0x45},
		"a key without a value": {0, 0x53, 0x72, 0xc1, 2, 1, 0x40},
		"cut":                   {0, 0x53, 0x75, 0xa0, 5, 'x'},
		"no descriptor":         {0x45},
	} {
		var p message.Parsed
		if err := p.Parse(m); !errors.Is(err, wire.ErrDecode) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var p message.Parsed
	if err := p.Parse(nil); !errors.Is(err, message.ErrEmpty) {
		t.Errorf("nothing: %v", err)
	}
}

// BenchmarkNormalise takes an event of an SDK's batch apart and stores it:
// nothing is allocated for each.
func BenchmarkNormalise(b *testing.B) {
	for _, size := range []int{100, 1024, 16384} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			msg := marshal(b, &goamqp.Message{Data: [][]byte{make([]byte, size)}})
			var bld message.Builder
			var p message.Parsed
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Parse(msg); err != nil {
					b.Fatal(err)
				}
				bld.Add(&p, message.Marks{}, event.SlabSize)
				if bld.Size() > event.SlabSize-20_000 {
					bld.Batch().Release()
				}
			}
		})
	}
}
