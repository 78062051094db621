package row

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

// Decoder makes rows of stored events. Its zero value is ready; it is for one
// goroutine, and keeps its memory from one row to the next.
type Decoder struct {
	row    Row
	parts  int    // sections that the body has so far
	body   []byte // a body of several parts
	text   []byte // what is not in the event as it has to be
	offset [20]byte
}

// MaxProperties is how many properties of a kind a row has. What an event has
// beyond that is left out, and makes the row incomplete: in memory, a property of
// three bytes is one of seventy.
const MaxProperties = 1 << 16

// keep bounds what a Decoder keeps of its memory after a large event.
const keep = 256 << 10

// Rows yields the record's events from a sequence number on, in order, and an
// error, last, when the record is not what its encoding promises: damage, since
// what a producer may get wrong makes rows incomplete. A row, which has views into
// the record, lasts until the next is asked for.
func (d *Decoder) Rows(r *event.Record, from event.SequenceNumber) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		if r.Encoding != event.EncodingAMQP {
			yield(nil, fmt.Errorf("the events from number %d on are stored in the encoding %s, which can't be captured", r.First, r.Encoding))
			return
		}
		s, err := message.Open(r)
		if err != nil {
			yield(nil, fmt.Errorf("the events from number %d on: %w", r.First, err))
			return
		}
		first := 0
		if from > r.First {
			first = int(min(from-r.First, event.SequenceNumber(r.Count)))
		}
		for i := first; i < r.Count; i++ {
			d.reset(r, i)
			e, err := s.At(i)
			if err == nil {
				err = d.decode(&e)
			}
			if err != nil {
				yield(nil, fmt.Errorf("event %d: %w", d.row.Sequence, err))
				return
			}
			if !yield(&d.row, nil) {
				return
			}
		}
	}
}

func (d *Decoder) reset(r *event.Record, i int) {
	if cap(d.body) > keep {
		d.body = nil
	}
	if cap(d.text) > keep {
		d.text = nil
	}
	d.parts, d.body, d.text = 0, d.body[:0], d.text[:0]
	seq := r.First + event.SequenceNumber(i)
	d.row = Row{
		Sequence:   seq,
		Offset:     strconv.AppendInt(d.offset[:0], int64(seq), 10),
		Enqueued:   r.Enqueued,
		System:     trim(d.row.System),
		Properties: trim(d.row.Properties),
	}
}

// trim empties p, and lets go of it after an event with very many.
func trim(p []Property) []Property {
	if cap(p) > 1024 {
		return nil
	}
	return p[:0]
}

// decode fills the row from a stored event.
func (d *Decoder) decode(e *message.Event) error {
	d.annotations(e)
	for rest := e.Sections; len(rest) > 0; {
		if data, n, ok := message.Data(rest); ok { // the common one, the short way
			d.part(data)
			rest = rest[n:]
			continue
		}
		s, after, err := message.Next(rest)
		if err != nil {
			return err
		}
		switch s.Code {
		case wire.DescProperties:
			d.fields(s.Body)
		case wire.DescAppProperties:
			d.properties(s.Body)
		case wire.DescData, wire.DescSequence, wire.DescValue:
			d.section(&s)
		}
		rest = after
	}
	d.row.System = canonical(d.row.System)
	d.row.Properties = canonical(d.row.Properties)
	return nil
}

// part adds to the body. One part alone is not copied.
func (d *Decoder) part(b []byte) {
	switch d.parts++; d.parts {
	case 1:
		d.row.Body = b
	case 2:
		d.body = append(append(d.body[:0], d.row.Body...), b...)
		d.row.Body = d.body
	default:
		d.body = append(d.body, b...)
		d.row.Body = d.body
	}
}

// section adds a section of the body that is not plain data.
func (d *Decoder) section(s *message.Section) {
	if s.Body.IsNull() && s.Code == wire.DescValue {
		return
	}
	if data, ok := s.Body.Binary(); ok && s.Code == wire.DescData {
		d.part(data)
	} else if text, ok := s.Body.Str(); ok && s.Code == wire.DescValue {
		d.part(text)
	} else {
		d.part(s.Body.Full)
	}
}

// annotations adds the message annotations that are stored.
func (d *Decoder) annotations(e *message.Event) {
	b := e.Annotations
	for left := e.Items; left > 1; left -= 2 {
		var k, v wire.Value
		var ok bool
		if k, b, ok = take(b); ok {
			v, b, ok = take(b)
		}
		if !ok {
			d.row.Incomplete = true
			return
		}
		d.system(d.name(k), v)
	}
}

// fieldNames are those of the section properties (part 3, section 3.2.4).
var fieldNames = [...][]byte{
	[]byte("message-id"), []byte("user-id"), []byte("to"), []byte("subject"), []byte("reply-to"),
	[]byte("correlation-id"), []byte("content-type"), []byte("content-encoding"), []byte("absolute-expiry-time"),
	[]byte("creation-time"), []byte("group-id"), []byte("group-sequence"), []byte("reply-to-group-id"),
}

// fields adds the section properties.
func (d *Decoder) fields(list wire.Value) {
	it, err := list.List()
	for _, name := range fieldNames {
		if it.Len() == 0 {
			break
		}
		d.system(name, it.Next())
	}
	if err != nil || it.Err() != nil {
		d.row.Incomplete = true
	}
}

// system adds a system property, unless its value is null.
func (d *Decoder) system(name []byte, v wire.Value) {
	x := d.value(v)
	switch {
	case x.Kind == Null:
	case len(d.row.System) == MaxProperties:
		d.row.Incomplete = true
	default:
		d.row.System = append(d.row.System, Property{name, x})
	}
}

// properties adds the application properties.
func (d *Decoder) properties(m wire.Value) {
	b, n, ok := entries(m)
	for ; ok && n > 1; n -= 2 {
		if len(d.row.Properties) == MaxProperties {
			ok = false
			break
		}
		var k, v wire.Value
		if k, b, ok = take(b); !ok {
			break
		}
		if v, b, ok = take(b); !ok {
			break
		}
		d.row.Properties = append(d.row.Properties, Property{d.name(k), d.value(v)})
	}
	if !ok {
		d.row.Incomplete = true
	}
}

// entries is a map's keys and values, and how many they are together.
func entries(m wire.Value) (b []byte, n int, ok bool) {
	switch {
	case m.IsNull():
		return nil, 0, true
	case m.Code == wire.CodeMap8 && len(m.Body) >= 1:
		return m.Body[1:], int(m.Body[0]), true
	case m.Code == wire.CodeMap32 && len(m.Body) >= 4:
		return m.Body[4:], int(binary.BigEndian.Uint32(m.Body)), true
	}
	return nil, 0, false
}

// take is the value at the head of b, and what follows it. Short strings and
// symbols, which nearly all names are, go a short way.
func take(b []byte) (v wire.Value, rest []byte, ok bool) {
	if len(b) > 1 && (b[0] == wire.CodeString8 || b[0] == wire.CodeSymbol8) {
		if n := 2 + int(b[1]); n <= len(b) {
			return wire.Value{Code: b[0], Body: b[2:n:n], Full: b[:n:n]}, b[n:], true
		}
	}
	v, n, err := wire.Read(b)
	if err != nil {
		return v, nil, false
	}
	return v, b[n:], true
}

// name is a key as text. Keys that are not text are seen to: AMQP reserves them.
func (d *Decoder) name(k wire.Value) []byte {
	if t, ok := k.Text(); ok {
		return d.utf8(t)
	}
	at := len(d.text)
	d.text = d.appendJSON(d.text, k, 0)
	return d.text[at:len(d.text):len(d.text)]
}

// canonical sorts properties by name; of several with one name it keeps the last,
// as a reader that puts them into a map does.
func canonical(p []Property) []Property {
	less := func(a, b Property) int { return bytes.Compare(a.Name, b.Name) }
	sorted := true
	for i := 1; i < len(p); i++ {
		if less(p[i-1], p[i]) >= 0 {
			sorted = false
			break
		}
	}
	if sorted {
		return p
	}
	slices.SortStableFunc(p, less)
	n := 0
	for i := range p {
		if i+1 < len(p) && bytes.Equal(p[i].Name, p[i+1].Name) {
			continue
		}
		p[n] = p[i]
		n++
	}
	return p[:n]
}
