package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

// inbound is what the reader brings: whole frames and protocol headers, or the
// end. Whoever takes it releases the slab.
type inbound struct {
	slab *event.Slab
	b    []byte
	err  error
}

// errHugeFrame refuses a frame longer than was announced, before any of it is
// kept.
var errHugeFrame = errors.New("the frame is too large")

// Sizes of the reader's buffers. A connection that is idle, or sends little,
// holds a small one.
const (
	smallRead = 4 << 10
	largeRead = event.SlabSize
)

// intake is what has been read of a connection and not handed on yet.
type intake struct {
	slab *event.Slab
	fill int
	bad  bool // frames can't be told apart: the rest is dropped

	// The result of a read of a plain socket.
	n    int
	err  error
	wait func(fd uintptr) bool // reads, once there is something to read
	now  func(fd uintptr)      // reads what there is
}

// init makes an intake whose loop reads the socket itself.
func (t *intake) init(raw syscall.RawConn) {
	t.wait = func(fd uintptr) bool {
		t.n, t.err = readNow(fd, t.space())
		return !errors.Is(t.err, errNothing)
	}
	t.now = func(fd uintptr) { t.n, t.err = readNow(fd, t.space()) }
	t.begin()
}

func (t *intake) begin() { t.slab, t.fill = event.NewSlab(smallRead), 0 }

func (t *intake) end() {
	if t.slab != nil {
		t.slab.Release()
		t.slab = nil
	}
}

// space is where the next read goes.
func (t *intake) space() []byte {
	if t.bad { // so that the peer gets to see why it is closed, reading goes on
		t.fill = 0
	}
	return t.slab.B[t.fill:]
}

// took returns what is whole once n bytes more have been read.
func (t *intake) took(n int, err error) (in inbound) {
	in.err = err
	if t.bad {
		return in
	}
	t.fill += n
	whole, need, bad := split(t.slab.B[:t.fill])
	size := smallRead
	if t.fill >= smallRead {
		size = largeRead // there is more than a little
	}
	switch {
	case whole > 0:
		next := event.NewSlab(max(size, need, t.fill-whole+1))
		m := copy(next.B, t.slab.B[whole:t.fill])
		in.slab, in.b = t.slab, t.slab.B[:whole]
		t.slab, t.fill = next, m
	case max(need, t.fill+1) > len(t.slab.B):
		next := event.NewSlab(max(need, largeRead))
		copy(next.B, t.slab.B[:t.fill])
		t.slab.Release()
		t.slab = next
	}
	if bad != nil {
		t.bad, in.err = true, bad
	}
	return in
}

// awaitSocket waits for input, a message, or the time, on the socket alone: who
// has a message interrupts the wait. A reader's goroutine would cost two wakings
// for each.
func (c *conn) awaitSocket(next time.Duration) inbound {
	t := &c.intake
	// The deadline comes before the last look at the inbox, so that it can't undo
	// an interruption.
	if due := time.Now().Add(next); c.deadline.After(due) || time.Until(c.deadline) <= 0 {
		c.deadline = due
		c.nc.SetReadDeadline(due) //nolint:errcheck // of a socket that is closed; reading says so
	}
	if c.inbox.sleep(onSocket) {
		t.n, t.err = 0, nil
		if err := c.raw.Read(t.wait); err != nil {
			t.n, t.err = 0, err
		}
		if errors.Is(t.err, os.ErrDeadlineExceeded) {
			c.deadline = time.Time{}
			return inbound{}
		}
	} else if err := c.raw.Control(t.now); err != nil { // input has its turn, however many messages there are
		t.n, t.err = 0, err
	}
	if errors.Is(t.err, errNothing) {
		return inbound{}
	}
	return t.took(t.n, t.err)
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// interrupt ends the loop's wait for the socket.
func (c *conn) interrupt() {
	c.nc.SetReadDeadline(longAgo) //nolint:errcheck // of a socket that is closed; reading says so
}

// errNothing: there is nothing to read.
var errNothing = errors.New("nothing to read")

// read is the reader's goroutine, of a connection that is not a plain socket.
func (c *conn) read() {
	defer close(c.reads)
	var t intake
	t.begin()
	defer t.end()
	for {
		n, err := c.nc.Read(t.space())
		in := t.took(n, err)
		if (in.slab != nil || in.err != nil) && !c.hand(in) || err != nil {
			return
		}
	}
}

// hand passes something to the loop, unless the connection has ended.
func (c *conn) hand(in inbound) bool {
	select {
	case c.reads <- in:
		return true
	case <-c.ctx.Done():
		if in.slab != nil {
			in.slab.Release()
		}
		return false
	}
}

// split returns how many bytes of b are whole frames or protocol headers, and
// how long the one after them is, if that is known.
func split(b []byte) (whole, need int, err error) {
	for whole+wire.FrameHeaderSize <= len(b) {
		n := wire.FrameHeaderSize
		if !isHeader(b[whole:]) {
			if n, err = wire.FrameSize(b[whole:], maxFrameSize); err != nil {
				if binary.BigEndian.Uint32(b[whole:]) > maxFrameSize {
					err = fmt.Errorf("%w: %w", errHugeFrame, err)
				}
				return whole, 0, err
			}
		}
		if whole+n > len(b) {
			return whole, n, nil
		}
		whole += n
	}
	return whole, 0, nil
}

func isHeader(b []byte) bool { return b[0] == 'A' && b[1] == 'M' && b[2] == 'Q' && b[3] == 'P' }

// outSize is how much is gathered before it is written, and beyond which no
// deliveries are added.
const outSize = 64 << 10

// outBuffer is what the writer writes at once.
type outBuffer struct{ b []byte }

var outBuffers = sync.Pool{New: func() any { return &outBuffer{make([]byte, 0, outSize+8<<10)} }}

// writer hands buffers to the goroutine that writes, one at a time.
type writer struct {
	in    chan []byte
	err   error      // of the last write, for the loop
	box   *outBuffer // what conn.out is a slice of
	using *outBuffer // what the goroutine writes is a slice of
	since time.Time  // when it got that

	// The argument and the result of a write that does not wait.
	try     []byte
	tried   int
	tryFunc func(fd uintptr) bool
}

func (w *writer) init() {
	w.in = make(chan []byte, 1)
	w.tryFunc = func(fd uintptr) bool {
		w.tried = writeNow(fd, w.try)
		return true
	}
}

func (w *writer) busy() bool { return w.using != nil }

func (w *writer) stalled(now time.Time) bool {
	return w.busy() && !now.Before(w.since.Add(writeTimeout))
}

// write is the writer's goroutine. It ends with the connection's context.
func (c *conn) write() {
	for {
		select {
		case b := <-c.writer.in:
			_, c.writer.err = c.nc.Write(b)
			c.post(&c.writer)
		case <-c.ctx.Done():
			return
		}
	}
}

// buffer makes sure that there is something to write to.
func (c *conn) buffer() {
	if c.writer.box == nil {
		c.writer.box = outBuffers.Get().(*outBuffer)
		c.out = c.writer.box.b[:0]
	}
}

// flush writes what has been gathered, unless the writer is still at the last:
// at once as much as the socket takes, and the rest through the writer. An idle
// connection holds no buffer.
func (c *conn) flush() {
	w := &c.writer
	if w.box == nil || w.busy() {
		return
	}
	if len(c.out) > 0 {
		c.spoke = c.now
		w.box.b = c.out
		n := c.tryWrite(c.out)
		if n < len(c.out) {
			w.using, w.since = w.box, c.now
			w.in <- c.out[n:]
			w.box, c.out = nil, nil
			return
		}
	}
	w.box.put()
	w.box, c.out = nil, nil
}

// put gives a buffer back, unless it has grown.
func (x *outBuffer) put() {
	if cap(x.b) <= 2*outSize {
		x.b = x.b[:0]
		outBuffers.Put(x)
	}
}

// tryWrite writes what the socket takes without waiting: no other goroutine has
// to be woken for it. TLS and WebSocket leave all to the writer.
func (c *conn) tryWrite(b []byte) int {
	if c.raw == nil {
		return 0
	}
	c.writer.try, c.writer.tried = b, 0
	if err := c.raw.Write(c.writer.tryFunc); err != nil {
		return 0 // the writer meets the error
	}
	c.writer.try = nil
	return c.writer.tried
}

// deliver takes back the buffer that the writer has written.
func (w *writer) deliver(c *conn) {
	w.using.put()
	w.using = nil
	if w.err != nil {
		c.lost = true
		if c.reason == "" {
			c.reason = "write: " + w.err.Error()
		}
	}
}
