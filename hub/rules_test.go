package hub_test

import (
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
