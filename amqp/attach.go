package amqp

import (
	"fmt"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// Properties and capabilities of links.
const (
	propEpoch         = "com.microsoft:epoch"
	propReceiverName  = "com.microsoft:receiver-name"
	capRuntimeMetrics = "com.microsoft:enable-receiver-runtime-metric"
)

// Credit granted to senders (amqp.md 2.1, 4.3).
const (
	creditRequests  = 100
	creditHub       = 300
	creditPartition = 1000
)

// Settle modes, encoded.
var (
	settledMode  = mustValue(wire.AppendUbyte(nil, wire.SenderSettled))
	mixedMode    = mustValue(wire.AppendUbyte(nil, wire.SenderMixed))
	firstMode    = mustValue(wire.AppendUbyte(nil, wire.ReceiverFirst))
	zeroDelivery = mustValue(wire.AppendUint(nil, 0))
)

func mustValue(b []byte) wire.Value {
	v, _, err := wire.Read(b)
	if err != nil {
		panic(err)
	}
	return v
}

func or(v, def wire.Value) wire.Value {
	if v.IsNull() {
		return def
	}
	return v
}

// attach answers the peer's attach, or begins to.
func (s *session) attach(x *wire.Attach) error {
	c := s.c
	if s.in[x.Handle] != nil || s.out[x.Handle] != nil {
		return c.fault(condIllegalState, "", "Handle %d is in use.", x.Handle)
	}
	if c.links >= maxLinks {
		s.refuse(x, c.fault(condQuota, "", "The connection has %d links; no more are allowed.", maxLinks))
		return nil
	}
	x.OfferedCapabilities = wire.Value{} // the reply has ours
	node := x.Target
	if x.Role == wire.RoleReceiver {
		node = x.Source
	}
	var t wire.Terminus
	if err := t.Decode(node); err != nil {
		return err
	}
	a, err := parseAddress(string(t.Address))
	if err != nil {
		s.refuse(x, c.fault(condArgument, string(t.Address), "%s.", err))
		return nil
	}
	switch {
	case a.node != "" && x.Role == wire.RoleSender:
		s.attachRequests(x, &a)
	case a.node != "":
		err = s.attachReplies(x, &a)
	case x.Role == wire.RoleSender:
		err = s.attachSender(x, &a)
	default:
		err = s.attachReceiver(x, &a, t.Filter)
	}
	if err != nil {
		s.refuse(x, c.amqpError(err, a.path()))
	}
	return nil
}

// refuse answers an attach as the service refuses one: an attach without source
// and target, and at once a detach that says why (amqp.md 4.8).
func (s *session) refuse(x *wire.Attach, e *wire.Error) {
	s.c.log.Debug("a link was refused", "error", e)
	reply := wire.Attach{Name: x.Name, Handle: x.Handle, Role: !x.Role}
	if reply.Role == wire.RoleSender {
		reply.InitialDeliveryCount = zeroDelivery
	}
	s.frame(reply.Append)
	d := wire.Detach{Handle: x.Handle, Closed: true, Error: e}
	s.frame(d.Append)
}

// accept answers an attach with what the peer sent, and our part.
func (s *session) accept(x *wire.Attach, snd, rcv wire.Value, maxSize uint64) {
	reply := wire.Attach{
		Name: x.Name, Handle: x.Handle, Role: !x.Role,
		SndSettleMode: snd, RcvSettleMode: rcv,
		Source: x.Source, Target: x.Target,
		MaxMessageSize: maxSize, OfferedCapabilities: x.OfferedCapabilities, Properties: x.Properties,
	}
	if reply.Role == wire.RoleSender {
		reply.InitialDeliveryCount = zeroDelivery
	}
	s.frame(reply.Append)
}

// noLimit is the max-message-size of links to nodes.
const noLimit = 1<<64 - 1

// attachRequests attaches a link on which the peer sends requests to a node.
func (s *session) attachRequests(x *wire.Attach, a *address) {
	l := s.addIn(x, creditRequests)
	l.node, l.nodeHub = a.node, a.hub
	l.max = maxRequest
	s.accept(x, or(x.SndSettleMode, mixedMode), or(x.RcvSettleMode, firstMode), noLimit)
	s.sendFlow(l)
}

// attachReplies attaches a link on which the peer receives a node's replies.
func (s *session) attachReplies(x *wire.Attach, a *address) error {
	var target wire.Terminus
	if err := target.Decode(x.Target); err != nil {
		return err
	}
	name, _ := x.Name.Text()
	l := s.addOut(x)
	mode, ok := x.SndSettleMode.Uint()
	l.settled = ok && mode == wire.SenderSettled
	l.replies = &replies{node: a.node, target: string(target.Address), name: string(name)}
	s.accept(x, or(x.SndSettleMode, mixedMode), or(x.RcvSettleMode, firstMode), noLimit)
	l.prepare()
	return nil
}

// allowed returns the claims, of the connection's tokens, that give a right on an
// entity: those that were put for it, if they do.
func (c *conn) allowed(right auth.Rights, path string) (*auth.Claims, error) {
	if claims := c.claims[auth.EntityPath(path)]; claims.Allows(right, path, c.now) {
		return claims, nil
	}
	for _, claims := range c.claims {
		if claims.Allows(right, path, c.now) {
			return claims, nil
		}
	}
	return nil, &auth.Error{Kind: auth.Unauthorized, Text: fmt.Sprintf(
		"Unauthorized access. '%s' claim(s) are required to perform this operation. Resource: 'sb://%s/%s'.", right, c.ns.Name, path)}
}

// attachSender attaches a link on which the peer sends events.
func (s *session) attachSender(x *wire.Attach, a *address) error {
	c := s.c
	h, err := c.ns.EventHub(a.hub)
	if err != nil {
		return err
	}
	if a.group != "" {
		return &hub.Error{Kind: hub.InvalidArgument, Entity: a.path(), Text: "Events are sent to an event hub, a partition or a publisher, not to a consumer group."}
	}
	credit := uint32(creditHub)
	var p *hub.Partition
	if a.partition != "" {
		if p, err = h.Partition(a.partition); err != nil {
			return err
		}
		credit = creditPartition
	}
	claims, err := c.allowed(auth.Send, a.path())
	if err != nil {
		h.Metrics.Failed(err)
		return err
	}
	if err := h.MaySend(); err != nil {
		h.Metrics.Failed(err)
		return err
	}
	if len(a.publisher) > hub.MaxPublisher {
		return &hub.Error{Kind: hub.InvalidArgument, Entity: a.path(), Text: "The publisher's name is too long."}
	}
	if a.publisher != "" {
		if err := h.MayPublish(a.publisher); err != nil {
			h.Metrics.Failed(err)
			return err
		}
	}
	claim, once, err := c.claimed(x, a.path())
	if err != nil {
		h.Metrics.Failed(err)
		return err
	}
	if once && p == nil && claim == (hub.Claim{}) {
		once = false // it is desired, and not offered
	}
	if once && p == nil {
		err := &hub.Error{Kind: hub.InvalidArgument, Entity: a.path(), Text: "A producer whose events are stored once sends to a partition, not to an event hub or a publisher."}
		h.Metrics.Failed(err)
		return err
	}
	l := s.addIn(x, credit)
	l.events = &ingest{hub: h, partition: p, path: a.path(), partitions: h.Partitions(), client: c.ns.Client(claims)}
	if a.publisher != "" {
		l.events.publisher = []byte(a.publisher)
	}
	l.max = c.ns.Quotas().Publication
	if x.MaxMessageSize > 0 && x.MaxMessageSize < uint64(l.max) {
		l.max = int(x.MaxMessageSize)
	}
	if once {
		s.join(l, x, claim)
		return nil
	}
	s.accept(x, or(x.SndSettleMode, mixedMode), firstMode, uint64(l.max))
	s.sendFlow(l)
	return nil
}

// attachReceiver begins to attach a link on which the peer receives events: the
// place in the group is taken here, the log is opened elsewhere.
func (s *session) attachReceiver(x *wire.Attach, a *address, filter wire.Value) error {
	c := s.c
	h, err := c.ns.EventHub(a.hub)
	if err != nil {
		return err
	}
	if a.partition == "" || a.group == "" {
		return &hub.Error{Kind: hub.InvalidArgument, Entity: a.path(), Text: "Events are received from 'HUB/ConsumerGroups/GROUP/Partitions/ID'."}
	}
	g, err := h.Group(a.group)
	if err != nil {
		return err
	}
	p, err := h.Partition(a.partition)
	if err != nil {
		return err
	}
	claims, err := c.allowed(auth.Listen, a.path())
	if err != nil {
		h.Metrics.Failed(err)
		return err
	}
	pos, err := startOf(filter)
	if err != nil {
		return &hub.Error{Kind: hub.InvalidArgument, Entity: a.path(), Text: err.Error() + "."}
	}
	o, err := c.receiverOptions(x.Properties)
	if err != nil {
		return err
	}
	l := s.addOut(x)
	l.settled = true
	d := &delivery{hub: h, partition: p, path: a.path(), client: c.ns.Client(claims)}
	l.events = d
	if err := x.DesiredCapabilities.Symbols(func(sym []byte) { d.metrics = d.metrics || string(sym) == capRuntimeMetrics }); err != nil {
		delete(s.out, x.Handle)
		c.links--
		return err
	}
	o.Lost = func(err error) { // from another goroutine; deliveries end at once
		m := &lost{l, err}
		d.lost.Store(m)
		c.post(m)
	}
	if d.seat, err = g.Join(p, o); err != nil {
		delete(s.out, x.Handle)
		c.links--
		h.Metrics.Failed(err)
		return err
	}
	l.attaching = cloneAttach(x)
	c.wg.Go(func() { c.openReceiver(l, pos) })
	return nil
}

// receiverOptions reads a receiver's name and epoch. Unknown keys are ignored.
func (c *conn) receiverOptions(properties wire.Value) (hub.ReceiverOptions, error) {
	var o hub.ReceiverOptions
	it, err := properties.Map()
	if err != nil {
		return o, err
	}
	for it.Len() > 0 {
		k, v := it.Next(), it.Next()
		if err := it.Err(); err != nil {
			return o, err
		}
		key, _ := k.Text()
		switch string(key) {
		case propReceiverName:
			name, _ := v.Text()
			o.Name = string(name)
		case propEpoch:
			if v.IsNull() {
				continue
			}
			n, ok := v.Integer()
			if !ok || n < 0 {
				return o, &hub.Error{Kind: hub.InvalidArgument, Text: "The epoch of a receiver is an integer of zero or more."}
			}
			o.Exclusive, o.Epoch = true, n
		}
	}
	return o, nil
}

// cloneAttach copies what an attach is answered with out of the frame.
func cloneAttach(x *wire.Attach) *wire.Attach {
	y := *x
	for _, v := range []*wire.Value{&y.Name, &y.SndSettleMode, &y.RcvSettleMode, &y.Source, &y.Target, &y.Properties} {
		if v.Full != nil {
			*v = mustValue(append([]byte{}, v.Full...))
		}
	}
	y.OfferedCapabilities, y.DesiredCapabilities, y.InitialDeliveryCount = wire.Value{}, wire.Value{}, wire.Value{}
	return &y
}

// opened is what openReceiver found.
type opened struct {
	l      *outLink
	reader *hub.Reader
	next   event.SequenceNumber
	err    error
}

// openReceiver opens the log of a receiver and finds its start.
func (c *conn) openReceiver(l *outLink, pos event.Position) {
	m := &opened{l: l}
	m.reader, m.err = l.events.partition.OpenReader(c.ctx)
	if m.err == nil {
		if m.next, m.err = m.reader.Start(c.ctx, pos); m.err != nil {
			m.reader.Close()
			m.reader = nil
		}
	}
	c.post(m)
}

// deliver finishes the attach.
func (m *opened) deliver(c *conn) {
	l, s := m.l, m.l.s
	if c.over || s.out[l.handle] != l { // ended meanwhile
		if m.reader != nil {
			m.reader.Close()
		}
		return
	}
	x := l.attaching
	l.attaching = nil
	d := l.events
	if lost := d.lost.Load(); m.err == nil && lost != nil {
		m.reader.Close()
		m.err = lost.err
	}
	if m.err != nil {
		delete(s.out, l.handle)
		c.links--
		d.seat.Leave()
		d.hub.Metrics.Failed(m.err)
		s.refuse(x, c.amqpError(m.err, d.path))
		return
	}
	d.reader, d.next = m.reader, m.next
	s.accept(x, settledMode, or(x.RcvSettleMode, firstMode), uint64(s.c.ns.Quotas().Publication))
	l.prepare()
	l.wake()
}
