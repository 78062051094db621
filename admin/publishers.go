package admin

import (
	"net/http"
	"slices"

	"github.com/millrace/millrace/auth"
)

func (s *Server) listRevoked(c *call) error {
	h, err := c.hub(auth.Listen)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, append([]string{}, h.Settings().Revoked...))
}

func (s *Server) revokePublisher(c *call) error {
	h, err := c.hub(auth.Manage)
	if err != nil {
		return err
	}
	if err := h.Revoke(c.Context(), c.PathValue("publisher")); err != nil {
		return err
	}
	return c.reply(http.StatusCreated, slices.Clone(h.Settings().Revoked))
}

func (s *Server) restorePublisher(c *call) error {
	h, err := c.hub(auth.Manage)
	if err != nil {
		return err
	}
	if err := h.Restore(c.Context(), c.PathValue("publisher")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
