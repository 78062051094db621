package amqp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	eh "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/hub"
)

// TestSendAndReceive is the thinnest slice: the SDK sends, the SDK receives.
func TestSendAndReceive(t *testing.T) {
	b := start(t)
	b.hub("h", 2)
	p := b.producer("h")
	props, err := p.GetEventHubProperties(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if props.Name != "h" || fmt.Sprint(props.PartitionIDs) != "[0 1]" || time.Since(props.CreatedOn) > time.Hour {
		t.Errorf("%+v", props)
	}
	b.send(p, "1", "one", "two")
	b.send(p, "1", "three")
	evs := b.receive(b.consumer("h"), "1", earliest(), 3)
	for i, want := range []string{"one", "two", "three"} {
		if e := evs[i]; string(e.Body) != want || e.SequenceNumber != int64(i) || e.Offset != fmt.Sprint(i) || e.EnqueuedTime == nil {
			t.Errorf("event %d: %q, number %d, offset %s", i, e.Body, e.SequenceNumber, e.Offset)
		}
	}
	pp, err := p.GetPartitionProperties(t.Context(), "1", nil)
	if err != nil || pp.LastEnqueuedSequenceNumber != 2 || pp.LastEnqueuedOffset != "2" || pp.IsEmpty || pp.BeginningSequenceNumber != 0 {
		t.Errorf("%+v, %v", pp, err)
	}
	if pp, err = p.GetPartitionProperties(t.Context(), "0", nil); err != nil || !pp.IsEmpty || pp.LastEnqueuedSequenceNumber != -1 || pp.LastEnqueuedOn.Year() != 1 {
		t.Errorf("%+v, %v", pp, err)
	}
}

// TestLargeEvents sends an event that takes many frames, both ways.
func TestLargeEvents(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producer("h")
	big := bytes.Repeat([]byte("0123456789"), 90_000)
	b.send(p, "0", "before")
	b.send(p, "0", string(big))
	b.send(p, "0", "after")
	var many []string
	for i := range 900 {
		many = append(many, fmt.Sprintf("%d:%s", i, bytes.Repeat([]byte("x"), 1000)))
	}
	b.send(p, "0", many...)
	evs := b.receive(b.consumer("h"), "0", earliest(), 3+len(many))
	if string(evs[0].Body) != "before" || !bytes.Equal(evs[1].Body, big) || string(evs[2].Body) != "after" {
		t.Error("the events are not what was sent")
	}
	for i, want := range many {
		if string(evs[3+i].Body) != want {
			t.Fatalf("event %d: %.40q", i, evs[3+i].Body)
		}
	}
}

// TestRoutes sends by key and by turn.
func TestRoutes(t *testing.T) {
	b := start(t)
	h := b.hub("h", 4)
	p := b.producer("h")
	for _, key := range []string{"alphabet", "TheBestParitionEver", "7"} {
		batch, err := p.NewEventDataBatch(t.Context(), &eh.EventDataBatchOptions{PartitionKey: &key})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := batch.AddEventData(&eh.EventData{Body: fmt.Appendf(nil, "%s%d", key, i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		at := h.ForKey(key)
		before, err := at.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.SendEventDataBatch(t.Context(), batch, nil); err != nil {
			t.Fatal(err)
		}
		n := int64(before.Next)
		evs := b.receive(b.consumer("h"), fmt.Sprint(at.Index()),
			&eh.PartitionClientOptions{StartPosition: eh.StartPosition{SequenceNumber: &n, Inclusive: true}}, 3)
		for i, e := range evs {
			if e.PartitionKey == nil || *e.PartitionKey != key || string(e.Body) != fmt.Sprintf("%s%d", key, i) {
				t.Errorf("key %s, event %d: %q with key %v", key, i, e.Body, e.PartitionKey)
			}
		}
	}
	before := map[int]hub.Info{}
	for i := range 4 {
		before[i], _ = h.At(i).Info(t.Context())
	}
	for range 8 {
		b.send(p, "", "x")
	}
	for i := range 4 {
		if now, err := h.At(i).Info(t.Context()); err != nil || now.Next != before[i].Next+2 {
			t.Errorf("partition %d got %d of 8 batches, %v", i, now.Next-before[i].Next, err)
		}
	}
}

// TestStartPositions has every form of start that the SDK has.
func TestStartPositions(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p, c := b.producer("h"), b.consumer("h")
	var mid time.Time
	for i := range 10 {
		if i == 5 {
			time.Sleep(5 * time.Millisecond) // so that a time lies between
			mid = time.Now()
			time.Sleep(5 * time.Millisecond)
		}
		b.send(p, "0", fmt.Sprint(i))
	}
	yes, seq, off, last, lastOff := true, int64(3), "3", int64(9), "9"
	minusOne := int64(-1)
	for _, x := range []struct {
		name string
		pos  eh.StartPosition
		want int // the first event, -1 for the next to come
	}{
		{"earliest", eh.StartPosition{Earliest: &yes}, 0},
		{"sequence number", eh.StartPosition{SequenceNumber: &seq}, 4},
		{"sequence number inclusive", eh.StartPosition{SequenceNumber: &seq, Inclusive: true}, 3},
		{"sequence number -1", eh.StartPosition{SequenceNumber: &minusOne}, 0},
		{"offset", eh.StartPosition{Offset: &off}, 4},
		{"offset inclusive", eh.StartPosition{Offset: &off, Inclusive: true}, 3},
		{"enqueued time", eh.StartPosition{EnqueuedTime: &mid}, 5},
		{"latest", eh.StartPosition{Latest: &yes}, -1},
		{"after the last sequence number", eh.StartPosition{SequenceNumber: &last}, -1},
		{"after the last offset", eh.StartPosition{Offset: &lastOff}, -1},
	} {
		t.Run(x.name, func(t *testing.T) {
			pc, err := c.NewPartitionClient("0", &eh.PartitionClientOptions{StartPosition: x.pos})
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close(context.Background())
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			want := fmt.Sprint(x.want)
			if x.want < 0 { // the link must be there before the next event is sent
				short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
				evs, err := pc.ReceiveEvents(short, 1, nil)
				stop()
				if len(evs) > 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%d events, %v", len(evs), err)
				}
				want = "next of " + x.name
				b.send(p, "0", want)
				defer func() { last++; lastOff = fmt.Sprint(last) }()
			}
			evs, err := pc.ReceiveEvents(ctx, 1, nil)
			if err != nil || string(evs[0].Body) != want {
				t.Fatalf("got %v, %v; want %s", evs, err, want)
			}
		})
	}
	far := int64(1000)
	_, err := receiveOne(t, c, eh.StartPosition{SequenceNumber: &far})
	if err == nil {
		t.Error("a position beyond the end was accepted")
	}
}

func receiveOne(t *testing.T, c *eh.ConsumerClient, pos eh.StartPosition) (*eh.ReceivedEventData, error) {
	t.Helper()
	pc, err := c.NewPartitionClient("0", &eh.PartitionClientOptions{StartPosition: pos})
	if err != nil {
		return nil, err
	}
	defer pc.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	evs, err := pc.ReceiveEvents(ctx, 1, nil)
	if err != nil {
		return nil, err
	}
	return evs[0], nil
}

// TestProperties sends each type of property and gets it back.
func TestProperties(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producer("h")
	now := time.Now().UTC().Truncate(time.Millisecond)
	ct, cid := "text/x", any("correlation")
	mid := "message"
	props := map[string]any{"string": "s", "int32": int32(-5), "int64": int64(1) << 40, "uint8": uint8(9), "bool": true,
		"float": float32(1.5), "double": 2.5, "time": now, "bytes": []byte{1, 2}, "nil": nil}
	batch, err := p.NewEventDataBatch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := batch.AddEventData(&eh.EventData{Body: []byte{}, Properties: props, ContentType: &ct, CorrelationID: cid, MessageID: &mid}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.SendEventDataBatch(t.Context(), batch, nil); err != nil {
		t.Fatal(err)
	}
	e := b.receive(b.consumer("h"), "0", earliest(), 1)[0]
	if len(e.Body) != 0 || *e.ContentType != ct || e.CorrelationID != cid || *e.MessageID != mid {
		t.Errorf("%+v", e)
	}
	for k, want := range props {
		if got := e.Properties[k]; fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", want, want) {
			t.Errorf("property %s is %T %v, want %T %v", k, got, got, want, want)
		}
	}
}

// TestRefusals has the errors that a user of the SDK sees.
func TestRefusals(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	retry := eh.RetryOptions{MaxRetries: -1}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	send := func(cs, hubName, partition string) error {
		p, err := eh.NewProducerClientFromConnectionString(cs, hubName, &eh.ProducerClientOptions{RetryOptions: retry})
		if err != nil {
			return err
		}
		defer p.Close(context.Background())
		o := &eh.EventDataBatchOptions{}
		if partition != "" {
			o.PartitionID = &partition
		}
		_, err = p.NewEventDataBatch(ctx, o)
		return err
	}
	receive := func(cs, hubName, group, partition string) error {
		c, err := eh.NewConsumerClientFromConnectionString(cs, hubName, group, &eh.ConsumerClientOptions{RetryOptions: retry})
		if err != nil {
			return err
		}
		defer c.Close(context.Background())
		pc, err := c.NewPartitionClient(partition, earliest())
		if err != nil {
			return err
		}
		defer pc.Close(context.Background())
		short, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		_, err = pc.ReceiveEvents(short, 1, nil)
		return err
	}
	good := b.connectionString()
	unauthorized := func(err error) bool {
		var e *eh.Error
		return errors.As(err, &e) && e.Code == eh.ErrorCodeUnauthorizedAccess
	}
	text := func(parts ...string) func(error) bool {
		return func(err error) bool {
			for _, p := range parts {
				if !strings.Contains(err.Error(), p) {
					return false
				}
			}
			return true
		}
	}
	for _, x := range []struct {
		name string
		err  error
		is   func(error) bool
	}{
		{"a wrong key", send(b.connectionStringOf(rootRule, "wrong"), "h", ""), unauthorized},
		{"an unknown rule", send(b.connectionStringOf("nobody", "wrong"), "h", ""), unauthorized},
		{"an unknown hub", send(good, "nope", ""), text("404", "The messaging entity 'sb://localhost/nope' could not be found.")},
		{"an unknown group", receive(good, "h", "nope", "0"), text("404", "The messaging entity 'sb://localhost/h/consumergroups/nope' could not be found.")},
		{"partition 7 of 1 to send to", send(good, "h", "7"), text("com.microsoft:argument-out-of-range", "between 0 and 0")},
		{"partition 7 of 1 to receive from", receive(good, "h", "$Default", "7"), text("com.microsoft:argument-out-of-range")},
		{"a key that listens only", send(b.connectionStringOf("listen", "l"), "h", ""), text("amqp:unauthorized-access", "Unauthorized access. 'Send' claim(s) are required to perform this operation. Resource: 'sb://localhost/h'. TrackingId:")},
		{"a key that sends only", receive(b.connectionStringOf("send", "s"), "h", "$Default", "0"), text("amqp:unauthorized-access", "Unauthorized access. 'Listen' claim(s) are required")},
	} {
		if x.err == nil || !x.is(x.err) {
			t.Errorf("%s: %v", x.name, x.err)
		}
	}
	p := b.producer("h")
	batch, err := p.NewEventDataBatch(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := batch.AddEventData(&eh.EventData{Body: make([]byte, 1<<20)}, nil); !errors.Is(err, eh.ErrEventDataTooLarge) {
		t.Errorf("an event of 1 MiB: %v", err)
	}
}

// TestEpochs is the matrix of owner levels (amqp.md 5.6).
func TestEpochs(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producer("h")
	b.send(p, "0", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	attach := func(epoch *int64) (*eh.PartitionClient, error) {
		c, err := eh.NewConsumerClientFromConnectionString(b.connectionString(), "h", "$Default",
			&eh.ConsumerClientOptions{RetryOptions: eh.RetryOptions{MaxRetries: -1}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		o := earliest()
		o.OwnerLevel = epoch
		pc, err := c.NewPartitionClient("0", o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pc.ReceiveEvents(ctx, 1, nil)
		return pc, err
	}
	lost := func(pc *eh.PartitionClient) bool {
		_, err := pc.ReceiveEvents(ctx, 1, nil)
		var e *eh.Error
		return errors.As(err, &e) && e.Code == eh.ErrorCodeOwnershipLost
	}
	one, two := int64(1), int64(2)
	plain, err := attach(nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := attach(&one)
	if err != nil {
		t.Fatal(err)
	}
	if !lost(plain) {
		t.Error("a receiver without epoch did not lose its place to one with")
	}
	second, err := attach(&one)
	if err != nil {
		t.Fatal(err)
	}
	if !lost(first) {
		t.Error("of equal epochs the last did not win")
	}
	third, err := attach(&two)
	if err != nil {
		t.Fatal(err)
	}
	if !lost(second) {
		t.Error("the higher epoch did not win")
	}
	for _, e := range []*int64{&one, nil} {
		if _, err := attach(e); err == nil || !strings.Contains(err.Error(), "amqp:link:stolen") {
			t.Errorf("a lower epoch: %v", err)
		}
	}
	third.Close(ctx)
	if _, err := attach(nil); err != nil {
		t.Errorf("after the owner has left: %v", err)
	}
}

// TestSixthReceiver: five receivers without epoch, and no more.
func TestSixthReceiver(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	b.send(b.producer("h"), "0", "x")
	for i := range 6 {
		c, err := eh.NewConsumerClientFromConnectionString(b.connectionString(), "h", "$Default",
			&eh.ConsumerClientOptions{RetryOptions: eh.RetryOptions{MaxRetries: -1}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		_, err = receiveOneKeep(t, c)
		if i < 5 && err != nil {
			t.Errorf("receiver %d: %v", i, err)
		}
		if i == 5 && (err == nil || !strings.Contains(err.Error(), "Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5")) {
			t.Errorf("the sixth receiver: %v", err)
		}
	}
}

func receiveOneKeep(t *testing.T, c *eh.ConsumerClient) (*eh.ReceivedEventData, error) {
	t.Helper()
	pc, err := c.NewPartitionClient("0", earliest())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { pc.Close(context.Background()) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	evs, err := pc.ReceiveEvents(ctx, 1, nil)
	if err != nil {
		return nil, err
	}
	return evs[0], nil
}

// TestRestart stops the broker while a consumer reads and a producer sends: both
// go on by themselves, and nothing is lost or out of order.
func TestRestart(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producer("h")
	c := b.consumer("h")
	pc, err := c.NewPartitionClient("0", earliest())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const total = 300
	go func() {
		part := "0"
		for i := range total {
			for {
				batch, err := p.NewEventDataBatch(ctx, &eh.EventDataBatchOptions{PartitionID: &part})
				if err == nil {
					err = batch.AddEventData(&eh.EventData{Body: fmt.Append(nil, i)}, nil)
				}
				if err == nil {
					err = p.SendEventDataBatch(ctx, batch, nil)
				}
				if err == nil || ctx.Err() != nil {
					break
				}
			}
		}
	}()
	next, restarts := 0, 0
	for next < total {
		evs, err := pc.ReceiveEvents(ctx, 50, nil)
		for _, e := range evs {
			var n int
			fmt.Sscan(string(e.Body), &n)
			if n > next {
				t.Fatalf("event %d comes after %d", n, next-1)
			}
			next = max(next, n+1) // a send in flight at a stop may be there twice
		}
		if err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
		if next > 60*(restarts+1) && restarts < 3 {
			restarts++
			addr := b.addr
			b.down()
			b.up(addr)
		}
	}
	if restarts != 3 {
		t.Errorf("%d restarts", restarts)
	}
}

// TestManyAtOnce: producers and consumers of many partitions over shared
// connections; every event arrives once, in its producer's order.
func TestManyAtOnce(t *testing.T) {
	b := start(t)
	const parts, each = 8, 400
	b.hub("h", parts)
	p, c := b.producer("h"), b.consumer("h")
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() {
			part := fmt.Sprint(i)
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for n := 0; n < each; {
				batch, err := p.NewEventDataBatch(t.Context(), &eh.EventDataBatchOptions{PartitionID: &part})
				if err != nil {
					t.Error(err)
					return
				}
				for range 1 + rng.IntN(50) {
					if n < each && batch.AddEventData(&eh.EventData{Body: fmt.Appendf(nil, "%d %s", n, make([]byte, rng.IntN(3000)))}, nil) == nil {
						n++
					}
				}
				if err := p.SendEventDataBatch(t.Context(), batch, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			pc, err := c.NewPartitionClient(fmt.Sprint(i), earliest())
			if err != nil {
				t.Error(err)
				return
			}
			defer pc.Close(context.Background())
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for n := 0; n < each; {
				evs, err := pc.ReceiveEvents(ctx, 100, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range evs {
					var got int
					fmt.Sscan(string(e.Body), &got)
					if got != n || e.SequenceNumber != int64(n) {
						t.Errorf("partition %d: event %d has number %d, want %d", i, got, e.SequenceNumber, n)
						return
					}
					n++
				}
			}
		})
	}
	wg.Wait()
}
