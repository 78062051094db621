package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// sdkLoad measures with the Azure SDK for Go.
type sdkLoad struct {
	*bench
	producer *azeventhubs.ProducerClient
	consumer *azeventhubs.ConsumerClient
}

const (
	// sdkInFlight is how many batches each partition has under way.
	sdkInFlight = 2
	// sdkTake is how many events are asked for at once.
	sdkTake = 300
)

func openSDKLoad(ctx context.Context, b *bench) (*sdkLoad, error) {
	l := &sdkLoad{bench: b}
	var err error
	if l.producer, err = b.target.producer(b.hub); err != nil {
		return nil, err
	}
	if l.consumer, err = b.target.consumer(b.hub, azeventhubs.DefaultConsumerGroup, ""); err != nil {
		return nil, err
	}
	p, err := l.producer.GetEventHubProperties(ctx, nil)
	if err != nil {
		l.close()
		return nil, fmt.Errorf("the event hub %s can't be used: %w", b.hub, explain(err))
	}
	b.partitions = len(p.PartitionIDs)
	return l, nil
}

func (l *sdkLoad) close() {
	bye, cancel := closing()
	defer cancel()
	l.producer.Close(bye) //nolint:errcheck // the measurement is over
	l.consumer.Close(bye) //nolint:errcheck // likewise
}

func (l *sdkLoad) batch(ctx context.Context, partition int) (*azeventhubs.EventDataBatch, error) {
	id := strconv.Itoa(partition)
	return l.producer.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: &id})
}

func (l *sdkLoad) produce(ctx context.Context, n int) error {
	var left atomic.Int64
	left.Store(int64(n))
	return each(ctx, l.partitions*sdkInFlight, func(ctx context.Context, worker int) error {
		partition := worker % l.partitions
		b, err := l.batch(ctx, partition)
		if err != nil {
			return err
		}
		for left.Add(-1) >= 0 {
			e := &azeventhubs.EventData{Body: l.payloads.next()}
			err := b.AddEventData(e, nil)
			if errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
				if err := l.producer.SendEventDataBatch(ctx, b, nil); err != nil {
					return err
				}
				if b, err = l.batch(ctx, partition); err != nil {
					return err
				}
				err = b.AddEventData(e, nil)
			}
			if err != nil {
				return err
			}
		}
		if b.NumEvents() == 0 {
			return nil
		}
		return l.producer.SendEventDataBatch(ctx, b, nil)
	})
}

// each runs a function for each worker, and ends all with the first error.
func each(ctx context.Context, workers int, do func(ctx context.Context, worker int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			if err := do(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// reader opens a partition.
func (l *sdkLoad) reader(partition int, start azeventhubs.StartPosition) (*azeventhubs.PartitionClient, error) {
	return l.consumer.NewPartitionClient(strconv.Itoa(partition), &azeventhubs.PartitionClientOptions{StartPosition: start})
}

// errEnough ends a consumption.
var errEnough = errors.New("enough events")

func (l *sdkLoad) consume(ctx context.Context, n int) error {
	var got atomic.Int64
	err := each(ctx, l.partitions, func(ctx context.Context, partition int) error {
		props, err := l.producer.GetPartitionProperties(ctx, strconv.Itoa(partition), nil)
		if err != nil || props.IsEmpty {
			return err
		}
		earliest := true
		r, err := l.reader(partition, azeventhubs.StartPosition{Earliest: &earliest})
		if err != nil {
			return err
		}
		defer hangUp(r)
		// The SDK waits until it has all that it is asked for.
		for left := props.LastEnqueuedSequenceNumber - props.BeginningSequenceNumber + 1; left > 0; {
			events, err := r.ReceiveEvents(ctx, int(min(left, sdkTake)), nil)
			left -= int64(len(events))
			if got.Add(int64(len(events))) >= int64(n) {
				return errEnough
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err == nil:
		return fmt.Errorf("the event hub holds %d events, and %d were to be consumed; produce more, or ask for fewer with --events", got.Load(), n)
	}
	return err
}

func (l *sdkLoad) latency(ctx context.Context) (ack, arrival []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var acks, arrivals durations
	listening, err := l.listen(ctx, &arrivals)
	if err != nil {
		return nil, nil, err
	}
	var sending sync.WaitGroup
	failed := make(chan error, 1)
	total := pace(ctx, l.rate, l.duration, func(i int, due time.Time) {
		sending.Go(func() {
			if err := l.sendStamped(ctx, i%l.partitions, due); err != nil {
				select {
				case failed <- err:
				default:
				}
				return
			}
			acks.add(time.Since(due))
		})
	})
	sending.Wait()
	select {
	case err := <-failed:
		return nil, nil, err
	default:
	}
	awaitAll(ctx, &arrivals, total)
	cancel()
	listening.Wait()
	return acks.take(), arrivals.take(), nil
}

func (l *sdkLoad) sendStamped(ctx context.Context, partition int, due time.Time) error {
	b, err := l.batch(ctx, partition)
	if err != nil {
		return err
	}
	if err := b.AddEventData(&azeventhubs.EventData{Body: l.payloads.stamped(due)}, nil); err != nil {
		return err
	}
	return l.producer.SendEventDataBatch(ctx, b, nil)
}

// listen receives what comes from now on, on every partition. It sends and waits
// for an event on each first, so that everybody is connected when it returns.
func (l *sdkLoad) listen(ctx context.Context, arrivals *durations) (*sync.WaitGroup, error) {
	var wg sync.WaitGroup
	for partition := range l.partitions {
		id := strconv.Itoa(partition)
		props, err := l.producer.GetPartitionProperties(ctx, id, nil)
		if err != nil {
			return nil, err
		}
		r, err := l.reader(partition, azeventhubs.StartPosition{SequenceNumber: &props.LastEnqueuedSequenceNumber})
		if err != nil {
			return nil, err
		}
		if err := l.sendStamped(ctx, partition, time.Now()); err != nil {
			return nil, err
		}
		if _, err := r.ReceiveEvents(ctx, 1, nil); err != nil {
			return nil, err
		}
		wg.Go(func() {
			defer hangUp(r)
			for {
				events, err := r.ReceiveEvents(ctx, 1, nil)
				now := time.Now()
				for _, e := range events {
					arrivals.add(now.Sub(stampOf(e.Body)))
				}
				if err != nil {
					return
				}
			}
		})
	}
	return &wg, nil
}

// hangUp closes a client without waiting for long.
func hangUp(c interface{ Close(context.Context) error }) {
	bye, cancel := closing()
	defer cancel()
	c.Close(bye) //nolint:errcheck // the measurement is over
}
