package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/spf13/cobra"
)

// receiveOptions are what the flags of receive say.
type receiveOptions struct {
	broker       brokerFlags
	storage      storageFlags
	hub, group   string
	partition    string
	from, format string
	count, batch int
	maxWait      time.Duration
	noCheckpoint bool
	name         string
	balance      time.Duration
	expiry       time.Duration
}

func newReceive() *cobra.Command {
	var o receiveOptions
	cmd := &cobra.Command{
		Use:   "receive",
		Short: "Receive events, with checkpoints, from one partition or shared with other receivers",
		Long: "Receive events and print them. With --partition, from that partition alone. Without, receivers of the same\n" +
			"group share the partitions, and take over those of one that is gone. Where each has come to is kept as\n" +
			"checkpoints in a blob container, and the next start goes on from there: on this machine in the broker's own\n" +
			"Blob service, and elsewhere where --storage-connection-string says. With --no-checkpoint events are only looked\n" +
			"at: nothing is kept, and nobody is disturbed.\n\n" +
			"--format is a Go template over Partition, Sequence, Offset, Enqueued, PartitionKey, MessageID, CorrelationID,\n" +
			"ContentType, Properties, Body, Base64 and Value, with the function json.",
		Example: "  millrace receive --hub trial --partition 0\n" +
			"  millrace receive --hub trial --group audit --batch 100 --max-wait 5s -o json\n" +
			"  millrace receive --no-checkpoint --from -15m --format '{{.Partition}}/{{.Sequence}} {{.Body}}'",
		Args: arguments(cobra.NoArgs),
	}
	o.broker.add(cmd, false)
	f := cmd.Flags()
	f.StringVar(&o.hub, "hub", "", "event `HUB` (default "+defaultHub+", or the connection string's)")
	f.StringVar(&o.group, "group", azeventhubs.DefaultConsumerGroup, "consumer `GROUP`")
	f.StringVar(&o.partition, "partition", "", "receive from the partition of this `ID` alone")
	f.StringVar(&o.from, "from", "earliest", "`POSITION` where there is no checkpoint: earliest, latest, @OFFSET, #SEQUENCE, -15m, or a time in RFC 3339")
	f.StringVar(&o.format, "format", "", "Go `TEMPLATE` for a line of output")
	f.IntVar(&o.count, "count", 0, "stop after this many events")
	f.IntVar(&o.batch, "batch", 1, "events in a batch, which has one checkpoint")
	f.DurationVar(&o.maxWait, "max-wait", 0, "how long a batch may wait to be full; 0 for ever")
	o.storage.add(cmd)
	f.BoolVar(&o.noCheckpoint, "no-checkpoint", false, "neither read nor write checkpoints, and share with nobody")
	f.StringVar(&o.name, "name", "", "this receiver's own `NAME`, for messages")
	f.DurationVar(&o.balance, "balance-interval", 5*time.Second, "how often receivers look who has which partition")
	f.DurationVar(&o.expiry, "ownership-expiry", 15*time.Second, "how long a receiver may be silent before others take its partitions")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd, *out) }
	return cmd
}

func (o *receiveOptions) check() error {
	switch {
	case o.count < 0, o.batch < 1, o.maxWait < 0:
		return misused("--count and --max-wait can't be negative, and --batch is 1 at least")
	case o.batch > 5000:
		return misused("--batch is 5000 at most")
	case o.maxWait > 0 && o.batch == 1:
		return misused("--max-wait goes with --batch: a single event is never waited for in company")
	case o.balance <= 0 || o.expiry <= o.balance:
		return misused("--ownership-expiry must be longer than --balance-interval, or partitions would be taken from receivers that live")
	}
	return nil
}

func (o *receiveOptions) run(cmd *cobra.Command, out output) error {
	if err := o.check(); err != nil {
		return err
	}
	from, err := parsePosition("from", o.from, time.Now())
	if err != nil {
		return &usageError{err}
	}
	print, err := newPrinter(out, o.format)
	if err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	t, hub, err := o.broker.openHub(ctx, o.hub)
	if err != nil {
		return err
	}
	client, err := t.consumer(hub, o.group, o.name)
	if err != nil {
		return err
	}
	defer goodbye(client)
	r := &receiver{receiveOptions: o, target: t, client: client, hub: hub, from: from, print: print, w: bufio.NewWriter(cmd.OutOrStdout()), errs: cmd.ErrOrStderr(), stop: cancel}
	if err := r.open(ctx); err != nil {
		return err
	}
	switch {
	case o.partition != "":
		err = r.pinned(ctx, o.partition)
	case r.store == nil:
		err = r.all(ctx)
	default:
		err = r.balanced(ctx)
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil // Ctrl-C, or --count is reached
	}
	return err
}

// receiver prints the events of an event hub.
type receiver struct {
	*receiveOptions
	target     *target
	client     *azeventhubs.ConsumerClient
	store      *checkpoints.BlobStore // nil without checkpoints
	hub        string
	namespace  string // as checkpoints name it
	partitions []string
	from       azeventhubs.StartPosition
	errs       io.Writer
	stop       context.CancelFunc // of everything

	mu      sync.Mutex // guards what follows, and the order of the output
	print   printer
	w       *bufio.Writer
	printed int
}

// open asks for the hub and the checkpoints' container, so that whatever is
// wrong with either is said at once.
func (r *receiver) open(ctx context.Context) error {
	props, err := r.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return fmt.Errorf("the event hub %s can't be used: %w", r.hub, explain(err))
	}
	r.hub, r.partitions = props.Name, props.PartitionIDs
	if r.partition != "" && !slices.Contains(r.partitions, r.partition) {
		return misused("the event hub %s has no partition %q; it has %s", r.hub, r.partition, strings.Join(r.partitions, ", "))
	}
	if r.noCheckpoint {
		return nil
	}
	if r.namespace, err = r.target.namespace(); err != nil {
		return err
	}
	c, err := r.storage.open(r.target)
	if errors.Is(err, errNoStorage) {
		return misused("%w, or only look with --no-checkpoint", err)
	}
	if err != nil {
		return err
	}
	if err := r.storage.create(ctx, c); err != nil {
		return err
	}
	r.store, err = checkpoints.NewBlobStore(c, nil)
	return err
}

// note says something beside the events.
func (r *receiver) note(format string, args ...any) { fmt.Fprintf(r.errs, format+"\n", args...) }

// partitionReader is what the SDK's two kinds of partition clients share.
type partitionReader interface {
	ReceiveEvents(ctx context.Context, count int, o *azeventhubs.ReceiveEventsOptions) ([]*azeventhubs.ReceivedEventData, error)
}

// drain prints a partition's events, batch after batch, and has each batch's
// last one checkpointed after it is printed. It returns when ctx ends or
// receiving fails, and what was the last event.
func (r *receiver) drain(ctx context.Context, partition string, from partitionReader, checkpoint func(context.Context, *azeventhubs.ReceivedEventData) error) (last *azeventhubs.ReceivedEventData, err error) {
	for {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if r.maxWait > 0 {
			wait, cancel = context.WithTimeout(ctx, r.maxWait)
		}
		events, err := from.ReceiveEvents(wait, r.batch, nil)
		cancel()
		if len(events) > 0 {
			done, perr := r.emit(partition, events)
			if done != nil {
				last = done
				if cerr := checkpoint(context.WithoutCancel(ctx), done); cerr != nil {
					return last, fmt.Errorf("the checkpoint of partition %s can't be written: %w", partition, explain(cerr))
				}
			}
			if perr != nil {
				return last, &outputError{perr}
			}
		}
		switch {
		case ctx.Err() != nil:
			return last, ctx.Err()
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return last, err
		}
	}
}

// outputError says that events can't be printed, which no retry helps against.
type outputError struct{ error }

// Unwrap returns the cause.
func (e *outputError) Unwrap() error { return e.error }

// emit prints a batch, or what of it is still wanted, and returns the last event
// that was.
func (r *receiver) emit(partition string, events []*azeventhubs.ReceivedEventData) (last *azeventhubs.ReceivedEventData, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if r.count > 0 && r.printed == r.count {
			break
		}
		if err := r.print(r.w, readEvent(partition, e)); err != nil {
			return last, errors.Join(err, r.w.Flush())
		}
		r.printed++
		last = e
	}
	if r.count > 0 && r.printed == r.count {
		r.stop()
	}
	return last, r.w.Flush()
}
