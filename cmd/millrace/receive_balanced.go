package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// balanced shares the partitions with the other receivers of the group, through
// the checkpoint store, until ctx ends. What it owns is then given up, so that
// the others need not wait.
func (r *receiver) balanced(ctx context.Context) error {
	for failures := 0; ; failures++ {
		started := time.Now()
		err := r.balanceOnce(ctx)
		if ctx.Err() != nil || err == nil {
			return ctx.Err()
		}
		if final(err) {
			return explain(err)
		}
		if time.Since(started) > r.expiry {
			failures = 0
		}
		if failures >= balanceRetries {
			return fmt.Errorf("the partitions can't be shared: %w", explain(err))
		}
		// The broker or the storage account is away for a moment.
		r.note("sharing the partitions was interrupted: %v; trying again", explain(err))
		if err := pause(ctx, reconnectAfter); err != nil {
			return err
		}
	}
}

// final tells whether trying again can't help.
func final(err error) bool {
	var output *outputError
	var sdk *azeventhubs.Error
	var remote *amqp.Error
	return errors.As(err, &output) ||
		errors.As(err, &sdk) && sdk.Code == azeventhubs.ErrorCodeUnauthorizedAccess ||
		errors.As(err, &remote) && remote.Condition == amqp.ErrCondNotFound
}

// balanceRetries is how many failures in a row are waited out: with the SDK's
// own retries, several minutes.
const balanceRetries = 60

// balanceOnce runs one of the SDK's processors to its end.
func (r *receiver) balanceOnce(ctx context.Context) error {
	p, err := azeventhubs.NewProcessor(r.client, r.store, &azeventhubs.ProcessorOptions{
		LoadBalancingStrategy:       azeventhubs.ProcessorStrategyGreedy,
		UpdateInterval:              r.balance,
		PartitionExpirationDuration: r.expiry,
		StartPositions:              azeventhubs.StartPositions{Default: r.from},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The processor gives up its partitions when its context ends. That must
	// come after the last checkpoint, so it has a context of its own.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() {
		err := p.Run(running)
		cancel(err)
		ended <- err
	}()
	var readers sync.WaitGroup
	for {
		c := p.NextPartitionClient(ctx)
		if c == nil {
			break
		}
		readers.Go(func() {
			if err := r.own(ctx, c); err != nil {
				cancel(err)
			}
		})
	}
	readers.Wait()
	stop()
	return errors.Join(<-ended, ourFault(context.Cause(ctx)))
}

// ourFault is a cause that is more than an end that was asked for.
func ourFault(cause error) error {
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// own receives from a partition for as long as it is this receiver's. An error
// is one that ends everything.
func (r *receiver) own(ctx context.Context, c *azeventhubs.ProcessorPartitionClient) error {
	id := c.PartitionID()
	r.note("partition %s: claimed", id)
	_, err := r.drain(ctx, id, c, func(ctx context.Context, e *azeventhubs.ReceivedEventData) error {
		return c.UpdateCheckpoint(ctx, e, nil)
	})
	goodbye(c)
	var e *azeventhubs.Error
	switch {
	case ctx.Err() != nil:
		r.note("partition %s: released", id)
	case errors.As(err, &e): // the processor opens it again, if it is still ours
		r.note("partition %s: released: %v", id, explain(err))
	default:
		return err
	}
	return nil
}
