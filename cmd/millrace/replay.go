package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

// replayOptions are what the flags of replay say.
type replayOptions struct {
	selectFlags
	broker    brokerFlags
	locations []string

	fromHub, fromConnection, fromGroup string
	resume                             string

	hub   string
	byKey bool
	rate  int
	quiet bool
}

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send captured events, or those of another event hub, to an event hub again",
		Long: "Send the events of captured files, or a range of an event hub, to an event hub: each to the partition of the\n" +
			"number that it was in, in order. With --by-key, events go where their partition key leads in the new hub, which may\n" +
			"have another number of partitions; the order of one key's events is kept.\n\n" +
			"Bodies, message and application properties, partition keys and annotations are sent as they were; events get new\n" +
			"sequence numbers and times. From a hub, every type comes back as it was. Files know fewer types than AMQP: from\n" +
			"Avro, integers come back as long, timestamps as long in milliseconds, booleans as the strings True and False, lists\n" +
			"and maps as JSON in strings; from Parquet, all application properties as strings. An event without a message id\n" +
			"gets one.\n\n" +
			"--from-hub reads a hub of the same namespace, or of the one of --from-connection-string: what is in it when the\n" +
			"replay begins, from --from up to, and without, --until. Where consumers of a group run, they let nobody else read\n" +
			"in it: --from-group names another.\n\n" +
			"When a replay has ended early, by an interrupt or an error, it says what is acknowledged for certain and which\n" +
			"flags go on from there. A batch under way then may be stored too, and so be sent twice; a replay that is run again\n" +
			"with the same flags sends everything again. With --resume FILE, a replay of a hub keeps in the file, after each\n" +
			"batch, what is acknowledged, and one that is run again with the same flags goes on from there, after kill -9 as\n" +
			"well. A batch that was under way in a partition is looked for in its end, and not sent again if it is there. Where\n" +
			"others send, too, or the group $Default of the hub can't be read, that can't be told: the batch may then be there\n" +
			"twice. So may, with --by-key, the batches under way of all keys.\n\n" + locationHelp,
		Example: "  millrace replay --from-capture ./captured/localhost/orders --hub orders-again\n" +
			"  millrace replay --from-capture ./captured --event-hub orders --hub trial --by-key --from -1h --rate 500\n" +
			"  millrace replay --from-hub orders --hub orders-again --from -2h --until -1h --resume orders.replay",
		Args: arguments(cobra.NoArgs),
	}
	o.broker.add(cmd, false)
	f := cmd.Flags()
	f.StringArrayVar(&o.locations, "from-capture", nil, "`LOCATION` of captured files; may be repeated")
	f.StringVar(&o.fromHub, "from-hub", "", "event `HUB` whose events are wanted")
	f.StringVar(&o.fromConnection, "from-connection-string", "", "`STRING` of the namespace of --from-hub (default that of --connection-string)")
	f.StringVar(&o.fromGroup, "from-group", azeventhubs.DefaultConsumerGroup, "consumer `GROUP` to read --from-hub in")
	f.StringVar(&o.resume, "resume", "", "`FILE` that keeps what is acknowledged; if it is there, go on from it")
	f.StringVar(&o.hub, "hub", "", "event `HUB` to send to (default "+defaultHub+", or the connection string's)")
	f.BoolVar(&o.byKey, "by-key", false, "choose partitions by the events' keys; without a key, by their old partition's number")
	f.IntVar(&o.rate, "rate", 0, "`NUMBER` of events a second at most (default as many as go)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only what went wrong")
	o.selectFlags.add(cmd)
	f.Lookup("from").Usage = "`POSITION` to begin at: earliest, #SEQUENCE, -15m, or a time in RFC 3339; of a hub @OFFSET too"
	f.Lookup("until").Usage = "`TIME` of the first event that is not wanted, -15m or in RFC 3339; of a hub any POSITION (default what comes after the start)"
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd, *out) }
	return cmd
}

func (o *replayOptions) check(cmd *cobra.Command) error {
	switch {
	case len(o.locations) == 0 && o.fromHub == "":
		return misused("there is nothing to replay: give --from-capture LOCATION, or --from-hub HUB")
	case len(o.locations) > 0 && o.fromHub != "":
		return misused("--from-capture and --from-hub exclude each other")
	case o.rate < 0:
		return misused("--rate can't be negative")
	}
	others, of := []string{"from-connection-string", "from-group", "resume"}, "from-hub"
	if o.fromHub != "" {
		others, of = []string{"name-format", "event-hub", "storage-connection-string", "s3-endpoint", "s3-region", "skip-damaged"}, "from-capture"
	}
	for _, name := range others {
		if cmd.Flags().Changed(name) {
			return misused("--%s goes with --%s", name, of)
		}
	}
	return nil
}

func (o *replayOptions) run(cmd *cobra.Command, out output) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	r := &replayer{replayOptions: o, damage: damageLog{skip: o.skipDamaged, to: cmd.ErrOrStderr()}, started: time.Now()}
	if o.fromHub == "" {
		files, err := o.openCaptured(ctx, r.started)
		if err != nil {
			return err
		}
		r.source, r.summary.Files = files, len(files.files)
	}
	t, hub, err := o.broker.openHub(ctx, o.hub)
	if err != nil {
		return err
	}
	client, err := t.producer(hub)
	if err != nil {
		return err
	}
	defer goodbye(client)
	r.outbox.client, r.outbox.acknowledged = client, r.settle
	r.summary.Hub, r.summary.Partitions = hub, map[string]*replayedPartition{}
	to, err := r.open(ctx, t)
	if err != nil {
		return err
	}
	if o.fromHub != "" {
		s, partitions, err := o.openSource(ctx)
		if s != nil {
			defer goodbye(s.client)
		}
		if err == nil {
			err = o.prepare(ctx, s, to, partitions, r.started)
		}
		if err != nil {
			return err
		}
		r.source, r.fromHub, r.summary.From = s, s, s.id.Hub
	}
	if err := r.fit(); err != nil {
		return err
	}
	if err := r.begin(ctx, t, cmd.ErrOrStderr()); err != nil {
		return err
	}
	if !o.quiet && out == asText && isTerminal(cmd.ErrOrStderr()) {
		r.bar = sendingBar(cmd.ErrOrStderr(), -1)
	}
	return r.finish(cmd, out, r.send(ctx))
}

// replayer sends events again.
type replayer struct {
	*replayOptions
	source     replaySource
	fromHub    *hubSource // the source, if it is a hub
	partitions []string   // of the hub that events go to
	outbox     outbox
	damage     damageLog
	started    time.Time
	summary    replaySummary
	bar        *progressbar.ProgressBar

	n int // events taken
}

// replaySummary is what replay prints at the end.
type replaySummary struct {
	Hub     string  `json:"hub"`
	From    string  `json:"fromHub,omitempty"`
	Files   int     `json:"files"`
	Damaged int     `json:"damagedFiles"`
	Events  int     `json:"events"`
	Batches int     `json:"batches"`
	Bytes   int     `json:"bytes"` // of the bodies
	Seconds float64 `json:"seconds"`
	// Found counts the events that an earlier run of a resumed replay had sent without
	// knowing that they were stored.
	Found int `json:"found,omitempty"`
	// Gone counts the events that a hub removed before they could be read.
	Gone int64 `json:"gone,omitempty"`
	// Partitions has what was read, by the partition that it was in.
	Partitions map[string]*replayedPartition `json:"partitions"`
}

// replayedPartition is how far a partition's events have come.
type replayedPartition struct {
	Events int `json:"events"` // acknowledged
	// Last is the last event that is acknowledged, with all before it.
	Last int64 `json:"lastSequenceNumber"`

	taken     int
	lastTaken int64
}

// open asks for the hub that events go to.
func (r *replayer) open(ctx context.Context, t *target) (hubID, error) {
	p, err := r.outbox.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return hubID{}, fmt.Errorf("the event hub %s can't be used: %w", r.summary.Hub, explain(err))
	}
	r.partitions = p.PartitionIDs
	return t.identify(p)
}

// fit wants the hub to have the partitions that are needed.
func (r *replayer) fit() error {
	if r.byKey {
		return nil
	}
	has := "the files have"
	if r.fromHub != nil {
		has = "the event hub " + r.summary.From + " has"
	}
	for _, id := range r.source.partitions() {
		if !slices.Contains(r.partitions, id) {
			return misused("%s events of the partition %s, and the event hub %s has %s: --by-key sends events where their keys lead, --partition some partitions' alone",
				has, id, r.summary.Hub, count(len(r.partitions), "partition"))
		}
	}
	return nil
}

// send sends what is asked for.
func (r *replayer) send(ctx context.Context) error {
	for e, err := range r.source.events(ctx) {
		if err != nil {
			if err = r.damage.take(err); err != nil {
				return errors.Join(err, r.flush(ctx))
			}
			r.summary.Damaged++
			continue
		}
		if err := r.wait(ctx); err != nil {
			return err
		}
		if err := r.take(ctx, &e); err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	if r.fromHub != nil {
		return r.fromHub.finish()
	}
	return r.damage.end()
}

// burst is how much earlier than --rate has it events may go, so that they go in
// batches.
const burst = 100 * time.Millisecond

// wait keeps to --rate.
func (r *replayer) wait(ctx context.Context) error {
	if r.rate > 0 {
		due := r.started.Add(time.Duration(float64(r.n) / float64(r.rate) * float64(time.Second)))
		if left := time.Until(due); left > burst {
			if err := r.flush(ctx); err != nil {
				return err
			}
			if err := pause(ctx, left); err != nil {
				return err
			}
		}
	}
	r.n++
	return ctx.Err()
}

// take puts an event into a batch.
func (r *replayer) take(ctx context.Context, e *replayed) error {
	id := e.partition
	to := goal{partition: id}
	if r.byKey {
		if to = (goal{key: e.key}); e.key == "" {
			n, err := strconv.Atoi(id)
			if err != nil {
				return fmt.Errorf("%s: a partition %q has no number by which another could be chosen", e.place(), id)
			}
			to.partition = r.partitions[n%len(r.partitions)]
		}
	} else if e.key != "" {
		e.message.MessageAnnotations[annotationKey] = e.key
	}
	for {
		err := r.outbox.add(ctx, to, e)
		if err == nil {
			break
		}
		if !errors.Is(err, errFull) {
			return fmt.Errorf("%s: %w", e.place(), err)
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	p := r.summary.Partitions[id]
	if p == nil {
		p = &replayedPartition{Last: -1}
		r.summary.Partitions[id] = p
	}
	p.taken++
	p.lastTaken = e.sequence
	return nil
}

// settle is told of each batch that is acknowledged. Where a batch has one
// partition's events, what is acknowledged of it is known at once. With --by-key it is
// when all batches are.
func (r *replayer) settle(to goal, b *openBatch) error {
	if r.byKey {
		return nil
	}
	p := r.summary.Partitions[to.partition]
	p.Events += int(b.NumEvents())
	p.Last = b.last
	if r.fromHub == nil {
		return nil
	}
	return r.fromHub.keepBatch(to.partition, b)
}

// flush sends the batches that are open, and counts what is acknowledged.
func (r *replayer) flush(ctx context.Context) error {
	n, err := r.outbox.flush(ctx)
	r.summary.Events, r.summary.Batches, r.summary.Bytes = r.outbox.events, r.outbox.batches, r.outbox.bytes
	if r.bar != nil {
		r.bar.Add(n) //nolint:errcheck // decoration
	}
	if err != nil {
		return err
	}
	last := map[string]int64{}
	for id, p := range r.summary.Partitions {
		p.Events, p.Last = p.taken, p.lastTaken
		last[id] = p.Last
	}
	if r.byKey && r.fromHub != nil && n > 0 {
		return r.fromHub.keep(last)
	}
	return nil
}

func (r *replayer) finish(cmd *cobra.Command, out output, err error) error {
	if r.bar != nil {
		r.bar.Finish() //nolint:errcheck // decoration
	}
	r.summary.Seconds = time.Since(r.started).Seconds()
	if r.fromHub != nil {
		r.summary.Gone = r.fromHub.gone()
	}
	switch {
	case out == asJSON:
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), r.summary))
	case !r.quiet:
		fmt.Fprintf(cmd.OutOrStdout(), "Replayed %s in %s to %s (%.1f s).\n", count(r.summary.Events, "event"), batches(r.summary.Batches), r.summary.Hub, r.summary.Seconds)
	}
	if err == nil {
		return nil
	}
	if text := r.source.goOn(r.summary.Partitions); text != "" && r.damage.files == 0 && !errors.As(err, new(*goneError)) {
		fmt.Fprintln(cmd.ErrOrStderr(), text)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(cmd.ErrOrStderr(), "Interrupted.")
		return errSaid
	}
	return err
}
