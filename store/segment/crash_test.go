package segment_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
)

var (
	crashSeeds = flag.Int("crash-seeds", 300, "how many crash schedules to run")
	crashFrom  = flag.Uint64("crash-from", 1, "the first seed")
)

// sent is one batch of a producer: enough to know it again when it is read.
type sent struct {
	producer, number int
	acked            bool
	first            event.SequenceNumber
}

// crashWorld is a store on a simulated disk with what its producers were told.
type crashWorld struct {
	disk *sim.Disk
	kv   *segment.MemoryKV
	opts segment.Options

	mu      sync.Mutex
	batches map[store.LogID][]*sent
	numbers map[int]int // by producer
}

// body is a batch's record: it names itself and carries a checksum.
func body(producer, number, record, size int) string {
	b := binary.LittleEndian.AppendUint32(nil, uint32(producer))
	b = binary.LittleEndian.AppendUint32(b, uint32(number))
	b = binary.LittleEndian.AppendUint32(b, uint32(record))
	rng := rand.New(rand.NewPCG(uint64(producer), uint64(number)))
	for range size {
		b = append(b, byte(rng.Uint32()))
	}
	return string(binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

func parseBody(b []byte) (producer, number, record int, ok bool) {
	n := len(b) - 4
	if n < 12 || crc32.ChecksumIEEE(b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return 0, 0, 0, false
	}
	le := binary.LittleEndian
	return int(le.Uint32(b)), int(le.Uint32(b[4:])), int(le.Uint32(b[8:])), true
}

func (w *crashWorld) open(t *testing.T) *segment.Store {
	t.Helper()
	o := w.opts
	o.Disk, o.KV = w.disk, w.kv
	s, err := segment.Open(context.Background(), o)
	if err != nil {
		t.Fatalf("open after a crash: %v", err)
	}
	return s
}

// produce runs producers until stop is closed.
func (w *crashWorld) produce(s *segment.Store, seed uint64, producers, logs int, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(p)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := store.LogID{Hub: 1, Partition: uint32(p*logs+rng.IntN(logs)) % uint32(producers)}
				l, err := s.Open(context.Background(), id, store.LogConfig{Retention: time.Hour})
				if err != nil {
					continue
				}
				w.send(l, id, p, rng)
			}
		})
	}
	return &wg
}

// send appends a few batches without waiting in between, and then waits.
func (w *crashWorld) send(l store.Log, id store.LogID, p int, rng *rand.Rand) {
	var wg sync.WaitGroup
	for range 1 + rng.IntN(4) {
		w.mu.Lock()
		w.numbers[p]++
		x := &sent{producer: p, number: w.numbers[p]}
		w.batches[id] = append(w.batches[id], x)
		w.mu.Unlock()
		b := event.NewBatch(event.EncodingKafka)
		size := []int{10, 300, 5000, 30_000}[rng.IntN(4)]
		for r := range 1 + rng.IntN(3) {
			s := body(x.producer, x.number, r, rng.IntN(size))
			slab := event.NewSlab(event.Headroom + len(s) + 8)
			copy(slab.B[event.Headroom:], s)
			b.AddRecord(slab, event.Headroom+len(s), 1+rng.IntN(3))
		}
		wg.Add(1)
		l.Append(b, func(err error) {
			defer wg.Done()
			if err == nil {
				w.mu.Lock()
				x.acked, x.first = true, b.First
				w.mu.Unlock()
			}
			b.Release()
		})
	}
	wg.Wait()
}

// crash takes the disk away at this moment, and returns what had been
// acknowledged before.
func (w *crashWorld) crash(rng *rand.Rand) (*crashWorld, map[store.LogID][]sent) {
	w.mu.Lock()
	acked := map[store.LogID][]sent{}
	for id, xs := range w.batches {
		for _, x := range xs {
			acked[id] = append(acked[id], *x)
		}
	}
	w.mu.Unlock()
	n := &crashWorld{opts: w.opts, batches: map[store.LogID][]*sent{}, numbers: map[int]int{}}
	n.disk = w.disk.Crash(rng, func() { n.kv = w.kv.Clone() })
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(n.numbers, w.numbers)
	for id, xs := range w.batches { // later sends too: they were in flight
		for _, x := range xs {
			c := *x
			n.batches[id] = append(n.batches[id], &c)
		}
	}
	return n, acked
}

// check reads every log and compares it with what was acknowledged.
func (w *crashWorld) check(s *segment.Store, acked map[store.LogID][]sent) error {
	for id, batches := range w.batches {
		r, err := s.OpenReader(context.Background(), id)
		if err != nil {
			return fmt.Errorf("partition %s: %w", id, err)
		}
		found, err := readAll(r)
		if err != nil {
			return fmt.Errorf("partition %s: %w", id, err)
		}
		was := map[[2]int]bool{}
		for _, x := range acked[id] {
			if at, ok := found[[2]int{x.producer, x.number}]; x.acked && (!ok || at != x.first) {
				return fmt.Errorf("partition %s: batch %d of producer %d was acknowledged as %d, and is at %d (%v)", id, x.number, x.producer, x.first, at, ok)
			}
		}
		last := map[int]event.SequenceNumber{}
		for _, x := range batches {
			was[[2]int{x.producer, x.number}] = true
			if at, ok := found[[2]int{x.producer, x.number}]; ok {
				if prev, ok := last[x.producer]; ok && at <= prev {
					return fmt.Errorf("partition %s: batch %d of producer %d is out of order", id, x.number, x.producer)
				}
				last[x.producer] = at
				x.acked, x.first = true, at // it is there now: it must stay
			} else {
				x.acked = false
			}
		}
		for k := range found {
			if !was[k] {
				return fmt.Errorf("partition %s: batch %d of producer %d was never sent", id, k[1], k[0])
			}
		}
		r.Close()
	}
	return nil
}

// readAll reads a log from its beginning: batches whole, numbers without a gap,
// time not backwards.
func readAll(r store.Reader) (map[[2]int]event.SequenceNumber, error) {
	found := map[[2]int]event.SequenceNumber{}
	var next event.SequenceNumber
	var enqueued int64
	record, inBatch := 0, false
	for {
		c, err := r.Read(context.Background(), next, 64<<10)
		if err != nil {
			return nil, err
		}
		if c.Empty() {
			c.Close()
			if inBatch {
				return nil, errors.New("the last batch is cut")
			}
			return found, nil
		}
		for i := range c.Records {
			x := &c.Records[i]
			p, n, rec, ok := parseBody(x.Body)
			if !ok || x.First != next || x.Enqueued < enqueued {
				return nil, fmt.Errorf("record %d after %d: whole %v", x.First, next, ok)
			}
			if start := x.Flags&event.FlagBatchStart != 0; start == inBatch || start != (rec == 0) || !start && rec != record {
				return nil, fmt.Errorf("record %d: it is part %d of its batch, but flags are %b", x.First, rec, x.Flags)
			}
			if rec == 0 {
				if _, twice := found[[2]int{p, n}]; twice {
					return nil, fmt.Errorf("batch %d of producer %d is there twice", n, p)
				}
				found[[2]int{p, n}] = x.First
			}
			record, inBatch = rec+1, x.Flags&event.FlagBatchEnd == 0
			next, enqueued = x.Next(), x.Enqueued
		}
		c.Close()
	}
}

// TestCrash runs producers, takes the disk away at a random moment, several
// times in a row, and checks that nothing acknowledged is lost, nothing comes
// twice, and order holds.
func TestCrash(t *testing.T) { crashRuns(t, 0) }

// TestFaultsAndCrash is the same on a disk whose writes and syncs fail now and
// then: what failed may be there or not, what was acknowledged must.
func TestFaultsAndCrash(t *testing.T) { crashRuns(t, 0.02) }

func crashRuns(t *testing.T, faults float64) {
	seeds := *crashSeeds
	if testing.Short() {
		seeds = 30
	}
	for i := range seeds {
		seed := *crashFrom + uint64(i)
		if err := crashRun(t, seed, faults); err != nil {
			t.Fatalf("seed %d: %v (run again with -run %s$ -crash-from %d -crash-seeds 1)", seed, err, t.Name(), seed)
		}
	}
}

// TestCrashOfAWholeSync is the same where checkpoints sync the disk as a whole.
func TestCrashOfAWholeSync(t *testing.T) {
	segment.SyncWholeFrom(t, 2)
	crashRuns(t, 0.02)
}

// errFault is what an injected fault returns.
var errFault = errors.New("injected fault")

func crashRun(t *testing.T, seed uint64, faults float64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	told := new(bytes.Buffer)
	w := &crashWorld{
		disk: sim.NewDisk(), kv: segment.NewMemoryKV(),
		batches: map[store.LogID][]*sent{}, numbers: map[int]int{},
		opts: segment.Options{
			Logger:       slog.New(slog.NewTextHandler(told, &slog.HandlerOptions{Level: slog.LevelDebug})),
			SegmentBytes: []int64{20_000, 300_000, 64 << 20}[rng.IntN(3)],
			JournalBytes: []int64{50_000, 1 << 20}[rng.IntN(2)],
			CacheBytes:   []int64{1, 100_000, 16 << 20}[rng.IntN(3)],
		},
	}
	producers, logs := 1+rng.IntN(6), 1+rng.IntN(3)
	for life := range 1 + rng.IntN(4) {
		s := w.open(t)
		if faults > 0 {
			frng := rand.New(rand.NewPCG(seed, uint64(life)+99))
			w.disk.SetFault(func(op, name string) error {
				if frng.Float64() < faults {
					return fmt.Errorf("%s %s: %w", op, name, errFault)
				}
				return nil
			})
		}
		stop := make(chan struct{})
		wg := w.produce(s, seed<<8+uint64(life), producers, logs, stop)
		for range rng.IntN(200) {
			runtime.Gosched()
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		next, acked := w.crash(rng)
		close(stop)
		wg.Wait()
		if err := s.Close(); err != nil && faults == 0 {
			return fmt.Errorf("close: %w", err)
		}
		w = next
		s = w.open(t)
		err := w.check(s, acked)
		if err != nil {
			t.Log(told.String())
		}
		if cerr := s.Close(); err == nil && cerr != nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("life %d: %w", life, err)
		}
	}
	return nil
}
