package compat

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is the way to a server, which can be slow, stall, and lead to another.
type proxy struct {
	address string
	delay   atomic.Int64 // of each piece that is read, either way
	target  atomic.Pointer[string]

	mu    sync.Mutex
	open  chan struct{} // closed while it does not stall
	conns map[net.Conn]bool
	done  chan struct{}
}

// newProxy starts a proxy to an address, until the test ends.
func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String(), open: make(chan struct{}), conns: map[net.Conn]bool{}, done: make(chan struct{})}
	p.target.Store(&target)
	close(p.open)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		close(p.done)
		p.cut()
		wg.Wait()
	})
	return p
}

// serve passes on what two connections say, until one of them ends.
func (p *proxy) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", *p.target.Load())
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	p.conns[near], p.conns[far] = true, true
	p.mu.Unlock()
	select {
	case <-p.done: // which has cut those before
		return
	default:
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		wg.Go(func() {
			p.pass(way[1], way[0])
			near.Close()
			far.Close()
		})
	}
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, near)
	delete(p.conns, far)
	p.mu.Unlock()
}

func (p *proxy) pass(to io.Writer, from io.Reader) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		select {
		case <-time.After(time.Duration(p.delay.Load())):
		case <-p.done:
			return
		}
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		select {
		case <-open:
		case <-p.done:
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// stall has nothing come through until resume is called. What is said meanwhile comes
// through then, unless its connection has ended.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

// cut ends the connections there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}
