package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/millrace/millrace/auth"
)

// Rule is an authorization rule of a namespace or a hub. Both its keys are good.
type Rule struct {
	Name      string      `json:"name"`
	Rights    auth.Rights `json:"rights"`
	Primary   string      `json:"primary"`
	Secondary string      `json:"secondary,omitempty"`
	// Configured says that the rule is one of Options.Configured, which can't be
	// changed here.
	Configured bool `json:"-"`
}

// RulesOf are the rules that a configuration has for a namespace or a hub.
type RulesOf struct {
	Namespace string // "" is the default one
	Hub       string // "" is the namespace itself
	Rules     []Rule
}

// ruleOwner is a namespace and a hub of it, or "", in lower case.
type ruleOwner struct{ namespace, hub string }

// configuredRules are those of Options.Configured. The last of a name counts.
func configuredRules(o *Options) map[ruleOwner][]Rule {
	all := map[ruleOwner][]Rule{}
	for _, of := range o.Configured {
		owner := ruleOwner{strings.ToLower(cmp.Or(of.Namespace, o.Default)), strings.ToLower(of.Hub)}
		for _, r := range of.Rules {
			r.Configured = true
			if i := indexRule(all[owner], r.Name); i >= 0 {
				all[owner][i] = r
			} else {
				all[owner] = append(all[owner], r)
			}
		}
	}
	return all
}

// configured returns the rules that a configuration has for the namespace, or for
// one of its hubs, whether that exists or not.
func (ns *Namespace) configured(hub string) []Rule {
	return ns.all.configured[ruleOwner{strings.ToLower(ns.Name), strings.ToLower(hub)}]
}

// Limits of authorization rules. Source: features.md, sections 0 and 10.
const (
	// MaxRules is the most that a namespace or a hub may have.
	MaxRules = 12
	// MaxRuleName and MaxKey are in bytes.
	MaxRuleName = 256
	MaxKey      = 256
)

// NewKey makes a key as the service's are: 32 random bytes in base64.
func NewKey() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// RuleSet are the authorization rules of a namespace or a hub.
type RuleSet struct {
	entity     string
	configured []Rule // that hold, whatever is stored
	given      []Rule // that hold unless one of the same name is stored
	stored     func() []Rule
	change     func(context.Context, func(*[]Rule) error) error
}

// Rules are the namespace's authorization rules, those of Options among them.
func (ns *Namespace) Rules() RuleSet {
	return RuleSet{ns.Name, ns.configured(""), ns.all.o.Rules, func() []Rule { return ns.Settings().Rules }, func(ctx context.Context, f func(*[]Rule) error) error {
		return ns.Update(ctx, func(s *NamespaceSettings) error { return f(&s.Rules) })
	}}
}

// Rules are the hub's own authorization rules.
func (h *EventHub) Rules() RuleSet {
	return RuleSet{h.Name, h.ns.configured(h.Name), nil, func() []Rule { return h.Settings().Rules }, func(ctx context.Context, f func(*[]Rule) error) error {
		return h.Update(ctx, func(s *Settings) error { return f(&s.Rules) })
	}}
}

// All returns the rules, by name.
func (s RuleSet) All() []Rule {
	rules := s.AsMade()
	slices.SortFunc(rules, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	return rules
}

// AsMade returns the rules in the order in which they were made, those of a
// configuration first.
func (s RuleSet) AsMade() []Rule {
	var rules []Rule
	for _, more := range s.inOrder() {
		for _, r := range more {
			if indexRule(rules, r.Name) < 0 {
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// inOrder are the rules, those first that hold before others of the same name.
func (s RuleSet) inOrder() [][]Rule { return [][]Rule{s.configured, s.stored(), s.given} }

// Rule returns a rule by its name, in any case.
func (s RuleSet) Rule(name string) (Rule, error) {
	if r, ok := s.lookup(name); ok {
		return r, nil
	}
	return Rule{}, s.missing(name)
}

func (s RuleSet) lookup(name string) (Rule, bool) {
	for _, rules := range s.inOrder() {
		if i := indexRule(rules, name); i >= 0 {
			return rules[i], true
		}
	}
	return Rule{}, false
}

// find returns the place of a rule among those to be stored, -1 if there is
// none. One that was given is first copied there.
func (s RuleSet) find(rules *[]Rule, name string) int {
	if i := indexRule(*rules, name); i >= 0 {
		return i
	}
	i := indexRule(s.given, name)
	if i < 0 {
		return -1
	}
	*rules = append(*rules, s.given[i])
	return len(*rules) - 1
}

func (s RuleSet) missing(name string) *Error {
	return fail(NotFound, s.entity+"/AuthorizationRules/"+name, "The authorization rule '%s' of '%s' could not be found.", name, s.entity)
}

func indexRule(rules []Rule, name string) int {
	return slices.IndexFunc(rules, func(r Rule) bool { return strings.EqualFold(r.Name, name) })
}

// fixed refuses to change a rule that the configuration has: then it would come
// back with the next start, and its key with it.
func (s RuleSet) fixed(name string) error {
	if indexRule(s.configured, name) < 0 {
		return nil
	}
	return fail(Forbidden, s.entity+"/AuthorizationRules/"+name, "The authorization rule '%s' of '%s' stands in the broker's configuration file, which alone can change it or take it away: do so there, and start the broker again.", name, s.entity)
}

// same tells whether a rule asks for nothing that another one hasn't.
func (r *Rule) same(as *Rule) bool {
	rights := r.Rights
	if rights&auth.Manage == auth.Manage {
		rights = auth.Manage
	}
	return rights == as.Rights && (r.Primary == "" || r.Primary == as.Primary) && (r.Secondary == "" || r.Secondary == as.Secondary)
}

// Put makes a rule, or changes the rights and keys of one, durably. Keys that
// are not given stay, or are made. created tells which of the two it was. A rule
// that the configuration has can be asked for as it is.
func (s RuleSet) Put(ctx context.Context, r Rule) (put Rule, created bool, err error) {
	if i := indexRule(s.configured, r.Name); i >= 0 {
		if !r.same(&s.configured[i]) {
			return Rule{}, false, s.fixed(r.Name)
		}
		return s.configured[i], false, nil
	}
	err = s.change(ctx, func(rules *[]Rule) error {
		i := s.find(rules, r.Name)
		if created = i < 0; created {
			*rules = append(*rules, Rule{})
			i = len(*rules) - 1
		}
		before := (*rules)[i]
		r.Name = cmp.Or(before.Name, r.Name)
		var err error
		put, err = r.over(&before, s.entity)
		(*rules)[i] = put
		return err
	})
	return put, created, err
}

// NewRules checks the rules that a hub is to be made with. Keys that are not given
// are made. Those that the configuration has for it may be among them as they are,
// and are not returned.
func (ns *Namespace) NewRules(hub string, want []Rule) ([]Rule, error) {
	set := RuleSet{entity: hub, configured: ns.configured(hub)}
	want, err := set.withoutConfigured(want)
	if err != nil {
		return nil, err
	}
	return replaceRules(hub, nil, want)
}

// ReplaceRules checks a whole list of rules that is to be in place of another, for
// use in Update. Keys that are not given stay as they are in old, or are made.
// Those that the configuration has for the hub have to be among them as they are,
// and are not returned.
func (h *EventHub) ReplaceRules(old, want []Rule) ([]Rule, error) {
	set := h.Rules()
	for _, r := range set.configured {
		if indexRule(want, r.Name) < 0 {
			return nil, set.fixed(r.Name)
		}
	}
	want, err := set.withoutConfigured(want)
	if err != nil {
		return nil, err
	}
	return replaceRules(h.Name, old, want)
}

// withoutConfigured leaves the rules out that the configuration has, if nothing
// else is asked of them.
func (s RuleSet) withoutConfigured(want []Rule) ([]Rule, error) {
	var out []Rule
	for i, r := range want {
		if indexRule(want[:i], r.Name) >= 0 {
			return nil, fail(InvalidArgument, s.entity, "The authorization rule '%s' is named twice.", r.Name)
		}
		at := indexRule(s.configured, r.Name)
		switch {
		case at < 0:
			out = append(out, r)
		case !r.same(&s.configured[at]):
			return nil, s.fixed(r.Name)
		}
	}
	return out, nil
}

func replaceRules(entity string, old, want []Rule) ([]Rule, error) {
	if len(want) > MaxRules {
		return nil, fail(QuotaExceeded, entity, "There are up to %d authorization rules, not %d.", MaxRules, len(want))
	}
	var out []Rule
	for _, r := range want {
		before := &Rule{}
		if i := indexRule(old, r.Name); i >= 0 {
			before = &old[i]
		}
		r, err := r.over(before, entity)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// over is the rule with the keys of the one before it where it has none, or, if
// there was none of the name, with new ones.
func (r Rule) over(before *Rule, entity string) (Rule, error) {
	if err := checkName("authorization rule", r.Name, MaxRuleName); err != nil {
		return Rule{}, err
	}
	if r.Rights&auth.Manage == auth.Manage {
		r.Rights = auth.Manage
	}
	if r.Rights == 0 {
		return Rule{}, fail(InvalidArgument, entity, "The authorization rule '%s' has to give Listen, Send or Manage.", r.Name)
	}
	r.Primary = cmp.Or(r.Primary, before.Primary)
	r.Secondary = cmp.Or(r.Secondary, before.Secondary)
	if before.Name == "" {
		r.Primary, r.Secondary = cmp.Or(r.Primary, NewKey()), cmp.Or(r.Secondary, NewKey())
	}
	return r, r.check(entity)
}

func (r *Rule) check(entity string) error {
	if len(r.Primary) > MaxKey || len(r.Secondary) > MaxKey {
		return fail(InvalidArgument, entity, "A key of the authorization rule '%s' has up to %d bytes.", r.Name, MaxKey)
	}
	return nil
}

// Delete removes a rule, durably. Links that were opened with it go on until
// their tokens expire.
func (s RuleSet) Delete(ctx context.Context, name string) error {
	if err := s.fixed(name); err != nil {
		return err
	}
	return s.change(ctx, func(rules *[]Rule) error {
		i := indexRule(*rules, name)
		if i < 0 && indexRule(s.given, name) >= 0 {
			return fail(Forbidden, s.entity, "The authorization rule '%s' is the broker's own; its keys can be regenerated, and it can't be deleted.", name)
		}
		if i < 0 {
			return s.missing(name)
		}
		*rules = slices.Delete(*rules, i, i+1)
		return nil
	})
}

// Regenerate replaces the primary or the secondary key of a rule, durably, by
// the given one, or by a new one if that is "".
func (s RuleSet) Regenerate(ctx context.Context, name string, primary bool, key string) (Rule, error) {
	if err := s.fixed(name); err != nil {
		return Rule{}, err
	}
	if key == "" {
		key = NewKey()
	}
	var out Rule
	err := s.change(ctx, func(rules *[]Rule) error {
		i := s.find(rules, name)
		if i < 0 {
			return s.missing(name)
		}
		r := &(*rules)[i]
		if primary {
			r.Primary = key
		} else {
			r.Secondary = key
		}
		out = *r
		return r.check(s.entity)
	})
	return out, err
}
