package processor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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
			if list, err = s.p.later(ctx, list); err == nil {
				s.p.seeEnds(ctx, list)
			}
			return list, err
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
// A ledger that is away is left out, since it is asked again for each event; but it is
// waited for where it alone may say where a partition goes on. To begin later instead
// would skip events, and settle them with the first that comes.
func (p *Processor) later(ctx context.Context, list []azeventhubs.Checkpoint) ([]azeventhubs.Checkpoint, error) {
	for failures := 0; ; failures++ {
		hub, err := p.client.GetEventHubProperties(ctx, nil)
		if err == nil {
			if err := p.sameHub(hub); err != nil {
				return nil, err
			}
			var joined []azeventhubs.Checkpoint
			if joined, err = p.joined(ctx, hub.PartitionIDs, list); err == nil {
				return joined, nil
			}
			if p.begun(hub.PartitionIDs, list) {
				p.log.Warn("the ledger can't be asked where it is; resuming from the checkpoints alone", "error", err)
				return list, ctx.Err()
			}
		}
		if failures == 0 {
			p.log.Warn("it can't be found out where to go on; waiting", "error", err)
		}
		if err := p.pause(ctx, failures); err != nil {
			return nil, err
		}
	}
}

// sameHub wants the hub to be the one that Run began with: in another of its name the
// same numbers are other events.
func (p *Processor) sameHub(hub azeventhubs.EventHubProperties) error {
	if generation(hub) == p.stream.Generation {
		return nil
	}
	err := &fatalError{fmt.Errorf("processor: the event hub %s was deleted and made again, and its numbers begin again: move the group's checkpoints to the earliest event before it is processed", hub.Name)}
	p.stop(err)
	return err
}

func generation(hub azeventhubs.EventHubProperties) string {
	return hub.CreatedOn.UTC().Format(time.RFC3339Nano)
}

// begun tells whether each partition has a checkpoint, or begins with its first event.
func (p *Processor) begun(partitions []string, list []azeventhubs.Checkpoint) bool {
	return !slices.ContainsFunc(partitions, func(id string) bool {
		start := p.start(id)
		return (start.Earliest == nil || !*start.Earliest) && !slices.ContainsFunc(list, func(c azeventhubs.Checkpoint) bool { return c.PartitionID == id })
	})
}

// start is where a partition begins that nothing is known of.
func (p *Processor) start(partition string) azeventhubs.StartPosition {
	if s, ok := p.o.Start.PerPartition[partition]; ok {
		return s
	}
	return p.o.Start.Default
}

// joined has the later of checkpoint and ledger for each partition.
func (p *Processor) joined(ctx context.Context, partitions []string, list []azeventhubs.Checkpoint) ([]azeventhubs.Checkpoint, error) {
	if p.o.Ledger == nil {
		return list, nil
	}
	list = slices.Clone(list)
	for _, id := range partitions {
		i := slices.IndexFunc(list, func(c azeventhubs.Checkpoint) bool { return c.PartitionID == id })
		settled, err := p.settled(ctx, id)
		switch {
		case err != nil:
			return nil, err
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

// seeEnds logs, once, where a partition ends before what is taken as done. The hub refuses
// to deliver from there, which the SDK tells nobody, or late.
func (p *Processor) seeEnds(ctx context.Context, list []azeventhubs.Checkpoint) {
	for _, c := range list {
		if c.SequenceNumber == nil {
			continue
		}
		if _, seen := p.ends.LoadOrStore(c.PartitionID, true); seen {
			continue
		}
		is, err := p.client.GetPartitionProperties(ctx, c.PartitionID, nil)
		switch {
		case err != nil: // it can't be opened either
			p.ends.Delete(c.PartitionID)
		case is.LastEnqueuedSequenceNumber < *c.SequenceNumber:
			p.log.Error("the partition ends before what is taken as done, as if the event hub had been made again: nothing is processed until its checkpoint is moved",
				"partition", c.PartitionID, "done", *c.SequenceNumber, "end", is.LastEnqueuedSequenceNumber)
		}
	}
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
	start := p.start(partition)
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
	for i, c := range list {
		if c.PartitionID == partition {
			p.seeEnds(ctx, list[i:i+1]) // the SDK tries again, and says nothing
		}
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
