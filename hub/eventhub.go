package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/store"
)

// Limits of every event hub, whatever its tier.
const (
	MaxPartitions    = 1024
	MaxGroupName     = 50
	MaxReceivers     = 5       // without epoch, per group and partition
	MaxPublication   = 1 << 20 // bytes of an event or a batch, as sent, at the tier unlimited
	DefaultGroup     = "$Default"
	DefaultRetention = 7 * 24 * time.Hour
	// MaxPartitionKey is the longest partition key, in bytes: four for each of
	// the 128 characters that the SDKs allow.
	MaxPartitionKey = 512
)

// Settings are what can be changed of a hub.
type Settings struct {
	// Retention is how long events are kept; 0 means DefaultRetention or the
	// tier's longest, whichever is shorter, a negative value for ever.
	Retention time.Duration `json:"retention"`
	// MaxBytes is how much is kept, over all partitions alike; 0 means no limit.
	// What is older goes first, in steps of an eighth.
	MaxBytes int64 `json:"maxBytes,omitempty"`
	// Groups are the consumer groups beside $Default.
	Groups []Group `json:"groups,omitempty"`
	// Rules are the hub's own authorization rules.
	Rules []Rule `json:"rules,omitempty"`
	// Status says what may be done; "" means Active.
	Status Status `json:"status,omitempty"`
	// Metadata is the users' own, up to MaxMetadata characters.
	Metadata string `json:"metadata,omitempty"`
	// Revoked are the publishers that may not send, sorted.
	Revoked []string `json:"revoked,omitempty"`
	// Capture says how events are kept as files; nil means that it was never on.
	// What it points to is not to be changed: put another in its place.
	Capture *Capture `json:"capture,omitempty"`
}

// MinMaxBytes is the least that a hub's size can be limited to.
const MinMaxBytes = 1 << 20

// MaxMetadata is the longest user metadata of a hub or a group, in characters.
const MaxMetadata = 1024

// Group is a consumer group's record.
type Group struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Updated is when it was last changed; zero if it never was.
	Updated time.Time `json:"updated,omitzero"`
	// Metadata is the users' own, up to MaxMetadata characters.
	Metadata string `json:"metadata,omitempty"`
}

func (s Settings) withDefaults(hub string, q *Quotas) (Settings, error) {
	if s.Retention == 0 {
		s.Retention = DefaultRetention
		if q.Retention > 0 {
			s.Retention = min(s.Retention, q.Retention)
		}
	}
	if s.MaxBytes < 0 || s.MaxBytes > 0 && s.MaxBytes < MinMaxBytes {
		return s, fail(InvalidArgument, hub, "The size of an event hub can be limited to %d bytes or more, not %d.", int64(MinMaxBytes), s.MaxBytes)
	}
	if err := s.Status.check(hub); err != nil {
		return s, err
	}
	if n := utf8.RuneCountInString(s.Metadata); n > MaxMetadata {
		return s, fail(InvalidArgument, hub, "The user metadata of an event hub has up to %d characters, not %d.", MaxMetadata, n)
	}
	if len(s.Rules) > MaxRules {
		return s, fail(QuotaExceeded, hub, "An event hub has up to %d authorization rules, not %d.", MaxRules, len(s.Rules))
	}
	if s.Retention > 0 && s.Retention < time.Minute {
		return s, fail(InvalidArgument, hub, "The retention of an event hub is a minute at least, not %s.", s.Retention)
	}
	s.Groups = slices.Clone(s.Groups)
	s.Rules = slices.Clone(s.Rules)
	seen := map[string]bool{}
	for _, g := range s.Groups {
		if err := checkGroupName(hub, g.Name); err != nil {
			return s, err
		}
		low := strings.ToLower(g.Name)
		if seen[low] {
			return s, fail(InvalidArgument, hub, "The consumer group '%s' is named twice.", g.Name)
		}
		if n := utf8.RuneCountInString(g.Metadata); n > MaxMetadata {
			return s, fail(InvalidArgument, hub, "The user metadata of a consumer group has up to %d characters, not %d.", MaxMetadata, n)
		}
		seen[low] = true
	}
	return s, nil
}

func checkGroupName(hub, name string) error {
	if strings.EqualFold(name, DefaultGroup) {
		return fail(Forbidden, hub, "The consumer group %s always exists; it can neither be created nor deleted.", DefaultGroup)
	}
	return checkName("consumer group", name, MaxGroupName)
}

// hubRecord is a hub as it is stored: one value for what must change together.
type hubRecord struct {
	ID         uint64    `json:"id"`
	Name       string    `json:"name"`
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
	Partitions int       `json:"partitions"`
	// Since is where capture began.
	Since captureSince `json:"captureSince,omitzero"`
	Settings
}

// EventHub is a partitioned log with its consumer groups.
type EventHub struct {
	// Name is as it was given at the creation; lookups fold case.
	Name    string
	Created time.Time
	Metrics Metrics

	ns    *Namespace
	id    uint64
	parts atomic.Pointer[[]*Partition] // by number; replaced when some are added
	turn  atomic.Uint32
	state atomic.Pointer[hubState]
	shut  atomic.Uint32 // for what the status closes it
	fault atomic.Pointer[Fault]
	ended chan struct{}

	mu     sync.Mutex
	groups map[string]*ConsumerGroup // by lower-case name

	// Namespaces.metering guards these.
	last  byteTotals // when partitions were last rated
	quiet bool       // and nothing had come then since the time before
}

// hubState is what changes of a hub; it is replaced as a whole.
type hubState struct {
	record  hubRecord
	version store.Version
}

func newEventHub(ns *Namespace, r *hubRecord, v store.Version) *EventHub {
	h := &EventHub{Name: r.Name, Created: r.Created, ns: ns, id: r.ID, ended: make(chan struct{}), groups: map[string]*ConsumerGroup{}}
	h.state.Store(&hubState{*r, v})
	h.shut.Store(r.Status.shut())
	h.grow(r.Partitions)
	return h
}

// Namespace is the namespace that the hub is in.
func (h *EventHub) Namespace() *Namespace { return h.ns }

// Settings returns the current settings. The slices are not to be changed.
func (h *EventHub) Settings() Settings { return h.state.Load().record.Settings }

// Updated is when the settings were last changed.
func (h *EventHub) Updated() time.Time { return h.state.Load().record.Updated }

// grow adds partitions up to a number.
func (h *EventHub) grow(to int) {
	ps := slices.Clone(h.partitions())
	for len(ps) < to {
		ps = append(ps, newPartition(h, len(ps)))
	}
	h.parts.Store(&ps)
}

func (h *EventHub) partitions() []*Partition {
	if ps := h.parts.Load(); ps != nil {
		return *ps
	}
	return nil
}

// Partitions is how many partitions the hub has. It may grow.
func (h *EventHub) Partitions() int { return len(h.partitions()) }

// Ended is closed when the hub is deleted.
func (h *EventHub) Ended() <-chan struct{} { return h.ended }

// Partition returns a partition by its id: a decimal number without sign or
// leading zeros.
func (h *EventHub) Partition(id string) (*Partition, error) {
	ps := h.partitions()
	n, err := strconv.Atoi(id)
	if err != nil || n < 0 || n >= len(ps) || id != strconv.Itoa(n) {
		return nil, fail(PartitionOutOfRange, h.Name+"/Partitions/"+id,
			"The specified partition is invalid for an EventHub partition sender or receiver. It should be between 0 and %d.", len(ps)-1)
	}
	return ps[n], nil
}

// At returns the partition of a number, which is in range.
func (h *EventHub) At(n int) *Partition { return h.partitions()[n] }

// ForKey returns the partition that a key is assigned to.
func (h *EventHub) ForKey(key string) *Partition {
	ps := h.partitions()
	return ps[PartitionOf(key, len(ps))]
}

// Next returns the partition whose turn it is.
func (h *EventHub) Next() *Partition {
	ps := h.partitions()
	return ps[(h.turn.Add(1)-1)%uint32(len(ps))]
}

// Update changes the settings, durably. change gets a copy to alter.
func (h *EventHub) Update(ctx context.Context, change func(*Settings) error) error {
	return h.Change(ctx, 0, change)
}

// Change changes the settings, and adds partitions up to the given number, in
// one step and durably; 0 leaves them as they are. Events stay where they are,
// and a key may mean another partition afterwards. change gets a copy of the
// settings to alter.
func (h *EventHub) Change(ctx context.Context, partitions int, change func(*Settings) error) error {
	n := h.ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	select {
	case <-h.ended:
		return notFound(h.ns.Name, h.Name)
	default:
	}
	old := h.state.Load()
	r := old.record
	r.Groups, r.Rules, r.Revoked = slices.Clone(r.Groups), slices.Clone(r.Rules), slices.Clone(r.Revoked)
	if err := change(&r.Settings); err != nil {
		return err
	}
	if partitions != 0 && partitions != r.Partitions {
		if err := h.mayGrow(r.Partitions, partitions); err != nil {
			return err
		}
		r.Partitions = partitions
	}
	var err error
	q := h.ns.Quotas()
	if r.Settings, err = r.Settings.withDefaults(h.Name, &q); err != nil {
		return err
	}
	if err := q.check(h.Name, &r.Settings); err != nil {
		return err
	}
	if err := n.checkCapture(h.Name, &r.Settings, &q); err != nil {
		return err
	}
	if r.captures() && !old.record.captures() {
		if r.Since, err = h.sinceNow(ctx); err != nil {
			return err
		}
	}
	r.Updated = n.now()
	v, err := n.putHub(ctx, h.ns, &r, old.version)
	if err != nil {
		return fmt.Errorf("update event hub %s: %w", h.Name, err)
	}
	h.state.Store(&hubState{r, v})
	h.shut.Store(r.Status.shut())
	if r.Partitions > h.Partitions() {
		h.grow(r.Partitions)
	}
	for _, p := range h.partitions() {
		p.configure(r.Settings)
	}
	h.dropGroups(r.Settings)
	if err := h.mayReceive(); err != nil {
		h.detach(err)
	}
	n.captureChanged(h)
	return nil
}

// mayGrow tells why the hub can't have more partitions, if it can't.
func (h *EventHub) mayGrow(from, to int) error {
	s := h.ns.state.Load()
	switch {
	case to < from:
		return fail(InvalidArgument, h.Name, "The event hub '%s' has %d partitions; there can be more, never fewer.", h.Name, from)
	case !s.quotas.GrowPartitions:
		return fail(InvalidArgument, h.Name, "The event hub '%s' has %d partitions; at the tier %s that can't be changed.", h.Name, from, s.record.Tier)
	}
	if err := s.quotas.checkPartitions(h.Name, to); err != nil {
		return err
	}
	all := to - from
	for _, other := range h.ns.EventHubs() {
		all += other.Partitions()
	}
	return s.quotas.checkAll(h.ns.Name, s.record.Capacity, all)
}

// Groups returns the names of the consumer groups, $Default first.
func (h *EventHub) Groups() []Group {
	return append([]Group{{Name: DefaultGroup, Created: h.Created}}, h.Settings().Groups...)
}

// CreateGroup adds a consumer group.
func (h *EventHub) CreateGroup(ctx context.Context, name string) error {
	_, err := h.AddGroup(ctx, Group{Name: name})
	return err
}

// DeleteGroup removes a consumer group. Its receivers are detached.
func (h *EventHub) DeleteGroup(ctx context.Context, name string) error {
	if err := checkGroupName(h.Name, name); err != nil {
		return err
	}
	return h.Update(ctx, func(s *Settings) error {
		i := s.group(name)
		if i < 0 {
			return h.groupNotFound(name)
		}
		s.Groups = slices.Delete(s.Groups, i, i+1)
		return nil
	})
}

func (s *Settings) group(name string) int {
	return slices.IndexFunc(s.Groups, func(g Group) bool { return strings.EqualFold(g.Name, name) })
}

func (h *EventHub) groupNotFound(name string) error {
	return notFound(h.ns.Name, strings.ToLower(h.Name)+"/consumergroups/"+strings.ToLower(name))
}

// Group returns a consumer group by its name, in any case.
func (h *EventHub) Group(name string) (*ConsumerGroup, error) {
	s := h.Settings()
	full := DefaultGroup
	if !strings.EqualFold(name, DefaultGroup) {
		i := s.group(name)
		if i < 0 {
			return nil, h.groupNotFound(name)
		}
		full = s.Groups[i].Name
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	low := strings.ToLower(name)
	g := h.groups[low]
	if g == nil {
		g = &ConsumerGroup{Name: full, hub: h, seats: map[int]*seats{}}
		h.groups[low] = g
	}
	return g, nil
}

// dropGroups detaches the receivers of groups that are no more.
func (h *EventHub) dropGroups(s Settings) {
	h.mu.Lock()
	var gone []*ConsumerGroup
	for low, g := range h.groups {
		if low != strings.ToLower(DefaultGroup) && s.group(low) < 0 {
			gone = append(gone, g)
			delete(h.groups, low)
		}
	}
	h.mu.Unlock()
	for _, g := range gone {
		g.end(h.groupNotFound(g.Name))
	}
}

// end is the hub's deletion, as its receivers see it.
func (h *EventHub) end() {
	close(h.ended)
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.groups))
	h.mu.Unlock()
	for _, g := range all {
		g.end(notFound(h.ns.Name, h.Name))
	}
	for _, p := range h.partitions() {
		p.end()
	}
}

// detach has every receiver lose its place.
func (h *EventHub) detach(err error) {
	h.mu.Lock()
	all := slices.Collect(maps.Values(h.groups))
	h.mu.Unlock()
	for _, g := range all {
		g.detach(err)
	}
}
