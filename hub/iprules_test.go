package hub_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/hub"
)

func TestIPRules(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	set := func(deny bool, rules ...string) error {
		return w.ns.Update(ctx, func(s *hub.NamespaceSettings) error { s.DenyByDefault, s.IPRules = deny, rules; return nil })
	}
	admitted := func(peer string) bool {
		err := w.ns.Admits(peer)
		if err != nil && (kind(err) != hub.Unauthorized || !strings.Contains(err.Error(), "Ip has been prevented")) {
			t.Errorf("%s: %v", peer, err)
		}
		return err == nil
	}
	if !admitted("192.0.2.1:5672") || !admitted("pipe") {
		t.Error("without rules somebody is kept out")
	}
	if err := set(false, "10.0.0.0/8"); err != nil || !admitted("192.0.2.1:5672") {
		t.Error("rules count though all are let in", err)
	}
	if err := set(true, "10.0.0.0/8", "192.0.2.7", " 2001:db8::/32 ", "::ffff:172.16.0.0/108"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for peer, want := range map[string]bool{
			"10.1.2.3:999": true, "10.1.2.3": true, "[::ffff:10.1.2.3]:1": true, "11.0.0.1:1": false, "192.0.2.7:1": true, "192.0.2.8:1": false,
			"[2001:db8::1]:1": true, "[2001:db9::1]:1": false, "172.16.5.5:1": true, "172.32.0.1:1": false, "pipe": false, "": false, "127.0.0.1:1": false,
		} {
			if admitted(peer) != want {
				t.Errorf("%q is admitted: %v", peer, !want)
			}
		}
	}
	check()
	w.reopen()
	check()
	for _, bad := range [][]string{{"10.0.0.0/33"}, {"everyone"}, {""}, make([]string, 129)} {
		if err := set(true, bad...); kind(err) != hub.InvalidArgument && kind(err) != hub.QuotaExceeded {
			t.Errorf("%q: %v", bad, err)
		}
	}
	check()
	if err := w.ns.Update(ctx, setTier(hub.Basic, 1)); kind(err) != hub.InvalidArgument {
		t.Errorf("at the tier basic: %v", err)
	}
	if err := set(true); err != nil || admitted("10.1.2.3:1") {
		t.Errorf("nobody is listed, %v", err)
	}
	if err := set(false); err != nil || !admitted("192.0.2.1:5672") {
		t.Errorf("all are let in again, %v", err)
	}
}
