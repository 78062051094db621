package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
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
	// Capturer captures events; nil means that hubs can't be captured.
	Capturer Capturer
	// Configured are authorization rules that stand in a configuration: they hold
	// before stored ones of the same name, for as long as they stand there, and are
	// not stored. Names are in any case.
	Configured []RulesOf
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

	started    time.Time
	pressures  chan pressure
	changing   sync.Mutex // serialises changes to entities
	configured map[ruleOwner][]Rule
	localAuth  []func(*Namespace)

	metering sync.Mutex
	meters   map[*Namespace]*meter
	rated    time.Duration // when partitions were last rated

	producerIDs               sync.Mutex // guards the ids that can be given
	nextProducer, endProducer int64

	mu     sync.RWMutex
	byName map[string]*Namespace // by lower-case name
}

// Keys of Meta. A hub with its groups, rules and settings is one value.
const (
	namespaceKeys = "namespace/" // + name
	hubKeys       = "hub/"       // + namespace, slash, name, both lower case
	trashKeys     = "trash/"     // + hub id: a hub whose partitions are being deleted
)

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
	n := &Namespaces{o: o, meta: o.Store.Meta(), log: o.Logger, started: o.Now(), pressures: make(chan pressure, 8),
		meters: map[*Namespace]*meter{}, byName: map[string]*Namespace{}}
	n.configured = configuredRules(&n.o)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.load(ctx); err != nil {
		n.cancel()
		return nil, fmt.Errorf("read the entities: %w", err)
	}
	if n.find(o.Default) == nil {
		if _, err := n.Create(ctx, o.Default, NamespaceSettings{}); err != nil {
			n.cancel()
			return nil, err
		}
	}
	if err := n.emptyTrash(ctx); err != nil {
		n.cancel()
		return nil, fmt.Errorf("finish the deletion of an event hub: %w", err)
	}
	if err := n.finishDeletions(ctx); err != nil {
		n.cancel()
		return nil, fmt.Errorf("finish the deletion of a namespace: %w", err)
	}
	n.wg.Go(n.retain)
	n.wg.Go(n.inflate)
	n.wg.Go(n.measure)
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
	ns := n.newNamespace(r)
	n.mu.Lock()
	n.byName[strings.ToLower(r.Name)] = ns
	n.mu.Unlock()
	return ns
}

// Create makes a namespace, durably.
func (n *Namespaces) Create(ctx context.Context, name string, s NamespaceSettings) (*Namespace, error) {
	if err := checkName("namespace", name, 50); err != nil {
		return nil, err
	}
	n.changing.Lock()
	defer n.changing.Unlock()
	if n.find(name) != nil {
		return nil, fail(AlreadyExists, name, "The namespace '%s' already exists.", name)
	}
	s = s.withDefaults()
	if err := checkSettings(name, &s); err != nil {
		return nil, err
	}
	r := &namespaceRecord{Name: name, Created: n.now(), NamespaceSettings: s}
	if err := n.putNamespace(ctx, r, 0); err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	ns := n.add(r)
	ns.tellLocalAuth()
	return ns, nil
}

// now is the current time in whole milliseconds, the resolution of all that is
// stored.
func (n *Namespaces) now() time.Time { return n.o.Now().Truncate(time.Millisecond).UTC() }

// elapsed is a clock that never goes back, unless a test's does.
func (n *Namespaces) elapsed() time.Duration { return n.o.Now().Sub(n.started) }

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

// Named returns the namespace of exactly that name, in any case.
func (n *Namespaces) Named(name string) (*Namespace, error) {
	if ns := n.find(name); ns != nil {
		return ns, nil
	}
	return nil, fail(NotFound, name, "There is no namespace '%s'.", name)
}

// SameName tells whether two names of entities mean the same one.
func SameName(a, b string) bool { return strings.EqualFold(a, b) }

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
	n.closeProducers()
}

// Rule implements auth.Keys.
func (n *Namespaces) Rule(namespace, hub, name string) (auth.Rule, bool) {
	ns := n.Lookup(namespace)
	set := ns.Rules()
	if hub != "" {
		set = RuleSet{configured: ns.configured(hub), stored: func() []Rule { return nil }}
		if h, err := ns.EventHub(hub); err == nil {
			set = h.Rules()
		}
	}
	r, ok := set.lookup(name)
	return auth.Rule{Rights: r.Rights, Primary: r.Primary, Secondary: r.Secondary}, ok
}

// IsOwn tells whether a rule of a namespace has the name of one of Options.Rules:
// it is the broker's own then, whose key whoever runs the broker has.
func (n *Namespaces) IsOwn(rule string) bool { return indexRule(n.o.Rules, rule) >= 0 }

// LocalAuthDisabled implements auth.Keys.
func (n *Namespaces) LocalAuthDisabled(namespace string) bool {
	return n.Lookup(namespace).LocalAuthDisabled()
}

// OnLocalAuthDisabled has fn be called whenever a namespace has just had its local
// authentication disabled, or was made so: what keys have opened is to be closed.
// fn must not block.
func (n *Namespaces) OnLocalAuthDisabled(fn func(*Namespace)) {
	n.changing.Lock()
	defer n.changing.Unlock()
	n.localAuth = append(n.localAuth, fn)
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
