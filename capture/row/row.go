package row

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/millrace/millrace/event"
)

// Row is one event in a captured file. Whoever hands one out owns its memory and
// uses it again for the next row: copy what is to be kept.
type Row struct {
	Sequence event.SequenceNumber
	// Offset is text: the sequence number in decimal in our files, in the service's
	// whatever it says.
	Offset   []byte
	Enqueued int64 // Unix milliseconds

	// System and Properties, if they come from a Decoder, are sorted by name and
	// have each name once, and names and values of the kind String are valid UTF-8;
	// from a file they are as they are there. System has no value of the kind Null.
	System     []Property
	Properties []Property

	// Body is nil for null, which is something else than an empty one.
	Body []byte

	// Incomplete says that the producer encoded a property or an annotation
	// wrongly, or sent more than MaxProperties: what could be read up to there is
	// here, and what follows it in the same map is not. The body is whole. Readers
	// of files never set it.
	Incomplete bool
}

// PartitionKey is the system property of that name, if it is text.
func (r *Row) PartitionKey() (key []byte, ok bool) {
	for i := range r.System {
		if p := &r.System[i]; string(p.Name) == "x-opt-partition-key" {
			return p.Value.Text, p.Value.Kind == String
		}
	}
	return nil, false
}

// Property is a name with its value.
type Property struct {
	Name  []byte
	Value Value
}

// Kind is the type of a value in a captured file.
type Kind uint8

// The kinds: the branches of the unions in the service's schema.
const (
	Null Kind = iota
	Long
	Double
	String
	Bytes
)

// String is the kind's name in Avro.
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Long:
		return "long"
	case Double:
		return "double"
	case String:
		return "string"
	case Bytes:
		return "bytes"
	}
	return "unknown"
}

// Value is the value of a property: Kind says which field counts.
type Value struct {
	Kind   Kind
	Long   int64
	Double float64
	Text   []byte // of String and Bytes
}

// AppendJSON adds the value to b as JSON: bytes in base64, and a double that JSON
// has no number for as the string NaN, Infinity or -Infinity.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.Kind {
	case Long:
		return strconv.AppendInt(b, v.Long, 10)
	case Double:
		return appendDouble(b, v.Double)
	case String:
		return appendQuoted(b, v.Text)
	case Bytes:
		return append(base64.StdEncoding.AppendEncode(append(b, '"'), v.Text), '"')
	}
	return append(b, "null"...)
}

func appendDouble(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendQuoted adds text as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendQuoted(b, text []byte) []byte {
	b = append(b, '"')
	for len(text) > 0 {
		c := text[0]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(text)
			b = utf8.AppendRune(b, r)
			text = text[n:]
			continue
		}
		text = text[1:]
	}
	return append(b, '"')
}
