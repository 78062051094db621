package compat

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReceiveOnce has `millrace receive --exec --once` keep its ledger in each kind of
// server, with no other record: a second run goes on where the first has ended, and each
// event is processed once.
func TestReceiveOnce(t *testing.T) {
	b := Start(t)
	b.Hub("lines", 2)
	var lines strings.Builder
	const events = 300
	for i := range events {
		fmt.Fprintf(&lines, "{\"id\":%d}\n", i)
	}
	send := exec.CommandContext(t.Context(), Binary(t), "send", "--hub", "lines", "--batch", "10", "-q", "--connection-string", b.ConnectionString)
	send.Stdin = strings.NewReader(lines.String())
	if out, err := send.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, url := range map[string]func(t *testing.T) string{
		"Redis": func(t *testing.T) string {
			address, _ := redisServer(t)
			return "redis://" + address
		},
		"PostgreSQL": func(t *testing.T) string {
			_, p := postgresServer(t, postgresFolder(t))
			return "postgres://test@127.0.0.1:" + p.port() + "/postgres?sslmode=disable"
		},
		"MySQL": func(t *testing.T) string {
			db, p := mysqlServer(t)
			for _, s := range []string{"CREATE DATABASE ledgers", "CREATE USER 'o''brien' IDENTIFIED BY 'p@ss:w/rd'", "GRANT ALL ON ledgers.* TO 'o''brien'"} {
				if _, err := db.ExecContext(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			return "mysql://o%27brien:p%40ss%3Aw%2Frd@127.0.0.1:" + p.port() + "/ledgers"
		},
		"SQLite": func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "a ledger?.db") },
		"file":   func(t *testing.T) string { return "file://" + filepath.Join(t.TempDir(), "a ledger.db") },
	} {
		for _, id := range []string{"", "json:id"} {
			t.Run(name+" "+id, func(t *testing.T) {
				dir, at := t.TempDir(), url(t)
				for range 3 {
					args := []string{"receive", "--hub", "lines", "--no-checkpoint", "--batch", "40", "--max-wait", "200ms", "--count", "100",
						"--once", at, "--exec", "cat >>processed", "--connection-string", b.ConnectionString}
					if id != "" {
						args = append(args, "--once-id", id)
					}
					cmd := exec.CommandContext(t.Context(), Binary(t), args...)
					cmd.Dir = dir
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
				}
				text, err := os.ReadFile(filepath.Join(dir, "processed"))
				if err != nil {
					t.Fatal(err)
				}
				seen := map[string]int{}
				for line := range strings.Lines(string(text)) {
					var e struct{ Body string }
					if err := json.Unmarshal([]byte(line), &e); err != nil {
						t.Fatal(err)
					}
					seen[e.Body]++
				}
				for body, n := range seen {
					if n > 1 {
						t.Errorf("%s was processed %d times", body, n)
					}
				}
				if len(seen) != events {
					t.Errorf("%d of %d events were processed", len(seen), events)
				}
			})
		}
	}
}
