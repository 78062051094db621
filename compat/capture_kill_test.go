package compat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/azure"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/s3"
)

var captureKills = flag.Int("capture-kills", 5, "how often a broker is killed while it captures, for each destination")

// lake is where captured files go in a test.
type lake struct {
	config string // of the broker
	name   string // of the destination
	open   func(b *Broker) (capture.Destination, error)
}

// lakes are the kinds of destinations.
func lakes() map[string]func(*testing.T) lake {
	return map[string]func(*testing.T) lake{
		"folder": func(t *testing.T) lake {
			dir := filepath.Join(t.TempDir(), "lake")
			return lake{fmt.Sprintf("capture-destinations:\n  - {name: lake, kind: folder, folder: %q}\n", dir), "lake",
				func(*Broker) (capture.Destination, error) { return folder.New(dir) }}
		},
		"blob endpoint": func(*testing.T) lake {
			return lake{"", "", func(b *Broker) (capture.Destination, error) {
				return azure.New(azure.Options{ConnectionString: b.StorageConnectionString, Container: "capture"})
			}}
		},
		"Azurite": func(t *testing.T) lake {
			at := startAzurite(t)
			return lake{fmt.Sprintf("capture-destinations:\n  - {name: lake, kind: azure, connection-string: %q}\n", at), "lake",
				func(*Broker) (capture.Destination, error) {
					return azure.New(azure.Options{ConnectionString: at, Container: "capture"})
				}}
		},
		"S3": func(t *testing.T) lake {
			at := "http://" + startS3(t)
			return lake{fmt.Sprintf("capture-destinations:\n  - {name: lake, kind: s3, endpoint: %q, region: us-east-1, access-key: %q, secret-key: %q}\n", at, s3Access, s3Secret), "lake",
				func(*Broker) (capture.Destination, error) {
					return s3.New(s3.Options{Endpoint: at, Region: "us-east-1", AccessKey: s3Access, SecretKey: s3Secret, Bucket: "capture"})
				}}
		},
	}
}

// TestCaptureUnderKills kills a broker while it captures under load, again and
// again, against each kind of destination: in the end the files together are the
// log, each event once.
//
//	go test -run TestCaptureUnderKills . -capture-kills 50 -timeout 1h
func TestCaptureUnderKills(t *testing.T) {
	for name, make := range lakes() {
		for _, format := range []string{"Avro", "Parquet"} {
			t.Run(name+", "+format, func(t *testing.T) { captureUnderKills(t, make(t), format) })
		}
	}
}

const capturePartitions = 2

func captureUnderKills(t *testing.T, l lake, format string) {
	t.Logf("-kill-seed %d", *killSeed)
	rng := rand.New(rand.NewPCG(*killSeed, 2))
	b := StartWith(t, l.config)
	on, interval, size := true, admin.Duration(time.Minute), int64(10<<20)
	if _, err := b.Admin().CreateHub(t.Context(), admin.NewHub{Name: "captured", Partitions: capturePartitions, Capture: &admin.CaptureChange{
		Enabled: &on, Interval: &interval, Bytes: &size, Destination: &l.name, Format: &format}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sending sync.WaitGroup
	for i := range capturePartitions {
		sending.Go(func() { sendAlong(ctx, b.ConnectionString, strconv.Itoa(i)) })
	}
	for range *captureKills {
		time.Sleep(time.Duration(100+rng.IntN(1400)) * time.Millisecond)
		b.Kill()
		for rng.IntN(4) == 0 {
			b.RestartAndKill(time.Duration(rng.IntN(200)) * time.Millisecond)
		}
		b.Restart()
	}
	stop()
	sending.Wait()
	off := false
	if _, err := b.Admin().UpdateHub(t.Context(), "captured", admin.HubChange{Capture: &admin.CaptureChange{Enabled: &off}}); err != nil {
		t.Fatal(err)
	}
	b.await0Backlog("captured")
	d, err := l.open(b)
	if err != nil {
		t.Fatal(err)
	}
	logged := readBodies(t, b)
	files := compareFiles(t, d, logged)
	n := 0
	for _, p := range logged {
		n += len(p)
	}
	t.Logf("%d kills, %d events, %d files", *captureKills, n, files)
	if files < capturePartitions*2 {
		t.Error("there are too few files for the test to have seen anything")
	}
}

// sendAlong sends events of 10 kB, as fast as they are taken, until ctx ends.
func sendAlong(ctx context.Context, connection, partition string) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 640)
	for n := uint64(0); ctx.Err() == nil; {
		p, err := eventhubs.NewProducerClientFromConnectionString(connection, "captured", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
		if err != nil {
			continue
		}
		for err == nil && ctx.Err() == nil {
			var batch *eventhubs.EventDataBatch
			if batch, err = p.NewEventDataBatch(ctx, &eventhubs.EventDataBatchOptions{PartitionID: &partition}); err != nil {
				break
			}
			for range 50 {
				n++
				e := &eventhubs.EventData{Body: binary.BigEndian.AppendUint64(bytes.Clone(body), n), Properties: map[string]any{"n": int64(n)}}
				if err = batch.AddEventData(e, nil); err != nil {
					break
				}
			}
			if err == nil {
				err = p.SendEventDataBatch(ctx, batch, nil)
			}
		}
		closeSoon(p)
	}
}

// metrics is what the broker shows of itself.
func (b *Broker) metrics() string {
	b.t.Helper()
	resp, err := http.Get("http://" + b.HTTP + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// await0Backlog waits until every event of a hub is in a file.
func (b *Broker) await0Backlog(hub string) {
	b.t.Helper()
	line := fmt.Sprintf("millrace_capture_backlog_messages{hub=%q,namespace=\"localhost\"} 0\n", hub)
	deadline := time.Now().Add(2 * time.Minute)
	for !strings.Contains(b.metrics(), line) {
		if time.Now().After(deadline) {
			b.t.Fatal("events are still in no file after two minutes")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// readBodies reads the checksum of every event's body, by partition and number.
func readBodies(t *testing.T, b *Broker) [capturePartitions][]uint32 {
	t.Helper()
	var out [capturePartitions][]uint32
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "captured", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	parts, err := b.Admin().Partitions(ctx, "captured")
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		r, err := c.NewPartitionClient(strconv.Itoa(i), &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: new(true)}})
		if err != nil {
			t.Fatal(err)
		}
		for int64(len(out[i])) <= p.Last {
			events, err := r.ReceiveEvents(ctx, int(min(200, p.Last+1-int64(len(out[i])))), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.SequenceNumber != int64(len(out[i])) {
					t.Fatalf("partition %d: event %d where %d should be", i, e.SequenceNumber, len(out[i]))
				}
				out[i] = append(out[i], crc32.ChecksumIEEE(e.Body))
			}
		}
		closeSoon(r)
	}
	return out
}

// compareFiles reads all files, and compares them with the log. It returns how many
// there are.
func compareFiles(t *testing.T, d capture.Destination, logged [capturePartitions][]uint32) int {
	t.Helper()
	files := 0
	var next [capturePartitions]int
	format, err := capture.ParseNameFormat(capture.DefaultNameFormat)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for o, err := range d.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	slices.Sort(names) // by partition, and then by time
	for _, name := range names {
		files++
		n, err := format.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		i := int(n.Partition)
		readFile(t, d, name, func(sequence int64, body []byte) {
			if sequence != int64(next[i]) {
				t.Fatalf("%s goes on with event %d, not %d", name, sequence, next[i])
			}
			if next[i] >= len(logged[i]) || crc32.ChecksumIEEE(body) != logged[i][next[i]] {
				t.Fatalf("%s: event %d is not the one in the log", name, sequence)
			}
			next[i]++
		})
	}
	for i := range logged {
		if next[i] != len(logged[i]) {
			t.Errorf("partition %d has %d events, and its files %d", i, len(logged[i]), next[i])
		}
	}
	return files
}

// readFile reads a captured file's events.
func readFile(t *testing.T, d capture.Destination, name string, each func(sequence int64, body []byte)) {
	t.Helper()
	in, err := d.Open(t.Context(), "", name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if strings.HasSuffix(name, capture.SuffixParquet) {
		f, err := os.CreateTemp(t.TempDir(), "*")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		defer os.Remove(f.Name()) //nolint:errcheck // with the folder, else
		size, err := io.Copy(f, in)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parquet.NewReader(f, size)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			each(int64(e.Sequence), e.Body)
		}
	}
	r, err := avro.NewReader(in)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		each(int64(e.Sequence), e.Body)
	}
}
