package capture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
)

// bubble is an engine that runs, in a bubble of virtual time.
type bubble struct {
	*testing.T
	kv     *segment.MemoryKV
	store  *segment.Store
	all    *hub.Namespaces
	engine *capture.Engine
	dest   *memory
}

func inBubble(t *testing.T, test func(b *bubble)) {
	t.Helper()
	spool := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, kv: segment.NewMemoryKV(), dest: &memory{files: map[string]stored{}}}
		var err error
		if b.store, err = segment.Open(context.Background(), segment.Options{Disk: sim.NewDisk(), KV: b.kv, JournalBytes: 1 << 20, SegmentBytes: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		defer b.store.Close()
		b.engine = capture.New(capture.Options{Meta: b.store.Meta(), Spool: spool + "/spool", Destinations: map[string]capture.Destination{"": b.dest, "hung": hung{b.dest}}})
		if b.all, err = hub.Open(context.Background(), hub.Options{Store: b.store, Codecs: map[event.Encoding]event.Codec{event.EncodingAMQP: message.Codec{}}, Capturer: b.engine}); err != nil {
			t.Fatal(err)
		}
		defer b.all.Close()
		defer b.engine.Close()
		if err := b.engine.Start(t.Context(), b.all); err != nil {
			t.Fatal(err)
		}
		test(b)
	})
}

func (b *bubble) hub(name string, partitions int, c *hub.Capture) *hub.EventHub {
	b.Helper()
	h, err := b.all.Default().CreateEventHub(context.Background(), name, partitions, hub.Settings{Retention: -1, Capture: c})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func (b *bubble) send(h *hub.EventHub, partition int, body string) {
	b.Helper()
	w := &world{t: b.T, hub: h}
	w.send(partition, body)
}

// TestEngineRuns: every partition of every hub that is captured has its files, in
// their time, those that are added among them; and nothing is left of a hub that is
// deleted.
func TestEngineRuns(t *testing.T) {
	inBubble(t, func(b *bubble) {
		on := hub.Capture{Enabled: true, Interval: time.Minute, SkipEmpty: true}
		h := b.hub("orders", 2, &on)
		other := b.hub("quiet", 1, nil)
		for i := range 10 {
			b.send(h, i%2, fmt.Sprint(i))
			b.send(other, 0, "x")
		}
		time.Sleep(time.Minute + 3*time.Second)
		synctest.Wait()
		if have := b.dest.read(b); len(have) != 2 || have[0].events != 5 || have[1].events != 5 {
			t.Fatalf("%+v", have)
		}
		if err := h.Change(t.Context(), 3, func(*hub.Settings) error { return nil }); err != nil {
			t.Fatal(err)
		}
		b.send(h, 2, "of a new one")
		synctest.Wait()
		if n := b.engine.Backlog(t.Context(), h); n != 1 {
			t.Errorf("the backlog is %d events", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if have := b.dest.read(b); len(have) != 3 || have[2].events != 1 {
			t.Fatalf("%+v", have)
		}
		if n := b.engine.Backlog(t.Context(), h); n != 0 {
			t.Errorf("the backlog is %d events", n)
		}
		if err := b.all.Default().DeleteEventHub(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for e, err := range b.store.Meta().List(t.Context(), "capture", "") {
			t.Errorf("%s is left, %v", e.Key, err)
		}
	})
}

// TestOnAndOffAtOnce: what comes between is written, however short that is.
func TestOnAndOffAtOnce(t *testing.T) {
	w := newWorld(t, minute)
	w.send(0, "a")
	w.set(func(c *hub.Capture) { c.Enabled = false })
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0")
}

// TestRetries: a destination that is down is tried again, ever more slowly up to a
// minute, and producers are not kept waiting.
func TestRetries(t *testing.T) {
	inBubble(t, func(b *bubble) {
		var mu sync.Mutex
		var tries []time.Time
		b.dest.fail = func(call string, after bool) error {
			mu.Lock()
			defer mu.Unlock()
			if !after && call == "put" {
				tries = append(tries, time.Now())
			}
			return errDown
		}
		h := b.hub("orders", 1, &hub.Capture{Enabled: true, Interval: time.Minute, SkipEmpty: true})
		b.send(h, 0, "a")
		time.Sleep(time.Hour)
		b.send(h, 0, "b")
		mu.Lock()
		n := len(tries)
		if n < 60 || n > 130 {
			t.Errorf("%d tries in an hour", n)
		}
		mu.Unlock()
		b.dest.mu.Lock()
		b.dest.fail = nil
		b.dest.mu.Unlock()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if have := b.dest.read(b); len(have) != 2 {
			t.Errorf("%+v", have)
		}
		if h.Metrics.CaptureErrors.Load() < int64(n) {
			t.Errorf("%d errors are counted of %d", h.Metrics.CaptureErrors.Load(), n)
		}
	})
}

// TestNotices: a webhook and a hub are told of each file, once at least, in either
// schema, also when the webhook is down for a while.
func TestNotices(t *testing.T) {
	for _, grid := range []bool{false, true} {
		w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
		var mu sync.Mutex
		var got []string
		var types []string
		down := true
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if down {
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			text, _ := io.ReadAll(r.Body)
			got, types = append(got, string(text)), append(types, r.Header.Get("Content-Type"))
		}))
		defer srv.Close()
		notices, err := w.all.Default().CreateEventHub(t.Context(), "notices", 1, hub.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		w.set(func(c *hub.Capture) {
			c.Notice = hub.CaptureNotice{Webhook: srv.URL + "/hook?code=SECRET", Hub: "notices", EventGrid: grid}
		})
		w.send(0, "a", "b")
		w.pass(time.Minute + 2*time.Second)
		w.settle()
		left, err := w.engine.Deliver(t.Context(), w.all)
		if !left || err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "503") {
			t.Errorf("while the webhook is down: %t, %v", left, err)
		}
		mu.Lock()
		down = false
		mu.Unlock()
		if left, err := w.engine.Deliver(t.Context(), w.all); left || err != nil {
			t.Fatalf("%t, %v", left, err)
		}
		if len(got) != 1 {
			t.Fatalf("%d notices came", len(got))
		}
		info, err := notices.At(0).Info(t.Context())
		if err != nil || info.Next != 1 {
			t.Errorf("the hub has %d notices, %v", info.Next, err)
		}
		var data map[string]any
		if grid {
			var all []map[string]any
			if err := json.Unmarshal([]byte(got[0]), &all); err != nil || len(all) != 1 || all[0]["eventType"] != "Microsoft.EventHub.CaptureFileCreated" || all[0]["subject"] != "eventhubs/orders" {
				t.Fatalf("%s, %v", got[0], err)
			}
			data, _ = all[0]["data"].(map[string]any)
		} else {
			var one map[string]any
			if err := json.Unmarshal([]byte(got[0]), &one); err != nil || one["type"] != "Microsoft.EventHub.CaptureFileCreated" || one["specversion"] != "1.0" || !strings.HasPrefix(types[0], "application/cloudevents+json") {
				t.Fatalf("%s of %s, %v", got[0], types[0], err)
			}
			data, _ = one["data"].(map[string]any)
		}
		size := float64(len(w.dest.files["|localhost/orders/0/2026/03/01/00/00/00.avro"].data))
		for key, want := range map[string]any{
			"fileUrl": "memory:/localhost/orders/0/2026/03/01/00/00/00.avro", "fileType": "AzureBlockBlob", "partitionId": "0", "sizeInBytes": size, "eventCount": 2.0,
			"firstSequenceNumber": 0.0, "lastSequenceNumber": 1.0, "firstEnqueueTime": "2026-03-01T00:00:00Z", "lastEnqueueTime": "2026-03-01T00:00:00Z",
		} {
			if data[key] != want {
				t.Errorf("%s is %v, not %v", key, data[key], want)
			}
		}
	}
}

// TestNoticesAreGivenUp: a notice that nobody takes is dropped after a day, and
// keeps no file from being written.
func TestNoticesAreGivenUp(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true, Notice: hub.CaptureNotice{Hub: "nowhere"}})
	w.send(0, "a")
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0")
	var e *hub.Error
	if left, err := w.engine.Deliver(t.Context(), w.all); !left || !errors.As(err, &e) || e.Kind != hub.NotFound {
		t.Errorf("%t, %v", left, err)
	}
	w.pass(24 * time.Hour)
	if left, err := w.engine.Deliver(t.Context(), w.all); left || !errors.As(err, &e) {
		t.Errorf("a day later: %t, %v", left, err)
	}
	if left, err := w.engine.Deliver(t.Context(), w.all); left || err != nil {
		t.Errorf("after that: %t, %v", left, err)
	}
}

// TestManyNoticesAreLeft: a receiver that is down is asked once a round, however many
// notices wait for it, and those that are too old are dropped with it; nobody else
// waits.
func TestManyNoticesAreLeft(t *testing.T) {
	w := newWorld(t, minute)
	var asked, told atomic.Int64
	down := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Redirect(rw, &http.Request{}, "/elsewhere", http.StatusFound) // is no answer either
	}))
	defer down.Close()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told.Add(1) }))
	defer up.Close()
	const old, young = 700, 300
	for i := range old + young {
		made := w.clock().Add(-time.Hour)
		if i < old {
			made = w.clock().Add(-25 * time.Hour)
		}
		for to, url := range map[string]string{"down": down.URL, "up": up.URL} {
			value := fmt.Appendf(nil, `{"made":%q,"webhook":%q,"contentType":"application/json","text":{}}`, made.Format(time.RFC3339), url)
			if _, err := w.store.Meta().Put(t.Context(), fmt.Sprintf("capture-notice/%04d/%s", i, to), value, store.AnyVersion); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left, err := w.engine.Deliver(t.Context(), w.all); !left || err == nil {
		t.Errorf("%t, %v", left, err)
	}
	if asked.Load() != 1 || told.Load() != old+young {
		t.Errorf("the one that is down was asked %d times, and the other told %d times", asked.Load(), told.Load())
	}
	n := 0
	for _, err := range w.store.Meta().List(t.Context(), "capture-notice/", "") {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != young {
		t.Errorf("%d notices are left, not %d", n, young)
	}
}

// hung is a destination that does not answer.
type hung struct{ *memory }

func (hung) Put(ctx context.Context, _, _ string, _ *capture.File) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestDestinationHangs: the files of other destinations don't wait for one that does
// not answer, however many partitions' are for it.
func TestDestinationHangs(t *testing.T) {
	inBubble(t, func(b *bubble) {
		slow := b.hub("slow", 8, &hub.Capture{Enabled: true, Interval: time.Minute, SkipEmpty: true, Destination: "HUNG"})
		h := b.hub("orders", 1, &hub.Capture{Enabled: true, Interval: 2 * time.Minute, SkipEmpty: true})
		for i := range 8 {
			b.send(slow, i, "x")
		}
		b.send(h, 0, "x")
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if have := b.dest.read(b); len(have) != 1 {
			t.Errorf("%+v", have)
		}
	})
}
