package amqp

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/millrace/millrace/amqp/wire"
)

// The SASL mechanisms, in the service's order. EXTERNAL is offered and refused.
const (
	mechCBS       = "MSSBCBS"
	mechPlain     = "PLAIN"
	mechAnonymous = "ANONYMOUS"
	mechExternal  = "EXTERNAL"
)

// input handles whole frames and protocol headers. An error is the peer's
// fault, and ends the connection.
func (c *conn) input(b []byte) error {
	for len(b) > 0 && c.phase != closed {
		if isHeader(b) {
			if err := c.header([8]byte(b)); err != nil {
				return err
			}
			b = b[wire.FrameHeaderSize:]
			continue
		}
		n, err := wire.FrameSize(b, maxFrameSize)
		if err != nil {
			return err
		}
		f, err := wire.ReadFrame(b[:n])
		if err != nil {
			return err
		}
		c.unread = len(b) - n
		if err := c.frame(f); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// header answers a protocol header. A peer may skip SASL (amqp.md 1.4).
func (c *conn) header(h [8]byte) error {
	switch {
	case h == wire.HeaderSASL && c.phase == expectHeader:
		c.out = append(c.out, wire.HeaderSASL[:]...)
		var at int
		c.out, at = wire.BeginFrame(c.out, wire.FrameSASL, 0)
		c.out = wire.AppendMechanisms(c.out, mechCBS, mechPlain, mechAnonymous, mechExternal)
		wire.EndFrame(c.out, at)
		c.phase = expectInit
	case h == wire.HeaderAMQP && (c.phase == expectHeader || c.phase == expectAMQP):
		c.out = append(c.out, wire.HeaderAMQP[:]...)
		c.phase = expectOpen
	default:
		return fmt.Errorf("%w: the protocol header % x is not expected here", wire.ErrDecode, h)
	}
	return nil
}

// frame handles one frame.
func (c *conn) frame(f wire.Frame) error {
	if len(f.Body) == 0 {
		return nil // a heartbeat
	}
	desc, list, n, err := wire.ReadPerformative(f.Body)
	if err != nil {
		return err
	}
	switch c.phase {
	case expectInit:
		if f.Type != wire.FrameSASL || desc != wire.DescInit {
			return errors.New("a sasl-init was expected")
		}
		var x wire.Init
		if err := x.Decode(list); err != nil {
			return err
		}
		return c.sasl(&x)
	case expectOpen:
		if f.Type != wire.FrameAMQP || desc != wire.DescOpen {
			return errors.New("an open was expected")
		}
		if err := c.peer.Decode(list); err != nil {
			return err
		}
		return c.open()
	case established:
		if f.Type != wire.FrameAMQP {
			return errors.New("a SASL frame after the open")
		}
		return c.performative(f.Channel, desc, list, f.Body[n:])
	}
	return errors.New("a frame before the protocol header")
}

// sasl answers a sasl-init. Who is anonymous shows a token later.
func (c *conn) sasl(x *wire.Init) error {
	code, data := byte(0), "Welcome!"
	switch x.Mechanism {
	case mechCBS, mechAnonymous:
	case mechPlain:
		parts := bytes.Split(x.Response, []byte{0})
		if len(parts) != 3 {
			code, data = 1, ""
			break
		}
		c.login = &login{user: string(parts[1]), password: string(parts[2])}
		ns := c.srv.o.Namespaces.Lookup(x.Hostname)
		if _, err := c.srv.o.Verifier.VerifyKey(ns.Name, "", c.login.user, c.login.password); err != nil {
			c.log.Info("SASL PLAIN was refused", "error", err)
			code, data = 1, ""
		}
	default:
		code, data = 1, ""
	}
	var at int
	c.out, at = wire.BeginFrame(c.out, wire.FrameSASL, 0)
	c.out = wire.AppendOutcome(c.out, code, data)
	wire.EndFrame(c.out, at)
	c.phase = expectAMQP
	if code != 0 {
		c.reason, c.bad = "SASL "+x.Mechanism+" was refused", true
		c.phase, c.closing = closed, c.now
	}
	return nil
}

// open answers the peer's open.
func (c *conn) open() error {
	c.ns = c.srv.o.Namespaces.Lookup(c.peer.Hostname)
	if err := c.ns.Admits(c.nc.RemoteAddr().String()); err != nil {
		return c.amqpError(err, "")
	}
	if c.login != nil {
		claims, err := c.srv.o.Verifier.VerifyKey(c.ns.Name, "", c.login.user, c.login.password)
		if err != nil {
			return c.amqpError(err, "")
		}
		if err := c.mayConnect(claims); err != nil {
			return c.amqpError(err, "")
		}
		c.claims[""], c.trusted, c.local = claims, true, true
		c.login = nil
	}
	if c.peer.MaxFrameSize < wire.MinMaxFrameSize {
		return fmt.Errorf("%w: a max-frame-size of %d is less than %d", wire.ErrDecode, c.peer.MaxFrameSize, wire.MinMaxFrameSize)
	}
	c.peerFrame = int(min(c.peer.MaxFrameSize, maxFrameSize))
	c.sendOpen()
	c.phase = established
	if err := c.ns.Connect(); err != nil {
		return c.amqpError(err, "")
	}
	c.counted = true
	c.unwatch = c.ns.Watch(func() { c.post(changed{}) })
	c.log = c.log.With("container", c.peer.ContainerID)
	c.log.Debug("connection opened", "hostname", c.peer.Hostname, "namespace", c.ns.Name)
	return nil
}

func (c *conn) sendOpen() {
	x := wire.Open{
		ContainerID:  c.id,
		MaxFrameSize: min(c.peer.MaxFrameSize, maxFrameSize),
		ChannelMax:   maxChannel,
		IdleTimeout:  uint32(idleTimeout.Milliseconds()),
	}
	if x.MaxFrameSize == 0 { // no open was read
		x.MaxFrameSize = maxFrameSize
	}
	var at int
	c.out, at = wire.BeginFrame(c.out, wire.FrameAMQP, 0)
	c.out = x.Append(c.out)
	wire.EndFrame(c.out, at)
}
