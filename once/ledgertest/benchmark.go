package ledgertest

import (
	"context"
	"fmt"
	"testing"

	"github.com/millrace/millrace/once"
)

// Benchmark measures how many events a second go through [once.DoBatch], one and five
// hundred at a time, with a function that does nothing. Without a ledger (nil) it calls
// the function alone.
func Benchmark(b *testing.B, l once.Ledger) {
	BenchmarkFunc(b, func(ctx context.Context, events []once.Event) error {
		if l == nil {
			return nothing(ctx, nil)
		}
		_, err := once.DoBatch(ctx, l, events, nothing)
		return err
	})
}

func nothing(context.Context, []int) error { return nil }

// BenchmarkFunc is Benchmark for a form of a ledger's own.
func BenchmarkFunc(b *testing.B, do func(ctx context.Context, events []once.Event) error) {
	for _, size := range []int{1, 500} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := Stream(fmt.Sprint(size))
			s.Generation = fmt.Sprint(b.N)
			order, sequence, batch := once.NewOrder(s), int64(0), make([]once.Event, size)
			for b.Loop() {
				for i := range batch {
					batch[i] = order.Event(sequence)
					sequence++
				}
				if err := do(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(sequence)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
