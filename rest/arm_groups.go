package rest

import (
	"net/http"

	"github.com/millrace/millrace/hub"
)

type armGroupProperties struct {
	CreatedAt    string `json:"createdAt"`
	UpdatedAt    string `json:"updatedAt"`
	UserMetadata string `json:"userMetadata,omitempty"`
}

func (c *armCall) describeGroup(h *hub.EventHub, g hub.Group) armChild {
	return armChild{c.id(h.Namespace(), "eventhubs", h.Name, "consumergroups", g.Name), g.Name, typeGroup, location(h.Namespace()),
		armGroupProperties{stamp(g.Created), stamp(g.Changed()), g.Metadata}}
}

func (c *armCall) listGroups() error {
	h, err := c.hub()
	if err != nil {
		return err
	}
	var all []any
	for _, g := range h.Groups() {
		all = append(all, c.describeGroup(h, g))
	}
	return c.list(all)
}

func (c *armCall) showGroup() error {
	h, err := c.hub()
	if err != nil {
		return err
	}
	g, err := h.GroupRecord(c.names[2])
	if err != nil {
		return c.missing(c.names[2])
	}
	return c.reply(http.StatusOK, c.describeGroup(h, g))
}

// putGroup makes a group or changes its metadata. $Default stays as it is; to
// ask for it is no mistake, since it is there.
func (c *armCall) putGroup() error {
	h, err := c.hub()
	if err != nil {
		return err
	}
	var want struct {
		Properties struct {
			UserMetadata *string `json:"userMetadata"`
		} `json:"properties"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	metadata := want.Properties.UserMetadata
	g, err := h.GroupRecord(c.names[2])
	switch {
	case err != nil:
		g = hub.Group{Name: c.names[2]}
		if metadata != nil {
			g.Metadata = *metadata
		}
		g, err = h.AddGroup(c.Context(), g)
	case metadata != nil && *metadata != g.Metadata:
		g, err = h.ChangeGroup(c.Context(), g.Name, *metadata)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeGroup(h, g))
}

func (c *armCall) deleteGroup() error {
	h, err := c.hub()
	if err == nil {
		err = h.DeleteGroup(c.Context(), c.names[2])
	}
	return c.gone(err)
}
