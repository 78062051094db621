package rest

import (
	"net/http"
	"strings"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// armRules are the rules of what the path names, a namespace or a hub.
type armRules struct {
	hub.RuleSet
	ns   *hub.Namespace
	hub  string   // "" for the namespace
	path []string // below the namespace
	kind string
}

func (c *armCall) rules() (armRules, error) {
	ns, err := c.namespace()
	if err != nil || !strings.HasPrefix(c.kind, "namespaces/*/eventhubs/") {
		if err != nil {
			return armRules{}, err
		}
		return armRules{ns.Rules(), ns, "", nil, typeNamespaceRule}, nil
	}
	h, err := c.hub()
	if err != nil {
		return armRules{}, err
	}
	return armRules{h.Rules(), ns, h.Name, []string{"eventhubs", h.Name}, typeHubRule}, nil
}

// rule returns the rule that the path names.
func (c *armCall) rule() (armRules, hub.Rule, error) {
	rules, err := c.rules()
	if err != nil {
		return rules, hub.Rule{}, err
	}
	name := c.names[len(c.names)-1]
	r, err := rules.Rule(name)
	if err != nil {
		return rules, r, c.missing(name)
	}
	return rules, r, nil
}

type armRuleProperties struct {
	Rights []string `json:"rights"`
}

func (c *armCall) describeRule(rules *armRules, r hub.Rule) armChild {
	id := c.id(rules.ns, append(rules.path, "authorizationRules", r.Name)...)
	return armChild{id, r.Name, rules.kind, location(rules.ns), armRuleProperties{strings.Split(r.Rights.String(), ",")}}
}

func (c *armCall) listRules() error {
	rules, err := c.rules()
	if err != nil {
		return err
	}
	var all []any
	for _, r := range rules.All() {
		all = append(all, c.describeRule(&rules, r))
	}
	return c.list(all)
}

func (c *armCall) showRule() error {
	rules, r, err := c.rule()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeRule(&rules, r))
}

func (c *armCall) putRule() error {
	rules, err := c.rules()
	if err != nil {
		return err
	}
	var want struct {
		Properties armRuleProperties `json:"properties"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	var rights auth.Rights
	manage, asked := false, auth.Rights(0)
	for _, name := range want.Properties.Rights {
		r, err := auth.ParseRights(name)
		if err != nil || r == 0 {
			return badRequest("properties.rights", "'%s' is not a right; the rights are Listen, Send and Manage.", excerpt(name))
		}
		if rights |= r; r == auth.Manage {
			manage = true
		} else {
			asked |= r
		}
	}
	if manage && !asked.Has(auth.Listen|auth.Send) {
		return badRequest("properties.rights", "The right Manage has to stand with Listen and Send, which it includes.")
	}
	r, _, err := rules.Put(c.Context(), hub.Rule{Name: c.names[len(c.names)-1], Rights: rights})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeRule(&rules, r))
}

func (c *armCall) deleteRule() error {
	rules, err := c.rules()
	if err == nil {
		err = rules.Delete(c.Context(), c.names[len(c.names)-1])
	}
	return c.gone(err)
}

// armKeys is a rule with its keys. A key that a rule doesn't have is left out.
type armKeys struct {
	PrimaryConnectionString   string `json:"primaryConnectionString,omitempty"`
	SecondaryConnectionString string `json:"secondaryConnectionString,omitempty"`
	PrimaryKey                string `json:"primaryKey,omitempty"`
	SecondaryKey              string `json:"secondaryKey,omitempty"`
	KeyName                   string `json:"keyName"`
}

// describeKeys prints connection strings for the door that is like the one of the
// request: who came over TLS trusts the broker's certificate, and is told the key
// in confidence.
func (c *armCall) describeKeys(rules *armRules, r hub.Rule) armKeys {
	text := func(key string) string {
		if key == "" {
			return ""
		}
		cs := auth.ConnectionString{Host: rules.ns.Name}
		if c.s.o.Endpoint != nil {
			cs = c.s.o.Endpoint(rules.ns, c.TLS != nil)
		}
		cs.KeyName, cs.Key, cs.EntityPath = r.Name, key, rules.hub
		return cs.String()
	}
	return armKeys{text(r.Primary), text(r.Secondary), r.Primary, r.Secondary, r.Name}
}

func (c *armCall) listKeys() error {
	rules, r, err := c.rule()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeKeys(&rules, r))
}

func (c *armCall) regenerateKeys() error {
	rules, r, err := c.rule()
	if err != nil {
		return err
	}
	var want struct {
		KeyType string `json:"keyType"`
		Key     string `json:"key"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	primary := strings.EqualFold(want.KeyType, "PrimaryKey")
	if !primary && !strings.EqualFold(want.KeyType, "SecondaryKey") {
		return badRequest("keyType", "The key to regenerate is PrimaryKey or SecondaryKey.")
	}
	if r, err = rules.Regenerate(c.Context(), r.Name, primary, want.Key); err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeKeys(&rules, r))
}
