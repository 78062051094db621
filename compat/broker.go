package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
)

// Endpoints is what a broker writes to its --endpoints file.
type Endpoints struct {
	AMQP                    string `json:"amqp"`
	AMQPS                   string `json:"amqps"`
	HTTP                    string `json:"http"`
	HTTPS                   string `json:"https"`
	Blob                    string `json:"blob"`
	ConnectionString        string `json:"connectionString"`
	StorageConnectionString string `json:"storageConnectionString"`
}

// Rules that the broker is configured with, beside the root's.
const (
	ListenRule, ListenKey = "listen-only", "ListenKey1"
	SendRule, SendKey     = "send-only", "SendKey1"
)

// Broker is a millrace process with a data folder of its own. It can be killed
// and started again on the same ports.
type Broker struct {
	Endpoints
	Dir  string // holds the data folder and the logs
	Data string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  *os.File
}

var build struct {
	once sync.Once
	path string
	err  error
}

// Binary builds millrace once for all tests and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	build.once.Do(func() {
		dir, err := os.MkdirTemp("", "millrace-compat-")
		if err != nil {
			build.err = err
			return
		}
		build.path = filepath.Join(dir, "millrace")
		cmd := exec.Command("go", "build", "-o", build.path, "./cmd/millrace")
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = fmt.Errorf("build millrace: %w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

// Start starts a broker in a folder of its own. It is stopped with the test.
// args are added to its command line.
func Start(t testing.TB, args ...string) *Broker {
	t.Helper()
	return StartWith(t, "", args...)
}

// StartWith is Start with more in the configuration file.
func StartWith(t testing.TB, more string, args ...string) *Broker {
	t.Helper()
	b := &Broker{t: t, Dir: t.TempDir()}
	b.Data = filepath.Join(b.Dir, "data")
	config := filepath.Join(b.Dir, "config.yaml")
	rules := fmt.Sprintf(`namespaces:
  - name: localhost
    rules:
      - {name: %s, rights: Listen, primary: %s}
      - {name: %s, rights: Send, primary: %s}
`, ListenRule, ListenKey, SendRule, SendKey)
	if err := os.WriteFile(config, []byte(rules+more), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.log, err = os.Create(filepath.Join(b.Dir, "broker.log")); err != nil {
		t.Fatal(err)
	}
	b.args = append([]string{"--config", config, "--data", b.Data}, args...)
	b.start("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	t.Cleanup(func() {
		b.Stop()
		b.log.Close()
		if t.Failed() {
			if text, err := os.ReadFile(b.log.Name()); err == nil {
				t.Logf("the broker's log ends in\n%s", text[max(0, len(text)-6000):])
			}
		}
	})
	return b
}

func (b *Broker) start(amqp, amqps, http, https, blob string) {
	b.t.Helper()
	if err := b.await(b.launch(amqp, amqps, http, https, blob)); err != nil {
		b.t.Fatal(err)
	}
}

// launch starts the process, and returns the file that it writes once it is ready.
func (b *Broker) launch(amqp, amqps, http, https, blob string) string {
	b.t.Helper()
	file := filepath.Join(b.Dir, "endpoints.json")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	b.cmd = exec.Command(Binary(b.t), append([]string{"serve", "--endpoints", file,
		"--amqp", amqp, "--amqps", amqps, "--http", http, "--https", https, "--blob", blob}, b.args...)...)
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.done = make(chan struct{})
	go func() {
		b.cmd.Wait() //nolint:errcheck // how it ended is in ProcessState
		close(b.done)
	}()
	return file
}

// await waits until the broker is ready. The error has what it said, if it has
// ended.
func (b *Broker) await(file string) error {
	b.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if text, err := os.ReadFile(file); err == nil {
			if err := json.Unmarshal(text, &b.Endpoints); err != nil {
				b.t.Fatal(err)
			}
			return nil
		}
		select {
		case <-b.done:
			text, _ := os.ReadFile(b.log.Name())
			return fmt.Errorf("the broker ended at once: %v\n%s", b.cmd.ProcessState, text)
		case <-deadline:
			return errors.New("the broker is not ready after 30 seconds")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// PID is the process.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Kill ends the process as kill -9 does, and waits until it is gone.
func (b *Broker) Kill() {
	b.t.Helper()
	if err := b.cmd.Process.Kill(); err != nil {
		b.t.Fatal(err)
	}
	<-b.done
}

// Restart starts the broker again, on the ports that it had.
func (b *Broker) Restart() {
	b.t.Helper()
	b.start(b.AMQP, b.AMQPS, b.HTTP, b.HTTPS, b.Blob)
}

// RestartAndKill starts the broker again, on the ports that it had, and kills it
// a while later, whether it is ready by then or not.
func (b *Broker) RestartAndKill(after time.Duration) {
	b.t.Helper()
	b.launch(b.AMQP, b.AMQPS, b.HTTP, b.HTTPS, b.Blob)
	time.Sleep(after)
	b.Kill()
}

// Stop ends the broker as an operator does.
func (b *Broker) Stop() {
	b.t.Helper()
	select {
	case <-b.done:
		return
	default:
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Error(err)
	}
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		b.t.Error("the broker did not stop within 30 seconds of SIGTERM")
		b.Kill()
	}
}

// Admin is a management client with all rights.
func (b *Broker) Admin() *admin.Client { return b.adminWith(nil) }

// adminWith is Admin over an HTTP client of one's own.
func (b *Broker) adminWith(hc *http.Client) *admin.Client {
	b.t.Helper()
	cs, err := auth.ParseConnectionString(b.ConnectionString)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := admin.NewClient("http://"+b.HTTP, cs, hc)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// Hub makes an event hub.
func (b *Broker) Hub(name string, partitions int) {
	b.t.Helper()
	if _, err := b.Admin().CreateHub(context.Background(), admin.NewHub{Name: name, Partitions: partitions}); err != nil {
		b.t.Fatal(err)
	}
}

// ConnectionStringOf is the connection string for plain AMQP with another rule.
func (b *Broker) ConnectionStringOf(rule, key string) string {
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true;", localhost(b.AMQP), rule, key)
}

// localhost is an address by that name: certificates and .NET want one.
func localhost(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort("localhost", port)
}

// RSS is the process's resident memory in bytes.
func (b *Broker) RSS() int64 {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.PID()))
	if err != nil {
		b.t.Skip("the memory of a process is read from /proc")
	}
	for line := range bytes.Lines(text) {
		var kb int64
		if _, err := fmt.Sscanf(string(line), "VmRSS: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	b.t.Fatal("/proc tells no VmRSS")
	return 0
}

// CA writes the certificate of the broker's authority to a file.
func (b *Broker) CA() string {
	b.t.Helper()
	out, err := exec.Command(Binary(b.t), "tls", "ca", "--data", b.Data).Output()
	if err != nil {
		b.t.Fatalf("millrace tls ca: %v", err)
	}
	file := filepath.Join(b.Dir, "ca.pem")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// Log returns what the broker has logged so far.
func (b *Broker) Log() string {
	text, err := os.ReadFile(b.log.Name())
	if err != nil && !errors.Is(err, io.EOF) {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
