package capture_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/segment"
)

// BenchmarkCapture is what capturing costs, 200,000 events a time in four
// partitions on a real disk, beside the floor: reading them, encoding them and
// appending them to files.
//
//	go test ./capture -run '^$' -bench Capture -count 5
func BenchmarkCapture(b *testing.B) {
	const partitions, perBatch, batches = 4, 100, 500
	dir := b.TempDir()
	s, err := segment.Open(context.Background(), segment.Options{Dir: filepath.Join(dir, "data"), Sync: segment.Sync{Policy: segment.SyncNever}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	files, err := folder.New(filepath.Join(dir, "lake"))
	if err != nil {
		b.Fatal(err)
	}
	engine := capture.New(capture.Options{Meta: s.Meta(), Spool: filepath.Join(dir, "spool"), Destinations: map[string]capture.Destination{"": files}})
	defer engine.Close()
	all, err := hub.Open(context.Background(), hub.Options{Store: s, Capturer: engine})
	if err != nil {
		b.Fatal(err)
	}
	defer all.Close()
	h, err := all.Default().CreateEventHub(context.Background(), "orders", partitions, hub.Settings{})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, h, batches, perBatch)
	events := float64(partitions * batches * perBatch)

	b.Run("floor", func(b *testing.B) {
		for b.Loop() {
			for i := range partitions {
				floor(b, h, i, filepath.Join(b.TempDir(), "file"))
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/events/float64(b.N), "ns/event")
	})
	b.Run("capture", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := os.RemoveAll(filepath.Join(dir, "lake")); err != nil {
				b.Fatal(err)
			}
			o := hub.Settings{Capture: &hub.Capture{Enabled: true}}
			if err := all.Default().DeleteEventHub(b.Context(), "orders"); err != nil {
				b.Fatal(err)
			}
			if h, err = all.Default().CreateEventHub(context.Background(), "orders", partitions, o); err != nil {
				b.Fatal(err)
			}
			fill(b, h, batches, perBatch)
			if err := h.Update(b.Context(), func(s *hub.Settings) error { // what is there is then put
				c := *s.Capture
				c.Enabled = false
				s.Capture = &c
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			var parts []capture.Partition
			for i := range partitions {
				parts = append(parts, engine.Manual(h, i))
			}
			b.StartTimer()
			for _, p := range parts {
				for {
					wait, err := p.Step(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					if wait != 0 {
						break
					}
				}
				p.Close()
			}
			b.StopTimer()
			if n := h.Metrics.CapturedMessages.Load(); n != int64(events) {
				b.Fatalf("%d events are captured", n)
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/events/float64(b.N), "ns/event")
	})
}

// fill sends events of 512 bytes with seven properties to each partition.
func fill(b testing.TB, h *hub.EventHub, batches, perBatch int) {
	b.Helper()
	var d message.Draft
	d.Body = make([]byte, 512)
	d.ContentType = "application/json"
	for _, name := range []string{"device", "kind", "region", "trace", "tenant", "version", "unit"} {
		d.Properties = append(d.Properties, message.Property{Name: name, Value: "some value"})
	}
	var p message.Parsed
	if err := p.Parse(d.Append(nil)); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	for i := range h.Partitions() {
		for range batches {
			var builder message.Builder
			for range perBatch {
				builder.Add(&p, message.Marks{}, 0)
			}
			batch := builder.Batch()
			h.At(i).Append(batch, func(err error) { done <- err })
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			batch.Release()
		}
	}
}

// floor reads, encodes and appends a partition's events.
func floor(b *testing.B, h *hub.EventHub, partition int, path string) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	r, err := h.At(partition).OpenReader(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	w := avro.NewWriter(f, avro.Options{})
	var rows row.Decoder
	for from := event.SequenceNumber(0); ; {
		c, err := r.Read(b.Context(), from, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		if c.Empty() {
			c.Close()
			break
		}
		for i := range c.Records {
			for e, err := range rows.Rows(&c.Records[i], 0) {
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Write(e); err != nil {
					b.Fatal(err)
				}
			}
		}
		from = c.Next()
		c.Close()
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}
