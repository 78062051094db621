package main

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// producer is what sends batches: the SDK's, or one whose batches are stored once.
// A batch is sent, or dropped, before the next is begun.
type producer interface {
	// begin begins a batch for a goal; the zero goal is for the broker to choose.
	begin(ctx context.Context, to goal) (batch, error)
	// send sends a batch, and returns once it is acknowledged.
	send(ctx context.Context, b batch) error
	Close(ctx context.Context) error
}

// batch is a batch that is being filled.
type batch interface {
	// add adds an event, or returns azeventhubs.ErrEventDataTooLarge.
	add(e *azeventhubs.EventData) error
	// events is how many it holds.
	events() int
}

// sdkProducer sends as azeventhubs does, which sends a batch again when its
// acknowledgement is lost: it is then stored twice.
type sdkProducer struct{ *azeventhubs.ProducerClient }

type sdkBatch struct{ *azeventhubs.EventDataBatch }

func (b sdkBatch) add(e *azeventhubs.EventData) error { return b.AddEventData(e, nil) }
func (b sdkBatch) events() int                        { return int(b.NumEvents()) }

func (p sdkProducer) begin(ctx context.Context, to goal) (batch, error) {
	o := &azeventhubs.EventDataBatchOptions{}
	switch {
	case to.key != "":
		o.PartitionKey = &to.key
	case to.partition != "":
		o.PartitionID = &to.partition
	}
	b, err := p.NewEventDataBatch(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("a batch can't be begun: %w", explain(err))
	}
	return sdkBatch{b}, nil
}

func (p sdkProducer) send(ctx context.Context, b batch) error {
	// An interrupt leaves no batch of which nobody knows whether it was stored.
	if err := p.SendEventDataBatch(context.WithoutCancel(ctx), b.(sdkBatch).EventDataBatch, nil); err != nil {
		return fmt.Errorf("a batch of %s was not acknowledged: %w", count(b.events(), "event"), explain(err))
	}
	return nil
}
