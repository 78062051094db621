package wire

import "encoding/binary"

// A frame (part 2, section 2.3):
//
//	 0        4     5     6         8
//	 ┌────────┬─────┬─────┬─────────┬──────────────────┬─────────────┬─────────┐
//	 │ size   │doff │type │ channel │ extended header, │ performative│ payload │
//	 │        │     │     │         │ doff*4 - 8 bytes │             │         │
//	 └────────┴─────┴─────┴─────────┴──────────────────┴─────────────┴─────────┘

// FrameHeaderSize is the length of a frame's fixed header.
const FrameHeaderSize = 8

// MinMaxFrameSize is the smallest maximum frame size that a peer may announce,
// and the size that no frame exceeds before Open.
const MinMaxFrameSize = 512

// Frame types.
const (
	FrameAMQP = 0
	FrameSASL = 1
)

// Protocol headers.
var (
	HeaderAMQP = [8]byte{'A', 'M', 'Q', 'P', 0, 1, 0, 0}
	HeaderSASL = [8]byte{'A', 'M', 'Q', 'P', 3, 1, 0, 0}
	HeaderTLS  = [8]byte{'A', 'M', 'Q', 'P', 2, 1, 0, 0}
)

// Frame is one frame: a view. A frame without body is a heartbeat.
type Frame struct {
	Type    byte
	Channel uint16
	Body    []byte
}

// FrameSize returns the length of the frame that begins with b, which holds at
// least FrameHeaderSize bytes, or an error if there can be no such frame of at
// most max bytes. Nothing of it has to have arrived.
func FrameSize(b []byte, max int) (int, error) {
	n := binary.BigEndian.Uint32(b)
	switch {
	case n < FrameHeaderSize:
		return 0, malformed("a frame of %d bytes", n)
	case uint64(n) > uint64(max):
		return 0, malformed("a frame of %d bytes, where %d is the largest allowed", n, max)
	}
	return int(n), nil
}

// ReadFrame splits a whole frame.
func ReadFrame(b []byte) (Frame, error) {
	off := int(b[4]) * 4
	if off < FrameHeaderSize || off > len(b) {
		return Frame{}, malformed("a frame of %d bytes whose body begins at %d", len(b), off)
	}
	return Frame{Type: b[5], Channel: binary.BigEndian.Uint16(b[6:]), Body: b[off:]}, nil
}

// BeginFrame adds a frame's header; append its body, then call EndFrame with
// what was returned as at.
func BeginFrame(b []byte, typ byte, channel uint16) (_ []byte, at int) {
	at = len(b)
	return append(b, 0, 0, 0, 0, 2, typ, byte(channel>>8), byte(channel)), at
}

// EndFrame writes the frame's length.
func EndFrame(b []byte, at int) { binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at)) }
