package hub

import (
	"net/netip"
	"slices"
	"strings"
)

// MaxIPRules is the most addresses that a namespace may list.
const MaxIPRules = 128

// parseIPRule reads an address, or a range of them in CIDR form. An IPv4 address
// in its IPv6 form is the same address.
func parseIPRule(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// readIPRules holds the rules to what the tier allows, and reads them.
func readIPRules(namespace string, s *NamespaceSettings) ([]netip.Prefix, error) {
	switch {
	case len(s.IPRules) == 0 && !s.DenyByDefault:
		return nil, nil
	case !s.Tier.Quotas().IPRules:
		return nil, fail(InvalidArgument, namespace, "A namespace of the tier %s has no IP rules.", s.Tier)
	case len(s.IPRules) > MaxIPRules:
		return nil, fail(QuotaExceeded, namespace, "A namespace has up to %d IP rules, not %d.", MaxIPRules, len(s.IPRules))
	}
	var out []netip.Prefix
	for _, text := range s.IPRules {
		p, err := parseIPRule(strings.TrimSpace(text))
		if err != nil {
			return nil, fail(InvalidArgument, namespace, "'%s' is neither an IP address nor a range such as 10.0.0.0/8.", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// Admits returns why a peer may not connect to the namespace from its address, if
// it may not: an *Error of kind Unauthorized in the service's words. peer is an
// address with or without a port. Connections that are open go on when the rules
// change.
func (ns *Namespace) Admits(peer string) error {
	s := ns.state.Load()
	if !s.record.DenyByDefault {
		return nil
	}
	a, err := netip.ParseAddr(peer)
	if err != nil {
		ap, err := netip.ParseAddrPort(peer)
		if err != nil {
			return ns.keptOut()
		}
		a = ap.Addr()
	}
	a = a.Unmap().WithZone("")
	if slices.ContainsFunc(s.allowed, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	return ns.keptOut()
}

func (ns *Namespace) keptOut() *Error {
	return fail(Unauthorized, ns.Name, "Ip has been prevented to connect to the endpoint.")
}
