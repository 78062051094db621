package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

func describeNamespace(ns *hub.Namespace, isDefault bool) Namespace {
	s := ns.Settings()
	out := Namespace{
		Name: ns.Name, Default: isDefault, Tier: string(s.Tier), Capacity: s.Capacity, Unit: s.Tier.UnitName(), AutoInflate: s.AutoInflate, MaximumCapacity: s.MaximumCapacity, DisableLocalAuth: s.DisableLocalAuth,
		Connections: ns.Metrics.ActiveConnections.Load(), Created: ns.Created, Updated: ns.Updated(),
	}
	if s.DenyByDefault {
		out.AllowedIPs = append([]string{}, s.IPRules...)
	}
	for _, h := range ns.EventHubs() {
		out.Hubs++
		out.Partitions += h.Partitions()
		out.Throttled += h.Metrics.Requests[hub.ServerBusy].Load()
	}
	return out
}

// governor checks a right that reaches over all namespaces: one of the default
// namespace, which the Host header must name or mean.
func (s *Server) governor(c *call, right auth.Rights) error {
	if c.ns != s.o.Namespaces.Default() {
		return &Error{Status: http.StatusForbidden, Kind: hub.Forbidden.String(), Message: "Namespaces are managed with a key of the default namespace, " + s.o.Namespaces.Default().Name + "."}
	}
	return c.may(right, "")
}

// namespace returns the namespace that the path names: to callers with the right
// on it, or on the default one.
func (s *Server) namespace(c *call, right auth.Rights) (*hub.Namespace, error) {
	name := c.PathValue("namespace")
	if hub.SameName(c.ns.Name, name) {
		return c.ns, c.may(right, "")
	}
	if err := s.governor(c, right); err != nil {
		return nil, err
	}
	return s.o.Namespaces.Named(name)
}

func (s *Server) listNamespaces(c *call) error {
	if err := s.governor(c, auth.Listen); err != nil {
		return err
	}
	out := []Namespace{}
	for _, ns := range s.o.Namespaces.All() {
		out = append(out, describeNamespace(ns, ns == s.o.Namespaces.Default()))
	}
	return c.reply(http.StatusOK, out)
}

func (s *Server) showNamespace(c *call) error {
	ns, err := s.namespace(c, auth.Listen)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, describeNamespace(ns, ns == s.o.Namespaces.Default()))
}

func (s *Server) createNamespace(c *call) error {
	if err := s.governor(c, auth.Manage); err != nil {
		return err
	}
	var want NewNamespace
	if err := c.read(&want); err != nil {
		return err
	}
	settings := hub.NamespaceSettings{}
	if err := want.change(&settings); err != nil {
		return err
	}
	ns, err := s.o.Namespaces.Create(c.Context(), want.Name, settings)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", Root+"namespaces/"+url.PathEscape(ns.Name))
	return c.reply(http.StatusCreated, describeNamespace(ns, false))
}

func (s *Server) updateNamespace(c *call) error {
	ns, err := s.namespace(c, auth.Manage)
	if err != nil {
		return err
	}
	var change NamespaceChange
	if err := c.read(&change); err != nil {
		return err
	}
	if change == (NamespaceChange{}) {
		return badRequest("The request changes nothing; it may set tier, capacity, autoInflate, maximumCapacity, allowedIPs and disableLocalAuth.")
	}
	if err := ns.Update(c.Context(), change.change); err != nil {
		return err
	}
	return c.reply(http.StatusOK, describeNamespace(ns, ns == s.o.Namespaces.Default()))
}

func (s *Server) deleteNamespace(c *call) error {
	if err := s.governor(c, auth.Manage); err != nil {
		return err
	}
	if err := s.o.Namespaces.Delete(c.Context(), c.PathValue("namespace")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// change puts what is set into s.
func (n *NamespaceChange) change(s *hub.NamespaceSettings) error {
	if n.Tier != nil {
		t, err := hub.ParseTier(*n.Tier)
		if err != nil {
			return err
		}
		if s.Tier != t && n.Capacity == nil {
			s.Capacity = 1 // units of one tier are not those of another
		}
		s.Tier = t
	}
	if n.Capacity != nil {
		s.Capacity = *n.Capacity
	}
	if n.AutoInflate != nil {
		s.AutoInflate = *n.AutoInflate
	}
	if n.AllowedIPs != nil {
		s.IPRules, s.DenyByDefault = *n.AllowedIPs, len(*n.AllowedIPs) > 0
	}
	if n.DisableLocalAuth != nil {
		s.DisableLocalAuth = *n.DisableLocalAuth
	}
	if n.MaximumCapacity != nil {
		s.MaximumCapacity = *n.MaximumCapacity
	}
	if !s.AutoInflate && n.MaximumCapacity == nil {
		s.MaximumCapacity = 0
	}
	return nil
}

// planSince is how far back a plan looks unless it is told.
const planSince = 7 * 24 * time.Hour

func (s *Server) planNamespace(c *call) error {
	ns, err := s.namespace(c, auth.Listen)
	if err != nil {
		return err
	}
	since, capacity := c.now.Add(-planSince), 0
	if v := c.FormValue("since"); v != "" {
		if since, err = time.Parse(time.RFC3339, v); err != nil {
			return badRequest("since is a time such as 2026-03-01T12:00:00Z.")
		}
	}
	if v := c.FormValue("capacity"); v != "" {
		if capacity, err = strconv.Atoi(v); err != nil || capacity < 1 {
			return badRequest("capacity is a number of units, 1 or more.")
		}
	}
	p, err := ns.Plan(c.Context(), since, capacity)
	if err != nil {
		return err
	}
	out := Plan{
		Since: p.Since, Tier: string(p.Tier), Capacity: p.Capacity, Unit: p.Tier.UnitName(), Reasons: p.Reasons,
		Units: p.Units, AtCapacity: p.AtCapacity, Minutes: []Load{},
	}
	for _, l := range p.Minutes {
		out.Minutes = append(out.Minutes, Load{
			Minute: l.Minute, IncomingBytes: l.In.Bytes, IncomingEvents: l.In.Events, OutgoingBytes: l.Out.Bytes, OutgoingEvents: l.Out.Events,
			PeakIncomingBytes: l.PeakIn.Bytes, PeakIncoming: l.PeakIn.Events, PeakOutgoingBytes: l.PeakOut.Bytes, PeakOutgoing: l.PeakOut.Events,
			Throttled: l.Throttled, Units: l.Units(),
		})
	}
	return c.reply(http.StatusOK, out)
}
