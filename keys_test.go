package millrace

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/blob"
	"github.com/millrace/millrace/hub"
)

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	dev, err := chooseKeys(dir, true)
	if err != nil || dev.Primary != DevKey || dev.BlobKeys[0] != blob.DevelopmentKey {
		t.Fatalf("%+v, %v", dev, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Error("the development keys are stored")
	}
	own, err := chooseKeys(dir, false)
	if err != nil || own.Primary == "" || own.Primary == DevKey || own.Primary == own.Secondary || checkAccount(blob.DevelopmentAccount, own.BlobKeys) != nil {
		t.Fatalf("%+v, %v", own, err)
	}
	st, err := os.Stat(filepath.Join(dir, keysFile))
	if err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	again, err := chooseKeys(dir, false)
	if err != nil || again.Primary != own.Primary || again.BlobKeys[0] != own.BlobKeys[0] {
		t.Errorf("other keys at the second start: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, keysFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := chooseKeys(dir, false); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

func TestRuleBook(t *testing.T) {
	ctx := t.Context()
	spaces := []Namespace{
		{Rules: []hub.Rule{{Name: "app", Rights: auth.Send, Primary: "k1"}, {Name: "dev", Rights: auth.Send, Primary: DevKey, Secondary: "k2"}}, Hubs: []EventHub{
			{Name: "Trial", Rules: []hub.Rule{{Name: "own", Rights: auth.Listen, Primary: "k3"}}},
		}},
		{Name: "second", Rules: []hub.Rule{{Name: RootRule, Rights: auth.Manage, Primary: "k4"}}},
	}
	all, err := hub.Open(ctx, hub.Options{Store: stage{newStageMeta()}, Configured: configured(spaces),
		Rules: []hub.Rule{{Name: RootRule, Rights: auth.Manage, Primary: "generated"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if err := makeEntities(ctx, all, spaces); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		public              bool
		ns, hub, rule, want string
	}{
		{true, "localhost", "", "app", "k1"},
		{true, "anything.else", "", "APP", "k1"},
		{true, "localhost", "", "dev", DevKey},
		{false, "localhost", "", "dev", ""},
		{true, "localhost", "trial", "own", "k3"},
		{true, "localhost", "trial", "app", "none"},
		{true, "second", "", "app", "none"},
		{true, "second.servicebus.windows.net", "", RootRule, "k4"},
		{true, "localhost", "", RootRule, "generated"},
	} {
		r, ok := (&ruleBook{all, c.public}).Rule(c.ns, c.hub, c.rule)
		if got := r.Primary; ok != (c.want != "none") || ok && got != c.want {
			t.Errorf("%+v: %q, %v", c, got, ok)
		}
	}
	if r, _ := (&ruleBook{all, false}).Rule("localhost", "", "dev"); r.Secondary != "k2" {
		t.Error("a rule loses its good key with the public one")
	}
}

// opened is a broker whose doors are at these addresses, as far as its judgement
// is concerned.
func opened(t *testing.T, o Options, at ...string) *Broker {
	o.Ephemeral = true
	c, err := o.check()
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{o: c, log: c.logging, doors: map[Door]*door{}}
	for i, a := range at {
		b.doors[Doors()[i]] = &door{Doors()[i], []net.Listener{fakeListener{at: a}}}
	}
	return b
}

func TestDoorsBeyondLoopback(t *testing.T) {
	devRule := []Namespace{{Hubs: []EventHub{{Name: "h", Rules: []hub.Rule{{Name: "r", Rights: auth.Send, Primary: DevKey}}}}}}
	for _, c := range []struct {
		name   string
		o      Options
		at     []string
		public bool
		fails  string
	}{
		{"loopback", Options{}, []string{"127.0.0.1:1", "[::1]:1"}, true, ""},
		{"one beyond", Options{}, []string{"127.0.0.1:1", "[::]:1"}, false, ""},
		{"one beyond, insecure", Options{InsecureDevKeys: true}, []string{"127.0.0.1:1", "192.0.2.1:1"}, true, ""},
		{"any token on loopback", Options{Entra: auth.Entra{AcceptAny: true}}, []string{"127.0.0.1:1"}, true, ""},
		{"any token beyond", Options{Entra: auth.Entra{AcceptAny: true}, InsecureDevKeys: true}, []string{"0.0.0.0:1"}, true, "accept-any"},
		{"a development key in a rule", Options{Namespaces: devRule}, []string{"0.0.0.0:1"}, false, "the rule r has the development key"},
		{"the same on loopback", Options{Namespaces: devRule}, []string{"127.0.0.1:1"}, true, ""},
		{"a development account's key", Options{BlobAccounts: map[string][]string{"team": {blob.DevelopmentKey}}}, []string{"0.0.0.0:1"}, false, "account team has the development key"},
	} {
		b := opened(t, c.o, c.at...)
		err := b.judgeDoors()
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || b.public != c.public {
			t.Errorf("%s: %v, %v", c.name, b.public, err)
		}
	}
}
