package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/store"
)

// DeleteEventHub removes a hub with its events. Its receivers are detached.
func (ns *Namespace) DeleteEventHub(ctx context.Context, name string) error {
	n := ns.all
	n.changing.Lock()
	defer n.changing.Unlock()
	h, err := ns.EventHub(name)
	if err != nil {
		return err
	}
	return n.deleteHub(ctx, h)
}

// deleteHub is DeleteEventHub while n.changing is held.
func (n *Namespaces) deleteHub(ctx context.Context, h *EventHub) error {
	ns := h.ns
	b, err := json.Marshal(trashRecord{Key: hubKey(ns, h.Name), Partitions: h.Partitions()})
	if err != nil {
		return err
	}
	trash := trashKey(h.id)
	if _, err := n.meta.Put(ctx, trash, b, store.AnyVersion); err != nil {
		return fmt.Errorf("delete event hub %s: %w", h.Name, err)
	}
	if err := n.meta.Delete(ctx, hubKey(ns, h.Name), store.AnyVersion); err != nil {
		return fmt.Errorf("delete event hub %s: %w", h.Name, err)
	}
	ns.mu.Lock()
	delete(ns.hubs, strings.ToLower(h.Name))
	ns.mu.Unlock()
	h.end()
	n.captureChanged(h)
	if err := n.deleteLogs(context.WithoutCancel(ctx), h.id, h.Partitions()); err != nil {
		// The hub is gone; the rest is done at the next start.
		n.log.Warn("the files of a deleted event hub could not be removed yet", "hub", h.Name, "error", err)
		return nil
	}
	return n.meta.Delete(context.WithoutCancel(ctx), trash, store.AnyVersion)
}

// Delete removes a namespace with all its event hubs. Their receivers are
// detached. The default namespace can't be removed.
func (n *Namespaces) Delete(ctx context.Context, name string) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	ns, err := n.Named(name)
	if err != nil {
		return err
	}
	if ns == n.Default() {
		return fail(Forbidden, name, "The namespace %s is the default one, which hosts that name no other mean; it can't be deleted.", ns.Name)
	}
	r := ns.state.Load().record
	r.Deleting = true
	if err := n.putNamespace(ctx, &r, store.AnyVersion); err != nil {
		return fmt.Errorf("delete namespace %s: %w", ns.Name, err)
	}
	// From here on it is gone, whatever happens: the next start goes on.
	n.mu.Lock()
	delete(n.byName, strings.ToLower(ns.Name))
	n.mu.Unlock()
	close(ns.ended)
	if err := n.clear(context.WithoutCancel(ctx), ns); err != nil {
		n.log.Warn("a deleted namespace could not be removed wholly yet; the next start goes on", "namespace", ns.Name, "error", err)
	}
	return nil
}

// clear removes what is left of a deleted namespace.
func (n *Namespaces) clear(ctx context.Context, ns *Namespace) error {
	for _, h := range ns.EventHubs() {
		if err := n.deleteHub(ctx, h); err != nil {
			return err
		}
	}
	if err := n.deleteKeys(ctx, loadKeys+strings.ToLower(ns.Name)+"/"); err != nil {
		return err
	}
	return n.meta.Delete(ctx, namespaceKeys+strings.ToLower(ns.Name), store.AnyVersion)
}

// deleteKeys removes all that begins with a prefix.
func (n *Namespaces) deleteKeys(ctx context.Context, prefix string) error {
	var keys []string
	for e, err := range n.meta.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		keys = append(keys, e.Key)
	}
	for _, key := range keys {
		if err := n.meta.Delete(ctx, key, store.AnyVersion); err != nil {
			return err
		}
	}
	return nil
}

// finishDeletions removes the namespaces whose deletion was interrupted.
func (n *Namespaces) finishDeletions(ctx context.Context) error {
	for _, ns := range n.All() {
		if !ns.state.Load().record.Deleting {
			continue
		}
		if err := n.clear(ctx, ns); err != nil {
			return fmt.Errorf("%s: %w", ns.Name, err)
		}
		delete(n.byName, strings.ToLower(ns.Name))
	}
	return nil
}

// trashRecord says which partitions of a deleted hub are still to be removed.
type trashRecord struct {
	Key        string `json:"key"` // of the hub's record
	Partitions int    `json:"partitions"`
}

func trashKey(id uint64) string { return fmt.Sprintf("%s%016x", trashKeys, id) }

func (n *Namespaces) deleteLogs(ctx context.Context, id uint64, partitions int) error {
	var errs []error
	for p := range partitions {
		errs = append(errs, n.o.Store.Delete(ctx, store.LogID{Hub: id, Partition: uint32(p)}))
	}
	errs = append(errs, n.deleteKeys(ctx, fmt.Sprintf("%s%016x/", producerKeys, id)))
	return errors.Join(errs...)
}

// emptyTrash finishes deletions that were interrupted.
func (n *Namespaces) emptyTrash(ctx context.Context) error {
	type item struct {
		key string
		id  uint64
		r   trashRecord
	}
	var items []item
	for e, err := range n.meta.List(ctx, trashKeys, "") {
		if err != nil {
			return err
		}
		it := item{key: e.Key}
		if _, err := fmt.Sscanf(e.Key, trashKeys+"%016x", &it.id); err != nil {
			return fmt.Errorf("the record %s: %w", e.Key, err)
		}
		if err := json.Unmarshal(e.Value, &it.r); err != nil {
			return fmt.Errorf("the record %s: %w", e.Key, err)
		}
		items = append(items, it)
	}
	for _, it := range items {
		if !n.hasHub(it.id) { // else the deletion had not begun
			if err := n.deleteLogs(ctx, it.id, it.r.Partitions); err != nil {
				return err
			}
		}
		if err := n.meta.Delete(ctx, it.key, store.AnyVersion); err != nil {
			return err
		}
	}
	return nil
}

func (n *Namespaces) hasHub(id uint64) bool {
	for _, ns := range n.All() {
		for _, h := range ns.EventHubs() {
			if h.id == id {
				return true
			}
		}
	}
	return false
}
