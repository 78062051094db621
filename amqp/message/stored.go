package message

import (
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

// Stored is the body of a record of AMQP events: a view.
type Stored struct {
	events []byte
	table  []byte
}

// Open reads a record's body. It checks the table's length, and At each event.
func Open(r *event.Record) (Stored, error) {
	n := 4 * r.Count
	if n > len(r.Body) || n < 0 {
		return Stored{}, fmt.Errorf("a record of %d events has %d bytes", r.Count, len(r.Body))
	}
	at := len(r.Body) - n
	return Stored{events: r.Body[:at], table: r.Body[at:]}, nil
}

// Event is one stored event: a view.
type Event struct {
	// Items is how many keys and values Annotations holds.
	Items       int
	Annotations []byte
	// Sections are the sections beside header and message annotations.
	Sections []byte
}

// At returns event i of the record, counted from 0.
func (s Stored) At(i int) (Event, error) {
	from := uint32(0)
	if i > 0 {
		from = binary.LittleEndian.Uint32(s.table[4*(i-1):])
	}
	to := binary.LittleEndian.Uint32(s.table[4*i:])
	if from >= to || int64(to) > int64(len(s.events)) {
		return Event{}, fmt.Errorf("event %d of a record lies from %d to %d of %d bytes", i, from, to, len(s.events))
	}
	b := s.events[from:to]
	if b[0] == 0 {
		return Event{Sections: b[1:]}, nil
	}
	a, n := binary.Uvarint(b)
	if n <= 0 || a > uint64(len(b)-n) {
		return Event{}, fmt.Errorf("event %d of a record has annotations of %d bytes", i, a)
	}
	ann, rest := b[n:n+int(a)], b[n+int(a):]
	items, n := binary.Uvarint(ann)
	if n <= 0 || items > uint64(len(ann)) {
		return Event{}, fmt.Errorf("event %d of a record has %d annotations in %d bytes", i, items, a)
	}
	return Event{Items: int(items), Annotations: ann[n:], Sections: rest}, nil
}

// Codec reads records of AMQP events. It implements event.Codec.
type Codec struct{}

// Events implements event.Codec.
func (Codec) Events(r *event.Record) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		s, err := Open(r)
		if err != nil {
			yield(event.Event{}, err)
			return
		}
		for i := range r.Count {
			e, err := s.At(i)
			var x event.Event
			if err == nil {
				x, err = e.neutral()
			}
			x.Sequence = r.First + event.SequenceNumber(i)
			x.Enqueued = time.UnixMilli(r.Enqueued).UTC()
			if err != nil {
				err = fmt.Errorf("event %d: %w", x.Sequence, err)
			}
			if !yield(x, err) || err != nil {
				return
			}
		}
	}
}

// neutral decodes what an event has in every protocol.
func (e *Event) neutral() (event.Event, error) {
	x := event.Event{Raw: e.Sections}
	for b, left := e.Annotations, e.Items; left > 0; left -= 2 {
		k, n, err := wire.Read(b)
		if err != nil {
			return x, err
		}
		v, m, err := wire.Read(b[n:])
		if err != nil {
			return x, err
		}
		if name, _ := k.Text(); string(name) == AnnotationPartitionKey {
			key, err := partitionKey(v)
			if err != nil {
				return x, err
			}
			x.PartitionKey = string(key)
		}
		b = b[n+m:]
	}
	parts := 0
	for rest := e.Sections; len(rest) > 0; {
		s, after, err := Next(rest)
		if err != nil {
			return x, err
		}
		if s.Code == wire.DescData {
			data, _ := s.Body.Binary()
			switch parts++; parts {
			case 1:
				x.Body = data
			case 2:
				x.Body = append(x.Body[:len(x.Body):len(x.Body)], data...)
			default:
				x.Body = append(x.Body, data...)
			}
		}
		rest = after
	}
	return x, nil
}
