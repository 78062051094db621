package amqp

import (
	"encoding/binary"
	"errors"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// changed tells why the link has to be attached anew before it may send again,
// if it has to.
func (e *ingest) changed() error {
	if e.publisher != nil {
		if err := e.hub.MayPublish(string(e.publisher)); err != nil {
			e.hub.Metrics.Failed(err)
			return err
		}
	}
	// While something is under way its sender would not learn that it was stored.
	if e.partition == nil && e.underWay == 0 && len(e.open) == 0 && e.hub.Partitions() != e.partitions {
		return errMetadata
	}
	return nil
}

// errMetadata: the hub has got more partitions.
var errMetadata = errors.New("the event hub has changed")

// take handles a frame's part of an event or a batch of events. more says that
// further frames follow. An error refuses the delivery.
func (e *ingest) take(l *inLink, payload []byte, more bool) error {
	switch {
	case l.format == message.BatchFormat:
		return e.takeBatch(l, payload, more)
	case l.format != 0:
		return &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The message format is not one that event hubs know."}
	case more:
		return l.keep(payload)
	case len(l.carry) > 0:
		if err := l.keep(payload); err != nil {
			return err
		}
		payload = l.carry
	}
	if e.producer.Set {
		return e.singleOf(l, payload)
	}
	return e.single(l, payload)
}

// single gathers one event. What comes for a partition in the same input, or
// while an append of the connection is under way, is appended as one: under load
// the appends grow, and cost less for each event, and a lone event never waits.
func (e *ingest) single(l *inLink, msg []byte) error {
	c := l.s.c
	p := &c.parsed
	if err := p.Parse(msg); err != nil {
		return e.malformed(err)
	}
	part, err := e.route(p.PartitionKey)
	if err != nil {
		return err
	}
	x := e.open[part]
	if x == nil {
		if e.open == nil {
			e.open = map[*hub.Partition]*pending{}
		}
		x = newPending(c, l, part)
		e.open[part] = x
		c.touched = append(c.touched, x)
	}
	before := x.b.Size()
	x.b.Add(p, message.Marks{PartitionKey: e.publisher, Publisher: e.publisher}, c.unread+len(msg))
	c.gathered += x.b.Size() - before
	if !l.settled {
		x.settle(l.id)
	}
	if x.b.Size() >= gatherBytes {
		c.submit()
	}
	return nil
}

const (
	// gatherBytes is how much of single events is gathered at most.
	gatherBytes = 256 << 10
	// gatherEnough is how much does not wait for the append under way: a record.
	gatherEnough = event.SlabSize
)

func (e *ingest) malformed(err error) error {
	if errors.Is(err, message.ErrEmpty) {
		err = errors.New("the message is empty")
	}
	return &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The message can't be read: " + err.Error() + "."}
}

// route returns the partition that an event or a batch goes to.
func (e *ingest) route(key []byte) (*hub.Partition, error) {
	if len(key) > hub.MaxPartitionKey {
		return nil, &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The partition key is too long."}
	}
	switch {
	case e.publisher != nil && key != nil && string(key) != string(e.publisher):
		return nil, &hub.Error{Kind: hub.InvalidArgument, Entity: e.path, Text: "The partition key must be the publisher's name, '" + string(e.publisher) + "'."}
	case e.partition != nil:
		return e.partition, nil
	case e.publisher != nil:
		return e.hub.ForKey(string(e.publisher)), nil
	case key != nil:
		return e.hub.ForKey(string(key)), nil
	}
	return e.hub.Next(), nil
}

// takeBatch handles a frame's part of a batch: the envelope's sections, and data
// sections, each a message of its own. They are taken apart as they come; only
// what is cut by the frame's end is kept.
func (e *ingest) takeBatch(l *inLink, payload []byte, more bool) error {
	c := l.s.c
	if e.batch == nil {
		e.batch = newPending(c, l, nil)
		e.key, e.routeKey, e.first, e.numbered = nil, nil, true, numbered{}
	}
	if err := e.takeSections(l, payload, more); err != nil {
		return err
	}
	if !more {
		return e.endBatch(l)
	}
	x := e.batch
	n := int64(x.b.Size()) - x.bytes
	x.bytes += n
	return l.partly(n)
}

// takeSections takes apart what it can of a frame.
func (e *ingest) takeSections(l *inLink, payload []byte, more bool) error {
	for len(l.carry) > 0 && len(payload) > 0 { // finish what the last frame cut
		n, ok := sectionSize(l.carry)
		if !ok {
			n = len(l.carry) + 1 // more of its head is needed
		}
		take := min(n-len(l.carry), len(payload))
		if err := l.keep(payload[:take]); err != nil {
			return err
		}
		payload = payload[take:]
		if n, ok = sectionSize(l.carry); ok && len(l.carry) >= n {
			err := e.section(l, l.carry, len(payload))
			l.unkeep()
			if err != nil {
				return err
			}
		}
	}
	for len(payload) > 0 {
		if msg, n, ok := message.Data(payload); ok {
			if err := e.inBatch(l, msg, len(payload)-n); err != nil {
				return err
			}
			payload = payload[n:]
			continue
		}
		n, ok := sectionSize(payload)
		if !ok || n > len(payload) {
			if !more {
				return e.malformed(errors.New("the batch ends within a section"))
			}
			return l.keep(payload)
		}
		if err := e.section(l, payload[:n], len(payload)-n); err != nil {
			return err
		}
		payload = payload[n:]
	}
	return nil
}

// sectionSize returns the length of the section at the head of b, as soon as
// enough of it is there to tell. Only the form that clients use is told apart
// early: a small ulong and a value of 32 bits of length or less.
func sectionSize(b []byte) (int, bool) {
	const head = 3
	if len(b) <= head {
		return 0, false
	}
	if b[0] == wire.CodeDescribed && b[1] == wire.CodeSmallUlong {
		switch b[head] >> 4 {
		case 0xA, 0xC, 0xE:
			if len(b) < head+2 {
				return 0, false
			}
			return head + 2 + int(b[head+1]), true
		case 0xB, 0xD, 0xF:
			if len(b) < head+5 {
				return 0, false
			}
			n := head + 5 + int(binary.BigEndian.Uint32(b[head+1:]))
			return n, n > 0
		}
	}
	n, err := wire.Size(b)
	if err != nil {
		return 0, false // more may make it whole; the end of the batch decides
	}
	return n, true
}

// section takes one section of a batch. left is how much of the frame follows.
func (e *ingest) section(l *inLink, b []byte, left int) error {
	s, _, err := message.Next(b)
	if err != nil {
		return e.malformed(err)
	}
	switch s.Code {
	case wire.DescData:
		msg, _ := s.Body.Binary()
		return e.inBatch(l, msg, left)
	case wire.DescMessageAnn:
		var p message.Parsed
		if err := p.Parse(s.Full); err != nil {
			return e.malformed(err)
		}
		if err := e.envelope(&p.Stamp); err != nil {
			return err
		}
		if p.PartitionKey != nil {
			e.key = append([]byte{}, p.PartitionKey...)
		}
	case wire.DescSequence, wire.DescValue:
		return e.malformed(errors.New("a batch holds data sections only"))
	}
	return nil
}

// inBatch takes a batch's next message. left is how much of the frame follows.
func (e *ingest) inBatch(l *inLink, msg []byte, left int) error {
	x, p := e.batch, &l.s.c.parsed
	if err := p.Parse(msg); err != nil {
		return e.malformed(err)
	}
	if e.producer.Set {
		if err := e.number(&p.Stamp); err != nil {
			return err
		}
	}
	marks := message.Marks{PartitionKey: e.key, Publisher: e.publisher}
	if e.publisher != nil {
		if _, err := e.route(p.PartitionKey); err != nil {
			return err
		}
		marks.PartitionKey = e.publisher
	}
	if e.first { // its key decides, if the envelope has none
		e.first = false
		if e.routeKey = e.key; e.key == nil && p.PartitionKey != nil {
			e.routeKey = append([]byte{}, p.PartitionKey...)
		}
	}
	x.b.Add(p, marks, left+len(msg))
	return nil
}

// endBatch appends the batch.
func (e *ingest) endBatch(l *inLink) error {
	x := e.batch
	if x.b.Count() == 0 {
		return e.malformed(errors.New("the batch has no events"))
	}
	part, err := e.route(e.routeKey)
	if err != nil {
		return err
	}
	c := l.s.c
	c.began(-x.bytes)
	x.bytes = 0
	e.batch = nil
	x.p = part
	if e.producer.Set {
		x.producer = e.identity()
	}
	if !l.settled {
		x.settle(l.id)
	}
	// What was sent before it, on this link, is stored before it.
	c.submit()
	c.append(x)
	return nil
}
