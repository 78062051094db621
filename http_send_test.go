package millrace_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/auth"
)

// post sends a request to a broker's HTTP interface, signed with the development
// key for the given path.
func post(t *testing.T, c *http.Client, url, resource, body string, headers map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", auth.SignSAS(resource, "RootManageSharedAccessKey", "SAS_KEY_VALUE", time.Now().Add(time.Minute)))
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// events reads n events of a partition from the start.
func events(t *testing.T, cs, hub, partition string, n int) []*azeventhubs.ReceivedEventData {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := azeventhubs.NewConsumerClientFromConnectionString(cs, hub, azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	p, err := c.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	var all []*azeventhubs.ReceivedEventData
	for len(all) < n {
		some, err := p.ReceiveEvents(ctx, n-len(all), nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

// TestSendOverHTTP sends what the service's pages send, and reads it with the
// official SDK.
func TestSendOverHTTP(t *testing.T) {
	b := start(t, millrace.Options{Data: t.TempDir()})
	url := "http://" + b.Address(millrace.HTTP) + "/events/"
	created := func(status int, body string) {
		t.Helper()
		if status != http.StatusCreated || body != "" {
			t.Fatalf("%d %s", status, body)
		}
	}
	created(post(t, http.DefaultClient, url+"partitions/1/messages?timeout=60&api-version=2014-01", "http://localhost/events", `{"DeviceId":"dev-01"}`, map[string]string{
		"Content-Type":     "application/atom+xml;type=entry;charset=utf-8",
		"Alert":            "Strong Wind",
		"Count":            "42",
		"Level":            "1.5",
		"Urgent":           "true",
		"Since":            `"Sun, 06 Nov 1994 08:49:37 GMT"`,
		"Quoted":           `"42"`,
		"BrokerProperties": `{"MessageId":"m-1","CorrelationId":"c-1","PartitionKey":"k"}`,
	}))
	created(post(t, http.DefaultClient, url+"partitions/1/messages", "http://localhost/events",
		`[{"Body":"one"},{"Body":"two","UserProperties":{"Alert":"Strong Wind","Count":42},"BrokerProperties":{"MessageId":"m-2"}},{"Body":"three"}]`,
		map[string]string{"Content-Type": "application/vnd.microsoft.servicebus.json"}))

	es := events(t, b.ConnectionString(), "events", "1", 4)
	e := es[0]
	want := map[string]any{
		"Alert": "Strong Wind", "Count": int64(42), "Level": 1.5, "Urgent": true, "Quoted": "42",
		"Since": time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC),
	}
	if d := cmp.Diff(want, e.Properties); d != "" {
		t.Error(d)
	}
	if string(e.Body) != `{"DeviceId":"dev-01"}` || *e.ContentType != "application/atom+xml;type=entry;charset=utf-8" ||
		*e.MessageID != "m-1" || e.CorrelationID != "c-1" || *e.PartitionKey != "k" || e.SequenceNumber != 0 || e.EnqueuedTime == nil {
		t.Errorf("%+v", e)
	}
	for i, body := range []string{"one", "two", "three"} {
		if e := es[i+1]; string(e.Body) != body || e.SequenceNumber != int64(i+1) || !e.EnqueuedTime.Equal(*es[1].EnqueuedTime) {
			t.Errorf("%+v", e)
		}
	}
	if d := cmp.Diff(map[string]any{"Alert": "Strong Wind", "Count": int64(42)}, es[2].Properties); d != "" || *es[2].MessageID != "m-2" {
		t.Error(d)
	}

	// A publisher, whose token is for it alone, lands where its name does; a
	// producer of the SDK that has the same key lands there too.
	created(post(t, http.DefaultClient, url+"publishers/dev-01/messages", "http://localhost/events/publishers/dev-01", "published", nil))
	if status, body := post(t, http.DefaultClient, url+"messages", "http://localhost/events/publishers/dev-01", "x", nil); status != http.StatusUnauthorized || !strings.Contains(body, "<Code>401</Code>") {
		t.Errorf("%d %s", status, body)
	}
	h := b.Namespaces().Default().EventHubs()[0]
	p := h.ForKey("dev-01")
	info, err := p.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := events(t, b.ConnectionString(), "events", []string{"0", "1", "2", "3"}[p.Index()], int(info.Next))
	if e := all[len(all)-1]; string(e.Body) != "published" || *e.PartitionKey != "dev-01" || e.SystemProperties["x-opt-publisher"] != "dev-01" {
		t.Errorf("%+v", e)
	}

	// The other paths are as they were, and an unknown one is answered in the
	// service's form.
	if status, body := get(t, http.DefaultClient, http.MethodGet, "http://"+b.Address(millrace.HTTP)+"/health"); status != 200 || !strings.Contains(body, "healthy") {
		t.Errorf("%d %s", status, body)
	}
	for _, x := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/events/messages", 405}, {http.MethodGet, "/unknown", 401}, {http.MethodGet, "/events/unknown", 404}, {http.MethodPost, "/", 404},
		{http.MethodPost, "//events/messages", 404}, {http.MethodPost, "/events/../events/messages", 404}, {http.MethodGet, "/admin/v1/../../health", 404},
	} {
		if status, body := get(t, http.DefaultClient, x.method, "http://"+b.Address(millrace.HTTP)+x.path); status != x.status || !strings.HasPrefix(body, "<Error><Code>") {
			t.Errorf("%s %s: %d %s", x.method, x.path, status, body)
		}
	}
}

// TestSendOverHTTPS holds that the other door has the same.
func TestSendOverHTTPS(t *testing.T) {
	b := start(t, millrace.Options{Data: t.TempDir()})
	pem, err := os.ReadFile(filepath.Join(b.Data(), "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	defer c.CloseIdleConnections()
	status, body := post(t, c, "https://"+b.Address(millrace.HTTPS)+"/events/partitions/0/messages", "https://localhost/events", "hello", map[string]string{"Alert": "Strong Wind"})
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	// Package http writes other names than it is given, so the request that has
	// one is written by hand.
	conn, err := tls.Dial("tcp", b.Address(millrace.HTTPS), &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("the protocol is %q", p)
	}
	fmt.Fprintf(conn, "POST /events/partitions/0/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: %s\r\nWindAlert: Strong Winds\r\n\r\n",
		auth.SignSAS("https://localhost/events", "RootManageSharedAccessKey", "SAS_KEY_VALUE", time.Now().Add(time.Minute)))
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 201 ") {
		t.Errorf("%s, %v", answer, err)
	}
	es := events(t, b.ConnectionString(), "events", "0", 2)
	if d := cmp.Diff(map[string]any{"Alert": "Strong Wind"}, es[0].Properties); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"WindAlert": "Strong Winds"}, es[1].Properties); d != "" {
		t.Error(d)
	}
	if _, body := get(t, http.DefaultClient, http.MethodGet, "http://"+b.Address(millrace.HTTPS)+"/health"); !strings.Contains(body, "speaks TLS") {
		t.Error(body)
	}
}
