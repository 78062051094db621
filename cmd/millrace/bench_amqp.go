package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// amqpLoad measures with a plain AMQP client that sends what the SDKs send: a
// batch is one message whose data sections are messages.
type amqpLoad struct {
	*bench
	conn    *amqp.Conn
	senders []*amqp.Sender
}

const (
	// batchFormat is the message format of a batch. Source: Azure/azure-sdk-for-go
	// sdk/messaging/azeventhubs/event_data_batch.go.
	batchFormat = 0x80013700
	// batchBytes is the size of a batch, a little below what a link takes.
	batchBytes = 1_000_000
	// amqpInFlight is how many batches each partition has under way.
	amqpInFlight = 16
	// amqpCredit is how many events a receiver lets come.
	amqpCredit = 1000
)

func openAMQPLoad(ctx context.Context, b *bench) (*amqpLoad, error) {
	cs := b.target.cs
	if cs.KeyName == "" {
		return nil, errors.New("the plain AMQP client needs a connection string with a key; measure with --client sdk")
	}
	p, err := b.target.producer(b.hub) // only the SDK speaks the management protocol
	if err != nil {
		return nil, err
	}
	defer hangUp(p)
	props, err := p.GetEventHubProperties(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("the event hub %s can't be used: %w", b.hub, explain(err))
	}
	b.partitions = len(props.PartitionIDs)
	scheme, address := b.target.amqp()
	l := &amqpLoad{bench: b}
	l.conn, err = amqp.Dial(ctx, scheme+"://"+address, &amqp.ConnOptions{
		SASLType: amqp.SASLTypePlain(cs.KeyName, cs.Key), TLSConfig: b.target.tls, ContainerID: "millrace-bench", HostName: cs.Host,
	})
	if err != nil {
		return nil, err
	}
	for i := range b.partitions {
		s, err := l.conn.NewSession(ctx, nil)
		if err != nil {
			l.close()
			return nil, err
		}
		sender, err := s.NewSender(ctx, fmt.Sprintf("%s/Partitions/%d", b.hub, i), nil)
		if err != nil {
			l.close()
			return nil, err
		}
		l.senders = append(l.senders, sender)
	}
	return l, nil
}

func (l *amqpLoad) close() { l.conn.Close() } //nolint:errcheck // the measurement is over

// receipts waits for what was sent, in order, so that at most a window of it is
// under way.
type receipts struct {
	sent chan amqp.SendReceipt
	done chan error
}

func newReceipts(ctx context.Context, window int, each func(i int)) *receipts {
	r := &receipts{sent: make(chan amqp.SendReceipt, window), done: make(chan error, 1)}
	go func() {
		i := 0
		for receipt := range r.sent {
			state, err := receipt.Wait(ctx)
			if rejected, ok := state.(*amqp.StateRejected); ok && err == nil {
				err = fmt.Errorf("a batch was rejected: %w", rejected.Error)
			}
			if err != nil {
				r.done <- err
				return
			}
			each(i)
			i++
		}
		r.done <- nil
	}()
	return r
}

// add waits for room in the window.
func (r *receipts) add(receipt amqp.SendReceipt) error {
	select {
	case r.sent <- receipt:
		return nil
	case err := <-r.done:
		return err
	}
}

// wait waits for everything that was added.
func (r *receipts) wait() error {
	close(r.sent)
	return <-r.done
}

func (l *amqpLoad) produce(ctx context.Context, n int) error {
	return each(ctx, l.partitions, func(ctx context.Context, partition int) error {
		share := n / l.partitions
		if partition < n%l.partitions {
			share++
		}
		r := newReceipts(ctx, amqpInFlight, func(int) {})
		for sent := 0; sent < share; {
			m := &amqp.Message{Format: batchFormat}
			for size := 0; sent < share; sent++ {
				b, err := (&amqp.Message{Data: [][]byte{l.payloads.next()}}).MarshalBinary()
				if err != nil {
					return err
				}
				if size += len(b) + 8; size > batchBytes && len(m.Data) > 0 {
					break
				}
				m.Data = append(m.Data, b)
			}
			receipt, err := l.senders[partition].SendWithReceipt(ctx, m, nil)
			if err != nil {
				return err
			}
			if err := r.add(receipt); err != nil {
				return err
			}
		}
		return r.wait()
	})
}

// reader opens a partition at a position.
func (l *amqpLoad) reader(ctx context.Context, partition int, position string) (*amqp.Receiver, error) {
	s, err := l.conn.NewSession(ctx, nil)
	if err != nil {
		return nil, err
	}
	settled := amqp.SenderSettleModeSettled
	return s.NewReceiver(ctx, fmt.Sprintf("%s/ConsumerGroups/%s/Partitions/%d", l.hub, azeventhubs.DefaultConsumerGroup, partition), &amqp.ReceiverOptions{
		Credit: amqpCredit, RequestedSenderSettleMode: &settled,
		Filters: []amqp.LinkFilter{amqp.NewSelectorFilter("amqp.annotation." + position)},
	})
}

func (l *amqpLoad) consume(ctx context.Context, n int) error {
	var got atomic.Int64
	err := each(ctx, l.partitions, func(ctx context.Context, partition int) error {
		r, err := l.reader(ctx, partition, "x-opt-offset > '-1'")
		if err != nil {
			return err
		}
		defer hangUp(r)
		for {
			if _, err := r.Receive(ctx, nil); err != nil {
				return err
			}
			if got.Add(1) >= int64(n) {
				return errEnough
			}
		}
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (l *amqpLoad) latency(ctx context.Context) (ack, arrival []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var acks, arrivals durations
	var listening sync.WaitGroup
	senders := make([]*stampedSender, l.partitions)
	for partition := range l.partitions {
		r, err := l.listen(ctx, partition)
		if err != nil {
			return nil, nil, err
		}
		listening.Go(func() {
			defer hangUp(r)
			for {
				m, err := r.Receive(ctx, nil)
				if err != nil {
					return
				}
				arrivals.add(time.Since(stampOf(m.GetData())))
			}
		})
		senders[partition] = newStampedSender(ctx, l, partition, &acks)
	}
	failed := error(nil)
	total := pace(ctx, l.rate, l.duration, func(i int, due time.Time) {
		if err := senders[i%l.partitions].send(ctx, due); err != nil && failed == nil {
			failed = err
			cancel()
		}
	})
	for _, s := range senders {
		failed = errors.Join(failed, s.receipts.wait())
	}
	if failed != nil {
		return nil, nil, failed
	}
	awaitAll(ctx, &arrivals, total)
	cancel()
	listening.Wait()
	return acks.take(), arrivals.take(), nil
}

// stampedSender sends events with their due time, and notes when each is
// acknowledged.
type stampedSender struct {
	l         *amqpLoad
	partition int
	due       chan time.Time
	receipts  *receipts
}

// latencyWindow is how many events may be under way: ten seconds' worth at a
// thousand a second.
const latencyWindow = 10_000

func newStampedSender(ctx context.Context, l *amqpLoad, partition int, acks *durations) *stampedSender {
	s := &stampedSender{l: l, partition: partition, due: make(chan time.Time, latencyWindow+1)}
	s.receipts = newReceipts(ctx, latencyWindow, func(int) { acks.add(time.Since(<-s.due)) })
	return s
}

func (s *stampedSender) send(ctx context.Context, due time.Time) error {
	receipt, err := s.l.sendStamped(ctx, s.partition, due)
	if err != nil {
		return err
	}
	s.due <- due
	return s.receipts.add(receipt)
}

func (l *amqpLoad) sendStamped(ctx context.Context, partition int, due time.Time) (amqp.SendReceipt, error) {
	b, err := (&amqp.Message{Data: [][]byte{l.payloads.stamped(due)}}).MarshalBinary()
	if err != nil {
		return amqp.SendReceipt{}, err
	}
	return l.senders[partition].SendWithReceipt(ctx, &amqp.Message{Format: batchFormat, Data: [][]byte{b}}, nil)
}

// listen opens a receiver at the partition's end, which it finds by an event of
// its own.
func (l *amqpLoad) listen(ctx context.Context, partition int) (*amqp.Receiver, error) {
	receipt, err := l.sendStamped(ctx, partition, time.Now())
	if err != nil {
		return nil, err
	}
	if _, err := receipt.Wait(ctx); err != nil {
		return nil, err
	}
	return l.reader(ctx, partition, "x-opt-offset > '@latest'")
}
