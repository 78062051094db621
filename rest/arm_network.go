package rest

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/millrace/millrace/hub"
)

// A namespace has one set of network rules, "default": which addresses may
// connect. As with the service, management is not held to it.

// armIPRule lets an address in, or a range of them.
type armIPRule struct {
	IPMask string `json:"ipMask"`
	Action string `json:"action"`
}

func (c *armCall) describeNetworkRules(ns *hub.Namespace) armChild {
	s := ns.Settings()
	ips, action := []armIPRule{}, "Allow"
	for _, ip := range s.IPRules {
		ips = append(ips, armIPRule{ip, "Allow"})
	}
	if s.DenyByDefault {
		action = "Deny"
	}
	return armChild{c.id(ns, "networkRuleSets", "default"), "default", typeNetworkRules, location(ns), map[string]any{
		"publicNetworkAccess": "Enabled", "defaultAction": action, "virtualNetworkRules": []any{}, "ipRules": ips,
		"trustedServiceAccessEnabled": s.Resource.TrustedServices,
	}}
}

func (c *armCall) listNetworkRules() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	return c.list([]any{c.describeNetworkRules(ns)})
}

// networkRules returns the namespace whose rules the path names.
func (c *armCall) networkRules() (*hub.Namespace, error) {
	ns, err := c.namespace()
	if err == nil && !strings.EqualFold(c.names[1], "default") {
		err = c.missing(c.names[1])
	}
	return ns, err
}

func (c *armCall) showNetworkRules() error {
	ns, err := c.networkRules()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeNetworkRules(ns))
}

// putNetworkRules replaces the addresses; of the rest, what is not given stays.
func (c *armCall) putNetworkRules() error {
	ns, err := c.networkRules()
	if err != nil {
		return err
	}
	var want struct {
		Properties struct {
			DefaultAction       string          `json:"defaultAction"`
			PublicNetworkAccess string          `json:"publicNetworkAccess"`
			IPRules             []armIPRule     `json:"ipRules"`
			VirtualNetworkRules json.RawMessage `json:"virtualNetworkRules"`
			TrustedServices     *bool           `json:"trustedServiceAccessEnabled"`
		} `json:"properties"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	p := &want.Properties
	deny := strings.EqualFold(p.DefaultAction, "Deny")
	switch {
	case asked(p.VirtualNetworkRules):
		return unsupported("VirtualNetworkRules", "properties.virtualNetworkRules", "There are no virtual networks here; IP rules say which addresses are let in.")
	case p.PublicNetworkAccess != "" && !strings.EqualFold(p.PublicNetworkAccess, "Enabled"):
		return unsupported("PublicNetworkAccess", "properties.publicNetworkAccess", publicAccess)
	case p.DefaultAction != "" && !deny && !strings.EqualFold(p.DefaultAction, "Allow"):
		return badRequest("properties.defaultAction", "The default action is Allow or Deny.")
	}
	var ips []string
	for _, r := range p.IPRules {
		if r.Action != "" && !strings.EqualFold(r.Action, "Allow") {
			return badRequest("properties.ipRules", "The action of an IP rule is Allow.")
		}
		ips = append(ips, r.IPMask)
	}
	err = ns.Update(c.Context(), func(s *hub.NamespaceSettings) error {
		if s.IPRules = ips; p.DefaultAction != "" {
			s.DenyByDefault = deny
		}
		if p.TrustedServices != nil {
			s.Resource.TrustedServices = *p.TrustedServices
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeNetworkRules(ns))
}
