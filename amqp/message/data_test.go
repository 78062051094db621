package message_test

import (
	"bytes"
	"testing"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
)

// TestDataAgreesWithNext: the short way to a data section finds what the long
// way finds, and nothing where that finds an error.
func TestDataAgreesWithNext(t *testing.T) {
	section := func(n int) []byte {
		return wire.AppendBinary(wire.AppendDescriptor(nil, wire.DescData), bytes.Repeat([]byte("x"), n))
	}
	inputs := [][]byte{nil, {0}, {0, 0x53, 0x75}, {0, 0x53, 0x75, 0xA0}, {0, 0x53, 0x75, 0x40},
		{0, 0x53, 0x75, 0xB0, 0xFF, 0xFF, 0xFF, 0xFF, 1}, {0, 0x53, 0x75, 0xB0, 0, 0, 0}, {0, 0x53, 0x77, 0xA0, 1, 1},
		{0, 0x53, 0x75, 0xA1, 1, 'x'}, {0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x75, 0xA0, 1, 1}}
	for _, n := range []int{0, 1, 255, 256, 70_000} {
		s := section(n)
		inputs = append(inputs, s, s[:len(s)-1], append(s[:len(s):len(s)], 1, 2, 3))
	}
	found := 0
	for _, b := range inputs {
		body, size, ok := message.Data(b)
		s, rest, err := message.Next(b)
		if !ok {
			continue
		}
		found++
		want, isData := s.Body.Binary()
		if err != nil || !isData || !bytes.Equal(body, want) || len(b)-len(rest) != size {
			t.Errorf("% .20x: %d bytes in %d, the long way %d bytes, %v", b, len(body), size, len(want), err)
		}
		if cap(body) != len(body) {
			t.Errorf("% .20x: the body reaches into what follows", b)
		}
	}
	if found < 10 {
		t.Errorf("the short way was taken %d times", found)
	}
}
