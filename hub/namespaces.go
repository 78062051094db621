package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// Options says how to open the namespaces of a broker. Store is needed.
type Options struct {
	Store store.Store
	// Codecs read the encodings that the servers store.
	Codecs map[event.Encoding]event.Codec
	// Default is the name of the namespace that is meant when none is named;
	// "" means "localhost".
	Default string
	// Rules are authorization rules that hold in every namespace, and are not
	// stored: the development key, or the keys of the data folder.
	Rules []Rule
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger; nil means none.
	Logger *slog.Logger
}

// Namespaces are the namespaces of a broker. Close it when no server uses it
// any more.
type Namespaces struct {
	o      Options
	meta   store.Meta
	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // ends what runs behind: reopening, retention
	cancel context.CancelFunc
	wg     sync.WaitGroup

	changing sync.Mutex // serialises changes to entities

	mu     sync.RWMutex
	byName map[string]*Namespace // by lower-case name
}

// Namespace holds event hubs, and the authorization rules and metrics that they
// share.
type Namespace struct {
	Name    string
	Created time.Time
	Metrics NamespaceMetrics

	all *Namespaces

	mu    sync.RWMutex
	rules []Rule
	hubs  map[string]*EventHub // by lower-case name
}

// Keys of Meta. A hub with its groups, rules and settings is one value.
const (
	namespaceKeys = "namespace/" // + name
	hubKeys       = "hub/"       // + namespace, slash, name, both lower case
	trashKeys     = "trash/"     // + hub id: a hub whose partitions are being deleted
)

type namespaceRecord struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Rules   []Rule    `json:"rules,omitempty"`
}

// Open reads the entities from the store. The default namespace exists
// afterwards.
func Open(ctx context.Context, o Options) (*Namespaces, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Default == "" {
		o.Default = "localhost"
	}
	n := &Namespaces{o: o, meta: o.Store.Meta(), log: o.Logger, byName: map[string]*Namespace{}}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.load(ctx); err != nil {
		n.cancel()
		return nil, fmt.Errorf("read the entities: %w", err)
	}
	if n.find(o.Default) == nil {
		if _, err := n.Create(ctx, o.Default); err != nil {
			n.cancel()
			return nil, err
		}
	}
	if err := n.emptyTrash(ctx); err != nil {
		n.cancel()
		return nil, fmt.Errorf("finish the deletion of an event hub: %w", err)
	}
	n.wg.Go(n.retain)
	return n, nil
}

func (n *Namespaces) load(ctx context.Context) error {
	for e, err := range n.meta.List(ctx, namespaceKeys, "") {
		if err != nil {
			return err
		}
		var r namespaceRecord
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return fmt.Errorf("the record %s: %w", e.Key, err)
		}
		n.add(&r)
	}
	for e, err := range n.meta.List(ctx, hubKeys, "") {
		if err != nil {
			return err
		}
		var r hubRecord
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return fmt.Errorf("the record %s: %w", e.Key, err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(e.Key, hubKeys), "/")
		ns := n.find(name)
		if ns == nil {
			return fmt.Errorf("the record %s is of a namespace that does not exist", e.Key)
		}
		ns.hubs[strings.ToLower(r.Name)] = newEventHub(ns, &r, e.Version)
	}
	return nil
}

func (n *Namespaces) add(r *namespaceRecord) *Namespace {
	ns := &Namespace{Name: r.Name, Created: r.Created, all: n, rules: r.Rules, hubs: map[string]*EventHub{}}
	n.mu.Lock()
	n.byName[strings.ToLower(r.Name)] = ns
	n.mu.Unlock()
	return ns
}

// Create makes a namespace, durably.
func (n *Namespaces) Create(ctx context.Context, name string) (*Namespace, error) {
	if err := checkName("namespace", name, 50); err != nil {
		return nil, err
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	if n.find(name) != nil {
		return nil, fail(AlreadyExists, name, "The namespace '%s' already exists.", name)
	}
	r := &namespaceRecord{Name: name, Created: n.now()}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if _, err := n.meta.Put(ctx, namespaceKeys+strings.ToLower(name), b, 0); err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	return n.add(r), nil
}

// now is the current time in whole milliseconds, the resolution of all that is
// stored.
func (n *Namespaces) now() time.Time { return n.o.Now().Truncate(time.Millisecond).UTC() }

func (n *Namespaces) find(name string) *Namespace {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byName[strings.ToLower(name)]
}

// Lookup returns the namespace that a host names: by the whole of it without
// the port, or its first label. A host that names none means the default.
func (n *Namespaces) Lookup(host string) *Namespace {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		host = host[:i]
	}
	if ns := n.find(host); ns != nil {
		return ns
	}
	if label, _, ok := strings.Cut(host, "."); ok {
		if ns := n.find(label); ns != nil {
			return ns
		}
	}
	return n.find(n.o.Default)
}

// Default is the namespace that is meant when none is named.
func (n *Namespaces) Default() *Namespace { return n.find(n.o.Default) }

// All returns the namespaces, by name.
func (n *Namespaces) All() []*Namespace {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []*Namespace
	for _, ns := range n.byName {
		out = append(out, ns)
	}
	slices.SortFunc(out, func(a, b *Namespace) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Codec returns the codec of an encoding, nil if there is none.
func (n *Namespaces) Codec(e event.Encoding) event.Codec { return n.o.Codecs[e] }

// Close stops what runs behind and waits for it. The store is the caller's.
func (n *Namespaces) Close() {
	n.cancel()
	n.wg.Wait()
}

// Rule implements auth.Keys.
func (n *Namespaces) Rule(namespace, hub, name string) (auth.Rule, bool) {
	ns := n.Lookup(namespace)
	var rules []Rule
	if hub == "" {
		ns.mu.RLock()
		rules = ns.rules
		ns.mu.RUnlock()
	} else if h, err := ns.EventHub(hub); err == nil {
		rules = h.Settings().Rules
	}
	if hub == "" {
		rules = append(rules[:len(rules):len(rules)], n.o.Rules...)
	}
	for _, r := range rules {
		if strings.EqualFold(r.Name, name) {
			return auth.Rule{Rights: r.Rights, Primary: r.Primary, Secondary: r.Secondary}, true
		}
	}
	return auth.Rule{}, false
}

// SetRules replaces the authorization rules of the namespace, durably.
func (ns *Namespace) SetRules(ctx context.Context, rules []Rule) error {
	n := ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	b, err := json.Marshal(&namespaceRecord{Name: ns.Name, Created: ns.Created, Rules: rules})
	if err != nil {
		return err
	}
	if _, err := n.meta.Put(ctx, namespaceKeys+strings.ToLower(ns.Name), b, store.AnyVersion); err != nil {
		return fmt.Errorf("change the rules of namespace %s: %w", ns.Name, err)
	}
	ns.mu.Lock()
	ns.rules = slices.Clone(rules)
	ns.mu.Unlock()
	return nil
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
	if partitions < 1 || partitions > MaxPartitions {
		return nil, fail(InvalidArgument, name, "An event hub has from 1 to %d partitions, not %d.", MaxPartitions, partitions)
	}
	s, err := s.withDefaults(name)
	if err != nil {
		return nil, err
	}
	n := ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	if _, err := ns.EventHub(name); err == nil {
		return nil, fail(AlreadyExists, name, "The event hub '%s' already exists.", name)
	}
	now := n.now()
	r := &hubRecord{ID: rand.Uint64()>>1 + 1, Name: name, Created: now, Updated: now, Partitions: partitions, Settings: s}
	v, err := n.putHub(ctx, ns, r, 0)
	if err != nil {
		return nil, fmt.Errorf("create event hub %s: %w", name, err)
	}
	h := newEventHub(ns, r, v)
	ns.mu.Lock()
	ns.hubs[strings.ToLower(name)] = h
	ns.mu.Unlock()
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

// DeleteEventHub removes a hub with its events. Its receivers are detached.
func (ns *Namespace) DeleteEventHub(ctx context.Context, name string) error {
	n := ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	h, err := ns.EventHub(name)
	if err != nil {
		return err
	}
	b, err := json.Marshal(trashRecord{Key: hubKey(ns, h.Name), Partitions: len(h.partitions)})
	if err != nil {
		return err
	}
	trash := trashKey(h.id)
	if _, err := n.meta.Put(ctx, trash, b, store.AnyVersion); err != nil {
		return fmt.Errorf("delete event hub %s: %w", name, err)
	}
	if err := n.meta.Delete(ctx, hubKey(ns, h.Name), store.AnyVersion); err != nil {
		return fmt.Errorf("delete event hub %s: %w", name, err)
	}
	ns.mu.Lock()
	delete(ns.hubs, strings.ToLower(name))
	ns.mu.Unlock()
	h.end()
	if err := n.deleteLogs(context.WithoutCancel(ctx), h.id, len(h.partitions)); err != nil {
		// The hub is gone; the rest is done at the next start.
		n.log.Warn("the files of a deleted event hub could not be removed yet", "hub", h.Name, "error", err)
		return nil
	}
	return n.meta.Delete(context.WithoutCancel(ctx), trash, store.AnyVersion)
}

// trashRecord says which partitions of a deleted hub are still to be removed.
type trashRecord struct {
	Key        string `json:"key"` // of the hub's record
	Partitions int    `json:"partitions"`
}

func trashKey(id uint64) string { return fmt.Sprintf("%s%016x", trashKeys, id) }

func (n *Namespaces) deleteLogs(ctx context.Context, id uint64, partitions int) error {
	var errs []error
	for p := range partitions {
		errs = append(errs, n.o.Store.Delete(ctx, store.LogID{Hub: id, Partition: uint32(p)}))
	}
	return errors.Join(errs...)
}

// emptyTrash finishes deletions that were interrupted.
func (n *Namespaces) emptyTrash(ctx context.Context) error {
	type item struct {
		key string
		id  uint64
		r   trashRecord
	}
	var items []item
	for e, err := range n.meta.List(ctx, trashKeys, "") {
		if err != nil {
			return err
		}
		it := item{key: e.Key}
		if _, err := fmt.Sscanf(e.Key, trashKeys+"%016x", &it.id); err != nil {
			return fmt.Errorf("the record %s: %w", e.Key, err)
		}
		if err := json.Unmarshal(e.Value, &it.r); err != nil {
			return fmt.Errorf("the record %s: %w", e.Key, err)
		}
		items = append(items, it)
	}
	for _, it := range items {
		if !n.hasHub(it.id) { // else the deletion had not begun
			if err := n.deleteLogs(ctx, it.id, it.r.Partitions); err != nil {
				return err
			}
		}
		if err := n.meta.Delete(ctx, it.key, store.AnyVersion); err != nil {
			return err
		}
	}
	return nil
}

func (n *Namespaces) hasHub(id uint64) bool {
	for _, ns := range n.All() {
		for _, h := range ns.EventHubs() {
			if h.id == id {
				return true
			}
		}
	}
	return false
}

// checkName holds names to what the service allows: letters, digits and
// . - _ / inside, a letter or digit at both ends.
func checkName(what, name string, limit int) error {
	if name == "" || len(name) > limit {
		return fail(InvalidArgument, name, "The name of a %s has from 1 to %d characters; '%s' has %d.", what, limit, name, len(name))
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		inner := c == '.' || c == '-' || c == '_'
		if !alnum && (!inner || i == 0 || i == len(name)-1) {
			return fail(InvalidArgument, name, "'%s' can't be the name of a %s: letters, digits, and inside it '.', '-' and '_' are allowed.", name, what)
		}
	}
	return nil
}
