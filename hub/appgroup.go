package hub

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
)

// ApplicationGroup governs the clients of one security context: what they may
// bring and take in a second, and whether they may connect at all.
// Sources: features.md, section 9; the page "Govern resources for client
// applications with application groups".
type ApplicationGroup struct {
	Name string `json:"name"`
	// Identifier is the security context: NamespaceSASKeyName=RULE, or
	// SASKeyName=RULE for short; EntitySASKeyName=RULE for an event hub's rule;
	// AADAppID=ID for an application of Microsoft Entra.
	Identifier string `json:"identifier"`
	// Disabled keeps the clients out. Those that are connected are cut off.
	Disabled bool               `json:"disabled,omitempty"`
	Policies []ThrottlingPolicy `json:"policies,omitempty"`
}

// ThrottlingPolicy bounds what an application group's clients bring or take.
type ThrottlingPolicy struct {
	Name   string `json:"name"`
	Metric Metric `json:"metric"`
	// Limit is in bytes or events a second: MinPolicyBytes or 1 at least.
	Limit int64 `json:"limit"`
}

// Metric is what a throttling policy counts.
type Metric string

// The metrics. Incoming and outgoing are as the broker sees them.
const (
	IncomingBytes    Metric = "IncomingBytes"
	OutgoingBytes    Metric = "OutgoingBytes"
	IncomingMessages Metric = "IncomingMessages"
	OutgoingMessages Metric = "OutgoingMessages"
)

var metrics = []Metric{IncomingBytes, OutgoingBytes, IncomingMessages, OutgoingMessages}

// ParseMetric reads a metric's name, in any case.
func ParseMetric(s string) (Metric, error) {
	for _, m := range metrics {
		if strings.EqualFold(s, string(m)) {
			return m, nil
		}
	}
	return "", fail(InvalidArgument, "", "'%s' is not a metric of throttling policies; IncomingBytes, OutgoingBytes, IncomingMessages and OutgoingMessages are.", s)
}

// Limits of application groups. That of the bytes is the service's; it gives no
// other, and ours keep a namespace's record small.
const (
	MaxApplicationGroups = 100
	MaxPolicies          = 16
	MinPolicyBytes       = 1 << 10
	// MaxPolicyLimit is about an exabyte a second.
	MaxPolicyLimit = 1 << 60
)

// securityContext is who a client is, to application groups: the kind in lower
// case, and the name of a rule or an application's id, in lower case too.
type securityContext struct{ kind, name string }

// The kinds.
const (
	namespaceKey = "namespacesaskeyname"
	entityKey    = "entitysaskeyname"
	entraApp     = "aadappid"
)

func parseIdentifier(group, s string) (securityContext, error) {
	kind, name, _ := strings.Cut(s, "=")
	kind, name = strings.ToLower(strings.TrimSpace(kind)), strings.ToLower(strings.TrimSpace(name))
	if kind == "saskeyname" {
		kind = namespaceKey
	}
	if name == "" || len(name) > MaxRuleName || kind != namespaceKey && kind != entityKey && kind != entraApp {
		return securityContext{}, fail(InvalidArgument, group, "The identifier '%s' of the application group '%s' has to be NamespaceSASKeyName=RULE, EntitySASKeyName=RULE or AADAppID=ID.", s, group)
	}
	return securityContext{kind, name}, nil
}

// contextOf returns whom claims speak for; the zero value for nobody that a group
// can name.
func contextOf(c *auth.Claims) securityContext {
	switch {
	case c == nil:
		return securityContext{}
	case c.App != "":
		return securityContext{entraApp, strings.ToLower(c.App)}
	case !c.Local:
		return securityContext{}
	case c.OfNamespace:
		return securityContext{namespaceKey, strings.ToLower(c.Name)}
	}
	return securityContext{entityKey, strings.ToLower(c.Name)}
}

// check holds a group to its limits.
func (g *ApplicationGroup) check() error {
	if err := checkName("application group", g.Name, 256); err != nil {
		return err
	}
	if len(g.Policies) > MaxPolicies {
		return fail(QuotaExceeded, g.Name, "The application group '%s' has up to %d policies, not %d.", g.Name, MaxPolicies, len(g.Policies))
	}
	seen := map[string]bool{}
	for _, p := range g.Policies {
		if err := checkName("throttling policy", p.Name, 256); err != nil {
			return err
		}
		low := strings.ToLower(p.Name)
		if seen[low] {
			return fail(InvalidArgument, g.Name, "The application group '%s' names the policy '%s' twice.", g.Name, p.Name)
		}
		seen[low] = true
		least := int64(1)
		if p.Metric == IncomingBytes || p.Metric == OutgoingBytes {
			least = MinPolicyBytes
		}
		switch {
		case !slices.Contains(metrics, p.Metric):
			return fail(InvalidArgument, g.Name, "The policy '%s' counts '%s', which is not a metric of throttling policies.", p.Name, p.Metric)
		case p.Limit < least || p.Limit > MaxPolicyLimit:
			return fail(InvalidArgument, g.Name, "The limit of the policy '%s' has to be from %d to %d a second, not %d.", p.Name, least, int64(MaxPolicyLimit), p.Limit)
		}
	}
	return nil
}

// checkGroups holds the application groups to what the tier allows.
func checkGroups(namespace string, s *NamespaceSettings) error {
	n := len(s.ApplicationGroups)
	switch {
	case n == 0:
		return nil
	case !s.Tier.Quotas().ApplicationGroups:
		return fail(InvalidArgument, namespace, "A namespace of the tier %s has no application groups; premium and dedicated have.", s.Tier)
	case n > MaxApplicationGroups:
		return fail(QuotaExceeded, namespace, "A namespace has up to %d application groups, not %d.", MaxApplicationGroups, n)
	}
	names, contexts := map[string]bool{}, map[securityContext]string{}
	for i := range s.ApplicationGroups {
		g := &s.ApplicationGroups[i]
		if err := g.check(); err != nil {
			return err
		}
		who, err := parseIdentifier(g.Name, g.Identifier)
		if err != nil {
			return err
		}
		low := strings.ToLower(g.Name)
		if names[low] {
			return fail(InvalidArgument, namespace, "The application group '%s' is named twice.", g.Name)
		}
		if other := contexts[who]; other != "" {
			return fail(AlreadyExists, g.Name, "The application group '%s' has the identifier '%s' already.", other, g.Identifier)
		}
		names[low], contexts[who] = true, g.Name
	}
	return nil
}

// governed is an application group at work.
type governed struct {
	ApplicationGroup
	now func() time.Duration

	mu      sync.Mutex
	in, out []policed
}

// policed is a throttling policy and what is owed to it.
type policed struct {
	ThrottlingPolicy
	bytes bool          // and not events
	paid  time.Duration // when what was taken is paid for
}

// policyBurst is how much of its limit an idle group may take at once: the
// service lets short bursts pass, and holds to the limits over minutes.
const policyBurst = 10 * time.Second

func (p *policed) wait(now time.Duration) time.Duration { return p.paid - now }

func (p *policed) take(now time.Duration, bytes, events int64) {
	n := events
	if p.bytes {
		n = bytes
	}
	cost := time.Duration(float64(n) * float64(time.Second) / float64(p.Limit))
	p.paid = max(p.paid, now-policyBurst) + cost
}

// govern makes the groups of a namespace work. What was taken stays owed where
// a policy of the same name and limit was there before.
func (ns *Namespace) govern(groups []ApplicationGroup, before map[securityContext]*governed) map[securityContext]*governed {
	if len(groups) == 0 {
		return nil
	}
	all := map[securityContext]*governed{}
	for _, g := range groups {
		who, err := parseIdentifier(g.Name, g.Identifier)
		if err != nil {
			ns.all.log.Error("an application group can't be read, and is not applied", "namespace", ns.Name, "error", err)
			continue
		}
		w := &governed{ApplicationGroup: g, now: ns.all.elapsed}
		old := before[who]
		if old != nil {
			old.mu.Lock()
		}
		for _, p := range g.Policies {
			work := policed{ThrottlingPolicy: p, bytes: p.Metric == IncomingBytes || p.Metric == OutgoingBytes, paid: w.now() - policyBurst}
			side := &w.in
			if p.Metric == OutgoingBytes || p.Metric == OutgoingMessages {
				side = &w.out
			}
			work.paid = max(work.paid, old.owed(p))
			*side = append(*side, work)
		}
		if old != nil {
			old.mu.Unlock()
		}
		all[who] = w
	}
	return all
}

// owed is until when what was taken of a policy is paid for; the least if there
// is no such policy. g.mu is held, if there is a g.
func (g *governed) owed(p ThrottlingPolicy) time.Duration {
	if g != nil {
		for _, side := range [][]policed{g.in, g.out} {
			for i := range side {
				if side[i].ThrottlingPolicy == p {
					return side[i].paid
				}
			}
		}
	}
	return -1 << 62
}

// admit takes a batch in, or tells why not.
func (g *governed) admit(bytes, events int64) error {
	if g.Disabled {
		return g.disabled()
	}
	if len(g.in) == 0 {
		return nil
	}
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.in {
		if wait := g.in[i].wait(now); wait > 0 {
			return g.throttled(g.in[i].Name, wait)
		}
	}
	for i := range g.in {
		g.in[i].take(now, bytes, events)
	}
	return nil
}

// delivered counts what has been delivered, and tells how long the next delivery
// has to wait.
func (g *governed) delivered(bytes, events int64) (wait time.Duration) {
	if len(g.out) == 0 {
		return 0
	}
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.out {
		g.out[i].take(now, bytes, events)
		wait = max(wait, g.out[i].wait(now))
	}
	return wait
}

func (g *governed) disabled() *Error {
	return fail(Unauthorized, "", "Unauthorized access. The application group '%s' is disabled.", g.Name)
}

// throttled has the service's numbers (features.md, section 9); the words between
// are ours.
func (g *governed) throttled(policy string, wait time.Duration) *Error {
	e := fail(Busy, "", "The request was terminated because the application group '%s' is being throttled by its policy '%s'. Error code : 50004. Sub error : 50013. Please wait %d seconds and try again.",
		g.Name, policy, max(4, int64((wait+time.Second-1)/time.Second)))
	e.RetryAfter = wait
	return e
}

// Client is in whose name events are sent or received, as its namespace's
// application groups see it. It is for one goroutine at a time.
type Client struct {
	ns    *Namespace
	who   securityContext
	seen  *namespaceState
	group *governed // by seen; nil if it is in none
}

// Client returns the client that claims speak for.
func (ns *Namespace) Client(c *auth.Claims) Client { return Client{ns: ns, who: contextOf(c)} }

// governedBy returns the client's group, if it is in one now.
func (c *Client) governedBy() *governed {
	if s := c.ns.state.Load(); s != c.seen {
		c.seen, c.group = s, s.groups[c.who]
	}
	return c.group
}

// MayConnect returns why the client may not use the namespace, if it may not: an
// *Error of kind Unauthorized.
func (c *Client) MayConnect() error {
	if g := c.governedBy(); g != nil && g.Disabled {
		return g.disabled()
	}
	return nil
}

// Append is Partition.Append in the client's name: its application group may
// refuse the batch with Busy or Unauthorized.
func (c *Client) Append(p *Partition, b *event.Batch, done func(error)) {
	p.append(b, c.governedBy(), done)
}

// Limited tells whether what the client receives may have to wait.
func (c *Client) Limited() bool {
	g := c.governedBy()
	return g != nil && len(g.out) > 0 || c.ns.Limited()
}

// Delivered counts what the client has been sent, and tells how long it has to
// wait before it may be sent more: for its namespace's throughput units and its
// application group. Deliveries are slowed down, and never refused.
func (c *Client) Delivered(bytes, events int64) (wait time.Duration) {
	wait = c.ns.Delivered(bytes, events)
	if g := c.governedBy(); g != nil {
		wait = max(wait, g.delivered(bytes, events))
	}
	return wait
}

// ApplicationGroup returns a group by its name, in any case.
func (ns *Namespace) ApplicationGroup(name string) (ApplicationGroup, error) {
	s := ns.Settings()
	if i := s.applicationGroup(name); i >= 0 {
		return s.ApplicationGroups[i], nil
	}
	return ApplicationGroup{}, ns.noApplicationGroup(name)
}

func (s *NamespaceSettings) applicationGroup(name string) int {
	return slices.IndexFunc(s.ApplicationGroups, func(g ApplicationGroup) bool { return strings.EqualFold(g.Name, name) })
}

func (ns *Namespace) noApplicationGroup(name string) *Error {
	return fail(NotFound, ns.Name+"/ApplicationGroups/"+name, "The application group '%s' of '%s' could not be found.", name, ns.Name)
}

// PutApplicationGroup makes an application group, or replaces one, durably.
// created tells which of the two it was. It holds at once, for clients that are
// connected as well.
func (ns *Namespace) PutApplicationGroup(ctx context.Context, g ApplicationGroup) (created bool, err error) {
	err = ns.Update(ctx, func(s *NamespaceSettings) error {
		i := s.applicationGroup(g.Name)
		if created = i < 0; created {
			s.ApplicationGroups = append(s.ApplicationGroups, g)
			return nil
		}
		g.Name = s.ApplicationGroups[i].Name
		s.ApplicationGroups[i] = g
		return nil
	})
	return created, err
}

// DeleteApplicationGroup removes an application group, durably.
func (ns *Namespace) DeleteApplicationGroup(ctx context.Context, name string) error {
	return ns.Update(ctx, func(s *NamespaceSettings) error {
		i := s.applicationGroup(name)
		if i < 0 {
			return ns.noApplicationGroup(name)
		}
		s.ApplicationGroups = slices.Delete(s.ApplicationGroups, i, i+1)
		return nil
	})
}
