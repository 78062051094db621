package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/hub"
)

// plainHub makes a hub that is not captured.
func (l *lake) plainHub(name string, partitions int, settings hub.Settings) {
	l.t.Helper()
	settings.Retention = time.Hour
	if _, err := l.Namespaces().Default().CreateEventHub(l.t.Context(), name, partitions, settings); err != nil {
		l.t.Fatal(err)
	}
}

// messages reads every event of a hub, by partition.
func (l *lake) messages(name string) map[string][]*azeventhubs.ReceivedEventData {
	l.t.Helper()
	client, err := azeventhubs.NewConsumerClientFromConnectionString(l.ConnectionString(), name, azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(l.t.Context()))
	p, err := client.GetEventHubProperties(l.t.Context(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	all := map[string][]*azeventhubs.ReceivedEventData{}
	for _, id := range p.PartitionIDs {
		in, err := (&locator{client: client}).extent(l.t.Context(), id)
		if err != nil {
			l.t.Fatal(err)
		}
		if in.empty() {
			continue
		}
		c, err := client.NewPartitionClient(id, &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
		if err != nil {
			l.t.Fatal(err)
		}
		all[id], err = c.ReceiveEvents(l.t.Context(), int(in.end-in.first), nil)
		c.Close(context.WithoutCancel(l.t.Context()))
		if err != nil {
			l.t.Fatal(err)
		}
	}
	return all
}

// sendMessages sends messages to a partition, one by one.
func (l *lake) sendMessages(name, partition string, all []*azeventhubs.AMQPAnnotatedMessage) {
	l.t.Helper()
	client, err := azeventhubs.NewProducerClientFromConnectionString(l.ConnectionString(), name, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(l.t.Context()))
	for _, m := range all {
		b, err := client.NewEventDataBatch(l.t.Context(), &azeventhubs.EventDataBatchOptions{PartitionID: &partition})
		if err != nil {
			l.t.Fatal(err)
		}
		if err := b.AddAMQPAnnotatedMessage(m, nil); err != nil {
			l.t.Fatal(err)
		}
		if err := client.SendEventDataBatch(l.t.Context(), b, nil); err != nil {
			l.t.Fatal(err)
		}
	}
}

// TestReplayHubKeeps copies a hub, and reads the same from both: each type of each
// section of every event, in order.
func TestReplayHubKeeps(t *testing.T) {
	const events = 300
	l := newLake(t)
	l.plainHub("from", 3, hub.Settings{})
	l.plainHub("to", 4, hub.Settings{})
	l.send("from", 3, events)
	odd := oddEvents()
	l.sendMessages("from", "1", odd)
	out, errs, status := l.command("replay", "--from-hub", "from", "--hub", "to", "-o", "json")
	var s replaySummary
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != 0 || s.Events != events+len(odd) || s.From != "from" || len(s.Partitions) != 3 {
		t.Fatalf("%d, %s%s", status, out, errs)
	}
	want, got := bareAll(l.messages("from")), bareAll(l.messages("to"))
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if n := len(want["1"]); n != events/3+len(odd) || !slices.ContainsFunc(want["0"], func(m *azeventhubs.AMQPAnnotatedMessage) bool { return m.MessageAnnotations[annotationKey] != nil }) {
		t.Errorf("%d events in partition 1", n)
	}
}

// TestReplayHubByKey sends events where their keys lead in a hub of other partitions,
// each key's in order.
func TestReplayHubByKey(t *testing.T) {
	l := newLake(t)
	l.plainHub("from", 2, hub.Settings{})
	l.plainHub("to", 7, hub.Settings{})
	l.send("from", 2, 200)
	if out, errs, status := l.command("replay", "--from-hub", "from", "--hub", "to", "--by-key", "--resume", filepath.Join(t.TempDir(), "f")); status != 0 || !strings.HasPrefix(out, "Replayed 200 events in ") {
		t.Fatal(out, errs)
	}
	// The same key is in each partition of the source: the order is that of one of them.
	order := func(all map[string][]*azeventhubs.ReceivedEventData, of func(e *azeventhubs.ReceivedEventData) string) map[string][]string {
		m := map[string][]string{}
		for _, id := range slices.Sorted(maps.Keys(all)) {
			for _, e := range all[id] {
				if e.PartitionKey != nil {
					m[of(e)] = append(m[of(e)], fmt.Sprint(e.RawAMQPMessage.Properties.MessageID))
				}
			}
		}
		return m
	}
	from := l.messages("from")
	home := map[string]string{} // the source's partition, by message id
	for id, events := range from {
		for _, e := range events {
			home[fmt.Sprint(e.RawAMQPMessage.Properties.MessageID)] = id
		}
	}
	both := func(e *azeventhubs.ReceivedEventData) string {
		return *e.PartitionKey + " of " + home[fmt.Sprint(e.RawAMQPMessage.Properties.MessageID)]
	}
	to := l.messages("to")
	if d := cmp.Diff(order(from, both), order(to, both)); d != "" {
		t.Error(d)
	}
	where := map[string]string{}
	for id, events := range to {
		for _, e := range events {
			if e.PartitionKey == nil {
				continue
			}
			if at, ok := where[*e.PartitionKey]; ok && at != id {
				t.Fatalf("key %s in the partitions %s and %s", *e.PartitionKey, at, id)
			}
			where[*e.PartitionKey] = id
		}
	}
	if len(where) != 5 {
		t.Errorf("%d keys", len(where))
	}
}

// TestReplayHubRange sends the part of a hub that is asked for.
func TestReplayHubRange(t *testing.T) {
	l := newLake(t)
	l.plainHub("from", 2, hub.Settings{})
	l.send("from", 2, 40)
	zero := l.messages("from")["0"]
	at := zero[7].EnqueuedTime
	middle := at.Format(time.RFC3339Nano)
	first := slices.IndexFunc(zero, func(e *azeventhubs.ReceivedEventData) bool { return !e.EnqueuedTime.Before(*at) })
	before := fmt.Sprintf("0-%d ", first-1)
	if first == 0 {
		before = " "
	}
	for i, c := range []struct {
		flags []string
		want  string // of partition 0, partition 1
	}{
		{nil, "0-19 0-19"},
		{[]string{"--from", "#5", "--until", "#9"}, "5-8 5-8"},
		{[]string{"--from", "@18", "--partition", "1"}, " 18-19"},
		{[]string{"--until", "#0"}, " "},
		{[]string{"--from", "latest"}, " "},
		{[]string{"--until", middle, "--partition", "0"}, before},
		{[]string{"--from", middle, "--partition", "0"}, fmt.Sprintf("%d-19 ", first)},
		{[]string{"--from", "2100-01-01T00:00:00Z"}, " "},
		{[]string{"--until", "#20"}, "0-19 0-19"},
		{[]string{"--from", "#9", "--until", "#3"}, " "},
	} {
		to := fmt.Sprint("to", i)
		l.plainHub(to, 2, hub.Settings{})
		if out, errs, status := l.command(append([]string{"replay", "--from-hub", "from", "--hub", to}, c.flags...)...); status != 0 {
			t.Fatal(c.flags, out, errs)
		}
		var got []string
		all, ids := l.messages(to), l.messages("from")
		for _, id := range []string{"0", "1"} {
			var numbers []int
			for _, e := range all[id] {
				numbers = append(numbers, slices.IndexFunc(ids[id], func(x *azeventhubs.ReceivedEventData) bool {
					return cmp.Equal(x.RawAMQPMessage.Properties.MessageID, e.RawAMQPMessage.Properties.MessageID)
				}))
			}
			text := ""
			if n := len(numbers); n > 0 {
				text = fmt.Sprintf("%d-%d", numbers[0], numbers[n-1])
				if numbers[n-1]-numbers[0] != n-1 || !slices.IsSorted(numbers) {
					t.Errorf("%q: %v", c.flags, numbers)
				}
			}
			got = append(got, text)
		}
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%q: %s", c.flags, d)
		}
	}
}

// TestReplayResumeIsTied: a file goes on with its own replay, and with no other.
func TestReplayResumeIsTied(t *testing.T) {
	l := newLake(t)
	for _, name := range []string{"from", "to", "other"} {
		l.plainHub(name, 2, hub.Settings{})
	}
	l.send("from", 2, 20)
	file := filepath.Join(t.TempDir(), "orders.replay")
	replay := func(more ...string) (string, int) {
		out, errs, status := l.command(append([]string{"replay", "--from-hub", "from", "--resume", file}, more...)...)
		return out + errs, status
	}
	if said, status := replay("--hub", "to", "--until", "#6"); status != 0 || !strings.HasPrefix(said, "Replayed 12 events") {
		t.Fatal(said)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{
		{"--hub", "other", "--until", "#6"}, {"--hub", "to"}, {"--hub", "to", "--until", "#6", "--from", "#1"},
		{"--hub", "to", "--until", "#6", "--by-key"}, {"--hub", "to", "--until", "#6", "--partition", "1"},
	} {
		if said, status := replay(flags...); status != 1 || !strings.Contains(said, "--resume: "+file+" is of a replay ") {
			t.Errorf("%q: %s", flags, said)
		}
	}
	if said, status := replay("--hub", "to", "--until", "#6"); status != 0 || !strings.HasPrefix(said, "Replayed 0 events") {
		t.Error(said)
	}
	// The target is made again: what was acknowledged is not in it.
	if err := l.Namespaces().Default().DeleteEventHub(t.Context(), "to"); err != nil {
		t.Fatal(err)
	}
	l.plainHub("to", 2, hub.Settings{})
	if said, status := replay("--hub", "to", "--until", "#6"); status != 1 || !strings.Contains(said, "is of a replay to the event hub") {
		t.Error(said)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("the file has changed: %s, %v", after, err)
	}
	for _, bad := range []string{"", "{}", `{"version": 9}`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, status := replay("--hub", "to"); status != 1 || !strings.Contains(said, "--resume: "+file) {
			t.Errorf("%q: %s", bad, said)
		}
	}
	if said, status := replay("--hub", "from"); status != 1 || !strings.Contains(said, "would be sent to itself") {
		t.Error(said)
	}
}

// TestReplayFindsStored: a batch that was stored, and not known to be, is not sent
// again, but where somebody else has sent.
func TestReplayFindsStored(t *testing.T) {
	l := newLake(t)
	l.plainHub("from", 3, hub.Settings{})
	l.plainHub("to", 3, hub.Settings{})
	l.send("to", 3, 9) // what was there before counts for nothing
	l.send("from", 3, 60)
	l.sendMessages("from", "0", oddEvents())
	file := filepath.Join(t.TempDir(), "f")
	replay := func() (s replaySummary, errs string) {
		t.Helper()
		out, errs, status := l.command("replay", "--from-hub", "from", "--hub", "to", "--resume", file, "-o", "json")
		if err := json.Unmarshal([]byte(out), &s); err != nil || status != 0 {
			t.Fatal(out, errs)
		}
		return s, errs
	}
	if s, errs := replay(); s.Events != 65 || errs != "" {
		t.Fatalf("%+v %s", s, errs)
	}
	forget := func() {
		t.Helper()
		f, err := readResume(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Partitions {
			p.Next -= 8
			p.TargetEnd -= 8
		}
		if err := f.save(); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	if s, errs := replay(); s.Events != 0 || s.Found != 24 || errs != "" {
		t.Fatalf("%+v %s", s, errs)
	}
	forget()
	l.sendMessages("to", "1", oddEvents()[:1])
	s, errs := replay()
	if want := "Partition 1: a batch may be there twice, since it can't be told whether it was stored: there are events of others, too.\n"; s.Events != 8 || s.Found != 16 || errs != want {
		t.Fatalf("%+v %s", s, errs)
	}
	if s, errs := replay(); s.Events != 0 || s.Found != 0 || errs != "" {
		t.Fatalf("%+v %s", s, errs)
	}
	got := l.messages("to")
	if len(got["0"]) != 3+25 || len(got["1"]) != 3+20+1+8 || len(got["2"]) != 3+20 {
		t.Errorf("%d, %d, %d events", len(got["0"]), len(got["1"]), len(got["2"]))
	}
}

// TestReplayHubInterrupted says where to go on, with the file and without.
func TestReplayHubInterrupted(t *testing.T) {
	l := newLake(t)
	l.plainHub("from", 1, hub.Settings{})
	l.send("from", 1, 20)
	for _, file := range []string{"", filepath.Join(t.TempDir(), "f")} {
		name := "to" + filepath.Base(file)
		l.plainHub(strings.Trim(name, "."), 1, hub.Settings{})
		to, err := l.Namespaces().Default().EventHub(strings.Trim(name, "."))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var out, errs strings.Builder
		args := []string{"replay", "--from-hub", "from", "--hub", strings.Trim(name, "."), "--rate", "1", "--connection-string", l.ConnectionString()}
		want := "Partition 0 is acknowledged up to #0. To go on: --partition 0 --from '#1' --until '#20'.\nInterrupted.\n"
		if file != "" {
			args, want = append(args, "--resume", file), file+" has what is acknowledged. To go on, give the same flags again.\nInterrupted.\n"
		}
		status := make(chan int, 1)
		go func() { status <- run(ctx, args, strings.NewReader(""), &out, &errs) }()
		for to.Metrics.IncomingMessages.Load() == 0 {
			if err := pause(t.Context(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if s := <-status; s != 1 || errs.String() != want {
			t.Errorf("status %d, %s", s, errs.String())
		}
	}
}

// TestReplayHubGone: what the source removes before it is read is counted, and the
// replay fails when everything else is sent.
func TestReplayHubGone(t *testing.T) {
	l := newLake(t)
	l.plainHub("from", 1, hub.Settings{MaxBytes: hub.MinMaxBytes})
	l.plainHub("to", 1, hub.Settings{})
	l.send("from", 1, 10)
	file := filepath.Join(t.TempDir(), "f")
	replay := []string{"replay", "--from-hub", "from", "--hub", "to", "--resume", file, "-o", "json"}
	if out, errs, status := l.command(append(replay, "--until", "#10")...); status != 0 {
		t.Fatal(out, errs)
	}
	// As if nothing had been acknowledged, and more were wanted than was there.
	f, err := readResume(file)
	if err != nil {
		t.Fatal(err)
	}
	f.Until, f.Partitions["0"] = "", &resumePartition{Next: 2, End: 1000, TargetEnd: 10}
	if err := f.save(); err != nil {
		t.Fatal(err)
	}
	big := &azeventhubs.AMQPAnnotatedMessage{Properties: &azeventhubs.AMQPAnnotatedMessageProperties{}}
	big.Body.Data = [][]byte{make([]byte, 100_000)}
	var in extent
	sent := int64(10)
	client, err := azeventhubs.NewConsumerClientFromConnectionString(l.ConnectionString(), "from", azeventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(t.Context()))
	for in.first <= 10 { // of those that were small, none is left
		l.sendMessages("from", "0", slices.Repeat([]*azeventhubs.AMQPAnnotatedMessage{big}, 10))
		sent += 10
		l.Namespaces().Expire(t.Context())
		if in, err = (&locator{client: client}).extent(t.Context(), "0"); err != nil {
			t.Fatal(err)
		}
	}
	f.Partitions["0"].End = sent
	if err := f.save(); err != nil {
		t.Fatal(err)
	}
	out, errs, status := l.command(replay...)
	var s replaySummary
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != 1 || s.Gone != in.first-2 || int64(s.Events) != sent-in.first {
		t.Fatalf("%d to %d of %d: %s%s", in.first, in.end, sent, out, errs)
	}
	if want := fmt.Sprintf("millrace: %d events were gone from the event hub before they could be read: everything else was sent\n", s.Gone); errs != want {
		t.Errorf("%s%s", errs, want)
	}
	// And all of them at once.
	f.Partitions["0"] = &resumePartition{Next: 0, End: in.first, TargetEnd: 10}
	if err := f.save(); err != nil {
		t.Fatal(err)
	}
	s = replaySummary{}
	out, errs, status = l.command(replay...)
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != 1 || s.Gone != in.first || s.Events != 0 || !strings.HasPrefix(errs, "Partition 0: a batch may be there twice, ") {
		t.Fatalf("%s%s", out, errs)
	}
}

// TestReplaySurvivesKills kills a replay, again and again, while acknowledgements are
// under way. In the end every event is there, in order. Batches that were stored are
// found, so none is there twice but one that was still on its way when the next replay
// looked: one of each partition and kill at most.
func TestReplaySurvivesKills(t *testing.T) {
	const events, kills, body, partitions = 2000, 12, 10_000, 2
	const batch = 1<<20/body + 1 // events at most
	w := newWorld(t, "--allow-faults")
	w.do("", "hub", "create", "again", "--partitions", fmt.Sprint(partitions))
	pad := strings.Repeat("x", body)
	for p := range partitions {
		var lines []string
		for i := range events {
			lines = append(lines, fmt.Sprintf("%d-%s", i, pad))
		}
		w.do(strings.Join(lines, "\n"), "send", "--hub", "trial", "--partition", fmt.Sprint(p), "-q")
	}
	w.do("", "fault", "delay", "--delay", "20ms", "--for", "1h")
	file := filepath.Join(t.TempDir(), "replay")
	args := []string{"replay", "--from-hub", "trial", "--hub", "again", "--resume", file, "-o", "json"}
	sent := func() (n int64) {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			return 0
		}
		var s resumeState
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		for _, p := range s.Partitions {
			n += p.Next
		}
		return n
	}
	program, err := exec.LookPath("millrace")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	tried := 0 // kills between a batch and its acknowledgement
	for range kills {
		began := sent()
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), w.env...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for sent() == began {
			if err := pause(t.Context(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if err := pause(t.Context(), time.Duration(r.IntN(40))*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		stored := 0
		for p := range partitions {
			stored += len(w.numbers("again", fmt.Sprint(p)))
		}
		if int64(stored) > sent() {
			tried++
		}
	}
	if sent() >= events*partitions {
		t.Fatalf("everything was sent before %d kills", kills)
	}
	var last replaySummary
	if err := json.Unmarshal([]byte(w.do("", args...)), &last); err != nil || last.Events == 0 {
		t.Fatalf("%+v, %v", last, err)
	}
	twice, back := 0, 0
	for p := range partitions {
		next, again := 0, 0
		for _, n := range w.numbers("again", fmt.Sprint(p)) {
			switch {
			case n == next:
				next++
			case n < next:
				if next-n > batch {
					t.Fatalf("partition %d goes back from #%d to #%d, more than a batch", p, next, n)
				}
				again += next - n
				back++
				next = n + 1
			default:
				t.Fatalf("partition %d goes on with #%d after #%d", p, n, next-1)
			}
		}
		if next != events || again > kills*batch {
			t.Errorf("partition %d ends at #%d, %d events are there twice", p, next-1, again)
		}
		twice += again
	}
	t.Logf("%d of %d kills came between a batch and its acknowledgement; %d of %d events are there twice", tried, kills, twice, events*partitions)
	if tried == 0 || back >= tried {
		t.Errorf("%d kills came between a batch and its acknowledgement, and %d batches are there twice", tried, back)
	}
}

// numbers are those that the bodies of a partition's events begin with.
func (w *world) numbers(hub, partition string) (all []int) {
	w.t.Helper()
	var shown struct {
		Partitions []struct {
			ID   string `json:"id"`
			Last int64  `json:"lastSequenceNumber"`
		} `json:"partitionDetails"`
	}
	if err := json.Unmarshal([]byte(w.do("", "hub", "show", hub, "-o", "json")), &shown); err != nil {
		w.t.Fatal(err)
	}
	for _, p := range shown.Partitions {
		if p.ID != partition || p.Last < 0 {
			continue
		}
		for line := range strings.Lines(w.do("", "receive", "--hub", hub, "--no-checkpoint", "--partition", partition, "--count", fmt.Sprint(p.Last+1), "--format", "{{.Body}}")) {
			text, _, _ := strings.Cut(line, "-")
			n, err := strconv.Atoi(text)
			if err != nil {
				w.t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	return all
}
