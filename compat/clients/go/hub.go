package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// partitions is how many partitions the hub of each case has.
const partitions = 4

// receiveTimeout is how long an event may take to arrive that is there.
const receiveTimeout = 20 * time.Second

// hub is the event hub of a case, with the clients that the case opened on it.
type hub struct {
	name       string
	connection string
	retry      eventhubs.RetryOptions

	shared  *eventhubs.ProducerClient
	reader  *eventhubs.ConsumerClient
	closers []func(context.Context) error
}

// close closes what is still open, the last opened first.
func (h *hub) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for i := len(h.closers) - 1; i >= 0; i-- {
		h.closers[i](ctx) //nolint:errcheck // the case is over
	}
}

// producer is the hub's producer.
func (h *hub) producer() (*eventhubs.ProducerClient, error) {
	if h.shared != nil {
		return h.shared, nil
	}
	p, err := eventhubs.NewProducerClientFromConnectionString(h.connection, h.name, &eventhubs.ProducerClientOptions{RetryOptions: h.retry})
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, p.Close)
	h.shared = p
	return p, nil
}

// consumer is the hub's consumer in the default group.
func (h *hub) consumer() (*eventhubs.ConsumerClient, error) {
	if h.reader != nil {
		return h.reader, nil
	}
	c, err := h.newConsumer(eventhubs.DefaultConsumerGroup)
	h.reader = c
	return c, err
}

// newConsumer opens a consumer on a connection of its own.
func (h *hub) newConsumer(group string) (*eventhubs.ConsumerClient, error) {
	c, err := eventhubs.NewConsumerClientFromConnectionString(h.connection, h.name, group, &eventhubs.ConsumerClientOptions{RetryOptions: h.retry})
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, c.Close)
	return c, nil
}

// target says where a batch goes.
type target = eventhubs.EventDataBatchOptions

func toPartition(id int) *target         { return &target{PartitionID: new(strconv.Itoa(id))} }
func withKey(key string) *target         { return &target{PartitionKey: new(key)} }
func text(s string) *eventhubs.EventData { return &eventhubs.EventData{Body: []byte(s)} }

// send sends events as one batch.
func (h *hub) send(ctx context.Context, where *target, events ...*eventhubs.EventData) error {
	return h.sendWith(ctx, where, func(b *eventhubs.EventDataBatch) error {
		for _, e := range events {
			if err := b.AddEventData(e, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// sendRaw sends messages as one batch.
func (h *hub) sendRaw(ctx context.Context, where *target, messages ...*eventhubs.AMQPAnnotatedMessage) error {
	return h.sendWith(ctx, where, func(b *eventhubs.EventDataBatch) error {
		for _, m := range messages {
			if err := b.AddAMQPAnnotatedMessage(m, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *hub) sendWith(ctx context.Context, where *target, fill func(*eventhubs.EventDataBatch) error) error {
	p, err := h.producer()
	if err != nil {
		return err
	}
	b, err := p.NewEventDataBatch(ctx, where)
	if err != nil {
		return err
	}
	if err := fill(b); err != nil {
		return err
	}
	return p.SendEventDataBatch(ctx, b, nil)
}

// open opens a receiver on a partition. The SDK attaches it with the first read.
func (h *hub) open(partition string, options *eventhubs.PartitionClientOptions) (*eventhubs.PartitionClient, error) {
	c, err := h.consumer()
	if err != nil {
		return nil, err
	}
	return h.openWith(c, partition, options)
}

func (h *hub) openWith(c *eventhubs.ConsumerClient, partition string, options *eventhubs.PartitionClientOptions) (*eventhubs.PartitionClient, error) {
	r, err := c.NewPartitionClient(partition, options)
	if err != nil {
		return nil, err
	}
	h.closers = append(h.closers, r.Close)
	return r, nil
}

// from is a receiver's options that start it somewhere.
func from(p eventhubs.StartPosition) *eventhubs.PartitionClientOptions {
	return &eventhubs.PartitionClientOptions{StartPosition: p}
}

var earliest = eventhubs.StartPosition{Earliest: new(true)}

// next receives exactly n events, or fails.
func next(ctx context.Context, r *eventhubs.PartitionClient, n int) ([]*eventhubs.ReceivedEventData, error) {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	var events []*eventhubs.ReceivedEventData
	for len(events) < n {
		got, err := r.ReceiveEvents(ctx, n-len(events), nil)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d events: %w", len(events), n, err)
		}
		events = append(events, got...)
	}
	return events, nil
}

// silent fails if an event arrives within d.
func silent(ctx context.Context, r *eventhubs.PartitionClient, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	got, err := r.ReceiveEvents(ctx, 1, nil)
	if len(got) > 0 {
		return fmt.Errorf("event %d arrived, %q, where none was due", got[0].SequenceNumber, got[0].Body)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("waiting in vain ended with %w", err)
	}
	return nil
}

// all receives every event of a partition, as its properties count them, and
// checks that sequence numbers have no gap, offsets grow and time never runs
// backwards.
func (h *hub) all(ctx context.Context, partition int) ([]*eventhubs.ReceivedEventData, error) {
	id := strconv.Itoa(partition)
	c, err := h.consumer()
	if err != nil {
		return nil, err
	}
	p, err := c.GetPartitionProperties(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	if p.IsEmpty {
		return nil, nil
	}
	r, err := h.open(id, from(earliest))
	if err != nil {
		return nil, err
	}
	defer r.Close(ctx)
	events, err := next(ctx, r, int(p.LastEnqueuedSequenceNumber-p.BeginningSequenceNumber+1))
	if err != nil {
		return nil, err
	}
	lastOffset := int64(-1)
	for i, e := range events {
		if want := p.BeginningSequenceNumber + int64(i); e.SequenceNumber != want {
			return nil, fmt.Errorf("sequence number %d where %d was due", e.SequenceNumber, want)
		}
		offset, err := strconv.ParseInt(e.Offset, 10, 64)
		if err != nil || offset <= lastOffset {
			return nil, fmt.Errorf("offset %q after %d", e.Offset, lastOffset)
		}
		lastOffset = offset
		if e.EnqueuedTime == nil || time.Since(*e.EnqueuedTime).Abs() > 5*time.Minute {
			return nil, fmt.Errorf("event %d says it was enqueued at %v", e.SequenceNumber, e.EnqueuedTime)
		}
		if i > 0 && e.EnqueuedTime.Before(*events[i-1].EnqueuedTime) {
			return nil, fmt.Errorf("event %d was enqueued before its predecessor", e.SequenceNumber)
		}
	}
	return events, nil
}

// wantTexts checks the bodies of events, in order.
func wantTexts(events []*eventhubs.ReceivedEventData, want []string) error {
	if len(events) != len(want) {
		return fmt.Errorf("%d events where %d were sent", len(events), len(want))
	}
	for i, e := range events {
		if string(e.Body) != want[i] {
			return fmt.Errorf("event %d is %q, not %q", i, e.Body, want[i])
		}
	}
	return nil
}
