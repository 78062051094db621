package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/store"
)

// Namespace holds event hubs, and what they share: authorization rules, a tier
// with its quotas, throughput units, metrics.
type Namespace struct {
	Name    string
	Created time.Time
	Metrics NamespaceMetrics

	all        *Namespaces
	state      atomic.Pointer[namespaceState]
	throughput atomic.Pointer[throughput] // nil while the traffic is not limited
	described  calls
	ended      chan struct{}

	mu   sync.RWMutex
	hubs map[string]*EventHub // by lower-case name

	watching sync.Mutex
	watchers map[*func()]struct{}
}

// NamespaceSettings are what can be changed of a namespace.
type NamespaceSettings struct {
	// Tier decides on the quotas; "" means Unlimited.
	Tier Tier `json:"tier,omitempty"`
	// Capacity is the number of the tier's units; 0 means 1.
	Capacity int `json:"capacity,omitempty"`
	// AutoInflate says that the capacity grows with the load, up to
	// MaximumCapacity. It never shrinks by itself.
	AutoInflate     bool `json:"autoInflate,omitempty"`
	MaximumCapacity int  `json:"maximumCapacity,omitempty"`
	// Rules are the namespace's authorization rules.
	Rules []Rule `json:"rules,omitempty"`
	// DisableLocalAuth says that keys, and what they have signed, are refused.
	// Source: disableLocalAuth of Microsoft.EventHub/namespaces.
	DisableLocalAuth bool `json:"disableLocalAuth,omitempty"`
	// DenyByDefault says that only peers of the addresses in IPRules may connect:
	// addresses, or ranges such as 10.0.0.0/8. Otherwise IPRules mean nothing, as
	// with the service.
	DenyByDefault bool     `json:"denyByDefault,omitempty"`
	IPRules       []string `json:"ipRules,omitempty"`
	// ApplicationGroups govern clients.
	ApplicationGroups []ApplicationGroup `json:"applicationGroups,omitempty"`
	// Resource is what resource managers keep with a namespace.
	Resource Resource `json:"resource,omitzero"`
}

// Resource is what is kept with a namespace for those who ask for it again, and
// changes nothing that the broker does.
type Resource struct {
	Location      string            `json:"location,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"` // replaced as a whole
	ZoneRedundant bool              `json:"zoneRedundant,omitempty"`
	MinimumTLS    string            `json:"minimumTls,omitempty"`
	// TrustedServices says that Azure's own services are let in whatever the IP
	// rules say. There are none here.
	TrustedServices bool `json:"trustedServices,omitempty"`
}

// namespaceRecord is a namespace as it is stored.
type namespaceRecord struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated,omitzero"`
	// Deleting says that the namespace is gone, and its hubs are being removed.
	Deleting bool `json:"deleting,omitempty"`
	NamespaceSettings
}

// namespaceState is what changes of a namespace; it is replaced as a whole.
type namespaceState struct {
	record  namespaceRecord
	quotas  Quotas
	allowed []netip.Prefix // by IPRules
	groups  map[securityContext]*governed
}

func (n *Namespaces) newNamespace(r *namespaceRecord) *Namespace {
	ns := &Namespace{Name: r.Name, Created: r.Created, all: n, ended: make(chan struct{}), hubs: map[string]*EventHub{}}
	ns.set(r)
	return ns
}

// set makes a record the namespace's state.
func (ns *Namespace) set(r *namespaceRecord) {
	r.NamespaceSettings = r.NamespaceSettings.withDefaults()
	q := r.Tier.Quotas()
	allowed, err := readIPRules(r.Name, &r.NamespaceSettings)
	if err != nil { // of a record that was damaged: nobody is let in who might not be
		ns.all.log.Error("the IP rules of a namespace can't be read: nobody may connect", "namespace", r.Name, "error", err)
		r.DenyByDefault = true
	}
	next := &namespaceState{*r, q, allowed, nil}
	if old := ns.state.Load(); old != nil {
		next.groups = old.groups
	}
	next.groups = ns.govern(r.ApplicationGroups, next.groups)
	ns.state.Store(next)
	defer ns.tell()
	if !q.Throughput {
		ns.throughput.Store(nil)
		return
	}
	t := ns.throughput.Load()
	if t == nil {
		t = &throughput{now: ns.all.elapsed, pressed: ns.pressed}
	}
	t.setUnits(r.Capacity)
	ns.throughput.Store(t)
}

func (s NamespaceSettings) withDefaults() NamespaceSettings {
	if s.Tier == "" {
		s.Tier = Unlimited
	}
	if s.Capacity == 0 {
		s.Capacity = 1
	}
	s.Rules, s.IPRules, s.ApplicationGroups = slices.Clone(s.Rules), slices.Clone(s.IPRules), slices.Clone(s.ApplicationGroups)
	return s
}

// check holds the settings to what the tier allows, and the hubs that there are
// to the settings.
func (ns *Namespace) check(s *NamespaceSettings) error {
	if err := checkSettings(ns.Name, s); err != nil {
		return err
	}
	q := s.Tier.Quotas()
	hubs := ns.EventHubs()
	if limit := q.EventHubs.Of(s.Capacity); limit > 0 && len(hubs) > limit {
		return fail(InvalidArgument, ns.Name, "The namespace has %d event hubs; at the tier %s and capacity %d it may have %d.", len(hubs), s.Tier, s.Capacity, limit)
	}
	all := 0
	for _, h := range hubs {
		all += h.Partitions()
		settings := h.Settings()
		if err := q.checkPartitions(h.Name, h.Partitions()); err != nil {
			return err
		}
		if err := q.check(h.Name, &settings); err != nil {
			return err
		}
		if settings.captures() && !q.Capture {
			return fail(InvalidArgument, h.Name, "The event hub '%s' is captured, which event hubs of the tier %s can't be.", h.Name, s.Tier)
		}
	}
	return q.checkAll(ns.Name, s.Capacity, all)
}

// checkSettings holds a namespace's settings to what its tier allows.
func checkSettings(namespace string, s *NamespaceSettings) error {
	if _, err := ParseTier(string(s.Tier)); err != nil {
		return err
	}
	if err := s.Tier.checkUnits(namespace, s.Capacity); err != nil {
		return err
	}
	q := s.Tier.Quotas()
	if len(s.Rules) > MaxRules {
		return fail(QuotaExceeded, namespace, "A namespace has up to %d authorization rules, not %d.", MaxRules, len(s.Rules))
	}
	if _, err := readIPRules(namespace, s); err != nil {
		return err
	}
	if err := checkGroups(namespace, s); err != nil {
		return err
	}
	if !s.AutoInflate {
		return nil
	}
	switch {
	case !q.AutoInflate:
		return fail(InvalidArgument, namespace, "A namespace of the tier %s has no auto-inflate; the tier standard has.", s.Tier)
	case s.MaximumCapacity < s.Capacity:
		return fail(InvalidArgument, namespace, "The maximum of %d throughput units is below the capacity of %d.", s.MaximumCapacity, s.Capacity)
	}
	return s.Tier.checkUnits(namespace, s.MaximumCapacity)
}

// Settings returns the current settings. The slices are not to be changed.
func (ns *Namespace) Settings() NamespaceSettings { return ns.state.Load().record.NamespaceSettings }

// Quotas returns what the namespace's tier allows.
func (ns *Namespace) Quotas() Quotas { return ns.state.Load().quotas }

// Updated is when the settings were last changed; of a namespace as it was made,
// when that was.
func (ns *Namespace) Updated() time.Time {
	if r := &ns.state.Load().record; !r.Updated.IsZero() {
		return r.Updated
	}
	return ns.Created
}

// Ended is closed when the namespace is deleted.
func (ns *Namespace) Ended() <-chan struct{} { return ns.ended }

// Watch has fn be called after each change of the settings, until stop is called.
// fn must not block. One call may still be under way when stop returns.
func (ns *Namespace) Watch(fn func()) (stop func()) {
	key := &fn
	ns.watching.Lock()
	defer ns.watching.Unlock()
	if ns.watchers == nil {
		ns.watchers = map[*func()]struct{}{}
	}
	ns.watchers[key] = struct{}{}
	return func() {
		ns.watching.Lock()
		defer ns.watching.Unlock()
		delete(ns.watchers, key)
	}
}

func (ns *Namespace) tell() {
	ns.watching.Lock()
	defer ns.watching.Unlock()
	for fn := range ns.watchers {
		(*fn)()
	}
}

// Update changes the settings, durably. change gets a copy to alter.
func (ns *Namespace) Update(ctx context.Context, change func(*NamespaceSettings) error) error {
	n := ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	return ns.update(ctx, change)
}

// update is Update while n.changing is held.
func (ns *Namespace) update(ctx context.Context, change func(*NamespaceSettings) error) error {
	n := ns.all
	select {
	case <-ns.ended:
		return notFound(ns.Name, "")
	default:
	}
	before := ns.state.Load()
	r := before.record
	r.Rules, r.IPRules, r.ApplicationGroups = slices.Clone(r.Rules), slices.Clone(r.IPRules), slices.Clone(r.ApplicationGroups)
	if err := change(&r.NamespaceSettings); err != nil {
		return err
	}
	r.NamespaceSettings = r.NamespaceSettings.withDefaults()
	if err := ns.check(&r.NamespaceSettings); err != nil {
		return err
	}
	r.Updated = n.now()
	if err := n.putNamespace(ctx, &r, store.AnyVersion); err != nil {
		return fmt.Errorf("update namespace %s: %w", ns.Name, err)
	}
	ns.set(&r)
	if !before.record.DisableLocalAuth {
		ns.tellLocalAuth()
	}
	return nil
}

// tellLocalAuth tells those who asked for it, if keys are refused now.
// n.changing is held.
func (ns *Namespace) tellLocalAuth() {
	if ns.LocalAuthDisabled() {
		for _, fn := range ns.all.localAuth {
			fn(ns)
		}
	}
}

// LocalAuthDisabled tells whether the namespace takes no key and nothing that one
// has signed.
func (ns *Namespace) LocalAuthDisabled() bool { return ns.state.Load().record.DisableLocalAuth }

func (n *Namespaces) putNamespace(ctx context.Context, r *namespaceRecord, expect store.Version) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = n.meta.Put(ctx, namespaceKeys+strings.ToLower(r.Name), b, expect)
	return err
}

// Connect counts a connection, or refuses it with QuotaExceeded when the tier
// allows no more. Call Disconnect when it has ended.
func (ns *Namespace) Connect() error {
	open := ns.Metrics.ActiveConnections.Add(1)
	s := ns.state.Load()
	if limit := s.quotas.Connections.Of(s.record.Capacity); limit > 0 && open > int64(limit) {
		ns.Metrics.ActiveConnections.Add(-1)
		return fail(QuotaExceeded, ns.Name, "Cannot allocate more connections for the namespace %s: its quota of %d connections is used up.", ns.Name, limit)
	}
	ns.Metrics.ConnectionsOpened.Add(1)
	return nil
}

// Disconnect counts the end of a connection.
func (ns *Namespace) Disconnect() {
	ns.Metrics.ActiveConnections.Add(-1)
	ns.Metrics.ConnectionsClosed.Add(1)
}

// EventHub returns a hub by its name, in any case.
func (ns *Namespace) EventHub(name string) (*EventHub, error) {
	ns.mu.RLock()
	h := ns.hubs[strings.ToLower(name)]
	ns.mu.RUnlock()
	if h == nil {
		return nil, notFound(ns.Name, name)
	}
	return h, nil
}

// EventHubs returns the hubs, by name.
func (ns *Namespace) EventHubs() []*EventHub {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	var out []*EventHub
	for _, h := range ns.hubs {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b *EventHub) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// CreateEventHub makes a hub with the given number of partitions, 1 to
// MaxPartitions, durably. The group $Default exists from the beginning.
func (ns *Namespace) CreateEventHub(ctx context.Context, name string, partitions int, s Settings) (*EventHub, error) {
	if err := checkName("event hub", name, 256); err != nil {
		return nil, err
	}
	n := ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	q := ns.Quotas()
	s, err := s.withDefaults(name, &q)
	if err != nil {
		return nil, err
	}
	if err := ns.mayCreate(name, partitions, &s); err != nil {
		return nil, err
	}
	if err := n.checkCapture(name, &s, &q); err != nil {
		return nil, err
	}
	now := n.now()
	r := &hubRecord{ID: rand.Uint64()>>1 + 1, Name: name, Created: now, Updated: now, Partitions: partitions, Settings: s}
	if s.captures() {
		r.Since.Time = now
	}
	v, err := n.putHub(ctx, ns, r, 0)
	if err != nil {
		return nil, fmt.Errorf("create event hub %s: %w", name, err)
	}
	h := newEventHub(ns, r, v)
	ns.mu.Lock()
	ns.hubs[strings.ToLower(name)] = h
	ns.mu.Unlock()
	n.captureChanged(h)
	return h, nil
}

func (n *Namespaces) putHub(ctx context.Context, ns *Namespace, r *hubRecord, expect store.Version) (store.Version, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	return n.meta.Put(ctx, hubKey(ns, r.Name), b, expect)
}

func hubKey(ns *Namespace, name string) string {
	return hubKeys + strings.ToLower(ns.Name) + "/" + strings.ToLower(name)
}

// mayCreate tells why a hub can't be made, if it can't.
func (ns *Namespace) mayCreate(name string, partitions int, s *Settings) error {
	select {
	case <-ns.ended:
		return notFound(ns.Name, "")
	default:
	}
	if _, err := ns.EventHub(name); err == nil {
		return fail(AlreadyExists, name, "The event hub '%s' already exists.", name)
	}
	state := ns.state.Load()
	q, units := state.quotas, state.record.Capacity
	if err := q.checkPartitions(name, partitions); err != nil {
		return err
	}
	if err := q.check(name, s); err != nil {
		return err
	}
	hubs := ns.EventHubs()
	if limit := q.EventHubs.Of(units); limit > 0 && len(hubs) >= limit {
		return fail(QuotaExceeded, name, "The namespace %s has its quota of %d event hubs; at the tier %s and capacity %d there can be no more.", ns.Name, limit, state.record.Tier, units)
	}
	for _, h := range hubs {
		partitions += h.Partitions()
	}
	return q.checkAll(ns.Name, units, partitions)
}

// checkPartitions holds a hub's number of partitions to the quotas.
func (q *Quotas) checkPartitions(hub string, n int) error {
	if n < 1 || n > q.Partitions {
		return fail(InvalidArgument, hub, "An event hub has from 1 to %d partitions, not %d.", q.Partitions, n)
	}
	return nil
}

// checkAll holds the number of a namespace's partitions to the quotas.
func (q *Quotas) checkAll(namespace string, units, n int) error {
	if limit := q.AllPartitions.Of(units); limit > 0 && n > limit {
		return fail(QuotaExceeded, namespace, "The event hubs of a namespace have up to %d partitions at this capacity, not %d.", limit, n)
	}
	return nil
}

// check holds a hub's settings to the quotas.
func (q *Quotas) check(hub string, s *Settings) error {
	if n := len(s.Groups) + 1; q.Groups > 0 && n > q.Groups {
		return fail(QuotaExceeded, hub, "The event hub '%s' has up to %d consumer groups at this tier, %s among them.", hub, q.Groups, DefaultGroup)
	}
	switch {
	case q.RetentionForEver:
	case s.Retention < 0 || s.Retention > q.Retention:
		return fail(InvalidArgument, hub, "The retention of the event hub '%s' has to be from 1 to %d hours at this tier.", hub, int64(q.Retention.Hours()))
	case s.Retention < time.Hour || s.Retention%time.Hour != 0:
		return fail(InvalidArgument, hub, "The retention of the event hub '%s' has to be a whole number of hours at this tier, not %s.", hub, s.Retention)
	}
	return nil
}
