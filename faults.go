package millrace

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/amqp"
	"github.com/millrace/millrace/hub"
)

// faults are what the broker does wrong on purpose.
type faults struct {
	slowDisk atomic.Pointer[slowDisk]
}

type slowDisk struct {
	until time.Time
	delay time.Duration
}

// stall is what the store calls before it writes; nil unless faults are allowed.
func (f *faults) stall(allowed bool) func() {
	if !allowed {
		return nil
	}
	return func() {
		if d := f.slowDisk.Load(); d != nil && time.Now().Before(d.until) {
			time.Sleep(d.delay)
		}
	}
}

// injector is what the management interface injects faults with; nil unless they
// are allowed.
func (b *Broker) injector() func(context.Context, *hub.Namespace, admin.Fault) (int, error) {
	if !b.o.AllowFaults {
		return nil
	}
	b.log.Warn("FAULTS ARE ALLOWED: whoever has a key with Manage can make this broker fail on purpose; it was started with --allow-faults")
	return b.inject
}

// inject has a fault happen, and tells how many connections, receivers or event
// hubs it happens to.
func (b *Broker) inject(ctx context.Context, ns *hub.Namespace, f admin.Fault) (int, error) {
	b.log.Warn("A FAULT IS INJECTED", "fault", f.Kind, "namespace", ns.Name, "hub", f.Hub, "group", f.Group, "partition", f.Partition, "for", f.For, "delay", f.Delay)
	var h *hub.EventHub
	if f.Hub != "" {
		var err error
		if h, err = ns.EventHub(f.Hub); err != nil {
			return 0, err
		}
	}
	until := time.Now().Add(time.Duration(f.For))
	switch f.Kind {
	case admin.FaultBusy:
		return setFault(ns, h, &hub.Fault{Until: until, Busy: true}), nil
	case admin.FaultDelay:
		return setFault(ns, h, &hub.Fault{Until: until, AckDelay: time.Duration(f.Delay)}), nil
	case admin.FaultSlowDisk:
		b.faults.slowDisk.Store(&slowDisk{until, time.Duration(f.Delay)})
		return 1, nil
	case admin.FaultClear:
		b.faults.slowDisk.Store(nil)
		return setFault(ns, h, nil), nil
	case admin.FaultSteal:
		return steal(h, f)
	case admin.FaultDetach:
		return b.amqp.Inject(ctx, amqp.DetachLinks, ns, h)
	case admin.FaultClose:
		return b.amqp.Inject(ctx, amqp.CloseConnections, ns, h)
	case admin.FaultCut:
		return b.amqp.Inject(ctx, amqp.CutConnections, ns, h)
	case admin.FaultExpireTokens:
		return b.amqp.Inject(ctx, amqp.ExpireTokens, ns, h)
	}
	return 0, fmt.Errorf("the fault %q is not known here", f.Kind)
}

// setFault sets a fault of one hub, or of all of a namespace.
func setFault(ns *hub.Namespace, h *hub.EventHub, f *hub.Fault) int {
	hubs := []*hub.EventHub{h}
	if h == nil {
		hubs = ns.EventHubs()
	}
	for _, h := range hubs {
		h.SetFault(f)
	}
	return len(hubs)
}

// steal takes a partition, or all of a hub, from a group's readers.
func steal(h *hub.EventHub, f admin.Fault) (int, error) {
	g, err := h.Group(f.Group)
	if err != nil {
		return 0, err
	}
	if f.Partition != "" {
		p, err := h.Partition(f.Partition)
		if err != nil {
			return 0, err
		}
		return g.Steal(p), nil
	}
	n := 0
	for i := range h.Partitions() {
		n += g.Steal(h.At(i))
	}
	return n, nil
}
