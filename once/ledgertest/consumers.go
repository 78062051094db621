package ledgertest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/once"
)

// testConsumers has two consumers read a partition, each of which may at any moment
// vanish, open again at the checkpoint, be slow, or finish in any order; what they do
// is interleaved at random. No event is lost, and none is processed twice but for a
// reason that the contract names.
func testConsumers(t *testing.T, f *fixture) {
	if f.engine.Wall {
		t.Skip("its leases are long: it needs a clock that can be put forward")
	}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := &world{t: t, f: f, stream: Stream("0"), checkpoint: -1,
			effects: map[int64]int{}, unmarked: map[int64]int{}, holder: map[int64]holding{}}
		w.stream.Generation = fmt.Sprint(run)
		n := rapid.Int64Range(0, 3).Draw(t, "first")
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			w.events = append(w.events, n)
			n += rapid.SampledFrom([]int64{1, 1, 1, 4}).Draw(t, "step")
		}
		w.consumers = []*consumer{w.open(), w.open()}
		pick := func() *consumer { return rapid.SampledFrom(w.consumers).Draw(t, "consumer") }
		t.Repeat(map[string]func(*rapid.T){
			"receive":    func(*rapid.T) { w.receive(pick()) },
			"finish":     func(*rapid.T) { w.finish(pick()) },
			"extend":     func(*rapid.T) { w.extend(pick()) },
			"fail":       func(*rapid.T) { w.fail(pick()) },
			"checkpoint": func(*rapid.T) { w.check(pick()) },
			"open again": func(*rapid.T) { *pick() = *w.open() },
			"pass":       func(*rapid.T) { w.pass(lease + later) },
		})
		w.end()
	})
}

const lease = 10 * time.Second

// world is a partition, its consumers, and what they did.
type world struct {
	t          *rapid.T
	f          *fixture
	stream     once.Stream
	events     []int64 // the sequence numbers there are
	checkpoint int64
	consumers  []*consumer
	elapsed    time.Duration
	effects    map[int64]int
	unmarked   map[int64]int     // effects whose mark was not made or was lost
	holder     map[int64]holding // whose an event is
}

// holding is a claim that has not been given up.
type holding struct {
	token int64
	until time.Duration
}

// consumer is a receiver and what it holds.
type consumer struct {
	order    *once.Order
	at       int          // the index of the next event
	received []once.Event // not yet covered by its checkpoint
	held     []once.Claim
	settled  map[int64]bool
}

func (w *world) open() *consumer {
	c := &consumer{order: once.NewOrder(w.stream), settled: map[int64]bool{}}
	for c.at < len(w.events) && w.events[c.at] <= w.checkpoint {
		c.at++
	}
	return c
}

func (w *world) pass(d time.Duration) {
	w.f.pass(d)
	w.elapsed += d
}

// ask claims an event for a consumer, and checks that it was free.
func (w *world) ask(c *consumer, e once.Event) once.State {
	answer, err := w.f.Claim(w.f.T.Context(), []once.Event{e}, lease)
	if err != nil {
		w.t.Fatal(err)
	}
	switch a := answer[0]; a.State {
	case once.Claimed:
		if h, held := w.holder[e.Sequence]; held && h.until > w.elapsed {
			w.t.Fatalf("%d was given to two at a time", e.Sequence)
		}
		w.holder[e.Sequence] = holding{a.Token, w.elapsed + lease}
		c.held = append(c.held, a)
	case once.Done:
		if w.effects[e.Sequence] == 0 {
			w.t.Fatalf("%d is done, and was never processed", e.Sequence)
		}
		c.settled[e.Sequence] = true
	}
	return answer[0].State
}

// receive has a consumer be given the next event, or ask again for one that was busy.
func (w *world) receive(c *consumer) {
	for _, e := range c.received {
		held := false
		for _, h := range c.held {
			held = held || h.Event == e
		}
		if !held && !c.settled[e.Sequence] {
			w.ask(c, e)
			return
		}
	}
	if c.at == len(w.events) {
		return
	}
	e := c.order.Event(w.events[c.at])
	c.at++
	c.received = append(c.received, e)
	w.ask(c, e)
}

// take has a consumer put one of its claims aside.
func (w *world) take(c *consumer) (once.Claim, bool) {
	if len(c.held) == 0 {
		return once.Claim{}, false
	}
	i := rapid.IntRange(0, len(c.held)-1).Draw(w.t, "claim")
	h := c.held[i]
	c.held = append(c.held[:i:i], c.held[i+1:]...)
	return h, true
}

// finish has a consumer process an event, and mark it, or not reach the ledger.
func (w *world) finish(c *consumer) {
	h, ok := w.take(c)
	if !ok {
		return
	}
	n := h.Event.Sequence
	w.effects[n]++
	if rapid.IntRange(0, 4).Draw(w.t, "unreachable") == 0 {
		w.unmarked[n]++
		return
	}
	err := w.f.Mark(w.f.T.Context(), []once.Claim{h})
	if _, lost := errors.AsType[*once.LostError](err); lost {
		w.unmarked[n]++
	} else if err != nil {
		w.t.Fatal(err)
	} else {
		w.gone(h)
	}
	c.settled[n] = true
}

// extend has a consumer extend a claim, which it gives up if it is lost.
func (w *world) extend(c *consumer) {
	h, ok := w.take(c)
	if !ok {
		return
	}
	n := h.Event.Sequence
	now, held := w.holder[n]
	extended, err := w.f.Extend(w.f.T.Context(), []once.Claim{h}, lease)
	if _, lost := errors.AsType[*once.LostError](err); lost {
		if held && now.token == h.Token && now.until > w.elapsed {
			w.t.Fatalf("the claim of %d was lost, and held", n)
		}
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if held && now.token != h.Token && now.until > w.elapsed {
		w.t.Fatalf("%d was extended for one, and is another's", n)
	}
	w.holder[n] = holding{h.Token, w.elapsed + lease}
	c.held = append(c.held, extended[0])
}

func (w *world) fail(c *consumer) {
	h, ok := w.take(c)
	if !ok {
		return
	}
	if err := w.f.Release(w.f.T.Context(), []once.Claim{h}); err != nil {
		w.t.Fatal(err)
	}
	w.gone(h)
}

// gone notes that a claim holds no more.
func (w *world) gone(h once.Claim) {
	if w.holder[h.Event.Sequence].token == h.Token {
		delete(w.holder, h.Event.Sequence)
	}
}

// check has a consumer write a checkpoint for all from the first that is settled.
func (w *world) check(c *consumer) {
	for len(c.received) > 0 && c.settled[c.received[0].Sequence] {
		w.checkpoint = max(w.checkpoint, c.received[0].Sequence)
		c.received = c.received[1:]
	}
}

// end has a consumer that does not fail read to the end.
func (w *world) end() {
	w.pass(lease + later)
	c := w.open()
	for range 3 * len(w.events) {
		w.receive(c)
	}
	if err := w.f.Mark(w.f.T.Context(), c.held); err != nil {
		w.t.Fatal(err)
	}
	for _, h := range c.held {
		w.effects[h.Event.Sequence]++
	}
	for _, n := range w.events {
		if w.effects[n] == 0 {
			w.t.Errorf("%d was lost", n)
		}
		if w.effects[n] > 1+w.unmarked[n] {
			w.t.Errorf("%d was processed %d times, with %d marks that failed", n, w.effects[n], w.unmarked[n])
		}
	}
	got, err := w.f.Status(w.f.T.Context(), w.stream)
	if err != nil {
		w.t.Fatal(err)
	}
	if want := (once.Status{Settled: w.events[len(w.events)-1]}); got != want && c.at > 0 && w.checkpoint < want.Settled {
		w.t.Errorf("the status is %+v at the end, want %+v", got, want)
	}
}
