package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"
)

var (
	moment = time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)
	id     = amqp.UUID{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF}
)

// scalars has a value of every simple type that go-amqp writes, in the short
// encoding and in the long one where there are two.
var scalars = map[string]any{
	"true": true, "false": false,
	"ubyte": uint8(200), "ushort": uint16(60000),
	"uint 0": uint32(0), "uint small": uint32(7), "uint": uint32(math.MaxUint32),
	"ulong 0": uint64(0), "ulong small": uint64(7), "ulong": uint64(math.MaxUint64),
	"byte": int8(-100), "short": int16(-30000),
	"int small": int32(-7), "int": int32(math.MinInt32),
	"long small": int64(-7), "long": int64(math.MinInt64),
	"float": float32(1.5), "double": -2.25e300,
	"string": "Grüße, 世界", "string long": string(make([]byte, 300)), "string empty": "",
	"binary": []byte{0, 1, 0xFF}, "binary long": make([]byte, 300),
	"timestamp": moment, "uuid": id, "null": nil,
}

// bodies sends every kind of body, an event each, and compares what comes back.
func bodies(ctx context.Context, h *hub) (string, error) {
	type body = eventhubs.AMQPAnnotatedMessageBody
	sent := []body{
		{Data: [][]byte{[]byte("one section")}},
		{Data: [][]byte{[]byte("first"), {}, make([]byte, 1000), []byte("last")}},
		{Sequence: [][]any{{"text", int64(-5), true, []byte{1}, nil, 2.5, moment}}},
		{Sequence: [][]any{{int32(1), "a"}, {int32(2), "b"}}},
		{Value: []any{"list", int32(1), []any{"nested"}}},
		{Value: []any(nil)}, // an empty list: go-amqp reads it so
		{Value: map[any]any{"key": "value", int32(5): []any{uint8(1)}, "nested": map[string]any{"x": id}}},
		{Value: []int32{1, -2, math.MaxInt32}},
		{Value: []string{"array", "of", "strings"}},
		{Value: []amqp.UUID{id, id}},
		{Value: []bool{true, false}},
		{}, // neither section: an event without a body
	}
	for name, v := range scalars {
		if name != "null" { // go-amqp leaves a null value out
			sent = append(sent, body{Value: v})
		}
	}
	var messages []*eventhubs.AMQPAnnotatedMessage
	for _, b := range sent {
		messages = append(messages, &eventhubs.AMQPAnnotatedMessage{Body: b})
	}
	if err := h.sendRaw(ctx, toPartition(0), messages...); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 0)
	if err != nil {
		return "", err
	}
	if len(events) != len(sent) {
		return "", fmt.Errorf("%d events where %d were sent", len(events), len(sent))
	}
	for i, e := range events {
		if diff := cmp.Diff(sent[i], e.RawAMQPMessage.Body); diff != "" {
			return "", fmt.Errorf("body %d came back changed:\n%s", i, diff)
		}
	}
	return "data, several data sections, sequences, values, none", nil
}

// properties sends every type of application property, message properties with
// every type of identifier, annotations and a footer.
func properties(ctx context.Context, h *hub) (string, error) {
	var sent []*eventhubs.AMQPAnnotatedMessage
	for _, messageID := range []any{"text", uint64(math.MaxUint64), id, []byte{1, 2, 3}} {
		sent = append(sent, &eventhubs.AMQPAnnotatedMessage{
			ApplicationProperties: scalars,
			Body:                  eventhubs.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("body")}},
			Footer:                map[any]any{"x-foot": "note"},
			MessageAnnotations:    map[any]any{"x-mine": int32(5), "x-more": "text"},
			Properties: &eventhubs.AMQPAnnotatedMessageProperties{
				MessageID: messageID, CorrelationID: messageID,
				AbsoluteExpiryTime: &moment, CreationTime: &moment,
				ContentEncoding: new("gzip"), ContentType: new("application/json"),
				GroupID: new("group"), GroupSequence: new(uint32(9)), ReplyToGroupID: new("group 2"),
				ReplyTo: new("reply-to"), Subject: new("subject"), To: new("to"), UserID: []byte("user"),
			},
		})
	}
	if err := h.sendRaw(ctx, toPartition(0), sent...); err != nil {
		return "", err
	}
	if err := h.send(ctx, toPartition(0), &eventhubs.EventData{
		Body: []byte("body"), ContentType: new("text/plain"), CorrelationID: "correlation", MessageID: new("message"),
		Properties: scalars,
	}); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 0)
	if err != nil {
		return "", err
	}
	if len(events) != len(sent)+1 {
		return "", fmt.Errorf("%d events where %d were sent", len(events), len(sent)+1)
	}
	for i, want := range sent {
		got := events[i].RawAMQPMessage
		if diff := cmp.Diff(want.ApplicationProperties, got.ApplicationProperties); diff != "" {
			return "", fmt.Errorf("application properties came back changed:\n%s", diff)
		}
		if diff := cmp.Diff(want.Properties, got.Properties); diff != "" {
			return "", fmt.Errorf("properties came back changed:\n%s", diff)
		}
		if diff := cmp.Diff(want.Footer, got.Footer); diff != "" {
			return "", fmt.Errorf("the footer came back changed:\n%s", diff)
		}
		for k, v := range want.MessageAnnotations {
			if !cmp.Equal(got.MessageAnnotations[k], v) {
				return "", fmt.Errorf("annotation %v came back as %v", k, got.MessageAnnotations[k])
			}
		}
	}
	last := events[len(events)-1]
	if diff := cmp.Diff(scalars, last.Properties); diff != "" {
		return "", fmt.Errorf("EventData.Properties came back changed:\n%s", diff)
	}
	if *last.ContentType != "text/plain" || last.CorrelationID != "correlation" || *last.MessageID != "message" {
		return "", errors.New("EventData's content type or identifiers came back changed")
	}
	return fmt.Sprintf("%d types and encodings", len(scalars)), nil
}
