package main

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/once/processor"
)

// annotationKey is the annotation that has the partition key.
const annotationKey = "x-opt-partition-key"

// again makes an event of a captured one, with all that the file has of it, and
// returns its partition key. It has views into the row.
func again(e *row.Row) (m *azeventhubs.AMQPAnnotatedMessage, key string) {
	m = &azeventhubs.AMQPAnnotatedMessage{Properties: &azeventhubs.AMQPAnnotatedMessageProperties{}, MessageAnnotations: map[any]any{}}
	if e.Body != nil {
		m.Body.Data = [][]byte{e.Body}
	}
	for _, p := range e.Properties {
		if m.ApplicationProperties == nil {
			m.ApplicationProperties = map[string]any{}
		}
		m.ApplicationProperties[string(p.Name)] = plainValue(p.Value)
	}
	for _, p := range e.System {
		name := string(p.Name)
		if name == annotationKey {
			key = text(p.Value)
			continue
		}
		if !setProperty(m.Properties, name, p.Value) {
			m.MessageAnnotations[name] = plainValue(p.Value)
		}
	}
	return m, key
}

// copied makes an event of a received one, with all that it had, and returns its
// partition key and how many bytes its body has, or as many as can be said. It has views
// into the other.
func copied(e *azeventhubs.ReceivedEventData) (m *azeventhubs.AMQPAnnotatedMessage, key string, bytes int) {
	m = processor.Copy(e)
	if e.PartitionKey != nil {
		key = *e.PartitionKey
	}
	for _, d := range m.Body.Data {
		bytes += len(d)
	}
	return m, key, bytes
}

// setProperty sets a field of the section properties by its name in AMQP. It tells
// whether there is one of the name.
func setProperty(p *azeventhubs.AMQPAnnotatedMessageProperties, name string, v row.Value) bool {
	texts := map[string]**string{
		"to": &p.To, "subject": &p.Subject, "reply-to": &p.ReplyTo, "content-type": &p.ContentType, "content-encoding": &p.ContentEncoding,
		"group-id": &p.GroupID, "reply-to-group-id": &p.ReplyToGroupID,
	}
	if to, ok := texts[name]; ok {
		*to = new(text(v))
		return true
	}
	switch name {
	case "message-id":
		p.MessageID = identifier(v)
	case "correlation-id":
		p.CorrelationID = identifier(v)
	case "user-id":
		p.UserID = octets(v)
	case "absolute-expiry-time":
		p.AbsoluteExpiryTime = moment(v)
	case "creation-time":
		p.CreationTime = moment(v)
	case "group-sequence":
		if n, ok := number(v); ok && n >= 0 && n <= math.MaxUint32 {
			p.GroupSequence = new(uint32(n))
		}
	default:
		return false
	}
	return true
}

// text is a value as a string.
func text(v row.Value) string {
	if v.Kind == row.String || v.Kind == row.Bytes {
		return string(v.Text)
	}
	return string(v.AppendJSON(nil))
}

// identifier is a message's or a correlation's: a string, bytes, or an unsigned long.
func identifier(v row.Value) any {
	switch {
	case v.Kind == row.Bytes:
		return append([]byte{}, v.Text...)
	case v.Kind == row.Long && v.Long >= 0:
		return uint64(v.Long)
	}
	return text(v)
}

// octets is a value that was bytes. Parquet has them as JSON, in base64.
func octets(v row.Value) []byte {
	if v.Kind == row.String {
		var encoded string
		if json.Unmarshal(v.Text, &encoded) == nil {
			if b, err := base64.StdEncoding.DecodeString(encoded); err == nil {
				return b
			}
		}
	}
	return []byte(text(v))
}

// number is a value that was an integer. Parquet has it as text.
func number(v row.Value) (int64, bool) {
	if v.Kind == row.Long {
		return v.Long, true
	}
	n, err := strconv.ParseInt(text(v), 10, 64)
	return n, err == nil
}

func moment(v row.Value) *time.Time {
	ms, ok := number(v)
	if !ok {
		return nil
	}
	return new(time.UnixMilli(ms).UTC())
}
