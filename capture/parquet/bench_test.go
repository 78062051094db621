package parquet_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
)

// BenchmarkParquet makes a file of a megabyte of rows, with its checksum.
func BenchmarkParquet(b *testing.B) {
	for _, c := range []struct {
		name             string
		size, properties int
	}{{"100B", 100, 0}, {"512B-7-properties", 512, 7}, {"1KiB", 1 << 10, 0}, {"16KiB", 16 << 10, 0}} {
		b.Run(c.name, func(b *testing.B) {
			x := row.Row{Offset: []byte("1000000"), Enqueued: 1_795_600_000_123, Body: bytes.Repeat([]byte("payload "), c.size/8+1)[:c.size]}
			x.System = []row.Property{prop("x-opt-partition-key", text("device-17"))}
			for i := range c.properties {
				x.Properties = append(x.Properties, prop(fmt.Sprint("property-", i), text("value")))
			}
			n := 1 << 20 / c.size
			b.ReportAllocs()
			b.SetBytes(int64(n * c.size))
			for b.Loop() {
				w := parquet.NewWriter(&capture.Sum{W: io.Discard}, parquet.Options{})
				for i := range n {
					x.Sequence++
					x.Enqueued += int64(i & 1)
					if err := w.Write(&x); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/event")
		})
	}
}
