package admin

import (
	"net/http"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// ruleSet returns the rules that the path means: of an event hub if it names
// one, and else of the namespace. They hold keys, so that reading them takes the
// right Manage, too.
func (c *call) ruleSet() (hub.RuleSet, error) {
	if c.PathValue("hub") == "" {
		return c.ns.Rules(), c.may(auth.Manage, "")
	}
	h, err := c.hub(auth.Manage)
	if err != nil {
		return hub.RuleSet{}, err
	}
	return h.Rules(), nil
}

func describeRule(r hub.Rule) Rule {
	return Rule{Name: r.Name, Rights: r.Rights.String(), Primary: r.Primary, Secondary: r.Secondary, Configured: r.Configured}
}

func (s *Server) listRules(c *call) error {
	rules, err := c.ruleSet()
	if err != nil {
		return err
	}
	out := []Rule{}
	for _, r := range rules.All() {
		out = append(out, describeRule(r))
	}
	return c.reply(http.StatusOK, out)
}

func (s *Server) showRule(c *call) error {
	rules, err := c.ruleSet()
	if err != nil {
		return err
	}
	r, err := rules.Rule(c.PathValue("rule"))
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, describeRule(r))
}

func (s *Server) putRule(c *call) error {
	rules, err := c.ruleSet()
	if err != nil {
		return err
	}
	var want Rule
	if err := c.read(&want); err != nil {
		return err
	}
	rights, err := auth.ParseRights(want.Rights)
	if err != nil {
		return badRequest(err.Error() + ".")
	}
	r, created, err := rules.Put(c.Context(), hub.Rule{Name: c.PathValue("rule"), Rights: rights, Primary: want.Primary, Secondary: want.Secondary})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return c.reply(status, describeRule(r))
}

func (s *Server) deleteRule(c *call) error {
	rules, err := c.ruleSet()
	if err == nil {
		err = rules.Delete(c.Context(), c.PathValue("rule"))
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) regenerateKey(c *call) error {
	rules, err := c.ruleSet()
	if err != nil {
		return err
	}
	var want KeyChange
	if err := c.read(&want); err != nil {
		return err
	}
	if want.Which != PrimaryKey && want.Which != SecondaryKey {
		return badRequest("The key to regenerate is primary or secondary.")
	}
	r, err := rules.Regenerate(c.Context(), c.PathValue("rule"), want.Which == PrimaryKey, want.Key)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, describeRule(r))
}
