package admin

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

func describe(h *hub.EventHub) Hub {
	out := Hub{
		Namespace: h.Namespace().Name, Name: h.Name, Partitions: h.Partitions(),
		Retention: Retention(h.Settings().Retention), MaxBytes: h.Settings().MaxBytes, Status: string(h.Status()), Metadata: h.Settings().Metadata, Created: h.Created, Updated: h.Updated(),
		Capture: describeCapture(h.Settings().Capture),
	}
	for _, g := range h.Groups() {
		out.Groups = append(out.Groups, g.Name)
	}
	return out
}

func (s *Server) listHubs(c *call) error {
	if err := c.may(auth.Listen, ""); err != nil {
		return err
	}
	hubs := []Hub{}
	for _, h := range c.ns.EventHubs() {
		hubs = append(hubs, describe(h))
	}
	return c.reply(http.StatusOK, hubs)
}

func (s *Server) createHub(c *call) error {
	if err := c.may(auth.Manage, ""); err != nil {
		return err
	}
	var want NewHub
	if err := c.read(&want); err != nil {
		return err
	}
	if want.Partitions == 0 {
		want.Partitions = DefaultPartitions
	}
	settings := hub.Settings{Retention: time.Duration(want.Retention), MaxBytes: want.MaxBytes, Metadata: want.Metadata}
	for _, g := range want.Groups {
		settings.Groups = append(settings.Groups, hub.Group{Name: g, Created: c.now.UTC().Truncate(time.Millisecond)})
	}
	if err := want.Capture.change(&settings); err != nil {
		return err
	}
	h, err := c.ns.CreateEventHub(c.Context(), want.Name, want.Partitions, settings)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", Root+"hubs/"+url.PathEscape(h.Name))
	return c.reply(http.StatusCreated, describe(h))
}

func (s *Server) showHub(c *call) error {
	h, err := c.hub(auth.Listen)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, describe(h))
}

func (s *Server) updateHub(c *call) error {
	h, err := c.hub(auth.Manage)
	if err != nil {
		return err
	}
	var change HubChange
	if err := c.read(&change); err != nil {
		return err
	}
	if change == (HubChange{}) {
		return badRequest("The request changes nothing; it may set partitions, retention, maxBytes, status, metadata and capture.")
	}
	err = h.Change(c.Context(), change.Partitions, func(s *hub.Settings) error {
		if change.Retention != 0 {
			s.Retention = time.Duration(change.Retention)
		}
		if change.MaxBytes != nil {
			s.MaxBytes = *change.MaxBytes
		}
		if change.Status != "" {
			s.Status = hub.Status(change.Status)
		}
		if change.Metadata != nil {
			s.Metadata = *change.Metadata
		}
		return change.Capture.change(s)
	})
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, describe(h))
}

func (s *Server) deleteHub(c *call) error {
	if err := c.may(auth.Manage, ""); err != nil {
		return err
	}
	if err := c.ns.DeleteEventHub(c.Context(), c.PathValue("hub")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) listPartitions(c *call) error {
	h, err := c.hub(auth.Listen)
	if err != nil {
		return err
	}
	partitions := []Partition{}
	for i := range h.Partitions() {
		p := Partition{ID: strconv.Itoa(i)}
		info, err := h.At(i).Info(c.Context())
		if err != nil {
			if c.Context().Err() != nil {
				return err
			}
			answer, _, _ := answerFor(err)
			p.Error = answer.Message
		} else {
			p.First, p.Last, p.Empty, p.Bytes = int64(info.First), int64(info.Last()), info.Empty, info.Bytes
			if !info.LastEnqueued.IsZero() {
				p.LastEnqueued = &info.LastEnqueued
			}
		}
		partitions = append(partitions, p)
	}
	return c.reply(http.StatusOK, partitions)
}

func (s *Server) listReceivers(c *call) error {
	h, err := c.hub(auth.Listen)
	if err != nil {
		return err
	}
	receivers := []Receiver{}
	for _, g := range h.Groups() {
		group, err := h.Group(g.Name)
		if err != nil {
			continue // deleted just now
		}
		for _, seat := range group.Seats() {
			r := Receiver{Group: group.Name, Partition: strconv.Itoa(seat.Partition), Name: seat.Name}
			if seat.Exclusive {
				r.Epoch = &seat.Epoch
			}
			receivers = append(receivers, r)
		}
	}
	return c.reply(http.StatusOK, receivers)
}

func (s *Server) listGroups(c *call) error {
	h, err := c.hub(auth.Listen)
	if err != nil {
		return err
	}
	groups := []Group{}
	for _, g := range h.Groups() {
		groups = append(groups, Group{Name: g.Name, Created: g.Created})
	}
	return c.reply(http.StatusOK, groups)
}

func (s *Server) createGroup(c *call) error {
	h, err := c.hub(auth.Manage)
	if err != nil {
		return err
	}
	var want NewGroup
	if err := c.read(&want); err != nil {
		return err
	}
	g, err := h.AddGroup(c.Context(), hub.Group{Name: want.Name})
	if err != nil {
		return err
	}
	return c.reply(http.StatusCreated, Group{Name: g.Name, Created: g.Created})
}

func (s *Server) deleteGroup(c *call) error {
	h, err := c.hub(auth.Manage)
	if err != nil {
		return err
	}
	if err := h.DeleteGroup(c.Context(), c.PathValue("group")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
