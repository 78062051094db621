package hub_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

func TestRules(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.hub("orders", 1, hub.Settings{})
	sets := func() map[string]hub.RuleSet {
		h, err := w.ns.EventHub("orders")
		if err != nil {
			t.Fatal(err)
		}
		return map[string]hub.RuleSet{"": w.ns.Rules(), "orders": h.Rules()}
	}
	keys := map[string]string{}
	for at, s := range sets() {
		r, created, err := s.Put(ctx, hub.Rule{Name: "sender", Rights: auth.Send})
		if err != nil || !created || len(r.Primary) != 44 || len(r.Secondary) != 44 || r.Primary == r.Secondary {
			t.Fatalf("%q: %+v, %v", at, r, err)
		}
		again, created, err := s.Put(ctx, hub.Rule{Name: "Sender", Rights: auth.Send | auth.Listen, Secondary: "mine"})
		if err != nil || created || again.Name != "sender" || again.Primary != r.Primary || again.Secondary != "mine" || again.Rights != auth.Send|auth.Listen {
			t.Errorf("%q: %+v, %v", at, again, err)
		}
		next, err := s.Regenerate(ctx, "sender", true, "")
		if err != nil || next.Primary == r.Primary || next.Secondary != "mine" {
			t.Errorf("%q: %+v, %v", at, next, err)
		}
		keys[at] = next.Primary
		for what, c := range map[string]struct {
			err  error
			want hub.Kind
		}{
			"no rights":                 {third(s.Put(ctx, hub.Rule{Name: "idle"})), hub.InvalidArgument},
			"a name with a space":       {third(s.Put(ctx, hub.Rule{Name: "a b", Rights: auth.Send})), hub.InvalidArgument},
			"a long key":                {third(s.Put(ctx, hub.Rule{Name: "long", Rights: auth.Send, Primary: strings.Repeat("x", 257)})), hub.InvalidArgument},
			"regenerating none":         {second(s.Regenerate(ctx, "nobody", true, "")), hub.NotFound},
			"deleting none":             {s.Delete(ctx, "nobody"), hub.NotFound},
			"reading none":              {second(s.Rule("nobody")), hub.NotFound},
			"deleting the broker's own": {s.Delete(ctx, "RootManageSharedAccessKey"), map[string]hub.Kind{"": hub.Forbidden, "orders": hub.NotFound}[at]},
		} {
			if kind(c.err) != c.want {
				t.Errorf("%q: %s: %v", at, what, c.err)
			}
		}
		for i := len(s.All()); i < 13; i++ {
			full := len(s.All()) >= 12 && at == "orders"
			_, _, err := s.Put(ctx, hub.Rule{Name: "r" + strings.Repeat("x", i), Rights: auth.Listen})
			if full != (kind(err) == hub.QuotaExceeded) {
				t.Errorf("%q: rule %d: %v", at, i, err)
			}
		}
	}
	w.reopen()
	for at, s := range sets() {
		if r, err := s.Rule("SENDER"); err != nil || r.Primary != keys[at] {
			t.Errorf("%q after a restart: %+v, %v", at, r, err)
		}
		if r, ok := w.all.Rule("localhost", at, "sender"); !ok || r.Primary != keys[at] {
			t.Errorf("%q for a token: %+v", at, r)
		}
		if err := s.Delete(ctx, "sender"); err != nil {
			t.Error(err)
		}
		if _, ok := w.all.Rule("localhost", at, "sender"); ok {
			t.Errorf("%q: a deleted rule is good", at)
		}
	}
	// The broker's own key can be changed, for this namespace.
	if _, err := w.ns.Rules().Regenerate(ctx, "RootManageSharedAccessKey", true, "changed"); err != nil {
		t.Fatal(err)
	}
	if r, ok := w.all.Rule("localhost", "", "RootManageSharedAccessKey"); !ok || r.Primary != "changed" || r.Rights != auth.Manage {
		t.Errorf("%+v", r)
	}
}

func third[T, U any](_ T, _ U, err error) error { return err }

// TestConfiguredRules: what a configuration has holds before what is stored, is
// listed, and can't be changed.
func TestConfiguredRules(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	w.hub("Orders", 1, hub.Settings{})
	for _, name := range []string{"shadowed", "stored"} {
		if _, _, err := w.ns.Rules().Put(ctx, hub.Rule{Name: name, Rights: auth.Send, Primary: "of the store"}); err != nil {
			t.Fatal(err)
		}
	}
	w.configured = []hub.RulesOf{
		{Rules: []hub.Rule{{Name: "Shadowed", Rights: auth.Listen, Primary: "first"}}},
		{Namespace: "LOCALHOST", Rules: []hub.Rule{{Name: "shadowed", Rights: auth.Listen, Primary: "last", Secondary: "other"}}},
		{Hub: "orders", Rules: []hub.Rule{{Name: "app", Rights: auth.Manage, Primary: "k"}}},
		{Namespace: "elsewhere", Hub: "orders", Rules: []hub.Rule{{Name: "app", Rights: auth.Listen, Primary: "e"}}},
	}
	w.reopen()
	h, err := w.ns.EventHub("orders")
	if err != nil {
		t.Fatal(err)
	}
	names := func(s hub.RuleSet) (out []string) {
		for _, r := range s.All() {
			mark := ""
			if r.Configured {
				mark = "*"
			}
			out = append(out, r.Name+mark)
		}
		return out
	}
	if got := names(w.ns.Rules()); !slices.Equal(got, []string{"RootManageSharedAccessKey", "shadowed*", "stored"}) {
		t.Errorf("%q", got)
	}
	if got := names(h.Rules()); !slices.Equal(got, []string{"app*"}) {
		t.Errorf("%q", got)
	}
	if r, ok := w.all.Rule("localhost", "", "SHADOWED"); !ok || r.Primary != "last" || r.Rights != auth.Listen {
		t.Errorf("%+v", r)
	}
	if r, ok := w.all.Rule("localhost", "orders", "app"); !ok || r.Primary != "k" {
		t.Errorf("%+v", r)
	}
	for what, err := range map[string]error{
		"other rights":   third(w.ns.Rules().Put(ctx, hub.Rule{Name: "shadowed", Rights: auth.Send})),
		"another key":    third(w.ns.Rules().Put(ctx, hub.Rule{Name: "shadowed", Rights: auth.Listen, Primary: "x"})),
		"a second key":   third(h.Rules().Put(ctx, hub.Rule{Name: "APP", Rights: auth.Manage, Secondary: "x"})),
		"a deletion":     w.ns.Rules().Delete(ctx, "SHADOWED"),
		"a new key":      second(h.Rules().Regenerate(ctx, "app", true, "")),
		"leaving it out": second(h.ReplaceRules(nil, []hub.Rule{{Name: "mine", Rights: auth.Send}})),
		"in a list":      second(h.ReplaceRules(nil, []hub.Rule{{Name: "app", Rights: auth.Send}})),
		"in a new hub":   second(w.ns.NewRules("orders", []hub.Rule{{Name: "app", Rights: auth.Send}})),
	} {
		if kind(err) != hub.Forbidden || !strings.Contains(err.Error(), "configuration file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Asked for as it is, it changes nothing, and is not stored.
	if r, created, err := w.ns.Rules().Put(ctx, hub.Rule{Name: "SHADOWED", Rights: auth.Listen, Primary: "last"}); err != nil || created || r.Name != "shadowed" || r.Secondary != "other" {
		t.Errorf("%+v, %t, %v", r, created, err)
	}
	for _, ask := range []func([]hub.Rule) ([]hub.Rule, error){
		func(want []hub.Rule) ([]hub.Rule, error) { return h.ReplaceRules(nil, want) },
		func(want []hub.Rule) ([]hub.Rule, error) { return w.ns.NewRules("orders", want) },
	} {
		if got, err := ask([]hub.Rule{{Name: "app", Rights: auth.Manage}, {Name: "mine", Rights: auth.Send}}); err != nil || len(got) != 1 || got[0].Name != "mine" {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := ask([]hub.Rule{{Name: "app", Rights: auth.Manage}, {Name: "App", Rights: auth.Manage}}); kind(err) != hub.InvalidArgument {
			t.Errorf("%+v, %v", got, err)
		}
	}
	// It holds of a hub that is to come, and is gone when the configuration is.
	if err := w.ns.DeleteEventHub(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.all.Rule("localhost", "orders", "app"); !ok {
		t.Error("a rule goes with its hub")
	}
	w.configured = nil
	w.reopen()
	if r, ok := w.all.Rule("localhost", "", "shadowed"); !ok || r.Primary != "of the store" || r.Rights != auth.Send {
		t.Errorf("%+v", r)
	}
	if _, ok := w.all.Rule("localhost", "orders", "app"); ok {
		t.Error("a rule outlives the configuration")
	}
}

// TestLocalAuth: who asks is told, whoever listens hears of it once, and it lasts.
func TestLocalAuth(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	other, err := w.all.Create(ctx, "other", hub.NamespaceSettings{})
	if err != nil {
		t.Fatal(err)
	}
	var heard []string
	w.all.OnLocalAuthDisabled(func(ns *hub.Namespace) { heard = append(heard, ns.Name) })
	set := func(ns *hub.Namespace, to bool) {
		t.Helper()
		if err := ns.Update(ctx, func(s *hub.NamespaceSettings) error { s.DisableLocalAuth = to; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set(other, false)
	set(other, true)
	set(other, true)
	if _, err := w.all.Create(ctx, "third", hub.NamespaceSettings{DisableLocalAuth: true}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(heard, []string{"other", "third"}) {
		t.Errorf("heard of %q", heard)
	}
	if w.all.LocalAuthDisabled("localhost") || !w.all.LocalAuthDisabled("other.servicebus.windows.net") || !other.LocalAuthDisabled() {
		t.Error("it is another namespace's")
	}
	w.reopen()
	if other, err = w.all.Named("other"); err != nil || !other.LocalAuthDisabled() || !other.Settings().DisableLocalAuth {
		t.Errorf("after a restart: %v", err)
	}
	set(other, false)
	if other.LocalAuthDisabled() {
		t.Error("it stays")
	}
	if !w.all.IsOwn("rootmanagesharedaccesskey") || w.all.IsOwn("app") {
		t.Error("whose rule is whose")
	}
}
