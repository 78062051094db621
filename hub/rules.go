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
	entity string
	given  []Rule // that hold unless one of the same name is stored
	stored func() []Rule
	change func(context.Context, func(*[]Rule) error) error
}

// Rules are the namespace's authorization rules, those of Options among them.
func (ns *Namespace) Rules() RuleSet {
	return RuleSet{ns.Name, ns.all.o.Rules, func() []Rule { return ns.Settings().Rules }, func(ctx context.Context, f func(*[]Rule) error) error {
		return ns.Update(ctx, func(s *NamespaceSettings) error { return f(&s.Rules) })
	}}
}

// Rules are the hub's own authorization rules.
func (h *EventHub) Rules() RuleSet {
	return RuleSet{h.Name, nil, func() []Rule { return h.Settings().Rules }, func(ctx context.Context, f func(*[]Rule) error) error {
		return h.Update(ctx, func(s *Settings) error { return f(&s.Rules) })
	}}
}

// All returns the rules, by name.
func (s RuleSet) All() []Rule {
	rules := slices.Clone(s.stored())
	for _, r := range s.given {
		if indexRule(rules, r.Name) < 0 {
			rules = append(rules, r)
		}
	}
	slices.SortFunc(rules, func(a, b Rule) int { return strings.Compare(a.Name, b.Name) })
	return rules
}

// Rule returns a rule by its name, in any case.
func (s RuleSet) Rule(name string) (Rule, error) {
	for _, rules := range [][]Rule{s.stored(), s.given} {
		if i := indexRule(rules, name); i >= 0 {
			return rules[i], nil
		}
	}
	return Rule{}, s.missing(name)
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

// Put makes a rule, or changes the rights and keys of one, durably. Keys that
// are not given stay, or are made. created tells which of the two it was.
func (s RuleSet) Put(ctx context.Context, r Rule) (put Rule, created bool, err error) {
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

// ReplaceRules checks a whole list of rules that is to be in place of another,
// for use in Update or before CreateEventHub. Keys that are not given stay as
// they are in old, or are made. entity is for messages.
func ReplaceRules(entity string, old, want []Rule) ([]Rule, error) {
	if len(want) > MaxRules {
		return nil, fail(QuotaExceeded, entity, "There are up to %d authorization rules, not %d.", MaxRules, len(want))
	}
	var out []Rule
	for _, r := range want {
		if indexRule(out, r.Name) >= 0 {
			return nil, fail(InvalidArgument, entity, "The authorization rule '%s' is named twice.", r.Name)
		}
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
