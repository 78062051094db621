package admin

import (
	"net/http"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

func describeApplicationGroup(g *hub.ApplicationGroup) ApplicationGroup {
	out := ApplicationGroup{Name: g.Name, Client: g.Identifier, Disabled: g.Disabled, Policies: []ThrottlingPolicy{}}
	for _, p := range g.Policies {
		out.Policies = append(out.Policies, ThrottlingPolicy{p.Name, string(p.Metric), p.Limit})
	}
	return out
}

func (s *Server) listApplicationGroups(c *call) error {
	if err := c.may(auth.Listen, ""); err != nil {
		return err
	}
	out := []ApplicationGroup{}
	for _, g := range c.ns.Settings().ApplicationGroups {
		out = append(out, describeApplicationGroup(&g))
	}
	return c.reply(http.StatusOK, out)
}

func (s *Server) putApplicationGroup(c *call) error {
	if err := c.may(auth.Manage, ""); err != nil {
		return err
	}
	var want ApplicationGroup
	if err := c.read(&want); err != nil {
		return err
	}
	g := hub.ApplicationGroup{Name: c.PathValue("group"), Identifier: want.Client, Disabled: want.Disabled}
	for _, p := range want.Policies {
		metric, err := hub.ParseMetric(p.Metric)
		if err != nil {
			return err
		}
		g.Policies = append(g.Policies, hub.ThrottlingPolicy{Name: p.Name, Metric: metric, Limit: p.Limit})
	}
	created, err := c.ns.PutApplicationGroup(c.Context(), g)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return c.reply(status, describeApplicationGroup(&g))
}

func (s *Server) deleteApplicationGroup(c *call) error {
	if err := c.may(auth.Manage, ""); err != nil {
		return err
	}
	if err := c.ns.DeleteApplicationGroup(c.Context(), c.PathValue("group")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
