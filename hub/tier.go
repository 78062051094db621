package hub

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Tier names what a namespace may have. The zero value is Unlimited.
type Tier string

// The tiers. Unlimited is ours: what the engine and the protocols allow.
const (
	Unlimited Tier = "unlimited"
	Basic     Tier = "basic"
	Standard  Tier = "standard"
	Premium   Tier = "premium"
	Dedicated Tier = "dedicated"
)

// Tiers returns all tiers, the smallest of the service's first.
func Tiers() []Tier { return []Tier{Basic, Standard, Premium, Dedicated, Unlimited} }

// ParseTier reads a tier's name, in any case; "" is Unlimited.
func ParseTier(s string) (Tier, error) {
	if s == "" {
		return Unlimited, nil
	}
	t := Tier(strings.ToLower(s))
	if _, ok := quotas[t]; !ok {
		return "", fail(InvalidArgument, s, "'%s' is not one of the tiers basic, standard, premium, dedicated, unlimited.", s)
	}
	return t, nil
}

// Title is the tier's name as the service writes it, such as "Standard".
func (t Tier) Title() string {
	if t == "" {
		t = Unlimited
	}
	return strings.ToUpper(string(t[:1])) + string(t[1:])
}

// QuotasDate is when the service's page of quotas that the table below follows
// was last changed.
const QuotasDate = "2026-08-25"

// Quotas are the limits of a tier. A number of 0 says that there is none;
// false, that the tier does not have the feature.
// Source: features.md, section 0.
type Quotas struct {
	// Publication is the most bytes that an event or a batch may have, as sent.
	Publication int
	// Groups is the most consumer groups of a hub, $Default among them.
	Groups int
	// Connections is the most connections to a namespace, for each unit where
	// PerUnit says so.
	Connections Quota
	// Retention is the longest; RetentionForEver allows to keep without end.
	Retention        time.Duration
	RetentionForEver bool
	// Units are what a namespace's capacity may be, ascending.
	Units []int
	// Partitions is the most partitions of one hub, AllPartitions of all hubs of
	// a namespace.
	Partitions    int
	AllPartitions Quota
	// EventHubs is the most hubs of a namespace.
	EventHubs Quota
	// RuntimeInfo is how often in a second clients may ask what a hub or a partition
	// is.
	RuntimeInfo int
	// Throughput says that the namespace's traffic is limited by its units.
	Throughput bool
	// AutoInflate says that the units may grow with the load.
	AutoInflate bool
	// GrowPartitions says that partitions can be added to a hub.
	GrowPartitions bool
	// IPRules says that a namespace may restrict who connects by address.
	IPRules bool
	// ApplicationGroups says that a namespace may have application groups.
	ApplicationGroups bool
	// Capture says that events can be captured to files.
	Capture bool
}

// Quota is a limit, of the namespace or for each of its units.
type Quota struct {
	N       int // 0: none
	PerUnit bool
}

// Of is the limit at a capacity.
func (q Quota) Of(units int) int {
	if q.PerUnit {
		return q.N * units
	}
	return q.N
}

const (
	megabyte = 1 << 20
	day      = 24 * time.Hour
)

// quotas is the service's matrix.
var quotas = map[Tier]Quotas{
	Basic: {
		Publication: 256 << 10, Groups: 1, Connections: Quota{N: 100}, Retention: day, Units: upTo(40),
		Partitions: 32, EventHubs: Quota{N: 10}, RuntimeInfo: 50, Throughput: true,
	},
	Standard: {
		Publication: megabyte, Groups: 20, Connections: Quota{N: 5000}, Retention: 7 * day, Units: upTo(40),
		Partitions: 32, EventHubs: Quota{N: 10}, RuntimeInfo: 50, Throughput: true, AutoInflate: true, IPRules: true, Capture: true,
	},
	Premium: {
		Publication: megabyte, Groups: 100, Connections: Quota{10_000, true}, Retention: 90 * day, Units: []int{1, 2, 4, 6, 8, 10, 12, 16},
		Partitions: 100, AllPartitions: Quota{200, true}, EventHubs: Quota{100, true}, RuntimeInfo: 50,
		GrowPartitions: true, IPRules: true, ApplicationGroups: true, Capture: true,
	},
	Dedicated: {
		Publication: 20 * megabyte, Groups: 1000, Connections: Quota{100_000, true}, Retention: 90 * day, Units: upTo(20),
		Partitions: 1024, AllPartitions: Quota{2000, true}, EventHubs: Quota{N: 1000}, RuntimeInfo: 50,
		GrowPartitions: true, IPRules: true, ApplicationGroups: true, Capture: true,
	},
	Unlimited: {
		Publication: MaxPublication, RetentionForEver: true, Units: upTo(1), Partitions: MaxPartitions,
		GrowPartitions: true, IPRules: true, ApplicationGroups: true, Capture: true,
	},
}

func upTo(n int) []int {
	var units []int
	for i := range n {
		units = append(units, i+1)
	}
	return units
}

// Quotas returns the tier's limits. The slices are not to be changed.
func (t Tier) Quotas() Quotas {
	if t == "" {
		t = Unlimited
	}
	return quotas[t]
}

// UnitName is what the service calls one of the tier's units, such as
// "throughput unit"; "" of a tier without units.
func (t Tier) UnitName() string { return unitNames[t] }

var unitNames = map[Tier]string{Basic: "throughput unit", Standard: "throughput unit", Premium: "processing unit", Dedicated: "capacity unit"}

// checkUnits holds a capacity to what the tier sells.
func (t Tier) checkUnits(namespace string, n int) error {
	units := t.Quotas().Units
	if slices.Contains(units, n) {
		return nil
	}
	if t == Unlimited {
		return fail(InvalidArgument, namespace, "The tier unlimited has no units to choose; leave the capacity at 1.")
	}
	list := fmt.Sprintf("1 to %d", units[len(units)-1])
	if t == Premium {
		list = strings.Trim(fmt.Sprint(units), "[]")
	}
	return fail(InvalidArgument, namespace, "A namespace of the tier %s has %s %ss, not %d.", t, list, unitNames[t], n)
}
