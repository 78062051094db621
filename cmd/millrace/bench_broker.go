package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace"
)

// brokerProcess is a broker started for a measurement: a process of its own, so
// that its processor time can be told from the client's.
type brokerProcess struct {
	cmd       *exec.Cmd
	dir       string
	endpoints millrace.Endpoints
}

// startBroker starts this program as a broker on free ports and waits until it
// is ready.
func startBroker(ctx context.Context, sync string) (*brokerProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, err
	}
	p := &brokerProcess{dir: dir}
	file := filepath.Join(dir, "endpoints.json")
	const free = "127.0.0.1:0"
	p.cmd = exec.CommandContext(ctx, program, "serve", "--data", filepath.Join(dir, "data"), "--endpoints", file, "--sync", sync,
		"--amqp", free, "--http", free, "--amqps", "off", "--https", "off", "--blob", "off", "--log-level", "warn")
	p.cmd.Args[0] = os.Args[0] // under the name that this one was called by
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(os.Interrupt) }
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = withoutSettings(os.Environ())
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("a broker can't be started: %w", err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() != millrace.ReadyLine {
			continue
		}
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &p.endpoints)
		}
		if err != nil {
			p.stop()
			return nil, err
		}
		return p, nil
	}
	p.stop()
	return nil, errors.New("the broker that was started for it has stopped; what it said stands above")
}

// withoutSettings is an environment in which serve finds none of its own.
func withoutSettings(env []string) []string {
	var clean []string
	for _, v := range env {
		if !strings.HasPrefix(v, "MILLRACE_") && !strings.HasPrefix(v, "ACCEPT_EULA=") {
			clean = append(clean, v)
		}
	}
	return clean
}

func (p *brokerProcess) pid() int { return p.cmd.Process.Pid }

// stop stops the broker, and removes its folder.
func (p *brokerProcess) stop() {
	if p.cmd.Process.Signal(os.Interrupt) != nil { // Windows knows no such thing
		p.cmd.Process.Kill() //nolint:errcheck // it has ended
	}
	p.cmd.Wait() //nolint:errcheck // its folder goes, whatever it says
	os.RemoveAll(p.dir)
}

// clockTick is how /proc counts processor time, on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// processorTime is what a process has used so far, as Linux's /proc tells.
func processorTime(pid int) (time.Duration, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if pid == 0 || err != nil {
		return 0, false
	}
	// The program's name, in parentheses, may hold anything.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, err1 == nil && err2 == nil
}

// peakMemory is the most that a process has had resident, in bytes.
func peakMemory(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			if err == nil {
				return n * 1024
			}
		}
	}
	return 0
}
