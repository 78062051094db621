package hub

import (
	"context"
	"slices"
)

// MaxPublisher is the longest name of a publisher, in bytes.
const MaxPublisher = MaxPartitionKey

// MaxRevoked is the most publishers of a hub that can be revoked at a time: they
// are part of its record.
const MaxRevoked = 10_000

// MayPublish returns why a publisher may not send to the hub, if it may not: an
// *Error of kind Revoked.
func (h *EventHub) MayPublish(publisher string) error {
	revoked := h.state.Load().record.Revoked
	if len(revoked) == 0 {
		return nil
	}
	if _, found := slices.BinarySearch(revoked, publisher); found {
		return fail(Revoked, h.Name+"/Publishers/"+publisher, "The publisher '%s' of the event hub '%s' has been revoked.", publisher, h.Name)
	}
	return nil
}

// Revoke keeps a publisher from sending, at once on every door.
func (h *EventHub) Revoke(ctx context.Context, publisher string) error {
	if publisher == "" || len(publisher) > MaxPublisher {
		return fail(InvalidArgument, h.Name, "The name of a publisher has from 1 to %d bytes, not %d.", MaxPublisher, len(publisher))
	}
	return h.Update(ctx, func(s *Settings) error {
		i, found := slices.BinarySearch(s.Revoked, publisher)
		if found {
			return fail(AlreadyExists, h.Name+"/RevokedPublishers/"+publisher, "The publisher '%s' of the event hub '%s' is revoked already.", publisher, h.Name)
		}
		if len(s.Revoked) >= MaxRevoked {
			return fail(QuotaExceeded, h.Name, "The event hub '%s' has %d revoked publishers; there can be no more.", h.Name, MaxRevoked)
		}
		s.Revoked = slices.Insert(s.Revoked, i, publisher)
		return nil
	})
}

// Restore lets a revoked publisher send again.
func (h *EventHub) Restore(ctx context.Context, publisher string) error {
	return h.Update(ctx, func(s *Settings) error {
		i, found := slices.BinarySearch(s.Revoked, publisher)
		if !found {
			return fail(NotFound, h.Name+"/RevokedPublishers/"+publisher, "The publisher '%s' of the event hub '%s' is not revoked.", publisher, h.Name)
		}
		s.Revoked = slices.Delete(s.Revoked, i, i+1)
		return nil
	})
}
