package amqp

import (
	"errors"
	"sync"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// inLink is a link on which the peer sends: events to a hub, or requests to a
// node.
type inLink struct {
	s      *session
	handle uint32
	count  uint32 // deliveries so far, as the peer counts them
	credit uint32 // left to the peer
	grant  uint32 // what it is topped up to
	max    int    // the largest message that is taken

	events  *ingest // of a sender of events
	joining bool    // the attach of a producer is not answered yet
	node    string  // of a requester
	nodeHub string

	// The message that is being received.
	active  bool
	id      uint32
	format  uint32
	settled bool
	size    int
	tooBig  bool
	failed  error
	carry   []byte // of several frames: what is not taken apart yet
	held    int64  // what is counted of it as received in part

	// Settled deliveries that are not reported yet: one range.
	reportFirst, reportLast uint32
	report                  bool
}

// ingest is what a sender of events sends to.
type ingest struct {
	hub       *hub.EventHub
	partition *hub.Partition // nil when the broker chooses
	publisher []byte
	path      string
	client    hub.Client
	// producer is whose batches are stored once, if it is one; numbered is what is
	// known of the one that is being received.
	producer event.Producer
	numbered numbered
	// partitions is how many the hub had when the link was attached.
	partitions int
	underWay   int // appends

	open  map[*hub.Partition]*pending // single messages, gathered
	batch *pending                    // the batch that is being received in several frames
	key   []byte                      // the partition key in its envelope
	first bool                        // its first event is still to come

	routeKey []byte // what decides on its partition
}

// pending is an append that is gathered or under way: its events, and the
// deliveries that it settles. It is reused; its callback is made once.
type pending struct {
	c   *conn
	l   *inLink
	p   *hub.Partition
	b   message.Builder
	ids []idRange
	// producer is whose batch it is, if it is to be stored once.
	producer event.Producer

	batch *event.Batch
	bytes int64
	err   error
	done  func(error)
}

type idRange struct {
	first, last uint32
}

var pendings sync.Pool

func newPending(c *conn, l *inLink, p *hub.Partition) *pending {
	x, _ := pendings.Get().(*pending)
	if x == nil {
		x = &pending{}
		x.done = func(err error) { // on the log's goroutine
			x.err = err
			x.c.post(x)
		}
	}
	x.c, x.l, x.p = c, l, p
	return x
}

func (x *pending) recycle() {
	b, ids := x.b, x.ids[:0]
	*x = pending{b: b, ids: ids, done: x.done}
	pendings.Put(x)
}

// drop forgets what was gathered.
func (x *pending) drop() {
	x.b.Reset()
	x.recycle()
}

// settle notes that a delivery ends with this append.
func (x *pending) settle(id uint32) {
	if n := len(x.ids); n > 0 && x.ids[n-1].last+1 == id {
		x.ids[n-1].last = id
		return
	}
	x.ids = append(x.ids, idRange{id, id})
}

func (s *session) addIn(x *wire.Attach, credit uint32) *inLink {
	n, _ := x.InitialDeliveryCount.Uint()
	l := &inLink{s: s, handle: x.Handle, count: uint32(n), credit: credit, grant: credit}
	s.in[x.Handle] = l
	s.c.links++
	return l
}

// end gives back what the link holds. What has been gathered or is under way is
// stored all the same.
func (l *inLink) end() { l.dropMessage() }

// detach ends the link. What was sent and is not acknowledged is the peer's to
// send again.
func (l *inLink) detach(e *wire.Error) {
	delete(l.s.in, l.handle)
	l.end()
	l.s.detach(l.handle, e)
}

// transfer takes one frame of a delivery.
func (l *inLink) transfer(x *wire.Transfer, payload []byte) error {
	c := l.s.c
	if l.joining {
		return c.fault(condIllegalState, l.name(), "A transfer on a link that is not attached yet.")
	}
	if !l.active {
		if !x.DeliveryID.Set {
			return c.fault(condIllegalState, "", "The first transfer of a delivery has no delivery-id.")
		}
		l.active, l.id, l.format, l.settled = true, x.DeliveryID.Value, x.MessageFormat.Or(0), x.Settled
		l.size, l.tooBig, l.failed = 0, false, nil
	}
	l.settled = l.settled || x.Settled
	if x.Aborted {
		l.dropMessage()
		l.counted()
		return nil
	}
	if l.size == 0 && l.events != nil {
		switch err := l.events.changed(); {
		case errors.Is(err, errMetadata): // SDKs attach the link again by themselves
			l.detach(c.fault(condDetachForced, l.name(), "The partitions of the event hub have changed, so the link is closed; attach it again."))
			return nil
		case err != nil:
			l.detach(c.amqpError(err, l.name()))
			return nil
		}
	}
	l.size += len(payload)
	switch {
	case l.tooBig || l.failed != nil: // the rest of a delivery that is refused
	case l.size > l.max:
		l.dropParts()
		l.tooBig = true
	case l.events != nil:
		l.failed = l.events.take(l, payload, x.More)
		if errors.Is(l.failed, errTooMuch) {
			return c.begunTooMuch(l.name())
		}
		if l.failed != nil {
			l.dropParts()
		}
	default:
		if err := l.keep(payload); err != nil {
			return c.begunTooMuch(l.name())
		}
	}
	if x.More {
		return nil
	}
	return l.complete()
}

// complete ends a delivery.
func (l *inLink) complete() error {
	c := l.s.c
	id, settled := l.id, l.settled
	l.counted()
	switch {
	case l.tooBig:
		err := c.fault(condTooLarge, l.name(), "The received message (delivery-id:%d, size:%d bytes) exceeds the limit (%d bytes) currently allowed on the link.", id, l.size, l.max)
		l.reject(id, settled, err)
	case l.failed != nil:
		l.reject(id, settled, c.amqpError(l.failed, l.name()))
	case l.events == nil:
		if !settled {
			l.settleRange(id, id)
			l.flushReport()
		}
		l.request(l.carry)
	}
	l.dropMessage()
	return nil
}

func (l *inLink) name() string {
	if l.events != nil {
		return l.events.path
	}
	return l.node
}

// counted is the bookkeeping of a delivery that has ended: credit is topped up
// when half of it is used.
func (l *inLink) counted() {
	l.active = false
	l.count++
	if l.credit > 0 { // pyamqp sends without
		l.credit--
	}
	if l.credit <= l.grant/2 {
		l.credit = l.grant
		l.s.sendFlow(l)
	}
}

// keep adds to the part of a message that has been received.
func (l *inLink) keep(b []byte) error {
	if need := len(l.carry) + len(b); need > cap(l.carry) {
		// By hand, so that a message of 1 MiB leaves few smaller copies behind.
		l.carry = append(make([]byte, 0, max(need, min(2*cap(l.carry), l.max))), l.carry...)
	}
	l.carry = append(l.carry, b...)
	n := int64(cap(l.carry)) - l.held
	l.held += n
	return l.partly(n)
}

// partly counts n bytes more that have been received of unfinished messages.
func (l *inLink) partly(n int64) error {
	c := l.s.c
	c.began(n)
	if c.partial.Load() > maxPartial || c.srv.partial.Load() > maxPartialAll && c.srv.greediest(c) {
		return errTooMuch
	}
	return nil
}

// began counts n bytes more, or less, of messages that have been received in part.
func (c *conn) began(n int64) {
	if n == 0 { // most messages come whole
		return
	}
	c.partial.Add(n)
	c.srv.partial.Add(n)
}

// greediest is called when all connections together hold too much of unfinished
// messages. It ends the one that holds most, which need not be the one that was
// read from last: that may be a well-behaved one's. It returns true if it is.
func (s *Server) greediest(last *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var most *conn
	left := s.partial.Load()
	for c := range s.conns {
		switch n := c.partial.Load(); {
		case c.greedy:
			left -= n
		case most == nil || n > most.partial.Load():
			most = c
		}
	}
	if left <= maxPartialAll || most == nil {
		return false // those that have been told to end make room
	}
	most.greedy = true
	if most != last {
		most.post(tooMuch{})
	}
	return most == last
}

// tooMuch tells a connection that it has begun more messages than any other, and
// that there is no room for them.
type tooMuch struct{}

func (tooMuch) deliver(c *conn) {
	if !c.over {
		c.refuse(c.begunTooMuch(""))
	}
}

func (c *conn) begunTooMuch(entity string) *wire.Error {
	return c.fault(condQuota, entity, "Too many messages have been begun and not finished.")
}

// errTooMuch: what has been received in part is more than a peer may have.
var errTooMuch = errors.New("too much is received in part")

// unkeep drops it.
func (l *inLink) unkeep() {
	l.s.c.began(-l.held)
	l.held = 0
	if cap(l.carry) > 64<<10 {
		l.carry = nil
	}
	l.carry = l.carry[:0]
}

// dropParts forgets what has been received of a message.
func (l *inLink) dropParts() {
	l.unkeep()
	if e := l.events; e != nil && e.batch != nil {
		l.s.c.began(-e.batch.bytes)
		e.batch.drop()
		e.batch = nil
	}
}

func (l *inLink) dropMessage() {
	l.dropParts()
	l.active, l.failed = false, nil
}

// settleRange notes accepted deliveries; neighbours are reported as one range.
func (l *inLink) settleRange(first, last uint32) {
	if l.report && l.reportLast+1 == first {
		l.reportLast = last
		return
	}
	l.flushReport()
	l.report, l.reportFirst, l.reportLast = true, first, last
}

// flushReport sends the disposition of what has been settled.
func (l *inLink) flushReport() {
	if !l.report {
		return
	}
	l.report = false
	first, last := l.reportFirst, l.reportLast
	l.s.frame(func(b []byte) []byte {
		return wire.AppendDisposition(b, wire.RoleReceiver, first, last, wire.Accepted)
	})
}

// reject refuses one delivery; the link stays.
func (l *inLink) reject(id uint32, settled bool, e *wire.Error) {
	if settled {
		l.s.c.log.Info("a message was refused whose sender does not want to know", "error", e)
		return
	}
	l.rejectRange(id, id, e)
}

func (l *inLink) rejectRange(first, last uint32, e *wire.Error) {
	l.flushReport()
	l.s.frame(func(b []byte) []byte {
		return wire.AppendDisposition(b, wire.RoleReceiver, first, last, wire.AppendRejected(nil, e))
	})
}

// submit appends what has been gathered.
func (c *conn) submit() {
	for i, x := range c.touched {
		c.touched[i] = nil
		delete(x.l.events.open, x.p)
		c.append(x)
	}
	c.touched, c.gathered = c.touched[:0], 0
}

// append hands an append to its partition.
func (c *conn) append(x *pending) {
	x.batch = x.b.Batch()
	x.batch.Producer = x.producer
	x.bytes = int64(x.batch.Size())
	x.l.events.underWay++
	c.appending++
	c.unacked += x.bytes
	c.srv.unacked.Add(x.bytes)
	x.l.events.client.Append(x.p, x.batch, x.done)
}

// deliver settles what an append has stored, or says why it hasn't.
func (x *pending) deliver(c *conn) {
	c.appending--
	c.unacked -= x.bytes
	c.srv.unacked.Add(-x.bytes)
	x.batch.Release()
	l := x.l
	l.events.underWay--
	if !c.over && l.s.in[l.handle] == l {
		if x.err == nil {
			for _, r := range x.ids {
				l.settleRange(r.first, r.last)
			}
			l.flushReport()
		} else {
			e := c.amqpError(x.err, l.name())
			for _, r := range x.ids {
				l.rejectRange(r.first, r.last, e)
			}
			if e.Condition == condNotFound { // the hub is gone: so is the link
				l.detach(e)
			}
		}
	}
	x.recycle()
}
