package hub_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/storetest"
)

func putGroup(t testing.TB, ns *hub.Namespace, g hub.ApplicationGroup) {
	t.Helper()
	if _, err := ns.PutApplicationGroup(context.Background(), g); err != nil {
		t.Fatal(err)
	}
}

func sendAs(c *hub.Client, p *hub.Partition, n int) error {
	done := make(chan error, 1)
	c.Append(p, storetest.Batch(n, "x"), func(err error) { done <- err })
	return <-done
}

func wantKind(t *testing.T, err error, k hub.Kind, text string) *hub.Error {
	t.Helper()
	var e *hub.Error
	if !errors.As(err, &e) || e.Kind != k || !strings.Contains(e.Text, text) {
		t.Fatalf("%v; wanted %s with %q", err, k, text)
	}
	return e
}

// TestApplicationGroups: whose claims are of a group's security context is held to
// its policies, and nobody else is.
func TestApplicationGroups(t *testing.T) {
	w := newWorld(t)
	h := w.hub("orders", 1, hub.Settings{})
	p := h.At(0)
	policies := []hub.ThrottlingPolicy{{Name: "slow", Metric: hub.IncomingMessages, Limit: 10}, {Name: "out", Metric: hub.OutgoingBytes, Limit: 1024}}
	for name, c := range map[string]struct {
		identifier string
		in, out    auth.Claims
	}{
		"namespace's rule": {"SASKeyName=Ingest", auth.Claims{Name: "ingest", Local: true, OfNamespace: true}, auth.Claims{Name: "ingest", Local: true}},
		"its long form":    {"NamespaceSASKeyName=ingest", auth.Claims{Name: "ingest", Local: true, OfNamespace: true}, auth.Claims{Name: "other", Local: true, OfNamespace: true}},
		"hub's rule":       {"EntitySASKeyName=ingest", auth.Claims{Name: "ingest", Local: true}, auth.Claims{Name: "ingest", Local: true, OfNamespace: true}},
		"application":      {"AADAppID=A1", auth.Claims{Name: "ann", App: "a1"}, auth.Claims{Name: "a1", Local: true, OfNamespace: true}},
	} {
		t.Run(name, func(t *testing.T) {
			putGroup(t, w.ns, hub.ApplicationGroup{Name: "g", Identifier: c.identifier, Policies: policies})
			defer w.ns.DeleteApplicationGroup(t.Context(), "G") //nolint:errcheck // it is there
			in, out := w.ns.Client(&c.in), w.ns.Client(&c.out)
			if err := sendAs(&in, p, 1000); err != nil { // whatever its size, a first batch passes
				t.Fatal(err)
			}
			e := wantKind(t, sendAs(&in, p, 1), hub.Busy, "50013")
			if !strings.Contains(e.Text, "50004") || !strings.Contains(e.Text, "'g'") || !strings.Contains(e.Text, "'slow'") || e.RetryAfter != 90*time.Second {
				t.Errorf("%+v", e)
			}
			if err := sendAs(&out, p, 1000); err != nil || out.Limited() {
				t.Errorf("another client: %v, %t", err, out.Limited())
			}
			w.pass(e.RetryAfter)
			if err := sendAs(&in, p, 1); err != nil {
				t.Errorf("after the wait: %v", err)
			}
			if wait := in.Delivered(1024*11, 5); wait != time.Second || !in.Limited() {
				t.Errorf("a receiver waits for %s", wait)
			}
			if wait := out.Delivered(1<<30, 5); wait != 0 {
				t.Errorf("another waits for %s", wait)
			}
		})
	}
}

// TestApplicationGroupChanges: a change holds at once for clients that are there,
// and what was taken stays owed.
func TestApplicationGroupChanges(t *testing.T) {
	w := newWorld(t)
	h := w.hub("orders", 1, hub.Settings{})
	p := h.At(0)
	c := w.ns.Client(&auth.Claims{Name: "r", Local: true, OfNamespace: true})
	told := 0
	stop := w.ns.Watch(func() { told++ })
	g := hub.ApplicationGroup{Name: "g", Identifier: "SASKeyName=r", Policies: []hub.ThrottlingPolicy{{Name: "a", Metric: hub.IncomingMessages, Limit: 10}}}
	if err := sendAs(&c, p, 500); err != nil {
		t.Fatal(err)
	}
	putGroup(t, w.ns, g)
	if err := sendAs(&c, p, 500); err != nil {
		t.Fatal(err)
	}
	g.Policies = append(g.Policies, hub.ThrottlingPolicy{Name: "b", Metric: hub.IncomingBytes, Limit: 1 << 20})
	putGroup(t, w.ns, g)
	wantKind(t, sendAs(&c, p, 1), hub.Busy, "'a'")
	g.Disabled = true
	putGroup(t, w.ns, g)
	wantKind(t, sendAs(&c, p, 1), hub.Unauthorized, "is disabled")
	wantKind(t, c.MayConnect(), hub.Unauthorized, "is disabled")
	stop()
	if err := w.ns.DeleteApplicationGroup(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	if err := sendAs(&c, p, 1); err != nil {
		t.Fatal(err)
	}
	if told != 3 {
		t.Errorf("told of %d changes, not 3", told)
	}
	wantKind(t, w.ns.DeleteApplicationGroup(t.Context(), "g"), hub.NotFound, "")
}

func TestApplicationGroupRefusals(t *testing.T) {
	w := newWorld(t)
	policy := func(name string, m hub.Metric, n int64) hub.ApplicationGroup {
		return hub.ApplicationGroup{Name: "g", Identifier: "SASKeyName=r", Policies: []hub.ThrottlingPolicy{{Name: name, Metric: m, Limit: n}}}
	}
	for text, g := range map[string]hub.ApplicationGroup{
		"has from 1 to 256":            {Name: "", Identifier: "SASKeyName=r"},
		"has to be Namespace":          {Name: "g", Identifier: "KeyName=r"},
		"The identifier 'SASKeyName='": {Name: "g", Identifier: "SASKeyName="},
		"which is not a metric":        policy("p", "Bytes", 5000),
		"from 1024 to":                 policy("p", hub.OutgoingBytes, 1023),
		"from 1 to":                    policy("p", hub.OutgoingMessages, 0),
		"name of a throttling policy":  policy("", hub.OutgoingMessages, 1),
		"up to 16 policies":            {Name: "g", Identifier: "SASKeyName=r", Policies: make([]hub.ThrottlingPolicy, 17)},
	} {
		_, err := w.ns.PutApplicationGroup(t.Context(), g)
		var e *hub.Error
		if !errors.As(err, &e) || !strings.Contains(e.Text, text) {
			t.Errorf("%+v: %v; wanted %q", g, err, text)
		}
	}
	putGroup(t, w.ns, policy("p", hub.OutgoingMessages, 1))
	_, err := w.ns.PutApplicationGroup(t.Context(), hub.ApplicationGroup{Name: "h", Identifier: "NamespaceSASKeyName=R"})
	wantKind(t, err, hub.AlreadyExists, "'g'")
	err = w.ns.Update(t.Context(), setTier(hub.Standard, 1))
	wantKind(t, err, hub.InvalidArgument, "no application groups")
}

// TestPolicyIsExact: what a policy lets pass over any minute, whatever the sizes
// and pauses, is its limit and a burst, and one batch.
func TestPolicyIsExact(t *testing.T) {
	w := newWorld(t)
	h := w.hub("orders", 1, hub.Settings{})
	c := w.ns.Client(&auth.Claims{Name: "r", Local: true, OfNamespace: true})
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.Int64Range(1, 1000).Draw(rt, "limit")
		w.ns.DeleteApplicationGroup(t.Context(), "g") //nolint:errcheck // of the run before
		putGroup(t, w.ns, hub.ApplicationGroup{Name: "g", Identifier: "SASKeyName=r", Policies: []hub.ThrottlingPolicy{{Name: "a", Metric: hub.IncomingMessages, Limit: limit}}})
		taken, largest := 0, 0
		for range 60 {
			n := rapid.IntRange(1, 50).Draw(rt, "n")
			if sendAs(&c, h.At(0), n) == nil {
				taken += n
				largest = max(largest, n)
			}
			w.pass(time.Second)
		}
		if most := int(limit)*(60+10) + largest; taken > most {
			rt.Errorf("%d events passed in a minute; the limit of %d a second lets %d", taken, limit, most)
		}
	})
}
