package amqp

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// outLink is a link on which the peer receives: events, or a node's replies.
type outLink struct {
	s       *session
	handle  uint32
	count   uint32 // deliveries so far
	credit  uint32
	drain   bool // the peer wants its credit used up or given back
	settled bool

	attaching *wire.Attach // until the attach is answered
	queued    bool         // in conn.ready
	head      []byte       // the fixed part of its transfers

	events  *delivery // of a receiver of events
	replies *replies

	// The delivery that is being sent; sending is what is left of one that
	// takes several frames.
	id      uint32
	tag     [4]byte
	sending []byte
	first   bool
}

// delivery is what a receiver of events reads from.
type delivery struct {
	hub       *hub.EventHub
	partition *hub.Partition
	path      string
	client    hub.Client
	seat      *hub.Receiver
	metrics   bool // deliveries carry runtime metrics
	lost      atomic.Pointer[lost]

	reader *hub.Reader
	next   event.SequenceNumber // the event to be sent next

	// The chunk being sent, and the place in it.
	chunk  *event.Chunk
	record int
	index  int
	stored message.Stored

	ahead    *event.Chunk // the chunk after it
	slow     bool         // it was not in memory: the one after it is fetched early
	fetching bool
	stale    bool   // what is being fetched is not what is needed
	tail     bool   // the reader has seen the end of the log
	stop     func() // withdraws the notice
	large    []byte // an event of several frames, put together
	prefix   int    // its bytes before the sections as they are stored
	half     *half  // an event of which a part has been sent, and that has to be read again
	held     int64  // what is counted in Server.held

	sentEvents, sentBytes int64 // not in the metrics yet

	slowed time.Time // until when the namespace's throughput units hold it back
}

// half is an event that was put aside while it was being sent.
type half struct {
	prefix []byte
	sent   int
}

// lost says that a receiver has lost its place.
type lost struct {
	l   *outLink
	err error
}

func (m *lost) deliver(c *conn) {
	l := m.l
	if c.over || l.s.out[l.handle] != l || l.attaching != nil {
		return
	}
	l.fail(m.err)
}

// fail detaches the link for a reason.
func (l *outLink) fail(err error) {
	e := l.s.c.amqpError(err, l.events.path)
	l.s.c.log.Debug("a receiver was detached", "error", e)
	delete(l.s.out, l.handle)
	l.end()
	l.s.detach(l.handle, e)
}

func (s *session) addOut(x *wire.Attach) *outLink {
	l := &outLink{s: s, handle: x.Handle}
	s.out[x.Handle] = l
	s.c.links++
	return l
}

// end gives back what the link holds.
func (l *outLink) end() {
	d := l.events
	l.sending = nil
	if d == nil {
		return
	}
	d.seat.Leave()
	if d.stop != nil {
		d.stop()
	}
	if d.chunk != nil {
		d.chunk.Close()
	}
	if d.ahead != nil {
		d.ahead.Close()
	}
	d.chunk, d.ahead, d.stop, d.large = nil, nil, nil, nil
	l.hold()
	if d.reader != nil && !d.fetching { // else whoever fetches closes it
		d.reader.Close()
	}
}

// flow takes the peer's credit.
func (l *outLink) flow(x *wire.Flow) {
	if x.LinkCredit.Set {
		// Credit is counted from the deliveries that the peer has seen.
		credit := x.LinkCredit.Value + x.DeliveryCount.Or(0) - l.count
		if int32(credit) < 0 {
			credit = 0
		}
		l.credit = credit
	}
	l.drain = x.Drain
	if x.Echo && !x.Drain {
		l.sendFlow()
	}
}

func (l *outLink) sendFlow() {
	s := l.s
	x := wire.Flow{
		NextIncomingID: wire.Optional{Value: s.nextIncoming, Set: true},
		IncomingWindow: incomingWindow,
		NextOutgoingID: s.nextOutgoing,
		OutgoingWindow: s.outgoingLimit,
		Handle:         wire.Optional{Value: l.handle, Set: true},
		DeliveryCount:  wire.Optional{Value: l.count, Set: true},
		LinkCredit:     wire.Optional{Value: l.credit, Set: true},
		Drain:          l.drain,
	}
	s.sinceFlow = 0
	s.frame(x.Append)
}

// wake puts the link among those to be looked at.
func (l *outLink) wake() {
	if !l.queued && l.attaching == nil {
		l.queued = true
		l.s.c.ready = append(l.s.c.ready, l)
	}
}

// pump sends what the links have, in turns, until there is nothing that can be
// sent.
func (c *conn) pump() {
	for len(c.ready) > 0 && c.phase == established {
		links := c.ready
		c.ready = nil
		more := false
		for i, l := range links {
			l.queued = false
			if l.s.out[l.handle] != l {
				continue
			}
			if !c.room(wire.MinMaxFrameSize) { // the writer is behind; what is left waits for it
				for _, l := range links[i:] {
					l.wake()
					l.relieve()
				}
				return
			}
			if l.send() {
				l.wake()
				more = true
			} else {
				l.relieve()
			}
		}
		if !more {
			return
		}
	}
}

// room tells whether a frame of n bytes may be added to the output, handing that
// to the writer when it is full.
func (c *conn) room(n int) bool {
	if len(c.out)+n <= outSize {
		return true
	}
	if len(c.out) > 0 && !c.writer.busy() {
		c.flush()
		c.buffer()
	}
	return len(c.out)+n <= outSize || len(c.out) == 0
}

// turn is how many deliveries a link sends before the next has its turn.
const turn = 128

// send sends what it can of a link's turn, and tells whether there is more that
// could be sent.
func (l *outLink) send() bool {
	if l.replies != nil {
		return l.sendReplies()
	}
	d := l.events
	if d.lost.Load() != nil {
		return false // the detach is on its way
	}
	if l.s.c.now.Before(d.slowed) {
		return false // hasten will wake it
	}
	defer l.account()
	for range turn {
		if d.half != nil {
			ok, err := l.advance()
			if !ok && err == nil {
				return false
			}
			if err == nil {
				err = l.resume()
			}
			if err != nil {
				l.fail(err)
				return false
			}
		}
		if l.sending != nil {
			if !l.sendFrames() {
				return false
			}
			continue
		}
		if l.credit == 0 && l.drain {
			l.drained()
		}
		if l.credit == 0 || l.s.window == 0 {
			return false // a flow will wake it
		}
		ok, err := l.advance()
		if !ok && err == nil {
			if l.drain && d.tail && !d.fetching {
				l.drained()
			}
			return false
		}
		if err == nil {
			ok, err = l.deliverNext()
		}
		if err != nil {
			l.fail(err)
			return false
		}
		if !ok { // the writer is behind
			l.wake()
			return false
		}
		if d.sentBytes >= slowAfter && d.client.Limited() {
			break
		}
	}
	l.account()
	return !l.s.c.now.Before(d.slowed)
}

// slowAfter is how many bytes a link is sent before its namespace's throughput
// units and its application group, if there are any, are asked.
const slowAfter = 64 << 10

// account adds what has been sent to the metrics, and has the link wait if it
// was more than the namespace's throughput units or its application group allow.
func (l *outLink) account() {
	d := l.events
	if d.sentEvents == 0 {
		return
	}
	d.partition.Delivered(d.sentBytes)
	d.hub.Metrics.OutgoingMessages.Add(d.sentEvents)
	d.hub.Metrics.OutgoingBytes.Add(d.sentBytes)
	d.hub.Metrics.OutgoingRequests.Add(1)
	if wait := d.client.Delivered(d.sentBytes, d.sentEvents); wait > 0 {
		c := l.s.c
		d.slowed = c.now.Add(wait)
		c.slowed = append(c.slowed, l)
	}
	d.sentEvents, d.sentBytes = 0, 0
}

// hasten wakes the links that have waited long enough.
func (c *conn) hasten() {
	if len(c.slowed) == 0 {
		return
	}
	c.slowed = slices.DeleteFunc(c.slowed, func(l *outLink) bool {
		if c.now.Before(l.events.slowed) {
			return false
		}
		l.wake()
		return true
	})
}

// drained gives the unused credit back, if any is left.
func (l *outLink) drained() {
	l.count += l.credit
	l.credit = 0
	l.sendFlow()
	l.drain = false
}

// advance makes sure that there is an event to send: the next of the chunk, or
// the first of the one after. It returns false while that is being fetched.
func (l *outLink) advance() (bool, error) {
	d := l.events
	for {
		if d.chunk == nil {
			if d.ahead == nil {
				l.fetch()
				if d.ahead == nil {
					return false, nil
				}
			}
			if err := l.enter(d.ahead); err != nil {
				return false, err
			}
		}
		if d.index < d.chunk.Records[d.record].Count {
			return true, nil
		}
		if d.record++; d.record < len(d.chunk.Records) {
			if err := l.openRecord(); err != nil {
				return false, err
			}
			continue
		}
		d.chunk.Close()
		d.chunk, d.stored = nil, message.Stored{} // which would keep the chunk's memory
	}
}

// enter begins a chunk at the event to be sent next.
func (l *outLink) enter(chunk *event.Chunk) error {
	d := l.events
	d.chunk, d.ahead, d.record = chunk, nil, 0
	if d.slow && !d.fetching && d.stop == nil && l.s.c.srv.held.Load() <= maxHeld { // while this one is sent
		l.fetchAt(chunk.Next())
	}
	return l.openRecord()
}

func (l *outLink) openRecord() error {
	d := l.events
	r := &d.chunk.Records[d.record]
	if r.Encoding != event.EncodingAMQP {
		return fmt.Errorf("the events from sequence number %d on are of encoding %s, which this door can't translate", r.First, r.Encoding)
	}
	stored, err := message.Open(r)
	if err != nil {
		return &hub.Error{Kind: hub.Corrupt, Entity: d.path, Text: "A stored event can't be read.", Err: err}
	}
	d.stored, d.index = stored, 0
	if d.next > r.First {
		d.index = int(d.next - r.First)
	}
	return nil
}

// fetchBytes is how much is read at once.
const fetchBytes = event.SlabSize

// fetch gets the chunk that follows: at once if it is in memory, else behind
// the connection's back.
func (l *outLink) fetch() {
	if d := l.events; !d.fetching && d.stop == nil {
		l.fetchAt(d.next)
	}
}

func (l *outLink) fetchAt(from event.SequenceNumber) {
	d := l.events
	if chunk, ok := d.reader.Recent(from, fetchBytes); ok {
		d.slow = false
		l.fetched(chunk, nil)
		return
	}
	l.fetchBehind(from)
}

func (l *outLink) fetchBehind(from event.SequenceNumber) {
	c, d := l.s.c, l.events
	d.fetching, d.slow = true, true
	c.wg.Go(func() {
		m := &fetched{l: l}
		m.chunk, m.err = d.reader.Read(c.ctx, from, fetchBytes)
		c.post(m)
	})
}

// fetched is what fetchBehind has read.
type fetched struct {
	l     *outLink
	chunk *event.Chunk
	err   error
}

func (m *fetched) deliver(c *conn) {
	l := m.l
	d := l.events
	d.fetching = false
	if c.over || l.s.out[l.handle] != l {
		if m.chunk != nil {
			m.chunk.Close()
		}
		d.reader.Close()
		return
	}
	if d.stale {
		d.stale = false
		if m.chunk != nil {
			m.chunk.Close()
		}
		l.wake()
		return
	}
	l.fetched(m.chunk, m.err)
}

// fetched takes the next chunk. An empty one means the end of the log: then a
// notice is left for when it grows.
func (l *outLink) fetched(chunk *event.Chunk, err error) {
	c, d := l.s.c, l.events
	if err != nil {
		l.fail(err)
		return
	}
	d.tail = chunk.Empty()
	if !d.tail {
		d.ahead = chunk
		l.wake()
		return
	}
	chunk.Close()
	after := d.next - 1
	if d.chunk != nil {
		after = d.chunk.Next() - 1
	}
	note := &grown{l}
	d.stop = d.reader.Notify(after, func() { c.post(note) })
	if l.drain {
		l.wake()
	}
}

// grown says that a log whose end a link had reached has more, or has ended.
type grown struct{ l *outLink }

func (m *grown) deliver(c *conn) {
	l := m.l
	if c.over || l.s.out[l.handle] != l {
		return
	}
	l.events.stop = nil
	l.wake()
}

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
