package message

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

// BatchFormat is the message format of a transfer whose data sections are
// messages of their own (amqp.md 4.5).
const BatchFormat = 0x80013700

// Annotations that the broker reads or sets.
const (
	AnnotationPartitionKey = "x-opt-partition-key"
	AnnotationPublisher    = "x-opt-publisher"
)

// Marks are annotations that the broker adds to a message when it arrives.
type Marks struct {
	// PartitionKey is added to a message that has none; nil: to none.
	PartitionKey []byte
	// Publisher is the name of the publisher that the message came from, if any.
	Publisher []byte
}

// ErrEmpty refuses a message without a section.
var ErrEmpty = errors.New("the message is empty")

// Builder normalises messages and gathers them to a batch of records near
// event.SlabSize. Its zero value is ready; it is for one goroutine. It owns what
// it gathers until Batch or Reset.
type Builder struct {
	batch *event.Batch
	slab  *event.Slab
	end   int      // of the events in slab.B
	ends  []uint32 // of each, from the headroom on
	bytes int
}

// overhead is what normalising may add to a message: its lengths and a place in
// the table.
const overhead = 2*binary.MaxVarintLen32 + 4

// Count is how many events have been added.
func (b *Builder) Count() int {
	n := len(b.ends)
	if b.batch != nil {
		n += b.batch.Count
	}
	return n
}

// Size is how many bytes of events have been added.
func (b *Builder) Size() int { return b.bytes }

// Parsed is a message taken apart: views into it.
type Parsed struct {
	// PartitionKey is the annotation of that name, nil if there is none.
	PartitionKey []byte
	// Stamp is what an idempotent producer has written on it.
	Stamp Stamp

	annotations wire.Items
	kept        int // keys and values to keep
	keptBytes   int
	runs        [4][]byte // the other sections; neighbours are one run
	n           int
	more        [][]byte // runs beyond the fourth, for messages in odd order
	size        int      // of all runs
}

// Parse takes a message apart and checks its sections' framing.
func (p *Parsed) Parse(msg []byte) error {
	p.reset()
	if len(msg) == 0 {
		return ErrEmpty
	}
	run := msg[:0]
	for rest := msg; len(rest) > 0; {
		if n := plain(rest); n > 0 {
			run, rest = run[:len(run)+n], rest[n:]
			continue
		}
		s, after, err := Next(rest)
		if err != nil {
			return err
		}
		switch s.Code {
		case wire.DescHeader, wire.DescMessageAnn:
			p.addRun(run)
			run = after[:0]
			if s.Code == wire.DescMessageAnn {
				if err := p.annotate(s.Body); err != nil {
					return err
				}
			}
		default:
			run = run[:len(run)+len(s.Full)]
		}
		rest = after
	}
	p.addRun(run)
	return nil
}

// reset makes p that of an empty message. The views that it had are left: they
// are beyond what counts.
func (p *Parsed) reset() {
	p.PartitionKey, p.Stamp = nil, Stamp{}
	p.annotations, p.kept, p.keptBytes = wire.Items{}, 0, 0
	p.n, p.more, p.size = 0, p.more[:0], 0
}

func (p *Parsed) addRun(run []byte) {
	if len(run) == 0 {
		return
	}
	p.size += len(run)
	if p.n < len(p.runs) {
		p.runs[p.n] = run
		p.n++
		return
	}
	p.more = append(p.more, run)
}

// annotate looks through the message annotations.
func (p *Parsed) annotate(v wire.Value) error {
	it, err := v.Map()
	if err != nil {
		return err
	}
	// Of two such sections the last counts, its key too.
	p.annotations, p.kept, p.keptBytes, p.PartitionKey, p.Stamp = it, 0, 0, nil, Stamp{}
	for it.Len() > 0 {
		k, val := it.Next(), it.Next()
		if err := it.Err(); err != nil {
			return err
		}
		key, _ := k.Text()
		if dropped(key, val) {
			p.Stamp.read(key, val)
			continue
		}
		if string(key) == AnnotationPartitionKey {
			if p.PartitionKey, err = partitionKey(val); err != nil {
				return err
			}
		}
		p.kept += 2
		p.keptBytes += len(k.Full) + len(val.Full)
	}
	return nil
}

// partitionKey reads the value of the annotation; null is none.
func partitionKey(v wire.Value) ([]byte, error) {
	if v.IsNull() {
		return nil, nil
	}
	key, ok := v.Text()
	if !ok {
		return nil, fmt.Errorf("%w: a partition key of format code 0x%02x", wire.ErrDecode, v.Code)
	}
	return key, nil
}

// dropped tells whether an annotation is not kept: those that are the broker's
// to set, and a partition key of null, which would hide the one that is set.
func dropped(key []byte, v wire.Value) bool {
	return reserved(key) || string(key) == AnnotationPartitionKey && v.IsNull()
}

// reserved tells whether an annotation is the broker's to set.
func reserved(key []byte) bool {
	switch string(key) {
	case "x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time", "x-opt-sequence-number-epoch", AnnotationPublisher,
		AnnotationProducerID, AnnotationProducerEpoch, AnnotationProducerSequence:
		return true
	}
	return false
}

// Add adds the message that p was parsed from, with marks. hint is how many
// bytes are likely to follow, this message included.
func (b *Builder) Add(p *Parsed, marks Marks, hint int) {
	if p.PartitionKey != nil {
		marks.PartitionKey = nil
	}
	annotations, items := p.keptBytes, p.kept
	if marks.PartitionKey != nil {
		annotations += itemSize(AnnotationPartitionKey, marks.PartitionKey)
		items += 2
	}
	if marks.Publisher != nil {
		annotations += itemSize(AnnotationPublisher, marks.Publisher)
		items += 2
	}
	b.room(p.size+annotations+overhead, hint)
	out := b.slab.B[:b.end]
	if items == 0 {
		out = append(out, 0)
	} else {
		out = binary.AppendUvarint(out, uint64(annotations+uvarintLen(uint64(items))))
		out = binary.AppendUvarint(out, uint64(items))
		out = appendItem(out, AnnotationPartitionKey, marks.PartitionKey)
		out = appendItem(out, AnnotationPublisher, marks.Publisher)
		for it := p.annotations; it.Len() > 0; {
			k, v := it.Next(), it.Next()
			if name, _ := k.Text(); !dropped(name, v) {
				out = append(append(out, k.Full...), v.Full...)
			}
		}
	}
	for _, run := range p.runs[:p.n] {
		out = append(out, run...)
	}
	for _, run := range p.more {
		out = append(out, run...)
	}
	b.bytes += len(out) - b.end
	b.end = len(out)
	b.ends = append(b.ends, uint32(b.end-event.Headroom))
}

func itemSize(key string, value []byte) int {
	n := 2 + len(key) + 2 + len(value)
	if len(value) > 255 {
		n += 3
	}
	return n
}

func appendItem(out []byte, key string, value []byte) []byte {
	if value == nil {
		return out
	}
	return wire.AppendText(wire.AppendSymbol(out, key), value)
}

func uvarintLen(n uint64) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

// room makes sure that n more bytes and the table fit, cutting the record or
// moving it to a larger slab.
func (b *Builder) room(n, hint int) {
	table := 4 * (len(b.ends) + 1)
	if b.slab != nil && b.end+n+table <= len(b.slab.B) {
		return
	}
	if b.slab != nil && b.end+n+table <= event.SlabSize { // a small slab: a larger one will do
		s := event.NewSlab(min(max(2*len(b.slab.B), b.end+n+table+hint), event.SlabSize))
		if b.end+n+table > len(s.B) {
			s.Release()
			s = event.NewSlab(event.SlabSize)
		}
		copy(s.B[event.Headroom:], b.slab.B[event.Headroom:b.end])
		b.slab.Release()
		b.slab = s
		return
	}
	b.cut()
	b.slab = event.NewSlab(max(event.Headroom+n+4, min(event.Headroom+hint+hint/16+64, event.SlabSize)))
	b.end = event.Headroom
}

// cut ends the current record.
func (b *Builder) cut() {
	if b.slab == nil {
		return
	}
	for _, e := range b.ends {
		binary.LittleEndian.PutUint32(b.slab.B[b.end:], e)
		b.end += 4
	}
	if b.batch == nil {
		b.batch = event.NewBatch(event.EncodingAMQP)
	}
	b.batch.AddRecord(b.slab, b.end, len(b.ends))
	b.slab, b.ends = nil, b.ends[:0]
}

// Batch ends the batch and returns it; nil if nothing was added.
func (b *Builder) Batch() *event.Batch {
	b.cut()
	x := b.batch
	b.batch, b.bytes = nil, 0
	return x
}

// Reset drops what was added.
func (b *Builder) Reset() {
	if b.slab != nil {
		b.slab.Release()
	}
	if b.batch != nil {
		b.batch.Release()
	}
	*b = Builder{ends: b.ends[:0]}
}
