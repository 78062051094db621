package compat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

var idempotentEvents = flag.Int("idempotent-events", 150, "how many events the idempotent producer sends")

// TestIdempotentRetries drives the JavaScript SDK's buffered producer with
// idempotent retries through lost acknowledgements, and kills of the broker: what
// it calls published is stored, and nothing twice or out of order.
func TestIdempotentRetries(t *testing.T) {
	c := loadClient(t, "clients/js/client.json")
	c.install(t)
	t.Run("lost acknowledgements", func(t *testing.T) { idempotentRetries(t, c, 0.2, 0) })
	t.Run("kills", func(t *testing.T) { idempotentRetries(t, c, 0.15, 700*time.Millisecond) })
}

func idempotentRetries(t *testing.T, c *client, share float64, killEvery time.Duration) {
	t.Logf("-kill-seed %d", *killSeed)
	b := Start(t)
	const name = "once"
	b.Hub(name, 1)
	x := newThief(t, b.AMQP, share, *killSeed)
	args := append(c.expand(c.Run), "idempotent", name, fmt.Sprint(*idempotentEvents))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "MILLRACE_CA_FILE="+b.CA(), "MILLRACE_CONNECTION_STRING="+x.connectionString())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	timeout := time.After(5*time.Minute + time.Duration(*idempotentEvents)*time.Second)
	kills := 0
	var tick <-chan time.Time
	if killEvery > 0 {
		ticker := time.NewTicker(killEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the client: %v\n%s", err, errs.String())
			}
			running = false
		case <-tick:
			b.Kill()
			b.Restart()
			kills++
		case <-timeout:
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			<-ended
			t.Fatalf("the client hangs\n%s\n%s", out.String()[max(0, out.Len()-2000):], errs.String()[max(0, errs.Len()-4000):])
		}
	}
	told, batches, failed := outcomes(t, &out)
	checkOnce(t, b, name, told)
	if killEvery == 0 && failed > 0 {
		t.Errorf("the SDK gave up %d events", failed)
	}
	t.Logf("%d batches, %d events given up by the SDK, %d acknowledgements stolen, %d kills", batches, failed, x.stolen.Load(), kills)
	if x.stolen.Load() == 0 || killEvery > 0 && kills < 3 {
		t.Error("too little has happened to the client")
	}
}

// outcomes is what the SDK has said of each event: that it is published, or that
// it failed and may be there or not.
func outcomes(t *testing.T, out io.Reader) (acked map[int]bool, batches, failed int) {
	t.Helper()
	acked = map[int]bool{}
	done := false
	for sc := bufio.NewScanner(out); sc.Scan(); {
		var line struct {
			Acknowledged []int  `json:"acknowledged"`
			Failed       []int  `json:"failed"`
			Error        string `json:"error"`
			Done         bool   `json:"done"`
		}
		if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
			continue
		}
		if line.Error != "" {
			t.Logf("given up: %v: %s", line.Failed, line.Error)
		}
		for _, n := range line.Acknowledged {
			acked[n] = true
		}
		failed += len(line.Failed)
		done = done || line.Done
		batches++
	}
	if !done || len(acked)+failed != *idempotentEvents {
		t.Errorf("%d of %d events are acknowledged, %d given up; at the end: %v", len(acked), *idempotentEvents, failed, done)
	}
	return acked, batches, failed
}

// checkOnce reads the partition: what was acknowledged is there, and nothing twice
// or out of order.
func checkOnce(t *testing.T, b *Broker, name string, acked map[int]bool) {
	t.Helper()
	last := -1
	eachStored(t, b, name, "0", func(body string) {
		n, err := strconv.Atoi(strings.TrimSpace(body))
		if err != nil {
			t.Fatalf("an event is %q", body)
		}
		if n <= last {
			t.Errorf("event %d follows event %d", n, last)
		}
		delete(acked, n)
		last = n
	})
	if len(acked) > 0 {
		t.Errorf("acknowledged, and not there: %v", slices.Sorted(maps.Keys(acked)))
	}
}

// eachStored reads a partition from its beginning to its end.
func eachStored(t *testing.T, b *Broker, name, partition string, each func(body string)) {
	t.Helper()
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, name, eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	props, err := c.GetPartitionProperties(ctx, partition, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.NewPartitionClient(partition, &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(p)
	for left := int(props.LastEnqueuedSequenceNumber) + 1; left > 0; {
		events, err := p.ReceiveEvents(ctx, min(100, left), nil) // it waits for so many
		if err != nil {
			t.Fatal(err)
		}
		left -= len(events)
		for _, e := range events {
			each(string(e.Body))
		}
	}
}
