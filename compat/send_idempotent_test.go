package compat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestSendIdempotent pipes numbered lines into millrace send while acknowledgements
// are stolen and the broker is killed: each line is stored once, in order within its
// partition. Without --idempotent the same thefts leave lines there twice.
func TestSendIdempotent(t *testing.T) {
	t.Logf("-kill-seed %d", *killSeed)
	t.Run("lost acknowledgements", func(t *testing.T) {
		r := pipeLines(t, 0.3, false, "--idempotent")
		r.storedOnce(t)
		if len(r.summary.Partitions) != pipePartitions {
			t.Errorf("it went to the partitions %v", r.summary.Partitions)
		}
	})
	t.Run("kills", func(t *testing.T) {
		r := pipeLines(t, 0.2, true, "--idempotent", "--partition", "1")
		r.storedOnce(t)
		if r.kills == 0 {
			t.Error("nothing was killed")
		}
	})
	t.Run("without", func(t *testing.T) { // where the SDK's retries may also end early
		if r := pipeLines(t, 0.2, false, "--partition", "1"); r.twice == 0 {
			t.Error("no line is there twice: the thefts do nothing")
		}
	})
}

// TestSendIdempotentGivesUp: when the time for a batch is over, or an interrupt ends
// the attempts, send says that it may be stored, and it is there once.
func TestSendIdempotentGivesUp(t *testing.T) {
	for _, c := range []struct {
		name, retryFor, says string
		interrupt            bool
	}{
		{"time", "500ms", "given up after 500ms (--retry-for)", false},
		{"interrupt", "1h", "given up when interrupted", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := Start(t)
			b.Hub("lines", 1)
			x := newThief(t, b.AMQP, 1, 1)
			cmd := exec.Command(Binary(t), "send", "--hub", "lines", "--idempotent", "--retry-for", c.retryFor)
			cmd.Env = append(os.Environ(), "EVENTHUB_CONNECTION_STRING="+x.connectionString())
			var errs bytes.Buffer
			cmd.Stdin, cmd.Stderr = strings.NewReader("one\n"), &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-x.took
			if c.interrupt {
				if err := cmd.Process.Signal(os.Interrupt); err != nil {
					t.Error(err)
				}
			}
			err := cmd.Wait()
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(errs.String(), "a batch of 1 event was not acknowledged, and may be stored: ") ||
				!strings.Contains(errs.String(), c.says) {
				t.Errorf("it ends with %v and says %s", err, errs.String())
			}
			stored := 0
			eachStored(t, b, "lines", "0", func(string) { stored++ })
			if stored != 1 {
				t.Errorf("the line is there %d times, after %d thefts", stored, x.stolen.Load())
			}
		})
	}
}

const pipePartitions = 3

// piped is what became of the lines.
type piped struct {
	summary struct {
		Events     int            `json:"events"`
		Batches    int            `json:"batches"`
		Retries    int            `json:"retries"`
		Partitions map[string]int `json:"partitions"`
	}
	err   error // of the command
	there int   // different lines
	twice int   // and how many more of them
	kills int
}

func (r *piped) storedOnce(t *testing.T) {
	t.Helper()
	n := *idempotentEvents
	if r.err != nil || r.summary.Events != n || r.there != n || r.twice > 0 {
		t.Errorf("of %d lines it counts %d, %d are there, %d of them twice, %v", n, r.summary.Events, r.there, r.twice, r.err)
	}
	if r.summary.Retries == 0 {
		t.Error("nothing was tried again")
	}
}

// pipeLines pipes lines into send, in batches of three, over a thief, and kills the
// broker now and then if it is to.
func pipeLines(t *testing.T, share float64, kill bool, flags ...string) (r piped) {
	b := Start(t)
	const name = "lines"
	b.Hub(name, pipePartitions)
	x := newThief(t, b.AMQP, share, *killSeed)
	cmd := exec.Command(Binary(t), append([]string{"send", "--hub", name, "--batch", "3", "-o", "json"}, flags...)...)
	cmd.Env = append(os.Environ(), "EVENTHUB_CONNECTION_STRING="+x.connectionString())
	var in strings.Builder
	for line := range *idempotentEvents {
		fmt.Fprintln(&in, line)
	}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in.String()), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	hangs := time.After(5*time.Minute + time.Duration(*idempotentEvents)*time.Second)
	rng := rand.New(rand.NewPCG(*killSeed, 4))
	for running := true; running; {
		select {
		case err := <-ended:
			if r.err = err; err != nil {
				t.Logf("millrace send: %v\n%s%s", err, out.String(), errs.String())
			}
			running = false
		case <-x.took:
			if kill && (r.kills == 0 || rng.IntN(4) == 0) {
				time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond) // of sending
				b.Kill()
				b.Restart()
				r.kills++
			}
		case <-hangs:
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			<-ended
			t.Fatalf("millrace send hangs\n%s", errs.String())
		}
	}
	if err := json.Unmarshal(out.Bytes(), &r.summary); err != nil {
		t.Errorf("it says %s, %v", out.String(), err)
	}
	r.there, r.twice = countLines(t, b, name)
	t.Logf("%d lines in %d batches, tried again %d times; %d acknowledgements stolen, %d kills; %d lines there more than once",
		r.summary.Events, r.summary.Batches, r.summary.Retries, x.stolen.Load(), r.kills, r.twice)
	return r
}

// countLines reads the lines: those that are the first of their kind are in order
// within their partition. It returns how many there are, and how many more of them.
func countLines(t *testing.T, b *Broker, name string) (there, twice int) {
	seen := map[int]bool{}
	for partition := range pipePartitions {
		last := -1
		eachStored(t, b, name, strconv.Itoa(partition), func(body string) {
			n, err := strconv.Atoi(body)
			switch {
			case err != nil:
				t.Errorf("a line is %q", body)
			case seen[n]:
				twice++
			default:
				if n <= last {
					t.Errorf("line %d follows line %d in partition %d", n, last, partition)
				}
				seen[n], last = true, n
			}
		})
	}
	return len(seen), twice
}
