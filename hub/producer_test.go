package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	"github.com/millrace/millrace/store/storetest"
)

// produced is what an append of a producer's batch came to.
type produced struct {
	first    event.SequenceNumber
	enqueued int64
	err      error
}

// produce appends a producer's batch and returns where its outcome will be.
func produce(p *hub.Partition, id int64, epoch int16, sequence int32, count int, bodies ...string) chan produced {
	if bodies == nil {
		bodies = []string{fmt.Sprintf("%d %d %d", id, sequence, count)}
	}
	b := storetest.Batch(count, bodies...)
	b.Encoding = event.EncodingAMQP
	for i := range b.Records {
		b.Records[i].Encoding = event.EncodingAMQP
	}
	b.Producer = event.Producer{ID: id, Epoch: epoch, Sequence: sequence, Set: true}
	done := make(chan produced, 1)
	p.Append(b, func(err error) {
		done <- produced{b.First, b.Enqueued, err}
		b.Release()
	})
	return done
}

func (w *world) produce(p *hub.Partition, id int64, epoch int16, sequence int32, count int, bodies ...string) produced {
	w.t.Helper()
	x := <-produce(p, id, epoch, sequence, count, bodies...)
	if x.err != nil {
		w.t.Fatalf("producer %d, epoch %d, batch %d: %v", id, epoch, sequence, x.err)
	}
	return x
}

func (w *world) join(p *hub.Partition, c hub.Claim) event.Producer {
	w.t.Helper()
	who, err := p.JoinProducer(context.Background(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return who
}

func (w *world) at(name string) *hub.Partition {
	w.t.Helper()
	h, err := w.ns.EventHub(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return h.At(0)
}

// TestRepeats: a batch that is sent again is acknowledged with the numbers that
// it got, also after a restart; what is no repeat and does not follow is refused.
func TestRepeats(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	who := w.join(p, hub.Claim{})
	if who.ID <= 0 || who.Epoch != 0 || who.Sequence != 0 || !who.Set {
		t.Fatalf("a new producer is %+v", who)
	}
	id := who.ID
	var got []produced
	for i := range 7 {
		w.append(p, 1, "somebody else's")
		got = append(got, w.produce(p, id, 0, int32(1+2*i), 1, "a", "b"))
	}
	for range 2 {
		for i, want := range got {
			x := <-produce(p, id, 0, int32(1+2*i), 1, "a", "b")
			if i >= 2 && x != want {
				t.Errorf("batch %d is stored at %+v, and repeated at %+v", i, want, x)
			}
			if i < 2 && (kind(x.err) != hub.OutOfSequence || !strings.Contains(x.err.Error(), "old sequence")) {
				t.Errorf("batch %d, of long ago, is repeated: %v", i, x.err)
			}
		}
		// Its numbers, and other events: it is not that batch, and not acknowledged.
		if x := <-produce(p, id, 0, 13, 1, "a", "c"); kind(x.err) != hub.OutOfSequence {
			t.Errorf("other events with the same numbers: %v", x.err)
		}
		for sequence, count := range map[int32]int{16: 1, 13: 1, 12: 2, 0: 1, math.MaxInt32: 1} {
			if x := <-produce(p, id, 0, sequence, count); kind(x.err) != hub.OutOfSequence {
				t.Errorf("a batch of %d from %d on: %v", count, sequence, x.err)
			}
		}
		if i, err := p.Info(t.Context()); err != nil || i.Next != 21 {
			t.Fatalf("%d events are stored, %v", i.Next, err)
		}
		w.reopen()
		p = w.at("h")
	}
	w.produce(p, id, 0, 15, 1)
	if again := w.join(p, hub.Claim{ID: &id}); again.Sequence != 15 {
		t.Errorf("it is told that its last number is %d", again.Sequence)
	}
	// What it says of itself it is told again: it may have missed acknowledgements.
	if again := w.join(p, hub.Claim{ID: &id, Sequence: new(int32(13))}); again.Sequence != 13 {
		t.Errorf("it said 13 and is told %d", again.Sequence)
	}
	w.produce(p, id, 0, 16, 1)
}

// TestFencing: an instance with a higher epoch ends those before, for good.
func TestFencing(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	id := w.join(p, hub.Claim{}).ID
	w.produce(p, id, 0, 1, 5)
	who := w.join(p, hub.Claim{ID: &id, Epoch: new(int16(1)), Sequence: new(int32(5))})
	if who.Epoch != 1 || who.Sequence != 5 {
		t.Errorf("the second instance is %+v", who)
	}
	for range 3 {
		x := <-produce(p, id, 0, 6, 1)
		if kind(x.err) != hub.ProducerFenced || !strings.Contains(x.err.Error(), "Received:0 Current:1") {
			t.Errorf("the first instance sends: %v", x.err)
		}
		if _, err := p.JoinProducer(t.Context(), hub.Claim{ID: &id, Epoch: new(int16(0))}); kind(err) != hub.ProducerFenced {
			t.Errorf("the first instance joins: %v", err)
		}
		w.crash(rand.New(rand.NewPCG(1, 2)))
		p = w.at("h")
	}
	w.produce(p, id, 1, 6, 1)
	// A Kafka producer raises the epoch by sending, from 0 on.
	if x := <-produce(p, id, 2, 7, 1); kind(x.err) != hub.OutOfSequence {
		t.Errorf("a new epoch that does not begin at 0: %v", x.err)
	}
	w.produce(p, id, 2, 0, 1)
	if x := <-produce(p, id, 1, 7, 1); kind(x.err) != hub.ProducerFenced {
		t.Errorf("the second instance sends: %v", x.err)
	}
}

// crash makes a world of what the disk has at this moment.
func (w *world) crash(rng *rand.Rand) {
	w.t.Helper()
	kv := w.kv
	disk := w.disk.Crash(rng, func() { kv = kv.Clone() })
	w.close()
	w.disk, w.kv = disk, kv
	w.open()
}

// TestIDsAreNew: no id is given twice, whatever happens.
func TestIDsAreNew(t *testing.T) {
	w := newWorld(t)
	w.hub("h", 2, hub.Settings{})
	seen := map[int64]bool{}
	for round := range 4 {
		h, err := w.ns.EventHub("h")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			who := w.join(h.At(i%2), hub.Claim{Epoch: new(int16(3))})
			if seen[who.ID] || who.Epoch != 3 || who.Sequence != 0 {
				t.Fatalf("round %d: %+v", round, who)
			}
			seen[who.ID] = true
		}
		w.crash(rand.New(rand.NewPCG(3, uint64(round))))
	}
	mine := int64(4001 + 3) // somebody has chosen one that is to come
	p := w.at("h")
	w.join(p, hub.Claim{ID: &mine})
	for range 10 {
		if who := w.join(p, hub.Claim{}); who.ID == mine {
			t.Error("an id is given that is in use")
		}
	}
}

// TestWrap: numbers go on at 0 after the largest, within a batch of several
// records too.
func TestWrap(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	id := int64(7)
	w.join(p, hub.Claim{ID: &id, Sequence: new(int32(math.MaxInt32 - 4))})
	x := w.produce(p, id, 0, math.MaxInt32-3, 3, "a", "b", "c")
	w.crash(rand.New(rand.NewPCG(1, 1)))
	p = w.at("h")
	if y := w.produce(p, id, 0, math.MaxInt32-3, 3, "a", "b", "c"); x != y {
		t.Errorf("stored at %+v, repeated at %+v", x, y)
	}
	w.produce(p, id, 0, 5, 1)
	if x := <-produce(p, id, 0, math.MaxInt32, 1); kind(x.err) != hub.OutOfSequence || !strings.Contains(x.err.Error(), "old sequence") {
		t.Errorf("a number from before the wrap: %v", x.err)
	}
	if x := <-produce(p, id, 0, 7, 1); kind(x.err) != hub.OutOfSequence || strings.Contains(x.err.Error(), "old sequence") {
		t.Errorf("a number that is ahead: %v", x.err)
	}
}

// TestTrimmedProducers: what is known of a producer outlives its events.
func TestTrimmedProducers(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{Retention: time.Hour}).At(0)
	id := w.join(p, hub.Claim{}).ID
	x := w.produce(p, id, 0, 1, 2)
	for i := range 50 {
		w.append(p, 1, strings.Repeat("x", 1000))
		w.pass(time.Minute)
		if i%10 == 0 {
			w.all.Expire(t.Context())
		}
	}
	w.pass(2 * time.Hour)
	w.all.Expire(t.Context())
	if i, err := p.Info(t.Context()); err != nil || !i.Empty {
		t.Fatalf("%+v, %v", i, err)
	}
	w.crash(rand.New(rand.NewPCG(1, 1)))
	p = w.at("h")
	if y := w.produce(p, id, 0, 1, 2); x != y {
		t.Errorf("stored at %+v, repeated at %+v", x, y)
	}
	if x := <-produce(p, id, 0, 4, 1); kind(x.err) != hub.OutOfSequence {
		t.Errorf("a gap: %v", x.err)
	}
	w.produce(p, id, 0, 3, 1)
}

// TestProducersAreForgotten: there are so many that are remembered; the hub's
// deletion leaves nothing of them.
func TestProducersAreForgotten(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	first := w.produce(p, 1_000_000, 0, 0, 1)
	kept := w.produce(p, 1_000_001, 0, 0, 1)
	for i := range int64(hub.MaxProducers) {
		if i%500 == 0 { // a repeat counts as use
			w.produce(p, 1_000_001, 0, 0, 1)
		}
		w.produce(p, i, 0, 0, 1)
	}
	w.reopen()
	p = w.at("h")
	if x := w.produce(p, 1_000_001, 0, 0, 1); x != kept {
		t.Errorf("the one that goes on is forgotten: %+v, %+v", x, kept)
	}
	if x := w.produce(p, 1_000_000, 0, 0, 1); x == first {
		t.Error("nothing is forgotten")
	}
	if err := w.ns.DeleteEventHub(t.Context(), "h"); err != nil {
		t.Fatal(err)
	}
	for e, err := range w.store.Meta().List(t.Context(), "producers/", "") {
		t.Errorf("left behind: %s, %v", e.Key, err)
	}
}

// TestProducerAheadOfFailure: batches that were sent in the belief that one before
// them would be stored are not stored when it isn't.
func TestProducerAheadOfFailure(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	id := w.join(p, hub.Claim{}).ID
	w.produce(p, id, 0, 1, 1)
	var broken atomic.Bool
	w.disk.SetFault(func(op, _ string) error {
		if broken.Load() && op != "create" {
			return errors.New("broken")
		}
		return nil
	})
	for round := range 20 {
		broken.Store(true)
		next := int32(2 + 4*round)
		var outs []chan produced
		for i := range int32(4) {
			outs = append(outs, produce(p, id, 0, next+i, 1))
			if i == int32(round)%4 {
				broken.Store(false)
			}
		}
		for i, out := range outs {
			x := <-out
			if k := kind(x.err); x.err != nil && k == hub.OutOfSequence {
				t.Fatalf("round %d: batch %d: %v", round, i, x.err)
			}
		}
		w.pass(time.Second)
		for i := range int32(4) { // all of them once more, as after errors
			if x := w.produce(p, id, 0, next+i, 1); x.first != event.SequenceNumber(next+i-1) {
				t.Fatalf("round %d: batch %d is stored at %d", round, i, x.first)
			}
		}
	}
}

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

// crashNow takes the power away while the clients send.
func (x *producers) crashNow(t *rapid.T) {
	wait := x.sendAll(t)
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
		"send together": func(t *rapid.T) { x.sendAll(t)(); settle() },
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
