package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOnceExample runs the example: consumers in Go, in Python, and of "receive --exec"
// that kill themselves between effect and checkpoint, without a ledger and with one in
// Redis. It checks its numbers itself, and here they are looked at once more.
func TestOnceExample(t *testing.T) {
	onPath(t, "redis-server")
	onPath(t, "redis-cli")
	c := loadClient(t, "once/client.json")
	c.install(t)
	cmd := exec.CommandContext(t.Context(), c.Run[0], c.Run[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "REDIS_URL=", "MILLRACE="+Binary(t), "PYTHON="+filepath.Join(c.installed, "venv", "bin", "python"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	twice := map[string]string{ // the last column
		"Go: no ledger, dies before the checkpoint": "", "Python: no ledger, dies before the checkpoint": "",
		"--exec: no ledger, dies before the checkpoint": "", "Go: sent twice, ledger of numbers": "20",
		"Go: ledger, dies before the checkpoint": "0", "Python: ledger, dies before the checkpoint": "0",
		"--exec: ledger, dies before the checkpoint": "0", "Go: sent twice, ledger of ids": "0",
		"Python: sent twice, ledger of ids": "0", "Go: one event can't be read": "0",
		"Go: ledger, dies before the mark": "1", "Python: ledger, dies before the mark": "1",
	}
	for line := range strings.Lines(string(out)) {
		title, rest, _ := strings.Cut(strings.TrimSpace(line), "  ")
		want, ok := twice[title]
		if !ok {
			continue
		}
		delete(twice, title)
		columns := strings.Fields(rest)
		if got := columns[len(columns)-1]; got != want && want != "" || got == "0" && want != "0" {
			t.Errorf("%s: %s events had their effect twice, not %s", title, got, want)
		}
	}
	if len(twice) > 0 || !strings.Contains(string(out), "Put aside: ") || !strings.Contains(string(out), "As it must be") {
		t.Errorf("%d lines are missing in\n%s", len(twice), out)
	}
	t.Logf("%s", out)
}
