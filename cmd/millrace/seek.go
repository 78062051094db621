package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/spf13/cobra"
)

// seekOptions are what the flags of seek say.
type seekOptions struct {
	broker      brokerFlags
	storage     storageFlags
	hub, group  string
	lookupGroup string
	to          string
	partitions  []uint
	dryRun      bool
	force       bool
	expiry      time.Duration
}

func newSeek() *cobra.Command {
	var o seekOptions
	cmd := &cobra.Command{
		Use:   "seek",
		Short: "Move the checkpoints of a consumer group",
		Long: "Move the checkpoints of a consumer group, so that its consumers go on from another position: the event at\n" +
			"--to is the next that they get. The checkpoints are those that the SDKs keep in a blob container, of any language,\n" +
			"and of \"millrace receive\"; any Event Hubs connection string and any storage account will do.\n\n" +
			"A position is earliest, latest, #SEQUENCE, @OFFSET, or the first event at or after a time: -15m, or RFC 3339. What\n" +
			"is older than the oldest event means that one. earliest is written as the checkpoint -1, which every SDK takes for\n" +
			"the beginning, whatever its default is. --dry-run shows what would change, and changes nothing.\n\n" +
			"A consumer that runs reads its checkpoint once, when it claims a partition, and then writes its own over it: stop\n" +
			"them first. A partition is taken to be owned when its owner has renewed that within --ownership-expiry; it is then\n" +
			"not moved, nor is any other, unless --force is given. The default is the longest of the SDKs' own, of .NET's.\n\n" +
			"Positions between the oldest event and the end have to be looked up in the hub, in the group itself. Where its\n" +
			"consumers run they let nobody in; --lookup-group names another group to read in.\n\n" +
			"Go's SDK names the blobs as namespace, hub and group are given, the others in lower case, and Java's without a\n" +
			"port. Those that the group has are moved; if it has none, all are written.",
		Example: "  millrace seek --hub orders --group audit --to -2h --dry-run\n" +
			"  millrace seek --hub orders --to '#1200' --partition 3\n" +
			"  millrace seek --hub orders --to earliest --container azure-webjobs-eventhub",
		Args: arguments(cobra.NoArgs),
	}
	o.broker.add(cmd, false)
	o.storage.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.hub, "hub", "", "event `HUB` (default "+defaultHub+", or the connection string's)")
	f.StringVar(&o.group, "group", azeventhubs.DefaultConsumerGroup, "consumer `GROUP`")
	f.StringVar(&o.to, "to", "", "`POSITION` of the next event: earliest, latest, @OFFSET, #SEQUENCE, -15m, or a time in RFC 3339")
	f.UintSliceVar(&o.partitions, "partition", nil, "`NUMBER` of the one partition that is meant; may be repeated (default all)")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would change, and change nothing")
	f.BoolVar(&o.force, "force", false, "move checkpoints of partitions that are owned, too")
	f.DurationVar(&o.expiry, "ownership-expiry", 2*time.Minute, "how long after its last renewal an owner is taken to live")
	f.StringVar(&o.lookupGroup, "lookup-group", "", "consumer `GROUP` to look events up in (default that of --group)")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd, *out) }
	return cmd
}

func (o *seekOptions) run(cmd *cobra.Command, out output) error {
	switch {
	case o.to == "":
		return misused("where to? Give --to POSITION")
	case o.expiry <= 0:
		return misused("--ownership-expiry is more than 0; --force moves checkpoints that are owned")
	}
	to, err := parsePosition("to", o.to, time.Now())
	if err != nil {
		return &usageError{err}
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	t, hub, err := o.broker.openHub(ctx, o.hub)
	if err != nil {
		return err
	}
	s := &seeker{seekOptions: o, target: t, plan: seekPlan{Group: o.group, Container: o.storage.container, DryRun: o.dryRun, force: o.force}}
	if s.store, err = o.storage.open(t); err != nil {
		return err
	}
	client, err := t.inspector(hub, o.group)
	if err != nil {
		return err
	}
	defer goodbye(client)
	s.group = locator{client, o.group}
	s.lookup = s.group
	if o.lookupGroup != "" && o.lookupGroup != o.group {
		other, err := t.inspector(hub, o.lookupGroup)
		if err != nil {
			return err
		}
		defer goodbye(other)
		s.lookup = locator{other, o.lookupGroup}
	}
	if err := s.open(ctx, hub); err != nil {
		return err
	}
	if err := s.decide(ctx, to); err != nil {
		return err
	}
	if !o.dryRun {
		if err := s.move(ctx, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	return s.plan.print(cmd.OutOrStdout(), out)
}

// seeker moves the checkpoints of a group.
type seeker struct {
	*seekOptions
	target        *target
	store         *container.Client
	group, lookup locator
	names         []spelling
	blobs         []*groupBlobs // those to be moved
	plan          seekPlan
}

// open asks for the hub, the group and what is kept of it.
func (s *seeker) open(ctx context.Context, hub string) error {
	p, err := s.group.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return fmt.Errorf("the event hub %s can't be used: %w", hub, explain(err))
	}
	s.plan.Hub = p.Name
	wanted := p.PartitionIDs
	if len(s.partitions) > 0 {
		wanted = nil
		for _, n := range s.partitions {
			id := strconv.FormatUint(uint64(n), 10)
			if !slices.Contains(p.PartitionIDs, id) {
				return misused("the event hub %s has no partition %s; it has %s", p.Name, id, strings.Join(p.PartitionIDs, ", "))
			}
			if !slices.Contains(wanted, id) {
				wanted = append(wanted, id)
			}
		}
	}
	for _, id := range wanted {
		in, err := s.group.extent(ctx, id)
		if err != nil {
			return err
		}
		s.plan.Partitions = append(s.plan.Partitions, &seekPartition{ID: id, extent: in})
	}
	namespace, err := s.target.namespace()
	if err != nil {
		return err
	}
	s.names = spellings(namespace, []string{p.Name, hub}, s.seekOptions.group)
	if s.blobs, err = s.readGroups(ctx); err != nil {
		return err
	}
	return s.askForGroup(ctx)
}

// askForGroup wants the hub to have the group, if it has not been at work before:
// most would be misspelt. Nothing but a receiver can ask for that with the right to
// listen alone.
func (s *seeker) askForGroup(ctx context.Context) error {
	if s.blobs[0].used() {
		return nil
	}
	for _, p := range s.plan.Partitions {
		if p.extent.empty() {
			continue
		}
		_, err := s.group.read(ctx, p.ID, azeventhubs.StartPosition{Earliest: new(true)})
		if notFound(err) {
			return err
		}
		return ctx.Err() // a group that lets nobody in is there
	}
	return nil
}

// readGroups reads what is kept of the group, in the spellings that it uses: in all
// but the hub's name as given, if it uses none.
func (s *seeker) readGroups(ctx context.Context) ([]*groupBlobs, error) {
	// By the store's own clock, which also wrote when owners renewed.
	now := time.Now()
	props, err := s.store.GetProperties(ctx, nil)
	switch {
	case bloberror.HasCode(err, bloberror.ContainerNotFound):
	case err != nil:
		return nil, fmt.Errorf("the container %s can't be used for checkpoints: %w", s.storage.container, explain(err))
	case props.Date != nil:
		now = *props.Date
	}
	var all, used []*groupBlobs
	for _, name := range s.names {
		g, err := readGroup(ctx, s.store, name, now)
		if err != nil {
			return nil, err
		}
		if g.used() {
			used = append(used, g)
		}
		if name.hub == s.plan.Hub || name.hub == strings.ToLower(s.plan.Hub) {
			all = append(all, g)
		}
	}
	if len(used) > 0 {
		return used, nil
	}
	return all, nil
}

// decide finds out what the new checkpoints are.
func (s *seeker) decide(ctx context.Context, to azeventhubs.StartPosition) error {
	for _, p := range s.plan.Partitions {
		next, err := s.lookup.next(ctx, p.ID, to, p.extent)
		if err != nil {
			return s.lookupAdvice(err)
		}
		made, err := s.before(ctx, p, next)
		if err != nil {
			return s.lookupAdvice(err)
		}
		p.describe(next)
		for _, g := range s.blobs {
			m := &seekMove{Blob: g.checkpoint(p.ID), New: made, Owner: g.live(p.ID, s.expiry), spelling: g.spelling}
			if old, ok := g.checkpoints[p.ID]; ok {
				m.Old = &old
				m.count(p.extent, next)
			}
			p.Moves = append(p.Moves, m)
		}
	}
	return nil
}

// before is the checkpoint after which an event is the next.
//
// Consumers go by the offset and have the sequence number beside it; Go's and Python's
// stop at a checkpoint without both. An offset can't be calculated: in the cloud it
// is what it is. So it is that of the event before, or of the last event from the
// partition's properties, or else -1: "x-opt-offset > '-1'" is how all SDKs ask for
// the earliest, so a checkpoint of -1 is taken by all. (To remove the checkpoint
// would leave it to each consumer's default, which is the end for most.)
func (s *seeker) before(ctx context.Context, p *seekPartition, next int64) (checkpoint, error) {
	last := p.extent.last
	switch {
	case next == p.extent.end && last.LastEnqueuedSequenceNumber >= 0 && last.LastEnqueuedOffset != "":
		return checkpoint{new(last.LastEnqueuedSequenceNumber), last.LastEnqueuedOffset}, nil
	case next <= p.extent.first:
		return checkpoint{new(int64(-1)), "-1"}, nil
	}
	n := next - 1
	e, err := s.lookup.read(ctx, p.ID, azeventhubs.StartPosition{SequenceNumber: &n, Inclusive: true})
	switch {
	case err != nil:
		return checkpoint{}, err
	case e.SequenceNumber != n:
		return checkpoint{}, fmt.Errorf("partition %s has no event #%d any more, whose offset the checkpoint needs; the next that it has is #%d: seek again, or to that one", p.ID, n, e.SequenceNumber)
	}
	return checkpoint{&e.SequenceNumber, e.Offset}, nil
}

// lookupAdvice says what to do where a group's consumers let nobody in.
func (s *seeker) lookupAdvice(err error) error {
	if errors.As(err, new(*heldError)) {
		return fmt.Errorf("%w: stop them, or name another consumer group to look events up in with --lookup-group", err)
	}
	return err
}
