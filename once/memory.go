package once

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Memory is a ledger in the memory of one process: for tests, and for goroutines that
// share a partition. It forgets everything when the process ends, so a redelivery
// after that is processed again.
type Memory struct {
	keepIDs time.Duration
	now     func() time.Time
	mu      sync.Mutex
	books   map[string]*page
}

var _ Ledger = (*Memory)(nil)

// page is a book of the memory ledger.
type page struct {
	settled int64
	token   int64
	numbers []int64 // those beyond settled that have an entry, ascending
	entries map[int64]entry
	ids     map[string]entry
}

// entry is what is known of an event that is not settled.
type entry struct {
	token int64 // of the claim, or of the one that it was marked with
	done  bool
	until time.Time // of a claim; of a done id, when it is forgotten
	gap   int64
}

// NewMemory returns an empty ledger, which keeps the marks of ids for a time.
func NewMemory(keepIDs time.Duration) *Memory {
	return &Memory{keepIDs: keepIDs, now: time.Now, books: map[string]*page{}}
}

// NewMemoryClock is NewMemory with a clock of the caller's, for tests.
func NewMemoryClock(keepIDs time.Duration, now func() time.Time) *Memory {
	m := NewMemory(keepIDs)
	m.now = now
	return m
}

func (m *Memory) page(name string) *page {
	p := m.books[name]
	if p == nil {
		p = &page{settled: -1, entries: map[int64]entry{}, ids: map[string]entry{}}
		m.books[name] = p
	}
	return p
}

// Claim implements [Ledger].
func (m *Memory) Claim(ctx context.Context, events []Event, lease time.Duration) ([]Claim, error) {
	books, err := Books(events)
	if err != nil {
		return nil, err
	}
	if lease < time.Millisecond {
		return nil, ErrShortLease
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	claims := make([]Claim, len(events))
	for _, b := range books {
		p := m.page(b.Name)
		p.token++
		p.forget(now)
		for _, i := range b.Events {
			claims[i] = p.claim(events[i], now, now.Add(lease.Truncate(time.Millisecond)))
		}
		p.follow()
	}
	return claims, nil
}

// forget drops the ids whose time is over.
func (p *page) forget(now time.Time) {
	for id, e := range p.ids {
		if !e.until.After(now) {
			delete(p.ids, id)
		}
	}
}

func (p *page) get(e Event) (entry, bool) {
	if e.ID != "" {
		x, ok := p.ids[e.ID]
		return x, ok
	}
	x, ok := p.entries[e.Sequence]
	return x, ok
}

func (p *page) put(e Event, x entry) {
	if e.ID != "" {
		p.ids[e.ID] = x
		return
	}
	if i, found := slices.BinarySearch(p.numbers, e.Sequence); !found {
		p.numbers = slices.Insert(p.numbers, i, e.Sequence)
	}
	p.entries[e.Sequence] = x
}

// drop forgets the entries from one number to another.
func (p *page) drop(from, through int64) {
	i, _ := slices.BinarySearch(p.numbers, from)
	j, _ := slices.BinarySearch(p.numbers, through+1)
	for _, n := range p.numbers[i:j] {
		delete(p.entries, n)
	}
	p.numbers = slices.Delete(p.numbers, i, j)
}

func (p *page) claim(e Event, now, until time.Time) Claim {
	if e.ID == "" && e.Sequence <= p.settled {
		return Claim{Event: e, State: Done}
	}
	switch x, ok := p.get(e); {
	case ok && x.done:
		if e.Gap > x.gap {
			x.gap = e.Gap
			p.mark(e, x)
		}
		return Claim{Event: e, State: Done}
	case ok && x.until.After(now):
		return Claim{Event: e, State: Busy, Until: x.until}
	}
	p.put(e, entry{token: p.token, until: until})
	return Claim{Event: e, State: Claimed, Token: p.token, Until: until}
}

// mark marks an event that is not settled.
func (p *page) mark(e Event, x entry) {
	if e.ID != "" {
		p.put(e, x)
		return
	}
	if begin := e.Sequence - x.gap; begin > p.settled+1 {
		p.drop(begin, e.Sequence-1)
		p.put(e, x)
		return
	}
	p.settled = e.Sequence
	p.drop(0, e.Sequence)
}

// follow moves settled on over the marks that follow it.
func (p *page) follow() {
	for len(p.numbers) > 0 {
		n := p.numbers[0]
		if x := p.entries[n]; !x.done || n-x.gap > p.settled+1 {
			return
		}
		p.settled = n
		p.drop(n, n)
	}
}

// whose says whether a claim is lost, and whether nothing is left to be done for it.
func (p *page) whose(c Claim, now time.Time) (lost, done bool) {
	if c.Event.ID == "" && c.Event.Sequence <= p.settled {
		return c.Until.Before(now), true
	}
	x, ok := p.get(c.Event)
	return ok && x.token != c.Token, x.done
}

// Mark implements [Ledger].
func (m *Memory) Mark(ctx context.Context, claims []Claim) error {
	var lost []Claim
	err := m.each(ctx, claims, func(p *page, now time.Time, c Claim) {
		switch isLost, done := p.whose(c, now); {
		case isLost:
			lost = append(lost, c)
		case !done:
			p.mark(c.Event, entry{token: c.Token, done: true, until: now.Add(m.keepIDs), gap: c.Event.Gap})
		}
	})
	if err == nil && len(lost) > 0 {
		return &LostError{Claims: lost}
	}
	return err
}

// Extend implements [Ledger].
func (m *Memory) Extend(ctx context.Context, claims []Claim, lease time.Duration) ([]Claim, error) {
	if lease < time.Millisecond {
		return nil, ErrShortLease
	}
	extended := make([]Claim, 0, len(claims))
	var lost []Claim
	err := m.each(ctx, claims, func(p *page, now time.Time, c Claim) {
		if isLost, done := p.whose(c, now); isLost {
			lost = append(lost, c)
		} else {
			c.Until = now.Add(lease.Truncate(time.Millisecond))
			if !done {
				p.put(c.Event, entry{token: c.Token, until: c.Until})
			}
		}
		extended = append(extended, c)
	})
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		return extended, &LostError{Claims: lost}
	}
	return extended, nil
}

// Release implements [Ledger].
func (m *Memory) Release(ctx context.Context, claims []Claim) error {
	return m.each(ctx, claims, func(p *page, _ time.Time, c Claim) {
		x, ok := p.get(c.Event)
		if !ok || x.done || x.token != c.Token {
			return
		}
		if c.Event.ID != "" {
			delete(p.ids, c.Event.ID)
			return
		}
		p.drop(c.Event.Sequence, c.Event.Sequence)
	})
}

// each calls fn with each claim and its page.
func (m *Memory) each(ctx context.Context, claims []Claim, fn func(p *page, now time.Time, c Claim)) error {
	for _, c := range claims {
		if err := c.Event.Validate(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	touched := map[*page]bool{}
	for _, c := range claims {
		p := m.page(c.Event.Book())
		fn(p, now, c)
		touched[p] = true
	}
	for p := range touched {
		p.follow()
	}
	return nil
}

// Settle implements [Ledger].
func (m *Memory) Settle(ctx context.Context, s Stream, through int64) error {
	return m.each(ctx, []Claim{{Event: Event{Stream: s, Sequence: through}}}, func(p *page, _ time.Time, _ Claim) {
		if through > p.settled {
			p.settled = through
			p.drop(0, through)
		}
	})
}

// Status implements [Ledger].
func (m *Memory) Status(ctx context.Context, s Stream) (Status, error) {
	st := Status{}
	err := m.each(ctx, []Claim{{Event: Event{Stream: s}}}, func(p *page, _ time.Time, _ Claim) {
		st.Settled = p.settled
		for _, x := range p.entries {
			if x.done {
				st.Marks++
			} else {
				st.Claims++
			}
		}
	})
	return st, err
}
