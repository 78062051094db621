package row

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/millrace/millrace/amqp/wire"
)

// value is the one place that says what an AMQP value is in a captured file
// (blob.md, section 4.1; no file of the service with booleans, timestamps or
// nested values is known, so those are our choice):
//
//	null                                   null
//	ubyte … ulong, byte … long             long; a ulong beyond it a string
//	timestamp                              long, in Unix milliseconds
//	float, double                          double
//	binary                                 bytes
//	boolean                                string: True, False
//	string, symbol                         string
//	uuid, char, decimal32 … decimal128     string
//	list, map, array                       string, of JSON
//	a described value                      as the value that is described
func (d *Decoder) value(v wire.Value) Value {
	for v.Code == wire.CodeDescribed && v.Full != nil {
		_, _, inner, err := v.Described()
		if err != nil {
			d.row.Incomplete = true
			return Value{}
		}
		v = inner
	}
	if v.IsNull() {
		return Value{}
	}
	if t, ok := v.Str(); ok { // the common one first
		return Value{Kind: String, Text: d.utf8(t)}
	}
	if n, ok := v.Integer(); ok {
		return Value{Kind: Long, Long: n}
	}
	switch v.Code {
	case wire.CodeTimestamp:
		return Value{Kind: Long, Long: int64(binary.BigEndian.Uint64(v.Body))}
	case wire.CodeFloat:
		return Value{Kind: Double, Double: float64(math.Float32frombits(binary.BigEndian.Uint32(v.Body)))}
	case wire.CodeDouble:
		return Value{Kind: Double, Double: math.Float64frombits(binary.BigEndian.Uint64(v.Body))}
	case wire.CodeBinary8, wire.CodeBinary32:
		return Value{Kind: Bytes, Text: v.Body}
	case wire.CodeSymbol8, wire.CodeSymbol32:
		return Value{Kind: String, Text: d.utf8(v.Body)}
	}
	at := len(d.text)
	if text, ok := appendScalar(d.text, v); ok {
		d.text = text
	} else {
		d.text = d.appendJSON(d.text, v, 0)
	}
	return Value{Kind: String, Text: d.text[at:len(d.text):len(d.text)]}
}

// appendScalar adds the text of a value that is no number, string or binary in a
// file, and that has no parts.
func appendScalar(b []byte, v wire.Value) ([]byte, bool) {
	if yes, ok := v.Bool(); ok {
		if yes {
			return append(b, "True"...), true
		}
		return append(b, "False"...), true
	}
	switch v.Code {
	case wire.CodeUlong:
		return strconv.AppendUint(b, binary.BigEndian.Uint64(v.Body), 10), true
	case wire.CodeChar:
		return utf8.AppendRune(b, rune(binary.BigEndian.Uint32(v.Body))), true
	case wire.CodeUUID:
		return appendUUID(b, v.Body), true
	case wire.CodeDecimal32, wire.CodeDecimal64, wire.CodeDecimal128:
		return appendDecimal(b, v.Body), true
	}
	return b, false
}

func appendUUID(b, id []byte) []byte {
	for i, c := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&0xF])
	}
	return b
}

// utf8 returns text as it is if it is UTF-8, as nearly all is; else a copy with
// U+FFFD for what is not. A file with other text could not be read at all.
func (d *Decoder) utf8(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	at := len(d.text)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		d.text = utf8.AppendRune(d.text, r)
		text = text[n:]
	}
	return d.text[at:len(d.text):len(d.text)]
}

// maxNesting is how deeply lists, maps and arrays may stand in each other; what
// lies deeper is null, and makes the row incomplete.
const maxNesting = 32

// appendJSON adds any value as JSON. What it can't read is null, and makes the row
// incomplete.
func (d *Decoder) appendJSON(b []byte, v wire.Value, depth int) []byte {
	for v.Code == wire.CodeDescribed && v.Full != nil {
		_, _, inner, err := v.Described()
		if err != nil {
			return d.unreadable(b)
		}
		v = inner
	}
	if v.IsNull() {
		return append(b, "null"...)
	}
	if n, ok := v.Integer(); ok {
		return strconv.AppendInt(b, n, 10)
	}
	if yes, ok := v.Bool(); ok {
		return strconv.AppendBool(b, yes)
	}
	switch v.Code {
	case wire.CodeTimestamp:
		return strconv.AppendInt(b, int64(binary.BigEndian.Uint64(v.Body)), 10)
	case wire.CodeFloat:
		return appendDouble(b, float64(math.Float32frombits(binary.BigEndian.Uint32(v.Body))))
	case wire.CodeDouble:
		return appendDouble(b, math.Float64frombits(binary.BigEndian.Uint64(v.Body)))
	case wire.CodeBinary8, wire.CodeBinary32:
		return append(base64.StdEncoding.AppendEncode(append(b, '"'), v.Body), '"')
	case wire.CodeString8, wire.CodeString32, wire.CodeSymbol8, wire.CodeSymbol32:
		return appendQuoted(b, v.Body)
	case wire.CodeUlong:
		return strconv.AppendUint(b, binary.BigEndian.Uint64(v.Body), 10)
	case wire.CodeChar: // may be a quote
		var r [utf8.UTFMax]byte
		return appendQuoted(b, utf8.AppendRune(r[:0], rune(binary.BigEndian.Uint32(v.Body))))
	case wire.CodeList0, wire.CodeList8, wire.CodeList32:
		return d.appendList(b, v, depth)
	case wire.CodeMap8, wire.CodeMap32:
		return d.appendMap(b, v, depth)
	case wire.CodeArray8, wire.CodeArray32:
		return d.appendArray(b, v, depth)
	}
	if text, ok := appendScalar(append(b, '"'), v); ok { // uuid, decimals
		return append(text, '"')
	}
	return d.unreadable(b)
}

func (d *Decoder) unreadable(b []byte) []byte {
	d.row.Incomplete = true
	return append(b, "null"...)
}

func (d *Decoder) appendList(b []byte, v wire.Value, depth int) []byte {
	it, err := v.List()
	if err != nil || depth == maxNesting {
		return d.unreadable(b)
	}
	b = append(b, '[')
	for first := true; it.Len() > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		item := it.Next()
		if it.Err() != nil {
			b = d.unreadable(b)
			break
		}
		b = d.appendJSON(b, item, depth+1)
	}
	return append(b, ']')
}

func (d *Decoder) appendMap(b []byte, v wire.Value, depth int) []byte {
	it, err := v.Map()
	if err != nil || depth == maxNesting {
		return d.unreadable(b)
	}
	b = append(b, '{')
	for first := true; it.Len() > 0; first = false {
		key, item := it.Next(), it.Next()
		if it.Err() != nil {
			d.row.Incomplete = true
			break
		}
		if !first {
			b = append(b, ',')
		}
		b = append(d.appendKey(b, key), ':')
		b = d.appendJSON(b, item, depth+1)
	}
	return append(b, '}')
}

// appendKey adds a key of a map: JSON has only strings there. A key with parts is
// not read: quoted within quoted, its text would double with each level.
func (d *Decoder) appendKey(b []byte, key wire.Value) []byte {
	if t, ok := key.Text(); ok {
		return appendQuoted(b, t)
	}
	at := len(b)
	if key.Code == wire.CodeDescribed || key.Code>>4 >= 0xC {
		b = d.unreadable(b)
	} else {
		b = d.appendJSON(b, key, 0)
	}
	if b[at] == '"' {
		return b
	}
	b = append(b, 0, '"')
	copy(b[at+1:], b[at:len(b)-2])
	b[at] = '"'
	return b
}

// appendArray adds an array: a count, one constructor, and the elements without
// theirs. Elements that are described, or that take up no bytes, are not read.
func (d *Decoder) appendArray(b []byte, v wire.Value, depth int) []byte {
	n, rest := uint32(0), v.Body
	switch {
	case depth == maxNesting:
		return d.unreadable(b)
	case v.Code == wire.CodeArray8 && len(rest) >= 2:
		n, rest = uint32(rest[0]), rest[1:]
	case v.Code == wire.CodeArray32 && len(rest) >= 5:
		n, rest = binary.BigEndian.Uint32(rest), rest[4:]
	default:
		return d.unreadable(b)
	}
	code := rest[0]
	rest = rest[1:]
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		item, size, ok := element(code, rest)
		if !ok {
			b = d.unreadable(b)
			break
		}
		b = d.appendJSON(b, item, depth+1)
		rest = rest[size:]
	}
	return append(b, ']')
}

// element is the value at the head of b, whose format code stands elsewhere.
func element(code byte, b []byte) (v wire.Value, size int, ok bool) {
	head := 0
	switch code >> 4 {
	case 0x5:
		size = 1
	case 0x6:
		size = 2
	case 0x7:
		size = 4
	case 0x8:
		size = 8
	case 0x9:
		size = 16
	case 0xA, 0xC, 0xE:
		if len(b) < 1 {
			return v, 0, false
		}
		head, size = 1, 1+int(b[0])
	case 0xB, 0xD, 0xF:
		if len(b) < 4 {
			return v, 0, false
		}
		head, size = 4, 4+int(binary.BigEndian.Uint32(b))
	default:
		return v, 0, false
	}
	if size > len(b) || size < 0 {
		return v, 0, false
	}
	return wire.Value{Code: code, Body: b[head:size], Full: b[:size]}, size, true
}
