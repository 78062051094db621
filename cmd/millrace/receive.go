package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/spf13/cobra"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/processor"
)

// receiveOptions are what the flags of receive say.
type receiveOptions struct {
	broker          brokerFlags
	storage         storageFlags
	hub, group      string
	partition       string
	from, format    string
	count, batch    int
	maxWait         time.Duration
	noCheckpoint    bool
	checkpointEvery int
	name            string
	balance, expiry time.Duration

	exec       string
	once       string
	onceID     string
	lease      time.Duration
	timeout    time.Duration
	attempts   int
	deadLetter string
}

func newReceive() *cobra.Command {
	var o receiveOptions
	cmd := &cobra.Command{
		Use:   "receive",
		Short: "Receive events, with checkpoints, from one partition or shared with other receivers",
		Long: "Receive events and print them, or have a command process them. With --partition, from that partition alone.\n" +
			"Without, receivers of the same group share the partitions, and take over those of one that is gone. Where each has\n" +
			"come to is kept as checkpoints in a blob container, and the next start goes on from there: on this machine in the\n" +
			"broker's own Blob service, and elsewhere where --storage-connection-string says. With --no-checkpoint events are\n" +
			"only looked at: nothing is kept, and nobody is disturbed. (But a ledger of --once is told of them, and goes on for\n" +
			"the group from there: what is before the first of them is taken as done.)\n\n" +
			"--format is a Go template over Partition, Sequence, Offset, Enqueued, PartitionKey, MessageID, CorrelationID,\n" +
			"ContentType, Properties, Body, Base64 and Value, with the function json.\n\n" + execHelp + "\n\n" + onceHelp,
		Example: "  millrace receive --hub trial --partition 0\n" +
			"  millrace receive --hub trial --group audit --batch 100 --max-wait 5s -o json\n" +
			"  millrace receive --no-checkpoint --from -15m --format '{{.Partition}}/{{.Sequence}} {{.Body}}'\n" +
			"  millrace receive --hub orders --batch 500 --max-wait 2s --exec ./load.sh --once redis://localhost:6379",
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
	f.IntVar(&o.batch, "batch", 1, "events in a batch")
	f.DurationVar(&o.maxWait, "max-wait", 0, "how long a batch may wait to be full, from its first event; 0 for ever")
	o.storage.add(cmd)
	f.BoolVar(&o.noCheckpoint, "no-checkpoint", false, "neither read nor write checkpoints, and share with nobody")
	f.IntVar(&o.checkpointEvery, "checkpoint-every", 1, "events before another checkpoint is written, after the batch that reaches it or ten seconds")
	f.StringVar(&o.name, "name", "", "this receiver's own `NAME`, for messages")
	f.DurationVar(&o.balance, "balance-interval", 5*time.Second, "how often receivers look who has which partition")
	f.DurationVar(&o.expiry, "ownership-expiry", 15*time.Second, "how long a receiver may be silent before others take its partitions")
	f.StringVar(&o.exec, "exec", "", "`COMMAND` for the shell that processes each batch")
	f.StringVar(&o.once, "once", "", "`URL` of a ledger, by which events are processed once: redis://, postgres://, mysql://, sqlite:// or file://")
	f.StringVar(&o.onceID, "once-id", "", "what the ledger knows an event by, where its producer may have sent it twice: message-id, property:`NAME` or json:NAME (default its partition and sequence number)")
	f.DurationVar(&o.lease, "lease", once.DefaultLease, "how long the ledger keeps a batch for a receiver that has died")
	f.DurationVar(&o.timeout, "timeout", 0, "how long the command of --exec may take for a batch; 0 for ever")
	f.IntVar(&o.attempts, "attempts", processor.DefaultAttempts, "how often an event is given to the command before it goes to the --dead-letter-hub")
	f.StringVar(&o.deadLetter, "dead-letter-hub", "", "event `HUB` of the same namespace for events that the command fails to process")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd, *out) }
	return cmd
}

func (o *receiveOptions) check(cmd *cobra.Command, out output) error {
	switch {
	case o.count < 0, o.batch < 1, o.maxWait < 0, o.checkpointEvery < 1:
		return misused("--count and --max-wait can't be negative, and --batch and --checkpoint-every are 1 at least")
	case o.batch > processor.MaxBatch:
		return misused("--batch is %d at most", processor.MaxBatch)
	case o.maxWait > 0 && o.batch == 1:
		return misused("--max-wait goes with --batch: a single event is never waited for in company")
	case o.balance <= 0 || o.expiry <= o.balance:
		return misused("--ownership-expiry must be longer than --balance-interval, or partitions would be taken from receivers that live")
	case o.exec != "" && (o.format != "" || out == asJSON):
		return misused("--exec has the command print what it likes: --format and -o json exclude it")
	case o.once == "" && (o.onceID != "" || cmd.Flags().Changed("lease")):
		return misused("--once-id and --lease go with --once")
	case o.lease < time.Second, o.attempts < 1, o.timeout < 0:
		return misused("--lease is a second at least, --attempts is 1, and --timeout can't be negative")
	}
	for _, name := range []string{"timeout", "attempts", "dead-letter-hub"} {
		if o.exec == "" && cmd.Flags().Changed(name) {
			return misused("--%s goes with --exec", name)
		}
	}
	if o.deadLetter == "" && cmd.Flags().Changed("attempts") {
		return misused("--attempts goes with --dead-letter-hub: without one, an event is tried until it succeeds")
	}
	return nil
}

func (o *receiveOptions) run(cmd *cobra.Command, out output) error {
	if err := o.check(cmd, out); err != nil {
		return err
	}
	from, err := parsePosition("from", o.from, time.Now())
	if err != nil {
		return &usageError{err}
	}
	id, err := parseOnceID(o.onceID)
	if err != nil {
		return err
	}
	print, err := newPrinter(out, o.format)
	if err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	ledger, err := openLedger(ctx, o.once)
	if err != nil {
		return err
	}
	defer ledger.close()
	t, hub, err := o.broker.openHub(ctx, o.hub)
	if err != nil {
		return err
	}
	client, err := t.consumer(hub, o.group, o.name)
	if err != nil {
		return err
	}
	defer goodbye(client)
	r := &receiver{
		receiveOptions: o, target: t, client: client, hub: hub, from: from, id: id, ledger: ledger.Ledger,
		print: print, w: bufio.NewWriter(cmd.OutOrStdout()), errs: cmd.ErrOrStderr(), stop: cancel,
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	return r.receive(ctx)
}

// receiver prints the events of an event hub, or has them processed.
type receiver struct {
	*receiveOptions
	target     *target
	client     *azeventhubs.ConsumerClient
	store      *checkpoints.BlobStore // nil without checkpoints
	ledger     once.Ledger            // nil without --once
	id         func(*azeventhubs.ReceivedEventData) string
	hub        string
	namespace  string // as checkpoints name it
	partitions []string
	from       azeventhubs.StartPosition
	errs       io.Writer
	stop       context.CancelFunc // of everything

	mu    sync.Mutex // guards what follows, and the order of the output
	print printer
	w     *bufio.Writer
	err   error // of the output
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
	if r.namespace, err = r.target.namespace(); err != nil || r.noCheckpoint {
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

// receive processes events until ctx ends or --count is reached.
func (r *receiver) receive(ctx context.Context) error {
	o := processor.Options{
		Namespace: r.namespace, Group: r.group, Ledger: r.ledger, Lease: r.lease, ID: r.id,
		Start: azeventhubs.StartPositions{Default: r.from},
		Batch: r.batch, MaxWait: cmp.Or(r.maxWait, -1), Timeout: cmp.Or(r.timeout, -1), Attempts: r.attempts, Limit: r.count,
		CheckpointEvents: r.checkpointEvery,
		Balance:          r.balance, Expiry: r.expiry, Greedy: true,
		Handle: r.emit,
		Logger: slog.New(&noteHandler{to: r.errs}),
	}
	if r.exec != "" {
		o.Handle = r.execute
	}
	var store azeventhubs.CheckpointStore
	switch {
	case r.store != nil:
		store = r.store
	case r.partition == "":
		o.Partitions = r.partitions
	}
	if r.partition != "" {
		o.Partitions = []string{r.partition}
	}
	if r.deadLetter != "" {
		if strings.EqualFold(r.deadLetter, r.hub) {
			return misused("--dead-letter-hub %s is the hub that is received from: what fails would come again and again", r.deadLetter)
		}
		letters, err := r.target.producer(r.deadLetter)
		if err != nil {
			return err
		}
		defer goodbye(letters)
		if _, err := letters.GetEventHubProperties(ctx, nil); err != nil {
			return fmt.Errorf("the dead-letter hub %s can't be used: %w", r.deadLetter, explain(err))
		}
		o.DeadLetters = processor.Hub(letters)
	}
	p, err := processor.New(r.client, store, o)
	if err != nil {
		return err
	}
	if err := p.Run(ctx); err != nil {
		return explain(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err // Ctrl-C, --count is reached, or this
}

// emit prints a batch. What can't be printed ends everything, since no retry helps.
func (r *receiver) emit(ctx context.Context, b processor.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	for _, e := range b.Events {
		if r.err = r.print(r.w, readEvent(b.Partition, e)); r.err != nil {
			break
		}
	}
	if r.err = errors.Join(r.err, r.w.Flush()); r.err != nil {
		r.stop()
	}
	return r.err
}
