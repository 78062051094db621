package main

import (
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// bare is an event's message without what the broker says of it.
func bare(e *azeventhubs.ReceivedEventData) *azeventhubs.AMQPAnnotatedMessage {
	m := *e.RawAMQPMessage
	m.MessageAnnotations = map[any]any{}
	for k, v := range e.RawAMQPMessage.MessageAnnotations {
		if k != "x-opt-sequence-number" && k != "x-opt-offset" && k != "x-opt-enqueued-time" {
			m.MessageAnnotations[k] = v
		}
	}
	m.DeliveryTag = nil
	return &m
}

func bareAll(all map[string][]*azeventhubs.ReceivedEventData) map[string][]*azeventhubs.AMQPAnnotatedMessage {
	out := map[string][]*azeventhubs.AMQPAnnotatedMessage{}
	for id, events := range all {
		for _, e := range events {
			out[id] = append(out[id], bare(e))
		}
	}
	return out
}

// oddEvents have what randomEvent's don't: sections and types that files don't keep.
func oddEvents() []*azeventhubs.AMQPAnnotatedMessage {
	some := func(change func(m *azeventhubs.AMQPAnnotatedMessage)) *azeventhubs.AMQPAnnotatedMessage {
		m := &azeventhubs.AMQPAnnotatedMessage{Properties: &azeventhubs.AMQPAnnotatedMessageProperties{MessageID: amqp.UUID{1, 2, 3}}}
		m.Body.Data = [][]byte{[]byte("x")}
		change(m)
		return m
	}
	return []*azeventhubs.AMQPAnnotatedMessage{
		some(func(m *azeventhubs.AMQPAnnotatedMessage) {
			m.Body = azeventhubs.AMQPAnnotatedMessageBody{Sequence: [][]any{{int32(1), "two"}, {nil, 3.5}}}
		}),
		some(func(m *azeventhubs.AMQPAnnotatedMessage) {
			m.Body = azeventhubs.AMQPAnnotatedMessageBody{Value: map[string]any{"a": []any{int64(1), uint8(2)}}}
		}),
		some(func(m *azeventhubs.AMQPAnnotatedMessage) {
			m.Body.Data = [][]byte{[]byte("one"), {}, []byte("three")}
		}),
		some(func(m *azeventhubs.AMQPAnnotatedMessage) {
			m.ApplicationProperties = map[string]any{
				"uuid": amqp.UUID{9}, "symbol": amqp.Symbol("s"), "i16": int16(-5), "u32": uint32(7), "u64": uint64(1) << 63, "f": float32(1.5),
				"b": false, "n": nil, "t": time.UnixMilli(1_700_000_000_123).UTC(), "i": int32(-1), "bytes": []byte{0, 1},
			}
		}),
		some(func(m *azeventhubs.AMQPAnnotatedMessage) {
			m.Header = &azeventhubs.AMQPAnnotatedMessageHeader{Durable: true, Priority: 7}
			m.Footer = map[any]any{"sum": int64(5)}
			m.MessageAnnotations = map[any]any{"x-opt-mine": "kept"}
		}),
	}
}
