package rest

import (
	"net/http"
	"strings"

	"github.com/millrace/millrace/hub"
)

// Source of the shapes: the models of armeventhub 1.3.0.

type armAppGroupProperties struct {
	IsEnabled                *bool        `json:"isEnabled"`
	ClientAppGroupIdentifier string       `json:"clientAppGroupIdentifier"`
	Policies                 *[]armPolicy `json:"policies"`
}

type armPolicy struct {
	Type               string `json:"type"`
	Name               string `json:"name"`
	MetricID           string `json:"metricId"`
	RateLimitThreshold int64  `json:"rateLimitThreshold"`
}

// throttlingPolicy is the one type of policies.
const throttlingPolicy = "ThrottlingPolicy"

func (c *armCall) describeApplicationGroup(ns *hub.Namespace, g *hub.ApplicationGroup) armChild {
	enabled, policies := !g.Disabled, []armPolicy{}
	for _, p := range g.Policies {
		policies = append(policies, armPolicy{throttlingPolicy, p.Name, string(p.Metric), p.Limit})
	}
	return armChild{c.id(ns, "applicationGroups", g.Name), g.Name, typeApplicationGroup, location(ns),
		armAppGroupProperties{&enabled, g.Identifier, &policies}}
}

func (c *armCall) listApplicationGroups() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	var all []any
	for _, g := range ns.Settings().ApplicationGroups {
		all = append(all, c.describeApplicationGroup(ns, &g))
	}
	return c.list(all)
}

func (c *armCall) showApplicationGroup() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	g, err := ns.ApplicationGroup(c.names[1])
	if err != nil {
		return c.missing(c.names[1])
	}
	return c.reply(http.StatusOK, c.describeApplicationGroup(ns, &g))
}

// putApplicationGroup makes a group or changes it. What the request leaves out
// stays; a new group is enabled.
func (c *armCall) putApplicationGroup() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	var want struct {
		Properties armAppGroupProperties `json:"properties"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	p := &want.Properties
	g, err := ns.ApplicationGroup(c.names[1])
	if err != nil {
		g = hub.ApplicationGroup{Name: c.names[1]}
	}
	if p.ClientAppGroupIdentifier != "" {
		g.Identifier = p.ClientAppGroupIdentifier
	}
	if g.Identifier == "" {
		return badRequest("properties.clientAppGroupIdentifier", "An application group has a clientAppGroupIdentifier.")
	}
	if p.IsEnabled != nil {
		g.Disabled = !*p.IsEnabled
	}
	if p.Policies != nil {
		if g.Policies, err = readPolicies(*p.Policies); err != nil {
			return err
		}
	}
	if _, err := ns.PutApplicationGroup(c.Context(), g); err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeApplicationGroup(ns, &g))
}

func readPolicies(all []armPolicy) ([]hub.ThrottlingPolicy, error) {
	var out []hub.ThrottlingPolicy
	for _, p := range all {
		if !strings.EqualFold(p.Type, throttlingPolicy) {
			return nil, badRequest("properties.policies", "'%s' is not a type of policies; ThrottlingPolicy is.", excerpt(p.Type))
		}
		metric, err := hub.ParseMetric(p.MetricID)
		if err != nil {
			return nil, badRequest("properties.policies", "'%s' is not a metric of throttling policies; IncomingBytes, OutgoingBytes, IncomingMessages and OutgoingMessages are.", excerpt(p.MetricID))
		}
		out = append(out, hub.ThrottlingPolicy{Name: p.Name, Metric: metric, Limit: p.RateLimitThreshold})
	}
	return out, nil
}

func (c *armCall) deleteApplicationGroup() error {
	ns, err := c.namespace()
	if err == nil {
		err = ns.DeleteApplicationGroup(c.Context(), c.names[1])
	}
	return c.gone(err)
}
