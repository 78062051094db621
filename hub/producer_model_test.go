package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store/segment"
)

// client is a producer that keeps what it has sent until it is acknowledged.
type client struct {
	who   event.Producer
	next  int32
	mu    sync.Mutex
	owed  []*owed // sent and not acknowledged, in order
	acked []*owed
}

type owed struct {
	sequence int32
	records  int
	count    int // in each
	acked    *produced
}

func (o *owed) bodies() []string {
	bodies := make([]string, o.records)
	for i := range bodies {
		bodies[i] = fmt.Sprintf("%d/%d", o.sequence, i)
	}
	return bodies
}

// send sends what is owed, all at once, and returns what to wait for.
func (c *client) send(p *hub.Partition) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, o := range c.owed {
		out := produce(p, c.who.ID, c.who.Epoch, o.sequence, o.count, o.bodies()...)
		wg.Go(func() {
			x := <-out
			c.mu.Lock()
			defer c.mu.Unlock()
			if x.err == nil && o.acked == nil {
				o.acked = &x
			}
		})
	}
	return &wg
}

// settle moves what was acknowledged. What follows one that wasn't may be: when
// that was stored all the same, which its repeat shows.
func (c *client) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.owed) > 0 && c.owed[0].acked != nil {
		c.acked, c.owed = append(c.acked, c.owed[0]), c.owed[1:]
	}
}

// producers are clients of one partition of a world that is not kind to them.
type producers struct {
	*world
	p       *hub.Partition
	clients []*client
	broken  atomic.Bool
	rng     *rand.Rand
}

func newProducers(outer *testing.T, t *rapid.T) *producers {
	x := &producers{world: &world{t: outer, disk: sim.NewDisk(), kv: segment.NewMemoryKV()}}
	x.now.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	x.open()
	x.p = x.hub("h", 1, hub.Settings{}).At(0)
	for range 3 {
		x.clients = append(x.clients, &client{who: x.join(x.p, hub.Claim{}), next: 1})
	}
	x.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	x.disk.SetFault(func(op, _ string) error {
		if x.broken.Load() && op != "create" {
			return errors.New("broken")
		}
		return nil
	})
	return x
}

func (x *producers) one(t *rapid.T) *client {
	return x.clients[rapid.IntRange(0, len(x.clients)-1).Draw(t, "client")]
}

// more makes batches to send, up to five unacknowledged ones.
func (c *client) more(t *rapid.T) {
	for range rapid.IntRange(1, 3).Draw(t, "batches") {
		if len(c.owed) == 5 {
			return
		}
		o := &owed{sequence: c.next, records: rapid.IntRange(1, 3).Draw(t, "records"), count: rapid.IntRange(1, 3).Draw(t, "count")}
		c.next = event.NextSequence(c.next, o.records*o.count)
		c.owed = append(c.owed, o)
	}
}

// sendAll has every client send.
func (x *producers) sendAll(t *rapid.T) (wait func()) {
	var wgs []*sync.WaitGroup
	for _, c := range x.clients {
		c.more(t)
		wgs = append(wgs, c.send(x.p))
	}
	return func() {
		for _, wg := range wgs {
			wg.Wait()
		}
	}
}

// restarted has the clients attach again, as the SDKs do: with what was
// acknowledged to them.
func (x *producers) restarted(t *rapid.T) {
	x.p = x.at("h")
	for _, c := range x.clients {
		c.settle()
		last := int32(0)
		if n := len(c.acked); n > 0 {
			o := c.acked[n-1]
			last = event.NextSequence(o.sequence, o.records*o.count-1)
		}
		if who := x.join(x.p, hub.Claim{ID: &c.who.ID, Epoch: &c.who.Epoch, Sequence: &last}); who.Sequence != last {
			t.Fatalf("told %d, said %d", who.Sequence, last)
		}
	}
}

// repeat sends one of a client's last batches again.
func (x *producers) repeat(t *rapid.T) {
	c := x.one(t)
	n := len(c.acked)
	if n == 0 || len(c.owed) > 0 {
		return
	}
	o := c.acked[n-1-rapid.IntRange(0, min(n, 5)-1).Draw(t, "back")]
	y := <-produce(x.p, c.who.ID, c.who.Epoch, o.sequence, o.count, o.bodies()...)
	if y.err == nil && y != *o.acked {
		t.Fatalf("stored at %+v, repeated at %+v", *o.acked, y)
	}
	if k := kind(y.err); y.err != nil && (!x.broken.Load() || k == hub.OutOfSequence) {
		t.Fatalf("a repeat: %v", y.err)
	}
}

// snapshots has others join meanwhile, at each of which what is known is stored.
func (x *producers) snapshots(t *rapid.T) {
	for range rapid.IntRange(0, 3).Draw(t, "snapshots") {
		x.p.JoinProducer(context.Background(), hub.Claim{}) //nolint:errcheck // it may fail
	}
}

// crashNow takes the power away while the clients send.
func (x *producers) crashNow(t *rapid.T) {
	wait := x.sendAll(t)
	x.snapshots(t)
	var acked []*owed
	for _, c := range x.clients {
		c.mu.Lock()
		for _, o := range c.owed {
			if o.acked != nil {
				acked = append(acked, o)
			}
		}
		c.mu.Unlock()
	}
	kv := x.kv
	disk := x.disk.Crash(x.rng, func() { kv = kv.Clone() })
	wait()
	was := map[*owed]*produced{}
	for _, o := range acked {
		was[o] = o.acked
	}
	for _, c := range x.clients { // acknowledgements that came later did not arrive
		for _, o := range c.owed {
			o.acked = was[o]
		}
	}
	x.close()
	x.disk, x.kv = disk, kv
	x.open()
	x.restarted(t)
}

func (x *producers) actions() map[string]func(*rapid.T) {
	settle := func() {
		for _, c := range x.clients {
			c.settle()
		}
	}
	return map[string]func(*rapid.T){
		"send": func(t *rapid.T) {
			c := x.one(t)
			c.more(t)
			c.send(x.p).Wait()
			settle()
		},
		"send together": func(t *rapid.T) {
			wait := x.sendAll(t)
			x.snapshots(t)
			wait()
			settle()
		},
		"send twice at once": func(t *rapid.T) {
			c := x.one(t)
			c.more(t)
			first := c.send(x.p)
			c.send(x.p).Wait()
			first.Wait()
			settle()
		},
		"repeat": x.repeat,
		"skip": func(t *rapid.T) {
			c := x.one(t)
			if y := <-produce(x.p, c.who.ID, c.who.Epoch, c.next+1, 1, "skipped"); y.err == nil {
				t.Fatal("a gap is stored")
			}
		},
		"ordinary": func(*rapid.T) { appendTo(x.p, 1, strings.Repeat("x", 500)) }, //nolint:errcheck // it may fail
		"reopen": func(t *rapid.T) {
			x.broken.Store(false)
			x.pass(time.Second)
			x.reopen()
			x.restarted(t)
		},
	}
}

// finish sends what is owed until all of it is acknowledged, and reads the log.
func (x *producers) finish(t *rapid.T) {
	x.broken.Store(false)
	x.pass(time.Second)
	for _, c := range x.clients {
		for try := 0; len(c.owed) > 0; try++ {
			if try == 10 {
				t.Fatalf("producer %d can't get rid of batch %d", c.who.ID, c.owed[0].sequence)
			}
			c.send(x.p).Wait()
			c.settle()
		}
	}
	verify(t, x.p, x.clients)
}

// TestProducersStoreOnce has producers send in the face of failing writes,
// restarts and lost acknowledgements: each event is in the log once, in order,
// without a gap.
func TestProducersStoreOnce(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		x := newProducers(outer, t)
		defer func() { x.close() }()
		actions := x.actions()
		actions["break"] = func(*rapid.T) { x.broken.Store(true) }
		actions["mend"] = func(*rapid.T) { x.broken.Store(false); x.pass(time.Second) }
		t.Repeat(actions)
		x.finish(t)
	})
}

// TestProducersSurviveCrashes is the same in the face of losses of power.
func TestProducersSurviveCrashes(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		x := newProducers(outer, t)
		defer func() { x.close() }()
		actions := x.actions()
		actions["crash"] = x.crashNow
		actions["crash again"] = x.crashNow
		t.Repeat(actions)
		x.finish(t)
	})
}

// verify reads the log.
func verify(t *rapid.T, p *hub.Partition, clients []*client) {
	found := map[int64][]string{}
	firsts := map[int64][]event.SequenceNumber{}
	r, err := p.OpenReader(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for from := event.SequenceNumber(0); ; {
		c, err := r.Read(context.Background(), from, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if c.Empty() {
			c.Close()
			break
		}
		for i := range c.Records {
			if x := &c.Records[i]; x.Producer.Set {
				found[x.Producer.ID] = append(found[x.Producer.ID], string(x.Body))
				if x.Flags&event.FlagBatchStart != 0 {
					firsts[x.Producer.ID] = append(firsts[x.Producer.ID], x.First)
				}
			}
		}
		from = c.Next()
		c.Close()
	}
	for _, c := range clients {
		var want []string
		for i, o := range c.acked {
			want = append(want, o.bodies()...)
			if at := firsts[c.who.ID]; i >= len(at) || o.acked.first != at[i] {
				t.Fatalf("producer %d: batch %d was acknowledged at %d, and is at %v", c.who.ID, o.sequence, o.acked.first, at)
			}
		}
		if got := found[c.who.ID]; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("producer %d sent %v, and %v is stored", c.who.ID, want, got)
		}
	}
}
