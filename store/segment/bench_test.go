package segment_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
)

// newBatch makes a batch of one record, in a slab from the pool.
func newBatch(size, count int) *event.Batch {
	b := event.NewBatch(event.EncodingKafka)
	s := event.NewSlab(event.Headroom + size*count + 8)
	b.AddRecord(s, event.Headroom+size*count, count)
	return b
}

func openBench(b *testing.B, sync segment.Policy) *segment.Store {
	b.Helper()
	s, err := segment.Open(b.Context(), segment.Options{Dir: b.TempDir(), Sync: segment.Sync{Policy: sync}, Reserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// BenchmarkAppend appends batches, 16 of them in flight. An iteration is one
// batch; allocations must be zero.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		size, count, logs int
		sync              segment.Policy
	}{
		{100, 1, 1, segment.SyncAlways},
		{1024, 60, 1, segment.SyncAlways},
		{1024, 60, 1, segment.SyncNever},
		{1024, 60, 1000, segment.SyncAlways},
		{100, 1, 1000, segment.SyncAlways},
	} {
		b.Run(fmt.Sprintf("%dx%dB/logs=%d/%s", c.count, c.size, c.logs, segment.Sync{Policy: c.sync}), func(b *testing.B) {
			s := openBench(b, c.sync)
			var logs []store.Log
			for p := range c.logs {
				l, err := s.Open(b.Context(), store.LogID{Hub: 1, Partition: uint32(p)}, store.LogConfig{})
				if err != nil {
					b.Fatal(err)
				}
				logs = append(logs, l)
			}
			const window = 16
			free := make(chan struct{}, window)
			var failed error
			queue := make(chan *event.Batch, window)
			done := func(err error) {
				if err != nil {
					failed = err
				}
				(<-queue).Release()
				<-free
			}
			b.SetBytes(int64(c.size * c.count))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				free <- struct{}{}
				x := newBatch(c.size, c.count)
				queue <- x
				logs[n%len(logs)].Append(x, done)
				n++
			}
			for range window {
				free <- struct{}{}
			}
			b.ReportMetric(float64(n*c.count)/b.Elapsed().Seconds(), "events/s")
			if failed != nil {
				b.Fatal(failed)
			}
		})
	}
}

// BenchmarkRead reads a log from its beginning, from files.
func BenchmarkRead(b *testing.B) {
	s := openBench(b, segment.SyncNever)
	id := store.LogID{Hub: 1}
	l, err := s.Open(b.Context(), id, store.LogConfig{})
	if err != nil {
		b.Fatal(err)
	}
	const records = 3000
	ack := make(chan error, 1)
	for range records {
		x := newBatch(1024, 60)
		l.Append(x, func(err error) { ack <- err })
		if err := <-ack; err != nil {
			b.Fatal(err)
		}
		x.Release()
	}
	r, err := s.OpenReader(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	b.SetBytes(60 * 1024)
	b.ReportAllocs()
	var next event.SequenceNumber
	for b.Loop() {
		if next >= 60*(records-300) { // the rest is in memory
			next = 0
		}
		c, err := r.Read(context.Background(), next, 64<<10)
		if err != nil {
			b.Fatal(err)
		}
		next = c.Next()
		c.Close()
	}
	b.ReportMetric(60, "events/op")
}

// BenchmarkMeta puts values from many goroutines: they share syncs.
func BenchmarkMeta(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := openBench(b, segment.SyncAlways)
			m := s.Meta()
			b.SetParallelism(writers / 2)
			n := 0
			var mu sync.Mutex
			b.RunParallel(func(pb *testing.PB) {
				mu.Lock()
				n++
				key := fmt.Sprint("k", n)
				mu.Unlock()
				for pb.Next() {
					if _, err := m.Put(context.Background(), key, []byte("value"), store.AnyVersion); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// TestNothingIsAllocatedPerEvent: a batch may allocate a little now and then,
// where a queue grows or the collector has emptied a pool; its events nothing.
func TestNothingIsAllocatedPerEvent(t *testing.T) {
	const count = 60
	s, err := segment.Open(t.Context(), segment.Options{Dir: t.TempDir(), Sync: segment.Sync{Policy: segment.SyncNever}, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := store.LogID{Hub: 1}
	l, err := s.Open(t.Context(), id, store.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ack := make(chan error, 1)
	done := func(err error) { ack <- err }
	add := func() {
		b := newBatch(1024, count)
		l.Append(b, done)
		if err := <-ack; err != nil {
			t.Error(err)
		}
		b.Release()
	}
	for range 600 { // more than the memory keeps
		add()
	}
	if n := testing.AllocsPerRun(200, add); n > count/8 {
		t.Errorf("appending allocates %.0f times for %d events", n, count)
	}
	r, err := s.OpenReader(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var next event.SequenceNumber
	read := func() {
		c, err := r.Read(t.Context(), next, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		next = c.Next()
		c.Close()
	}
	for range 10 {
		read()
	}
	if n := testing.AllocsPerRun(200, read); n > count/8 {
		t.Errorf("reading allocates %.0f times for %d events", n, count)
	}
}
