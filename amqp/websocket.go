package amqp

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// WebSocket serves AMQP over WebSocket; mount it at /$servicebus/websocket. The
// sub-protocol is AMQPWSB10, as the SDKs ask for, or amqp, the registered one
// (amqp.md 1.3). Any origin may connect: a page needs a token like everyone.
func (s *Server) WebSocket() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols:       []string{"AMQPWSB10", "amqp"},
			InsecureSkipVerify: true,
			CompressionMode:    websocket.CompressionDisabled,
		})
		if err != nil {
			s.log.Info("a WebSocket was refused", "peer", r.RemoteAddr, "error", err)
			return // it has been answered
		}
		// Message boundaries mean nothing: a message may hold a part of a frame,
		// or several. Frames' own limit bounds what is kept.
		ws.SetReadLimit(-1)
		s.ServeConn(&webSocketConn{websocket.NetConn(context.WithoutCancel(r.Context()), ws, websocket.MessageBinary), r.RemoteAddr})
	})
}

// webSocketConn knows its peer's address.
type webSocketConn struct {
	net.Conn
	peer string
}

// RemoteAddr implements net.Conn.
func (c *webSocketConn) RemoteAddr() net.Addr { return peerAddr(c.peer) }

type peerAddr string

func (peerAddr) Network() string  { return "websocket" }
func (a peerAddr) String() string { return string(a) }
