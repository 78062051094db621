package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Format codes (part 1, section 1.6).
const (
	CodeDescribed  = 0x00
	CodeNull       = 0x40
	CodeTrue       = 0x41
	CodeFalse      = 0x42
	CodeUint0      = 0x43
	CodeUlong0     = 0x44
	CodeList0      = 0x45
	CodeUbyte      = 0x50
	CodeByte       = 0x51
	CodeSmallUint  = 0x52
	CodeSmallUlong = 0x53
	CodeSmallInt   = 0x54
	CodeSmallLong  = 0x55
	CodeBool       = 0x56
	CodeUshort     = 0x60
	CodeShort      = 0x61
	CodeUint       = 0x70
	CodeInt        = 0x71
	CodeFloat      = 0x72
	CodeChar       = 0x73
	CodeDecimal32  = 0x74
	CodeUlong      = 0x80
	CodeLong       = 0x81
	CodeDouble     = 0x82
	CodeTimestamp  = 0x83
	CodeDecimal64  = 0x84
	CodeDecimal128 = 0x94
	CodeUUID       = 0x98
	CodeBinary8    = 0xA0
	CodeString8    = 0xA1
	CodeSymbol8    = 0xA3
	CodeBinary32   = 0xB0
	CodeString32   = 0xB1
	CodeSymbol32   = 0xB3
	CodeList8      = 0xC0
	CodeMap8       = 0xC1
	CodeList32     = 0xD0
	CodeMap32      = 0xD1
	CodeArray8     = 0xE0
	CodeArray32    = 0xF0
)

// ErrDecode is what every decoding error wraps.
var ErrDecode = errors.New("malformed AMQP")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDecode, fmt.Sprintf(format, args...))
}

var errShort = malformed("a value ends before its length")

// Value is one encoded value: a view into the bytes that it was read from. The
// zero Value is that of a field that is not there, and counts as null.
type Value struct {
	// Code is the format code; CodeDescribed for a described value.
	Code byte
	// Body is what follows the code and, for types of variable width, the
	// length; for a described value, descriptor and value.
	Body []byte
	// Full is the whole encoding.
	Full []byte
}

// maxDepth bounds how deeply descriptors may be nested.
const maxDepth = 8

// Size returns the length of the value at the head of b, constructor included.
func Size(b []byte) (int, error) { return size(b, maxDepth) }

func size(b []byte, depth int) (int, error) {
	if len(b) == 0 {
		return 0, errShort
	}
	n := 0
	switch c := b[0]; c >> 4 {
	case 0x4:
		if c > CodeList0 {
			return 0, malformed("format code 0x%02x", c)
		}
		n = 1
	case 0x5:
		n = 2
	case 0x6:
		n = 3
	case 0x7:
		n = 5
	case 0x8:
		n = 9
	case 0x9:
		n = 17
	case 0xA, 0xC, 0xE:
		if len(b) < 2 {
			return 0, errShort
		}
		n = 2 + int(b[1])
	case 0xB, 0xD, 0xF:
		if len(b) < 5 {
			return 0, errShort
		}
		n = 5 + int(binary.BigEndian.Uint32(b[1:]))
	default:
		if c != CodeDescribed {
			return 0, malformed("format code 0x%02x", c)
		}
		if depth == 0 {
			return 0, malformed("descriptors are nested too deeply")
		}
		d, err := size(b[1:], depth-1)
		if err != nil {
			return 0, err
		}
		v, err := size(b[1+d:], depth-1)
		if err != nil {
			return 0, err
		}
		return 1 + d + v, nil
	}
	if n > len(b) || n < 0 {
		return 0, errShort
	}
	return n, nil
}

// Read decodes the value at the head of b and returns its length.
func Read(b []byte) (Value, int, error) {
	n, err := Size(b)
	if err != nil {
		return Value{}, 0, err
	}
	v := Value{Code: b[0], Full: b[:n]}
	switch v.Code >> 4 {
	case 0xA, 0xC, 0xE:
		v.Body = b[2:n]
	case 0xB, 0xD, 0xF:
		v.Body = b[5:n]
	default:
		v.Body = b[1:n]
	}
	return v, n, nil
}

// IsNull tells whether the value is null, or a field that is not there.
func (v Value) IsNull() bool { return v.Code == CodeNull || v.Full == nil }

// Described returns the parts of a described value: the descriptor's numeric
// code, or 0 and the symbol, and the value itself.
func (v Value) Described() (code uint64, symbol []byte, inner Value, err error) {
	if v.Code != CodeDescribed || v.Full == nil {
		return 0, nil, Value{}, malformed("a described value was expected, not format code 0x%02x", v.Code)
	}
	d, n, err := Read(v.Body)
	if err != nil {
		return 0, nil, Value{}, err
	}
	if inner, _, err = Read(v.Body[n:]); err != nil {
		return 0, nil, Value{}, err
	}
	if s, ok := d.Symbol(); ok {
		return 0, s, inner, nil
	}
	if code, ok := d.Uint(); ok {
		return code, nil, inner, nil
	}
	return 0, nil, Value{}, malformed("a descriptor has format code 0x%02x", d.Code)
}

// Uint returns an unsigned integer of any width.
func (v Value) Uint() (uint64, bool) {
	switch v.Code {
	case CodeUint0, CodeUlong0:
		return 0, true
	case CodeUbyte, CodeSmallUint, CodeSmallUlong:
		return uint64(v.Body[0]), true
	case CodeUshort:
		return uint64(binary.BigEndian.Uint16(v.Body)), true
	case CodeUint:
		return uint64(binary.BigEndian.Uint32(v.Body)), true
	case CodeUlong:
		return binary.BigEndian.Uint64(v.Body), true
	}
	return 0, false
}

// Int returns a signed integer of any width.
func (v Value) Int() (int64, bool) {
	switch v.Code {
	case CodeByte, CodeSmallInt, CodeSmallLong:
		return int64(int8(v.Body[0])), true
	case CodeShort:
		return int64(int16(binary.BigEndian.Uint16(v.Body))), true
	case CodeInt:
		return int64(int32(binary.BigEndian.Uint32(v.Body))), true
	case CodeLong:
		return int64(binary.BigEndian.Uint64(v.Body)), true
	}
	return 0, false
}

// Integer returns an integer of any width and sign that fits an int64.
func (v Value) Integer() (int64, bool) {
	if n, ok := v.Int(); ok {
		return n, true
	}
	n, ok := v.Uint()
	return int64(n), ok && int64(n) >= 0
}

// Bool returns a boolean.
func (v Value) Bool() (val, ok bool) {
	switch v.Code {
	case CodeTrue:
		return true, true
	case CodeFalse:
		return false, v.Full != nil
	case CodeBool:
		return v.Body[0] != 0, true
	}
	return false, false
}

// Time returns a timestamp.
func (v Value) Time() (time.Time, bool) {
	if v.Code != CodeTimestamp {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(v.Body))).UTC(), true
}

// Str returns the bytes of a string.
func (v Value) Str() ([]byte, bool) {
	return v.Body, v.Code == CodeString8 || v.Code == CodeString32
}

// Symbol returns a symbol's bytes.
func (v Value) Symbol() ([]byte, bool) {
	return v.Body, v.Code == CodeSymbol8 || v.Code == CodeSymbol32
}

// Binary returns a binary's bytes.
func (v Value) Binary() ([]byte, bool) {
	return v.Body, v.Code == CodeBinary8 || v.Code == CodeBinary32
}

// Text returns the bytes of a string, symbol or binary: clients mix them up.
func (v Value) Text() ([]byte, bool) {
	switch v.Code {
	case CodeString8, CodeString32, CodeSymbol8, CodeSymbol32, CodeBinary8, CodeBinary32:
		return v.Body, true
	}
	return nil, false
}

// Items iterates over the values of a list or map, or over anything laid out as
// they are. Its zero value is empty.
type Items struct {
	rest []byte
	left int
	err  error
}

// List iterates over a list's items.
func (v Value) List() (Items, error) {
	switch v.Code {
	case CodeList0:
		return Items{}, nil
	case CodeList8:
		return items8(v.Body)
	case CodeList32:
		return items32(v.Body)
	}
	return Items{}, malformed("a list was expected, not format code 0x%02x", v.Code)
}

// Map iterates over a map's keys and values, alternately. A null counts as an
// empty map.
func (v Value) Map() (Items, error) {
	var it Items
	var err error
	switch {
	case v.IsNull():
		return Items{}, nil
	case v.Code == CodeMap8:
		it, err = items8(v.Body)
	case v.Code == CodeMap32:
		it, err = items32(v.Body)
	default:
		err = malformed("a map was expected, not format code 0x%02x", v.Code)
	}
	if err == nil && it.left%2 != 0 {
		err = malformed("a map has a key without a value")
	}
	return it, err
}

func items8(b []byte) (Items, error) {
	if len(b) < 1 {
		return Items{}, errShort
	}
	return counted(b[1:], int(b[0]))
}

func items32(b []byte) (Items, error) {
	if len(b) < 4 {
		return Items{}, errShort
	}
	return counted(b[4:], int(binary.BigEndian.Uint32(b)))
}

func counted(b []byte, n int) (Items, error) {
	if n > len(b) || n < 0 { // each item has a byte at least
		return Items{}, malformed("%d items in %d bytes", n, len(b))
	}
	return Items{rest: b, left: n}, nil
}

// Len is how many items are left.
func (it *Items) Len() int { return it.left }

// Err is the error that ended the iteration, if one did.
func (it *Items) Err() error { return it.err }

// Next returns the next item. At the end, and after an error, it returns the
// zero Value: fields that are not there are null.
func (it *Items) Next() Value {
	if it.left == 0 || it.err != nil {
		return Value{}
	}
	v, n, err := Read(it.rest)
	if err != nil {
		it.err, it.left = err, 0
		return Value{}
	}
	it.rest, it.left = it.rest[n:], it.left-1
	return v
}

// Symbols calls fn with each symbol of a field that may be one symbol or an
// array of them.
func (v Value) Symbols(fn func([]byte)) error {
	if v.IsNull() {
		return nil
	}
	if s, ok := v.Symbol(); ok {
		fn(s)
		return nil
	}
	var n int
	b := v.Body
	switch {
	case v.Code == CodeArray8 && len(b) >= 2:
		n, b = int(b[0]), b[1:]
	case v.Code == CodeArray32 && len(b) >= 5:
		n, b = int(binary.BigEndian.Uint32(b)), b[4:]
	default:
		return malformed("symbols were expected, not format code 0x%02x", v.Code)
	}
	code := b[0]
	b = b[1:]
	for range n {
		var size int
		switch {
		case code == CodeSymbol8 && len(b) >= 1:
			size, b = int(b[0]), b[1:]
		case code == CodeSymbol32 && len(b) >= 4:
			size, b = int(binary.BigEndian.Uint32(b)), b[4:]
		default:
			return malformed("an array of symbols has elements of format code 0x%02x, or ends early", code)
		}
		if size > len(b) || size < 0 {
			return errShort
		}
		fn(b[:size])
		b = b[size:]
	}
	return nil
}
