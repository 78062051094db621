package hub_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

func TestGroupMetadata(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	h := w.hub("Orders", 1, hub.Settings{Groups: []hub.Group{{Name: "old"}}})
	longest := strings.Repeat("ü", hub.MaxMetadata)
	g, err := h.AddGroup(ctx, hub.Group{Name: "Billing", Metadata: longest})
	if err != nil || g.Created.IsZero() || !g.Updated.IsZero() || g.Changed() != g.Created {
		t.Fatalf("%+v %v", g, err)
	}
	if g, err = h.ChangeGroup(ctx, "billing", "m"); err != nil || g.Name != "Billing" || g.Metadata != "m" || g.Updated.IsZero() || g.Changed() != g.Updated {
		t.Fatalf("%+v %v", g, err)
	}
	if got, err := h.GroupRecord("BILLING"); err != nil || got != g {
		t.Errorf("%+v %v", got, err)
	}
	if d, err := h.GroupRecord("$default"); err != nil || d.Name != hub.DefaultGroup || d.Created != h.Created {
		t.Errorf("%+v %v", d, err)
	}
	for _, err := range []error{
		errorOf(h.AddGroup(ctx, hub.Group{Name: "a", Metadata: longest + "m"})),
		errorOf(h.ChangeGroup(ctx, "billing", longest+"m")),
		errorOf(h.AddGroup(ctx, hub.Group{Name: "BILLING"})),
		errorOf(h.ChangeGroup(ctx, "none", "")),
		errorOf(h.ChangeGroup(ctx, hub.DefaultGroup, "")),
		errorOf(h.GroupRecord("none")),
	} {
		if err == nil {
			t.Error("something passes that can't be")
		}
	}
	w.reopen()
	if h, err = w.ns.EventHub("orders"); err != nil {
		t.Fatal(err)
	}
	if got := h.Groups(); len(got) != 3 || got[1] != (hub.Group{Name: "old"}) || got[2] != g {
		t.Errorf("%+v", got)
	}
}

func errorOf[T any](_ T, err error) error { return err }

func TestReplaceRules(t *testing.T) {
	w := newWorld(t)
	h := w.hub("h", 1, hub.Settings{})
	old := []hub.Rule{{Name: "a", Rights: auth.Send, Primary: "p", Secondary: "s"}, {Name: "b", Rights: auth.Listen, Primary: "q"}}
	got, err := h.ReplaceRules(old, []hub.Rule{{Name: "A", Rights: auth.Listen, Secondary: "t"}, {Name: "c", Rights: 1<<2 | auth.Send | auth.Listen}})
	if err != nil || len(got) != 2 || got[0] != (hub.Rule{Name: "A", Rights: auth.Listen, Primary: "p", Secondary: "t"}) ||
		got[1].Rights != auth.Manage || len(got[1].Primary) != 44 || len(got[1].Secondary) != 44 {
		t.Errorf("%+v %v", got, err)
	}
	if len(old) != 2 || old[0].Secondary != "s" {
		t.Errorf("the old ones are changed: %+v", old)
	}
	var many []hub.Rule
	for i := range hub.MaxRules + 1 {
		many = append(many, hub.Rule{Name: fmt.Sprint("r", i), Rights: auth.Send})
	}
	for name, want := range map[string][]hub.Rule{
		"twice":     {{Name: "a", Rights: auth.Send}, {Name: "A", Rights: auth.Send}},
		"no rights": {{Name: "a"}},
		"no name":   {{Rights: auth.Send}},
		"a slash":   {{Name: "a/b", Rights: auth.Send}},
		"a key":     {{Name: "a", Rights: auth.Send, Primary: strings.Repeat("k", hub.MaxKey+1)}},
		"many":      many,
	} {
		if got, err := h.ReplaceRules(old, want); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
		if got, err := w.ns.NewRules("new", want); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
