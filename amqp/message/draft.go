package message

import (
	"time"

	"github.com/millrace/millrace/amqp/wire"
)

// Draft is a message that the broker encodes itself, for events that came over
// another protocol. The zero value is a message with an empty body.
type Draft struct {
	// Text fields of the section properties (part 3, section 3.2.4); an empty one
	// is left out.
	MessageID, To, Subject, ReplyTo, CorrelationID string
	ContentType, ContentEncoding                   string
	GroupID, ReplyToGroupID                        string
	// Properties are the application properties, in the order in which they are
	// written. Names must differ, or readers choose.
	Properties []Property
	// Body becomes one data section.
	Body []byte
}

// Property is an application property. Name and Value must be valid UTF-8.
type Property struct {
	Name string
	// Value is nil (null), or a bool (boolean), int64 (long), float64 (double),
	// string (string) or time.Time (timestamp: whole milliseconds).
	Value any
}

// Reset makes d the zero value and keeps its memory. The views that it had are
// forgotten.
func (d *Draft) Reset() {
	clear(d.Properties)
	*d = Draft{Properties: d.Properties[:0]}
}

// Append adds the encoded message to b: the sections properties and application
// properties, where there are any, and data.
func (d *Draft) Append(b []byte) []byte {
	b = d.appendProperties(b)
	if len(d.Properties) > 0 {
		b = wire.AppendDescriptor(b, wire.DescAppProperties)
		var at int
		b, at = wire.BeginMap(b, 2*len(d.Properties))
		for i := range d.Properties {
			b = appendAny(wire.AppendString(b, d.Properties[i].Name), d.Properties[i].Value)
		}
		wire.EndCompound(b, at)
	}
	return wire.AppendBinary(wire.AppendDescriptor(b, wire.DescData), d.Body)
}

// propertyFields is how many fields of the section are written at most: all up
// to reply-to-group-id.
const propertyFields = 13

// appendProperties adds the section properties, if a field of it is set. Fields
// at its end that are not set are left out.
func (d *Draft) appendProperties(b []byte) []byte {
	texts := [propertyFields]string{
		0: d.MessageID, 2: d.To, 3: d.Subject, 4: d.ReplyTo, 5: d.CorrelationID,
		6: d.ContentType, 7: d.ContentEncoding, 10: d.GroupID, 12: d.ReplyToGroupID,
	}
	n := propertyFields
	for n > 0 && texts[n-1] == "" {
		n--
	}
	if n == 0 {
		return b
	}
	b, at := wire.BeginList(wire.AppendDescriptor(b, wire.DescProperties), n)
	for i, s := range texts[:n] {
		switch {
		case s == "":
			b = wire.AppendNull(b)
		case i == 6 || i == 7: // content-type and content-encoding
			b = wire.AppendSymbol(b, s)
		default:
			b = wire.AppendString(b, s)
		}
	}
	wire.EndCompound(b, at)
	return b
}

func appendAny(b []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return wire.AppendBool(b, v)
	case int64:
		return wire.AppendLong(b, v)
	case float64:
		return wire.AppendDouble(b, v)
	case string:
		return wire.AppendString(b, v)
	case time.Time:
		return wire.AppendTimestamp(b, v.UnixMilli())
	}
	return wire.AppendNull(b)
}
