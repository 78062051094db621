package compat

import (
	"testing"

	"github.com/millrace/millrace/admin"
)

// TestAtom manages event hubs with the last of the official clients that can do
// it in Atom.
func TestAtom(t *testing.T) {
	c := loadClient(t, "atom/client.json")
	c.install(t)
	b := Start(t)
	if _, err := b.Admin().CreateHub(t.Context(), admin.NewHub{Name: "atom-captured", Partitions: 2, Capture: &admin.CaptureChange{Enabled: new(true)}}); err != nil {
		t.Fatal(err)
	}
	names := []string{"create", "defaults", "update", "captured", "delete", "send", "errors"}
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
		if h.Name == "atom-captured" && (h.Metadata != "new" || h.Capture == nil || !h.Capture.Enabled) {
			t.Errorf("%+v, captured as %+v", h, h.Capture)
		}
	}
}
