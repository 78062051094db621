package processor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/processor"
)

// patience is for what only a failure takes that long for.
const patience = time.Minute

// hub is an event hub of a broker in this process.
type hub struct {
	t      *testing.T
	broker *millrace.Broker
	ns     string
	name   string
	sent   map[string]bool
}

const partitions = 4

func newHub(t *testing.T) *hub {
	b, err := millrace.Start(t.Context(), millrace.Options{
		Ephemeral: true,
		Listen:    map[millrace.Door]string{millrace.AMQPS: "off", millrace.HTTPS: "off"},
		Namespaces: []millrace.Namespace{{Hubs: []millrace.EventHub{
			{Name: "orders", Partitions: partitions, Groups: []string{"audit"}}, {Name: "letters", Partitions: 1},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := azeventhubs.ParseConnectionString(b.ConnectionString())
	if err != nil {
		t.Fatal(err)
	}
	return &hub{t: t, broker: b, ns: p.FullyQualifiedNamespace, name: "orders", sent: map[string]bool{}}
}

func (h *hub) send(n int) {
	h.t.Helper()
	ctx := h.t.Context()
	p := h.producer(h.name)
	for i := range partitions {
		batch, err := p.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: new(fmt.Sprint(i))})
		if err != nil {
			h.t.Fatal(err)
		}
		for range n {
			body := fmt.Sprintf("%d of partition %d", len(h.sent), i)
			h.sent[body] = true
			e := &azeventhubs.EventData{Body: []byte(body), ContentType: new("text/plain"), Properties: map[string]any{"color": "red"}}
			if err := batch.AddEventData(e, nil); err != nil {
				h.t.Fatal(err)
			}
		}
		if err := p.SendEventDataBatch(ctx, batch, nil); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *hub) producer(name string) *azeventhubs.ProducerClient {
	h.t.Helper()
	p, err := azeventhubs.NewProducerClientFromConnectionString(h.broker.ConnectionString(), name, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { p.Close(context.Background()) })
	return p
}

func (h *hub) consumer(name, group string) *azeventhubs.ConsumerClient {
	h.t.Helper()
	c, err := azeventhubs.NewConsumerClientFromConnectionString(h.broker.ConnectionString(), name, group, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (h *hub) store() *checkpoints.BlobStore {
	h.t.Helper()
	c, err := container.NewClientFromConnectionString(h.broker.StorageConnectionString(), "checkpoints", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	c.Create(h.t.Context(), nil) //nolint:errcheck // it may be there
	s, err := checkpoints.NewBlobStore(c, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// options are those of a process that shares the partitions, and looks often.
func (h *hub) options() processor.Options {
	return processor.Options{
		Namespace: h.ns, Group: azeventhubs.DefaultConsumerGroup, Greedy: true,
		Balance: 100 * time.Millisecond, Expiry: 5 * time.Second,
		Start:  azeventhubs.StartPositions{Default: azeventhubs.StartPosition{Earliest: new(true)}},
		Logger: slog.New(slog.NewTextHandler(testWriter{h.t}, nil)),
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// tally counts how often each event was processed.
type tally struct {
	mu    sync.Mutex
	n     map[string]int
	by    map[string]map[string]bool // the partitions that a process has had
	total int
	at    int           // total at which reached is closed
	full  chan struct{} // closed then
}

func newTally(at int) *tally {
	return &tally{n: map[string]int{}, by: map[string]map[string]bool{}, at: at, full: make(chan struct{})}
}

func (y *tally) handler(name string) processor.Handler {
	return func(_ context.Context, b processor.Batch) error {
		y.mu.Lock()
		defer y.mu.Unlock()
		if y.by[name] == nil {
			y.by[name] = map[string]bool{}
		}
		y.by[name][b.Partition] = true
		for _, e := range b.Events {
			y.n[string(e.Body)]++
			if y.total++; y.total == y.at {
				close(y.full)
			}
		}
		return nil
	}
}

func (y *tally) wait(t *testing.T) {
	t.Helper()
	select {
	case <-y.full:
	case <-time.After(patience):
		y.mu.Lock()
		defer y.mu.Unlock()
		t.Fatalf("%d of %d events are processed", y.total, y.at)
	}
}

// once checks that each event that was sent was processed once.
func (y *tally) once(h *hub) {
	h.t.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	for body := range h.sent {
		if y.n[body] != 1 {
			h.t.Errorf("%q was processed %d times", body, y.n[body])
		}
	}
	if len(y.n) != len(h.sent) {
		h.t.Errorf("%d events were processed, and %d sent", len(y.n), len(h.sent))
	}
}

// start runs a processor until stop is called, which waits for its end.
func (h *hub) start(o processor.Options) (p *processor.Processor, stop func()) {
	h.t.Helper()
	var store azeventhubs.CheckpointStore
	if len(o.Partitions) == 0 {
		store = h.store()
	}
	p, err := processor.New(h.consumer(h.name, o.Group), store, o)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			h.t.Errorf("run ends with %v", err)
		}
	})
	h.t.Cleanup(stop)
	return p, stop
}

// TestShared: processes share the partitions, in batches and one by one, hand them over
// while events come, and each event is processed once.
func TestShared(t *testing.T) {
	for _, batch := range []int{1, 50} {
		t.Run(fmt.Sprint(batch), func(t *testing.T) {
			h := newHub(t)
			const n = 100
			y := newTally(3 * n * partitions)
			o := h.options()
			o.Ledger, o.Batch, o.MaxWait, o.CheckpointEvents = once.NewMemory(time.Hour), batch, 50*time.Millisecond, 30
			h.send(n)
			o.Handle = y.handler("first")
			first, stopFirst := h.start(o)
			o.Handle = y.handler("second")
			second, stopSecond := h.start(o)
			h.send(n)
			stopFirst()
			h.send(n)
			y.wait(t)
			stopSecond()
			y.once(h)
			t.Logf("first %+v, second %+v", first.Stats(), second.Stats())
			if got := first.Stats().Processed + second.Stats().Processed; got != int64(len(h.sent)) {
				t.Errorf("the processors count %d", got)
			}
		})
	}
}

// TestResume: a process that has marked events and written no checkpoint, as one that
// was killed, is followed by one that begins behind the marks.
func TestResume(t *testing.T) {
	h := newHub(t)
	const n = 100
	ledger := once.NewMemory(time.Hour)
	h.send(n)
	dead := newTally(partitions * n)
	o := h.options()
	// Pinned and without a store it writes no checkpoint.
	o.Ledger, o.Handle, o.Batch, o.Partitions = ledger, dead.handler("dead"), 10, []string{"0", "1", "2", "3"}
	_, stop := h.start(o)
	dead.wait(t)
	stop()
	dead.once(h)

	h.sent = map[string]bool{}
	h.send(1)
	y := newTally(partitions)
	o = h.options()
	o.Ledger, o.Handle = ledger, y.handler("heir")
	p, stop := h.start(o)
	y.wait(t)
	stop()
	y.once(h)
	if got := p.Stats(); got.Skipped != 0 {
		t.Errorf("%d events were delivered again, and skipped", got.Skipped)
	}
	list, err := h.store().ListCheckpoints(t.Context(), h.ns, h.name, azeventhubs.DefaultConsumerGroup, nil)
	if err != nil || len(list) != partitions {
		t.Fatal(list, err)
	}
	for _, c := range list {
		if c.SequenceNumber == nil || c.Offset == nil || *c.SequenceNumber != n {
			t.Errorf("checkpoint %+v", c)
		}
	}
	// And with a checkpoint that is later than a ledger that knows nothing.
	h.sent = map[string]bool{}
	h.send(1)
	y = newTally(partitions)
	o.Ledger, o.Handle = once.NewMemory(time.Hour), y.handler("other")
	_, stop = h.start(o)
	y.wait(t)
	stop()
	y.once(h)
}

// TestWithoutLedger: the difference that a ledger makes; everything since the last
// checkpoint is processed again.
func TestWithoutLedger(t *testing.T) {
	h := newHub(t)
	h.send(20)
	for range 2 {
		y := newTally(20 * partitions)
		o := h.options()
		o.Handle, o.Partitions = y.handler("x"), []string{"0", "1", "2", "3"}
		_, stop := h.start(o)
		y.wait(t)
		stop()
		y.once(h)
	}
}

// TestDeadLetterHub: what is put aside is in the other hub, with what it was and why.
func TestDeadLetterHub(t *testing.T) {
	h := newHub(t)
	h.send(5)
	bad := "7 of partition 1"
	y := newTally(5*partitions - 1)
	o := h.options()
	fine := y.handler("x")
	o.Ledger, o.Batch, o.Attempts, o.MinBackoff = once.NewMemory(time.Hour), 3, 2, time.Millisecond
	o.DeadLetters = processor.Hub(h.producer("letters"))
	o.Handle = func(ctx context.Context, b processor.Batch) error {
		if slices.ContainsFunc(b.Events, func(e *azeventhubs.ReceivedEventData) bool { return string(e.Body) == bad }) {
			return errors.New("it has no head")
		}
		return fine(ctx, b)
	}
	p, stop := h.start(o)
	y.wait(t)
	stop()
	c, err := h.consumer("letters", azeventhubs.DefaultConsumerGroup).NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	letters, err := c.ReceiveEvents(ctx, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := letters[0]
	if string(e.Body) != bad || *e.ContentType != "text/plain" {
		t.Errorf("%q, %s", e.Body, *e.ContentType)
	}
	for name, want := range map[string]any{
		"color": "red", processor.PropertyReason: processor.ReasonAttempts, processor.PropertyDescription: "it has no head",
		processor.PropertySource: h.ns + "/orders", processor.PropertyConsumerGroup: "$Default", processor.PropertyPartition: "1",
		processor.PropertySequenceNumber: int64(2), processor.PropertyOffset: "2", processor.PropertyAttempts: int64(2),
	} {
		if e.Properties[name] != want {
			t.Errorf("%s is %v, not %v", name, e.Properties[name], want)
		}
	}
	if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(e.Properties[processor.PropertyEnqueuedTime])); err != nil || time.Since(at) > time.Hour {
		t.Errorf("%s is %v", processor.PropertyEnqueuedTime, e.Properties[processor.PropertyEnqueuedTime])
	}
	delete(h.sent, bad)
	y.once(h)
	if got := p.Stats(); got.Parked != 1 {
		t.Errorf("%+v", got)
	}
}

// TestLargeDeadLetter: an event of the largest size is put aside without its body.
func TestLargeDeadLetter(t *testing.T) {
	h := newHub(t)
	producer := h.producer("letters")
	batch, err := producer.NewEventDataBatch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var size int
	for size = 1 << 20; size > 0; size-- {
		if err = batch.AddEventData(&azeventhubs.EventData{Body: make([]byte, size)}, nil); err == nil {
			break
		} else if !errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
			t.Fatal(err)
		}
	}
	e := &azeventhubs.ReceivedEventData{SequenceNumber: 1, Offset: "1"}
	e.RawAMQPMessage = &azeventhubs.AMQPAnnotatedMessage{Body: azeventhubs.AMQPAnnotatedMessageBody{Data: [][]byte{make([]byte, size)}}}
	d := processor.DeadLetter{Event: e, Stream: once.Stream{Namespace: "n", Hub: "h", Group: "g", Partition: "0"}, Err: errors.New(strings.Repeat("é", 1000)), Attempts: 1}
	if err := processor.Hub(producer).Park(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	c, err := h.consumer("letters", azeventhubs.DefaultConsumerGroup).NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	letters, err := c.ReceiveEvents(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := letters[0].Properties; got[processor.PropertyOmitted] != int64(size) || got[processor.PropertyDescription] != strings.Repeat("é", 512) {
		t.Errorf("%v", got)
	}
}

// TestMistakes: what no patience helps against ends Run.
func TestMistakes(t *testing.T) {
	h := newHub(t)
	for want, try := range map[string]func() (*azeventhubs.ConsumerClient, processor.Options){
		`has no partition "9"; it has 0, 1, 2, 3`: func() (*azeventhubs.ConsumerClient, processor.Options) {
			o := h.options()
			o.Partitions = []string{"9"}
			return h.consumer(h.name, o.Group), o
		},
		"could not be found": func() (*azeventhubs.ConsumerClient, processor.Options) {
			return h.consumer("nothing", azeventhubs.DefaultConsumerGroup), h.options()
		},
		"the Options say elsewhere": func() (*azeventhubs.ConsumerClient, processor.Options) {
			o := h.options()
			o.Namespace = "elsewhere"
			return h.consumer(h.name, o.Group), o
		},
		"partition 1: ": func() (*azeventhubs.ConsumerClient, processor.Options) {
			o := h.options()
			o.Group, o.Partitions = "nobody", []string{"1"}
			return h.consumer(h.name, o.Group), o
		},
		"no partition can be opened: ": func() (*azeventhubs.ConsumerClient, processor.Options) {
			o := h.options()
			o.Group = "nobody"
			return h.consumer(h.name, o.Group), o
		},
	} {
		client, o := try()
		o.Handle = func(context.Context, processor.Batch) error { return nil }
		p, err := processor.New(client, h.store(), o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Run(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
		cancel()
	}
}

// TestTaken: a partition that is read alone, and that another reader of the group has with
// an owner level, ends Run, whether that was there before or comes later.
func TestTaken(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			h := newHub(t)
			h.send(1)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			taking := func() {
				c, err := h.consumer(h.name, azeventhubs.DefaultConsumerGroup).NewPartitionClient("0", &azeventhubs.PartitionClientOptions{
					OwnerLevel: new(int64(0)), StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close(context.Background()) })
				if _, err := c.ReceiveEvents(ctx, 1, nil); err != nil {
					t.Fatal(err)
				}
			}
			if before {
				taking()
			}
			client, err := azeventhubs.NewConsumerClientFromConnectionString(h.broker.ConnectionString(), h.name, azeventhubs.DefaultConsumerGroup,
				&azeventhubs.ConsumerClientOptions{RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1}})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close(context.Background())
			y := newTally(1)
			o := h.options()
			o.Partitions, o.Handle = []string{"0"}, y.handler("alone")
			p, err := processor.New(client, nil, o)
			if err != nil {
				t.Fatal(err)
			}
			over := make(chan error, 1)
			go func() { over <- p.Run(ctx) }()
			if !before {
				y.wait(t)
				taking()
			}
			if err := <-over; err == nil || !strings.Contains(err.Error(), "amqp:link:stolen") && !strings.Contains(err.Error(), "ownership") {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// TestOddDeadLetters: bodies that are no bytes, or several, come to the other hub as they
// were, and so do the types of properties and annotations.
func TestOddDeadLetters(t *testing.T) {
	h := newHub(t)
	odd := []*azeventhubs.AMQPAnnotatedMessage{
		{Body: azeventhubs.AMQPAnnotatedMessageBody{Value: map[string]any{"a": int64(1)}}},
		{Body: azeventhubs.AMQPAnnotatedMessageBody{Sequence: [][]any{{int32(1), "two"}}}},
		{Body: azeventhubs.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("one"), []byte("two")}}, ApplicationProperties: map[string]any{"u": uint16(3)}, MessageAnnotations: map[any]any{"x-mine": "kept"}},
	}
	p := h.producer(h.name)
	batch, err := p.NewEventDataBatch(t.Context(), &azeventhubs.EventDataBatchOptions{PartitionKey: new("key")})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range odd {
		if err := batch.AddAMQPAnnotatedMessage(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.SendEventDataBatch(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	o := h.options()
	o.Limit, o.DeadLetters = len(odd), processor.Hub(h.producer("letters"))
	o.Handle = func(context.Context, processor.Batch) error {
		return &processor.PoisonError{Err: errors.New("no")}
	}
	consumer, err := processor.New(h.consumer(h.name, o.Group), h.store(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := consumer.Run(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := h.consumer("letters", azeventhubs.DefaultConsumerGroup).NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	letters, err := c.ReceiveEvents(ctx, len(odd), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range letters {
		if !reflect.DeepEqual(e.RawAMQPMessage.Body, odd[i].Body) || e.PartitionKey == nil || *e.PartitionKey != "key" || e.Properties[processor.PropertyReason] != processor.ReasonPermanent {
			t.Errorf("%d: %+v of %v", i, e.RawAMQPMessage.Body, e.Properties)
		}
	}
	if last := letters[2]; last.Properties["u"] != uint16(3) || last.RawAMQPMessage.MessageAnnotations["x-mine"] != "kept" {
		t.Errorf("%v, %v", last.Properties, last.RawAMQPMessage.MessageAnnotations)
	}
}
