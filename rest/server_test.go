package rest_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/rest"
	"github.com/millrace/millrace/store/segment"
)

// world is a server over namespaces on a simulated disk, with the hub "trial" of
// four partitions.
type world struct {
	t      testing.TB
	all    *hub.Namespaces
	hub    *hub.EventHub
	server *rest.Server
	url    string
}

var rules = []hub.Rule{
	{Name: "root", Rights: auth.Manage, Primary: "root key"},
	{Name: "RootManageSharedAccessKey", Rights: auth.Manage, Primary: "the broker's"},
	{Name: "reader", Rights: auth.Listen, Primary: "reader key"},
	{Name: "sender", Rights: auth.Send, Primary: "sender key"},
}

func newWorld(t testing.TB) *world { return newWorldAt(t, nil) }

// lake is a capturer that knows a destination of that name, and captures nothing.
type lake struct{}

func (lake) CheckCapture(c *hub.Capture) error {
	if c.Destination != "" && c.Destination != "lake" {
		return errors.New("there is no destination " + c.Destination)
	}
	return nil
}

func (lake) CaptureChanged(*hub.EventHub) {}

// newWorldAt is newWorld with a clock, nil for the real one, and rules that a
// configuration has.
func newWorldAt(t testing.TB, now func() time.Time, configured ...hub.RulesOf) *world {
	ctx := t.Context()
	st, err := segment.Open(ctx, segment.Options{Disk: sim.NewDisk(), KV: segment.NewMemoryKV(), JournalBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	all, err := hub.Open(ctx, hub.Options{Store: st, Rules: rules, Configured: configured, Capturer: lake{}, Now: now, Codecs: map[event.Encoding]event.Codec{event.EncodingAMQP: message.Codec{}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	h, err := all.Default().CreateEventHub(ctx, "trial", 4, hub.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.NewVerifier(auth.Options{Keys: all})
	if err != nil {
		t.Fatal(err)
	}
	s := rest.NewServer(rest.Options{Namespaces: all, Verifier: v, Now: now})
	srv := httptest.NewUnstartedServer(s)
	rest.KeepNames(srv.Config)
	srv.Listener = rest.Listener(srv.Listener)
	srv.Start()
	t.Cleanup(srv.Close)
	return &world{t: t, all: all, hub: h, server: s, url: srv.URL}
}

func token(resource, rule, key string) string {
	return auth.SignSAS(resource, rule, key, time.Now().Add(time.Minute))
}

// reply is an answer, its error taken apart.
type reply struct {
	status int
	header http.Header
	body   string
	Code   int
	Detail string
}

// do makes a request; the token of the rule sender for the namespace is sent
// unless headers has an Authorization.
func (w *world) do(method, path string, body io.Reader, headers map[string]string) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", token("http://localhost/", "sender", "sender key"))
	for k, v := range headers {
		if req.Header.Set(k, v); v == "" {
			req.Header.Del(k)
		}
	}
	return w.send(req)
}

// send makes a request as it is.
func (w *world) send(req *http.Request) reply {
	w.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(b)}
	if len(b) > 0 {
		if err := xml.Unmarshal(b, &r); err != nil {
			w.t.Errorf("%s: %v", b, err)
		}
	}
	return r
}

func (w *world) post(path, body string, headers map[string]string) reply {
	w.t.Helper()
	return w.do("POST", path, strings.NewReader(body), headers)
}

var trailer = regexp.MustCompile(` TrackingId:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}, SystemTracker:localhost:\S*, Timestamp:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`)

// accepted checks that a request was stored.
func (w *world) accepted(r reply) {
	w.t.Helper()
	if r.status != 201 || r.body != "" || r.header.Get("Content-Type") != "application/xml; charset=utf-8" {
		w.t.Errorf("%+v; want an empty 201", r)
	}
}

// refused checks an answer that is an error in the service's form.
func (w *world) refused(name string, r reply, status int, says string) {
	w.t.Helper()
	if r.status != status || r.Code != status || !strings.Contains(r.Detail, says) || !trailer.MatchString(r.Detail) ||
		r.header.Get("Content-Type") != "application/xml; charset=utf-8" {
		w.t.Errorf("%s: %+v; want %d and %q", name, r, status, says)
	}
	if status == 401 && r.header.Get("WWW-Authenticate") == "" {
		w.t.Errorf("%s: no WWW-Authenticate", name)
	}
}

// stored are the messages of a partition, as the SDKs' decoder reads them.
func (w *world) stored(partition int) []*goamqp.Message {
	w.t.Helper()
	ctx := w.t.Context()
	r, err := w.hub.At(partition).OpenReader(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	var all []*goamqp.Message
	for from := event.SequenceNumber(0); ; {
		c, err := r.Read(ctx, from, 1<<20)
		if err != nil {
			w.t.Fatal(err)
		}
		if c.Empty() {
			c.Close()
			return all
		}
		for i := range c.Records {
			s, err := message.Open(&c.Records[i])
			if err != nil {
				w.t.Fatal(err)
			}
			for j := range c.Records[i].Count {
				e, err := s.At(j)
				if err != nil {
					w.t.Fatal(err)
				}
				all = append(all, w.decode(e))
			}
		}
		from = c.Next()
		c.Close()
	}
}

func (w *world) decode(e message.Event) *goamqp.Message {
	w.t.Helper()
	m := &goamqp.Message{}
	var b []byte
	if e.Items > 0 { // a described map32 of as many items
		b = append(b, 0, 0x53, 0x72, 0xD1)
		n := len(e.Annotations) + 4
		b = append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n), 0, 0, 0, byte(e.Items))
		b = append(b, e.Annotations...)
	}
	if err := m.UnmarshalBinary(append(b, e.Sections...)); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// only returns the one message that is stored in the hub, and its partition.
func (w *world) only() (*goamqp.Message, int) {
	w.t.Helper()
	var found *goamqp.Message
	at := -1
	for i := range w.hub.Partitions() {
		for _, m := range w.stored(i) {
			if found != nil {
				w.t.Fatal("more than one event is stored")
			}
			found, at = m, i
		}
	}
	if found == nil {
		w.t.Fatal("nothing is stored")
	}
	return found, at
}

// nothing checks that no event is stored.
func (w *world) nothing(name string) {
	w.t.Helper()
	for i := range w.hub.Partitions() {
		if n := len(w.stored(i)); n > 0 {
			w.t.Errorf("%s: partition %d has %d events", name, i, n)
		}
	}
}

func TestPaths(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"POST", "/trial/messages", 201, ""},
		{"POST", "/trial/messages?timeout=60&api-version=2014-01", 201, ""},
		{"POST", "/trial/messages?api-version=2099-99&timeout=600", 201, ""},
		{"POST", "/TRIAL/Messages/", 201, ""},
		{"POST", "/trial/partitions/3/messages", 201, ""},
		{"POST", "/trial/Partitions/0/messages", 201, ""},
		{"POST", "/trial/publishers/dev-01/messages", 201, ""},
		{"POST", "/trial/publisher/dev-01/messages", 201, ""},
		{"POST", "/trial/publishers/a%2Fb%20c/messages", 201, ""},
		{"POST", "/none/messages", 404, "could not be found"},
		{"POST", "/none/partitions/9/messages", 404, "could not be found"},
		{"POST", "/trial/partitions/4/messages", 400, "between 0 and 3"},
		{"POST", "/trial/partitions/00/messages", 400, "between 0 and 3"},
		{"POST", "/trial/partitions/-1/messages", 400, "between 0 and 3"},
		{"POST", "/trial/publishers/" + strings.Repeat("x", hub.MaxPartitionKey+1) + "/messages", 400, "too long"},
		{"POST", "/trial/publishers/%ff/messages", 400, "UTF-8"},
		{"POST", "/trial/messages?timeout=soon", 400, "timeout"},
		{"POST", "/trial/messages?timeout=0", 400, "timeout"},
		{"POST", "/", 404, "There is nothing"},
		{"POST", "/trial", 405, "DELETE, GET, HEAD, PUT"},
		{"POST", "/messages", 405, "DELETE, GET, HEAD, PUT"}, // a hub of that name
		{"POST", "//messages", 404, "There is nothing"},
		{"POST", "/trial/partitions//messages", 404, "There is nothing"},
		{"POST", "/trial/partitions/1/messages/head", 404, "There is nothing"},
		{"POST", "/trial/consumergroups/x/messages", 404, "There is nothing"},
		{"POST", "/trial/%3Cscript%3E", 404, "<script>"}, // which XML escapes
		{"GET", "/trial/subscriptions", 404, "There is nothing"},
		{"GET", "/trial/messages", 405, "POST"},
		{"DELETE", "/trial/partitions/0/messages/head", 404, "There is nothing"},
		{"PUT", "/none/messages", 405, "POST"},
	} {
		r := w.do(c.method, c.path, strings.NewReader("x"), nil)
		if c.status == 201 {
			w.accepted(r)
			continue
		}
		w.refused(c.method+" "+c.path, r, c.status, c.says)
		if c.status == 405 && r.header.Get("Allow") != c.says {
			t.Errorf("%s: Allow is %q", c.path, r.header.Get("Allow"))
		}
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	if _, err := w.all.Default().CreateEventHub(t.Context(), "other", 1, hub.Settings{}); err != nil {
		t.Fatal(err)
	}
	if err := w.hub.Update(t.Context(), func(s *hub.Settings) error {
		s.Rules = []hub.Rule{{Name: "own", Rights: auth.Send, Primary: "own key"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sender := func(resource string) string { return token(resource, "sender", "sender key") }
	publisher := "/trial/publishers/dev-01/messages"
	for _, c := range []struct {
		name, token, path string
		status            int
		says              string
	}{
		{"for the namespace", sender("http://localhost/"), "/trial/messages", 201, ""},
		{"for the service's name of it", sender("https://ns.servicebus.windows.net/"), "/trial/messages", 201, ""},
		{"for the hub", sender("http://localhost/trial"), "/trial/messages", 201, ""},
		{"for the hub, its partition", sender("http://localhost/trial"), "/trial/partitions/1/messages", 201, ""},
		{"for the hub, a publisher", sender("http://localhost/trial"), publisher, 201, ""},
		{"for the publisher", sender("http://localhost/trial/publishers/dev-01"), publisher, 201, ""},
		{"for the path itself", sender("http://localhost/trial/messages"), "/trial/messages", 201, ""},
		{"for the path itself, a publisher's", sender("http://localhost/trial/publishers/dev-01/messages"), publisher, 201, ""},
		{"for the path of the hub, a publisher", sender("http://localhost/trial/messages"), publisher, 401, "'Send' claim(s) are required"},
		{"of the hub's own rule", token("http://localhost/trial", "own", "own key"), "/trial/messages", 201, ""},
		{"of a rule that may manage", token("http://localhost/", "root", "root key"), "/trial/messages", 201, ""},
		{"for the publisher, the hub", sender("http://localhost/trial/publishers/dev-01"), "/trial/messages", 401, "'Send' claim(s) are required"},
		{"for another publisher", sender("http://localhost/trial/publishers/dev-02"), publisher, 401, "'Send' claim(s) are required"},
		{"for a publisher's prefix", sender("http://localhost/trial/publishers/dev"), publisher, 401, "'Send' claim(s) are required"},
		{"for another hub", sender("http://localhost/other"), "/trial/messages", 401, "'Send' claim(s) are required"},
		{"for another hub, of one that is not", sender("http://localhost/other"), "/none/messages", 401, "'Send' claim(s) are required"},
		{"of the hub's own rule, for another", token("http://localhost/other", "own", "own key"), "/other/messages", 401, "InvalidSignature"},
		{"of a reader", token("http://localhost/", "reader", "reader key"), "/trial/messages", 401, "'Send' claim(s) are required"},
		{"with a wrong key", token("http://localhost/", "sender", "wrong"), "/trial/messages", 401, "InvalidSignature"},
		{"of an unknown rule", token("http://localhost/", "nobody", "x"), "/trial/messages", 401, "InvalidSignature"},
		{"that has expired", auth.SignSAS("http://localhost/", "sender", "sender key", time.Now().Add(-time.Minute)), "/trial/messages", 401, "ExpiredToken"},
		{"that is missing", "", "/trial/messages", 401, "MissingToken"},
		{"that is malformed", "SharedAccessSignature sr=x", "/trial/messages", 401, "MalformedToken"},
		{"with a key as HTTP Basic", "Basic c2VuZGVyOnNlbmRlciBrZXk=", "/trial/messages", 401, "MalformedToken"},
		{"of Entra, which is off", "Bearer a.b.c", "/trial/messages", 401, ""},
	} {
		before := w.hub.Metrics.Requests[hub.ClientError].Load()
		r := w.post(c.path, "x", map[string]string{"Authorization": c.token})
		if c.status == 201 {
			if r.status != 201 {
				t.Errorf("a token %s: %+v", c.name, r)
			}
			continue
		}
		w.refused("a token "+c.name, r, c.status, c.says)
		if strings.HasPrefix(c.path, "/trial/") && w.hub.Metrics.Requests[hub.ClientError].Load() != before+1 {
			t.Errorf("a token %s is not counted as the client's error", c.name)
		}
	}
}

func TestNamespaceByHost(t *testing.T) {
	w := newWorld(t)
	second, err := w.all.Create(t.Context(), "second", hub.NamespaceSettings{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := second.CreateEventHub(t.Context(), "there", 1, hub.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"/there/messages", strings.NewReader("x"))
	req.Host = "second.servicebus.windows.net"
	req.Header.Set("Authorization", token("https://second.servicebus.windows.net/there", "sender", "sender key"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := h.Metrics.IncomingMessages.Load(); resp.StatusCode != 201 || n != 1 {
		t.Errorf("%d, %d events", resp.StatusCode, n)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	m := &w.hub.Metrics
	want := func(requests, success, clientError, busy, messages int64) {
		t.Helper()
		got := []int64{m.IncomingRequests.Load(), m.Requests[hub.Success].Load(), m.Requests[hub.ClientError].Load(), m.Requests[hub.ServerBusy].Load(), m.IncomingMessages.Load()}
		if !slices.Equal(got, []int64{requests, success, clientError, busy, messages}) {
			t.Errorf("%v", got)
		}
	}
	w.accepted(w.post("/trial/messages", "x", nil))
	want(1, 1, 0, 0, 1)
	w.accepted(w.post("/trial/messages", `[{"Body":"a"},{"Body":"b"}]`, batch))
	want(2, 2, 0, 0, 3)
	w.refused("half a batch", w.post("/trial/messages", `[{"Body":"a"},{"Bo`, batch), 400, "ends too early")
	want(3, 2, 1, 0, 3)
	w.server.Hold(rest.MaxHeld)
	r := w.post("/trial/messages", "x", nil)
	w.refused("too much at once", r, 503, "busy")
	if r.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
	}
	want(4, 2, 1, 1, 3)
	w.server.Hold(-rest.MaxHeld)
	w.accepted(w.post("/trial/messages", "x", nil))
	if w.server.Held() != 0 {
		t.Errorf("%d bytes are held", w.server.Held())
	}
}

// TestEveryKindHasAStatus holds the tables complete.
func TestEveryKindHasAStatus(t *testing.T) {
	var errs []error
	for _, k := range hub.Kinds() {
		errs = append(errs, &hub.Error{Kind: k, Text: "text", RetryAfter: 1500 * time.Millisecond})
	}
	for _, k := range auth.Kinds() {
		errs = append(errs, &auth.Error{Kind: k, Text: "text"})
	}
	known := []int{400, 401, 403, 404, 409, 413, 500, 503}
	for _, err := range errs {
		if status, _, kind := rest.StatusOf(fmt.Errorf("wrapped: %w", err)); !slices.Contains(known, status) || kind == 0 {
			t.Errorf("%#v has the status %d, and is counted as %s", err, status, kind)
		}
	}
	for _, c := range []struct {
		err    error
		status int
		kind   hub.Kind
	}{
		{errors.New("anything"), 500, 0},
		{context.DeadlineExceeded, 504, hub.Busy},
		{&auth.Error{Kind: auth.Unavailable}, 503, hub.Busy},
		{&auth.Error{Kind: auth.Unauthorized}, 401, hub.InvalidArgument},
	} {
		if status, _, kind := rest.StatusOf(c.err); status != c.status || kind != c.kind {
			t.Errorf("%v has the status %d, and is counted as %s", c.err, status, kind)
		}
	}
	if _, retry, _ := rest.StatusOf(errs[hub.Busy-1]); retry != "2" {
		t.Errorf("Retry-After is %q", retry)
	}
}

// batch is the header of one.
var batch = map[string]string{"Content-Type": "application/vnd.microsoft.servicebus.json"}

func with(name, value string) map[string]string {
	return map[string]string{"Content-Type": "text/plain", name: value}
}

func bodies(ms []*goamqp.Message) []string {
	var all []string
	for _, m := range ms {
		all = append(all, string(m.GetData()))
	}
	return all
}

func quote(s string) string { return strconv.Quote(s) }
