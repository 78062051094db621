package hub

import (
	"context"
	"fmt"
	"time"
)

// Plan says what a namespace would have needed of the service.
type Plan struct {
	Since time.Time
	// Tier and Capacity are the smallest that the recorded load and the entities
	// fit into without being throttled; Reasons say what rules smaller ones out.
	Tier     Tier
	Capacity int
	Reasons  []string
	// Units are the throughput units that the busiest second needed.
	Units int
	// Minutes is the load. The minutes that needed more units than AtCapacity would
	// have been throttled.
	Minutes    []Load
	AtCapacity int
}

// premiumUnit is what a processing unit carries, in bytes a second coming in:
// the service's page says 5 to 10 MB, of which this is the careful end.
const premiumUnit = 5 * megabyte

// Plan tells from the recorded load which tier and how many units the namespace
// would have needed, and where it would have been throttled at a capacity; 0
// means the namespace's own.
func (ns *Namespace) Plan(ctx context.Context, since time.Time, capacity int) (*Plan, error) {
	loads, err := ns.Loads(ctx, since)
	if err != nil {
		return nil, err
	}
	if capacity == 0 {
		capacity = ns.Settings().Capacity
	}
	p := &Plan{Since: since, Units: 1, Minutes: loads, AtCapacity: capacity}
	for _, l := range loads {
		p.Units = max(p.Units, l.Units())
	}
	for _, t := range []Tier{Basic, Standard, Premium, Dedicated} {
		units, why := ns.fits(t, p)
		if why == "" {
			p.Tier, p.Capacity = t, units
			return p, nil
		}
		p.Reasons = append(p.Reasons, fmt.Sprintf("not %s: %s", t, why))
	}
	p.Tier, p.Capacity = Unlimited, 1
	return p, nil
}

// fits tells the smallest capacity of a tier that holds the namespace, or why
// none does.
func (ns *Namespace) fits(t Tier, p *Plan) (units int, why string) {
	q := t.Quotas()
	last := ""
	for _, units := range q.Units {
		if need := needed(t, p); units < need {
			last = fmt.Sprintf("the load needed %d units", need)
			continue
		}
		s := NamespaceSettings{Tier: t, Capacity: units}
		if err := ns.check(&s); err != nil {
			last = err.Error()
			continue
		}
		return units, ""
	}
	return 0, last
}

// needed is how many of a tier's units the load needed.
func needed(t Tier, p *Plan) int {
	switch t {
	case Basic, Standard:
		return p.Units
	case Premium:
		most := int64(0)
		for _, l := range p.Minutes {
			most = max(most, l.PeakIn.Bytes, l.PeakOut.Bytes/2)
		}
		return int(max(1, (most+premiumUnit-1)/premiumUnit))
	}
	return 1
}
