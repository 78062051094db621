package processor

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
)

// source is what the SDK's two kinds of partition clients share.
type source interface {
	ReceiveEvents(ctx context.Context, count int, o *azeventhubs.ReceiveEventsOptions) ([]*azeventhubs.ReceivedEventData, error)
}

// reader processes one partition, from when it is opened until it is lost. It belongs to
// one goroutine.
type reader struct {
	p      *Processor
	log    *slog.Logger
	stream once.Stream
	from   source
	order  *once.Order

	last    *azeventhubs.ReceivedEventData // the last that is done, with all before it; nil: none
	since   int                            // events that were done since the last checkpoint
	written time.Time                      // of the last checkpoint, or when the first event after it was done
	failing bool                           // the last checkpoint could not be written
	begun   bool                           // the ledger knows where the reader was opened
}

func (p *Processor) reader(partition string, from source) *reader {
	s := p.stream
	s.Partition = partition
	return &reader{p: p, log: p.log.With("partition", partition), stream: s, from: from, order: once.NewOrder(s)}
}

// run receives and processes batches until the context ends or receiving fails. Then
// what is done is checkpointed, unless somebody else has the partition, whose checkpoint
// may be further on.
func (r *reader) run(ctx context.Context) error {
	for {
		events, err := r.receive(ctx)
		if len(events) > 0 {
			if perr := r.process(ctx, events); perr != nil {
				err = perr
			}
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			if !stolen(err) {
				r.checkpoint(ctx)
			}
			return err
		}
		r.checkpointIfDue(ctx)
	}
}

// receive returns the events of the next batch. It returns none when there is a
// checkpoint to write meanwhile; what was received before an error comes with it.
func (r *reader) receive(ctx context.Context) ([]*azeventhubs.ReceivedEventData, error) {
	first, cancel := ctx, context.CancelFunc(func() {})
	if r.since > 0 {
		first, cancel = context.WithDeadline(ctx, r.due())
	}
	events, err := r.from.ReceiveEvents(first, 1, nil)
	cancel()
	batch := r.p.o.Batch
	if r.p.o.Limit > 0 {
		batch = min(batch, int(r.p.left.Load()))
	}
	if err != nil || batch <= 1 {
		return events, waited(ctx, err)
	}
	full := time.Time{}
	if r.p.o.MaxWait > 0 {
		full = time.Now().Add(r.p.o.MaxWait)
	}
	for len(events) < batch {
		wait, cancel := r.until(ctx, full)
		more, err := r.from.ReceiveEvents(wait, batch-len(events), nil)
		cancel()
		events = append(events, more...)
		switch err = waited(ctx, err); {
		case err != nil:
			return events, err
		case !full.IsZero() && !time.Now().Before(full):
			return events, nil
		}
		r.checkpointIfDue(ctx)
	}
	return events, nil
}

// until is a context that ends when a batch needs to be full or a checkpoint to be
// written.
func (r *reader) until(ctx context.Context, full time.Time) (context.Context, context.CancelFunc) {
	at := full
	if due := r.due(); r.since > 0 && (at.IsZero() || due.Before(at)) {
		at = due
	}
	if at.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, at)
}

// waited is an error of receiving, unless it is that the wait is over.
func waited(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// advance notes that an event and all before it are done.
func (r *reader) advance(last *azeventhubs.ReceivedEventData, n int) {
	if r.since == 0 {
		r.written = time.Now()
	}
	r.last = last
	r.since += n
}

// due is when a checkpoint is to be written, if something was done since the last.
func (r *reader) due() time.Time { return r.written.Add(r.p.o.CheckpointInterval) }

func (r *reader) checkpointIfDue(ctx context.Context) {
	if r.since >= r.p.o.CheckpointEvents || r.since > 0 && !time.Now().Before(r.due()) {
		r.checkpoint(ctx)
	}
}

// checkpoint writes a checkpoint of what is done, and has the ledger forget what is
// before it. If it can't be written it is tried again when the next is due.
func (r *reader) checkpoint(ctx context.Context) {
	if r.since == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if r.p.store != nil {
		err := r.p.store.SetCheckpoint(ctx, azeventhubs.Checkpoint{
			FullyQualifiedNamespace: r.stream.Namespace, EventHubName: r.stream.Hub, ConsumerGroup: r.stream.Group,
			PartitionID: r.stream.Partition, Offset: &r.last.Offset, SequenceNumber: &r.last.SequenceNumber,
		}, nil)
		if err != nil {
			if !r.failing {
				r.log.Warn("the checkpoint can't be written; trying again later", "sequence", r.last.SequenceNumber, "error", err)
			}
			r.failing, r.written, r.since = true, time.Now(), max(1, min(r.since, r.p.o.CheckpointEvents-1))
			return
		}
		if r.failing {
			r.log.Info("checkpoints are written again", "sequence", r.last.SequenceNumber)
		}
		r.p.stats.checkpoints.Add(1)
	}
	r.failing, r.since = false, 0
	if r.p.o.Ledger != nil {
		// What is not settled now is with the next one.
		_ = r.p.o.Ledger.Settle(ctx, r.stream, r.last.SequenceNumber)
	}
}
