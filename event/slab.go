package event

import (
	"sync"
	"sync/atomic"
)

// Headroom is the space in front of a record's body in its slab: room for the
// engine's frame and the record's header, so that a record goes to disk as one
// run of bytes without being copied again.
const Headroom = FrameRoom + RecordHeaderSize

// FrameRoom is what an engine may put in front of a record.
const FrameRoom = 32

// SlabSize is the size of the largest pooled slab and, headroom included, the
// size near which encoders cut records: 64 KiB stays in a core's cache from the
// socket to the disk, where one megabyte costs 2.6 times as much.
const SlabSize = 64 << 10

// slabClasses are the pooled sizes. A single small event must not pin 64 KiB:
// thousands of connections may each have one in flight.
var slabClasses = [...]int{4 << 10, 16 << 10, SlabSize}

var slabPools [len(slabClasses)]sync.Pool

// Slab is a reference-counted buffer. It starts with one reference; the memory
// returns to its pool with the last. The zero Slab is not usable.
type Slab struct {
	// B is the whole buffer.
	B []byte

	refs  atomic.Int32
	class int8 // index into slabClasses, or -1 when not pooled
}

// NewSlab returns a slab of at least size bytes, a multiple of eight, with one
// reference. Its contents are whatever was there before.
func NewSlab(size int) *Slab {
	for i, c := range slabClasses {
		if size > c {
			continue
		}
		s, _ := slabPools[i].Get().(*Slab)
		if s == nil {
			s = &Slab{B: make([]byte, c), class: int8(i)}
		}
		s.refs.Store(1)
		return s
	}
	s := &Slab{B: make([]byte, (size+7)&^7), class: -1}
	s.refs.Store(1)
	return s
}

// Retain adds a reference.
func (s *Slab) Retain() { s.refs.Add(1) }

// Release drops a reference. The caller must not touch the slab afterwards.
func (s *Slab) Release() {
	switch n := s.refs.Add(-1); {
	case n > 0:
	case n < 0:
		panic("event: slab released more often than retained")
	default:
		poison(s.B)
		if s.class >= 0 {
			slabPools[s.class].Put(s)
		}
	}
}
