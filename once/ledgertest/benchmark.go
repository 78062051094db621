package ledgertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/once"
)

// Sizes are how many events a benchmark hands over at a time.
var Sizes = []int{1, 500}

// Benchmark measures how many events a second go through [once.DoBatch], one and five
// hundred at a time, with a function that does nothing. Without a ledger (nil) it calls
// the function alone.
func Benchmark(b *testing.B, l once.Ledger) { BenchmarkFunc(b, Claims(l, Nothing)) }

// BenchmarkFunc is Benchmark for a form of a ledger's own.
func BenchmarkFunc(b *testing.B, do func(ctx context.Context, events []once.Event) error) {
	for _, size := range Sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) { Measure(b, size, do) })
	}
}

// Nothing is an effect that there is none of.
func Nothing(context.Context, []once.Event) error { return nil }

// Claims is an effect that is had over a ledger, or, if it is nil, without one.
func Claims(l once.Ledger, effect func(ctx context.Context, events []once.Event) error) func(ctx context.Context, events []once.Event) error {
	if l == nil {
		return effect
	}
	return func(ctx context.Context, events []once.Event) error {
		_, err := once.DoBatch(ctx, l, events, func(ctx context.Context, fresh []int) error {
			if len(fresh) != len(events) {
				return fmt.Errorf("%d of %d events are new: they are not to be skipped", len(fresh), len(events))
			}
			return effect(ctx, events)
		})
		return err
	}
}

var measured atomic.Int64

// Measure measures how many events a second are done, so many at a time, as they come
// from one receiver of a stream that nobody has read before.
func Measure(b *testing.B, size int, do func(ctx context.Context, events []once.Event) error) {
	s := Stream(fmt.Sprint(size))
	s.Generation = fmt.Sprint(measured.Add(1))
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
}
