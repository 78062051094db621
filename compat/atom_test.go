package compat

import "testing"

// TestAtom manages event hubs with the last of the official clients that can do
// it in Atom.
func TestAtom(t *testing.T) {
	c := loadClient(t, "atom/client.json")
	c.install(t)
	b := Start(t)
	names := []string{"create", "defaults", "update", "delete", "send", "errors"}
	got := c.run(t, []string{"MILLRACE_HTTPS=" + localhost(b.HTTPS), "MILLRACE_CA_FILE=" + b.CA()}, names)
	for _, name := range names {
		if r := got[name]; !r.OK {
			t.Errorf("%s: %s", name, r.Detail)
		}
	}
	hubs, err := b.Admin().Hubs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hubs {
		if h.Name == "atom-bad" || h.Name == "atom-delete" {
			t.Errorf("there is the hub %s", h.Name)
		}
	}
}
