package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// The names of headers are the names of an event's application properties, whose
// case consumers tell apart: the service's own page has "WindAlert". Package http
// hands them over as "Windalert". So connections keep the heads of requests as
// they came, for as long as a request lasts:
//
//	Listener   wraps each connection, which copies what is read from it
//	KeepNames  cuts the head of each request out of that
//
// All this is best effort: where a head isn't found as it should be, as with
// requests that don't wait for an answer, a name is as package http has it. With
// HTTP/2 it is lower case, as on the wire. Nothing but the case of names comes
// from here.

// maxHead is how much of a connection's input is kept: the largest head that
// package http is asked to take, and what it reads beyond.
const maxHead = 64<<10 + 8<<10

// Listener wraps a listener of HTTP/1.1, for a server that KeepNames was called
// with. Around one of package crypto/tls it does for the server what ServeTLS
// would, except HTTP/2.
func Listener(ln net.Listener) net.Listener { return &listener{ln} }

type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// conn is a connection that keeps the head of the current request.
type conn struct {
	net.Conn

	mu    sync.Mutex // package http reads ahead on a goroutine of its own
	over  bool       // nothing is kept any more
	read  int64      // bytes, in all
	from  int64      // where the next request begins; negative if that is not known
	input []byte     // what was read from there on

	head []byte // of the current request; the handler's
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if plain := (tls.RecordHeaderError{}); err != nil && errors.As(err, &plain) && plain.Conn != nil {
		io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis door speaks TLS: use https.\n") //nolint:errcheck // whoever it is, he is refused
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.read
	c.read += int64(n)
	if skip := max(c.from-at, 0); !c.over && c.from >= 0 && skip < int64(n) {
		b = b[skip:n]
		c.input = append(c.input, b[:min(len(b), maxHead-len(c.input))]...)
	}
	return n, err
}

// CloseWrite is what package http ends a connection with whose client may still
// be sending.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// begin cuts out the head of a request, whose handler begins.
func (c *conn) begin(r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = nil
	line := r.Method + " " + r.RequestURI + " " + r.Proto
	if !bytes.HasPrefix(c.input, []byte(line)) {
		// Package http may have read one byte ahead before next was called.
		line = line[1:]
	}
	end := bytes.Index(c.input, []byte("\r\n\r\n"))
	if c.over || c.from < 0 || end < 0 || !bytes.HasPrefix(c.input, []byte(line+"\r\n")) {
		c.from, c.input = -1, c.input[:0]
		return
	}
	end += len("\r\n\r\n")
	c.head = append([]byte(nil), c.input[len(line):end]...)
	if r.ContentLength < 0 { // who knows how long the chunks are
		c.from, c.input = -1, c.input[:0]
		return
	}
	end += int(r.ContentLength)
	c.from += int64(end)
	c.input = append(c.input[:0], c.input[min(end, len(c.input)):]...)
}

// next is called between requests.
func (c *conn) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from < 0 {
		c.from = c.read
	}
}

// end keeps nothing from now on: the connection is another protocol's.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over, c.input = true, nil
}

// name is a header's name as it came.
func (c *conn) name(canonical string) string {
	// The head begins with the end of the request line.
	for rest := c.head; ; {
		_, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return canonical
		}
		if n := len(canonical); len(after) > n && after[n] == ':' && strings.EqualFold(string(after[:n]), canonical) {
			return string(after[:n])
		}
		rest = after
	}
}

type connKey struct{}

// KeepNames makes a server, before it serves, know the names of headers as they
// came; its listeners must be wrapped with Listener.
func KeepNames(s *http.Server) {
	h := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			c.begin(r)
			if secure, ok := c.Conn.(*tls.Conn); ok {
				state := secure.ConnectionState()
				r.TLS = &state
			}
		}
		h.ServeHTTP(w, r)
	})
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if c, ok := c.(*conn); ok {
			switch state {
			case http.StateIdle:
				c.next()
			case http.StateHijacked:
				c.end()
			}
		}
	}
}

// headerName is the name of a header as the client wrote it.
func headerName(r *http.Request, canonical string) string {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c.name(canonical)
	}
	if r.ProtoMajor > 1 {
		return strings.ToLower(canonical)
	}
	return canonical
}
