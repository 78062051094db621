package hub

import (
	"time"
)

// Fault is what happens to a hub's appends on purpose, for people who test their
// applications. Once its time is over it does nothing.
type Fault struct {
	Until time.Time
	// Busy says that appends are refused as if by throughput units.
	Busy bool
	// AckDelay is how much later appends are acknowledged than they could be.
	AckDelay time.Duration
}

// SetFault makes a fault happen, instead of one that there is; nil ends it.
func (h *EventHub) SetFault(f *Fault) { h.fault.Store(f) }

// refused tells why the fault refuses an append, if it does.
func (f *Fault) refused(h *EventHub) error {
	left := f.Until.Sub(h.ns.all.o.Now())
	if !f.Busy || left <= 0 {
		return nil
	}
	return throttled(h.ns.Name, left)
}

// late has done run as late as the fault says. It returns false if that is now.
func (f *Fault) late(h *EventHub, done func(error)) bool {
	if f.AckDelay <= 0 || !h.ns.all.o.Now().Before(f.Until) {
		return false
	}
	time.AfterFunc(f.AckDelay, func() { done(nil) })
	return true
}

// Steal takes a partition from those who read it in a group, as a receiver with a
// higher epoch would that then leaves. It returns how many they were.
func (g *ConsumerGroup) Steal(p *Partition) int {
	g.mu.Lock()
	s := g.seats[p.index]
	if s == nil {
		g.mu.Unlock()
		return 0
	}
	delete(g.seats, p.index)
	lost := s.plain
	if s.owner != nil {
		lost = append(lost, s.owner)
	}
	for _, r := range lost {
		r.gone = true
	}
	g.mu.Unlock()
	for _, r := range lost {
		r.o.Lost(g.displaced(r, &ReceiverOptions{Name: "fault", Epoch: r.o.Epoch + 1}))
	}
	return len(lost)
}
