package message_test

import (
	"bytes"
	"errors"
	"runtime/metrics"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

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

// FuzzMessage stores whatever can be parsed, with the marks of a broker, and
// reads it back: the same sections and annotations, less those that are dropped,
// the partition key that it was routed by, and little more room than it came in.
func FuzzMessage(f *testing.F) {
	data := wire.AppendBinary(wire.AppendDescriptor(nil, wire.DescData), []byte("body"))
	annotations := func(pairs ...[]byte) []byte {
		b, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescMessageAnn), len(pairs))
		b = append(b, bytes.Join(pairs, nil)...)
		wire.EndCompound(b, at)
		return b
	}
	name := wire.AppendSymbol(nil, message.AnnotationPartitionKey)
	ct := "text/plain"
	for _, msg := range [][]byte{
		data,
		append(annotations(name, wire.AppendString(nil, "own")), data...),
		append(annotations(name, wire.AppendNull(nil)), data...),
		append(annotations(name, wire.AppendString(nil, "own"), name, wire.AppendNull(nil)), data...),
		bytes.Join([][]byte{annotations(name, wire.AppendString(nil, "first")), annotations(), data}, nil),
		append(annotations(wire.AppendUlong(nil, 1), wire.AppendUlong(nil, 2)), data...),
		append(annotations(name, wire.AppendInt(nil, 1)), data...),
		append(append(wire.AppendDescriptor(nil, wire.DescHeader), wire.CodeList0), data...),
		append([]byte{wire.CodeDescribed}, append(wire.AppendSymbol(nil, "amqp:data:binary"), wire.AppendBinary(nil, []byte("b"))...)...),
		marshal(f, &goamqp.Message{
			Header:                &goamqp.MessageHeader{Durable: true},
			Annotations:           goamqp.Annotations{"x-opt-partition-key": "k", "x-opt-publisher": "p", "x-opt-offset": "7", "mine": "kept"},
			Properties:            &goamqp.MessageProperties{MessageID: "id", ContentType: &ct},
			ApplicationProperties: map[string]any{"a": int32(1), "b": time.UnixMilli(1), "c": 1.5},
			Data:                  [][]byte{[]byte("one"), []byte("two"), []byte("three")},
			Footer:                goamqp.Annotations{"f": "g"},
		}),
		marshal(f, &goamqp.Message{Value: map[string]any{"a": int64(1)}, Properties: &goamqp.MessageProperties{MessageID: uint64(1)}}),
		{0, 0x53, 0x72, 0xc1, 2, 1, 0x40},
		{0, 0x53, 0x75, 0xb0, 0xff, 0xff, 0xff, 0xff},
	} {
		f.Add(msg, []byte("key"), []byte(nil))
		f.Add(msg, []byte(nil), []byte("pub"))
	}
	f.Fuzz(func(t *testing.T, msg, key, publisher []byte) {
		var p message.Parsed
		if err := p.Parse(msg); err != nil {
			if !errors.Is(err, wire.ErrDecode) && !errors.Is(err, message.ErrEmpty) {
				t.Fatalf("%v is no error of this package", err)
			}
			return
		}
		marks := message.Marks{PartitionKey: short(key), Publisher: short(publisher)}
		want, kept := sections(t, msg)
		var b message.Builder
		for range 2 {
			b.Add(&p, marks, len(msg))
		}
		room := 2 * (len(msg) + len(marks.PartitionKey) + len(marks.Publisher) + 100)
		if b.Count() != 2 || b.Size() > room {
			t.Fatalf("%d events in %d bytes, from 2 times %d", b.Count(), b.Size(), len(msg))
		}
		batch := b.Batch()
		defer batch.Release()
		routed := p.PartitionKey
		if routed == nil {
			routed = marks.PartitionKey
		}
		n := 0
		for i := range batch.Records {
			r := &batch.Records[i]
			if err := r.Check(); err != nil {
				t.Fatal(err)
			}
			for i := range r.Count {
				e := at(t, r, i)
				if !bytes.Equal(e.Sections, want) || !bytes.HasSuffix(e.Annotations, kept) {
					t.Fatalf("got  % x, annotations % x\nwant % x, annotations % x", e.Sections, e.Annotations, want, kept)
				}
				checkAnnotations(t, e, routed, marks.Publisher)
			}
			for x, err := range (message.Codec{}).Events(r) {
				if err != nil || x.PartitionKey != string(routed) || !bytes.Equal(x.Raw, want) || len(x.Body) > len(want) {
					t.Fatalf("routed by %q, stored as %+v, %v", routed, x, err)
				}
				n++
			}
		}
		if n != 2 {
			t.Fatalf("%d events of 2", n)
		}
	})
}

// short is a mark as the broker may set it: the hub bounds a partition key, and
// a publisher's name.
func short(b []byte) []byte {
	if len(b) == 0 || len(b) > 256 {
		return nil
	}
	return b
}

// sections is what of a message is kept, by another way than Parse's.
func sections(t *testing.T, msg []byte) (rest, annotations []byte) {
	for len(msg) > 0 {
		s, after, err := message.Next(msg)
		if err != nil {
			t.Fatal(err)
		}
		switch s.Code {
		case wire.DescHeader:
		case wire.DescMessageAnn:
			annotations = nil
			it, _ := s.Body.Map()
			for it.Len() > 0 {
				k, v := it.Next(), it.Next()
				switch name, _ := k.Text(); string(name) {
				case "x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time", "x-opt-sequence-number-epoch", "x-opt-publisher",
					"com.microsoft:producer-sequence-number", "com.microsoft:producer-id", "com.microsoft:producer-epoch":
				case "x-opt-partition-key":
					if !v.IsNull() {
						annotations = append(append(annotations, k.Full...), v.Full...)
					}
				default:
					annotations = append(append(annotations, k.Full...), v.Full...)
				}
			}
		default:
			rest = append(rest, s.Full...)
		}
		msg = after
	}
	return rest, annotations
}

// checkAnnotations reads a stored event's annotations to their end: as many as
// it says, with the partition key and the publisher that they should have.
func checkAnnotations(t *testing.T, e message.Event, key, publisher []byte) {
	var gotKey, gotPublisher []byte
	rest := e.Annotations
	for range e.Items / 2 {
		k, n, err := wire.Read(rest)
		if err != nil {
			t.Fatal(err)
		}
		v, m, err := wire.Read(rest[n:])
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n+m:]
		text, _ := v.Text()
		switch name, _ := k.Text(); string(name) {
		case message.AnnotationPartitionKey:
			gotKey = text
		case message.AnnotationPublisher:
			gotPublisher = text
		}
	}
	if len(rest) > 0 || e.Items%2 != 0 {
		t.Fatalf("%d items, and then % x", e.Items, rest)
	}
	if !bytes.Equal(gotKey, key) || !bytes.Equal(gotPublisher, publisher) {
		t.Fatalf("key %q, publisher %q; want %q, %q", gotKey, gotPublisher, key, publisher)
	}
}

// FuzzStored reads whatever comes as a record's body. No more is read than there
// is, whatever count the header announces; and an event that can be read can be
// delivered, and is stored as it was if it is sent again.
func FuzzStored(f *testing.F) {
	r := store(f, []byte("k"), marshal(f, &goamqp.Message{Data: [][]byte{{1}}}), marshal(f, &goamqp.Message{Value: "v", Annotations: goamqp.Annotations{"a": int32(1)}}),
		marshal(f, &goamqp.Message{Data: [][]byte{{1}, {2}, {3}}, Properties: &goamqp.MessageProperties{MessageID: "id"}}))
	f.Add(r.Body, uint32(r.Count))
	f.Add(r.Body, uint32(r.Count-1))
	f.Add(r.Body[1:], uint32(r.Count))
	f.Add([]byte{}, uint32(1<<32-1))
	f.Add([]byte{0, 1, 0, 0, 0}, uint32(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 10, 0, 0, 0}, uint32(1))
	f.Add([]byte{2, 9, 0x40, 3, 0, 0, 0}, uint32(1))
	f.Fuzz(func(t *testing.T, body []byte, count uint32) {
		r := event.Record{Header: event.Header{Count: int(count), BodyLen: len(body)}, Body: body}
		n, raw := 0, 0
		used := allocated(func() {
			for x, err := range (message.Codec{}).Events(&r) {
				if err != nil {
					break
				}
				n++
				raw += len(x.Raw)
				if len(x.Body) > len(x.Raw) || len(x.PartitionKey) > len(body) {
					t.Fatalf("a body of %d bytes and a key of %d in %d", len(x.Body), len(x.PartitionKey), len(body))
				}
			}
		})
		if n > int(count) || raw > len(body) {
			t.Fatalf("%d events of %d, %d bytes of %d", n, count, raw, len(body))
		}
		if limit := uint64(1<<20 + 64*len(body)); used > limit {
			t.Fatalf("%d bytes are allocated for a body of %d", used, len(body))
		}
		s, err := message.Open(&r)
		if err != nil {
			return
		}
		for i := range n {
			e, err := s.At(i)
			if err != nil {
				t.Fatalf("event %d was read, and then not: %v", i, err)
			}
			sendAgain(t, e)
		}
	})
}

// sendAgain delivers an event as a receiver gets it, and stores that.
func sendAgain(t *testing.T, e message.Event) {
	var msg []byte
	if e.Items > 0 {
		msg = wire.AppendDescriptor(msg, wire.DescMessageAnn)
		var at int
		msg, at = wire.BeginMap(msg, e.Items)
		msg = append(msg, e.Annotations...)
		wire.EndCompound(msg, at)
	}
	msg = append(msg, e.Sections...)
	var p message.Parsed
	if p.Parse(msg) != nil {
		return // a damaged event, whose checksum would have said so
	}
	want, kept := sections(t, msg)
	var b message.Builder
	b.Add(&p, message.Marks{}, 0)
	batch := b.Batch()
	defer batch.Release()
	if again := at(t, &batch.Records[0], 0); !bytes.Equal(again.Sections, want) || !bytes.Equal(again.Annotations, kept) {
		t.Fatalf("% x is delivered, and % x stored of it, with % x", msg, again.Sections, again.Annotations)
	}
}
