// Package event has the nouns that every part of Millrace shares: the numbers
// that name events, the batch that a producer hands over, the record in which
// a batch is stored, the chunk in which records are read back, and the codec
// that turns stored bytes into neutral events.
//
// It knows nothing of protocols, hubs or disks, and imports only the standard
// library.
package event

import (
	"iter"
	"time"
)

// SequenceNumber is an event's place in its partition: 0 for the first event
// ever stored, one more for each that follows. An event's offset, as clients
// see it, is its sequence number in decimal.
type SequenceNumber int64

// Encoding says how a record's body is encoded. A batch is stored as it was
// sent; a reader of another protocol goes through the encoding's [Codec].
// The values are part of the stored format and never change.
type Encoding uint8

// The encodings known.
const (
	// EncodingAMQP is AMQP 1.0 sections, normalised once when they arrive
	// (package amqp/message).
	EncodingAMQP Encoding = 1
	// EncodingKafka is a Kafka record batch, version 2, as the client sent it.
	EncodingKafka Encoding = 2
)

// String is the encoding's name.
func (e Encoding) String() string {
	switch e {
	case EncodingAMQP:
		return "amqp"
	case EncodingKafka:
		return "kafka"
	}
	return "unknown"
}

// Origin says what a [Position] counts from.
type Origin uint8

// The origins. The zero value is Earliest, as in the service: a receiver that
// names no position starts at the beginning of what is retained.
const (
	Earliest   Origin = iota // the oldest event retained
	Latest                   // only events enqueued from now on
	AtSequence               // a sequence number
	AtOffset                 // an offset: the same number, told apart for the error text
	AtEnqueued               // an enqueued time
)

// Position says where a reader starts.
type Position struct {
	Origin    Origin
	Sequence  SequenceNumber // for AtSequence and AtOffset
	Enqueued  time.Time      // for AtEnqueued; whole milliseconds count
	Inclusive bool           // whether the event named is itself read
}

// Event is one event in a form that belongs to no protocol. Its byte slices
// are views into the record that it was decoded from and live as long as that.
type Event struct {
	Sequence     SequenceNumber
	Enqueued     time.Time
	PartitionKey string
	// Body is the payload: the data sections of an AMQP message, concatenated.
	// Nil when the message has a body of another kind; Raw then holds it.
	Body []byte
	// Raw is the whole event in its stored encoding, less the broker's marks.
	Raw []byte
}

// Codec reads the events of one encoding.
type Codec interface {
	// Events yields the record's events in order, and an error, last, when the
	// body is not what its encoding promises.
	Events(r *Record) iter.Seq2[Event, error]
}
