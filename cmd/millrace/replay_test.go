package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/capture/archive"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/hub"
)

// lake is a broker that captures to a folder.
type lake struct {
	*millrace.Broker
	t   *testing.T
	dir string
}

func newLake(t *testing.T) *lake {
	t.Helper()
	l := &lake{t: t, dir: t.TempDir()}
	var err error
	l.Broker, err = millrace.Start(t.Context(), millrace.Options{
		Ephemeral: true, CaptureDestinations: []millrace.CaptureDestination{{Name: "lake", Kind: "folder", Folder: l.dir}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// captured makes a hub that is captured.
func (l *lake) captured(name string, partitions int, format hub.CaptureFormat) {
	l.t.Helper()
	_, err := l.Namespaces().Default().CreateEventHub(l.t.Context(), name, partitions, hub.Settings{
		Retention: time.Hour, Capture: &hub.Capture{Enabled: true, Destination: "lake", Format: format},
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// rows turns the capture of a hub off, and reads what is in the files once they
// have so many events.
func (l *lake) rows(name string, events int) map[string][]string {
	l.t.Helper()
	h, err := l.Namespaces().Default().EventHub(name)
	if err != nil {
		l.t.Fatal(err)
	}
	err = h.Change(l.t.Context(), 0, func(s *hub.Settings) error {
		c := *s.Capture
		c.Enabled = false
		s.Capture = &c
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	for h.Metrics.CapturedMessages.Load() < int64(events) {
		if err := pause(l.t.Context(), 10*time.Millisecond); err != nil {
			l.t.Fatal(err)
		}
	}
	var flags captureFiles
	flags.nameFormat = "{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"
	files, _, err := flags.list(l.t.Context(), []string{filepath.Join(l.dir, "localhost", name)})
	if err != nil {
		l.t.Fatal(err)
	}
	got := map[string][]string{}
	for e, err := range archive.Events(l.t.Context(), files, archive.Query{}) {
		if err != nil {
			l.t.Fatal(err)
		}
		p := partitionOf(e.File)
		got[p] = append(got[p], describeRow(e.Row))
	}
	return got
}

// describeRow is what a replay has to keep of an event.
func describeRow(e *row.Row) string {
	var b strings.Builder
	for _, all := range [][]row.Property{e.System, e.Properties} {
		for _, p := range all {
			fmt.Fprintf(&b, "%s=%s:%s ", p.Name, p.Value.Kind, p.Value.AppendJSON(nil))
		}
		b.WriteString("| ")
	}
	fmt.Fprintf(&b, "%t %x", e.Body == nil, e.Body)
	return b.String()
}

// command runs the program, and returns what it prints.
func (l *lake) command(args ...string) (out, errs string, status int) {
	l.t.Helper()
	var o, e bytes.Buffer
	status = run(l.t.Context(), append(args, "--connection-string", l.ConnectionString()), strings.NewReader(""), &o, &e)
	return o.String(), e.String(), status
}

// randomEvent is an event with whatever a producer may say.
func randomEvent(r *rand.Rand, n int) *azeventhubs.AMQPAnnotatedMessage {
	at := time.UnixMilli(1_700_000_000_000 + int64(n)).UTC()
	values := []any{int8(-3), int64(1) << 60, uint16(9), float32(0.5), 2.25, true, "text é", []byte{0xff, 0, byte(n)}, nil, at}
	m := &azeventhubs.AMQPAnnotatedMessage{
		Properties:         &azeventhubs.AMQPAnnotatedMessageProperties{MessageID: fmt.Sprintf("m%d", n)},
		MessageAnnotations: map[any]any{},
	}
	some := func() bool { return r.IntN(3) == 0 }
	for i, v := range values {
		if some() {
			if m.ApplicationProperties == nil {
				m.ApplicationProperties = map[string]any{}
			}
			m.ApplicationProperties[fmt.Sprintf("p%d", i)] = v
		}
	}
	p := m.Properties
	for _, to := range []**string{&p.To, &p.Subject, &p.ReplyTo, &p.ContentType, &p.ContentEncoding, &p.GroupID, &p.ReplyToGroupID} {
		if some() {
			*to = new(fmt.Sprintf("t%d", r.IntN(100)))
		}
	}
	if some() {
		p.MessageID, p.CorrelationID = uint64(n), []any{uint64(7), []byte{1, 2}, "c"}[r.IntN(3)]
	}
	if some() {
		p.UserID, p.GroupSequence, p.CreationTime, p.AbsoluteExpiryTime = []byte("user"), new(uint32(n)), &at, &at
	}
	if some() {
		m.MessageAnnotations["x-opt-own"] = int64(n)
	}
	switch size := r.IntN(2000); {
	case size > 1000:
		m.Body.Data = [][]byte{bytes.Repeat([]byte{byte(n)}, size)}
	case size > 500:
		m.Body.Data = [][]byte{{}}
	case size > 250:
		m.Body.Value = "a value"
	case size > 200: // none
	default:
		m.Body.Data = [][]byte{[]byte("one"), []byte("two")}
	}
	return m
}

// send sends events to each partition of a hub, some with a key of theirs.
func (l *lake) send(name string, partitions, events int) {
	l.t.Helper()
	client, err := azeventhubs.NewProducerClientFromConnectionString(l.ConnectionString(), name, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(l.t.Context()))
	r := rand.New(rand.NewPCG(1, 2))
	for n := range events {
		b, err := client.NewEventDataBatch(l.t.Context(), &azeventhubs.EventDataBatchOptions{PartitionID: new(fmt.Sprint(n % partitions))})
		if err != nil {
			l.t.Fatal(err)
		}
		m := randomEvent(r, n)
		if r.IntN(2) == 0 {
			m.MessageAnnotations[annotationKey] = fmt.Sprintf("key%d", r.IntN(5))
		}
		if err := b.AddAMQPAnnotatedMessage(m, nil); err != nil {
			l.t.Fatal(err)
		}
		if err := client.SendEventDataBatch(l.t.Context(), b, nil); err != nil {
			l.t.Fatal(err)
		}
	}
}

// TestReplayKeeps sends events, captures them, replays the files into another hub,
// and captures that: the files say the same of every event. From Parquet that holds
// for its own values, which are text, and so for files of Parquet again.
func TestReplayKeeps(t *testing.T) {
	const events = 300
	l := newLake(t)
	l.captured("first", 3, hub.CaptureAvroDeflate)
	l.captured("second", 4, hub.CaptureAvro)
	l.captured("third", 3, hub.CaptureParquet)
	l.captured("fourth", 3, hub.CaptureParquet)
	l.send("first", 3, events)
	want := l.rows("first", events)
	hop := func(from, to string) map[string][]string {
		t.Helper()
		out, errs, status := l.command("replay", "--from-capture", l.dir, "--event-hub", from, "--hub", to, "-o", "json")
		var s replaySummary
		if err := json.Unmarshal([]byte(out), &s); err != nil || status != 0 || s.Events != events || len(s.Partitions) != 3 {
			t.Fatalf("%s to %s: %d, %s%s", from, to, status, out, errs)
		}
		return l.rows(to, events)
	}
	if d := cmp.Diff(want, hop("first", "second")); d != "" {
		t.Errorf("Avro: %s", d)
	}
	third := hop("second", "third")
	if d := cmp.Diff(third, hop("third", "fourth")); d != "" {
		t.Errorf("Parquet: %s", d)
	}
	total := 0
	for p := range third {
		total += len(third[p])
	}
	if total != events {
		t.Errorf("%d events in Parquet", total)
	}
}

// TestReplayByKey keeps the order of each key's events, wherever they go.
func TestReplayByKey(t *testing.T) {
	const events = 800
	l := newLake(t)
	l.captured("from", 2, hub.CaptureAvro)
	client, err := azeventhubs.NewProducerClientFromConnectionString(l.ConnectionString(), "from", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(t.Context()))
	for k := range 400 { // more than are open at a time
		b, err := client.NewEventDataBatch(t.Context(), &azeventhubs.EventDataBatchOptions{PartitionKey: new(fmt.Sprintf("k%d", k%100))})
		if k%2 == 1 {
			b, err = client.NewEventDataBatch(t.Context(), &azeventhubs.EventDataBatchOptions{PartitionID: new("1")})
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			if err := b.AddEventData(&azeventhubs.EventData{Body: fmt.Appendf(nil, "%d", k*10+i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.SendEventDataBatch(t.Context(), b, nil); err != nil {
			t.Fatal(err)
		}
	}
	l.rows("from", events)
	if _, err := l.Namespaces().Default().CreateEventHub(t.Context(), "to", 7, hub.Settings{Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := l.command("replay", "--from-capture", l.dir, "--hub", "to", "--by-key"); status != 0 || !strings.HasPrefix(out, "Replayed 800 events in ") {
		t.Fatal(out, errs)
	}
	out, errs, status := l.command("receive", "--hub", "to", "--no-checkpoint", "--count", "800", "--format", "{{.PartitionKey}} {{.Partition}} {{.Body}}")
	if status != 0 {
		t.Fatal(out, errs)
	}
	last, at := map[string]int{}, map[string]string{}
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		var n int
		fmt.Sscan(f[2], &n)
		if p, ok := at[f[0]]; ok && (p != f[1] || last[f[0]] >= n) {
			t.Fatalf("key %q: %d in partition %s after %d in partition %s", f[0], n, f[1], last[f[0]], p)
		}
		at[f[0]], last[f[0]] = f[1], n
	}
	if len(at) != 51 || at[""] != "1" {
		t.Errorf("%d keys; without one: partition %s", len(at), at[""])
	}
}

// TestReplayEndsEarly: what a damaged file leaves, the flags that are named send,
// and nothing twice.
func TestReplayEndsEarly(t *testing.T) {
	l := newLake(t)
	l.captured("from", 3, hub.CaptureAvro)
	l.send("from", 3, 30)
	l.rows("from", 30)
	files, err := filepath.Glob(filepath.Join(l.dir, "localhost", "from", "1", "*/*/*/*/*/*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], whole[:len(whole)-200], 0o600); err != nil {
		t.Fatal(err)
	}
	l.captured("to", 3, hub.CaptureAvro)
	out, errs, status := l.command("replay", "--from-capture", l.dir, "--event-hub", "from", "--hub", "to", "-o", "json")
	var s replaySummary
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != 1 || s.Partitions["0"].Last != 9 || s.Partitions["2"] != nil {
		t.Fatalf("%s%s%v", out, errs, err)
	}
	last := s.Partitions["1"].Last
	want := fmt.Sprintf("Partition 1 is acknowledged up to #%d. To go on: --partition 1 --from '#%d', and then --partition 2.\n", last, last+1)
	if !strings.Contains(errs, want) || !strings.Contains(errs, ": not a captured Avro file, at byte ") {
		t.Fatalf("%s%s", errs, want)
	}
	if err := os.WriteFile(files[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{"--partition", "1", "--from", fmt.Sprintf("#%d", last+1)}, {"--partition", "2"}} {
		if out, errs, status := l.command(append([]string{"replay", "--from-capture", l.dir, "--event-hub", "from", "--hub", "to", "-q"}, flags...)...); status != 0 || out != "" {
			t.Fatal(out, errs)
		}
	}
	if d := cmp.Diff(l.rows("from", 30), l.rows("to", 30)); d != "" {
		t.Error(d)
	}
}

func TestReplayedFields(t *testing.T) {
	text := func(s string) row.Value { return row.Value{Kind: row.String, Text: []byte(s)} }
	at := time.UnixMilli(1_700_000_000_123).UTC()
	for what, system := range map[string][]row.Property{
		"Avro": {
			{Name: []byte("user-id"), Value: row.Value{Kind: row.Bytes, Text: []byte("user")}},
			{Name: []byte("creation-time"), Value: row.Value{Kind: row.Long, Long: at.UnixMilli()}},
			{Name: []byte("group-sequence"), Value: row.Value{Kind: row.Long, Long: 3}},
			{Name: []byte("x-opt-partition-key"), Value: text("k")},
		},
		"Parquet": {
			{Name: []byte("user-id"), Value: text(`"dXNlcg=="`)},
			{Name: []byte("creation-time"), Value: text("1700000000123")},
			{Name: []byte("group-sequence"), Value: text("3")},
			{Name: []byte("x-opt-partition-key"), Value: text("k")},
		},
		"others' files": {
			{Name: []byte("user-id"), Value: text("user")},
			{Name: []byte("creation-time"), Value: text("1700000000123")},
			{Name: []byte("absolute-expiry-time"), Value: text("never")},
			{Name: []byte("group-sequence"), Value: text("3")},
			{Name: []byte("x-opt-partition-key"), Value: text("k")},
		},
	} {
		m, key := again(&row.Row{System: system})
		p := m.Properties
		if key != "k" || string(p.UserID) != "user" || !p.CreationTime.Equal(at) || *p.GroupSequence != 3 || p.AbsoluteExpiryTime != nil || len(m.MessageAnnotations) > 0 || m.Body.Data != nil {
			t.Errorf("%s: %+v, %+v", what, m, p)
		}
	}
	if id := identifier(row.Value{Kind: row.Long, Long: -1}); id != "-1" {
		t.Errorf("%T %v", id, id)
	}
	if id := identifier(row.Value{Kind: row.Long, Long: 5}); id != uint64(5) {
		t.Errorf("%T %v", id, id)
	}
}

// TestReplayInterrupted says where to go on.
func TestReplayInterrupted(t *testing.T) {
	l := newLake(t)
	l.captured("from", 1, hub.CaptureAvro)
	l.send("from", 1, 20)
	l.rows("from", 20)
	l.captured("to", 1, hub.CaptureAvro)
	to, err := l.Namespaces().Default().EventHub("to")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"replay", "--from-capture", l.dir, "--event-hub", "from", "--hub", "to", "--rate", "1", "-o", "json", "--connection-string", l.ConnectionString()}, strings.NewReader(""), &out, &errs)
	}()
	for to.Metrics.IncomingMessages.Load() == 0 {
		if err := pause(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if s := <-status; s != 1 || errs.String() != "Partition 0 is acknowledged up to #0. To go on: --partition 0 --from '#1'.\nInterrupted.\n" {
		t.Errorf("status %d, %s", s, errs.String())
	}
	var s replaySummary
	if err := json.Unmarshal(out.Bytes(), &s); err != nil || s.Events != 1 || s.Partitions["0"].Events != 1 {
		t.Errorf("%s, %v", out.String(), err)
	}
}
