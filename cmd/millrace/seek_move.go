package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
)

// seekPlan is what seek prints: what is moved, or would be.
type seekPlan struct {
	Hub        string           `json:"hub"`
	Group      string           `json:"group"`
	Container  string           `json:"container"`
	DryRun     bool             `json:"dryRun"`
	Partitions []*seekPartition `json:"partitions"`

	force bool
}

// seekPartition is where a partition's checkpoints go.
type seekPartition struct {
	ID string `json:"partition"`
	// First and Last are nil for a partition that holds nothing.
	First *int64 `json:"firstSequenceNumber"`
	Last  *int64 `json:"lastSequenceNumber"`
	// Next is the next event's sequence number, which may not have come yet.
	Next  int64       `json:"nextSequenceNumber"`
	Moves []*seekMove `json:"checkpoints"`

	extent extent
}

// seekMove is the change of one checkpoint.
type seekMove struct {
	Blob string      `json:"blob"`
	Old  *checkpoint `json:"old"` // nil: none
	New  checkpoint  `json:"new"`
	// Again and Skipped count the events that are there now. They are nil if the old
	// checkpoint doesn't say where it was.
	Again   *int64 `json:"deliveredAgain"`
	Skipped *int64 `json:"skipped"`
	Owner   *owner `json:"owner"` // nil: nobody who lives

	spelling spelling
}

func (p *seekPartition) describe(next int64) {
	p.Next = next
	if !p.extent.empty() {
		p.First, p.Last = new(p.extent.first), new(p.extent.end-1)
	}
}

// count finds out what a change means for the events that are there.
func (m *seekMove) count(in extent, next int64) {
	var old int64
	switch {
	case m.Old.Offset == "-1":
	case m.Old.Sequence == nil:
		return
	default:
		old = *m.Old.Sequence + 1
	}
	old = min(max(old, in.first), in.end)
	m.Again, m.Skipped = new(max(0, old-next)), new(max(0, next-old))
}

// move writes the new checkpoints.
func (s *seeker) move(ctx context.Context, errs io.Writer) error {
	owned := s.plan.owned()
	switch {
	case len(owned) > 0 && !s.force:
		return fmt.Errorf("nothing is moved, since consumers run: %s; they would write their own checkpoints over it: stop them, or move all the same with --force",
			strings.Join(owned, ", "))
	case len(owned) > 0:
		fmt.Fprintf(errs, "Consumers run, and may write their own checkpoints over these: %s.\n", strings.Join(owned, ", "))
	}
	if err := s.storage.create(ctx, s.store); err != nil {
		return err
	}
	store, err := checkpoints.NewBlobStore(s.store, nil)
	if err != nil {
		return err
	}
	for _, p := range s.plan.Partitions {
		for _, m := range p.Moves {
			err := store.SetCheckpoint(ctx, azeventhubs.Checkpoint{
				FullyQualifiedNamespace: m.spelling.namespace, EventHubName: m.spelling.hub, ConsumerGroup: m.spelling.group, PartitionID: p.ID,
				Offset: &m.New.Offset, SequenceNumber: m.New.Sequence,
			}, nil)
			if err != nil {
				return fmt.Errorf("the checkpoint of partition %s can't be written, and those of partitions after it are as they were: %w", p.ID, explain(err))
			}
		}
	}
	return s.recheck(ctx)
}

// recheck looks whether a consumer came while checkpoints were moved: it may have
// read the old one before.
func (s *seeker) recheck(ctx context.Context) error {
	before := s.plan.ownersOf()
	again, err := s.readGroups(ctx)
	if err != nil {
		return err
	}
	var came []string
	for _, g := range again {
		for _, p := range s.plan.Partitions {
			if o := g.live(p.ID, s.expiry); o != nil && before[g.checkpoint(p.ID)] != o.Name {
				came = append(came, o.of(p.ID))
			}
		}
	}
	if len(came) == 0 {
		return nil
	}
	return fmt.Errorf("the checkpoints are moved, but consumers came meanwhile: %s; they may have read the old ones: stop them, and seek again", strings.Join(came, ", "))
}

// ownersOf are the owners that live, by the checkpoint's blob.
func (p *seekPlan) ownersOf() map[string]string {
	all := map[string]string{}
	for _, x := range p.Partitions {
		for _, m := range x.Moves {
			if m.Owner != nil {
				all[m.Blob] = m.Owner.Name
			}
		}
	}
	return all
}

// owned says who has which partition.
func (p *seekPlan) owned() []string {
	var all []string
	for _, x := range p.Partitions {
		for _, m := range x.Moves {
			if m.Owner != nil {
				all = append(all, m.Owner.of(x.ID))
			}
		}
	}
	return all
}

func (o *owner) of(partition string) string {
	return fmt.Sprintf("partition %s is owned by %s, who renewed that %s ago", partition, o.Name, time.Duration(o.Age*float64(time.Second)).Round(time.Second))
}

// print prints the plan.
func (p *seekPlan) print(w io.Writer, out output) error {
	if out == asJSON {
		return printJSON(w, p)
	}
	several := false // spellings
	again := false   // there are events to be delivered again
	moves := 0
	for _, x := range p.Partitions {
		several = several || len(x.Moves) > 1
		moves += len(x.Moves)
		for _, m := range x.Moves {
			again = again || m.Again != nil && *m.Again > 0
		}
	}
	owned := p.owned()
	head := []string{"PARTITION", "FIRST", "LAST", "CHECKPOINT", "NEW", "NEXT EVENT", "AGAIN", "SKIPPED"}
	if several {
		head = append(head, "BLOB")
	}
	rows := [][]string{head}
	for _, x := range p.Partitions {
		for _, m := range x.Moves {
			r := []string{x.ID, numbered(x.First), numbered(x.Last), m.Old.text(), m.New.text(), numbered(&x.Next), counted(m.Again), counted(m.Skipped)}
			if several {
				r = append(r, m.Blob)
			}
			rows = append(rows, r)
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	said := fmt.Sprintf("Moved %s of %s at %s.\n", count(moves, "checkpoint"), p.Group, p.Hub)
	switch {
	case p.DryRun && len(owned) > 0 && !p.force:
		said = "Nothing is moved, nor would be without --force: " + strings.Join(owned, ", ") + ".\n"
	case p.DryRun:
		said = "Nothing is moved: this is a dry run.\n"
	}
	if again {
		said += "A consumer that keeps a ledger, such as receive --once, goes on skipping what that knows as done.\n"
	}
	_, err := io.WriteString(w, said)
	return err
}

// text is a checkpoint in a table: the last event that was processed.
func (c *checkpoint) text() string {
	switch {
	case c == nil:
		return "none"
	case c.Offset == "-1" || c.Sequence != nil && *c.Sequence < 0:
		return "earliest"
	case c.Sequence == nil:
		return "@" + c.Offset
	}
	return numbered(c.Sequence)
}

func numbered(n *int64) string {
	if n == nil {
		return "-"
	}
	return "#" + strconv.FormatInt(*n, 10)
}

func counted(n *int64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatInt(*n, 10)
}
