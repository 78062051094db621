package message_test

import (
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/amqp/message"
)

// TestDraft reads what is encoded with the SDKs' own decoder, and as an event.
func TestDraft(t *testing.T) {
	at := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name string
		d    message.Draft
		want goamqp.Message
	}{
		{"nothing", message.Draft{}, goamqp.Message{Data: [][]byte{{}}}},
		{"a body", message.Draft{Body: []byte(long)}, goamqp.Message{Data: [][]byte{[]byte(long)}}},
		{
			"one field of the properties", message.Draft{MessageID: "m", Body: []byte("b")},
			goamqp.Message{Properties: &goamqp.MessageProperties{MessageID: "m"}, Data: [][]byte{[]byte("b")}},
		},
		{
			"all fields", message.Draft{
				MessageID: "m", To: "t", Subject: "s", ReplyTo: "r", CorrelationID: "c",
				ContentType: long, ContentEncoding: "gzip", GroupID: "g", ReplyToGroupID: "rg", Body: []byte("b"),
			},
			goamqp.Message{Properties: &goamqp.MessageProperties{
				MessageID: "m", To: new("t"), Subject: new("s"), ReplyTo: new("r"), CorrelationID: "c",
				ContentType: new(long), ContentEncoding: new("gzip"), GroupID: new("g"), ReplyToGroupID: new("rg"),
			}, Data: [][]byte{[]byte("b")}},
		},
		{
			"application properties of every type",
			message.Draft{Properties: []message.Property{
				{"null", nil}, {"yes", true}, {"no", false}, {"long", int64(-1 << 62)}, {"double", 1.5}, {"text", "é"}, {"", ""}, {"time", at},
			}},
			goamqp.Message{ApplicationProperties: map[string]any{
				"null": nil, "yes": true, "no": false, "long": int64(-1 << 62), "double": 1.5, "text": "é", "": "", "time": at,
			}, Data: [][]byte{{}}},
		},
	} {
		b := c.d.Append(nil)
		var got goamqp.Message
		if err := got.UnmarshalBinary(b); err != nil {
			t.Errorf("%s: % x: %v", c.name, b, err)
			continue
		}
		if d := cmp.Diff(c.want.Properties, got.Properties); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if d := cmp.Diff(c.want.ApplicationProperties, got.ApplicationProperties); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if string(got.GetData()) != string(c.d.Body) {
			t.Errorf("%s: the body is %q", c.name, got.GetData())
		}
		r := store(t, []byte("key"), b)
		for e, err := range (message.Codec{}).Events(r) {
			if err != nil || string(e.Body) != string(c.d.Body) || e.PartitionKey != "key" {
				t.Errorf("%s: %+v, %v", c.name, e, err)
			}
		}
	}
}

func TestDraftReset(t *testing.T) {
	d := message.Draft{MessageID: "m", Body: []byte("b"), Properties: []message.Property{{"a", "b"}}}
	d.Reset()
	if b, want := d.Append(nil), (&message.Draft{}).Append(nil); string(b) != string(want) {
		t.Errorf("% x", b)
	}
}
