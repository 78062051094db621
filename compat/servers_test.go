package compat

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// process is a server of somebody else's, run from a program of the machine.
type process struct {
	name  string
	args  []string
	as    *syscall.Credential
	ready func() error
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// server starts a program of the machine in a folder of the test's, waits until ready
// is nil, and stops it by its process id when the test ends.
func server(t testing.TB, as *syscall.Credential, ready func() error, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, args: args, as: as, ready: ready, log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(p.stop)
	p.start(t)
	return p
}

// start starts it, or again after a kill, and waits until it is ready.
func (p *process) start(t testing.TB) {
	t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command(p.name, p.args...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	for range 1200 {
		if err = p.ready(); err == nil {
			return
		}
		select {
		case <-p.ended:
			text, _ := os.ReadFile(p.log)
			t.Fatalf("%s ended: %s", p.name, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s is not ready: %v", p.name, err)
}

// port is the one that its arguments say.
func (p *process) port() string {
	for i, a := range p.args {
		if a == "-p" || a == "--port" {
			return p.args[i+1]
		}
		if port, ok := strings.CutPrefix(a, "--port="); ok {
			return port
		}
	}
	return ""
}

// running says that it has not ended.
func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends a signal, and waits for the end.
func (p *process) signal(s syscall.Signal) {
	p.cmd.Process.Signal(s)
	<-p.ended
}

// kill ends it and the processes that it has started, without a word, and waits until
// all are gone.
func (p *process) kill() {
	p.cmd.Process.Signal(syscall.SIGSTOP) // it starts no more
	workers := p.workers()
	p.signal(syscall.SIGKILL)
	for _, pid := range workers {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range workers {
		for alive(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// alive says that there is a process, and that it has not ended, if nobody waits for it.
func alive(pid int) bool {
	f := stat(pid)
	return len(f) > 0 && f[0] != "Z"
}

// stat is what Linux says of a process, from its state on, or nothing.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, after, _ := strings.Cut(string(text), ") ") // after its name
	return strings.Fields(after)
}

// workers are the processes that it has started, as PostgreSQL one for each connection.
func (p *process) workers() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range all {
		pid, _ := strconv.Atoi(filepath.Base(name))
		if f := stat(pid); len(f) > 1 && f[1] == strconv.Itoa(p.cmd.Process.Pid) { // its parent
			pids = append(pids, pid)
		}
	}
	return pids
}

func (p *process) stop() {
	if p.ended == nil {
		return // it never began
	}
	p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.kill()
	}
}

// onPath finds a program that .ci/servers installs: on the path, or where Debian has
// those for root, and PostgreSQL's. One that is not there is a skip, and where CI is set
// a failure.
func onPath(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	slices.Sort(found)
	for _, path := range append(found, "/usr/sbin/"+name) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	missing(t, "%s is not on this machine: .ci/servers installs it", name)
	return ""
}

// missing skips a test for what is not there, and fails it where CI is set.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// redisServer starts a Redis that keeps what it answers, with some more arguments.
func redisServer(t testing.TB, args ...string) (address string, p *process) {
	path := onPath(t, "redis-server")
	address = freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	p = server(t, nil, func() error { return client.Ping(t.Context()).Err() }, path, append([]string{
		"--bind", host, "--port", port, "--dir", t.TempDir(), "--appendonly", "yes", "--appendfsync", "always", "--save", ""}, args...)...)
	return address, p
}

// startRedis starts a Redis, and returns a client of it.
func startRedis(t testing.TB) *redis.Client {
	address, _ := redisServer(t)
	client := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { client.Close() })
	return client
}

// postgresServer starts a PostgreSQL, which refuses to run as root, in a folder, and
// opens it.
func postgresServer(t testing.TB, dir string, settings ...string) (*sql.DB, *process) {
	initdb, postgres := onPath(t, "initdb"), onPath(t, "postgres")
	var as *syscall.Credential
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			missing(t, "PostgreSQL does not run as root, and there is no user for it: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(t.Context(), initdb, "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, text)
	}
	host, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", fmt.Sprintf("postgres://test@%s/postgres?sslmode=disable", net.JoinHostPort(host, port)))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", data, "-h", host, "-p", port, "-k", dir, "-c", "max_connections=50"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	p := server(t, as, func() error { return db.PingContext(t.Context()) }, postgres, args...)
	t.Cleanup(func() { db.Close() }) // before the server is stopped
	return db, p
}

// postgresFolder makes a folder that the user postgres can reach, as none of t.TempDir.
func postgresFolder(t testing.TB) string {
	dir, err := os.MkdirTemp("", "millrace-postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// startPostgres starts a PostgreSQL in a folder of its own, and opens it.
func startPostgres(t testing.TB) *sql.DB {
	db, _ := postgresServer(t, postgresFolder(t))
	return db
}
