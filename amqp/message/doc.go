// Package message turns AMQP messages into what Millrace stores of them, and
// back: stored AMQP bytes to and from event.Event, and the sections of a message.
//
// An event is normalised once, when it arrives. Header and annotations that the
// broker owns are dropped; all other sections stay as the client encoded them,
// byte for byte, in one run, so that a delivery is a frame header, annotations,
// and one slice. The body of a record in the encoding event.EncodingAMQP is
//
//	┌─────────┬─────────┬───┬─────────┬───────────────────────────────┐
//	│ event 0 │ event 1 │ … │ event n │ table: n+1 × u32, where each  │
//	│         │         │   │         │ event ends, little endian     │
//	└─────────┴─────────┴───┴─────────┴───────────────────────────────┘
//
// and an event is
//
//	┌──────────┬──────────┬──────────────────────────┬───────────────────┐
//	│ a varint │ n varint │ n keys and values of the │ the other sections│
//	│          │          │ message annotations kept │ as they came      │
//	└──────────┴──────────┴──────────────────────────┴───────────────────┘
//	           └──────── a bytes; none if a is 0 ─────┘
//
// It knows AMQP's sections (package amqp/wire) and the record; no links, no hub.
package message
