package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
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

// read is the reader's goroutine.
func (c *conn) read() {
	defer close(c.reads)
	slab, fill := event.NewSlab(smallRead), 0
	defer func() { slab.Release() }()
	for {
		n, err := c.nc.Read(slab.B[fill:])
		fill += n
		whole, need, bad := split(slab.B[:fill])
		size := smallRead
		if fill == len(slab.B) {
			size = largeRead // there is more than a little
		}
		switch {
		case whole > 0:
			next := event.NewSlab(max(size, need, fill-whole+1))
			m := copy(next.B, slab.B[whole:fill])
			if !c.hand(inbound{slab: slab, b: slab.B[:whole]}) {
				slab = next
				return
			}
			slab, fill = next, m
		case max(need, fill+1) > len(slab.B):
			next := event.NewSlab(max(need, largeRead))
			copy(next.B, slab.B[:fill])
			slab.Release()
			slab = next
		}
		if bad != nil {
			// Go on reading, so that the peer gets to see why it is closed.
			c.hand(inbound{err: bad})
			io.Copy(io.Discard, c.nc) //nolint:errcheck // ends with the socket
			return
		}
		if err != nil {
			c.hand(inbound{err: err})
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
	done  chan error
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
	w.done = make(chan error, 1)
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
			_, err := c.nc.Write(b)
			c.writer.done <- err
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

// written takes back a buffer. It returns false when the socket is gone.
func (c *conn) written(err error) bool {
	w := &c.writer
	w.using.put()
	w.using = nil
	if err != nil {
		if c.reason == "" {
			c.reason = "write: " + err.Error()
		}
		return false
	}
	return true
}
