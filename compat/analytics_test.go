package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnalytics runs the example: SQL over the captured files of two hubs, from a
// folder and through the Blob endpoint. It checks its answers itself.
func TestAnalytics(t *testing.T) {
	c := loadClient(t, "analytics/client.json")
	c.install(t)
	cmd := exec.CommandContext(t.Context(), c.Run[0], c.Run[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "MILLRACE="+Binary(t), "PYTHON="+filepath.Join(c.installed, "venv", "bin", "python"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"=== From the folder ", "=== Through the Blob endpoint", "Both say what was sent.",
		"2026-03-14 09:00:00   9          126.36", // a window
		"Bergen   50       34          30.0",      // the join
		"shipped     25       order-0005",         // the latest values
	} {
		if n := strings.Count(string(out), want); n == 0 || n == 1 && !strings.HasPrefix(want, "=") && !strings.HasPrefix(want, "Both") {
			t.Errorf("%q is there %d times in\n%s", want, n, out)
		}
	}
}
