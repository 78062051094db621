package millrace

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestEphemeralFolder(t *testing.T) {
	parent := t.TempDir()
	mine, err := newEphemeralFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine.path, "events"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What a killed broker leaves: its folder, and a lock that nobody holds.
	dead, err := newEphemeralFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close()
	young := filepath.Join(parent, ephemeralPrefix+"young")
	old := filepath.Join(parent, ephemeralPrefix+"old")
	for _, dir := range []string{young, old} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * ephemeralGrace)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	next, err := newEphemeralFolder(parent)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{mine.path: true, next.path: true, young: true, dead.path: false, old: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, e := range []*ephemeralFolder{mine, next} {
		if err := e.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(e.path); err == nil {
			t.Errorf("%s is still there", e.path)
		}
	}
}
