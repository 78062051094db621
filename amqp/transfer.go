package amqp

import (
	"encoding/binary"
	"strconv"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// The fixed parts of a delivery's annotations (amqp.md 5.8).
var (
	systemSequence = func() []byte {
		b := wire.AppendSymbol(nil, "x-opt-sequence-number-epoch")
		b = append(b, wire.CodeSmallInt, 0xFF)
		b = wire.AppendSymbol(b, "x-opt-sequence-number")
		return append(b, wire.CodeLong)
	}()
	systemOffset   = append(wire.AppendSymbol(nil, "x-opt-offset"), wire.CodeString8)
	systemEnqueued = append(wire.AppendSymbol(nil, "x-opt-enqueued-time"), wire.CodeTimestamp)
)

// systemItems is how many keys and values they are.
const systemItems = 8

// maxOverhead bounds what a delivery has beside its annotations and sections:
// frame header, transfer, system annotations, runtime metrics.
const maxOverhead = 512

// prepare builds the fixed part of the link's transfers, up to the delivery-id.
func (l *outLink) prepare() {
	l.head = wire.AppendDescriptor(nil, wire.DescTransfer)
	l.head = append(l.head, wire.CodeList8, 0, 11)
	l.head = wire.AppendUint(l.head, l.handle)
}

// appendTransfer adds a transfer frame's performative. Only the first frame of
// a delivery has an id, a tag and a format.
func (l *outLink) appendTransfer(b []byte, first, more bool) []byte {
	at := len(b)
	b = append(b, l.head...)
	if first {
		b = binary.BigEndian.AppendUint32(append(b, wire.CodeUint), l.id)
		if l.events != nil {
			b = append(b, wire.CodeBinary8, 0)
		} else {
			b = append(append(b, wire.CodeBinary8, 4), l.tag[:]...)
		}
		b = append(b, wire.CodeUint0)
	} else {
		b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull)
	}
	b = wire.AppendBool(b, l.settled)
	b = wire.AppendBool(b, more)
	b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeTrue)
	b[at+4] = byte(len(b) - at - 5) // the list's length, after descriptor and code
	return b
}

// deliverNext sends the event that advance has found. It returns false when the
// output has no room.
func (l *outLink) deliverNext() (bool, error) {
	s, d := l.s, l.events
	c := s.c
	r := &d.chunk.Records[d.record]
	e, err := d.stored.At(d.index)
	if err != nil {
		return false, &hub.Error{Kind: hub.Corrupt, Entity: d.path, Text: "A stored event can't be read.", Err: err}
	}
	size := maxOverhead + len(e.Annotations) + len(e.Sections)
	if size > c.peerFrame {
		return true, l.deliverLarge(r, &e)
	}
	if !c.room(size) {
		return false, nil
	}
	l.begin()
	b, at := wire.BeginFrame(c.out, wire.FrameAMQP, s.channel)
	b = l.appendTransfer(b, true, false)
	b, err = l.appendEvent(b, r, &e)
	if err != nil {
		return false, err
	}
	wire.EndFrame(b, at)
	c.out = b
	s.nextOutgoing++
	s.window--
	l.delivered()
	return true, nil
}

// begin gives the delivery that is about to be sent its id.
func (l *outLink) begin() {
	s := l.s
	l.id = s.nextDelivery
	s.nextDelivery++
	binary.LittleEndian.PutUint32(l.tag[:], l.count+1)
	l.count++
	l.credit--
}

// delivered moves on to the next event.
func (l *outLink) delivered() {
	d := l.events
	d.sentEvents++
	d.index++
	d.next = d.chunk.Records[d.record].First + event.SequenceNumber(d.index)
}

// appendEvent adds a message: runtime metrics if asked for, the annotations, and
// the sections as they came.
func (l *outLink) appendEvent(b []byte, r *event.Record, e *message.Event) ([]byte, error) {
	d := l.events
	start := len(b)
	if d.metrics {
		var err error
		if b, err = l.appendMetrics(b); err != nil {
			return b, err
		}
	}
	n := r.First + event.SequenceNumber(d.index)
	b = wire.AppendDescriptor(b, wire.DescMessageAnn)
	b, at := wire.BeginMap(b, e.Items+systemItems)
	b = append(b, e.Annotations...)
	b = binary.BigEndian.AppendUint64(append(b, systemSequence...), uint64(n))
	b = append(b, systemOffset...)
	b = append(b, 0)
	digits := len(b)
	b = strconv.AppendInt(b, int64(n), 10)
	b[digits-1] = byte(len(b) - digits)
	b = binary.BigEndian.AppendUint64(append(b, systemEnqueued...), uint64(r.Enqueued))
	wire.EndCompound(b, at)
	b = append(b, e.Sections...)
	d.sentBytes += int64(len(b) - start)
	return b, nil
}

// appendMetrics adds the delivery annotations that say where the partition's
// end is (amqp.md 5.7).
func (l *outLink) appendMetrics(b []byte) ([]byte, error) {
	info, err := l.events.reader.Info(l.s.c.ctx)
	if err != nil {
		return b, err
	}
	b = wire.AppendDescriptor(b, wire.DescDeliveryAnn)
	b, at := wire.BeginMap(b, 10)
	b = append(wire.AppendSymbol(b, "last_enqueued_sequence_number_epoch"), wire.CodeSmallInt, 0xFF)
	b = wire.AppendLong(wire.AppendSymbol(b, "last_enqueued_sequence_number"), int64(info.Last()))
	b = wire.AppendString(wire.AppendSymbol(b, "last_enqueued_offset"), strconv.FormatInt(int64(info.Last()), 10))
	b = wire.AppendTimestamp(wire.AppendSymbol(b, "last_enqueued_time_utc"), info.LastEnqueued.UnixMilli())
	b = wire.AppendTimestamp(wire.AppendSymbol(b, "runtime_info_retrieval_time_utc"), l.s.c.now.UnixMilli())
	wire.EndCompound(b, at)
	return b, nil
}

// deliverLarge begins an event that takes several frames.
func (l *outLink) deliverLarge(r *event.Record, e *message.Event) error {
	d := l.events
	var err error
	if d.large, err = l.appendEvent(d.large[:0], r, e); err != nil {
		return err
	}
	d.prefix = len(d.large) - len(e.Sections)
	l.begin()
	l.sending, l.first = d.large, true
	l.delivered()
	return nil
}

// hold counts what the link holds.
func (l *outLink) hold() {
	d := l.events
	n := int64(cap(d.large))
	for _, c := range []*event.Chunk{d.chunk, d.ahead} {
		if c != nil {
			n += c.Size()
		}
	}
	if n != d.held {
		l.s.c.srv.held.Add(n - d.held)
		d.held = n
	}
}

// relieve lets a link that has to wait put aside what it holds, if all links
// together hold too much. It reads that again when it goes on: a peer that doesn't
// read, or gives no credit, must not cost megabytes, nor thousands of them 64 KiB.
func (l *outLink) relieve() {
	d := l.events
	if d == nil || d.reader == nil || l.s.out[l.handle] != l {
		return
	}
	l.hold()
	if d.held == 0 || l.s.c.srv.held.Load() <= maxHeld {
		return
	}
	if l.sending != nil { // the event is the one before next
		d.half = &half{prefix: append([]byte{}, d.large[:d.prefix]...), sent: len(d.large) - len(l.sending)}
		d.next--
	}
	if d.chunk != nil {
		d.chunk.Close()
	}
	if d.ahead != nil {
		d.ahead.Close()
	}
	if d.stop != nil {
		d.stop()
	}
	d.chunk, d.stored, d.ahead, d.stop, d.large, l.sending = nil, message.Stored{}, nil, nil, nil, nil
	d.stale = d.fetching // it follows what was put aside
	l.hold()
}

// resume goes on with an event that was put aside, which advance has found again.
func (l *outLink) resume() error {
	d := l.events
	r := &d.chunk.Records[d.record]
	if r.First+event.SequenceNumber(d.index) != d.next {
		return &hub.Error{Kind: hub.Internal, Entity: d.path, Text: "An event was removed while it was being sent."}
	}
	e, err := d.stored.At(d.index)
	if err != nil {
		return &hub.Error{Kind: hub.Corrupt, Entity: d.path, Text: "A stored event can't be read.", Err: err}
	}
	d.prefix = len(d.half.prefix)
	d.large = make([]byte, 0, d.prefix+len(e.Sections))
	d.large = append(append(d.large, d.half.prefix...), e.Sections...)
	l.sending = d.large[d.half.sent:]
	d.half = nil
	d.index++
	d.next++
	return nil
}

// sendFrames sends the frames of l.sending. It returns false when it must wait,
// for the writer or for the session's window.
func (l *outLink) sendFrames() bool {
	s := l.s
	c := s.c
	limit := c.peerFrame - wire.FrameHeaderSize - len(l.head) - 32
	for l.sending != nil {
		n := min(len(l.sending), limit)
		if s.window == 0 {
			return false // a flow will wake the link
		}
		if !c.room(n + c.peerFrame - limit) {
			l.wake()
			return false
		}
		more := n < len(l.sending)
		b, at := wire.BeginFrame(c.out, wire.FrameAMQP, s.channel)
		b = l.appendTransfer(b, l.first, more)
		b = append(b, l.sending[:n]...)
		wire.EndFrame(b, at)
		c.out = b
		s.nextOutgoing++
		s.window--
		l.sending, l.first = l.sending[n:], false
		if !more {
			l.sending = nil
		}
	}
	if d := l.events; d != nil && cap(d.large) > 4*event.SlabSize {
		d.large = nil
	}
	return true
}
