package hub_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/millrace/millrace/hub"
)

// TestPartitionsAreAdded: what there was stays, new partitions are used at once,
// and a restart finds them.
func TestPartitionsAreAdded(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("orders", 2, hub.Settings{})
	w.append(h.At(1), 3, "abc")
	g, err := h.Group(hub.DefaultGroup)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Join(h.At(1), hub.ReceiverOptions{Lost: func(err error) { t.Errorf("a receiver lost its place: %v", err) }}); err != nil {
		t.Fatal(err)
	}
	same := func(*hub.Settings) error { return nil }
	for _, n := range []int{1, -1, hub.MaxPartitions + 1} {
		if err := h.Change(ctx, n, same); kind(err) != hub.InvalidArgument {
			t.Errorf("%d partitions: %v", n, err)
		}
	}
	if err := h.Change(ctx, 5, same); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if h.Partitions() != 5 {
			t.Fatalf("%d partitions", h.Partitions())
		}
		if i, err := h.At(1).Info(ctx); err != nil || i.Next != 3 {
			t.Errorf("what was there: %+v, %v", i, err)
		}
		if p, err := h.Partition("4"); err != nil || p.Index() != 4 {
			t.Error(err)
		}
		used := map[int]bool{}
		for i := range 100 {
			used[h.ForKey(fmt.Sprint(i)).Index()] = true
			used[10+h.Next().Index()] = true
		}
		if len(used) != 10 {
			t.Errorf("keys and turns reach %v", used)
		}
	}
	check()
	w.append(h.At(4), 2, "new")
	w.reopen()
	if h, err = w.ns.EventHub("orders"); err != nil {
		t.Fatal(err)
	}
	check()
	if i, err := h.At(4).Info(ctx); err != nil || i.Next != 2 {
		t.Errorf("of a new partition: %+v, %v", i, err)
	}
	// A deletion takes them all.
	if err := w.ns.DeleteEventHub(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	hubs, _ := w.disk.List("logs")
	for _, id := range hubs {
		if left, _ := w.disk.List("logs/" + id); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}

	if err := w.ns.Update(ctx, setTier(hub.Standard, 1)); err != nil {
		t.Fatal(err)
	}
	fixed := w.hub("fixed", 2, hub.Settings{})
	if err := fixed.Change(ctx, 3, same); kind(err) != hub.InvalidArgument {
		t.Errorf("at the tier standard: %v", err)
	}
	if err := w.ns.Update(ctx, setTier(hub.Premium, 1)); err != nil {
		t.Fatal(err)
	}
	w.hub("other", 100, hub.Settings{})
	if err := fixed.Change(ctx, 100, same); err != nil {
		t.Errorf("to the namespace's last partition: %v", err)
	}
	if err := fixed.Change(ctx, 101, same); kind(err) != hub.InvalidArgument {
		t.Errorf("past the hub's quota: %v", err)
	}
	if _, err := w.ns.CreateEventHub(ctx, "fourth", 1, hub.Settings{}); kind(err) != hub.QuotaExceeded {
		t.Errorf("past the namespace's quota: %v", err)
	}
}

func TestRevokedPublishers(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("orders", 2, hub.Settings{})
	for _, p := range []string{"truck-7", "truck-1", "Truck-7"} {
		if err := h.Revoke(ctx, p); err != nil {
			t.Error(err)
		}
	}
	if err := h.Revoke(ctx, "truck-7"); kind(err) != hub.AlreadyExists {
		t.Error(err)
	}
	if err := h.Revoke(ctx, ""); kind(err) != hub.InvalidArgument {
		t.Error(err)
	}
	if err := h.Restore(ctx, "truck-1"); err != nil {
		t.Error(err)
	}
	if err := h.Restore(ctx, "truck-1"); kind(err) != hub.NotFound {
		t.Error(err)
	}
	w.reopen()
	h, err := w.ns.EventHub("orders")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Settings().Revoked; !slices.Equal(got, []string{"Truck-7", "truck-7"}) {
		t.Errorf("revoked: %q", got)
	}
	if kind(h.MayPublish("truck-7")) != hub.Revoked || h.MayPublish("truck-1") != nil {
		t.Error("who may publish is wrong")
	}
}
