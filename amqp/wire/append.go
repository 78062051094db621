package wire

import (
	"encoding/binary"
	"math"
)

// The Append functions add one encoded value to b and return the result.

// AppendNull adds null.
func AppendNull(b []byte) []byte { return append(b, CodeNull) }

// AppendBool adds a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, CodeTrue)
	}
	return append(b, CodeFalse)
}

// AppendUbyte adds a ubyte.
func AppendUbyte(b []byte, v byte) []byte { return append(b, CodeUbyte, v) }

// AppendUshort adds a ushort.
func AppendUshort(b []byte, v uint16) []byte {
	return binary.BigEndian.AppendUint16(append(b, CodeUshort), v)
}

// AppendUint adds a uint in its shortest form.
func AppendUint(b []byte, v uint32) []byte {
	switch {
	case v == 0:
		return append(b, CodeUint0)
	case v < 256:
		return append(b, CodeSmallUint, byte(v))
	}
	return binary.BigEndian.AppendUint32(append(b, CodeUint), v)
}

// AppendUlong adds a ulong in its shortest form.
func AppendUlong(b []byte, v uint64) []byte {
	switch {
	case v == 0:
		return append(b, CodeUlong0)
	case v < 256:
		return append(b, CodeSmallUlong, byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, CodeUlong), v)
}

// AppendShort adds a short.
func AppendShort(b []byte, v int16) []byte {
	return binary.BigEndian.AppendUint16(append(b, CodeShort), uint16(v))
}

// AppendInt adds an int in its full width, which every client reads.
func AppendInt(b []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, CodeInt), uint32(v))
}

// AppendLong adds a long in its full width.
func AppendLong(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, CodeLong), uint64(v))
}

// AppendDouble adds a double.
func AppendDouble(b []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(b, CodeDouble), math.Float64bits(v))
}

// AppendTimestamp adds a timestamp, in milliseconds since 1970, which may be
// negative.
func AppendTimestamp(b []byte, ms int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, CodeTimestamp), uint64(ms))
}

// AppendString adds a string.
func AppendString(b []byte, s string) []byte { return appendText(b, CodeString8, s) }

// AppendText adds a string given as its bytes.
func AppendText(b, v []byte) []byte { return appendText(b, CodeString8, v) }

// AppendSymbol adds a symbol.
func AppendSymbol(b []byte, s string) []byte { return appendText(b, CodeSymbol8, s) }

// AppendBinary adds a binary.
func AppendBinary(b, v []byte) []byte { return appendText(b, CodeBinary8, v) }

func appendText[T string | []byte](b []byte, code8 byte, s T) []byte {
	if len(s) < 256 {
		return append(append(b, code8, byte(len(s))), s...)
	}
	return append(binary.BigEndian.AppendUint32(append(b, code8|0x10), uint32(len(s))), s...)
}

// AppendValue adds a value as it was read; null if there was none.
func AppendValue(b []byte, v Value) []byte {
	if v.Full == nil {
		return append(b, CodeNull)
	}
	return append(b, v.Full...)
}

// AppendDescriptor begins a described value whose descriptor is a small ulong,
// the form that go-amqp insists on.
func AppendDescriptor(b []byte, code byte) []byte {
	return append(b, CodeDescribed, CodeSmallUlong, code)
}

// BeginList begins a list of n items, BeginMap a map of n keys and values in
// all. Append the items, then call EndCompound with what was returned as at.
func BeginList(b []byte, n int) (_ []byte, at int) { return begin(b, CodeList32, n) }

// BeginMap is the same for a map.
func BeginMap(b []byte, n int) (_ []byte, at int) { return begin(b, CodeMap32, n) }

func begin(b []byte, code byte, n int) ([]byte, int) {
	b = append(b, code, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return b, len(b)
}

// EndCompound writes the length of what BeginList or BeginMap began.
func EndCompound(b []byte, at int) {
	binary.BigEndian.PutUint32(b[at-8:], uint32(len(b)-at+4))
}

// AppendSymbols adds an array of symbols, as the service does: array8 of sym32.
func AppendSymbols(b []byte, symbols ...string) []byte {
	return appendArray(b, CodeSymbol32, symbols)
}

// AppendStrings adds an array of strings: array8 of str32, or array32.
func AppendStrings(b []byte, strs ...string) []byte { return appendArray(b, CodeString32, strs) }

func appendArray(b []byte, code byte, elems []string) []byte {
	size := 1
	for _, s := range elems {
		size += 4 + len(s)
	}
	if size+1 < 256 && len(elems) < 256 {
		b = append(b, CodeArray8, byte(size+1), byte(len(elems)))
	} else {
		b = append(b, CodeArray32)
		b = binary.BigEndian.AppendUint32(b, uint32(size+4))
		b = binary.BigEndian.AppendUint32(b, uint32(len(elems)))
	}
	b = append(b, code)
	for _, s := range elems {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}
