package processor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
)

// What holds where Options say nothing.
const (
	DefaultMaxWait            = time.Second
	DefaultCheckpointEvents   = 1000
	DefaultCheckpointInterval = 10 * time.Second
	DefaultAttempts           = 5
	DefaultMinBackoff         = 100 * time.Millisecond
	DefaultMaxBackoff         = 30 * time.Second
)

// MaxBatch is how many events a batch has at most: the SDK's limit of prefetched ones.
const MaxBatch = 5000

// Batch is what a handler is given: some events of a partition that are not done, in
// their order. Without a ledger some may have been processed before.
type Batch struct {
	Partition string
	Events    []*azeventhubs.ReceivedEventData // one at least, the handler's to read
	Attempt   int                              // 1 when the events are tried for the first time
}

// Handler processes a batch, as one: without an error all of it is done, and with one
// nothing is, so that all of it is given again, after a pause. Each partition has one
// call at a time; those of different partitions are concurrent. The context ends with
// [Options.Timeout], with the ledger's claim if that can't be kept up, when another
// process owns the partition, and when Run is to end. A panic is an error like any other. Errors that mean more: [PoisonError], [Unavailable].
type Handler func(ctx context.Context, b Batch) error

// TxHandler is a Handler whose effects go through a transaction, in which the ledger
// marks the events. It neither commits nor rolls back.
type TxHandler func(ctx context.Context, tx *sql.Tx, b Batch) error

// Transactor is a ledger in an SQL database, such as sqlledger's.
type Transactor interface {
	once.Ledger
	// DoBatchTx calls fn with the indexes of those events that are not done, and
	// commits its effects together with their marks.
	DoBatchTx(ctx context.Context, events []once.Event, fn func(ctx context.Context, tx *sql.Tx, fresh []int) error) error
	// Transient says whether an error of a TxHandler is the database's, which may be gone
	// the next time, and no fault of the events.
	Transient(err error) bool
}

// DeadLetters is where events are put aside that can't be processed.
type DeadLetters interface {
	// Park keeps an event, durably, before it returns nil. It may be called a second
	// time for an event, by who dies in between. An error is retried.
	Park(ctx context.Context, d DeadLetter) error
}

// DeadLetter is an event that could not be processed.
type DeadLetter struct {
	Event     *azeventhubs.ReceivedEventData
	Stream    once.Stream // where it is from
	Attempts  int         // how often it was tried
	Err       error       // of the last attempt
	Permanent bool        // the handler said that no attempt can succeed
}

// Options say how events are processed. Namespace, Group, and one of Handle and HandleTx
// are needed.
type Options struct {
	// Namespace and Group are those that the client was made with, which the SDK does
	// not tell: the host name, example.servicebus.windows.net, and the consumer group.
	Namespace, Group string

	Handle   Handler
	HandleTx TxHandler // needs a Ledger that is a Transactor

	// Ledger is the second record beside the checkpoint. Without one, events are
	// processed once at least.
	Ledger once.Ledger
	Lease  time.Duration // of claims, as [once.Runner] has it

	// ID gives an event an id of its producer's, by which the ledger knows it, where
	// the producer may have sent it twice. An empty one, or no ID, means the partition
	// and sequence number.
	ID func(e *azeventhubs.ReceivedEventData) string

	// Partitions are those to be read, without sharing them with anybody: no ownership
	// is claimed, and another process may read the same. By default all are shared.
	Partitions []string

	// Start is where partitions begin that have neither a checkpoint nor a record in
	// the ledger: the SDK's default is the latest event.
	Start azeventhubs.StartPositions

	Batch   int           // events in a batch at most: 1 if it is zero
	MaxWait time.Duration // how long the first event of a batch waits for the others; negative: for ever
	Timeout time.Duration // of one attempt, of a transaction with its commit: once.DefaultTimeout, or the lease if that is longer, if it is zero; negative: none

	// Attempts is how often an event is tried before it is put aside: DefaultAttempts
	// if it is zero. A batch that has failed so often is tried event by event, and each
	// of them so often, so that those that succeed are not put aside with the one that
	// does not. Without DeadLetters there is no limit, and the partition waits at the
	// event that fails.
	Attempts               int
	MinBackoff, MaxBackoff time.Duration // pauses between attempts: the first, doubled up to the last
	DeadLetters            DeadLetters

	// A checkpoint is written once so many events, or so much time, have passed since the
	// last, after a batch or between the attempts at one that fails, and when a partition
	// is given up.
	CheckpointEvents   int
	CheckpointInterval time.Duration

	// Limit ends Run after so many events have been processed, those put aside
	// included. Partitions then take turns. Zero: no limit.
	Limit int

	// Balance and Expiry are the SDK's UpdateInterval and PartitionExpirationDuration:
	// how often it looks who has which partition, and how long a process may be silent
	// before others take its own. Greedy has it take all that are free at once.
	Balance, Expiry time.Duration
	Greedy          bool

	Logger *slog.Logger // nil means none
}

// normalise checks options, and fills in what they leave open.
func (o *Options) normalise(store azeventhubs.CheckpointStore) error {
	switch {
	case o.Namespace == "" || o.Group == "":
		return errors.New("processor: the Namespace and the Group of the client are needed")
	case (o.Handle == nil) == (o.HandleTx == nil):
		return errors.New("processor: one of Handle and HandleTx is needed")
	case o.Batch < 0 || o.Batch > MaxBatch:
		return fmt.Errorf("processor: a batch has 1 to %d events, not %d", MaxBatch, o.Batch)
	case o.Attempts < 0 || o.CheckpointEvents < 0 || o.CheckpointInterval < 0 || o.Limit < 0 || o.Lease < 0:
		return errors.New("processor: a number of events or attempts, or a time, is negative")
	case o.MinBackoff < 0 || o.MaxBackoff < 0 || o.MaxBackoff > 0 && o.MaxBackoff < o.MinBackoff:
		return errors.New("processor: MinBackoff and MaxBackoff can't be negative, and the second is not smaller")
	case store == nil && len(o.Partitions) == 0:
		return errors.New("processor: sharing partitions needs a checkpoint store; without one, say which Partitions to read")
	}
	if _, ok := o.Ledger.(Transactor); o.HandleTx != nil && !ok {
		return errors.New("processor: HandleTx needs a Ledger that has transactions, such as sqlledger's")
	}
	zero(&o.Batch, 1)
	zero(&o.MaxWait, DefaultMaxWait)
	zero(&o.Timeout, max(once.DefaultTimeout, o.Lease))
	zero(&o.Attempts, DefaultAttempts)
	zero(&o.MinBackoff, DefaultMinBackoff)
	zero(&o.MaxBackoff, max(DefaultMaxBackoff, o.MinBackoff))
	zero(&o.CheckpointEvents, DefaultCheckpointEvents)
	zero(&o.CheckpointInterval, DefaultCheckpointInterval)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// zero sets what is zero.
func zero[T comparable](p *T, value T) {
	var none T
	if *p == none {
		*p = value
	}
}
