package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
)

// farewell is how long a checkpoint, a question to the ledger, and the end of a link may
// take, also after the context has ended.
const farewell = 5 * time.Second

// Processor processes the events of an event hub for a consumer group. Make it with New,
// and run it once.
type Processor struct {
	client *azeventhubs.ConsumerClient
	store  azeventhubs.CheckpointStore // may be nil
	o      Options
	log    *slog.Logger
	stream once.Stream // without a partition

	turn  chan struct{} // holds one token: whose turn it is, where there is a limit
	left  atomic.Int64  // of the limit, changed by who has the turn
	stop  context.CancelCauseFunc
	stats stats

	opened atomic.Bool // a partition was, once
	ends   sync.Map    // partitions of which it is known whether their checkpoints are beyond their ends

	mu    sync.Mutex
	owned map[string]context.CancelCauseFunc // partitions that are being read, and what ends that
}

type stats struct {
	processed, skipped, parked, failed, checkpoints atomic.Int64
}

// Stats counts what a processor has done since it was made.
type Stats struct {
	Processed   int64 // events whose handler succeeded
	Skipped     int64 // events that the ledger knew as done
	Parked      int64 // events put aside
	Failed      int64 // attempts that failed, of events or batches
	Checkpoints int64 // written
}

// errLimit is the cause of the end once the limit is reached.
var errLimit = errors.New("processor: the limit is reached")

// New returns a processor of the client's event hub and consumer group. The store is
// where checkpoints are, and who owns which partition; it may be nil if Options name
// Partitions: then the ledger alone says where they are resumed. Client, store and
// ledger stay the caller's to close.
func New(client *azeventhubs.ConsumerClient, store azeventhubs.CheckpointStore, o Options) (*Processor, error) {
	if err := o.normalise(store); err != nil {
		return nil, err
	}
	p := &Processor{client: client, store: store, o: o, log: o.Logger, turn: make(chan struct{}, 1), owned: map[string]context.CancelCauseFunc{}}
	p.left.Store(int64(o.Limit))
	p.turn <- struct{}{}
	return p, nil
}

// Stats returns what has been done so far.
func (p *Processor) Stats() Stats {
	return Stats{
		Processed: p.stats.processed.Load(), Skipped: p.stats.skipped.Load(), Parked: p.stats.parked.Load(),
		Failed: p.stats.failed.Load(), Checkpoints: p.stats.checkpoints.Load(),
	}
}

// Run processes events until the context ends or the limit is reached, which is no
// error, or until nothing can help: the hub does not exist, or the client may not read
// it. What is being processed when the context ends is let finish, if the handler does;
// then checkpoints are written and the partitions given up.
func (p *Processor) Run(asked context.Context) error {
	ctx, stop := context.WithCancelCause(asked)
	defer stop(nil)
	p.stop = stop
	err := p.run(ctx)
	switch {
	case asked.Err() != nil, errors.Is(context.Cause(ctx), errLimit):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

func (p *Processor) run(ctx context.Context) error {
	hub, err := p.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return fmt.Errorf("processor: the event hub can't be used: %w", err)
	}
	p.stream = once.Stream{
		Namespace: p.o.Namespace, Hub: hub.Name, Group: p.o.Group,
		Generation: generation(hub),
	}
	for _, id := range p.o.Partitions {
		if !slices.Contains(hub.PartitionIDs, id) {
			return fmt.Errorf("processor: the event hub %s has no partition %q; it has %s", hub.Name, id, strings.Join(hub.PartitionIDs, ", "))
		}
	}
	if len(p.o.Partitions) > 0 {
		return p.pinned(ctx)
	}
	return p.persist(ctx, p.log, "sharing the partitions was interrupted; trying again", p.share)
}

// persist runs something again and again, with pauses, until it ends without an error,
// or with one that trying again can't help, or the context does.
func (p *Processor) persist(ctx context.Context, log *slog.Logger, message string, run func(context.Context) error) error {
	for failures := 0; ; failures++ {
		started := time.Now()
		err := run(ctx)
		if err == nil || ctx.Err() != nil || final(err) {
			return err
		}
		if time.Since(started) > p.o.MaxBackoff {
			failures = 0
		}
		log.Warn(message, "error", err)
		if err := p.pause(ctx, failures); err != nil {
			return err
		}
	}
}

// pause waits after so many failures in a row: MinBackoff after the first, twice as long
// after each more, up to MaxBackoff, give or take a quarter.
func (p *Processor) pause(ctx context.Context, failures int) error {
	return p.pauseAtMost(ctx, failures, p.o.MaxBackoff)
}

func (p *Processor) pauseAtMost(ctx context.Context, failures int, d time.Duration) error {
	if failures < 30 {
		d = min(d, p.o.MinBackoff<<failures)
	}
	d += time.Duration((rand.Float64() - 0.5) / 2 * float64(d)) //nolint:gosec // spread, not a secret
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// share runs one of the SDK's processors to its end.
func (p *Processor) share(ctx context.Context) error {
	strategy := azeventhubs.ProcessorStrategyBalanced
	if p.o.Greedy {
		strategy = azeventhubs.ProcessorStrategyGreedy
	}
	inner, err := azeventhubs.NewProcessor(p.client, &resumingStore{CheckpointStore: p.store, p: p}, &azeventhubs.ProcessorOptions{
		LoadBalancingStrategy:       strategy,
		UpdateInterval:              p.o.Balance,
		PartitionExpirationDuration: p.o.Expiry,
		StartPositions:              p.o.Start,
		Prefetch:                    p.prefetch(),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The SDK gives its partitions up when its context ends. That must come after the
	// last checkpoints, so it has a context of its own.
	running, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	over := make(chan error, 1)
	go func() {
		err := inner.Run(running)
		cancel(err)
		over <- err
	}()
	var readers sync.WaitGroup
	readers.Go(func() {
		if err := p.probe(ctx); err != nil {
			cancel(err)
		}
	})
	for {
		c := inner.NextPartitionClient(ctx)
		if c == nil {
			break
		}
		p.opened.Store(true)
		readers.Go(func() {
			if err := p.own(ctx, c); err != nil {
				cancel(err)
			}
		})
	}
	readers.Wait()
	release()
	err = <-over
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, errLimit) {
		err = errors.Join(err, cause)
	}
	return err
}

// probe looks why no partition comes, if none does: the SDK's Processor tells nobody that
// it can't open them. Its error is that trying again can't help. That all are somebody
// else's is no error.
func (p *Processor) probe(ctx context.Context) error {
	timer := time.NewTimer(2 * time.Second) // partitions that are free are there long before
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	if p.opened.Load() || ctx.Err() != nil {
		return nil
	}
	hub, err := p.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return nil // the SDK's Processor asks, too
	}
	c, err := p.client.NewPartitionClient(hub.PartitionIDs[0], nil)
	if err != nil {
		return nil
	}
	defer p.close(c)
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	if _, err = c.ReceiveEvents(ctx, 1, nil); final(err) {
		return fmt.Errorf("processor: no partition can be opened: %w", err)
	}
	return nil
}

// prefetch is how many events the SDK keeps ready: more than a batch.
func (p *Processor) prefetch() int32 {
	return int32(max(300, min(2*p.o.Batch, MaxBatch))) //nolint:gosec // at most MaxBatch
}

// own processes a partition for as long as it is this process's. An error is one that
// ends everything.
func (p *Processor) own(ctx context.Context, c *azeventhubs.ProcessorPartitionClient) error {
	defer p.close(c)
	r := p.reader(c.PartitionID(), c)
	mine, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.mu.Lock()
	p.owned[c.PartitionID()] = cancel
	p.mu.Unlock()
	r.log.Info("claimed")
	err := r.run(mine)
	p.mu.Lock()
	delete(p.owned, c.PartitionID())
	p.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		r.log.Info("released")
	case final(err):
		return err
	case stolen(err):
		r.log.Info("released: another process has the partition now")
	default: // the SDK opens it again, if it is still ours
		r.log.Warn("released; it is opened again if it is still owned", "error", err)
	}
	return nil
}

// keep ends the reading of partitions that are not owned any more. Whoever only waits,
// for a handler that keeps failing, would not learn of it from the hub.
func (p *Processor) keep(owned []azeventhubs.Ownership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, cancel := range p.owned {
		if !slices.ContainsFunc(owned, func(o azeventhubs.Ownership) bool { return o.PartitionID == id }) {
			cancel(errLost)
		}
	}
}

func (p *Processor) close(c interface {
	Close(ctx context.Context) error
}) {
	bye, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	_ = c.Close(bye) // what was processed is marked, or checkpointed
}

// pinned reads the partitions that Options name, each until the context ends.
func (p *Processor) pinned(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	for _, id := range p.o.Partitions {
		readers.Go(func() {
			err := p.persist(ctx, p.log.With("partition", id), "reading was interrupted; trying again", func(ctx context.Context) error {
				return p.read(ctx, id)
			})
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("processor: partition %s: %w", id, err))
			}
		})
	}
	readers.Wait()
	return context.Cause(ctx)
}

// read opens a partition where it is to be resumed, and processes it. Somebody else who
// takes the partition, and what is wrong at the first try, end everything; later only the
// hub and the checkpoint store can be away, which is waited out.
func (p *Processor) read(ctx context.Context, id string) error {
	start, err := p.resume(ctx, id)
	if err != nil {
		if !p.opened.Load() {
			return &fatalError{err}
		}
		return err
	}
	c, err := p.client.NewPartitionClient(id, &azeventhubs.PartitionClientOptions{StartPosition: start, Prefetch: p.prefetch()})
	if err != nil {
		return &fatalError{err}
	}
	defer p.close(c)
	p.opened.Store(true)
	if err = p.reader(id, c).run(ctx); !disconnected(err) {
		return &fatalError{err}
	}
	return err
}
