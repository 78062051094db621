package processor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// resumingStore is a checkpoint store whose checkpoints are as late as the ledger.
type resumingStore struct {
	azeventhubs.CheckpointStore
	p *Processor
}

// ListCheckpoints has, for each partition, the later of checkpoint and ledger. It does
// not return while the store is away: the SDK's Processor would never again open a
// partition that it could not read the checkpoint of.
func (s *resumingStore) ListCheckpoints(ctx context.Context, namespace, hub, group string, o *azeventhubs.ListCheckpointsOptions) ([]azeventhubs.Checkpoint, error) {
	if !strings.EqualFold(namespace, s.p.o.Namespace) || !strings.EqualFold(group, s.p.o.Group) {
		err := fmt.Errorf("processor: the client is of the namespace %s and the consumer group %s, and the Options say %s and %s", namespace, group, s.p.o.Namespace, s.p.o.Group)
		s.p.stop(err)
		return nil, err
	}
	for failures := 0; ; failures++ {
		list, err := s.CheckpointStore.ListCheckpoints(ctx, namespace, hub, group, o)
		if err == nil {
			return s.p.later(ctx, list)
		}
		if failures == 0 {
			s.p.log.Warn("the checkpoints can't be read; trying again", "error", err)
		}
		if err := s.p.pause(ctx, failures); err != nil {
			return nil, err
		}
	}
}

// ClaimOwnership also notes which partitions are not this process's any more.
func (s *resumingStore) ClaimOwnership(ctx context.Context, wanted []azeventhubs.Ownership, o *azeventhubs.ClaimOwnershipOptions) ([]azeventhubs.Ownership, error) {
	got, err := s.CheckpointStore.ClaimOwnership(ctx, wanted, o)
	if err == nil {
		s.p.keep(got)
	}
	return got, err
}

// later replaces checkpoints that the ledger is beyond, and adds those that are missing.
// A ledger that is away is left out: it is asked again for each event.
func (p *Processor) later(ctx context.Context, list []azeventhubs.Checkpoint) ([]azeventhubs.Checkpoint, error) {
	if p.o.Ledger == nil {
		return list, nil
	}
	hub, err := p.client.GetEventHubProperties(ctx, nil)
	if err != nil {
		p.log.Warn("the event hub can't be asked for its partitions; resuming from the checkpoints alone", "error", err)
		return list, ctx.Err()
	}
	for _, id := range hub.PartitionIDs {
		i := slices.IndexFunc(list, func(c azeventhubs.Checkpoint) bool { return c.PartitionID == id })
		settled, err := p.settled(ctx, id)
		switch {
		case err != nil:
			p.log.Warn("the ledger can't be asked where it is; resuming from the checkpoints alone", "error", err)
			return list, ctx.Err()
		case settled < 0 || i >= 0 && list[i].SequenceNumber != nil && *list[i].SequenceNumber >= settled:
			continue
		case i < 0:
			i = len(list)
			list = append(list, azeventhubs.Checkpoint{})
		}
		if list[i].SequenceNumber != nil {
			p.log.Info("going on after what the ledger knows as done, beyond the checkpoint", "partition", id, "sequence", settled, "checkpoint", *list[i].SequenceNumber)
		}
		list[i] = azeventhubs.Checkpoint{
			FullyQualifiedNamespace: p.stream.Namespace, EventHubName: p.stream.Hub, ConsumerGroup: p.stream.Group,
			PartitionID: id, SequenceNumber: &settled,
		}
	}
	return list, nil
}

// settled is up to where the ledger knows everything of a partition as done, or -1.
func (p *Processor) settled(ctx context.Context, partition string) (int64, error) {
	s := p.stream
	s.Partition = partition
	ctx, cancel := context.WithTimeout(ctx, farewell) // a database that hangs says nothing
	defer cancel()
	status, err := p.o.Ledger.Status(ctx, s)
	if err != nil {
		return 0, err
	}
	return status.Settled, nil
}

// resume is where a partition that is not shared is to be opened.
func (p *Processor) resume(ctx context.Context, partition string) (azeventhubs.StartPosition, error) {
	start := p.o.Start.Default
	if s, ok := p.o.Start.PerPartition[partition]; ok {
		start = s
	}
	var list []azeventhubs.Checkpoint
	if p.store != nil {
		var err error
		if list, err = p.store.ListCheckpoints(ctx, p.stream.Namespace, p.stream.Hub, p.stream.Group, nil); err != nil {
			return start, fmt.Errorf("the checkpoints can't be read: %w", err)
		}
	}
	list, err := p.later(ctx, list)
	if err != nil {
		return start, err
	}
	for _, c := range list {
		switch {
		case c.PartitionID != partition:
		case c.Offset != nil:
			p.log.Info("going on after the checkpoint", "partition", partition, "offset", *c.Offset)
			return azeventhubs.StartPosition{Offset: c.Offset}, nil
		case c.SequenceNumber != nil:
			p.log.Info("going on after what is done", "partition", partition, "sequence", *c.SequenceNumber)
			return azeventhubs.StartPosition{SequenceNumber: c.SequenceNumber}, nil
		}
	}
	return start, nil
}
