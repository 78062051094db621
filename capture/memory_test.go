package capture_test

import (
	"context"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/segment"
)

// TestMemoryIsBounded has the windows of 64 partitions close at once: what all
// together hold in memory stays within 64 MiB, garbage included.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory, of which the race detector takes its own")
	}
	for _, format := range []hub.CaptureFormat{hub.CaptureAvro, hub.CaptureAvroDeflate, hub.CaptureParquet} {
		t.Run(string(format), func(t *testing.T) { memoryIsBounded(t, format) })
	}
}

func memoryIsBounded(t *testing.T, format hub.CaptureFormat) {
	const partitions, perPartition = 64, 2 << 20
	dir := t.TempDir()
	s, err := segment.Open(context.Background(), segment.Options{Dir: filepath.Join(dir, "data"), Sync: segment.Sync{Policy: segment.SyncNever}, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	files, err := folder.New(filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	engine := capture.New(capture.Options{Meta: s.Meta(), Spool: filepath.Join(dir, "spool"), Destinations: map[string]capture.Destination{"": files}})
	defer engine.Close()
	all, err := hub.Open(context.Background(), hub.Options{Store: s, Codecs: map[event.Encoding]event.Codec{event.EncodingAMQP: message.Codec{}}, Capturer: engine})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	h, err := all.Default().CreateEventHub(t.Context(), "orders", partitions, hub.Settings{Capture: &hub.Capture{Enabled: true, Format: format}})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, h, perPartition/(100*600), 100)
	events := int64(partitions * (perPartition / (100 * 600)) * 100)
	runtime.GC()
	before := heap()
	if err := engine.Start(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if err := h.Update(t.Context(), func(s *hub.Settings) error {
		c := *s.Capture
		c.Enabled = false
		s.Capture = &c
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	most := uint64(0)
	for deadline := time.Now().Add(2 * time.Minute); h.Metrics.CapturedMessages.Load() < events; time.Sleep(time.Millisecond) {
		most = max(most, heap())
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d events are captured after two minutes", h.Metrics.CapturedMessages.Load(), events)
		}
	}
	t.Logf("%d partitions of %d MiB: %.1f MiB above the %.1f MiB before", partitions, perPartition>>20, float64(most-min(most, before))/(1<<20), float64(before)/(1<<20))
	if most > before+64<<20 {
		t.Error("that is more than 64 MiB")
	}
}

// heap is how many bytes objects take up, those that are garbage among them.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
