package hub

import (
	"time"
)

// inflateEvery is the least time between two steps of auto-inflate: long enough
// to see what the last one did.
const inflateEvery = time.Second

// pressure says that a namespace's traffic met the limit of its units.
type pressure struct {
	ns    *Namespace
	units int // that were not enough
}

// pressed tells the goroutine of auto-inflate, which may be busy: then the next
// refusal does. It is called amid an append.
func (ns *Namespace) pressed(units int) {
	if s := &ns.state.Load().record.NamespaceSettings; !s.AutoInflate || s.Capacity >= s.MaximumCapacity {
		return
	}
	select {
	case ns.all.pressures <- pressure{ns, units}:
	default:
	}
}

// inflate raises units under load until the namespaces are closed.
func (n *Namespaces) inflate() {
	last := map[*Namespace]time.Duration{}
	for {
		var p pressure
		select {
		case <-n.ctx.Done():
			return
		case p = <-n.pressures:
		}
		now := n.elapsed()
		if at, ok := last[p.ns]; ok && now-at < inflateEvery {
			continue
		}
		raised := 0
		err := p.ns.Update(n.ctx, func(s *NamespaceSettings) error {
			if s.AutoInflate && s.Capacity == p.units && s.Capacity < s.MaximumCapacity {
				s.Capacity++
				raised = s.Capacity
			}
			return nil
		})
		if n.ctx.Err() != nil {
			return
		}
		if err != nil {
			n.log.Error("the throughput units could not be raised", "namespace", p.ns.Name, "units", p.units, "error", err)
		}
		last[p.ns] = now
		if err == nil && raised > 0 {
			p.ns.Metrics.Inflations.Add(1)
			n.log.Info("auto-inflate raised the throughput units, since requests met the limit", "namespace", p.ns.Name,
				"from", p.units, "to", raised, "maximum", p.ns.Settings().MaximumCapacity)
		}
	}
}
