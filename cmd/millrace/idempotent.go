package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// idempotentProducer numbers the events that it sends to a partition, so that the
// broker knows a batch that comes again. When an acknowledgement is lost with its
// connection, it sends the same batch with the same numbers over a new one, until
// it is acknowledged: it is then stored, once. azeventhubs has no such producer, so
// it speaks AMQP itself, as the SDKs for .NET and JavaScript do (amqp.md 6).
//
// One goroutine uses it.
type idempotentProducer struct {
	target   *target
	hub      string
	retryFor time.Duration
	again    func(error) // told of each failure after which something is tried again

	conn       *publishing // nil: to be opened
	partitions map[string]*numbering
}

// numbering is where the producer is in a partition.
type numbering struct {
	partition string
	known     bool // the broker has said who it is
	id        int64
	epoch     int16
	last      int32 // number of the last event that is acknowledged
}

// next is the number of the i-th event after the last one; they wrap to 0.
func (n *numbering) next(i int) int32 {
	return int32((int64(n.last) + 1 + int64(i)) & math.MaxInt32)
}

const (
	// attemptTimeout bounds one attempt to open a connection or to send a batch: a
	// broker that has died without a word is left then.
	attemptTimeout = 20 * time.Second
	// firstPause and longestPause are those between attempts.
	firstPause, longestPause = 50 * time.Millisecond, 2 * time.Second
)

func newIdempotentProducer(t *target, hub string, retryFor time.Duration, again func(error)) *idempotentProducer {
	return &idempotentProducer{target: t, hub: hub, retryFor: retryFor, again: again, partitions: map[string]*numbering{}}
}

// Close ends the connection.
func (p *idempotentProducer) Close(context.Context) error {
	if p.conn != nil {
		p.conn.close()
		p.conn = nil
	}
	return nil
}

// numberedBatch is a batch whose events have their numbers.
type numberedBatch struct {
	of      *numbering
	message amqp.Message // the envelope, with the events in it
	size    uint64       // encoded
	max     uint64
}

// dataOverhead is what a data section takes beside its bytes.
const dataOverhead = 8

func (p *idempotentProducer) begin(ctx context.Context, to goal) (batch, error) {
	n := p.partitions[to.partition]
	if n == nil {
		n = &numbering{partition: to.partition}
		p.partitions[to.partition] = n
	}
	var max uint64
	err := p.persist(ctx, func(ctx context.Context) error {
		link, err := p.link(ctx, n)
		if err == nil {
			max = link.MaxMessageSize()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("a batch can't be begun: %w", err)
	}
	b := &numberedBatch{of: n, max: max, message: amqp.Message{Format: batchFormat, Annotations: n.annotations(0)}}
	envelope, err := b.message.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("a batch can't be begun: %w", err)
	}
	b.size = uint64(len(envelope))
	return b, nil
}

// annotations are those of the i-th event after the last one.
func (n *numbering) annotations(i int) amqp.Annotations {
	return amqp.Annotations{producerID: n.id, producerEpoch: n.epoch, producerSequence: n.next(i)}
}

func (b *numberedBatch) events() int { return len(b.message.Data) }

// add encodes an event once and for all: a batch that comes again is known by its
// bytes, too.
func (b *numberedBatch) add(e *azeventhubs.EventData) error {
	m := amqp.Message{
		Annotations:           b.of.annotations(b.events()),
		Properties:            &amqp.MessageProperties{MessageID: newUUID(), ContentType: e.ContentType},
		ApplicationProperties: e.Properties,
		Data:                  [][]byte{e.Body},
	}
	encoded, err := m.MarshalBinary()
	if err != nil {
		return fmt.Errorf("an event can't be encoded: %w", err)
	}
	size := b.size + uint64(len(encoded)) + dataOverhead
	if b.max > 0 && size > b.max {
		return azeventhubs.ErrEventDataTooLarge
	}
	b.size = size
	b.message.Data = append(b.message.Data, encoded)
	return nil
}

func (p *idempotentProducer) send(ctx context.Context, x batch) error {
	b := x.(*numberedBatch)
	known := "" // of what became of it
	err := p.persist(ctx, func(ctx context.Context) error {
		link, err := p.link(ctx, b.of)
		if err != nil {
			return err
		}
		if err = deliver(ctx, link, &b.message); err != nil && passing(err) {
			known = ", and may be stored"
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("a batch of %s was not acknowledged%s: %w", count(b.events(), "event"), known, err)
	}
	b.of.last = b.of.next(b.events() - 1)
	return nil
}

// deliver sends a message and returns once it is accepted.
func deliver(ctx context.Context, link *amqp.Sender, m *amqp.Message) error {
	receipt, err := link.SendWithReceipt(ctx, m, nil)
	if err != nil {
		return err
	}
	state, err := receipt.Wait(ctx)
	if err != nil {
		return err
	}
	switch state := state.(type) {
	case *amqp.StateAccepted:
		return nil
	case *amqp.StateRejected:
		if state.Error != nil {
			return state.Error
		}
	}
	return fmt.Errorf("the broker answered with the outcome %T", state)
}

// link returns the partition's link, over a new connection if need be.
func (p *idempotentProducer) link(ctx context.Context, n *numbering) (*amqp.Sender, error) {
	if p.conn != nil && p.conn.old() {
		p.conn.close()
		p.conn = nil
	}
	if p.conn == nil {
		conn, err := openPublishing(ctx, p.target, p.hub)
		if err != nil {
			return nil, err
		}
		p.conn = conn
	}
	return p.conn.attach(ctx, n)
}

// persist does something, over new connections, until it is done, the broker says
// something that will not change, or the time for it is over. It is tried once at
// least, and not again after an interrupt.
func (p *idempotentProducer) persist(ctx context.Context, do func(context.Context) error) error {
	started := time.Now()
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		err := do(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if !passing(err) {
			return explain(err)
		}
		p.Close(ctx) //nolint:errcheck // it has none
		if time.Since(started)+wait > p.retryFor {
			return fmt.Errorf("%w; given up after %s (--retry-for)", explain(err), p.retryFor)
		}
		if pause(ctx, wait) != nil {
			return fmt.Errorf("%w; given up when interrupted", explain(err))
		}
		p.again(err)
	}
}

// passing tells whether a failure may pass: the connection is lost, or the broker
// says that it can't just now. Source: Azure/azure-sdk-for-go
// sdk/messaging/azeventhubs/internal/errors.go.
func passing(err error) bool {
	if errors.Is(err, errNotOffered) {
		return false
	}
	var remote *amqp.Error
	if !errors.As(err, &remote) {
		return true
	}
	switch remote.Condition {
	case amqp.ErrCondInternalError, amqp.ErrCondConnectionForced, amqp.ErrCondDetachForced, amqp.ErrCondTransferLimitExceeded,
		"com.microsoft:server-busy", "com.microsoft:timeout", "com.microsoft:operation-cancelled", "com.microsoft:container-close":
		return true
	}
	return false
}
