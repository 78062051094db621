package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/compat/load/internal/lg"
)

// process is a broker or a floor under measurement.
type process struct {
	cmd     *exec.Cmd
	addr    string // of its protocol
	http    string // of a broker's management
	conn    string // of a broker: its connection string
	dir     string // of a broker: its data
	started time.Duration
	said    bytes.Buffer // on standard error
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// launch starts a program and waits until a line of its output begins with
// ready, which it returns.
func (b *bench) launch(ready, tool string, args ...string) (*process, string, error) {
	p := &process{cmd: exec.CommandContext(b.ctx, b.bin(tool), args...)}
	p.cmd.Env = plainEnvironment()
	p.cmd.Stderr = &p.said
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, "", err
	}
	b.running = append(b.running, p)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, ready) {
			p.started = time.Since(began)
			go io.Copy(io.Discard, lines) //nolint:errcheck // ends with the process
			return p, strings.TrimSpace(line), nil
		}
		if err != nil {
			p.stop()
			return nil, "", fmt.Errorf("%s ended before it was ready\n%s", tool, p.said.String())
		}
	}
}

// plainEnvironment is the environment without what would configure a broker.
func plainEnvironment() []string {
	var clean []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MILLRACE_") && !strings.HasPrefix(v, "ACCEPT_EULA=") {
			clean = append(clean, v)
		}
	}
	return clean
}

// floor starts one of the floors.
func (b *bench) floor(tool string, args ...string) (*process, error) {
	p, line, err := b.launch("ready ", tool, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	if err == nil {
		p.addr = strings.TrimPrefix(line, "ready ")
	}
	return p, err
}

// broker starts a broker on the data of a folder of that name.
func (b *bench) broker(name, sync string) (*process, error) {
	dir := filepath.Join(b.dir, name)
	file := filepath.Join(b.dir, name+".endpoints")
	const free = "127.0.0.1:0"
	p, _, err := b.launch("Emulator Service is Successfully Up!", "millrace", "serve", "--data", dir, "--endpoints", file, "--sync", sync,
		"--amqp", free, "--http", free, "--amqps", "off", "--https", "off", "--blob", "off", "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var e struct {
		AMQP             string `json:"amqp"`
		HTTP             string `json:"http"`
		ConnectionString string `json:"connectionString"`
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, err
	}
	p.addr, p.http, p.conn, p.dir = e.AMQP, "http://"+e.HTTP, e.ConnectionString, dir
	return p, nil
}

func (p *process) admin() (*admin.Client, error) {
	cs, err := auth.ParseConnectionString(p.conn)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(p.http, cs, nil)
}

// hub makes a hub for one measurement, and returns what removes it.
func (b *bench) hub(p *process, name string, partitions int) (remove func(), err error) {
	c, err := p.admin()
	if err != nil {
		return nil, err
	}
	if _, err := c.CreateHub(b.ctx, admin.NewHub{Name: name, Partitions: partitions}); err != nil {
		return nil, err
	}
	return func() {
		if err := c.DeleteHub(b.ctx, name); err != nil && b.ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "the hub", name, "could not be deleted:", err)
		}
	}, nil
}

// stop ends the process as an operator does, and waits for it.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	p.wait()
}

// kill ends it as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	p.wait()
}

func (p *process) wait() {
	p.cmd.Wait() //nolint:errcheck // how it ends is not what is measured
}

// generate runs a load generator against a process, whose processor time it
// accounts, and returns what it measured.
func (b *bench) generate(p *process, tool string, args ...string) (lg.Result, error) {
	if err := b.warm(args); err != nil {
		return lg.Result{}, err
	}
	args = append([]string{"-addr", p.addr, "-pid", strconv.Itoa(p.pid())}, args...)
	cmd := exec.CommandContext(b.ctx, b.bin(tool), args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	var r lg.Result
	if err := cmd.Run(); err != nil {
		p.kill() // what it has said is only then whole
		return r, fmt.Errorf("%s %s: %w\n%s%s", tool, strings.Join(args, " "), err, said.String(), p.said.String())
	}
	if b.verbose {
		fmt.Fprint(os.Stderr, said.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		return r, fmt.Errorf("%s printed no result: %w", tool, err)
	}
	return r, nil
}

// warm writes a file as large as what is about to be produced, and removes it:
// its pages are what the system's cache takes next. On a virtual machine that
// gives free memory back, writing to a page that the host has to find first costs
// more than all that a broker does with it, and it is chance who gets those.
func (b *bench) warm(args []string) error {
	value := func(flag string) int {
		n := 0
		if i := slices.Index(args, flag); i >= 0 {
			n, _ = strconv.Atoi(args[i+1])
		}
		return n
	}
	if !slices.Contains(args, "produce") {
		return nil
	}
	f, err := os.Create(filepath.Join(b.dir, "warm"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	zeros := make([]byte, 64<<10)
	for left := min(value("-n")*value("-size")*5/4, 2<<30); left > 0; left -= len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			return err
		}
	}
	return nil
}

// status reads a field of /proc/PID/status, in bytes.
func (p *process) status(field string) (float64, error) {
	return p.proc("status", field, 1024)
}

// read is how many bytes the process has read so far, from the cache or not.
func (p *process) read() (float64, error) {
	return p.proc("io", "rchar", 1)
}

func (p *process) proc(file, field string, unit float64) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid(), file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return n * unit, err
		}
	}
	return 0, errors.New("/proc tells no " + field)
}

// build compiles the broker, the floors and the generators.
func build(ctx context.Context, dir, broker string) error {
	for _, x := range []struct{ module, pkg string }{
		{"github.com/millrace/millrace", "./cmd/millrace"},
		{"github.com/millrace/millrace/compat", "./load/cmd/..."},
	} {
		if broker != "" && x.pkg == "./cmd/millrace" {
			given, err := filepath.Abs(broker)
			if err == nil {
				err = os.Symlink(given, filepath.Join(dir, "millrace"))
			}
			if err != nil {
				return err
			}
			continue
		}
		at, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", x.module).Output()
		if err != nil {
			return fmt.Errorf("where %s is: %w (run this in the folder compat)", x.module, err)
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), x.pkg)
		cmd.Dir = strings.TrimSpace(string(at))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", x.pkg, err, out)
		}
	}
	return nil
}
