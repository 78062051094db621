package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// errFull says that what is in the outbox has to go first.
var errFull = errors.New("the batches are full")

// Limits of an outbox.
const (
	maxOpenBatches = 256
	maxOpenBytes   = 8 << 20 // of bodies
	sendersAtOnce  = 8
)

// goal is where a batch goes: to a partition, or where a key leads.
type goal struct{ partition, key string }

// outbox keeps the batches that are open, one for each goal, and sends them
// together. What goes to one goal is in order: the batches before are
// acknowledged before it gets another.
type outbox struct {
	client *azeventhubs.ProducerClient
	open   map[goal]*openBatch
	held   int // bytes of bodies
	// acknowledged is told of each batch that is, one at a time.
	acknowledged func(to goal, b *openBatch) error

	events, batches, bytes int // acknowledged
}

type openBatch struct {
	*azeventhubs.EventDataBatch
	keyed bool // the first event has a key
	bytes int
	last  int64 // the sequence number that the last event had
}

// add adds an event. A batch's envelope has the key of the first event, which the
// broker gives to those that have none; so they don't follow one that has.
func (o *outbox) add(ctx context.Context, to goal, e *replayed) error {
	b, keyed, bytes := o.open[to], e.key != "", e.bytes
	switch {
	case b != nil && b.keyed && !keyed, b == nil && len(o.open) == maxOpenBatches, len(o.open) > 0 && o.held+bytes > maxOpenBytes:
		return errFull
	case b == nil:
		options := &azeventhubs.EventDataBatchOptions{}
		if to.key != "" {
			options.PartitionKey = &to.key
		} else {
			options.PartitionID = &to.partition
		}
		batch, err := o.client.NewEventDataBatch(ctx, options)
		if err != nil {
			return fmt.Errorf("a batch can't be begun: %w", explain(err))
		}
		b = &openBatch{EventDataBatch: batch, keyed: keyed}
	}
	if err := b.AddAMQPAnnotatedMessage(e.message, nil); err != nil {
		switch tooLarge := errors.Is(err, azeventhubs.ErrEventDataTooLarge); {
		case tooLarge && b.NumEvents() > 0:
			return errFull
		case tooLarge:
			return fmt.Errorf("its %d bytes are more than an event of this hub may have", bytes)
		}
		return err
	}
	b.bytes += bytes
	b.last = e.sequence
	o.held += bytes
	if o.open == nil {
		o.open = map[goal]*openBatch{}
	}
	o.open[to] = b
	return nil
}

// flush sends the open batches, and tells how many events were acknowledged.
func (o *outbox) flush(ctx context.Context) (n int, err error) {
	// An interrupt leaves no batch of which nobody knows whether it was stored.
	ctx = context.WithoutCancel(ctx)
	var mu sync.Mutex
	var senders sync.WaitGroup
	slots := make(chan struct{}, sendersAtOnce)
	for to, b := range o.open {
		slots <- struct{}{}
		senders.Go(func() {
			defer func() { <-slots }()
			mu.Lock()
			failed := err != nil
			mu.Unlock()
			if failed {
				return
			}
			serr := o.client.SendEventDataBatch(ctx, b.EventDataBatch, nil)
			mu.Lock()
			defer mu.Unlock()
			if serr != nil {
				err = fmt.Errorf("a batch of %s was not acknowledged: %w", count(int(b.NumEvents()), "event"), explain(serr))
				return
			}
			n += int(b.NumEvents())
			o.batches++
			o.bytes += b.bytes
			err = errors.Join(err, o.acknowledged(to, b))
		})
	}
	senders.Wait()
	o.events += n
	clear(o.open)
	o.held = 0
	return n, err
}
