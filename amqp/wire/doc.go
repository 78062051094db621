// Package wire is AMQP 1.0 as bytes: the type system, frames, and the
// performatives of the transport and of SASL (OASIS AMQP 1.0, parts 1, 2 and 5).
// It decodes to views into the frame, without allocating, and encodes by
// appending to the caller's buffer.
//
// What it writes follows the service and not only the standard: every field of a
// performative is present, trailing nulls included, since some clients index
// fields by place (amqp.md, sections 0.1 and 1.8).
//
// It knows nothing of links' state, of Event Hubs or of storage, and imports
// only the standard library.
package wire
