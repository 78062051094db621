package amqp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// Options says how to serve. Namespaces and Verifier are needed.
type Options struct {
	Namespaces *hub.Namespaces
	Verifier   *auth.Verifier
	// Logger; nil means none.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// AuthTimeout is how long a connection may be open without a token, key or
	// request that was accepted; 0 means two minutes, a negative value no limit.
	AuthTimeout time.Duration
}

// Limits that keep one peer from using up the broker.
const (
	// maxFrameSize is the largest frame that is read, and announced.
	maxFrameSize = 65536
	// maxChannel and maxHandle are announced; SDKs open a session for each link.
	maxChannel = 4999
	maxHandle  = 4999
	// maxLinks bounds the links of a connection.
	maxLinks = 10_000
	// maxRequest is the largest request to a node that is taken.
	maxRequest = 1 << 20

	// maxUnacked is how many bytes of a connection may wait to be acknowledged
	// before it is read from again: some clients ignore credit. maxUnackedAll
	// is the same for all connections together.
	maxUnacked    = 4 << 20
	maxUnackedAll = 64 << 20
	// maxPartial bounds the bytes of messages that have been received in part.
	maxPartial    = 24 << 20
	maxPartialAll = 64 << 20

	// maxHeld is how many bytes of events receivers hold, all together, while
	// their peers keep them waiting. Beyond it they read them again.
	maxHeld = 24 << 20

	// handshakeTimeout is how long a peer may take until its open.
	handshakeTimeout = 20 * time.Second
	// writeTimeout is how long a peer may take to read what it is sent.
	writeTimeout = 2 * time.Minute
	// closeTimeout is how long a peer may take to answer a close.
	closeTimeout = 3 * time.Second
	// tokenGrace is how long a link lives on after its token has expired.
	tokenGrace = time.Minute
)

// Server serves AMQP connections. Make it with NewServer; stop it with Shutdown.
type Server struct {
	o       Options
	log     *slog.Logger
	tracker *tracker

	unacked atomic.Int64 // bytes appended and not acknowledged, of all connections
	partial atomic.Int64 // bytes of messages received in part, of all connections
	held    atomic.Int64 // bytes of events that receivers hold, of all connections

	wg      sync.WaitGroup
	mu      sync.Mutex
	conns   map[*conn]struct{}
	nextID  uint64
	closing bool
}

// NewServer returns a server.
func NewServer(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.AuthTimeout == 0 {
		o.AuthTimeout = 2 * time.Minute
	}
	s := &Server{o: o, log: o.Logger, tracker: newTracker(), conns: map[*conn]struct{}{}}
	o.Namespaces.OnLocalAuthDisabled(s.wake)
	return s
}

// wake has every connection look at its namespace's settings now, and not when
// something happens to it.
func (s *Server) wake(*hub.Namespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.post(wakened{})
	}
}

type wakened struct{}

func (wakened) deliver(c *conn) { c.checkKeys() }

// Serve accepts connections until the listener is closed, and then returns nil.
func (s *Server) Serve(ln net.Listener) error {
	var delay time.Duration
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			delay = 0
			go s.ServeConn(nc)
		case errors.Is(err, net.ErrClosed):
			return nil
		default: // out of descriptors, most likely: it passes
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Error("a connection can't be accepted", "error", err, "retry", delay)
			time.Sleep(delay)
		}
	}
}

// ServeConn serves one connection until it ends. It closes nc.
func (s *Server) ServeConn(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		nc.Close()
		return
	}
	s.nextID++
	c.number = s.nextID
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.lastMessages() // of those who still found it there
}

// Shutdown says goodbye to all connections, once their appends in flight are
// acknowledged, and waits for them; when ctx ends first, they are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for c := range s.conns {
		c.post(shutdown{})
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.nc.Close()
	}
	s.mu.Unlock()
	<-done
	return ctx.Err()
}
