package rest_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/hub"
)

func TestSingle(t *testing.T) {
	w := newWorld(t)
	w.accepted(w.post("/trial/partitions/2/messages", "hello", map[string]string{
		"Content-Type":   "application/atom+xml;type=entry;charset=utf-8",
		"Alert":          "Strong Wind",
		"Priority":       "High",
		"X-Ms-Something": "not a property",
		"BrokerProperties": `{"MessageId":"m","Label":"l","CorrelationId":"c","To":"t","ReplyTo":"r","SessionId":"k",` +
			`"ReplyToSessionId":"rs","PartitionKey":"k","TimeToLive":90,"EnqueuedTimeUtc":"x","Unknown":{"a":[1]}}`,
	}))
	m, at := w.only()
	if at != 2 || string(m.GetData()) != "hello" {
		t.Errorf("%q in partition %d", m.GetData(), at)
	}
	p := m.Properties
	if p.MessageID != "m" || *p.Subject != "l" || p.CorrelationID != "c" || *p.To != "t" || *p.ReplyTo != "r" ||
		*p.GroupID != "k" || *p.ReplyToGroupID != "rs" || *p.ContentType != "application/atom+xml;type=entry;charset=utf-8" || p.ContentEncoding != nil {
		t.Errorf("%+v", p)
	}
	if d := cmp.Diff(map[any]any{"x-opt-partition-key": "k"}, map[any]any(anyKeys(m.Annotations))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"Alert": "Strong Wind", "Priority": "High"}, m.ApplicationProperties); d != "" {
		t.Error(d)
	}
	if m.Header != nil {
		t.Errorf("%+v", m.Header)
	}
}

// anyKeys makes the keys of annotations comparable with plain ones.
func anyKeys[K comparable](m map[K]any) map[any]any {
	all := map[any]any{}
	for k, v := range m {
		all[fmt.Sprint(k)] = v
	}
	return all
}

// TestNoProperties holds that nothing is made up.
func TestNoProperties(t *testing.T) {
	w := newWorld(t)
	w.accepted(w.post("/trial/messages", "", map[string]string{"User-Agent": "", "BrokerProperties": "null"}))
	m, _ := w.only()
	if m.Properties != nil || m.ApplicationProperties != nil || m.Annotations != nil || len(m.GetData()) != 0 || len(m.Data) != 1 {
		t.Errorf("%+v", m)
	}
}

func TestRouting(t *testing.T) {
	w := newWorld(t)
	key := func(k string) map[string]string { return with("BrokerProperties", `{"PartitionKey":`+quote(k)+`}`) }
	for i := range 8 {
		w.accepted(w.post("/trial/messages", "next", nil))
		w.accepted(w.post("/trial/messages", "keyed", key("some key")))
		w.accepted(w.post("/trial/publishers/dev-01/messages", "published", nil))
		if i == 0 {
			w.accepted(w.post("/trial/publishers/dev-01/messages", "published", key("dev-01")))
			w.accepted(w.post("/trial/partitions/1/messages", "placed", key("any key")))
		}
	}
	w.refused("another's key", w.post("/trial/publishers/dev-01/messages", "x", key("dev-02")), 400, "publisher's name, 'dev-01'")
	w.refused("a long key", w.post("/trial/messages", "x", key(strings.Repeat("k", hub.MaxPartitionKey+1))), 400, "too long")
	w.accepted(w.post("/trial/messages", "keyed", key(strings.Repeat("k", hub.MaxPartitionKey))))

	count := map[string][]int{"next": make([]int, 4), "keyed": make([]int, 4), "published": make([]int, 4), "placed": make([]int, 4)}
	for i := range 4 {
		for _, m := range w.stored(i) {
			body := string(m.GetData())
			count[body][i]++
			want := map[string]map[any]any{
				"next": {}, "keyed": {"x-opt-partition-key": "some key"}, "placed": {"x-opt-partition-key": "any key"},
				"published": {"x-opt-partition-key": "dev-01", "x-opt-publisher": "dev-01"},
			}[body]
			got := anyKeys(m.Annotations)
			if k, _ := got["x-opt-partition-key"].(string); len(k) == hub.MaxPartitionKey {
				count[body][i]--
				continue
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", body, d)
			}
		}
	}
	keyed, published := make([]int, 4), make([]int, 4)
	keyed[w.hub.ForKey("some key").Index()] = 8
	published[w.hub.ForKey("dev-01").Index()] = 9
	want := map[string][]int{"next": {2, 2, 2, 2}, "keyed": keyed, "published": published, "placed": {0, 1, 0, 0}}
	if d := cmp.Diff(want, count); d != "" {
		t.Error(d)
	}
}

func TestSizes(t *testing.T) {
	w := newWorld(t)
	const overhead = 8 // of a data section
	fits := strings.Repeat("x", hub.MaxPublication-overhead)
	w.accepted(w.post("/trial/partitions/0/messages", fits, nil))
	for name, r := range map[string]reply{
		"a byte more":                 w.post("/trial/partitions/0/messages", fits+"x", nil),
		"the limit in the body":       w.post("/trial/partitions/0/messages", fits+"12345678", nil),
		"a byte more than that":       w.post("/trial/partitions/0/messages", fits+"123456789", nil),
		"the same without its length": w.do("POST", "/trial/partitions/0/messages", io.MultiReader(strings.NewReader(fits), strings.NewReader("123456789")), nil),
		"with a property":             w.post("/trial/partitions/0/messages", fits, map[string]string{"Alert": "x"}),
	} {
		w.refused(name, r, 413, "limit of 1048576 bytes")
	}
	if ms := w.stored(0); len(ms) != 1 || string(ms[0].GetData()) != fits {
		t.Errorf("%d events", len(ms))
	}
	w.accepted(w.do("POST", "/trial/partitions/1/messages", io.MultiReader(strings.NewReader("without "), strings.NewReader("a length")), nil))
	if got := bodies(w.stored(1)); len(got) != 1 || got[0] != "without a length" {
		t.Errorf("%q", got)
	}
	if w.server.Held() != 0 {
		t.Errorf("%d bytes are held", w.server.Held())
	}
}

// TestAllowed holds what a hub and its namespace do not allow.
func TestAllowed(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := w.hub.Revoke(ctx, "dev-01"); err != nil {
		t.Fatal(err)
	}
	w.refused("a revoked publisher", w.post("/trial/publishers/dev-01/messages", "x", nil), 401, "has been revoked")
	w.accepted(w.post("/trial/publishers/dev-02/messages", "x", nil))
	if err := w.hub.Update(ctx, func(s *hub.Settings) error {
		s.Status = hub.StatusSendDisabled
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.refused("a hub that is closed", w.post("/trial/messages", "x", nil), 403, "")
	if n := w.hub.Metrics.Requests[hub.ClientError].Load(); n != 2 {
		t.Errorf("%d are counted", n)
	}
	if err := w.hub.Update(ctx, func(s *hub.Settings) error {
		s.Status, s.Retention = hub.StatusActive, 24*time.Hour
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.all.Default().Update(ctx, func(s *hub.NamespaceSettings) error {
		s.Tier = hub.Basic
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.refused("more than a tier's publication", w.post("/trial/messages", strings.Repeat("x", 256<<10), nil), 413, "limit of 262144 bytes")
	for range 100 {
		if r := w.post("/trial/messages", strings.Repeat("x", 200<<10), nil); r.status != 201 {
			w.refused("more than its units", r, 503, "Error code : 50002")
			if r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			return
		}
	}
	t.Error("nothing is throttled")
}

func TestHeaderRefusals(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ name, header, value, says string }{
		{"not JSON", "BrokerProperties", "PartitionKey=x", "BrokerProperties can't be read. It is not JSON"},
		{"not whole", "BrokerProperties", `{"PartitionKey":"x"`, "ends too early"},
		{"a list", "BrokerProperties", `["x"]`, "is not an object"},
		{"something after it", "BrokerProperties", `{"PartitionKey":"x"} {}`, "Something follows"},
		{"a number for a key", "BrokerProperties", `{"PartitionKey":5}`, "PartitionKey is not a string"},
		{"an object for an id", "BrokerProperties", `{"MessageId":{}}`, "MessageId is an object or a list"},
		{"a key twice", "BrokerProperties", `{"PartitionKey":"a","PartitionKey":"b"}`, "twice"},
		{"a key twice, in other case", "BrokerProperties", `{"PartitionKey":"a","partitionKey":"b"}`, "twice"},
		{"a label and a subject", "BrokerProperties", `{"Label":"a","Subject":"b"}`, "twice"},
		{"a session and a key", "BrokerProperties", `{"SessionId":"a","PartitionKey":"b"}`, "must be the same"},
		{"deep", "BrokerProperties", `{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "nested deeper"},
		{"not UTF-8", "BrokerProperties", "{\"To\":\"\xff\"}", "UTF-8"},
		{"a property that is not UTF-8", "Alert", "\xff", "Alert is not UTF-8"},
		{"a content type that is not UTF-8", "Content-Type", "\xff", "UTF-8"},
		{"a batch with a charset", "Content-Type", "application/vnd.microsoft.servicebus.json; charset=utf-8", "without parameters"},
	} {
		w.refused(c.name, w.post("/trial/messages", `[{"Body":"x"}]`, with(c.header, c.value)), 400, c.says)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", w.url+"/trial/messages", nil)
	req.Header.Set("Authorization", token("http://localhost/", "sender", "sender key"))
	req.Header["Brokerproperties"] = []string{"{}", "{}"}
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 400 {
		t.Error(resp, err)
	} else {
		resp.Body.Close()
	}
	w.nothing("after refusals")
	if n := w.hub.Metrics.Requests[hub.ClientError].Load(); n != 16 {
		t.Errorf("%d are counted", n)
	}
}

// TestBodyBreaksOff holds that a body that does not come whole stores nothing.
func TestBodyBreaksOff(t *testing.T) {
	w := newWorld(t)
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /trial/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n%s\r\n\r\n5\r\nhello",
			token("http://localhost/", "sender", "sender key"), length)
		conn.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(conn)
		conn.Close()
		if !bytes.Contains(b, []byte("400 Bad Request")) || !bytes.Contains(b, []byte("before it is complete")) {
			t.Errorf("%s: %s", length, b)
		}
	}
	w.nothing("half a body")
	if w.server.Held() != 0 {
		t.Errorf("%d bytes are held", w.server.Held())
	}
}

// TestClientLeaves holds that a request ends when its client is gone.
func TestClientLeaves(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /trial/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: 100000\r\n\r\nhello",
		token("http://localhost/", "sender", "sender key"))
	within(t, "the request is read", func() bool { return w.server.Held() > 0 })
	conn.Close()
	within(t, "the request ends", func() bool { return w.server.Held() == 0 && w.hub.Metrics.Requests[hub.ClientError].Load() == 1 })
	w.nothing("a request given up")
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen that " + what)
		}
	}
}
