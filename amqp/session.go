package amqp

import (
	"fmt"

	"github.com/millrace/millrace/amqp/wire"
)

// Windows. The incoming one is announced and topped up, not enforced: pyamqp
// counts a delivery of many frames as one (amqp.md 4.5).
const (
	incomingWindow  = 5000
	firstOutgoingID = 1
)

// session is one session of a connection. The broker answers on the channel
// that the peer chose.
type session struct {
	c       *conn
	channel uint16

	nextIncoming  uint32 // transfer id
	sinceFlow     int    // transfers taken since the window was last announced
	nextOutgoing  uint32
	window        uint32 // transfers that the peer takes
	outgoingLimit uint32 // what we announced as our outgoing window
	nextDelivery  uint32

	in  map[uint32]*inLink  // by the peer's handle
	out map[uint32]*outLink // likewise; our handle is the same
}

// performative handles a frame after the open.
func (c *conn) performative(channel uint16, desc byte, list wire.Items, payload []byte) error {
	switch desc {
	case wire.DescBegin:
		return c.begin(channel, list)
	case wire.DescClose:
		if e := wire.DecodeEnding(list); e != nil {
			c.reason = "closed by the peer: " + e.Error()
		} else {
			c.reason = "closed by the peer"
		}
		c.goodbye(nil)
		c.closing = c.now.Add(-closeTimeout) // nothing more is expected
		return nil
	case wire.DescOpen:
		return c.fault(condIllegalState, "", "The connection is open already.")
	}
	s := c.sessions[channel]
	if s == nil {
		return nil // of a session that has ended: pyamqp detaches after its end
	}
	switch desc {
	case wire.DescAttach:
		var x wire.Attach
		if err := x.Decode(list); err != nil {
			return err
		}
		return s.attach(&x)
	case wire.DescFlow:
		var x wire.Flow
		if err := x.Decode(list); err != nil {
			return err
		}
		s.flow(&x)
	case wire.DescTransfer:
		var x wire.Transfer
		if err := x.Decode(list); err != nil {
			return err
		}
		return s.transfer(&x, payload)
	case wire.DescDisposition:
		var x wire.Disposition
		if err := x.Decode(list); err != nil {
			return err
		}
		s.disposition(&x)
	case wire.DescDetach:
		var x wire.Detach
		if err := x.Decode(list); err != nil {
			return err
		}
		s.detached(&x)
	case wire.DescEnd:
		c.submit()
		s.end()
		delete(c.sessions, channel)
		s.frame(func(b []byte) []byte { return wire.AppendEnd(b, nil) })
	default:
		return fmt.Errorf("%w: a performative with descriptor 0x%02x", wire.ErrDecode, desc)
	}
	return nil
}

// begin answers the peer's begin.
func (c *conn) begin(channel uint16, list wire.Items) error {
	var x wire.Begin
	if err := x.Decode(list); err != nil {
		return err
	}
	if channel > maxChannel {
		return c.fault(condFraming, "", "Channel %d is beyond the channel-max of %d.", channel, maxChannel)
	}
	if c.sessions[channel] != nil {
		return c.fault(condIllegalState, "", "Channel %d has a session already.", channel)
	}
	s := &session{
		c: c, channel: channel,
		nextIncoming: x.NextOutgoingID, window: x.IncomingWindow,
		nextOutgoing: firstOutgoingID, outgoingLimit: x.IncomingWindow,
		in: map[uint32]*inLink{}, out: map[uint32]*outLink{},
	}
	c.sessions[channel] = s
	reply := wire.Begin{
		RemoteChannel:  wire.Optional{Value: uint32(channel), Set: true},
		NextOutgoingID: firstOutgoingID, IncomingWindow: incomingWindow,
		OutgoingWindow: x.IncomingWindow, HandleMax: maxHandle,
	}
	s.frame(reply.Append)
	return nil
}

// frame sends a frame whose body is appended by fn.
func (s *session) frame(fn func([]byte) []byte) {
	var at int
	s.c.out, at = wire.BeginFrame(s.c.out, wire.FrameAMQP, s.channel)
	s.c.out = fn(s.c.out)
	wire.EndFrame(s.c.out, at)
}

// flow takes the peer's flow.
func (s *session) flow(x *wire.Flow) {
	// What the peer takes is counted from the transfer that it expects next;
	// before it has seen our begin, that is our first.
	s.window = x.NextIncomingID.Or(firstOutgoingID) + x.IncomingWindow - s.nextOutgoing
	if int32(s.window) < 0 {
		s.window = 0
	}
	if !x.Handle.Set {
		if x.Echo {
			s.sendFlow(nil)
		}
		s.wake()
		return
	}
	if l := s.out[x.Handle.Value]; l != nil {
		l.flow(x)
		s.wake()
		return
	}
	if l := s.in[x.Handle.Value]; l != nil { // senders too send flows; their credit is ours to give
		if x.DeliveryCount.Set && x.LinkCredit.Set {
			l.count = x.DeliveryCount.Value
		}
		if x.Echo && !l.joining {
			s.sendFlow(l)
		}
	}
}

// wake has the session's links looked at for something to send.
func (s *session) wake() {
	for _, l := range s.out {
		l.wake()
	}
}

// sendFlow announces the window, and a sender's credit if a link is given.
func (s *session) sendFlow(l *inLink) {
	x := wire.Flow{
		NextIncomingID: wire.Optional{Value: s.nextIncoming, Set: true},
		IncomingWindow: incomingWindow,
		NextOutgoingID: s.nextOutgoing,
		OutgoingWindow: s.outgoingLimit,
	}
	if l != nil {
		x.Handle = wire.Optional{Value: l.handle, Set: true}
		x.DeliveryCount = wire.Optional{Value: l.count, Set: true}
		x.LinkCredit = wire.Optional{Value: l.credit, Set: true}
	}
	s.sinceFlow = 0
	s.frame(x.Append)
}

// transfer takes a transfer frame.
func (s *session) transfer(x *wire.Transfer, payload []byte) error {
	s.nextIncoming++
	if s.sinceFlow++; s.sinceFlow >= incomingWindow/2 {
		s.sendFlow(nil)
	}
	l := s.in[x.Handle]
	if l == nil {
		if s.out[x.Handle] != nil {
			return s.c.fault(condNotAllowed, "", "A transfer on a link that receives.")
		}
		return nil // detached meanwhile
	}
	return l.transfer(x, payload)
}

// disposition takes the peer's. Those about our deliveries say nothing that we
// need, but a receiver that settles second waits for an answer.
func (s *session) disposition(x *wire.Disposition) {
	if x.Role == wire.RoleReceiver && !x.Settled {
		s.frame(func(b []byte) []byte {
			return wire.AppendDisposition(b, wire.RoleSender, x.First, x.Last, x.State.Full)
		})
	}
}

// detached takes the peer's detach and answers it.
func (s *session) detached(x *wire.Detach) {
	s.c.submit()
	if l := s.in[x.Handle]; l != nil {
		delete(s.in, x.Handle)
		l.end()
	} else if l := s.out[x.Handle]; l != nil {
		delete(s.out, x.Handle)
		l.end()
	} else {
		return // the second of two
	}
	s.c.links--
	reply := wire.Detach{Handle: x.Handle, Closed: true}
	s.frame(reply.Append)
}

// detach ends a link for a reason.
func (s *session) detach(handle uint32, e *wire.Error) {
	s.c.links--
	x := wire.Detach{Handle: handle, Closed: true, Error: e}
	s.frame(x.Append)
}

// end gives back what the session's links hold.
func (s *session) end() {
	for h, l := range s.in {
		delete(s.in, h)
		s.c.links--
		l.end()
	}
	for h, l := range s.out {
		delete(s.out, h)
		s.c.links--
		l.end()
	}
}

// endSessions gives back what all sessions hold.
func (c *conn) endSessions() {
	for ch, s := range c.sessions {
		delete(c.sessions, ch)
		s.end()
	}
	c.ready = nil
}
