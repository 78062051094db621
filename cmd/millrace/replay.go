package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/millrace/millrace/capture/archive"
)

// replayOptions are what the flags of replay say.
type replayOptions struct {
	selectFlags
	broker    brokerFlags
	locations []string
	hub       string
	byKey     bool
	rate      int
	quiet     bool
}

func newReplay() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send captured events to an event hub again",
		Long: "Send the events of captured files to an event hub: each to the partition of the number that it was in, in\n" +
			"order, partition after partition. With --by-key, events go where their partition key leads in the new hub, which\n" +
			"may have another number of partitions; the order of one key's events is kept.\n\n" +
			"Bodies, message and application properties, partition keys and annotations are sent as the files have them;\n" +
			"they get new sequence numbers and times. Files know fewer types than AMQP: from Avro, integers come back as long,\n" +
			"timestamps as long in milliseconds, booleans as the strings True and False, lists and maps as JSON in strings; from\n" +
			"Parquet, all application properties as strings. An event without a message id gets one.\n\n" +
			"When a replay has ended early, by an interrupt or an error, it says what is acknowledged for certain and which\n" +
			"flags go on from there. A batch under way then may be stored too, and so be sent twice; a replay that is run again\n" +
			"with the same flags sends everything again.\n\n" + locationHelp,
		Example: "  millrace replay --from-capture ./captured/localhost/orders --hub orders-again\n" +
			"  millrace replay --from-capture ./captured --event-hub orders --hub trial --by-key --from -1h --rate 500",
		Args: arguments(cobra.NoArgs),
	}
	o.broker.add(cmd, false)
	f := cmd.Flags()
	f.StringArrayVar(&o.locations, "from-capture", nil, "`LOCATION` of captured files; may be repeated")
	f.StringVar(&o.hub, "hub", "", "event `HUB` to send to (default "+defaultHub+", or the connection string's)")
	f.BoolVar(&o.byKey, "by-key", false, "choose partitions by the events' keys; without a key, by their old partition's number")
	f.IntVar(&o.rate, "rate", 0, "`NUMBER` of events a second at most (default as many as go)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only what went wrong")
	o.selectFlags.add(cmd)
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd, *out) }
	return cmd
}

func (o *replayOptions) run(cmd *cobra.Command, out output) error {
	switch {
	case len(o.locations) == 0:
		return misused("there is nothing to replay: give --from-capture LOCATION")
	case o.rate < 0:
		return misused("--rate can't be negative")
	}
	q, err := o.query(time.Now())
	if err != nil {
		return err
	}
	t, err := o.broker.target()
	if err != nil {
		return err
	}
	hub, err := t.hub(o.hub)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	files, err := o.files(ctx)
	if err != nil {
		return err
	}
	if err := t.reach(ctx); err != nil {
		return err
	}
	client, err := t.producer(hub)
	if err != nil {
		return err
	}
	defer func() {
		bye, cancel := closing()
		defer cancel()
		client.Close(bye) //nolint:errcheck // everything is acknowledged, or has failed already
	}()
	r := &replayer{replayOptions: o, files: files, damage: damageLog{skip: o.skipDamaged, to: cmd.ErrOrStderr()}, started: time.Now()}
	r.outbox.client, r.summary = client, replaySummary{Hub: hub, Files: len(files), Partitions: map[string]*replayedPartition{}}
	if err := r.open(ctx); err != nil {
		return err
	}
	if !o.quiet && out == asText && isTerminal(cmd.ErrOrStderr()) {
		r.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(cmd.ErrOrStderr()), progressbar.OptionSetDescription("sending"),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return r.finish(cmd, out, r.send(ctx, q))
}

// files are those to be replayed. They are all of one event hub.
func (o *replayOptions) files(ctx context.Context) ([]*archive.File, error) {
	files, _, err := o.list(ctx, o.locations)
	if err != nil {
		return nil, err
	}
	if files, err = o.choose(files); err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errNoFiles(o.locations)
	}
	hubs := map[string]bool{}
	for _, f := range files {
		if f.Named {
			hubs[f.Of.Namespace+"/"+f.Of.EventHub] = true
		}
	}
	if len(hubs) > 1 {
		return nil, misused("there are files of %d event hubs, %s: say whose are wanted with --event-hub, or give its folder", len(hubs), joined(hubs))
	}
	if o.byKey {
		return files, nil
	}
	return files, nameless(files, "events can't be sent to the partitions that they were in, and --by-key would have to choose others")
}

func joined(set map[string]bool) string {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " and ")
}

// replayer sends captured events again.
type replayer struct {
	*replayOptions
	files      []*archive.File
	partitions []string // of the hub
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
	Files   int     `json:"files"`
	Damaged int     `json:"damagedFiles"`
	Events  int     `json:"events"`
	Batches int     `json:"batches"`
	Bytes   int     `json:"bytes"` // of the bodies
	Seconds float64 `json:"seconds"`
	// Partitions has what was read, by the partition that it was captured from.
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

// open asks for the hub, and whether it has the partitions that are needed.
func (r *replayer) open(ctx context.Context) error {
	p, err := r.outbox.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return fmt.Errorf("the event hub %s can't be used: %w", r.summary.Hub, explain(err))
	}
	r.partitions = p.PartitionIDs
	if r.byKey {
		return nil
	}
	for _, f := range r.files {
		if id := partitionOf(f); !slices.Contains(r.partitions, id) {
			return misused("the files have events of the partition %s, and the event hub %s has %s: --by-key sends events where their keys lead, --partition some partitions' alone",
				id, r.summary.Hub, count(len(r.partitions), "partition"))
		}
	}
	return nil
}

// send sends what the query asks for.
func (r *replayer) send(ctx context.Context, q archive.Query) error {
	for e, err := range archive.Events(ctx, r.files, q) {
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
		if err := r.take(ctx, e); err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
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
func (r *replayer) take(ctx context.Context, e archive.Event) error {
	m, key := again(e.Row)
	id := partitionOf(e.File)
	to := goal{partition: id}
	if r.byKey {
		if to = (goal{key: key}); key == "" {
			to.partition = r.partitions[int(e.File.Of.Partition)%len(r.partitions)]
		}
	} else if key != "" {
		m.MessageAnnotations[annotationKey] = key
	}
	for {
		err := r.outbox.add(ctx, to, m, key != "", len(e.Body))
		if err == nil {
			break
		}
		if !errors.Is(err, errFull) {
			return fmt.Errorf("%s, event %d: %w", e.File.Place(), e.Sequence, err)
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
	p.lastTaken = int64(e.Sequence)
	return nil
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
	for _, p := range r.summary.Partitions {
		p.Events, p.Last = p.taken, p.lastTaken
	}
	return nil
}

func (r *replayer) finish(cmd *cobra.Command, out output, err error) error {
	if r.bar != nil {
		r.bar.Finish() //nolint:errcheck // decoration
	}
	r.summary.Seconds = time.Since(r.started).Seconds()
	switch {
	case out == asJSON:
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), r.summary))
	case !r.quiet:
		fmt.Fprintf(cmd.OutOrStdout(), "Replayed %s in %s to %s (%.1f s).\n", count(r.summary.Events, "event"), batches(r.summary.Batches), r.summary.Hub, r.summary.Seconds)
	}
	if err == nil {
		return nil
	}
	if text := r.whereToGoOn(); text != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), text)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(cmd.ErrOrStderr(), "Interrupted.")
		return errSaid
	}
	return err
}

// whereToGoOn says how to send what is left after an early end; "" if that can't be
// said, or everything was taken.
func (r *replayer) whereToGoOn() string {
	if r.damage.files > 0 {
		return ""
	}
	var all []string
	for _, f := range r.files {
		if !f.Named {
			return ""
		}
		if id := partitionOf(f); !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	// They are read one after the other: the first of which not all that was taken is
	// acknowledged is where to go on, or else the last.
	at := 0
	for i, id := range all {
		if p := r.summary.Partitions[id]; p != nil {
			if at = i; p.taken > p.Events {
				break
			}
		}
	}
	p := r.summary.Partitions[all[at]]
	if p == nil || p.Events == 0 {
		return "To go on: --partition " + strings.Join(all[at:], ",") + "."
	}
	text := fmt.Sprintf("Partition %s is acknowledged up to #%d. To go on: --partition %s --from '#%s'", all[at], p.Last, all[at], strconv.FormatInt(p.Last+1, 10))
	if rest := all[at+1:]; len(rest) > 0 {
		text += ", and then --partition " + strings.Join(rest, ",")
	}
	return text + "."
}
