package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// reconnectAfter is the pause before a lost connection is tried again.
const reconnectAfter = time.Second

// lost tells whether an error is worth waiting for the broker to come back.
func lost(err error) bool {
	var e *azeventhubs.Error
	return errors.As(err, &e) && e.Code == azeventhubs.ErrorCodeConnectionLost
}

// pinned receives from one partition, after its checkpoint if there is one. It
// claims nothing: another receiver may do the same.
func (r *receiver) pinned(ctx context.Context, partition string) error {
	start, err := r.startOf(ctx, partition)
	if err != nil {
		return err
	}
	checkpoint := func(ctx context.Context, e *azeventhubs.ReceivedEventData) error {
		if r.store == nil {
			return nil
		}
		return r.store.SetCheckpoint(ctx, azeventhubs.Checkpoint{
			FullyQualifiedNamespace: r.namespace, EventHubName: r.hub, ConsumerGroup: r.group, PartitionID: partition,
			Offset: &e.Offset, SequenceNumber: &e.SequenceNumber,
		}, nil)
	}
	for {
		last, err := r.readOnce(ctx, partition, start, checkpoint)
		if last != nil {
			start = azeventhubs.StartPosition{SequenceNumber: &last.SequenceNumber}
		}
		if !lost(err) {
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("partition %s: %w", partition, explain(err))
			}
			return err
		}
		r.note("partition %s: %v; trying again", partition, explain(err))
		if err := pause(ctx, reconnectAfter); err != nil {
			return err
		}
	}
}

func (r *receiver) readOnce(ctx context.Context, partition string, start azeventhubs.StartPosition, checkpoint func(context.Context, *azeventhubs.ReceivedEventData) error) (*azeventhubs.ReceivedEventData, error) {
	c, err := r.client.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: start})
	if err != nil {
		return nil, err
	}
	defer goodbye(c)
	return r.drain(ctx, partition, c, checkpoint)
}

// startOf is where to start in a partition.
func (r *receiver) startOf(ctx context.Context, partition string) (azeventhubs.StartPosition, error) {
	if r.store == nil {
		return r.from, nil
	}
	all, err := r.store.ListCheckpoints(ctx, r.namespace, r.hub, r.group, nil)
	if err != nil {
		return r.from, fmt.Errorf("the checkpoints can't be read: %w", explain(err))
	}
	for _, c := range all {
		switch {
		case c.PartitionID != partition:
		case c.Offset != nil:
			r.note("partition %s: going on after the checkpoint at offset %s", partition, *c.Offset)
			return azeventhubs.StartPosition{Offset: c.Offset}, nil
		case c.SequenceNumber != nil:
			r.note("partition %s: going on after the checkpoint at sequence number %d", partition, *c.SequenceNumber)
			return azeventhubs.StartPosition{SequenceNumber: c.SequenceNumber}, nil
		}
	}
	return r.from, nil
}

// all receives from every partition, without checkpoints, until one fails.
func (r *receiver) all(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	for _, p := range r.partitions {
		readers.Go(func() {
			if err := r.pinned(ctx, p); err != nil {
				cancel(err)
			}
		})
	}
	readers.Wait()
	return context.Cause(ctx)
}
