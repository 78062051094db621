package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

// benchOptions are what the flags of bench say.
type benchOptions struct {
	broker     brokerFlags
	hub        string
	events     int
	size       int
	partitions int
	rate       int
	duration   time.Duration
	clients    []string
	runs       []string
	pid        int
	sync       string
}

// The things that can be measured, and with what.
var (
	benchRuns    = []string{"produce", "consume", "latency"}
	benchClients = []string{"sdk", "amqp"}
)

func newBench() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast a broker stores and delivers events on this machine",
		Long: "Measure producing, consuming and latency. Without --connection-string a broker is started for it, with a\n" +
			"temporary folder; otherwise the broker may be any, and an event hub is made for it and removed, unless --hub\n" +
			"names one.\n\n" +
			"Two clients are used: sdk is the Azure SDK for Go, whose own cost bounds what it can show, and amqp is a plain\n" +
			"AMQP client that sends the SDK's batch format. Figures of one run say little on a busy machine; compare\n" +
			"several. Broker CPU is known for a broker started here, or with --pid (Linux).",
		Args: arguments(cobra.NoArgs),
	}
	o.broker.add(cmd, true)
	f := cmd.Flags()
	f.StringVar(&o.hub, "hub", "", "existing event `HUB` to use, instead of one made for it")
	f.IntVar(&o.events, "events", 200_000, "events to produce and to consume")
	f.IntVar(&o.size, "size", 1024, "`BYTES` of an event")
	f.IntVar(&o.partitions, "partitions", 1, "partitions of the event hub that is made")
	f.IntVar(&o.rate, "rate", 1000, "events a second when latency is measured")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "how long latency is measured")
	f.StringSliceVar(&o.clients, "client", benchClients, "`CLIENTS` to use: sdk, amqp")
	f.StringSliceVar(&o.runs, "run", benchRuns, "what to measure, `RUNS`: produce, consume, latency")
	f.IntVar(&o.pid, "pid", 0, "process `ID` of a running broker on this machine, for its CPU time")
	f.StringVar(&o.sync, "sync", "always", "durability `POLICY` of the broker that is started")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd, *out) }
	return cmd
}

func (o *benchOptions) check() error {
	if o.events < 1 || o.size < 8 || o.size > 1<<20-1024 || o.partitions < 1 || o.rate < 1 || o.duration <= 0 {
		return misused("--events, --partitions, --rate and --duration are 1 at least, and --size is from 8 to %d", 1<<20-1024)
	}
	for _, list := range []struct {
		flag        string
		have, known []string
	}{{"client", o.clients, benchClients}, {"run", o.runs, benchRuns}} {
		for _, x := range list.have {
			if !slices.Contains(list.known, x) {
				return misused("--%s %s is not one of %s", list.flag, x, strings.Join(list.known, ", "))
			}
		}
	}
	return nil
}

func (o *benchOptions) run(cmd *cobra.Command, out output) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	if o.broker.connectionString == "" && os.Getenv(envConnectionString) == "" {
		p, err := startBroker(ctx, o.sync)
		if err != nil {
			return err
		}
		defer p.stop()
		o.broker.connectionString, o.broker.url, o.pid = p.endpoints.ConnectionString, "http://"+p.endpoints.HTTP, p.pid()
		if out == asText {
			fmt.Fprintf(cmd.ErrOrStderr(), "Started a broker with --sync %s and its data in %s.\n", o.sync, p.dir)
		}
	}
	t, err := o.broker.target()
	if err != nil {
		return err
	}
	b := &bench{benchOptions: o, target: t, payloads: newPayloads(o.size)}
	if b.hub, err = t.hub(o.hub); err != nil {
		return err
	}
	if o.hub == "" && t.cs.EntityPath == "" {
		remove, err := b.makeHub(ctx)
		if err != nil {
			return err
		}
		defer remove()
	}
	results, err := b.measure(ctx, func(r *benchResult) {
		if out == asText {
			fmt.Fprintln(cmd.OutOrStdout(), r)
		}
	})
	if err == nil && out == asJSON {
		return printJSON(cmd.OutOrStdout(), results)
	}
	return err
}

// bench measures one event hub.
type bench struct {
	*benchOptions
	target   *target
	hub      string
	payloads *payloads
}

// makeHub makes an event hub for the measurement.
func (b *bench) makeHub(ctx context.Context) (remove func(), err error) {
	c, err := b.target.admin()
	if err != nil {
		return nil, err
	}
	b.hub = fmt.Sprintf("bench-%s", newUUID()[:8])
	if _, err := c.CreateHub(ctx, admin.NewHub{Name: b.hub, Partitions: b.partitions}); err != nil {
		return nil, fmt.Errorf("an event hub for the measurement can't be made: %w; name an existing one with --hub", err)
	}
	return func() {
		bye, cancel := closing()
		defer cancel()
		c.DeleteHub(bye, b.hub) //nolint:errcheck // the broker is being stopped, or says so in its log
	}, nil
}

// load is a client that the hub is measured with.
type load interface {
	// produce sends n events, and returns when all are acknowledged.
	produce(ctx context.Context, n int) error
	// consume receives n events from the start.
	consume(ctx context.Context, n int) error
	// latency sends rate events a second, and returns how long they took to be
	// acknowledged and to arrive.
	latency(ctx context.Context) (ack, arrival []time.Duration, err error)
	close()
}

func (b *bench) measure(ctx context.Context, each func(*benchResult)) ([]*benchResult, error) {
	results := []*benchResult{}
	for _, name := range b.clients {
		l, err := b.open(ctx, name)
		if err != nil {
			return results, err
		}
		for _, run := range benchRuns { // producing comes before consuming
			if !slices.Contains(b.runs, run) {
				continue
			}
			r, err := b.one(ctx, l, name, run)
			if err != nil {
				l.close()
				return results, fmt.Errorf("%s with %s: %w", run, name, explain(err))
			}
			each(r)
			results = append(results, r)
		}
		l.close()
	}
	return results, nil
}

func (b *bench) open(ctx context.Context, client string) (load, error) {
	if err := b.target.reach(ctx); err != nil {
		return nil, err
	}
	if client == "sdk" {
		return openSDKLoad(ctx, b)
	}
	return openAMQPLoad(ctx, b)
}

func (b *bench) one(ctx context.Context, l load, client, run string) (*benchResult, error) {
	r := &benchResult{Client: client, Run: run, Events: b.events, Size: b.size, Partitions: b.partitions}
	before, known := processorTime(b.pid)
	start := time.Now()
	var err error
	switch run {
	case "produce":
		err = l.produce(ctx, b.events)
	case "consume":
		err = l.consume(ctx, b.events)
	case "latency":
		var ack, arrival []time.Duration
		ack, arrival, err = l.latency(ctx)
		r.Events, r.Ack, r.Arrival = len(ack), percentiles(ack), percentiles(arrival)
	}
	r.Seconds = time.Since(start).Seconds()
	if err != nil {
		return nil, err
	}
	r.EventsPerSecond = float64(r.Events) / r.Seconds
	r.MBPerSecond = r.EventsPerSecond * float64(b.size) / 1e6
	if known && run != "latency" { // whose pace is not the broker's
		pause(ctx, settle) //nolint:errcheck // what the broker does a moment later counts too
		after, _ := processorTime(b.pid)
		perMillion := (after - before).Seconds() / float64(r.Events) * 1e6
		r.BrokerCPU = &perMillion
		r.BrokerPeakRSS = peakMemory(b.pid)
	}
	return r, nil
}

// settle is how long after a run the broker's work still belongs to it.
const settle = 300 * time.Millisecond
