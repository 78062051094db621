package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/hub"
)

func setRules(rules ...hub.Rule) func(*hub.NamespaceSettings) error {
	return func(s *hub.NamespaceSettings) error { s.Rules = rules; return nil }
}

func setTier(t hub.Tier, capacity int) func(*hub.NamespaceSettings) error {
	return func(s *hub.NamespaceSettings) error { s.Tier, s.Capacity = t, capacity; return nil }
}

// TestQuotas is the matrix of features.md, section 0, at its edges.
func TestQuotas(t *testing.T) {
	ctx := t.Context()
	groups := func(n int) (gs []hub.Group) {
		for i := range n {
			gs = append(gs, hub.Group{Name: fmt.Sprintf("g%d", i)})
		}
		return gs
	}
	for _, c := range []struct {
		tier       hub.Tier
		capacity   int
		partitions int // of a hub
		all        int // of the namespace
		hubs       int
		groups     int // beside $Default
		retention  time.Duration
		longest    hub.Kind // for a minute more than retention
	}{
		{hub.Basic, 1, 32, 0, 10, 0, 24 * time.Hour, hub.InvalidArgument},
		{hub.Standard, 1, 32, 0, 10, 19, 7 * 24 * time.Hour, hub.InvalidArgument},
		{hub.Standard, 40, 32, 0, 10, 19, 7 * 24 * time.Hour, hub.InvalidArgument},
		{hub.Premium, 1, 100, 200, 100, 99, 90 * 24 * time.Hour, hub.InvalidArgument},
		{hub.Premium, 2, 100, 400, 200, 99, 90 * 24 * time.Hour, hub.InvalidArgument},
		{hub.Dedicated, 1, 1024, 2000, 1000, 999, 90 * 24 * time.Hour, hub.InvalidArgument},
	} {
		t.Run(fmt.Sprintf("%s %d", c.tier, c.capacity), func(t *testing.T) {
			w := newWorld(t)
			ns, err := w.all.Create(ctx, "limited", hub.NamespaceSettings{Tier: c.tier, Capacity: c.capacity})
			if err != nil {
				t.Fatal(err)
			}
			create := func(name string, partitions int, s hub.Settings) hub.Kind {
				_, err := ns.CreateEventHub(ctx, name, partitions, s)
				return kind(err)
			}
			expect := func(what string, got, want hub.Kind) {
				t.Helper()
				if got != want {
					t.Errorf("%s: %v, not %v", what, got, want)
				}
			}
			expect("a partition too many", create("x", c.partitions+1, hub.Settings{}), hub.InvalidArgument)
			expect("no partition", create("x", 0, hub.Settings{}), hub.InvalidArgument)
			expect("retention too long", create("x", 1, hub.Settings{Retention: c.retention + time.Hour}), c.longest)
			expect("retention for ever", create("x", 1, hub.Settings{Retention: -1}), hub.InvalidArgument)
			expect("retention of half an hour", create("x", 1, hub.Settings{Retention: 30 * time.Minute}), hub.InvalidArgument)
			expect("a group too many", create("x", 1, hub.Settings{Groups: groups(c.groups + 1)}), hub.QuotaExceeded)
			expect("all that is allowed", create("h0", c.partitions, hub.Settings{Retention: c.retention, Groups: groups(c.groups)}), 0)
			h, err := ns.EventHub("h0")
			if err != nil {
				t.Fatal(err)
			}
			expect("one group more", kind(h.CreateGroup(ctx, "more")), hub.QuotaExceeded)
			if c.all > 0 {
				left := c.all - c.partitions
				for i := 1; left > 0; i++ {
					n := min(left, c.partitions)
					expect("a hub of the last partitions", create(fmt.Sprintf("p%d", i), n, hub.Settings{}), 0)
					left -= n
				}
				expect("a partition of the namespace too many", create("x", 1, hub.Settings{}), hub.QuotaExceeded)
				return
			}
			for i := 1; i < c.hubs; i++ {
				expect("a hub", create(fmt.Sprintf("h%d", i), 1, hub.Settings{}), 0)
			}
			expect("a hub too many", create("x", 1, hub.Settings{}), hub.QuotaExceeded)
			w.reopen()
			if ns = w.all.Lookup("limited"); ns.Settings().Tier != c.tier || ns.Settings().Capacity != c.capacity {
				t.Errorf("after a restart it is %+v", ns.Settings())
			}
		})
	}
}

func TestEventHubsPerUnit(t *testing.T) {
	w := newWorld(t)
	ns, err := w.all.Create(t.Context(), "p", hub.NamespaceSettings{Tier: hub.Premium, Capacity: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 101 {
		_, err := ns.CreateEventHub(t.Context(), fmt.Sprintf("h%d", i), 1, hub.Settings{})
		if want := map[bool]hub.Kind{true: hub.QuotaExceeded}[i == 100]; kind(err) != want {
			t.Fatalf("hub %d: %v", i, err)
		}
	}
}

func TestConnectionQuota(t *testing.T) {
	w := newWorld(t)
	for tier, limit := range map[hub.Tier]int{hub.Basic: 100, hub.Standard: 5000, hub.Premium: 20_000, hub.Dedicated: 200_000} {
		ns, err := w.all.Create(t.Context(), string(tier), hub.NamespaceSettings{Tier: tier, Capacity: 2})
		if err != nil {
			t.Fatal(err)
		}
		for range limit {
			if err := ns.Connect(); err != nil {
				t.Fatal(err)
			}
		}
		err = ns.Connect()
		if kind(err) != hub.QuotaExceeded || !strings.Contains(err.Error(), fmt.Sprint(limit)) {
			t.Errorf("%s: %v", tier, err)
		}
		ns.Disconnect()
		if err := ns.Connect(); err != nil {
			t.Error(err)
		}
	}
}

// TestRuntimeInfo: in any second there may be fifty calls, of all the service's
// tiers, and as many as anybody likes at the tier unlimited.
func TestRuntimeInfo(t *testing.T) {
	w := newWorld(t)
	for range 1000 {
		if err := w.ns.MayDescribe(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tier := range []hub.Tier{hub.Basic, hub.Standard, hub.Premium, hub.Dedicated} {
		ns, err := w.all.Create(t.Context(), string(tier), hub.NamespaceSettings{Tier: tier})
		if err != nil {
			t.Fatal(err)
		}
		var let [5000]int // in each millisecond
		for ms := range let {
			for range 1 + ms%3 {
				switch err := ns.MayDescribe(); {
				case err == nil:
					let[ms]++
				case kind(err) != hub.Busy || !strings.Contains(err.Error(), "the namespace "+string(tier)+" is being throttled. Error code : 50001. Please wait 10 seconds"):
					t.Fatalf("%s: %v", tier, err)
				}
			}
			w.pass(time.Millisecond)
		}
		for from := range len(let) - 999 {
			n := 0
			for _, x := range let[from : from+1000] {
				n += x
			}
			if n < 45 || n > 50 {
				t.Fatalf("%s: in the second from %d ms on, %d calls were let in", tier, from, n)
			}
		}
	}
}

// TestTierOfWhatThereIs: a tier that does not allow what there already is, is
// refused, and nothing changes.
func TestTierOfWhatThereIs(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.hub("wide", 64, hub.Settings{})
	for _, c := range []struct {
		tier     hub.Tier
		capacity int
		want     hub.Kind
	}{
		{hub.Standard, 1, hub.InvalidArgument}, {"gold", 1, hub.InvalidArgument}, {hub.Premium, 3, hub.InvalidArgument},
		{hub.Standard, 41, hub.InvalidArgument}, {hub.Unlimited, 2, hub.InvalidArgument}, {hub.Premium, -1, hub.InvalidArgument}, {hub.Premium, 16, 0},
	} {
		before := w.ns.Settings().Tier
		err := w.ns.Update(ctx, setTier(c.tier, c.capacity))
		if kind(err) != c.want {
			t.Errorf("%s %d: %v", c.tier, c.capacity, err)
		}
		if c.want != 0 && w.ns.Settings().Tier != before {
			t.Errorf("after %v the tier is %s", err, w.ns.Settings().Tier)
		}
	}
	if q := w.ns.Quotas(); q.Throughput || !q.GrowPartitions {
		t.Errorf("%+v", q)
	}
}

func TestParseTier(t *testing.T) {
	for in, want := range map[string]hub.Tier{"": hub.Unlimited, "Standard": hub.Standard, "PREMIUM": hub.Premium} {
		if got, err := hub.ParseTier(in); got != want || err != nil {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	if _, err := hub.ParseTier("free"); kind(err) != hub.InvalidArgument {
		t.Error(err)
	}
	for _, tier := range hub.Tiers() {
		if q := tier.Quotas(); q.Publication == 0 || len(q.Units) == 0 || !slices.IsSorted(q.Units) || tier.Title() == "" {
			t.Errorf("%s: %+v", tier, q)
		}
	}
}

func TestDeleteNamespace(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	ns, err := w.all.Create(ctx, "gone", hub.NamespaceSettings{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := ns.CreateEventHub(ctx, "orders", 2, hub.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	w.append(h.At(0), 3, "abc")
	if err := w.all.Delete(ctx, w.ns.Name); kind(err) != hub.Forbidden {
		t.Error(err)
	}
	if err := w.all.Delete(ctx, "GONE"); err != nil {
		t.Fatal(err)
	}
	if err := w.all.Delete(ctx, "gone"); kind(err) != hub.NotFound {
		t.Error(err)
	}
	if _, err := appendTo(h.At(0), 1, "x"); kind(err) != hub.NotFound {
		t.Errorf("an append to a hub of a deleted namespace: %v", err)
	}
	if _, err := ns.CreateEventHub(ctx, "new", 1, hub.Settings{}); kind(err) != hub.NotFound {
		t.Errorf("a hub in a deleted namespace: %v", err)
	}
	if err := ns.Update(ctx, setTier(hub.Standard, 1)); kind(err) != hub.NotFound {
		t.Error(err)
	}
	if got := w.all.Lookup("gone"); got != w.ns {
		t.Errorf("the host gone means %s", got.Name)
	}
	w.reopen()
	if len(w.all.All()) != 1 {
		t.Errorf("%d namespaces after a restart", len(w.all.All()))
	}
	ns, err = w.all.Create(ctx, "gone", hub.NamespaceSettings{})
	if err != nil || len(ns.EventHubs()) != 0 {
		t.Errorf("made anew it has %d hubs, %v", len(ns.EventHubs()), err)
	}
}

func TestStatus(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("orders", 1, hub.Settings{})
	g, err := h.Group(hub.DefaultGroup)
	if err != nil {
		t.Fatal(err)
	}
	set := func(s hub.Status) error {
		return h.Update(ctx, func(x *hub.Settings) error { x.Status = s; return nil })
	}
	if err := set("Sleeping"); kind(err) != hub.InvalidArgument {
		t.Error(err)
	}
	for _, c := range []struct {
		status        hub.Status
		send, receive hub.Kind
	}{
		{hub.StatusActive, 0, 0}, {hub.StatusSendDisabled, hub.Disabled, 0}, {hub.StatusReceiveDisabled, 0, hub.Disabled},
		{hub.StatusDisabled, hub.Disabled, hub.Disabled}, {hub.StatusActive, 0, 0},
	} {
		var lost error
		r, err := g.Join(h.At(0), hub.ReceiverOptions{Lost: func(err error) { lost = err }})
		seated := err == nil
		if err := set(c.status); err != nil {
			t.Fatal(err)
		}
		if h.Status() != c.status || kind(h.MaySend()) != c.send {
			t.Errorf("%s: the status is %s, %v", c.status, h.Status(), h.MaySend())
		}
		if seated && kind(lost) != c.receive {
			t.Errorf("%s: a seated receiver is told %v", c.status, lost)
		}
		if seated {
			r.Leave()
		}
		if _, err := appendTo(h.At(0), 1, "x"); kind(err) != c.send {
			t.Errorf("%s: sending: %v", c.status, err)
		}
		r, err = g.Join(h.At(0), hub.ReceiverOptions{Lost: func(error) {}})
		if kind(err) != c.receive {
			t.Errorf("%s: receiving: %v", c.status, err)
		}
		if err == nil {
			r.Leave()
		}
		w.reopen()
		w.ns = w.all.Default()
		h, err = w.ns.EventHub("orders")
		if err != nil || h.Status() != c.status {
			t.Fatalf("after a restart the status is %s, %v", h.Status(), err)
		}
		if g, err = h.Group(hub.DefaultGroup); err != nil {
			t.Fatal(err)
		}
	}
}
