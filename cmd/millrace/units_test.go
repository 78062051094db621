package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/auth"
)

func TestParsePosition(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)
	for in, want := range map[string]azeventhubs.StartPosition{
		"earliest":             {Earliest: new(true)},
		"latest":               {Latest: new(true)},
		"@41":                  {Offset: new("41"), Inclusive: true},
		"@6:7:8":               {Offset: new("6:7:8"), Inclusive: true},
		"#0":                   {SequenceNumber: new(int64(0)), Inclusive: true},
		"-15m":                 {EnqueuedTime: new(now.Add(-15 * time.Minute)), Inclusive: true},
		"2026-03-01T00:00:00Z": {EnqueuedTime: new(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)), Inclusive: true},
	} {
		p, err := parsePosition("from", in, now)
		if d := cmp.Diff(want, p); d != "" || err != nil {
			t.Errorf("%s: %v %s", in, err, d)
		}
	}
	for _, bad := range []string{"", "Earliest", "@", "@a b", "@x'", "#", "#-1", "#x", "-", "-x", "--5m", "15m", "yesterday", "2026-03-01"} {
		if p, err := parsePosition("from", bad, now); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q is taken for %+v, %v", bad, p, err)
		}
	}
}

func TestPrintEvents(t *testing.T) {
	at := time.Date(2026, 3, 14, 15, 9, 26, 535_000_000, time.UTC)
	base := func(change func(*azeventhubs.ReceivedEventData)) *azeventhubs.ReceivedEventData {
		e := &azeventhubs.ReceivedEventData{SequenceNumber: 7, Offset: "7", EnqueuedTime: &at}
		change(e)
		return e
	}
	for _, c := range []struct {
		name       string
		e          *azeventhubs.ReceivedEventData
		text, json string
	}{
		{
			"text", base(func(e *azeventhubs.ReceivedEventData) { e.Body = []byte("<hello>") }),
			"partition 0  #7  2026-03-14T15:09:26.535Z  <hello>",
			`{"partition":"0","sequenceNumber":7,"offset":"7","enqueuedTime":"2026-03-14T15:09:26.535Z","body":"<hello>"}`,
		},
		{
			"bytes", base(func(e *azeventhubs.ReceivedEventData) { e.Body = []byte{0xff, 0} }),
			"partition 0  #7  2026-03-14T15:09:26.535Z  base64:/wA=",
			`{"partition":"0","sequenceNumber":7,"offset":"7","enqueuedTime":"2026-03-14T15:09:26.535Z","bodyBase64":"/wA="}`,
		},
		{
			"everything", base(func(e *azeventhubs.ReceivedEventData) {
				e.PartitionKey, e.MessageID, e.ContentType, e.CorrelationID = new("k"), new("m"), new("text/plain"), uint64(9)
				e.Properties = map[string]any{"n": int32(1), "inf": math.Inf(1)}
				e.RawAMQPMessage = &azeventhubs.AMQPAnnotatedMessage{Body: azeventhubs.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("two "), []byte("parts")}}}
			}),
			`partition 0  #7  2026-03-14T15:09:26.535Z  key=k  {"inf":"+Inf","n":1}  two parts`,
			`{"partition":"0","sequenceNumber":7,"offset":"7","enqueuedTime":"2026-03-14T15:09:26.535Z","partitionKey":"k","messageId":"m","correlationId":9,"contentType":"text/plain","properties":{"inf":"+Inf","n":1},"body":"two parts"}`,
		},
		{
			"a value", base(func(e *azeventhubs.ReceivedEventData) {
				e.RawAMQPMessage = &azeventhubs.AMQPAnnotatedMessage{Body: azeventhubs.AMQPAnnotatedMessageBody{Value: map[any]any{"a": []any{int64(1), map[string]any{"b": nil}}, 2: "c"}}}
			}),
			`partition 0  #7  2026-03-14T15:09:26.535Z  {"2":"c","a":[1,{"b":null}]}`,
			`{"partition":"0","sequenceNumber":7,"offset":"7","enqueuedTime":"2026-03-14T15:09:26.535Z","bodyValue":{"2":"c","a":[1,{"b":null}]}}`,
		},
		{
			"a sequence", base(func(e *azeventhubs.ReceivedEventData) {
				e.RawAMQPMessage = &azeventhubs.AMQPAnnotatedMessage{Body: azeventhubs.AMQPAnnotatedMessageBody{Sequence: [][]any{{"x", 1}}}}
			}),
			`partition 0  #7  2026-03-14T15:09:26.535Z  [["x",1]]`,
			`{"partition":"0","sequenceNumber":7,"offset":"7","enqueuedTime":"2026-03-14T15:09:26.535Z","bodyValue":[["x",1]]}`,
		},
	} {
		r := readEvent("0", c.e)
		for out, want := range map[output]string{asText: c.text, asJSON: c.json} {
			print, err := newPrinter(out, "")
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if err := print(&b, r); err != nil || b.String() != want+"\n" {
				t.Errorf("%s as %s: %v\n%s%s", c.name, out, err, b.String(), want)
			}
		}
	}
}

func TestSample(t *testing.T) {
	s := newSample(3, time.Date(2026, 3, 14, 15, 9, 26, 535_897_000, time.FixedZone("", 3600)))
	if s.MessageID != 3 || s.Value != 30 || s.Timestamp != "2026-03-14T14:09:26.535897+00:00" || len(s.EventID) != 36 || s.EventID[14] != '4' {
		t.Errorf("%+v", s)
	}
	if newSample(3, time.Now()).EventID == s.EventID {
		t.Error("two events with one id")
	}
}

func TestHealth(t *testing.T) {
	answers := map[string]struct {
		status int
		body   string
		says   string
	}{
		"/well/health": {200, `{"status":"healthy","message":"Service is healthy."}`, ""},
		"/ill/health":  {503, `{"status":"unhealthy","message":"Service not available."}`, "the broker is unhealthy: Service not available."},
		"/html/health": {200, "<html>", "is not a Millrace broker"},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answers[r.URL.Path]
		w.WriteHeader(a.status)
		io.WriteString(w, a.body)
	}))
	defer srv.Close()
	for path, a := range answers {
		message, err := health(t.Context(), srv.URL+strings.TrimSuffix(path, "health"))
		if a.says == "" && (err != nil || message != "Service is healthy.") || a.says != "" && (err == nil || !strings.Contains(err.Error(), a.says)) {
			t.Errorf("%s: %q, %v", path, message, err)
		}
	}
	for http, want := range map[string]string{
		"":               "http://127.0.0.1:5300",
		"off":            "http://127.0.0.1:5300",
		":8080":          "http://127.0.0.1:8080",
		"0.0.0.0:8080":   "http://127.0.0.1:8080",
		"[::]:8080":      "http://127.0.0.1:8080",
		"localhost:8080": "http://127.0.0.1:8080",
		"10.0.0.9:8080":  "http://10.0.0.9:8080",
	} {
		if got := healthURL(func(name string) string { return map[string]string{"MILLRACE_HTTP": http}[name] }); got != want {
			t.Errorf("MILLRACE_HTTP=%s: %s; want %s", http, got, want)
		}
	}
	if got := healthURL(func(string) string { return "http://x:1" }); got != "http://x:1" {
		t.Error(got)
	}
}

func TestTarget(t *testing.T) {
	t.Setenv(envConnectionString, "")
	t.Setenv(envURL, "")
	for _, c := range []struct{ cs, url string }{
		{"", "http://localhost:5300"},
		{"Endpoint=sb://broker.lan:6000;SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true", "http://broker.lan:5300"},
		{"Endpoint=sb://127.0.0.1;SharedAccessKeyName=a;SharedAccessKey=b", "http://127.0.0.1:5300"},
		{"Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=a;SharedAccessKey=b", "https://x.servicebus.windows.net:5443"},
	} {
		f := brokerFlags{connectionString: c.cs}
		target, err := f.target()
		if err != nil || target.url != c.url {
			t.Errorf("%q: %+v, %v; want %s", c.cs, target, err, c.url)
		}
	}
	entity := &target{cs: auth.ConnectionString{EntityPath: "Trial"}}
	if h, err := entity.hub("trial"); err != nil || h != "Trial" || entity.forSDK(h) != "" {
		t.Error(h, err)
	}
	if _, err := entity.hub("other"); err == nil {
		t.Error("two hubs at once")
	}
	if h, err := (&target{}).hub(""); err != nil || h != defaultHub {
		t.Error(h, err)
	}
}

func TestExplain(t *testing.T) {
	cause := errors.New("something else")
	for _, c := range []struct {
		err  error
		want string
	}{
		{cause, "something else"},
		{fmt.Errorf("wrapped: %w", &amqp.Error{Condition: "amqp:not-found", Description: "There is none."}), "There is none."},
		{fmt.Errorf("wrapped: %w", &azeventhubs.Error{Code: azeventhubs.ErrorCodeOwnershipLost}), "another reader has taken the partition"},
		{&azeventhubs.Error{Code: azeventhubs.ErrorCodeConnectionLost}, "the connection was lost: unknown error"},
	} {
		got := explain(c.err)
		if got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("%v: %v; want %s", c.err, got, c.want)
		}
	}
}

func TestPercentiles(t *testing.T) {
	var d []time.Duration
	for i := range 1000 {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	if p := percentiles(d); p.P50 != 550 || p.P99 != 991 || p.Max != 999 { // the first hundred are left out
		t.Errorf("%+v", p)
	}
	if p := percentiles(nil); p != nil {
		t.Errorf("%+v", p)
	}
}

func TestProcessFigures(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc here")
	}
	if peak := peakMemory(os.Getpid()); peak < 1<<20 {
		t.Errorf("this process never had more than %d bytes", peak)
	}
	if _, ok := processorTime(os.Getpid()); !ok {
		t.Error("this process has no processor time")
	}
	if _, ok := processorTime(0); ok {
		t.Error("no process has processor time")
	}
}

func TestPace(t *testing.T) {
	var due []time.Time
	n := pace(t.Context(), 10_000, 10*time.Millisecond, func(i int, at time.Time) {
		if i != len(due) {
			t.Errorf("event %d comes as number %d", i, len(due))
		}
		due = append(due, at)
	})
	if n != 100 || len(due) != 100 || due[99].Sub(due[0]) != 99*100*time.Microsecond {
		t.Errorf("%d events in %s", n, due[99].Sub(due[0]))
	}
	ctx, cancel := context.WithCancel(t.Context())
	if n := pace(ctx, 1000, time.Hour, func(int, time.Time) { cancel() }); n != 1 {
		t.Errorf("%d events after the end", n)
	}
}

// TestInterruptedSend: what was read is sent, and the summary says so.
func TestInterruptedSend(t *testing.T) {
	b, err := millrace.Start(t.Context(), millrace.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	in, feed := io.Pipe()
	defer feed.Close()
	var out, errs bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"send", "-o", "json", "--connection-string", b.ConnectionString()}, in, &out, &errs)
	}()
	io.WriteString(feed, "one\ntwo\n")
	hub, err := b.Namespaces().Default().EventHub("events")
	if err != nil {
		t.Fatal(err)
	}
	for hub.Metrics.IncomingMessages.Load() < 2 { // the broker has no event for "stored"
		if err := pause(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if s := <-status; s != 1 || !strings.Contains(errs.String(), "Interrupted.") {
		t.Errorf("status %d, %s", s, errs.String())
	}
	var summary sendSummary
	if err := json.Unmarshal(out.Bytes(), &summary); err != nil || summary.Events != 2 {
		t.Errorf("%s, %v", out.String(), err)
	}
}
