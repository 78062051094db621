package hub

import (
	"context"
	"strings"
	"time"
)

// Changed is when the group was last changed, or else created.
func (g *Group) Changed() time.Time {
	if g.Updated.IsZero() {
		return g.Created
	}
	return g.Updated
}

// GroupRecord returns the record of a consumer group by its name, in any case.
func (h *EventHub) GroupRecord(name string) (Group, error) {
	for _, g := range h.Groups() {
		if strings.EqualFold(g.Name, name) {
			return g, nil
		}
	}
	return Group{}, h.groupNotFound(name)
}

// AddGroup adds a consumer group, durably, and returns it as it was stored.
func (h *EventHub) AddGroup(ctx context.Context, g Group) (Group, error) {
	if err := checkGroupName(h.Name, g.Name); err != nil {
		return Group{}, err
	}
	err := h.Update(ctx, func(s *Settings) error {
		if s.group(g.Name) >= 0 {
			return fail(AlreadyExists, h.Name+"/ConsumerGroups/"+g.Name, "The consumer group '%s' of the event hub '%s' already exists.", g.Name, h.Name)
		}
		g.Created = h.ns.all.now()
		s.Groups = append(s.Groups, g)
		return nil
	})
	return g, err
}

// ChangeGroup changes the metadata of a consumer group, durably, and returns it
// as it was stored. $Default can't be changed.
func (h *EventHub) ChangeGroup(ctx context.Context, name, metadata string) (Group, error) {
	if err := checkGroupName(h.Name, name); err != nil {
		return Group{}, err
	}
	var out Group
	err := h.Update(ctx, func(s *Settings) error {
		i := s.group(name)
		if i < 0 {
			return h.groupNotFound(name)
		}
		s.Groups[i].Metadata, s.Groups[i].Updated = metadata, h.ns.all.now()
		out = s.Groups[i]
		return nil
	})
	return out, err
}
