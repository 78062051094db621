package message

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace/millrace/amqp/wire"
)

// Section is one section of a message: a view.
type Section struct {
	Code byte       // wire.DescHeader and its like
	Full []byte     // with the descriptor
	Body wire.Value // without
}

// dataHead returns how long the head and the body of the data section at the
// head of b are, if it is one in the form that clients write it in, and whole.
func dataHead(b []byte) (head, body int, ok bool) {
	const fixed = 3
	if len(b) < fixed+2 || b[0] != wire.CodeDescribed || b[1] != wire.CodeSmallUlong || b[2] != wire.DescData {
		return 0, 0, false
	}
	switch b[fixed] {
	case wire.CodeBinary8:
		head, body = fixed+2, int(b[fixed+1])
	case wire.CodeBinary32:
		if len(b) < fixed+5 {
			return 0, 0, false
		}
		head, body = fixed+5, int(binary.BigEndian.Uint32(b[fixed+1:]))
	default:
		return 0, 0, false
	}
	return head, body, body <= len(b)-head
}

// Data returns the body of the data section at the head of b, and the section's
// length, if it is one in the form that clients write it in, and whole. All else
// is for [Next]; a batch is thousands of these.
func Data(b []byte) (body []byte, size int, ok bool) {
	head, n, ok := dataHead(b)
	if !ok {
		return nil, 0, false
	}
	return b[head : head+n : head+n], head + n, true
}

// plain returns the length of the section at the head of b, if it is one that
// is stored as it came, in the form that clients write it in, whole, and what
// [Next] would accept; else 0.
func plain(b []byte) int {
	const fixed = 3
	if len(b) < fixed+2 || b[0] != wire.CodeDescribed || b[1] != wire.CodeSmallUlong {
		return 0
	}
	format := b[fixed]
	switch b[2] {
	case wire.DescData:
		if head, n, ok := dataHead(b); ok {
			return head + n
		}
		return 0
	case wire.DescProperties:
		if format != wire.CodeList8 && format != wire.CodeList32 {
			return 0
		}
	case wire.DescAppProperties:
		if format != wire.CodeMap8 && format != wire.CodeMap32 {
			return 0
		}
	default:
		return 0
	}
	var head, size, count, width int
	if format>>4 == wire.CodeList8>>4 {
		head, size, width = fixed+2, int(b[fixed+1]), 1
	} else if len(b) >= fixed+5 {
		head, size, width = fixed+5, int(binary.BigEndian.Uint32(b[fixed+1:])), 4
	}
	if size < width || size > len(b)-head {
		return 0
	}
	if count = int(b[head]); width == 4 {
		count = int(binary.BigEndian.Uint32(b[head:]))
	}
	if count < 0 || count > size-width || b[2] == wire.DescAppProperties && count%2 != 0 {
		return 0
	}
	return head + size
}

// Next returns the section at the head of b and what follows it.
func Next(b []byte) (s Section, rest []byte, err error) {
	// The common form first: a small ulong as descriptor.
	if len(b) > 3 && b[0] == wire.CodeDescribed && b[1] == wire.CodeSmallUlong {
		v, n, err := wire.Read(b[3:])
		if err != nil {
			return s, nil, err
		}
		s = Section{Code: b[2], Full: b[:3+n], Body: v}
		rest = b[3+n:]
	} else {
		v, n, err := wire.Read(b)
		if err != nil {
			return s, nil, err
		}
		code, sym, inner, err := v.Described()
		if err != nil {
			return s, nil, err
		}
		if code == 0 {
			code = wire.DescriptorCode(sym)
		}
		s = Section{Code: byte(min(code, 255)), Full: v.Full, Body: inner}
		rest = b[n:]
	}
	if s.Code < wire.DescHeader || s.Code > wire.DescFooter {
		return s, nil, fmt.Errorf("%w: a section with descriptor 0x%02x", wire.ErrDecode, s.Code)
	}
	return s, rest, s.check()
}

// check holds the section's value to the type that its code has.
func (s *Section) check() error {
	var err error
	switch s.Code {
	case wire.DescHeader, wire.DescProperties, wire.DescSequence:
		_, err = s.Body.List()
	case wire.DescDeliveryAnn, wire.DescMessageAnn, wire.DescAppProperties, wire.DescFooter:
		_, err = s.Body.Map()
	case wire.DescData:
		if _, ok := s.Body.Binary(); !ok {
			err = fmt.Errorf("%w: a data section of format code 0x%02x", wire.ErrDecode, s.Body.Code)
		}
	}
	return err
}
