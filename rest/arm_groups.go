package rest

import (
	"net/http"
	"strings"

	"github.com/millrace/millrace/hub"
)

type armGroupProperties struct {
	CreatedAt string `json:"createdAt"`
	UpdatedAt string `json:"updatedAt"`
}

func (c *armCall) describeGroup(h *hub.EventHub, g hub.Group) armChild {
	at := stamp(g.Created)
	return armChild{c.id(h.Namespace(), "eventhubs", h.Name, "consumergroups", g.Name), g.Name, typeGroup, location(h.Namespace()), armGroupProperties{at, at}}
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

// replyGroup answers with the group that the path names.
func (c *armCall) replyGroup(h *hub.EventHub) error {
	for _, g := range h.Groups() {
		if strings.EqualFold(g.Name, c.names[2]) {
			return c.reply(http.StatusOK, c.describeGroup(h, g))
		}
	}
	return c.missing(c.names[2])
}

func (c *armCall) showGroup() error {
	h, err := c.hub()
	if err != nil {
		return err
	}
	return c.replyGroup(h)
}

// putGroup makes a group. One that is there, as $Default always is, stays as it
// is.
func (c *armCall) putGroup() error {
	h, err := c.hub()
	if err != nil {
		return err
	}
	var want struct {
		Properties struct {
			UserMetadata string `json:"userMetadata"`
		} `json:"properties"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	if want.Properties.UserMetadata != "" {
		return unsupported("UserMetadata", "properties.userMetadata", "Consumer groups have no user metadata yet.")
	}
	if _, err := h.Group(c.names[2]); err != nil {
		if err := h.CreateGroup(c.Context(), c.names[2]); err != nil {
			return err
		}
	}
	return c.replyGroup(h)
}

func (c *armCall) deleteGroup() error {
	h, err := c.hub()
	if err == nil {
		err = h.DeleteGroup(c.Context(), c.names[2])
	}
	return c.gone(err)
}
