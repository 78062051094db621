// Package amqp is the Event Hubs AMQP 1.0 server: connections over TCP, TLS and
// WebSocket, SASL, sessions, links, claims-based security ($cbs), management
// ($management), senders and receivers.
//
// All state of a connection, its sessions and its links belongs to one
// goroutine, conn.loop, which reads and writes a plain socket itself. A writer
// takes what a socket doesn't take at once, a reader feeds it from TLS and
// WebSocket, and whoever else has something for it posts a message. Time reaches
// that state as an argument. Memory is bounded for each connection: what is not
// acknowledged, what is partly received, and what waits to be written all have
// limits.
//
// It knows hubs (package hub) and tokens (package auth), not storage engines or
// other protocols. Behaviour follows the service and its SDKs, as spec'd in
// docs/compatibility.md.
package amqp
