package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace"
)

// These tests run the article: producer, consumers with checkpoints, consumers
// that share partitions, and what becomes of them when one of them, or the
// broker, is killed.

// limit is how long any step may take before the test gives up.
const limit = time.Minute

// client is a millrace command in a process of its own, whose output is
// followed line by line.
type client struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd

	mu    sync.Mutex
	news  chan struct{} // replaced and closed with every line
	out   []received
	notes []string
}

func startClient(t *testing.T, name string, env []string, args ...string) *client {
	t.Helper()
	program, err := exec.LookPath("millrace")
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, name: name, cmd: exec.Command(program, args...), news: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	notes, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r received
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Errorf("%s: %s: %v", name, lines.Text(), err)
			}
			c.change(func() { c.out = append(c.out, r) })
		}
	})
	reading.Go(func() {
		for lines := bufio.NewScanner(notes); lines.Scan(); {
			c.change(func() { c.notes = append(c.notes, lines.Text()) })
		}
	})
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		reading.Wait()
		c.cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, strings.Join(c.notes, "\n"))
		}
	})
	return c
}

func (c *client) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	close(c.news)
	c.news = make(chan struct{})
}

// await waits until something is true of what the client has said.
func (c *client) await(what string, is func(c *client) bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	for {
		c.mu.Lock()
		ok, news := is(c), c.news
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			c.t.Fatalf("%s: %s does not happen", c.name, what)
		}
	}
}

// awaitBoth waits until something is true of two clients together.
func awaitBoth(a, b *client, what string, is func() bool) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	for {
		a.mu.Lock()
		b.mu.Lock()
		ok, one, other := is(), a.news, b.news
		b.mu.Unlock()
		a.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-one:
		case <-other:
		case <-ctx.Done():
			a.t.Fatalf("%s and %s: %s does not happen", a.name, b.name, what)
		}
	}
}

// owns is the partitions that the client has claimed and not released.
func (c *client) owns() map[string]bool {
	owned := map[string]bool{}
	for _, n := range c.notes {
		id, what, ok := strings.Cut(strings.TrimPrefix(n, "partition "), ": ")
		switch {
		case ok && what == "claimed":
			owned[id] = true
		case ok && strings.HasPrefix(what, "released"):
			delete(owned, id)
		}
	}
	return owned
}

// has is the set of bodies received.
func (c *client) has() map[string]bool {
	bodies := map[string]bool{}
	for _, r := range c.out {
		bodies[r.Body] = true
	}
	return bodies
}

// interrupt presses Ctrl-C, and wants a clean end.
func (c *client) interrupt() {
	c.t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			c.t.Errorf("%s ends with %v", c.name, err)
		}
	case <-time.After(limit):
		c.t.Fatalf("%s does not end", c.name)
	}
}

// world is a broker that can be killed and comes back on the same ports.
type world struct {
	t      *testing.T
	dir    string
	broker *brokerUnderTest
	ports  millrace.Endpoints
	env    []string
	flags  []string // of the broker
}

// newWorld starts a broker, with more flags if some are given, and makes the hub
// trial of 2 partitions.
func newWorld(t *testing.T, flags ...string) *world {
	w := &world{t: t, dir: t.TempDir(), flags: flags}
	w.start()
	w.ports = w.broker.endpoints
	w.env = []string{
		envConnectionString + "=" + w.ports.ConnectionString, envStorage + "=" + w.ports.StorageConnectionString, envURL + "=http://" + w.ports.HTTP,
	}
	t.Cleanup(func() { w.broker.end(os.Kill) })
	w.do("", "hub", "create", "trial", "--partitions", "2")
	return w
}

func (w *world) start() {
	w.t.Helper()
	program, err := exec.LookPath("millrace")
	if err != nil {
		w.t.Fatal(err)
	}
	args := append([]string{"--amqps", "off", "--https", "off"}, w.flags...)
	if w.ports.AMQP != "" {
		args = append(args, "--amqp", w.ports.AMQP, "--http", w.ports.HTTP, "--blob", w.ports.Blob)
	}
	if w.broker, err = startUnderTest(program, w.dir, os.Environ(), args...); err != nil {
		w.t.Fatal(err)
	}
}

// do runs a command to its end and returns what it printed.
func (w *world) do(in string, args ...string) string {
	w.t.Helper()
	program, err := exec.LookPath("millrace")
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), program, args...)
	cmd.Env = append(os.Environ(), w.env...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		w.t.Fatalf("millrace %s: %v: %s", strings.Join(args, " "), err, failed.Stderr)
	} else if err != nil {
		w.t.Fatal(err)
	}
	return string(out)
}

// send sends n events with a name to each partition, and returns their bodies.
func (w *world) send(name string, n int) []string {
	w.t.Helper()
	var all []string
	for partition := range 2 {
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprintf("%s-%d-%d", name, partition, i))
		}
		w.do(strings.Join(lines, "\n"), "send", "--hub", "trial", "--partition", fmt.Sprint(partition), "-q")
		all = append(all, lines...)
	}
	return all
}

func containsAll(have map[string]bool, want []string) bool {
	for _, x := range want {
		if !have[x] {
			return false
		}
	}
	return true
}

func TestPinnedConsumersSurviveKills(t *testing.T) {
	w := newWorld(t)
	receive := func(name, partition string) *client {
		return startClient(t, name, w.env, "receive", "--hub", "trial", "--partition", partition, "-o", "json")
	}
	a, b := receive("a", "0"), receive("b", "1")
	first := w.send("first", 5)
	awaitBoth(a, b, "each has its own", func() bool { return containsAll(a.has(), first[:5]) && containsAll(b.has(), first[5:]) })

	// One is killed and comes back: it goes on after its checkpoint.
	b.cmd.Process.Kill()
	second := w.send("second", 5)
	b2 := receive("b again", "1")
	b2.await("the rest", func(c *client) bool { return containsAll(c.has(), second[5:]) })
	b2.mu.Lock()
	if n := len(b2.out); n < 5 || n > 6 { // the event that it was killed with may come twice
		t.Errorf("after the kill it got %d events", n)
	}
	b2.mu.Unlock()

	// The broker is killed and comes back: nobody needs to do anything.
	w.broker.end(os.Kill)
	w.start()
	third := w.send("third", 5)
	awaitBoth(a, b2, "the rest after the broker's kill", func() bool { return containsAll(a.has(), third[:5]) && containsAll(b2.has(), third[5:]) })
	a.mu.Lock()
	last := int64(-1)
	for _, r := range a.out {
		if r.Partition != "0" || r.Sequence != last+1 {
			t.Errorf("%d after %d in partition %s", r.Sequence, last, r.Partition)
		}
		last = r.Sequence
	}
	a.mu.Unlock()
	a.interrupt()
	b2.interrupt()
}

func TestBalancedConsumersTakeOver(t *testing.T) {
	w := newWorld(t)
	receive := func(name string) *client {
		return startClient(t, name, w.env, "receive", "--hub", "trial", "--name", name, "-o", "json", "--balance-interval", "200ms", "--ownership-expiry", "2s")
	}
	a := receive("a")
	a.await("both partitions are claimed", func(c *client) bool { return len(c.owns()) == 2 })
	b := receive("b")
	awaitBoth(a, b, "they share", func() bool { return len(a.owns()) == 1 && len(b.owns()) == 1 })
	first := w.send("first", 5)
	awaitBoth(a, b, "together they have everything", func() bool {
		all := a.has()
		for x := range b.has() {
			all[x] = true
		}
		return containsAll(all, first)
	})

	// One is killed: the other takes over.
	b.cmd.Process.Kill()
	second := w.send("second", 5)
	a.await("it has both, and everything", func(c *client) bool { return len(c.owns()) == 2 && containsAll(c.has(), second) })

	// The broker, with the checkpoints, is killed and comes back.
	w.broker.end(os.Kill)
	w.start()
	third := w.send("third", 5)
	a.await("everything after the broker's kill", func(c *client) bool { return containsAll(c.has(), third) })

	// A clean stop gives the partitions up: another has them without waiting
	// for anything to expire.
	a.interrupt()
	c := startClient(t, "c", w.env, "receive", "--hub", "trial", "-o", "json", "--balance-interval", "1h", "--ownership-expiry", "2h")
	c.await("both partitions at the first look", func(c *client) bool { return len(c.owns()) == 2 })
	fourth := w.send("fourth", 1)
	c.await("what is new", func(c *client) bool { return containsAll(c.has(), fourth) })
	c.mu.Lock()
	for _, r := range c.out {
		if !strings.HasPrefix(r.Body, "fourth") {
			t.Errorf("%s comes again after a clean stop", r.Body)
		}
	}
	c.mu.Unlock()
	c.interrupt()
}
