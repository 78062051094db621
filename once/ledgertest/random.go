package ledgertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/once"
)

// testModel does the same at random to the ledger and to the one in memory, and demands
// the same answers.
func testModel(t *testing.T, f *fixture) {
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		now := time.Unix(1e9, 0)
		s := Stream("0")
		s.Generation = fmt.Sprint(run)
		m := &pair{real: f.Ledger, model: once.NewMemoryClock(KeepIDs, func() time.Time { return now }), stream: s, ctx: f.T, ids: !f.engine.Wall}
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) { m.claim(t, long) },
			"claim and vanish": func(t *rapid.T) {
				m.claim(t, short)
				f.pass(later)
				now = now.Add(later)
			},
			"extend": func(t *rapid.T) { m.extend(t, long) },
			"extend and vanish": func(t *rapid.T) {
				m.extend(t, short)
				f.pass(later)
				now = now.Add(later)
			},
			"mark":    m.mark,
			"release": m.release,
			"settle":  m.settle,
			"":        m.same,
		})
	})
}

// pair is a ledger and the model.
type pair struct {
	real, model once.Ledger
	stream      once.Stream
	ctx         *testing.T
	ids         bool
	held        [][2]once.Claim
}

func (p *pair) claim(t *rapid.T, lease time.Duration) {
	numbers := rapid.SliceOfNDistinct(rapid.Int64Range(0, 25), 1, 6, rapid.ID[int64]).Draw(t, "numbers")
	var events []once.Event
	for _, n := range numbers {
		e := once.Event{Stream: p.stream, Sequence: n}
		if rapid.IntRange(0, 3).Draw(t, "gap?") == 0 {
			e.Gap = rapid.Int64Range(0, n).Draw(t, "gap")
		}
		if rapid.IntRange(0, 5).Draw(t, "id?") == 0 && lease == long && p.ids {
			e.ID = fmt.Sprint(n % 3)
		}
		events = append(events, e)
	}
	real, err := p.real.Claim(p.ctx.Context(), events, lease)
	if err != nil {
		t.Fatal(err)
	}
	model, err := p.model.Claim(p.ctx.Context(), events, lease)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if real[i].State != model[i].State {
			t.Fatalf("%v is %v, want %v", events[i], real[i].State, model[i].State)
		}
		if real[i].State == once.Claimed {
			p.held = append(p.held, [2]once.Claim{real[i], model[i]})
		}
	}
}

// some draws claims that were given, which stay, to be used again.
func (p *pair) some(t *rapid.T) (real, model []once.Claim) {
	for _, i := range p.draw(t) {
		real, model = append(real, p.held[i][0]), append(model, p.held[i][1])
	}
	return real, model
}

func (p *pair) draw(t *rapid.T) []int {
	if len(p.held) == 0 {
		t.Skip("nothing is held")
	}
	return rapid.SliceOfNDistinct(rapid.IntRange(0, len(p.held)-1), 1, 4, rapid.ID[int]).Draw(t, "claims")
}

// extend extends claims, of ids by a long lease alone: when a ledger forgets an id whose
// claim is over is its own affair.
func (p *pair) extend(t *rapid.T, lease time.Duration) {
	at := p.draw(t)
	var real, model []once.Claim
	for _, i := range at {
		if lease != long && p.held[i][0].Event.ID != "" {
			t.Skip("an id")
		}
		real, model = append(real, p.held[i][0]), append(model, p.held[i][1])
	}
	real, err := p.real.Extend(p.ctx.Context(), real, lease)
	got := lostOf(t, err)
	model, err = p.model.Extend(p.ctx.Context(), model, lease)
	if want := lostOf(t, err); !slices.Equal(got, want) {
		t.Fatalf("lost are %v, want %v", got, want)
	}
	for n, i := range at {
		p.held[i] = [2]once.Claim{real[n], model[n]}
	}
}

func (p *pair) mark(t *rapid.T) {
	real, model := p.some(t)
	got, want := lostOf(t, p.real.Mark(p.ctx.Context(), real)), lostOf(t, p.model.Mark(p.ctx.Context(), model))
	if !slices.Equal(got, want) {
		t.Fatalf("lost are %v, want %v", got, want)
	}
}

func lostOf(t *rapid.T, err error) (lost []string) {
	if e, ok := errors.AsType[*once.LostError](err); ok {
		for _, c := range e.Claims {
			lost = append(lost, c.Event.String())
		}
	} else if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lost)
	return lost
}

func (p *pair) release(t *rapid.T) {
	real, model := p.some(t)
	if err := p.real.Release(p.ctx.Context(), real); err != nil {
		t.Fatal(err)
	}
	if err := p.model.Release(p.ctx.Context(), model); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) settle(t *rapid.T) {
	n := rapid.Int64Range(0, 10).Draw(t, "through")
	if err := p.real.Settle(p.ctx.Context(), p.stream, n); err != nil {
		t.Fatal(err)
	}
	if err := p.model.Settle(p.ctx.Context(), p.stream, n); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) same(t *rapid.T) {
	got, err := p.real.Status(p.ctx.Context(), p.stream)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := p.model.Status(p.ctx.Context(), p.stream); got != want {
		t.Fatalf("the status is %+v, want %+v", got, want)
	}
}

// testBounded has a long stream go through, with up to a thousand events in work at a
// time, in any order, and holes in it: what is kept stays as small as what is in work.
func testBounded(t *testing.T, f *fixture) {
	events, window, batch := 100_000, 1000, 500
	if f.engine.Wall || f.engine.Slow || testing.Short() {
		events, window, batch = 10_000, 400, 100
	}
	random := rand.New(rand.NewPCG(1, 2))
	order := once.NewOrder(Stream("0"))
	var work []once.Claim
	sequence, largest := int64(5000), 0
	finish := func(n int) {
		random.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
		f.mark(work[:n]...)
		work = work[n:]
	}
	for range events / batch {
		var next []once.Event
		for range batch {
			sequence++
			if random.IntN(1000) == 0 {
				sequence += random.Int64N(5000)
			}
			next = append(next, order.Event(sequence))
		}
		work = append(work, f.is(once.Claimed, next...)...)
		if len(work) >= window {
			slices.SortFunc(work, func(a, b once.Claim) int { return int(a.Event.Sequence - b.Event.Sequence) })
			f.mark(work[:batch/2]...) // the oldest come to an end, the others as they like
			work = work[batch/2:]
			finish(batch / 2)
		}
		s, err := f.Status(t.Context(), Stream("0"))
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, s.Marks+s.Claims)
	}
	if largest > 5*window {
		t.Errorf("%d entries were kept, with %d in work", largest, window)
	}
	finish(len(work))
	f.status(once.Status{Settled: sequence})
	t.Logf("%d events left at most %d entries, and at the end none", events, largest)
}
