package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

// sendOptions are what the flags of send say.
type sendOptions struct {
	broker      brokerFlags
	hub         string
	count       int
	interval    time.Duration
	partition   string
	key         string
	properties  []string
	contentType string
	batch       int
	quiet       bool
	idempotent  bool
	retryFor    time.Duration
	givenCount  bool
	propertyMap map[string]any
}

func newSend() *cobra.Command {
	var o sendOptions
	cmd := &cobra.Command{
		Use:   "send",
		Short: "Send events: samples, or the lines of standard input",
		Long: "Send events to an event hub. With --count, sample events in JSON, one batch to each partition in turn; without,\n" +
			"the lines of standard input, an event each, as fast as they come. Any Event Hubs connection string will do.\n\n" +
			"When an acknowledgement is lost with its connection, the batch is sent again, and is then there twice. With\n" +
			"--idempotent it is not: events have numbers by which the broker knows them, and are sent again until they are\n" +
			"acknowledged, each stored once, in order, through lost connections and restarts of the broker.",
		Example: "  millrace send --hub trial --count 10 --interval 2s\n" +
			"  tail -f access.log | millrace send --hub trial --partition-key web1\n" +
			"  export-orders | millrace send --hub orders --partition 0 --idempotent",
		Args: arguments(cobra.NoArgs),
	}
	o.broker.add(cmd, false)
	f := cmd.Flags()
	f.StringVar(&o.hub, "hub", "", "event `HUB` (default "+defaultHub+", or the connection string's)")
	f.IntVar(&o.count, "count", 0, "number of sample events to send")
	f.DurationVar(&o.interval, "interval", 0, "pause between batches of sample events")
	f.StringVar(&o.partition, "partition", "", "send everything to the partition of this `ID`")
	f.StringVar(&o.key, "partition-key", "", "send everything with this `KEY`, and so to one partition")
	f.StringArrayVar(&o.properties, "property", nil, "application property, `NAME=VALUE`, of every event; may be repeated")
	f.StringVar(&o.contentType, "content-type", "", "content `TYPE` of every event (default application/json for samples)")
	f.IntVar(&o.batch, "batch", 0, "events in a batch at most (default 1 for samples; for lines as many as are waiting and fit)")
	f.BoolVar(&o.idempotent, "idempotent", false, "store each event once, whatever happens to connections and broker; batches go to one partition after the other, or to --partition")
	f.DurationVar(&o.retryFor, "retry-for", time.Minute, "how long to go on trying to have a batch acknowledged, with --idempotent")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only what went wrong")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.givenCount = f.Changed("count")
		if f.Changed("retry-for") && !o.idempotent {
			return misused("--retry-for goes with --idempotent")
		}
		return o.run(cmd, *out)
	}
	return cmd
}

func (o *sendOptions) check(in io.Reader) error {
	switch {
	case o.partition != "" && o.key != "":
		return misused("--partition and --partition-key exclude each other")
	case o.idempotent && o.key != "":
		return misused("--idempotent and --partition-key exclude each other: numbers are those of a partition, and a key leaves the choice to the broker; give --partition, or neither")
	case o.retryFor <= 0:
		return misused("--retry-for must be longer than 0")
	case o.batch < 0, o.givenCount && o.count < 1, o.interval < 0:
		return misused("--count, --batch and --interval can't be negative, and --count is 1 at least")
	case o.interval > 0 && !o.givenCount:
		return misused("--interval goes with --count; lines are sent as they come")
	case !o.givenCount && isTerminal(in):
		return misused("there is nothing to send: give --count N for sample events, or lines on standard input")
	}
	o.propertyMap = map[string]any{}
	for _, p := range o.properties {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return misused("--property %s is not of the form NAME=VALUE", p)
		}
		o.propertyMap[name] = value
	}

	return nil
}

func (o *sendOptions) run(cmd *cobra.Command, out output) error {
	if err := o.check(cmd.InOrStdin()); err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	t, hub, err := o.broker.openHub(ctx, o.hub)
	if err != nil {
		return err
	}
	client, err := t.producer(hub)
	if err != nil {
		return err
	}
	s := &sender{sendOptions: o, producer: sdkProducer{client}, started: time.Now(), errs: cmd.ErrOrStderr(), summary: sendSummary{Hub: hub, Partitions: map[string]int{}}}
	defer func() { goodbye(s.producer) }()
	if err := s.open(ctx, client); err != nil {
		return err
	}
	if o.idempotent {
		goodbye(client)
		s.producer = newIdempotentProducer(t, hub, o.retryFor, s.again)
	}
	s.report(cmd, out)
	if o.givenCount {
		err = s.samples(ctx)
	} else {
		err = s.lines(ctx, cmd.InOrStdin())
	}
	return s.finish(cmd, out, err)
}

// sender sends events, batch after batch: one is acknowledged before the next
// goes, so that their order holds.
type sender struct {
	*sendOptions
	producer   producer
	partitions []string
	turn       int // of the partitions, where batches go to each in turn
	started    time.Time
	summary    sendSummary

	say     func(format string, args ...any) // a line for a person who watches, or nothing
	bar     *progressbar.ProgressBar
	errs    io.Writer
	retried time.Time // when a person was last told of a retry
}

// sendSummary is what send prints at the end.
type sendSummary struct {
	Hub     string  `json:"hub"`
	Events  int     `json:"events"`
	Batches int     `json:"batches"`
	Bytes   int     `json:"bytes"` // of the bodies
	Seconds float64 `json:"seconds"`
	// Retries counts what was tried again, with --idempotent.
	Retries int `json:"retries,omitempty"`
	// Partitions counts the events by partition, where it is known: not when
	// the broker chose it.
	Partitions map[string]int `json:"partitions"`
}

func (s *sender) open(ctx context.Context, client *azeventhubs.ProducerClient) error {
	p, err := client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return fmt.Errorf("the event hub %s can't be used: %w", s.summary.Hub, explain(err))
	}
	s.partitions = p.PartitionIDs
	return nil
}

// watchedCount is how many samples are worth a line each.
const watchedCount = 50

// report decides what a person sees meanwhile.
func (s *sender) report(cmd *cobra.Command, out output) {
	s.say = func(string, ...any) {}
	if s.quiet || out == asJSON {
		return
	}
	if s.givenCount && (s.interval > 0 || s.count <= watchedCount) {
		s.say = func(format string, args ...any) { fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...) }
		return
	}
	if !isTerminal(cmd.ErrOrStderr()) {
		return
	}
	total := int64(-1) // unknown
	if s.givenCount {
		total = int64(s.count)
	}
	s.bar = sendingBar(cmd.ErrOrStderr(), total)
}

// sendingBar shows a person how sending goes on: of so many events, or -1.
func sendingBar(w io.Writer, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("sending"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
}

func (s *sender) finish(cmd *cobra.Command, out output, err error) error {
	if s.bar != nil {
		s.bar.Finish() //nolint:errcheck // decoration
	}
	s.summary.Seconds = time.Since(s.started).Seconds()
	switch {
	case out == asJSON:
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), s.summary))
	case !s.quiet:
		fmt.Fprintf(cmd.OutOrStdout(), "Sent %s in %s to %s (%.1f s).\n", count(s.summary.Events, "event"), batches(s.summary.Batches), s.summary.Hub, s.summary.Seconds)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(cmd.ErrOrStderr(), "Interrupted.")
		return errSaid
	}
	return err
}

func batches(n int) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}

// goal is where the next batch goes. inTurn tells whether, without flags, it is to
// a partition after the other instead of where the broker likes.
func (s *sender) goal(inTurn bool) goal {
	switch {
	case s.key != "":
		return goal{key: s.key}
	case s.partition != "":
		return goal{partition: s.partition}
	case !inTurn && !s.idempotent:
		return goal{}
	}
	s.turn++
	return goal{partition: s.partitions[(s.turn-1)%len(s.partitions)]}
}

// send sends a batch and counts it.
func (s *sender) send(ctx context.Context, b batch, to goal, bytes int) error {
	if err := s.producer.send(ctx, b); err != nil {
		return err
	}
	n := b.events()
	s.summary.Events += n
	s.summary.Batches++
	s.summary.Bytes += bytes
	if to.partition != "" {
		s.summary.Partitions[to.partition] += n
	}
	if s.bar != nil {
		s.bar.Add(n) //nolint:errcheck // decoration
	}
	return nil
}

// retryNotes is how often a person is told that something is tried again.
const retryNotes = 5 * time.Second

// again is told of a failure after which something is tried again.
func (s *sender) again(err error) {
	s.summary.Retries++
	if now := time.Now(); now.Sub(s.retried) >= retryNotes {
		s.retried = now
		if s.bar != nil {
			s.bar.Clear() //nolint:errcheck // decoration
		}
		fmt.Fprintf(s.errs, "trying again: %v\n", explain(err))
	}
}

func (s *sender) event(body []byte, contentType string) *azeventhubs.EventData {
	e := &azeventhubs.EventData{Body: body}
	if s.contentType != "" {
		contentType = s.contentType
	}
	if contentType != "" {
		e.ContentType = &contentType
	}
	if len(s.propertyMap) > 0 {
		e.Properties = s.propertyMap
	}
	return e
}
