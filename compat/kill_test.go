package compat

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
)

var (
	kills    = flag.Int("kills", 50, "how often a broker is killed under load, in each mode")
	killSeed = flag.Uint64("kill-seed", uint64(time.Now().UnixNano()), "seed of the moments at which it is killed")
)

// stream is a sequence of numbered events, sent one batch after the other by one
// sender to one partition, or by one key.
type stream struct {
	name           string
	partition, key string
	padding        int // of each event, in bytes

	batches []sentBatch
	sent    int // events whose batch has been handed to the SDK
	acked   int // events acknowledged, all of them below sent
}

// sentBatch is what its sender was told of a batch.
type sentBatch struct {
	first, count int
	acked        bool
	killed       bool // the broker was killed, or down, while it was being sent
}

// lives counts the ends and the beginnings of the broker: odd while it is dead,
// or about to be. A send that finds it the same even number before and after was
// not in flight at a kill.
type lives struct{ atomic.Int64 }

// TestNothingAcknowledgedIsLost kills a broker under load, again and again, and
// then reads everything: each acknowledged event is there, in its sender's order.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Run("without retries", func(t *testing.T) { killUnderLoad(t, *kills, eventhubs.RetryOptions{MaxRetries: -1}) })
	t.Run("with retries", func(t *testing.T) {
		killUnderLoad(t, *kills, eventhubs.RetryOptions{MaxRetries: 1000, RetryDelay: 10 * time.Millisecond, MaxRetryDelay: 50 * time.Millisecond})
	})
}

const killPartitions = 4

func killUnderLoad(t *testing.T, kills int, retry eventhubs.RetryOptions) {
	t.Logf("-kill-seed %d", *killSeed)
	rng := rand.New(rand.NewPCG(*killSeed, 1))
	b := Start(t)
	b.Hub("kill", killPartitions)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	streams := []*stream{{name: "to 0", partition: "0"}, {name: "to 1", partition: "1"}, {name: "also to 1", partition: "1"},
		{name: "by key", key: "a key"}, {name: "by another key", key: "another"}}
	var sending sync.WaitGroup
	var life lives
	for _, s := range streams {
		sending.Go(func() { s.run(t, ctx, b, &life, retry) })
	}
	chain := &checkpointChain{}
	sending.Go(func() { chain.run(t, ctx, b) })

	starts := 0
	for range kills {
		time.Sleep(time.Duration(50+rng.IntN(550)) * time.Millisecond) // of load
		life.Add(1)
		b.Kill()
		for rng.IntN(4) == 0 { // it also dies while it recovers
			b.RestartAndKill(time.Duration(rng.IntN(40)) * time.Millisecond)
			starts++
		}
		b.Restart()
		life.Add(1)
	}
	time.Sleep(200 * time.Millisecond) // so that those that retry are heard
	stop()
	sending.Wait()

	total, acked, copies := 0, 0, 0
	got := readAll(t, b)
	for _, s := range streams {
		extra := s.check(t, got[s.name], retry.MaxRetries > 0)
		total, acked, copies = total+s.sent, acked+s.acked, copies+extra
	}
	chain.check(t, b)
	b.Stop()
	if out, err := exec.Command(Binary(t), "verify", "--data", b.Data).CombinedOutput(); err != nil {
		t.Errorf("millrace verify: %v\n%s", err, out)
	}
	t.Logf("%d kills and %d of a start; %d events sent, %d acknowledged, %d extra copies; %d checkpoints", kills, starts, total, acked, copies, chain.acked)
	if acked < 10*kills || chain.acked < kills {
		t.Error("the broker was killed more often than it was used: the test saw too little")
	}
}

// run sends until ctx ends.
func (s *stream) run(t *testing.T, ctx context.Context, b *Broker, life *lives, retry eventhubs.RetryOptions) {
	var p *eventhubs.ProducerClient
	defer func() {
		if p != nil {
			closeSoon(p)
		}
	}()
	for ctx.Err() == nil {
		if p == nil {
			var err error
			p, err = eventhubs.NewProducerClientFromConnectionString(b.ConnectionString, "kill", &eventhubs.ProducerClientOptions{RetryOptions: retry})
			if err != nil {
				t.Error(err)
				return
			}
		}
		if err := s.send(ctx, p, life); err != nil && retry.MaxRetries < 0 {
			closeSoon(p)
			p = nil
		}
	}
}

// send sends one batch of up to four events. The SDK's own retries stand behind
// SendEventDataBatch; without them a failed batch is never sent again.
func (s *stream) send(ctx context.Context, p *eventhubs.ProducerClient, life *lives) error {
	options := &eventhubs.EventDataBatchOptions{}
	if s.partition != "" {
		options.PartitionID = &s.partition
	} else {
		options.PartitionKey = &s.key
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	batch, err := p.NewEventDataBatch(ctx, options)
	if err != nil {
		return err
	}
	first := s.sent
	for i := range 1 + first%4 {
		e := &eventhubs.EventData{Body: append(fmt.Appendf(nil, "%s/%d", s.name, first+i), make([]byte, s.padding)...), Properties: map[string]any{"stream": s.name, "number": int64(first + i)}}
		if err := batch.AddEventData(e, nil); err != nil {
			return err
		}
	}
	x := sentBatch{first: first, count: int(batch.NumEvents())}
	s.sent += x.count
	before := life.Load()
	err = p.SendEventDataBatch(ctx, batch, nil)
	x.killed = before%2 == 1 || life.Load() != before
	if x.acked = err == nil; x.acked {
		s.acked += x.count
	}
	s.batches = append(s.batches, x)
	return err
}

func closeSoon(c interface{ Close(context.Context) error }) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx) //nolint:errcheck // its connection may be gone
}

// check compares what was read of the stream with what its sender was told: whole
// batches in the sender's order, and extra copies only where the SDK tried again.
// It returns how many extra copies of events there are.
func (s *stream) check(t *testing.T, got []int64, retries bool) int {
	t.Helper()
	extra := 0
	for _, x := range s.batches {
		copies := 0
		for len(got) > 0 && got[0] == int64(x.first) {
			for i := range x.count {
				if i == len(got) || got[i] != int64(x.first+i) {
					t.Errorf("%s: batch %d of %d events is there without its event %d", s.name, x.first, x.count, i)
					return extra
				}
			}
			got = got[x.count:]
			copies++
		}
		switch {
		case x.acked && copies == 0:
			t.Errorf("%s: batch %d was acknowledged and is lost, or out of order", s.name, x.first)
		case copies > 1 && !(retries && x.killed):
			t.Errorf("%s: batch %d is there %d times (in flight at a kill: %v)", s.name, x.first, copies, x.killed)
		}
		extra += max(0, copies-1) * x.count
	}
	if len(got) > 0 {
		t.Errorf("%s: event %d is out of order, or was never sent (%d after it)", s.name, got[0], len(got)-1)
	}
	return extra
}

// readAll reads every partition to its end, and returns the numbers of each
// stream in their order. Sequence numbers must have no gap.
func readAll(t *testing.T, b *Broker) map[string][]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "kill", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	got := map[string][]int64{}
	for p := range killPartitions {
		id := strconv.Itoa(p)
		props, err := c.GetPartitionProperties(ctx, id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if props.IsEmpty {
			continue
		}
		r, err := c.NewPartitionClient(id, &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: new(true)}})
		if err != nil {
			t.Fatal(err)
		}
		for next := int64(0); next <= props.LastEnqueuedSequenceNumber; {
			events, err := r.ReceiveEvents(ctx, int(min(100, props.LastEnqueuedSequenceNumber+1-next)), nil) // it waits for as many
			if err != nil {
				t.Fatalf("partition %s at %d of %d: %v", id, next, props.LastEnqueuedSequenceNumber, err)
			}
			for _, e := range events {
				if e.SequenceNumber != next {
					t.Fatalf("partition %s: sequence number %d where %d should be", id, e.SequenceNumber, next)
				}
				next++
				name, number := e.Properties["stream"].(string), e.Properties["number"].(int64)
				if want := fmt.Sprintf("%s/%d", name, number); string(bytes.TrimRight(e.Body, "\x00")) != want {
					t.Fatalf("partition %s at %d: body %q of %s", id, e.SequenceNumber, e.Body, want)
				}
				got[name] = append(got[name], number)
			}
		}
		closeSoon(r)
	}
	return got
}

// checkpointChain writes one blob over and over, each time only if it is what it
// was: a chain of compare-and-swaps with one writer.
type checkpointChain struct {
	acked   int  // writes acknowledged
	unknown bool // the one after them may have happened
	etag    azcore.ETag
}

const chainContainer, chainBlob = "chain", "checkpoint"

func chainClient(b *Broker) (*azblob.Client, error) {
	return azblob.NewClientFromConnectionString(b.StorageConnectionString, &azblob.ClientOptions{ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}})
}

func (c *checkpointChain) run(t *testing.T, ctx context.Context, b *Broker) {
	client, err := chainClient(b)
	if err != nil {
		t.Error(err)
		return
	}
	for ctx.Err() == nil {
		if _, err := client.CreateContainer(ctx, chainContainer, nil); err == nil || bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
			break
		}
	}
	blobs := client.ServiceClient().NewContainerClient(chainContainer).NewBlockBlobClient(chainBlob)
	for ctx.Err() == nil {
		if c.unknown && !c.settle(t, blobs) {
			continue
		}
		conditions := &blob.ModifiedAccessConditions{IfMatch: &c.etag}
		if c.acked == 0 {
			any := azcore.ETagAny
			conditions = &blob.ModifiedAccessConditions{IfNoneMatch: &any}
		}
		content := []byte(strconv.Itoa(c.acked + 1))
		r, err := blobs.Upload(context.WithoutCancel(ctx), nopCloser{bytes.NewReader(content)},
			&blockblob.UploadOptions{AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: conditions}})
		switch {
		case err == nil:
			c.acked, c.etag = c.acked+1, *r.ETag
		case bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.BlobAlreadyExists):
			t.Errorf("checkpoint %d: somebody else has written it: %v", c.acked+1, err)
			return
		default:
			c.unknown = true
			time.Sleep(5 * time.Millisecond) // the broker is starting
		}
	}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// settle finds out whether a write that failed has happened. It must be the one
// acknowledged last, or the one after it.
func (c *checkpointChain) settle(t *testing.T, blobs *blockblob.Client) bool {
	r, err := blobs.DownloadStream(context.Background(), nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) && c.acked == 0 {
		c.unknown = false
		return true
	}
	if bloberror.HasCode(err, bloberror.BlobNotFound, bloberror.ContainerNotFound) {
		t.Errorf("checkpoint %d was acknowledged and is gone: %v", c.acked, err)
		return true
	}
	if err != nil {
		time.Sleep(5 * time.Millisecond)
		return false
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n != c.acked && !(c.unknown && n == c.acked+1) {
		t.Errorf("the checkpoint is %q after %d was acknowledged (%v)", text, c.acked, err)
	}
	if n == c.acked && c.acked > 0 && *r.ETag != c.etag {
		t.Errorf("checkpoint %d has changed its ETag", n)
	}
	c.acked, c.etag, c.unknown = n, *r.ETag, false
	return true
}

func (c *checkpointChain) check(t *testing.T, b *Broker) {
	t.Helper()
	client, err := chainClient(b)
	if err != nil {
		t.Fatal(err)
	}
	if !c.settle(t, client.ServiceClient().NewContainerClient(chainContainer).NewBlockBlobClient(chainBlob)) {
		t.Error("the checkpoint can't be read")
	}
}
