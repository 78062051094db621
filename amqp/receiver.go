package amqp

import (
	"fmt"
	"slices"
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
