package compat

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	onlyClient = flag.String("client", "", "run this client alone")
	onlyCases  = flag.String("cases", "", "run these cases alone, separated by commas")
	writeTable = flag.Bool("write", false, "write docs/compatibility.md")
)

// cases are what each client is asked to do, in groups that one run of its
// program does: those that stop processes, or wait, are on their own.
var cases = [][]string{
	{"single", "batch", "partition-id", "partition-key", "round-robin", "one-byte", "large", "positions",
		"hub-properties", "partition-properties", "last-enqueued", "bodies", "properties"},
	{"processor"}, {"takeover"}, {"checkpoint"}, {"seek"},
	{"tls", "websocket"},
	{"wrong-key", "unknown-hub", "unknown-group", "bad-partition", "listen-only-send", "send-only-receive",
		"sixth-receiver", "owner-level", "too-large", "beyond-end"},
}

// client is a folder of clients/.
type client struct {
	Title   string     `json:"title"`
	Needs   []string   `json:"needs"`
	Pins    []string   `json:"pins"`
	Install [][]string `json:"install"`
	Run     []string   `json:"run"`
	// Timeout is how long a group of cases may take, in seconds; 0 means 180.
	Timeout int `json:"timeout"`

	name, dir, installed string
}

// result is a line that a client prints.
type result struct {
	Case   string `json:"case"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Skip   string `json:"skip"`
}

func loadClients(t *testing.T) []*client {
	t.Helper()
	files, err := filepath.Glob("clients/*/client.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []*client
	for _, f := range files {
		out = append(out, loadClient(t, f))
	}
	return out
}

// loadClient reads a client.json.
func loadClient(t *testing.T, f string) *client {
	t.Helper()
	text, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{dir: filepath.Dir(f), name: filepath.Base(filepath.Dir(f))}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	if c.installed, err = filepath.Abs(filepath.Join(".clients", c.name)); err != nil {
		t.Fatal(err)
	}
	if c.Timeout == 0 {
		c.Timeout = 180
	}
	return c
}

func (c *client) expand(args []string) []string {
	out := slices.Clone(args)
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "{clients}", c.installed)
	}
	return out
}

// install brings the client's pinned versions, unless they are there already.
func (c *client) install(t *testing.T) {
	t.Helper()
	for _, need := range c.Needs {
		if _, err := exec.LookPath(need); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not on this machine", need)
			}
			t.Skipf("%s is not on this machine", need)
		}
	}
	h := sha256.New()
	for _, f := range append([]string{"client.json"}, c.Pins...) {
		text, err := os.ReadFile(filepath.Join(c.dir, f))
		if err != nil {
			t.Fatal(err)
		}
		h.Write(text)
	}
	stamp := filepath.Join(c.installed, "installed")
	sum := hex.EncodeToString(h.Sum(nil))
	if have, err := os.ReadFile(stamp); err == nil && string(have) == sum {
		return
	}
	if err := os.RemoveAll(c.installed); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.installed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range c.Install {
		args = c.expand(args)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = c.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out[max(0, len(out)-4000):])
		}
	}
	if err := os.WriteFile(stamp, []byte(sum), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs the program for some cases.
func (c *client) run(t *testing.T, env, names []string) map[string]result {
	t.Helper()
	args := append(c.expand(c.Run), names...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// A process that it leaves behind must not hold the pipes, and so the test, open.
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Duration(c.Timeout)*time.Second, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	t.Logf("%s: %.1f s", strings.Join(names, " "), time.Since(began).Seconds())
	got := map[string]result{}
	for sc := bufio.NewScanner(&out); sc.Scan(); {
		var r result
		if json.Unmarshal(sc.Bytes(), &r) == nil && r.Case != "" {
			got[r.Case] = r
		}
	}
	if err != nil || len(got) < len(names) {
		t.Logf("%v ended with %v; %d of %d cases reported\n%s", args, err, len(got), len(names), errs.String()[max(0, errs.Len()-6000):])
	}
	return got
}

// TestClients runs every client program and, with -write, writes the table.
func TestClients(t *testing.T) {
	b := Start(t)
	ca := b.CA()
	table := map[string]map[string]result{}
	var titles [][2]string
	complete := *onlyClient == "" && *onlyCases == ""
	for _, c := range loadClients(t) {
		if *onlyClient != "" && c.name != *onlyClient {
			continue
		}
		ok := t.Run(c.name, func(t *testing.T) {
			c.install(t)
			table[c.name] = map[string]result{}
			env := []string{
				"MILLRACE_CONNECTION_STRING=" + b.ConnectionStringOf("RootManageSharedAccessKey", "SAS_KEY_VALUE"),
				"MILLRACE_TLS_CONNECTION_STRING=Endpoint=sb://" + localhost(b.AMQPS) + ";SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE",
				"MILLRACE_WS_ENDPOINT=" + localhost(b.HTTPS),
				"MILLRACE_CA_FILE=" + ca,
				"MILLRACE_LISTEN_CONNECTION_STRING=" + b.ConnectionStringOf(ListenRule, ListenKey),
				"MILLRACE_SEND_CONNECTION_STRING=" + b.ConnectionStringOf(SendRule, SendKey),
				"MILLRACE_STORAGE_CONNECTION_STRING=" + b.StorageConnectionString,
				"MILLRACE_HUB=" + c.name + "-",
				"MILLRACE_BINARY=" + Binary(t),
			}
			for _, group := range cases {
				var names []string
				for _, name := range group {
					if *onlyCases == "" || slices.Contains(strings.Split(*onlyCases, ","), name) {
						names = append(names, name)
						b.Hub(c.name+"-"+name, 4)
					}
				}
				if len(names) == 0 {
					continue
				}
				got := c.run(t, env, names)
				for _, name := range names {
					t.Run(name, func(t *testing.T) {
						r, ok := got[name]
						table[c.name][name] = r
						switch {
						case !ok:
							t.Fatal("the client reported nothing")
						case r.Skip != "":
							t.Skip(r.Skip)
						case !r.OK:
							t.Error(r.Detail)
						default:
							t.Log(r.Detail)
						}
					})
				}
			}
		})
		complete = complete && ok && len(table[c.name]) > 0
		titles = append(titles, [2]string{c.name, c.Title})
	}
	if *writeTable && complete {
		writeCompatibility(t, titles, table)
	}
}

const (
	tableBegin = "<!-- the table below is written by `go test -run TestClients . -write` in compat/ -->"
	tableEnd   = "<!-- end of the table -->"
)

// writeCompatibility writes the table of client × case into docs/compatibility.md.
func writeCompatibility(t *testing.T, titles [][2]string, table map[string]map[string]result) {
	t.Helper()
	const file = "../docs/compatibility.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	var w strings.Builder
	w.WriteString(before + tableBegin + "\n\n| case |")
	for _, x := range titles {
		fmt.Fprintf(&w, " %s |", x[1])
	}
	w.WriteString("\n| --- |" + strings.Repeat(" --- |", len(titles)) + "\n")
	for _, group := range cases {
		for _, name := range group {
			fmt.Fprintf(&w, "| `%s` |", name)
			for _, x := range titles {
				fmt.Fprintf(&w, " %s |", cell(table[x[0]][name]))
			}
			w.WriteString("\n")
		}
	}
	w.WriteString("\n" + tableEnd + after)
	if err := os.WriteFile(file, []byte(w.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cell is a result as the table shows it.
func cell(r result) string {
	clean := strings.NewReplacer("|", "\\|", "\n", " ").Replace
	switch {
	case r.Skip != "":
		return "– " + clean(r.Skip)
	case !r.OK:
		return "✗ " + clean(r.Detail)
	case r.Detail != "":
		return "✓ " + clean(r.Detail)
	}
	return "✓"
}
