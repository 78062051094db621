package row

import (
	"encoding/binary"
	"math/bits"
	"strconv"
)

// A decimal of AMQP is one of IEEE 754 with its coefficient in binary (part 1,
// section 1.6), in 4, 8 or 16 bytes:
//
//	┌──────┬──────────────────┬─────────────┐  An exponent that would begin with 11
//	│ sign │ exponent, biased │ coefficient │  begins two bits later instead, and the
//	└──────┴──────────────────┴─────────────┘  coefficient has 100 before it.
type decimalFormat struct {
	exponent    uint // bits
	coefficient uint // bits of it that are in the first 8 bytes
	bias        int
	digits      int
}

func decimalOf(size int) decimalFormat {
	switch size {
	case 4:
		return decimalFormat{8, 23, 101, 7}
	case 8:
		return decimalFormat{10, 53, 398, 16}
	}
	return decimalFormat{14, 49, 6176, 34}
}

// appendDecimal adds a decimal's text, as General Decimal Arithmetic writes it:
// 1.50, -0.001, 1.5E+10, Infinity, NaN.
func appendDecimal(b, body []byte) []byte {
	f := decimalOf(len(body))
	var x, low uint64
	switch len(body) {
	case 4:
		x = uint64(binary.BigEndian.Uint32(body))
	case 8:
		x = binary.BigEndian.Uint64(body)
	default:
		x, low = binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])
	}
	width := 1 + f.exponent + f.coefficient
	if x>>(width-1) == 1 {
		b = append(b, '-')
	}
	switch x >> (width - 6) & 0b11111 {
	case 0b11111:
		return append(b, "NaN"...)
	case 0b11110:
		return append(b, "Infinity"...)
	}
	exponent, hi, lo := x>>f.coefficient, uint64(0), x&(1<<f.coefficient-1)
	if len(body) == 16 {
		hi, lo = lo, low
	}
	if x>>(width-3)&0b11 == 0b11 {
		exponent = x >> (f.coefficient - 2)
		hi, lo = 0, 0b100<<(f.coefficient-2)|x&(1<<(f.coefficient-2)-1)
		if len(body) == 16 { // that would be more than 34 digits
			lo = 0
		}
	}
	var buf [40]byte
	digits := appendUint128(buf[:0], hi, lo)
	if len(digits) > f.digits { // not canonical, and so zero
		digits = append(buf[:0], '0')
	}
	return appendScientific(b, digits, int(exponent&(1<<f.exponent-1))-f.bias)
}

// appendUint128 adds a number below 2^114.
func appendUint128(b []byte, hi, lo uint64) []byte {
	const e19 = 1e19
	high, low := bits.Div64(hi, lo, e19)
	if high == 0 {
		return strconv.AppendUint(b, low, 10)
	}
	b = strconv.AppendUint(b, high, 10)
	var buf [20]byte
	tail := strconv.AppendUint(buf[:0], low, 10)
	for range 19 - len(tail) {
		b = append(b, '0')
	}
	return append(b, tail...)
}

// appendScientific adds digits × 10^exponent.
func appendScientific(b, digits []byte, exponent int) []byte {
	adjusted := exponent + len(digits) - 1
	if exponent > 0 || adjusted < -6 {
		b = append(b, digits[0])
		if len(digits) > 1 {
			b = append(append(b, '.'), digits[1:]...)
		}
		b = append(b, 'E')
		if adjusted >= 0 {
			b = append(b, '+')
		}
		return strconv.AppendInt(b, int64(adjusted), 10)
	}
	point := len(digits) + exponent // digits before it
	if exponent == 0 {
		return append(b, digits...)
	}
	if point <= 0 {
		b = append(b, '0', '.')
		for range -point {
			b = append(b, '0')
		}
		return append(b, digits...)
	}
	return append(append(append(b, digits[:point]...), '.'), digits[point:]...)
}
