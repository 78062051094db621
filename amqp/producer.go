package amqp

import (
	"math"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// A producer whose batches are to be stored once only attaches with a capability
// and says in the link's properties who it is (amqp.md 6.1):
//
//	desired-capabilities  com.microsoft:idempotent-producer
//	properties            com.microsoft:producer-id               long
//	                      com.microsoft:producer-epoch            short
//	                      com.microsoft:producer-sequence-number  int, the last published
//
// What is absent or null is the broker's to say; the reply has all three. Batches,
// and each event in them, then have the same as annotations, with the sequence
// number of the first event or their own.

const capIdempotent = "com.microsoft:idempotent-producer"

// claimed reads what a sender's attach says of its producer. ok is false if it
// does not want to be one whose batches are stored once.
func (c *conn) claimed(x *wire.Attach, path string) (claim hub.Claim, ok bool, err error) {
	err = x.DesiredCapabilities.Symbols(func(sym []byte) { ok = ok || string(sym) == capIdempotent })
	if err != nil || !ok {
		return claim, false, err
	}
	it, err := x.Properties.Map()
	if err != nil {
		return claim, false, err
	}
	for it.Len() > 0 {
		k, v := it.Next(), it.Next()
		if err := it.Err(); err != nil {
			return claim, false, err
		}
		key, _ := k.Text()
		limit := message.StampLimit(key)
		if limit == 0 || v.IsNull() {
			continue
		}
		n, isInt := v.Integer()
		if !isInt {
			return claim, false, &hub.Error{Kind: hub.InvalidArgument, Entity: path, Text: "The property '" + string(key) + "' is not an integer."}
		}
		if n < 0 || n > limit {
			return claim, false, c.fault(condArgumentRange, path,
				"Invalid range for idempotent producer state. Producer Id, Epoch, and Sequence Number must be zero or positive.")
		}
		switch limit {
		case math.MaxInt64:
			claim.ID = &n
		case math.MaxInt16:
			claim.Epoch = new(int16(n))
		default:
			claim.Sequence = new(int32(n))
		}
	}
	return claim, true, nil
}

// joining is a sender's attach that waits for its producer's state.
type joining struct {
	l      *inLink
	attach *wire.Attach
	who    event.Producer
	err    error
}

// join begins to attach a link of a producer: its state may have to be read from
// the log, or is to be stored.
func (s *session) join(l *inLink, x *wire.Attach, claim hub.Claim) {
	c := s.c
	m := &joining{l: l, attach: cloneAttach(x)}
	l.joining = true
	c.wg.Go(func() {
		m.who, m.err = l.events.partition.JoinProducer(c.ctx, claim)
		c.post(m)
	})
}

// deliver finishes the attach.
func (m *joining) deliver(c *conn) {
	l, s := m.l, m.l.s
	if c.over || s.in[l.handle] != l { // ended meanwhile
		return
	}
	l.joining = false
	e := l.events
	if m.err != nil {
		delete(s.in, l.handle)
		c.links--
		e.hub.Metrics.Failed(m.err)
		s.refuse(m.attach, c.amqpError(m.err, e.path))
		return
	}
	e.producer = m.who
	properties, err := producerProperties(m.attach.Properties, &m.who)
	if err != nil { // it has been read before
		delete(s.in, l.handle)
		c.links--
		s.refuse(m.attach, c.amqpError(err, e.path))
		return
	}
	m.attach.Properties = properties
	m.attach.OfferedCapabilities = mustValue(wire.AppendSymbol(nil, capIdempotent))
	s.accept(m.attach, or(m.attach.SndSettleMode, mixedMode), firstMode, uint64(l.max))
	s.sendFlow(l)
}

// producerProperties are a link's properties with its producer's.
func producerProperties(given wire.Value, p *event.Producer) (wire.Value, error) {
	it, err := given.Map()
	if err != nil {
		return wire.Value{}, err
	}
	var kept []byte
	n := 0
	for it.Len() > 0 {
		k, v := it.Next(), it.Next()
		if err := it.Err(); err != nil {
			return wire.Value{}, err
		}
		if key, _ := k.Text(); message.StampLimit(key) == 0 {
			kept = append(append(kept, k.Full...), v.Full...)
			n += 2
		}
	}
	b, at := wire.BeginMap(nil, n+6)
	b = append(b, kept...)
	b = wire.AppendLong(wire.AppendSymbol(b, message.AnnotationProducerID), p.ID)
	b = wire.AppendShort(wire.AppendSymbol(b, message.AnnotationProducerEpoch), p.Epoch)
	b = wire.AppendInt(wire.AppendSymbol(b, message.AnnotationProducerSequence), p.Sequence)
	wire.EndCompound(b, at)
	v, _, err := wire.Read(b)
	return v, err
}

// numbered is what the annotations of a producer's batch have said so far.
type numbered struct {
	first int32 // sequence number of the first event
	known bool
	count int // events so far
}

// envelope takes the annotations of a batch's envelope.
func (e *ingest) envelope(s *message.Stamp) error {
	if !e.producer.Set {
		return nil
	}
	if err := e.stamped(s); err != nil {
		return err
	}
	if s.HasSequence {
		e.numbered.first, e.numbered.known = s.Sequence, true
	}
	return nil
}

// number takes the annotations of the next event of a batch, or of a single one.
func (e *ingest) number(s *message.Stamp) error {
	if err := e.stamped(s); err != nil {
		return err
	}
	n := &e.numbered
	switch {
	case !s.HasSequence:
		if !n.known {
			return &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The event has no sequence number, which a producer whose events are stored once gives to each."}
		}
	case !n.known:
		n.first, n.known = s.Sequence, true
	case s.Sequence != event.NextSequence(n.first, n.count):
		return &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The sequence numbers within the batch do not follow each other."}
	}
	n.count++
	return nil
}

// stamped holds annotations to what the link was attached with.
func (e *ingest) stamped(s *message.Stamp) error {
	if s.Wrong || s.HasID && s.ID != e.producer.ID || s.HasEpoch && s.Epoch != e.producer.Epoch {
		return &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The event's producer id, epoch or sequence number is not what the link's producer would send."}
	}
	return nil
}

// identity is the producer of the batch that has ended, as it is stored.
func (e *ingest) identity() event.Producer {
	p := e.producer
	p.Sequence = e.numbered.first
	e.numbered = numbered{}
	return p
}

// singleOf appends one event of a producer: a batch of its own.
func (e *ingest) singleOf(l *inLink, msg []byte) error {
	c := l.s.c
	p := &c.parsed
	e.numbered = numbered{}
	if err := p.Parse(msg); err != nil {
		return e.malformed(err)
	}
	part, err := e.route(p.PartitionKey)
	if err != nil {
		return err
	}
	if err := e.number(&p.Stamp); err != nil {
		return err
	}
	x := newPending(c, l, part)
	x.b.Add(p, message.Marks{}, len(msg))
	x.producer = e.identity()
	if !l.settled {
		x.settle(l.id)
	}
	c.append(x)
	return nil
}
