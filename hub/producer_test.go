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

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
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

// TestFencingIsStored: an instance whose fencing could not be stored is refused, and
// when it comes again it is stored.
func TestFencingIsStored(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	id := w.join(p, hub.Claim{}).ID
	w.produce(p, id, 0, 1, 1)
	gone, cancel := context.WithCancel(t.Context())
	w.kv.SetFault(func() error { cancel(); return errors.New("broken") })
	second := hub.Claim{ID: &id, Epoch: new(int16(1)), Sequence: new(int32(1))}
	if _, err := p.JoinProducer(gone, second); err == nil {
		t.Fatal("it is not stored, and nobody is told")
	}
	w.kv.SetFault(nil)
	w.join(p, second)
	w.crash(rand.New(rand.NewPCG(1, 2)))
	if x := <-produce(w.at("h"), id, 0, 2, 1); kind(x.err) != hub.ProducerFenced {
		t.Errorf("the first instance sends: %v", x.err)
	}
}

// TestOpenedOnce: those who come at once when a partition has not been opened yet
// share what is known of its producers. Were it opened twice, the first opening's
// would be forgotten, and with it who is fenced and what was stored.
func TestOpenedOnce(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{}).At(0)
	const instances = 16
	claim := func(i, epoch int) hub.Claim {
		return hub.Claim{ID: new(int64(1 + i)), Epoch: new(int16(epoch)), Sequence: new(int32(0))}
	}
	for i := range instances {
		w.join(p, claim(i, 0))
	}
	for round := 1; round <= 2000; round++ {
		w.reopen()
		p := w.at("h")
		var together sync.WaitGroup
		for i := range instances {
			together.Go(func() {
				if _, err := p.JoinProducer(context.Background(), claim(i, round)); err != nil {
					t.Error(err)
				}
				if _, err := p.JoinProducer(context.Background(), claim(i, round-1)); kind(err) != hub.ProducerFenced {
					t.Errorf("round %d: the instance before is told: %v", round, err)
				}
			})
		}
		together.Wait()
		if t.Failed() {
			return
		}
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

// TestProducersOfALostTail: where the policy lets a loss of power take events that
// were acknowledged, what is known of producers goes back with them.
func TestProducersOfALostTail(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(t)
		w.sync = segment.Sync{Policy: segment.SyncNever}
		w.reopen()
		p := w.hub("h", 1, hub.Settings{}).At(0)
		id := w.join(p, hub.Claim{}).ID
		for i := range int32(6) {
			w.produce(p, id, 0, 1+i, 1)
			if i == 3 { // a snapshot that may be ahead of what is left
				other := id + 1
				w.join(p, hub.Claim{ID: &other})
			}
		}
		w.crash(rand.New(rand.NewPCG(seed, 9)))
		p = w.at("h")
		i, err := p.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for n := int32(i.Next) + 1; n <= 8; n++ { // it goes on from what is there
			if x := w.produce(p, id, 0, n, 1); x.first != event.SequenceNumber(n-1) {
				t.Fatalf("seed %d: of %d that are left, batch %d is stored at %d", seed, i.Next, n, x.first)
			}
		}
	}
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
			// One that comes when the failure has been told is ahead, as with Kafka.
			if k := kind(x.err); x.err != nil && k == hub.OutOfSequence && strings.Contains(x.err.Error(), "old sequence") {
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

// TestDamagedProducers: while what a producer has sent can't be read, nothing more
// is taken of any, and others go on; once what is damaged has been removed, so do
// producers.
func TestDamagedProducers(t *testing.T) {
	w := newWorld(t)
	p := w.hub("h", 1, hub.Settings{Retention: time.Hour}).At(0)
	id := w.join(p, hub.Claim{}).ID
	for i := range int32(30) { // over a few segments
		w.produce(p, id, 0, 1+i, 1, strings.Repeat("x", 2000))
	}
	kv := w.kv.Clone() // of before the close's snapshot
	w.close()
	w.kv = kv
	damaged := false
	for name := range w.disk.Files() {
		if strings.HasSuffix(name, ".seg") && strings.Contains(name, "/0/0000000000000000000-") {
			w.disk.Damage(name, 3000)
			damaged = true
		}
	}
	if !damaged {
		t.Fatal("there is no segment")
	}
	w.open()
	p = w.at("h")
	if x := <-produce(p, id, 0, 31, 1); kind(x.err) != hub.Corrupt {
		t.Errorf("a producer's batch: %v", x.err)
	}
	if _, err := p.JoinProducer(t.Context(), hub.Claim{}); kind(err) != hub.Corrupt {
		t.Errorf("a new producer: %v", err)
	}
	w.append(p, 1, "somebody else's")
	w.pass(2 * time.Hour)
	w.all.Expire(t.Context())
	if i, err := p.Info(t.Context()); err != nil || !i.Empty {
		t.Fatalf("%+v, %v", i, err)
	}
	w.produce(p, id, 0, 31, 1)
	w.reopen()
	if x := <-produce(w.at("h"), id, 0, 33, 1); kind(x.err) != hub.OutOfSequence {
		t.Errorf("a gap: %v", x.err)
	}
}
