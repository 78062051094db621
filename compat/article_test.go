package compat

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
)

// patience is how long any step may take before a test gives up.
const patience = 90 * time.Second

// fact is a line that a program of the article prints.
type fact struct {
	Sent      *int    `json:"sent"`
	Received  *int    `json:"received"`
	Partition string  `json:"partition"`
	Sequence  int64   `json:"sequence"`
	Claimed   *string `json:"claimed"`
	Lost      *string `json:"lost"`
}

// program is one of the article's, in a process of its own.
type program struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and all it printed is read

	mu    sync.Mutex
	facts []fact
}

// article is a broker with an event hub of two partitions, and the environment
// that the programs need.
type article struct {
	*Broker
	t      *testing.T
	python string
	env    []string
}

func newArticle(t *testing.T) *article {
	t.Helper()
	var python *client
	for _, c := range loadClients(t) {
		if c.name == "python-async" { // the newest SDK, with its checkpoint store
			python = c
		}
	}
	python.install(t)
	a := &article{Broker: Start(t), t: t, python: filepath.Join(python.installed, "venv", "bin", "python")}
	a.Hub("trial", 2)
	a.env = append(os.Environ(), "EVENTHUB_CONNECTION_STRING="+a.ConnectionString, "AZURE_STORAGE_CONNECTION_STRING="+a.StorageConnectionString)
	storage, err := azblob.NewClientFromConnectionString(a.StorageConnectionString, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The SDK's store makes no container itself.
	if _, err := storage.CreateContainer(t.Context(), "checkpoints", nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		t.Fatal(err)
	}
	return a
}

// start starts a program. It is killed with the test.
func (a *article) start(name string, args ...string) *program {
	a.t.Helper()
	p := &program{t: a.t, name: name, cmd: exec.Command(a.python, append([]string{"-B"}, args...)...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = "article", a.env
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	var errs strings.Builder
	p.cmd.Stderr = &errs
	if err := p.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var f fact
			if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
				continue
			}
			p.mu.Lock()
			p.facts = append(p.facts, f)
			p.mu.Unlock()
		}
		p.cmd.Wait() //nolint:errcheck // it is mostly killed
	}()
	a.t.Cleanup(func() {
		p.kill()
		if a.t.Failed() {
			a.t.Logf("%s said\n%s", name, errs.String()[max(0, errs.Len()-3000):])
		}
	})
	return p
}

// kill ends the program as kill -9 does.
func (p *program) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.done
}

// received has how often the program got each reading.
func (p *program) received() map[int]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := map[int]int{}
	for _, f := range p.facts {
		if f.Received != nil {
			got[*f.Received]++
		}
	}
	return got
}

// owned has the partitions that the program has claimed and not lost.
func (p *program) owned() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := map[string]bool{}
	for _, f := range p.facts {
		if f.Claimed != nil {
			got[*f.Claimed] = true
		}
		if f.Lost != nil {
			delete(got, *f.Lost)
		}
	}
	return got
}

// await polls until something is true.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: does not happen", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// produce runs the producer to its end.
func (a *article) produce(first, count int) {
	a.t.Helper()
	p := a.start(fmt.Sprintf("producer from %d", first), "producer.py", fmt.Sprint(count), "0", fmt.Sprint(first))
	a.ended(p, count)
}

func (a *article) ended(p *program, count int) {
	a.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		a.t.Fatalf("%s does not end", p.name)
	}
	if len(p.facts) != count {
		a.t.Fatalf("%s has sent %d of %d events", p.name, len(p.facts), count)
	}
}

// all tells whether readings from first up to end have arrived, at one of the
// programs or at another, of one parity or of both.
func all(first, end, step int, programs ...*program) bool {
	got := map[int]int{}
	for _, p := range programs {
		for n, times := range p.received() {
			got[n] += times
		}
	}
	for n := first; n < end; n += step {
		if got[n] == 0 {
			return false
		}
	}
	return true
}

// TestArticlePinned is the article's first half: a consumer for each partition,
// chosen by hand; one is killed and goes on after its checkpoint, and so does
// everybody when the broker is killed.
func TestArticlePinned(t *testing.T) {
	a := newArticle(t)
	zero, one := a.start("consumer of 0", "consumer.py", "pinned", "0"), a.start("consumer of 1", "consumer.py", "pinned", "1")
	a.produce(0, 10)
	await(t, "each consumer has the events of its partition", func() bool { return all(0, 10, 2, zero) && all(1, 10, 2, one) })

	one.kill()
	a.produce(10, 10)
	again := a.start("consumer of 1, again", "consumer.py", "pinned", "1")
	await(t, "the restarted consumer has what it missed", func() bool { return all(11, 20, 2, again) })
	for n, times := range again.received() {
		if n < 9 || times > 1 { // the one that it was killed with may have had no checkpoint
			t.Errorf("after the restart, reading %d came %d times", n, times)
		}
	}

	// The broker is killed while events are on their way.
	sending := a.start("producer over a kill", "producer.py", "60", "0.02", "20")
	await(t, "some events are sent", func() bool { sending.mu.Lock(); defer sending.mu.Unlock(); return len(sending.facts) > 10 })
	a.Kill()
	a.Restart()
	a.ended(sending, 60)
	await(t, "nothing is lost over the broker's kill", func() bool { return all(20, 80, 2, zero) && all(21, 80, 2, again) })
	for _, p := range []*program{zero, again} {
		p.inSequence()
	}
}

// inSequence checks that each partition's numbers have no gap. They may go back: a
// receiver that the SDK replaces goes on after the last checkpoint.
func (p *program) inSequence() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	last := map[string]int64{}
	for _, f := range p.facts {
		if f.Received == nil {
			continue
		}
		if before, ok := last[f.Partition]; ok && f.Sequence > before+1 {
			p.t.Errorf("%s: %d after %d in partition %s", p.name, f.Sequence, before, f.Partition)
		}
		last[f.Partition] = f.Sequence
	}
}

// TestArticleBalanced is its second half: two consumers share the partitions; one
// is killed, and the other takes over once its ownership has expired.
func TestArticleBalanced(t *testing.T) {
	a := newArticle(t)
	first := a.start("first consumer", "consumer.py", "balanced")
	await(t, "the first consumer has both partitions", func() bool { return len(first.owned()) == 2 })
	second := a.start("second consumer", "consumer.py", "balanced")
	await(t, "they share", func() bool { return len(first.owned()) == 1 && len(second.owned()) == 1 })
	a.produce(0, 20)
	await(t, "together they have everything", func() bool { return all(0, 20, 1, first, second) })

	second.kill()
	a.produce(20, 20)
	await(t, "the other has both partitions, and everything", func() bool { return len(first.owned()) == 2 && all(20, 40, 1, first) })

	a.Kill()
	a.Restart()
	a.produce(40, 20)
	await(t, "it goes on after the broker's kill", func() bool { return all(40, 60, 1, first) })
}
