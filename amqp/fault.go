package amqp

import (
	"context"

	"github.com/millrace/millrace/hub"
)

// Fault is what a person who tests an application wants to happen to
// connections, now.
type Fault int

// The faults.
const (
	// DetachLinks ends links as the service does when it moves a hub: SDKs attach
	// again.
	DetachLinks Fault = iota + 1
	// CloseConnections ends connections with a goodbye, as an upgrade does.
	CloseConnections
	// CutConnections ends connections without a word, as a network does.
	CutConnections
	// ExpireTokens has every token that a connection was given be expired.
	ExpireTokens
)

// Inject has a fault happen to the connections of a namespace, or only to those
// with links to one of its hubs if that is not nil; DetachLinks then ends the
// links to that hub alone. When it returns it has happened, to so many of them.
func (s *Server) Inject(ctx context.Context, f Fault, ns *hub.Namespace, h *hub.EventHub) (int, error) {
	s.mu.Lock()
	told := len(s.conns)
	done := make(chan bool, told)
	for c := range s.conns {
		c.post(&injected{fault: f, ns: ns, hub: h, done: done})
	}
	s.mu.Unlock()
	n := 0
	for range told {
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case hit := <-done:
			if hit {
				n++
			}
		}
	}
	return n, nil
}

type injected struct {
	fault Fault
	ns    *hub.Namespace
	hub   *hub.EventHub
	done  chan<- bool // takes an answer of every connection without blocking
}

// deliver implements posted.
func (f *injected) deliver(c *conn) {
	hit := !c.over && c.phase == established && c.ns == f.ns && (f.hub == nil || c.uses(f.hub))
	if hit {
		f.happen(c)
	}
	f.done <- hit
}

func (f *injected) happen(c *conn) {
	c.log.Warn("a fault is injected", "fault", f.fault.String())
	switch f.fault {
	case DetachLinks:
		c.detachLinks(f.hub)
	case CloseConnections:
		c.goodbye(c.fault(condForced, "gateway", "The connection was closed by container '%s' on purpose: a fault was asked for.", c.id))
	case CutConnections:
		c.reason = "cut on purpose: a fault was asked for"
		c.nc.Close()
	case ExpireTokens:
		for path, claims := range c.claims {
			expired := *claims
			expired.Expires = c.now.Add(-2 * tokenGrace)
			c.claims[path] = &expired
		}
		c.nextCheck = c.now
	}
}

// String is the fault's name on the command line.
func (f Fault) String() string {
	return [...]string{"", "detach", "close", "cut", "expire-tokens"}[f]
}

// uses tells whether the connection has links to a hub.
func (c *conn) uses(h *hub.EventHub) bool {
	for _, s := range c.sessions {
		for _, l := range s.in {
			if l.events != nil && l.events.hub == h {
				return true
			}
		}
		for _, l := range s.out {
			if l.events != nil && l.events.hub == h {
				return true
			}
		}
	}
	return false
}

// detachLinks ends the links of events, to one hub if it is not nil.
func (c *conn) detachLinks(h *hub.EventHub) {
	c.submit()
	for _, s := range c.sessions {
		for _, l := range s.in {
			if l.events != nil && (h == nil || l.events.hub == h) {
				l.detach(c.fault(condDetachForced, l.name(), "The link was detached on purpose: a fault was asked for."))
			}
		}
		for handle, l := range s.out {
			if l.events != nil && l.attaching == nil && (h == nil || l.events.hub == h) {
				delete(s.out, handle)
				l.end()
				s.detach(handle, c.fault(condDetachForced, l.events.path, "The link was detached on purpose: a fault was asked for."))
			}
		}
	}
}
