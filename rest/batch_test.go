package rest_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/rest"
)

func TestBatch(t *testing.T) {
	w := newWorld(t)
	w.accepted(w.post("/trial/partitions/1/messages", `[
		{"Body":"plain"},
		{"Body":"with all","UserProperties":{"Alert":"Strong Wind","n":42,"f":1.0,"yes":true,"none":null,"42":"Sun, 06 Nov 1994 08:49:37 GMT"},
		 "BrokerProperties":{"MessageId":"m","CorrelationId":"c","Label":"l","PartitionKey":"a","ContentType":"application/json","TimeToLiveTimeSpan":"0.00:00:40"}},
		{"UserProperties":{},"BrokerProperties":null,"Other":[{"x":1}],"Body":"é\u00e9\ud83d\ude00\n"},
		{"Body":"AAEC/w==","IsBodyBase64":true,"BrokerProperties":{"PartitionKey":"b"}},
		{"body":null}
	]`, map[string]string{"Content-Type": "Application/vnd.microsoft.servicebus.json", "Ignored": "in a batch", "BrokerProperties": "ignored too"}))
	ms := w.stored(1)
	if d := cmp.Diff([]string{"plain", "with all", "éé😀\n", "\x00\x01\x02\xff", ""}, bodies(ms)); d != "" {
		t.Fatal(d)
	}
	m := ms[1]
	if d := cmp.Diff(map[string]any{"Alert": "Strong Wind", "n": int64(42), "f": 1.0, "yes": true, "none": nil, "42": "Sun, 06 Nov 1994 08:49:37 GMT"}, m.ApplicationProperties); d != "" {
		t.Error(d)
	}
	if p := m.Properties; p.MessageID != "m" || p.CorrelationID != "c" || *p.Subject != "l" || *p.ContentType != "application/json" {
		t.Errorf("%+v", p)
	}
	for i, want := range []map[any]any{{}, {"x-opt-partition-key": "a"}, {}, {"x-opt-partition-key": "b"}, {}} {
		if d := cmp.Diff(want, anyKeys(ms[i].Annotations)); d != "" {
			t.Errorf("event %d: %s", i, d)
		}
		if i != 1 && (ms[i].Properties != nil || ms[i].ApplicationProperties != nil) {
			t.Errorf("event %d: %+v", i, ms[i])
		}
	}
	if n := w.hub.Metrics.IncomingRequests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestBatchRouting(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		w.accepted(w.post("/trial/messages", `[{"Body":"none"},{"Body":"keyed","BrokerProperties":{"PartitionKey":"k"}},{"Body":"again","BrokerProperties":{"PartitionKey":"k"}}]`, batch))
	}
	if got := bodies(w.stored(w.hub.ForKey("k").Index())); len(got) != 6 {
		t.Errorf("%q", got)
	}
	two := `[{"Body":"a","BrokerProperties":{"PartitionKey":"a"}},{"Body":"none"},{"Body":"b","BrokerProperties":{"PartitionKey":"b"}}]`
	w.refused("two keys", w.post("/trial/messages", two, batch), 400, "different partition keys, 'a' and 'b'")
	w.refused("a publisher's", w.post("/trial/publishers/a/messages", two, batch), 400, "publisher's name, 'a'")
	w.accepted(w.post("/trial/publishers/a/messages", `[{"Body":"a","BrokerProperties":{"PartitionKey":"a"}},{"Body":"none"}]`, batch))
	found := 0
	for i := range 4 {
		for _, m := range w.stored(i) {
			if a := anyKeys(m.Annotations); a["x-opt-publisher"] == "a" && a["x-opt-partition-key"] == "a" && i == w.hub.ForKey("a").Index() {
				found++
			}
		}
	}
	if found != 2 {
		t.Errorf("%d events are the publisher's", found)
	}
}

func TestBatchRefusals(t *testing.T) {
	w := newWorld(t)
	deep := strings.Repeat("[", 100_000)
	for _, c := range []struct{ name, body, says string }{
		{"empty", "", "ends too early"},
		{"no events", "[]", "has no events"},
		{"null", "null", "is not a list"},
		{"an object", `{"Body":"x"}`, "is not a list"},
		{"text", `hello`, "not JSON"},
		{"not whole", `[{"Body":"x"}`, "ends too early"},
		{"cut in a string", `[{"Body":"x`, "ends too early"},
		{"something after it", `[{"Body":"x"}] x`, "Something follows"},
		{"a second value", `[{"Body":"x"}][]`, "Something follows"},
		{"a comma too many", `[{"Body":"x"},]`, "not JSON"},
		{"a string for an event", `[{"Body":"x"},"y"]`, "Event 1: It is not an object"},
		{"a null event", `[{"Body":"x"},null]`, "Event 1: It has no Body"},
		{"no body", `[{"Temperature":"25.25"}]`, "Event 0: It has no Body"},
		{"an object as body", `[{"Body":{"a":1}}]`, "Body is an object or a list"},
		{"a number as body", `[{"Body":1}]`, "Body is not a string"},
		{"a body twice", `[{"Body":"a","Body":"b"}]`, `the key "Body" twice`},
		{"a body twice, in other case", `[{"Body":"a","body":"b"}]`, `the key "body" twice`},
		{"a property twice", `[{"Body":"a","UserProperties":{"x":1,"x":2}}]`, `the key "x" twice`},
		{"a nested property", `[{"Body":"a","UserProperties":{"x":{"y":1}}}]`, `The user property "x" is an object or a list`},
		{"a large number", `[{"Body":"a","UserProperties":{"x":99999999999999999999}}]`, "beyond 64 bits"},
		{"a larger one", `[{"Body":"a","UserProperties":{"x":1e999}}]`, "beyond 64 bits"},
		{"properties that are none", `[{"Body":"a","UserProperties":"x"}]`, "UserProperties is not an object"},
		{"broker properties that are none", `[{"Body":"a","BrokerProperties":[]}]`, "BrokerProperties is not an object"},
		{"a flag that is none", `[{"Body":"a","IsBodyBase64":"yes"}]`, "neither true nor false"},
		{"no base64", `[{"Body":"a b","IsBodyBase64":true}]`, "not base64"},
		{"not UTF-8", "[{\"Body\":\"\xff\"}]", "UTF-8"},
		{"a control character", "[{\"Body\":\"\n\"}]", "not JSON"},
		{"deep", deep, "is not an object"},
		{"deep in what is ignored", `[{"x":` + deep, "nested deeper"},
		{"deep in objects", `[{"x":` + strings.Repeat(`{"a":`, 100_000), "nested deeper"},
		{"the last of many", "[" + strings.Repeat(`{"Body":"x"},`, 1000) + `{"Body":1}]`, "Event 1000: Body is not a string"},
	} {
		w.refused(c.name, w.post("/trial/messages", c.body, batch), 400, c.says)
	}
	w.nothing("after refusals")
	if w.server.Held() != 0 {
		t.Errorf("%d bytes are held", w.server.Held())
	}
}

func TestBatchSizes(t *testing.T) {
	w := newWorld(t)
	// Many small events, in several records.
	const n = 5000
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,{"Body":"event %d"}`, i)
	}
	w.accepted(w.post("/trial/partitions/0/messages", "["+b.String()[1:]+"]", batch))
	ms := w.stored(0)
	if len(ms) != n || string(ms[n-1].GetData()) != fmt.Sprintf("event %d", n-1) {
		t.Errorf("%d events", len(ms))
	}
	// The request may be as large as a publication.
	frame := len(`[{"Body":""}]`)
	fits := `[{"Body":"` + strings.Repeat("x", hub.MaxPublication-frame) + `"}]`
	w.accepted(w.post("/trial/partitions/1/messages", fits, batch))
	w.refused("a byte more", w.post("/trial/partitions/1/messages", fits+" ", batch), 413, "1048576")
	// So may the events: here a publisher's name makes each a kilobyte.
	name := strings.Repeat("p", hub.MaxPartitionKey)
	small := "[" + strings.Repeat(`{"Body":""},`, 2000) + `{"Body":""}]`
	w.refused("events that grow", w.post("/trial/publishers/"+name+"/messages", small, batch), 413, "1048576")
	bin := base64.StdEncoding.EncodeToString(make([]byte, 600_000))
	w.accepted(w.post("/trial/partitions/2/messages", `[{"Body":"`+bin+`","IsBodyBase64":true}]`, batch))
	if got := w.stored(2); len(got) != 1 || len(got[0].GetData()) != 600_000 {
		t.Errorf("%d events", len(got))
	}
}

func FuzzBatch(f *testing.F) {
	for _, s := range []string{
		"", "[]", "null", `[{"Body":"Message1"},{"Body":"Message2"}]`,
		`[{"Body":"Message1","UserProperties":{"Alert":"Strong Wind","n":1,"f":-1.5e3,"t":true,"z":null}}]`,
		`[{"Body":"AAEC","IsBodyBase64":true,"BrokerProperties":{"PartitionKey":"k","CorrelationId":"32119834"}}]`,
		`[{"Body":"a","BrokerProperties":{"PartitionKey":"a"}},{"Body":"b","BrokerProperties":{"PartitionKey":"b"}}]`,
		`[{"x":[[[{}]]],"Body":"\ud800\u0000"}] `, `[{"Body":"a","body":"b"}]`, `[{"Body":`, `[[[[`, "[{\"Body\":\"\xff\"}]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		count, size, err := rest.DecodeBatch(body)
		if err != nil {
			if status, _, _ := rest.StatusOf(err); status != 400 && status != 413 {
				t.Errorf("%v: %d", err, status)
			}
			return
		}
		if count == 0 || size == 0 || size > hub.MaxPublication {
			t.Errorf("%d events of %d bytes", count, size)
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	body := []byte("[" + strings.Repeat(`{"Body":"a body of some length, as telemetry has it","UserProperties":{"Alert":"Strong Wind"},"BrokerProperties":{"PartitionKey":"k"}},`, 99) + `{"Body":"x"}]`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := rest.DecodeBatch(body); err != nil {
			b.Fatal(err)
		}
	}
}
