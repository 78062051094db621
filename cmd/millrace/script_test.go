package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/millrace/millrace"
)

func TestMain(m *testing.M) {
	// A program with the race detector waits a second before it ends, unless told
	// otherwise.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	testscript.Main(m, map[string]func(){"millrace": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Values[brokersKey{}] = &brokers{running: map[string]*brokerUnderTest{}}
			e.Defer(func() { e.Values[brokersKey{}].(*brokers).killAll() })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"broker": startCommand,
			"stop":   func(ts *testscript.TestScript, _ bool, args []string) { endCommand(ts, args, os.Interrupt) },
			"kill9":  func(ts *testscript.TestScript, _ bool, args []string) { endCommand(ts, args, os.Kill) },
			"damage": damageCommand,
			"lines":  linesCommand,
			"cut":    cutCommand,
			"await":  awaitCommand,
		},
	})
}

// brokers are those that a script has started, by name.
type brokers struct {
	mu      sync.Mutex
	running map[string]*brokerUnderTest
}

type brokersKey struct{}

// brokerUnderTest is a broker in a process of its own.
type brokerUnderTest struct {
	cmd       *exec.Cmd
	endpoints millrace.Endpoints
	banner    string
	log       bytes.Buffer // to be read when it has ended
}

func (b *brokers) killAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.running {
		r.cmd.Process.Kill()
		r.cmd.Wait()
	}
}

// startUnderTest runs millrace serve on free ports, less those that args name,
// and returns when it is ready.
func startUnderTest(program string, dir string, env []string, args ...string) (*brokerUnderTest, error) {
	b := &brokerUnderTest{}
	file := filepath.Join(dir, "endpoints.json")
	all := []string{"serve", "--endpoints", file}
	for _, door := range []string{"amqp", "amqps", "http", "https", "blob"} {
		all = append(all, "--"+door, "127.0.0.1:0")
	}
	b.cmd = exec.Command(program, append(all, args...)...)
	b.cmd.Dir, b.cmd.Env, b.cmd.Stderr = dir, env, &b.log
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		b.banner += lines.Text() + "\n"
		if lines.Text() != millrace.ReadyLine {
			continue
		}
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, &b.endpoints)
		}
		return b, err
	}
	b.cmd.Wait()
	return nil, fmt.Errorf("the broker is not ready: %s", b.log.String())
}

// end sends a signal and waits.
func (b *brokerUnderTest) end(s os.Signal) error {
	if err := b.cmd.Process.Signal(s); err != nil {
		return err
	}
	err := b.cmd.Wait()
	if s == os.Kill {
		return nil
	}
	return err
}

// startCommand: broker NAME [FLAG…]. It prints the banner, and sets in the
// script's environment what the clients read.
func startCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || neg {
		ts.Fatalf("usage: broker NAME [FLAG…]")
	}
	program, err := exec.LookPath("millrace")
	ts.Check(err)
	env := append(os.Environ(), "PATH="+ts.Getenv("PATH"))
	for _, name := range []string{"MILLRACE_DATA", "ACCEPT_EULA", "MILLRACE_CONFIG"} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	b, err := startUnderTest(program, ts.MkAbs("."), env, args[1:]...)
	ts.Check(err)
	all := ts.Value(brokersKey{}).(*brokers)
	all.mu.Lock()
	all.running[args[0]] = b
	all.mu.Unlock()
	io.WriteString(ts.Stdout(), b.banner)
	ts.Setenv(envConnectionString, b.endpoints.ConnectionString)
	ts.Setenv(envStorage, b.endpoints.StorageConnectionString)
	ts.Setenv(envURL, "http://"+b.endpoints.HTTP)
	ts.Setenv("AMQP", b.endpoints.AMQP)
	ts.Setenv("AMQPS", b.endpoints.AMQPS)
	ts.Setenv("HTTPS", b.endpoints.HTTPS)
}

// endCommand: stop NAME, kill9 NAME.
func endCommand(ts *testscript.TestScript, args []string, s os.Signal) {
	if len(args) != 1 {
		ts.Fatalf("usage: stop NAME")
	}
	all := ts.Value(brokersKey{}).(*brokers)
	all.mu.Lock()
	b := all.running[args[0]]
	delete(all.running, args[0])
	all.mu.Unlock()
	if b == nil {
		ts.Fatalf("there is no broker %s", args[0])
	}
	if s == os.Interrupt {
		s = syscall.SIGTERM
	}
	ended := b.end(s)
	io.Copy(ts.Stderr(), &b.log)
	ts.Check(ended)
}

// damageCommand: damage PATTERN TEXT changes the first byte of TEXT in the one
// file that matches.
func damageCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: damage PATTERN TEXT")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		if i := strings.Index(string(b), args[1]); i >= 0 {
			b[i] ^= 1
			ts.Check(os.WriteFile(file, b, 0o600))
			return
		}
	}
	ts.Fatalf("%s is in none of %q", args[1], files)
}

// linesCommand: lines N stdout|stderr|FILE holds the number of lines.
func linesCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: lines N FILE")
	}
	text := ts.ReadFile(args[1])
	n := strings.Count(text, "\n")
	want := 0
	ts.Check(json.Unmarshal([]byte(args[0]), &want))
	if (n == want) == neg {
		ts.Fatalf("%s has %d lines:\n%s", args[1], n, text)
	}
}

// cutCommand: cut PATTERN BYTES takes bytes off the end of the one file that matches.
func cutCommand(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: cut PATTERN BYTES")
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%s are %q", args[0], files)
	}
	info, err := os.Stat(files[0])
	ts.Check(err)
	ts.Check(os.Truncate(files[0], info.Size()-n))
}

// awaitCommand: await TEXT COMMAND… runs the program until it prints the text.
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: await TEXT COMMAND…")
	}
	for deadline := time.Now().Add(time.Minute); ; {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && strings.Contains(out, args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q does not come: %v, %s%s", args[0], err, out, ts.ReadFile("stderr"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}
