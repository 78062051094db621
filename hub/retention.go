package hub

import (
	"context"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// retainEvery is how often the partitions are looked at. Each is trimmed when
// its oldest event is due, and then at most every sixty-fourth of its retention.
const retainEvery = 15 * time.Second

// retain removes expired events until the namespaces are closed.
func (n *Namespaces) retain() {
	t := time.NewTicker(retainEvery)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
			n.Expire(n.ctx)
		}
	}
}

// Expire removes, of every partition that is due, the events whose retention
// has passed. It runs by itself; tests of virtual time call it.
func (n *Namespaces) Expire(ctx context.Context) {
	now := n.o.Now()
	for _, ns := range n.All() {
		for _, h := range ns.EventHubs() {
			s := h.Settings()
			n.limit(ctx, h, &s)
			h.saveProducers(ctx, snapshotBytes)
			keep := s.Retention
			if keep <= 0 {
				continue
			}
			for _, p := range h.partitions() {
				p.mu.Lock()
				due := !now.Before(p.trimAt) && !p.ended
				p.mu.Unlock()
				if !due {
					continue
				}
				next, err := p.expire(ctx, now, keep)
				if err != nil {
					if ctx.Err() != nil {
						return
					}
					n.log.Warn("expired events can't be removed; it is tried again", "partition", p.Entity(), "error", err)
					next = now.Add(time.Minute)
				}
				p.mu.Lock()
				p.trimAt = next
				p.mu.Unlock()
			}
		}
	}
}

// limit removes what a hub has beyond its size. A partition that is not open has
// not grown since it was last looked at.
func (n *Namespaces) limit(ctx context.Context, h *EventHub, s *Settings) {
	each := s.perPartition(h.Partitions())
	if each == 0 {
		return
	}
	for _, p := range h.partitions() {
		l := p.log.Load()
		if !l.usable() {
			continue
		}
		sized, ok := l.Log.(store.SizeLimited)
		if !ok {
			continue
		}
		b, err := l.Bounds(ctx)
		if first := sized.Within(each); err == nil && first > b.First {
			err = p.trim(ctx, l, first)
		}
		if err != nil && ctx.Err() == nil && l.usable() {
			n.log.Warn("a partition can't be held to its size; it is tried again", "partition", p.Entity(), "error", err)
		}
	}
}

// expire trims one partition and returns when to look at it next.
func (p *Partition) expire(ctx context.Context, now time.Time, keep time.Duration) (time.Time, error) {
	l, err := p.openOwn(ctx)
	if err != nil {
		return now, err
	}
	b, err := l.Bounds(ctx)
	if err != nil {
		return now, err
	}
	if b.Empty() {
		return now.Add(keep), nil
	}
	r, err := p.OpenReader(ctx)
	if err != nil {
		return now, err
	}
	defer r.Close()
	first, err := r.Start(ctx, event.Position{Origin: event.AtEnqueued, Enqueued: now.Add(-keep), Inclusive: true})
	if err != nil {
		return now, err
	}
	if first > b.First {
		if err := p.trim(ctx, l, first); err != nil {
			return now, err
		}
	}
	soonest := now.Add(min(max(keep/64, time.Minute), time.Hour))
	if first == b.Next {
		return now.Add(keep), nil
	}
	c, err := r.Read(ctx, first, 1)
	if err != nil {
		return now, err
	}
	defer c.Close()
	if c.Empty() {
		return soonest, nil
	}
	if t := time.UnixMilli(c.Records[0].Enqueued).Add(keep); t.After(soonest) {
		return t, nil
	}
	return soonest, nil
}
