package rest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/rest"
)

func TestHeaderValues(t *testing.T) {
	for _, c := range []struct {
		value string
		want  any
	}{
		{"Strong Wind", "Strong Wind"},
		{`"Strong Wind"`, "Strong Wind"},
		{`"a \"quoted\" word, é"`, `a "quoted" word, é`},
		{`""`, ""},
		{"", ""},
		{`"not closed`, `"not closed`},
		{`"a","b"`, `"a","b"`},
		{"12345,ABC", "12345,ABC"},
		{"42", int64(42)},
		{"-42", int64(-42)},
		{"9223372036854775807", int64(1<<63 - 1)},
		{"9223372036854775808", "9223372036854775808"}, // as text it loses nothing
		{"1.5", 1.5},
		{"1e3", 1000.0},
		{"1e999", "1e999"},
		{"007", "007"},
		{"+1", "+1"},
		{"0x10", "0x10"},
		{"NaN", "NaN"},
		{"1 2", "1 2"},
		{"-", "-"},
		{"true", true},
		{"false", false},
		{"True", "True"},
		{"null", "null"},
		{`"true"`, "true"},
		{`"42"`, "42"},
		{`"Sun, 06 Nov 1994 08:49:37 GMT"`, time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)},
		{"Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"},
		{`"Mon, 06 Nov 1994 08:49:37 GMT"`, time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)},
		{`"Sun, 06 Nov 1994 08:49:37 CET"`, "Sun, 06 Nov 1994 08:49:37 CET"},
		{"{}", "{}"},
	} {
		d, key, err := rest.DecodeHeaders(http.Header{"P": {c.value}})
		if err != nil || key != nil {
			t.Errorf("%s: %v", c.value, err)
		}
		if diff := cmp.Diff([]message.Property{{Name: "P", Value: c.want}}, d.Properties); diff != "" {
			t.Errorf("%s: %s", c.value, diff)
		}
	}
}

// TestWhichHeaders holds what of a usual request is a property.
func TestWhichHeaders(t *testing.T) {
	h := http.Header{}
	for _, x := range [][2]string{
		{"Accept", "*/*"},
		{"User-Agent", "curl/8"},
		{"Authorization", "SharedAccessSignature sr=x"},
		{"Content-Type", "text/plain"},
		{"Content-Encoding", "gzip"},
		{"Content-Length", "5"},
		{"Cookie", "a=b"},
		{"Sec-Fetch-Mode", "cors"},
		{"x-ms-retrypolicy", "NoRetry"},
		{"X-Forwarded-For", "192.0.2.1"},
		{"ServiceBusAuthorization", "x"},
		{"Expect", "100-continue"},
		{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{"Priority", "High"},
		{"x-device", "1"},
		{"X-Device", "2"},
	} {
		h.Add(x[0], x[1])
	}
	d, _, err := rest.DecodeHeaders(h)
	want := message.Draft{
		ContentType: "text/plain", ContentEncoding: "gzip",
		Properties: []message.Property{
			{Name: "Priority", Value: "High"},
			{Name: "Traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			{Name: "X-Device", Value: "1,2"},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestContentTypeOfBrokerProperties(t *testing.T) {
	d, key, err := rest.DecodeHeaders(http.Header{
		"Content-Type":     {"text/plain"},
		"Brokerproperties": {`{"contentType":"application/json","messageId":null,"label":"","partitionKey":""}`},
	})
	if diff := cmp.Diff(message.Draft{ContentType: "application/json"}, d); diff != "" || key != nil || err != nil {
		t.Error(diff, key, err)
	}
}

func FuzzHeaders(f *testing.F) {
	for _, broker := range []string{
		"", "null", "{}", `{"PartitionKey":"k","MessageId":"m","Label":"l","TimeToLive":90}`, `{"SessionId":"s","PartitionKey":"s"}`,
		`{"a":{"b":[{},1,true,null,"\ud800"]}}`, `{"To":"\u0000é"} x`, `{"To"`, "{\"To\":\"\xff\"}",
	} {
		for _, value := range []string{"Strong Wind", `"Sun, 06 Nov 1994 08:49:37 GMT"`, "-1.5e3", `"\"`, "true", "\xff"} {
			f.Add(broker, "Alert", value, "text/plain")
		}
	}
	f.Fuzz(func(t *testing.T, broker, name, value, contentType string) {
		h := http.Header{"Content-Type": {contentType}}
		h.Add(name, value)
		h["Brokerproperties"] = []string{broker}
		d, key, err := rest.DecodeHeaders(h)
		if err != nil {
			if status, _, kind := rest.StatusOf(err); status != 400 && status != 413 || kind == hub.Internal {
				t.Errorf("%v: %d", err, status)
			}
			return
		}
		if key != nil && (*key == "" || len(*key) > hub.MaxPartitionKey) {
			t.Errorf("the key is %q", *key)
		}
		for _, p := range d.Properties {
			if s, is := p.Value.(string); is && !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
		var p message.Parsed
		if err := p.Parse(d.Append(nil)); err != nil {
			t.Error(err)
		}
		if strings.ContainsRune(d.Subject+d.To, utf8.RuneError) && !strings.Contains(broker, `\`) && !strings.ContainsRune(broker, utf8.RuneError) {
			t.Errorf("%q: %+v", broker, d)
		}
	})
}
