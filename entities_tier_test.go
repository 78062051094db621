package millrace

import (
	"testing"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store/segment"
)

// TestTierOfTheFile: what the file says of a namespace's capacity becomes the
// namespace's, but for units that auto-inflate has added.
func TestTierOfTheFile(t *testing.T) {
	ctx := t.Context()
	st, err := segment.Open(ctx, segment.Options{Disk: sim.NewDisk(), KV: segment.NewMemoryKV()})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	all, err := hub.Open(ctx, hub.Options{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	read := func(file string) hub.NamespaceSettings {
		t.Helper()
		f, err := parseConfig("m.yaml", []byte(file))
		if err != nil {
			t.Fatal(err)
		}
		if err := makeEntities(ctx, all, f.namespaces); err != nil {
			t.Fatal(err)
		}
		return all.Default().Settings()
	}
	if s := read("hubs: [{name: a}]\n"); s.Tier != hub.Unlimited || s.Capacity != 1 {
		t.Errorf("without a tier: %+v", s)
	}
	inflating := "tier: standard\ncapacity: 2\nauto-inflate: on\nmaximum-capacity: 8\n"
	if s := read(inflating); s.Tier != hub.Standard || s.Capacity != 2 || !s.AutoInflate || s.MaximumCapacity != 8 {
		t.Errorf("as the file says: %+v", s)
	}
	if err := all.Default().Update(ctx, func(s *hub.NamespaceSettings) error { s.Capacity = 5; return nil }); err != nil {
		t.Fatal(err)
	}
	if s := read(inflating); s.Capacity != 5 {
		t.Errorf("inflated units are taken back: %+v", s)
	}
	if s := read("capacity: 3\nauto-inflate: off\n"); s.Capacity != 3 || s.AutoInflate {
		t.Errorf("without auto-inflate: %+v", s)
	}
	if s := read("disable-local-auth: on\n"); !s.DisableLocalAuth {
		t.Errorf("without keys: %+v", s)
	}
	if s := read("capacity: 3\n"); !s.DisableLocalAuth {
		t.Errorf("the file says nothing of keys: %+v", s)
	}
	if s := read("disable-local-auth: false\n"); s.DisableLocalAuth {
		t.Errorf("with keys again: %+v", s)
	}
	read("namespaces:\n  - {name: payments, tier: premium, capacity: 4}\n")
	if s := all.Lookup("payments.example.com").Settings(); s.Tier != hub.Premium || s.Capacity != 4 {
		t.Errorf("another namespace: %+v", s)
	}
	f, err := parseConfig("m.yaml", []byte("tier: basic\ncapacity: 1\nhubs:\n  - {name: wide, partitions: 64}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := makeEntities(ctx, all, f.namespaces); err == nil {
		t.Error("a hub of 64 partitions in a basic namespace")
	}
}
