package amqp

import (
	"fmt"
	"net/url"
	"strings"
)

// The nodes that are no event hub.
const (
	nodeCBS        = "$cbs"
	nodeManagement = "$management"
)

// address is what a link's source or target names.
type address struct {
	node      string // nodeCBS or nodeManagement, or "" for an entity
	hub       string
	group     string // of a receiver
	partition string // "" when a sender leaves it to the broker
	publisher string
}

// path is the address as claims are compared with it.
func (a *address) path() string {
	p := a.hub
	if a.group != "" {
		p += "/ConsumerGroups/" + a.group
	}
	if a.publisher != "" {
		p += "/Publishers/" + a.publisher
	}
	if a.partition != "" {
		p += "/Partitions/" + a.partition
	}
	return p
}

// parseAddress reads an address in any client's spelling: a path, with or
// without slashes at its ends, or a URL; percent-encoded or not; the words in
// any case (amqp.md 4.1).
func parseAddress(s string) (address, error) {
	var a address
	path := s
	if i := strings.Index(path, "://"); i >= 0 {
		path = path[i+3:]
		_, path, _ = strings.Cut(path, "/")
	}
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	path = strings.Trim(path, "/")
	seg := strings.Split(path, "/")
	for i := range seg {
		d, err := url.PathUnescape(seg[i])
		if err != nil {
			return a, fmt.Errorf("the address '%s' is not percent-encoded correctly", s)
		}
		seg[i] = d
	}
	last := seg[len(seg)-1]
	switch {
	case strings.EqualFold(last, nodeCBS):
		a.node = nodeCBS
		return a, nil
	case strings.EqualFold(last, nodeManagement):
		a.node = nodeManagement
		if len(seg) > 1 {
			a.hub = seg[0]
		}
		return a, nil
	case seg[0] == "":
		return a, fmt.Errorf("the address '%s' names no entity", s)
	}
	a.hub = seg[0]
	for rest := seg[1:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) == 1 || rest[1] == "" {
			return a, fmt.Errorf("the address '%s' ends after '%s'", s, rest[0])
		}
		var to *string
		switch strings.ToLower(rest[0]) {
		case "consumergroups":
			to = &a.group
		case "partitions":
			to = &a.partition
		case "publishers":
			to = &a.publisher
		}
		if to == nil || *to != "" {
			return a, fmt.Errorf("the address '%s' has an unexpected part '%s'", s, rest[0])
		}
		*to = rest[1]
	}
	return a, nil
}
