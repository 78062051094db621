package message

import (
	"math"

	"github.com/millrace/millrace/amqp/wire"
)

// Annotations of an idempotent producer's messages, and properties of its link
// (amqp.md 6.1, 6.3). They are neither stored nor delivered.
const (
	AnnotationProducerID       = "com.microsoft:producer-id"
	AnnotationProducerEpoch    = "com.microsoft:producer-epoch"
	AnnotationProducerSequence = "com.microsoft:producer-sequence-number"
)

// StampLimit is the largest value of one of a producer's annotations, by its type
// (long, short, int); 0 for all others.
func StampLimit(key []byte) int64 {
	switch string(key) {
	case AnnotationProducerID:
		return math.MaxInt64
	case AnnotationProducerEpoch:
		return math.MaxInt16
	case AnnotationProducerSequence:
		return math.MaxInt32
	}
	return 0
}

// Stamp is what an idempotent producer has written on a message. Null counts as
// absent.
type Stamp struct {
	ID       int64
	Sequence int32
	Epoch    int16

	HasID, HasSequence, HasEpoch bool
	// Wrong says that one of them is not an integer of its range.
	Wrong bool
}

// read takes an annotation, if it is one of the stamp's.
func (s *Stamp) read(key []byte, v wire.Value) {
	limit := StampLimit(key)
	if limit == 0 || v.IsNull() {
		return
	}
	n, ok := v.Integer()
	switch {
	case !ok || n < 0 || n > limit:
		s.Wrong = true
	case limit == math.MaxInt64:
		s.ID, s.HasID = n, true
	case limit == math.MaxInt16:
		s.Epoch, s.HasEpoch = int16(n), true
	default:
		s.Sequence, s.HasSequence = int32(n), true
	}
}
