package millrace_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/store/segment"
)

// patience is for operations of clients against a broker in this process; only
// a failure takes that long.
const patience = 30 * time.Second

func start(t *testing.T, o millrace.Options) *millrace.Broker {
	t.Helper()
	b, err := millrace.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// send sends one event for each body to partition 0 of a hub.
func send(t *testing.T, cs, hub string, o *azeventhubs.ProducerClientOptions, bodies ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := azeventhubs.NewProducerClientFromConnectionString(cs, hub, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	batch, err := p.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: new("0")})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		if err := batch.AddEventData(&azeventhubs.EventData{Body: []byte(body)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SendEventDataBatch(ctx, batch, nil); err != nil {
		t.Fatal(err)
	}
}

// receive reads n events of partition 0 from the start.
func receive(t *testing.T, cs, hub string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := azeventhubs.NewConsumerClientFromConnectionString(cs, hub, azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	p, err := c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	var bodies []string
	for len(bodies) < n {
		events, err := p.ReceiveEvents(ctx, n-len(bodies), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			bodies = append(bodies, string(e.Body))
		}
	}
	return bodies
}

func get(t *testing.T, client *http.Client, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
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

func TestEmbedded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endpoints.json")
	b := start(t, millrace.Options{Ephemeral: true, Endpoints: file, Version: "test"})
	send(t, b.ConnectionString(), "events", nil, "one", "two")
	if got := receive(t, b.ConnectionString(), "events", 2); !slices.Equal(got, []string{"one", "two"}) {
		t.Error(got)
	}

	c, err := container.NewClientFromConnectionString(b.StorageConnectionString(), "checkpoints", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), nil); err != nil {
		t.Error(err)
	}

	var e millrace.Endpoints
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &e); err != nil || e != b.Endpoints() || e.ConnectionString != b.ConnectionString() {
		t.Errorf("%s, %v", raw, err)
	}
	if e.AMQP != b.Address(millrace.AMQP) || e.Kafka != "" || strings.Contains(string(raw), "kafka") {
		t.Errorf("%s", raw)
	}

	var banner strings.Builder
	if err := b.WriteBanner(&banner); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{b.ConnectionString(), b.StorageConnectionString(), b.Data(), "temporary", "--sync never", "events (4 partitions)", "http://localhost:"} {
		if !strings.Contains(banner.String(), want) {
			t.Errorf("the banner does not say %q:\n%s", want, banner.String())
		}
	}

	dir := b.Data()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	<-b.Done()
	for _, gone := range []string{file, dir} {
		if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
}

func TestHTTPDoor(t *testing.T) {
	b := start(t, millrace.Options{Ephemeral: true, Version: "v1"})
	url := "http://" + b.Address(millrace.HTTP)
	status, body := get(t, http.DefaultClient, http.MethodGet, url+"/health")
	if status != 200 || body != `{"status":"healthy","message":"Service is healthy."}` {
		t.Error(status, body)
	}
	if status, _ = get(t, http.DefaultClient, http.MethodHead, url+"/health"); status != 200 {
		t.Error(status)
	}
	if status, _ = get(t, http.DefaultClient, http.MethodPost, url+"/health"); status != 405 {
		t.Error(status)
	}
	if status, body = get(t, http.DefaultClient, http.MethodGet, url+"/"); status != 200 || !strings.Contains(body, "Millrace v1") {
		t.Error(status, body)
	}
	if status, _ = get(t, http.DefaultClient, http.MethodGet, url+"/events/nothing"); status != 404 {
		t.Error(status)
	}

	send(t, b.ConnectionString(), "events", nil, "one", "two", "three")
	status, body = get(t, http.DefaultClient, http.MethodGet, url+"/metrics")
	if status != 200 {
		t.Fatal(status, body)
	}
	for _, want := range []string{
		`millrace_incoming_messages_total{hub="events",namespace="localhost"} 3`,
		`millrace_incoming_requests_total{hub="events",namespace="localhost"} 1`,
		`millrace_successful_requests_total{hub="events",namespace="localhost",result="success"} 1`,
		`millrace_throttled_requests_total{hub="events",namespace="localhost",result="serverbusy"} 0`,
		`millrace_partition_last_sequence_number{hub="events",namespace="localhost",partition="0"} 2`,
		`millrace_partition_last_sequence_number{hub="events",namespace="localhost",partition="3"} -1`,
		`millrace_connections_opened_total{namespace="localhost"} 1`,
		`millrace_storage_full 0`,
		`millrace_build_info{`, `go_goroutines `, `millrace_size_bytes{`, `millrace_outgoing_bytes_total{`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}

	cs, err := auth.ParseConnectionString(b.ConnectionString())
	if err != nil {
		t.Fatal(err)
	}
	client, err := admin.NewClient(url, cs, nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := client.Status(t.Context())
	if err != nil || st.Version != "v1" || st.Data != b.Data() || st.Sync != "never" || !st.Disposed || st.Doors["amqp"] != b.Address(millrace.AMQP) || st.Doors["kafka"] != "" || st.Hubs != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestWebSocketPaths asks for an upgrade as each SDK spells it.
func TestWebSocketPaths(t *testing.T) {
	b := start(t, millrace.Options{Ephemeral: true})
	for _, path := range []string{"/$servicebus/websocket", "/$servicebus/websocket/", "/%24servicebus/websocket"} {
		conn, err := net.Dial("tcp", b.Address(millrace.HTTP))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: AMQPWSB10\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Protocol") != "AMQPWSB10" {
			t.Errorf("%s: %+v, %v", path, resp, err)
		}
		conn.Close()
	}
}

func TestTLSDoors(t *testing.T) {
	b := start(t, millrace.Options{Data: t.TempDir(), Listen: map[millrace.Door]string{millrace.AMQP: "off"}})
	a, err := millrace.OpenAuthority(b.Data(), nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.Root)
	trust := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if strings.Contains(b.ConnectionString(), "Emulator") {
		t.Errorf("%s means plain AMQP, which is off", b.ConnectionString())
	}
	// The SDK takes host and port for the server's name unless it is told one.
	named := trust.Clone()
	named.ServerName = "localhost"
	send(t, b.ConnectionString(), "events", &azeventhubs.ProducerClientOptions{TLSConfig: named}, "over TLS")

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	if status, body := get(t, client, http.MethodGet, "https://"+b.Address(millrace.HTTPS)+"/health"); status != 200 {
		t.Error(status, body)
	}
}

// TestRestart: what was sent, made and signed is there after a stop.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	o := millrace.Options{Data: dir, Namespaces: []millrace.Namespace{{Hubs: []millrace.EventHub{{Name: "trial", Partitions: 2}}}}}
	b := start(t, o)
	send(t, b.ConnectionString(), "trial", nil, "before")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Namespaces = nil
	b = start(t, o)
	send(t, b.ConnectionString(), "trial", nil, "after")
	if got := receive(t, b.ConnectionString(), "trial", 2); !slices.Equal(got, []string{"before", "after"}) {
		t.Error(got)
	}
	if hubs := b.Namespaces().Default().EventHubs(); len(hubs) != 1 {
		t.Errorf("%d hubs", len(hubs))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := millrace.Verify(t.Context(), dir)
	if err != nil || len(r.Damage) > 0 || r.Events != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestShutdownWithClients: a receiver that waits is told goodbye, and does not
// hold the broker up.
func TestShutdownWithClients(t *testing.T) {
	b := start(t, millrace.Options{Ephemeral: true})
	c, err := azeventhubs.NewConsumerClientFromConnectionString(b.ConnectionString(), "events", azeventhubs.DefaultConsumerGroup, &azeventhubs.ConsumerClientOptions{
		RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer c.Close(ctx)
	p, err := c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	send(t, b.ConnectionString(), "events", nil, "one")
	if _, err := p.ReceiveEvents(ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := p.ReceiveEvents(ctx, 1, nil)
		ended <- err
	}()
	if b.Err() != nil {
		t.Error(b.Err())
	}
	if err := b.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || ctx.Err() != nil {
		t.Errorf("the receiver got %v", err)
	}
	if _, err := net.Dial("tcp", b.Address(millrace.AMQP)); err == nil {
		t.Error("the door is still open")
	}
	if err := b.Close(); err != nil {
		t.Error("closed twice:", err)
	}
}

// untouched fails if a folder does not hold exactly these files.
func untouched(t *testing.T, dir string, before []string) {
	t.Helper()
	if after := listing(t, dir); !slices.Equal(before, after) {
		t.Errorf("%s was changed:\n%q\n%q", dir, before, after)
	}
}

func listing(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		files = append(files, fmt.Sprintf("%s %s %d %s", path, st.Mode(), st.Size(), st.ModTime()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestStartProblems(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fresh := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "FORMAT"), []byte("millrace data, format 999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := start(t, millrace.Options{Data: t.TempDir()})

	for _, c := range []struct {
		name string
		o    millrace.Options
		is   error
		says []string
	}{
		{"no folder", millrace.Options{}, nil, []string{"--data DIR", "--ephemeral"}},
		{"a policy", millrace.Options{Data: fresh, Sync: "sometimes"}, nil, []string{"--sync", "sometimes"}},
		{"a door", millrace.Options{Data: fresh, Listen: map[millrace.Door]string{"smtp": ":25"}}, nil, []string{"smtp"}},
		{"an address", millrace.Options{Data: fresh, Listen: map[millrace.Door]string{millrace.Blob: "x"}}, nil, []string{"--blob", `"x"`}},
		{"Kafka", millrace.Options{Data: fresh, Listen: map[millrace.Door]string{millrace.Kafka: "localhost:0"}}, nil, []string{"--kafka"}},
		{"a hub's name", millrace.Options{Data: fresh, Namespaces: []millrace.Namespace{{Hubs: []millrace.EventHub{{Name: "a b"}}}}}, nil, []string{"'a b'"}},
		{"a hub's partitions", millrace.Options{Data: fresh, Namespaces: []millrace.Namespace{{Hubs: []millrace.EventHub{{Name: "a", Partitions: 2000}}}}}, nil, []string{"1024", "2000"}},
		{"an account", millrace.Options{Data: fresh, BlobAccounts: map[string][]string{"A": {"a2V5"}}}, nil, []string{"lower-case"}},
		{"a taken port", millrace.Options{Data: fresh, Listen: map[millrace.Door]string{millrace.HTTPS: taken.Addr().String()}}, nil, []string{"https door", taken.Addr().String(), "--https"}},
		{"a certificate", millrace.Options{Data: fresh, TLSCert: file, TLSKey: file}, nil, []string{file}},
		{"a file for a folder", millrace.Options{Data: filepath.Join(file, "data")}, nil, []string{"data folder", file}},
		{"a newer version's folder", millrace.Options{Data: newer}, segment.ErrNewer, []string{newer, "999", "--data"}},
		{"a folder in use", millrace.Options{Data: running.Data()}, segment.ErrInUse, []string{running.Data(), fmt.Sprint(os.Getpid()), "--data"}},
	} {
		pid := filepath.Join(running.Data(), "broker.pid") // the rest is the running broker's to change
		before := [][]string{listing(t, fresh), listing(t, newer), listing(t, pid)}
		b, err := millrace.Start(t.Context(), c.o)
		if err == nil {
			t.Errorf("%s: it starts", c.name)
			b.Close()
			continue
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, want := range c.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q", c.name, err, want)
			}
		}
		for i, dir := range []string{fresh, newer, pid} {
			untouched(t, dir, before[i])
		}
	}
	send(t, running.ConnectionString(), "events", nil, "all the same")
}

func TestOtherPartitions(t *testing.T) {
	dir := t.TempDir()
	o := millrace.Options{Data: dir, Namespaces: []millrace.Namespace{{Hubs: []millrace.EventHub{{Name: "trial", Partitions: 2}}}}}
	b := start(t, o)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Namespaces[0].Hubs[0].Partitions = 3
	if _, err := millrace.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "has 2 partitions and is asked for with 3") {
		t.Error(err)
	}
	o.Namespaces[0].Hubs[0].Partitions = 0
	if b = start(t, o); b.Namespaces().Default().EventHubs()[0].Partitions() != 2 {
		t.Error("the hub has changed")
	}
}

func TestDoctorAndVerify(t *testing.T) {
	dir := t.TempDir()
	find := func(o millrace.Options, subject string) millrace.Finding {
		t.Helper()
		d, err := millrace.Doctor(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if d.Overwrite.Samples == 0 || d.Append.P50 > d.Append.P99 || d.Append.P99 == 0 {
			t.Errorf("%+v", d)
		}
		for _, f := range d.Findings {
			if f.Subject == subject {
				return f
			}
		}
		t.Fatalf("nothing about %s: %+v", subject, d.Findings)
		return millrace.Finding{}
	}
	o := millrace.Options{Data: filepath.Join(dir, "data")}
	if f := find(o, "data folder"); f.Verdict != millrace.Good || !strings.Contains(f.Text, "not there yet") {
		t.Errorf("%+v", f)
	}
	if _, err := os.Stat(o.Data); err == nil {
		t.Error("the doctor made the folder")
	}
	b := start(t, o)
	if f := find(o, "data folder"); f.Verdict != millrace.Good || !strings.Contains(f.Text, "running broker") {
		t.Errorf("%+v", f)
	}
	if _, err := millrace.Verify(t.Context(), o.Data); !errors.Is(err, segment.ErrInUse) {
		t.Error(err)
	}
	port := map[millrace.Door]string{millrace.Blob: b.Address(millrace.Blob)}
	if f := find(millrace.Options{Ephemeral: true, Listen: port}, "door blob"); f.Verdict != millrace.Bad || !strings.Contains(f.Text, "taken") {
		t.Errorf("%+v", f)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	before := listing(t, o.Data)
	if f := find(o, "data folder"); f.Verdict != millrace.Good || !strings.Contains(f.Text, "good order") {
		t.Errorf("%+v", f)
	}
	if after := listing(t, o.Data); len(after) != len(before) {
		t.Error("the doctor left something behind", after)
	}
	if err := os.WriteFile(filepath.Join(o.Data, "FORMAT"), []byte("millrace data, format 999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := find(o, "data folder"); f.Verdict != millrace.Bad || f.Advice == "" {
		t.Errorf("%+v", f)
	}
	if _, err := millrace.Verify(t.Context(), o.Data); !errors.Is(err, segment.ErrNewer) {
		t.Error(err)
	}
}
