package compat

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/admin"
)

var retentionSoak = flag.Duration("retention-soak", 0, "how long events are sent and read while a hub's size, and another's time, removes the oldest; 0 goes on until that was seen once, by size alone")

const (
	soakPartitions = 2
	soakLimit      = 16 << 20 // of the hub that is limited by size
	soakEvent      = 1 << 10
	soakBatch      = 40
	// soakPause is between two batches to a partition: 1.3 MB a second to each.
	soakPause = 30 * time.Millisecond
	// soakSlack is what a partition may have on disk beyond its events: the part of
	// a file that is written ahead, and a batch that is under way.
	soakSlack = 4 << 20
)

// soak is a hub that is written and read while its oldest events are removed.
type soak struct {
	*testing.T
	b     *Broker
	limit int64 // in bytes; 0 when it is by time

	produced [soakPartitions]atomic.Int64 // events acknowledged
	crossed  atomic.Int64                 // how often a reader found events gone before it came to them

	mu     sync.Mutex
	begins [soakPartitions]map[int64]bool // every first sequence number that was seen
	jumps  []jump
}

// jump is a reader's: what came was not what followed.
type jump struct {
	reader         string
	partition      int
	expected, came int64
}

// TestRetentionUnderLoad sends without a pause to a hub that keeps little, while
// readers of the official SDK read it from the start, from within, and slowly. No
// reader ever misses an event that is retained: the numbers go on by one, or on to
// what was then the first. The disk gets back what the events took.
func TestRetentionUnderLoad(t *testing.T) {
	t.Run("by size", func(t *testing.T) {
		t.Parallel()
		runSoak(t, admin.NewHub{Name: "soak", Partitions: soakPartitions, Retention: -1, MaxBytes: soakLimit})
	})
	t.Run("by time", func(t *testing.T) {
		if *retentionSoak < 3*time.Minute {
			t.Skip("the shortest retention is a minute; ask for it with -retention-soak 3m")
		}
		t.Parallel()
		runSoak(t, admin.NewHub{Name: "soak", Partitions: soakPartitions, Retention: admin.Retention(time.Minute)})
	})
}

func runSoak(t *testing.T, hub admin.NewHub) {
	s := &soak{T: t, b: Start(t), limit: hub.MaxBytes}
	must(s.b.Admin().CreateHub(t.Context(), hub))(t)
	ctx, cancel := context.WithTimeout(t.Context(), *retentionSoak+3*time.Minute)
	defer cancel()
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for p := range soakPartitions {
		s.begins[p] = map[int64]bool{0: true}
		wg.Go(func() { s.produce(load, p) })
		for _, r := range []soakReader{
			{name: "steady"},
			{name: "slow", pause: 100 * time.Millisecond},
			{name: "from the start", turns: 300},
			{name: "from within", turns: 300, within: true},
		} {
			wg.Go(func() { r.run(load, s, p) })
		}
	}
	peak, trims := s.watch(ctx, stop)
	stop()
	wg.Wait()
	s.look(t.Context()) // what readers found first by then is known
	if ctx.Err() != nil {
		t.Error("events were not removed, or nobody was late for them")
	}
	for _, j := range s.jumps {
		if j.came < j.expected || !s.begins[j.partition][j.came] {
			t.Errorf("the reader %s of partition %d: after %d came %d; the first were %v", j.reader, j.partition, j.expected-1, j.came, slicesOf(s.begins[j.partition]))
		}
	}
	total := int64(0)
	for p := range soakPartitions {
		total += s.produced[p].Load()
	}
	// By time it takes minutes until as much goes as comes.
	if long := *retentionSoak >= 10*time.Minute || *retentionSoak > 0 && s.limit > 0; long && peak > total*soakEvent/2 {
		t.Errorf("of %d MiB that were sent, %d MiB were on disk at once", total*soakEvent>>20, peak>>20)
	}
	t.Logf("%d events; removed %d times; readers came late %d times; at most %d MiB on disk", total, trims, s.crossed.Load(), peak>>20)
}

func slicesOf(set map[int64]bool) (out []int64) {
	for n := range maps.Keys(set) {
		out = append(out, n)
	}
	return out
}

// produce sends events, the number of each in its body, one batch after the other.
func (s *soak) produce(ctx context.Context, partition int) {
	p, err := eventhubs.NewProducerClientFromConnectionString(s.b.ConnectionString, "soak", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		s.Error(err)
		return
	}
	defer closeSoon(p)
	tick := time.NewTicker(soakPause)
	defer tick.Stop()
	for n := int64(0); ctx.Err() == nil; <-tick.C {
		batch, err := p.NewEventDataBatch(ctx, &eventhubs.EventDataBatchOptions{PartitionID: new(strconv.Itoa(partition))})
		for range soakBatch {
			if err == nil {
				err = batch.AddEventData(&eventhubs.EventData{Body: binary.BigEndian.AppendUint64(make([]byte, 0, soakEvent), uint64(n))[:soakEvent]}, nil)
				n++
			}
		}
		if err == nil {
			err = p.SendEventDataBatch(ctx, batch, nil)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.Errorf("sending to partition %d: %v", partition, err)
			}
			return
		}
		s.produced[partition].Store(n)
	}
}

// soakReader reads a partition, from its start unless it says otherwise.
type soakReader struct {
	name   string
	pause  time.Duration // after every few events
	turns  int           // so many events, and then it begins anew; 0 is for ever
	within bool          // it begins at an event that is retained, often near the first
}

func (r *soakReader) run(ctx context.Context, s *soak, partition int) {
	c, err := eventhubs.NewConsumerClientFromConnectionString(s.b.ConnectionString, "soak", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		s.Error(err)
		return
	}
	defer closeSoon(c)
	rng := rand.New(rand.NewPCG(1, uint64(partition)))
	for ctx.Err() == nil {
		if err := r.turn(ctx, s, c, partition, rng); err != nil && ctx.Err() == nil {
			s.Errorf("the reader %s of partition %d: %v", r.name, partition, err)
			return
		}
	}
}

// turn reads until ctx ends, or the reader begins anew.
func (r *soakReader) turn(ctx context.Context, s *soak, c *eventhubs.ConsumerClient, partition int, rng *rand.Rand) error {
	id := strconv.Itoa(partition)
	start := eventhubs.StartPosition{Earliest: new(true)}
	next := int64(0)
	if r.within {
		x, err := c.GetPartitionProperties(ctx, id, nil)
		if err != nil || x.IsEmpty {
			return err
		}
		span := x.LastEnqueuedSequenceNumber - x.BeginningSequenceNumber + 1
		if rng.IntN(2) == 0 {
			span = min(span, 100)
		}
		next = x.BeginningSequenceNumber + rng.Int64N(span)
		start = eventhubs.StartPosition{SequenceNumber: &next, Inclusive: true}
	}
	o := &eventhubs.PartitionClientOptions{StartPosition: start}
	few := 200
	if r.pause > 0 {
		o.Prefetch, few = -1, 20
	}
	p, err := c.NewPartitionClient(id, o)
	if err != nil {
		return err
	}
	defer closeSoon(p)
	for n := 0; r.turns == 0 || n < r.turns; {
		events, err := receiveSome(ctx, p, few)
		for _, e := range events {
			if number := int64(binary.BigEndian.Uint64(e.Body)); number != e.SequenceNumber || len(e.Body) != soakEvent {
				return fmt.Errorf("event %d is number %d of those sent", e.SequenceNumber, number)
			}
			if e.SequenceNumber != next {
				s.jumped(jump{r.name, partition, next, e.SequenceNumber}, n > 0)
			}
			next = e.SequenceNumber + 1
			n++
		}
		if err != nil {
			return err
		}
		if r.pause > 0 {
			time.Sleep(r.pause) // it is slow
		}
	}
	return nil
}

// receiveSome receives so many events, or what came before ctx ended.
func receiveSome(ctx context.Context, p *eventhubs.PartitionClient, most int) ([]*eventhubs.ReceivedEventData, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return p.ReceiveEvents(ctx, most, nil)
}

func (s *soak) jumped(j jump, late bool) {
	s.mu.Lock()
	s.jumps = append(s.jumps, j)
	s.mu.Unlock()
	if late {
		s.crossed.Add(1)
	}
}

// look asks what the partitions hold, and how much of the disk the broker's logs
// take.
func (s *soak) look(ctx context.Context) (parts []admin.Partition, disk int64) {
	parts, err := s.b.Admin().Partitions(ctx, "soak")
	if err != nil {
		if ctx.Err() == nil {
			s.Error(err)
		}
		return nil, 0
	}
	s.mu.Lock()
	for i, p := range parts {
		s.begins[i][p.First] = true
	}
	s.mu.Unlock()
	err = filepath.WalkDir(filepath.Join(s.b.Data, "logs"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				disk += info.Size()
			}
		}
		if os.IsNotExist(err) { // removed meanwhile
			return nil
		}
		return err
	})
	if err != nil {
		s.Error(err)
	}
	return parts, disk
}

// watch looks at the partitions, again and again, until it has seen enough. It
// returns how much was on disk at most, and how often events were removed.
func (s *soak) watch(ctx context.Context, stop func()) (peak int64, trims int) {
	began := time.Now()
	var parts [soakPartitions]watched
	settled := true // what was removed has left the disk, too
	for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		list, disk := s.look(ctx)
		if s.Failed() {
			stop()
			return peak, trims
		}
		if list == nil {
			continue
		}
		peak = max(peak, disk)
		within, allowed, done := true, int64(soakSlack), true
		for i, p := range list {
			produced := s.produced[i].Load()
			if parts[i].see(s, &p, produced) {
				if trims++; !settled && parts[i].again {
					s.Errorf("partition %d: events were removed again, and those before are still on disk", i)
				}
				settled, parts[i].again = false, true
			}
			within = within && p.Bytes <= parts[i].most
			allowed += p.Bytes + more(produced-parts[i].before)
			done = done && parts[i].trims > 0
			parts[i].before = produced
		}
		// Events are gone for readers before their files are.
		switch within = within && disk <= allowed; {
		case within && !settled:
			settled = true
			for i := range parts {
				parts[i].again = false
			}
		case !within && settled:
			s.Errorf("there are %d bytes on disk: %+v, held to %+v", disk, list, parts)
		}
		if done && settled && s.crossed.Load() >= soakPartitions && time.Since(began) >= *retentionSoak {
			return peak, trims
		}
	}
	return peak, trims
}

// watched is what is known of a partition.
type watched struct {
	first  int64
	trims  int
	before int64 // events produced, at the last look
	most   int64 // how many bytes it may have
	since  int64 // events produced, at the look before the last removal
	again  bool  // its events were removed since the disk was as it should be
}

// more is at most what so many events take on disk, and a batch under way.
func more(events int64) int64 { return (events+soakBatch)*soakEvent*5/4 + soakSlack }

// see compares what a partition says of itself with what is known, and tells
// whether events have been removed.
func (w *watched) see(s *soak, p *admin.Partition, produced int64) (removed bool) {
	if p.First < w.first || p.Last >= produced+soakBatch {
		s.Errorf("partition %s has the events %d to %d; before, %d was the first, and %d were sent", p.ID, p.First, p.Last, w.first, produced)
	}
	if size := (p.Last - p.First + 1) * soakEvent; p.Bytes < size {
		s.Errorf("partition %s has %d events of %d bytes, and a size of %d", p.ID, p.Last-p.First+1, soakEvent, p.Bytes)
	}
	if removed = p.First > w.first; removed {
		w.first, w.since = p.First, w.before
		w.trims++
	}
	w.most = math.MaxInt64
	if s.limit > 0 && w.trims > 0 {
		w.most = s.limit/soakPartitions + more(produced-w.since)
	}
	return removed
}
