package avro_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

// records are a megabyte of events as the broker stores them: alike, of a size,
// with or without seven properties, each with a partition key.
func records(tb testing.TB, size, properties int) *event.Batch {
	tb.Helper()
	m := goamqp.Message{Data: [][]byte{bytes.Repeat([]byte("payload "), size/8+1)[:size]}}
	if properties > 0 {
		m.Properties = &goamqp.MessageProperties{MessageID: "0d6e4079-1ed7-4d0d", ContentType: new("application/json")}
		m.ApplicationProperties = map[string]any{}
		all := []any{"eu-west", int32(5), int64(1 << 40), 21.5, true, time.Unix(1_800_000_000, 0), goamqp.UUID{1}}
		for i, v := range all[:properties] {
			m.ApplicationProperties[fmt.Sprint("property-", i)] = v
		}
	}
	msg, err := m.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	var p message.Parsed
	if err := p.Parse(msg); err != nil {
		tb.Fatal(err)
	}
	var b message.Builder
	for b.Size() < 1<<20 {
		b.Add(&p, message.Marks{PartitionKey: []byte("device-17")}, event.SlabSize)
	}
	batch := b.Batch()
	first := event.SequenceNumber(1_000_000)
	for i := range batch.Records {
		batch.Records[i].First, batch.Records[i].Enqueued = first, 1_795_600_000_123
		first += event.SequenceNumber(batch.Records[i].Count)
	}
	return batch
}

// perEvent says what a run over a batch costs for one of its events.
func perEvent(b *testing.B, batch *event.Batch, run func()) {
	b.ReportAllocs()
	b.SetBytes(int64(batch.Size()))
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Count), "ns/event")
}

// BenchmarkAvro makes a file of a megabyte of events that are in memory: decoded,
// encoded, with its checksum. The floor is what an engine does to the same bytes
// when it takes them in: a checksum, and a copy to the same writer.
func BenchmarkAvro(b *testing.B) {
	for _, c := range []struct {
		name             string
		size, properties int
	}{{"100B", 100, 0}, {"512B-7-properties", 512, 7}, {"1KiB", 1 << 10, 0}, {"16KiB", 16 << 10, 0}} {
		batch := records(b, c.size, c.properties)
		for _, codec := range codecs {
			b.Run(c.name+"/"+string(codec), func(b *testing.B) {
				var d row.Decoder
				perEvent(b, batch, func() {
					w := avro.NewWriter(&capture.Sum{W: io.Discard}, avro.Options{Codec: codec})
					for i := range batch.Records {
						for x, err := range d.Rows(&batch.Records[i], 0) {
							if err != nil {
								b.Fatal(err)
							}
							if err := w.Write(x); err != nil {
								b.Fatal(err)
							}
						}
					}
					if err := w.Close(); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
		b.Run(c.name+"/rows", func(b *testing.B) {
			var d row.Decoder
			perEvent(b, batch, func() {
				for i := range batch.Records {
					for _, err := range d.Rows(&batch.Records[i], 0) {
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		})
		b.Run(c.name+"/floor", func(b *testing.B) {
			buf := make([]byte, 0, event.SlabSize)
			perEvent(b, batch, func() {
				for i := range batch.Records {
					if crc32.Checksum(batch.Records[i].Body, event.Castagnoli) == 0 {
						b.Log("unlikely")
					}
					buf = append(buf[:0], batch.Records[i].Body...)
					io.Discard.Write(buf)
				}
			})
		})
	}
}

// BenchmarkReader reads a megabyte of events.
func BenchmarkReader(b *testing.B) {
	batch := records(b, 512, 7)
	for _, codec := range codecs {
		var file bytes.Buffer
		w := avro.NewWriter(&file, avro.Options{Codec: codec})
		var d row.Decoder
		for i := range batch.Records {
			for x, err := range d.Rows(&batch.Records[i], 0) {
				if err == nil {
					err = w.Write(x)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		w.Close()
		b.Run(string(codec), func(b *testing.B) {
			perEvent(b, batch, func() {
				r, err := avro.NewReader(bytes.NewReader(file.Bytes()))
				for err == nil {
					_, err = r.Next()
				}
				if !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
			})
		})
	}
}

// TestAllocations: a file costs a few, an event none.
func TestAllocations(t *testing.T) {
	batch := records(t, 100, 7)
	var d row.Decoder
	w := avro.NewWriter(io.Discard, avro.Options{})
	run := func() {
		for i := range batch.Records {
			for x, err := range d.Rows(&batch.Records[i], 0) {
				if err == nil {
					err = w.Write(x)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(5, run); n > float64(2*len(batch.Records)) {
		t.Errorf("%v allocations for %d events in %d records", n, batch.Count, len(batch.Records))
	}
}
