package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// conn is one connection. Its fields, but for the first groups, belong to the
// goroutine that runs loop.
type conn struct {
	// Immutable, or for everyone.
	srv    *Server
	nc     net.Conn
	raw    syscall.RawConn // of a plain socket, else nil
	number uint64
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // ends what works for the connection
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the goroutines that work for the connection
	inbox  inbox
	intake intake       // of a plain socket, which the loop reads itself
	reads  chan inbound // of all others, from the reader
	writer writer

	partial atomic.Int64 // bytes of messages received in part; the loop's to change
	greedy  bool         // it has been told that this is too much; Server.mu guards it

	// The peer and the handshake.
	now       time.Time
	phase     phase
	id        string // our container id
	peer      wire.Open
	peerFrame int    // the largest frame that the peer takes
	login     *login // SASL PLAIN
	ns        *hub.Namespace
	claims    map[string]*auth.Claims // by the path that the token was put for
	trusted   bool                    // a token, key or request was accepted
	local     bool                    // a key may have brought some of the claims

	// Sessions and links.
	sessions map[uint16]*session
	links    int
	ready    []*outLink // that may have something to send
	slowed   []*outLink // that wait for their namespace's throughput units
	touched  []*pending // gathered, to be appended
	gathered int        // how much that is
	parsed   message.Parsed
	unread   int // how much of the input is still to be handled

	out       []byte // frames to be written
	appending int    // appends under way
	unacked   int64  // their bytes

	// Time.
	timer     *time.Timer
	opened    time.Time
	heard     time.Time // when the peer was last heard of
	spoke     time.Time // when it was last written to
	nextCheck time.Time // of tokens
	deadline  time.Time // of the socket's reads; zero when it was cut short
	closing   time.Time // when the last goodbye was said; then all else is dropped
	draining  bool      // the broker is stopping
	counted   bool      // in the metrics
	unwatch   func()    // ends what tells of changes to the namespace
	lost      bool      // the socket can't be written to
	over      bool      // the loop has ended
	reason    string    // why the connection ends
	bad       bool      // and it is the peer's fault
}

// phase is what a connection expects next.
type phase uint8

const (
	expectHeader phase = iota // a protocol header
	expectInit                // sasl-init
	expectAMQP                // the AMQP header after SASL
	expectOpen
	established
	closed // a close was sent
)

// login is what SASL PLAIN brought.
type login struct{ user, password string }

// posted is something another goroutine has for the connection.
type posted interface{ deliver(c *conn) }

// inbox takes messages without ever blocking the sender. What can be in it is
// bounded by what is under way for the connection.
type inbox struct {
	mu    sync.Mutex
	q     []posted
	waits waiting // how the loop waits, if it does
	wake  chan struct{}
}

// waiting is how the loop waits: whoever posts wakes it accordingly, or not at
// all while it is busy.
type waiting uint8

const (
	busy waiting = iota
	onChannel
	onSocket
)

func (c *conn) post(m posted) {
	i := &c.inbox
	i.mu.Lock()
	i.q = append(i.q, m)
	w := i.waits
	i.waits = busy
	i.mu.Unlock()
	switch w {
	case onChannel:
		select {
		case i.wake <- struct{}{}:
		default:
		}
	case onSocket:
		c.interrupt()
	}
}

// sleep says how the loop is about to wait. It returns false when there are
// messages already.
func (i *inbox) sleep(w waiting) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.q) > 0 {
		return false
	}
	i.waits = w
	return true
}

// take swaps the queue for an empty one; the loop is awake.
func (i *inbox) take(spare []posted) []posted {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waits = busy
	q := i.q
	i.q = spare[:0]
	return q
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		srv: s, nc: nc,
		log:       s.log.With("peer", nc.RemoteAddr().String()),
		inbox:     inbox{wake: make(chan struct{}, 1)},
		timer:     time.NewTimer(idleTimeout),
		claims:    map[string]*auth.Claims{},
		sessions:  map[uint16]*session{},
		ns:        s.o.Namespaces.Default(),
		peerFrame: wire.MinMaxFrameSize,
	}
	if tcp, ok := nc.(*net.TCPConn); ok && plainSockets {
		c.raw, _ = tcp.SyscallConn() // without it reader and writer do it all
	}
	if c.raw == nil {
		c.reads = make(chan inbound, 1)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.writer.init()
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() {
	c.id = c.srv.tracker.id() + "_G0"
	c.now = c.srv.o.Now()
	c.opened, c.heard, c.spoke = c.now, c.now, c.now
	if c.raw == nil {
		c.wg.Go(c.read)
	} else {
		c.intake.init(c.raw)
	}
	c.wg.Go(c.write)
	c.loop()
	c.timer.Stop()
	c.over = true
	c.cancel()
	c.nc.Close()
	c.end()
	c.wg.Wait()
	if c.raw == nil {
		for in := range c.reads {
			if in.slab != nil {
				in.slab.Release()
			}
		}
	} else {
		c.intake.end()
	}
	c.lastMessages()
	c.logEnd()
}

// loop is the connection's one owner.
func (c *conn) loop() {
	var spare []posted
	next, ok := c.tick()
	for ok {
		in, open := c.await(next)
		if !open {
			return
		}
		c.now = c.srv.o.Now()
		c.buffer()
		c.checkKeys()
		if !c.received(in) {
			return
		}
		q := c.inbox.take(spare)
		for i, m := range q {
			m.deliver(c)
			q[i] = nil
		}
		spare = q
		if c.lost {
			return
		}
		if c.appending == 0 || c.gathered >= gatherEnough {
			c.submit()
		}
		c.hasten()
		c.pump()
		if c.draining {
			c.drain()
		}
		if next, ok = c.tick(); ok {
			c.flush()
		}
	}
}

// await waits for input, if the connection takes any, for a message, or for the
// time. It returns false when there will be no more input.
func (c *conn) await(next time.Duration) (in inbound, open bool) {
	full := c.full() // what is unacknowledged or unwritten comes first
	if c.raw != nil && !full {
		return c.awaitSocket(next), true
	}
	reads := c.reads
	if full {
		reads = nil
	}
	if !c.inbox.sleep(onChannel) {
		select {
		case in, open = <-reads:
			return in, open
		default:
			return in, true
		}
	}
	c.timer.Reset(next)
	select {
	case in, open = <-reads:
		return in, open
	case <-c.inbox.wake:
	case <-c.timer.C:
	}
	return in, true
}

// full tells whether the connection has enough to do before it reads on.
func (c *conn) full() bool {
	return len(c.out) >= 4*outSize ||
		c.unacked >= maxUnacked || c.unacked > 0 && c.srv.unacked.Load() >= maxUnackedAll
}

// received handles what the reader brought. It returns false at the end.
func (c *conn) received(in inbound) bool {
	if len(in.b) > 0 {
		c.heard = c.now
		if c.phase == closed {
			c.lastWords(in.b)
		} else if err := c.input(in.b); err != nil {
			c.refuse(err)
		}
		in.slab.Release()
	}
	if in.err == nil {
		return true
	}
	switch {
	case c.reason != "":
	case errors.Is(in.err, io.EOF):
		c.reason = "the peer closed the socket"
	case errors.Is(in.err, errHugeFrame), errors.Is(in.err, wire.ErrDecode):
		c.refuse(in.err)
		return true // the reader goes on until the socket is closed
	default:
		c.reason = in.err.Error()
		c.bad = c.handshakeFailed(in.err)
	}
	return false
}

// handshakeFailed tells whether an error is of TLS, before anything came through
// it: a peer that doesn't trust the certificate, or doesn't speak TLS at all. Its
// user sees little more than that the connection was lost, so the log must say.
func (c *conn) handshakeFailed(err error) bool {
	secure, ok := c.nc.(*tls.Conn)
	return ok && !secure.ConnectionState().HandshakeComplete && !errors.Is(err, syscall.ECONNRESET)
}

// refuse ends the connection for a fault of the peer's.
func (c *conn) refuse(err error) {
	if c.phase == closed {
		return
	}
	c.bad = true
	var e *wire.Error
	if !errors.As(err, &e) {
		cond := condDecode
		if errors.Is(err, errHugeFrame) {
			cond = condFraming
		}
		e = &wire.Error{Condition: cond, Description: err.Error() + "."}
	}
	c.goodbye(e)
}

// goodbye sends a close; nothing but the peer's is then expected.
func (c *conn) goodbye(e *wire.Error) {
	if c.phase == closed {
		return
	}
	if c.reason == "" {
		c.reason = "closed by the broker"
		if e != nil {
			c.reason = e.Condition + ": " + e.Description
		}
	}
	if c.phase < expectOpen { // there is no AMQP yet to say it in
		if c.phase == expectHeader {
			c.out = append(c.out, wire.HeaderSASL[:]...)
		}
		c.phase, c.closing = closed, c.now
		return
	}
	if c.phase == expectOpen { // a close must follow an open
		c.sendOpen()
	}
	var at int
	c.out, at = wire.BeginFrame(c.out, wire.FrameAMQP, 0)
	c.out = wire.AppendClose(c.out, e)
	wire.EndFrame(c.out, at)
	c.phase, c.closing = closed, c.now
	c.endSessions()
}

// lastWords looks for the peer's close in what comes after ours.
func (c *conn) lastWords(b []byte) {
	for len(b) >= wire.FrameHeaderSize {
		n, err := wire.FrameSize(b, maxFrameSize)
		if err != nil || n > len(b) {
			return
		}
		if f, err := wire.ReadFrame(b[:n]); err == nil && len(f.Body) > 2 && f.Body[2] == wire.DescClose {
			c.closing = c.now.Add(-closeTimeout)
		}
		b = b[n:]
	}
}

// tick does what is due by now and returns when to come back. It returns false
// when the connection has come to its end.
func (c *conn) tick() (time.Duration, bool) {
	if c.writer.stalled(c.now) {
		c.reason, c.bad = fmt.Sprintf("the peer has not read what it was sent for %s", writeTimeout), true
		return 0, false
	}
	if c.phase == closed {
		left := c.closing.Add(closeTimeout).Sub(c.now)
		if left <= 0 && len(c.out) == 0 && !c.writer.busy() || left <= -closeTimeout {
			return 0, false
		}
		return max(left, 10*time.Millisecond), true
	}
	next := c.opened.Add(handshakeTimeout)
	if c.phase == established {
		next = c.heard.Add(idleTimeout)
		if n := c.srv.o.AuthTimeout; n > 0 && !c.trusted {
			next = earlier(next, c.opened.Add(n))
		}
	}
	if !c.now.Before(next) {
		c.late()
		return closeTimeout, true
	}
	if beat := c.heartbeat(); !beat.IsZero() {
		next = earlier(next, beat)
	}
	if check := c.checkTokens(); !check.IsZero() {
		next = earlier(next, check)
	}
	if c.writer.busy() {
		next = earlier(next, c.writer.since.Add(writeTimeout))
	}
	for _, l := range c.slowed {
		next = earlier(next, l.events.slowed)
	}
	return max(next.Sub(c.now), time.Millisecond), true
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// late ends a connection whose peer has let a deadline pass.
func (c *conn) late() {
	c.bad = true
	switch {
	case c.phase != established:
		c.reason = fmt.Sprintf("the peer did not open the connection within %s", handshakeTimeout)
		c.goodbye(nil)
	case !c.now.Before(c.heard.Add(idleTimeout)):
		c.goodbye(c.fault(condForced, "gateway", "The connection was inactive for more than the allowed %d milliseconds and is closed by container '%s'.", idleTimeout.Milliseconds(), c.id))
	default:
		c.goodbye(c.fault(condForced, "gateway", "The connection was not authorized within %s and is closed by container '%s'.", c.srv.o.AuthTimeout, c.id))
	}
}

// heartbeat sends an empty frame when half of what the peer allows has passed
// in silence, and returns when the next is due.
func (c *conn) heartbeat() time.Time {
	if c.phase != established || c.peer.IdleTimeout == 0 {
		return time.Time{}
	}
	every := max(time.Duration(c.peer.IdleTimeout)*time.Millisecond/2, 100*time.Millisecond)
	due := c.spoke.Add(every)
	if c.now.Before(due) {
		return due
	}
	if len(c.out) == 0 && !c.writer.busy() {
		var at int
		c.out, at = wire.BeginFrame(c.out, wire.FrameAMQP, 0)
		wire.EndFrame(c.out, at)
	}
	c.spoke = c.now
	return c.now.Add(every)
}

// shutdown tells a connection that the broker is stopping.
type shutdown struct{}

func (shutdown) deliver(c *conn) { c.draining = true }

// drain says goodbye once nothing that the peer sent waits to be acknowledged.
func (c *conn) drain() {
	c.submit()
	if c.unacked > 0 || c.phase == closed {
		return
	}
	if c.reason == "" {
		c.reason = "the broker is shutting down"
	}
	c.goodbye(c.fault(condForced, "gateway", "The connection was closed by container '%s' because the broker is shutting down.", c.id))
}

// end gives back what the connection's sessions hold, without a word to the peer.
func (c *conn) end() {
	c.submit() // what came before the socket was closed
	c.endSessions()
	if c.unwatch != nil {
		c.unwatch()
	}
	if c.counted {
		c.ns.Disconnect()
	}
}

// lastMessages lets what comes late give back what it holds: appends in flight
// among it, which are waited for.
func (c *conn) lastMessages() {
	for {
		q := c.inbox.take(nil)
		for _, m := range q {
			m.deliver(c)
		}
		if len(q) > 0 {
			continue
		}
		if c.appending == 0 {
			break
		}
		if c.inbox.sleep(onChannel) {
			<-c.inbox.wake
		}
	}
}

func (c *conn) logEnd() {
	level := slog.LevelDebug
	if c.bad {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "connection ended", "reason", c.reason, "after", c.now.Sub(c.opened).Round(time.Millisecond))
}
