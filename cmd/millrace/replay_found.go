package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// mostFound is how many events of a target are compared at most: a batch has fewer.
const mostFound = 50_000

// begin writes the file of --resume, after a look for batches that were stored and
// whose acknowledgement the killed replay didn't live to see. If nobody else sends to a
// partition, it then holds more than the file knows of, and that is what comes next in
// the source, event for event. Of anything else nothing is concluded: the batch is sent
// again.
func (r *replayer) begin(ctx context.Context, t *target, notes io.Writer) error {
	s := r.fromHub
	switch {
	case s == nil || s.resume == nil:
		return nil
	case r.byKey: // nobody knows which partitions to look in
		return s.resume.save()
	}
	client, err := t.inspector(r.summary.Hub, azeventhubs.DefaultConsumerGroup)
	if err != nil {
		return err
	}
	defer goodbye(client)
	there := &locator{client, azeventhubs.DefaultConsumerGroup}
	for _, x := range s.ranges {
		kept := s.resume.Partitions[x.partition]
		in, err := there.extent(ctx, x.partition)
		if err != nil {
			return err
		}
		var n int64
		var why error
		if !s.fresh {
			n, why = r.storedOf(ctx, there, x, kept.TargetEnd, in)
		}
		if why != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fmt.Fprintf(notes, "Partition %s: a batch may be there twice, since it can't be told whether it was stored: %s.\n", x.partition, why)
		}
		if n > 0 {
			x.start, x.next = kept.Next+n, kept.Next+n
			kept.Next = x.next
			r.summary.Found += int(n)
		}
		kept.TargetEnd = in.end
	}
	return s.resume.save()
}

// storedOf counts the events of a range that a target's partition has after what the
// file knows of.
func (r *replayer) storedOf(ctx context.Context, there *locator, x *hubRange, from int64, in extent) (n int64, err error) {
	n = in.end - from
	switch {
	case n <= 0 || x.next >= x.end:
		return 0, nil
	case n > mostFound || n > x.end-x.next || from < in.first:
		return 0, errOthersSend
	}
	have, err := r.fromHub.extent(ctx, x.partition)
	switch {
	case err != nil:
		return 0, err
	case have.first > x.next:
		return 0, errors.New("what was sent is gone from the source")
	}
	stored, err := there.readFrom(ctx, x.partition, from, n)
	if err != nil {
		return 0, err
	}
	sent, err := r.fromHub.readFrom(ctx, x.partition, x.next, n)
	if err != nil {
		return 0, err
	}
	for i := range stored {
		if sent[i].SequenceNumber != x.next+int64(i) || !sameEvent(sent[i], stored[i]) {
			return 0, errOthersSend
		}
	}
	return n, nil
}

var errOthersSend = errors.New("there are events of others, too")

// readFrom reads n events of a partition.
func (l *locator) readFrom(ctx context.Context, partition string, from, n int64) ([]*azeventhubs.ReceivedEventData, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	c, err := l.client.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{SequenceNumber: &from, Inclusive: true}})
	if err != nil {
		return nil, err
	}
	defer goodbye(c)
	events, err := c.ReceiveEvents(ctx, int(n), nil)
	switch {
	case held(err):
		return nil, &heldError{l.group, err}
	case err != nil:
		return nil, fmt.Errorf("it can't be read: %w", explain(err))
	case int64(len(events)) < n:
		return nil, fmt.Errorf("%d of %d events come", len(events), n)
	}
	return events, nil
}

// sameEvent tells whether an event was stored as it was sent again. One that had no
// message id has got one.
func sameEvent(sent, stored *azeventhubs.ReceivedEventData) bool {
	a, key, _ := copied(sent)
	b, storedKey, _ := copied(stored)
	for _, m := range []*azeventhubs.AMQPAnnotatedMessage{a, b} {
		p := azeventhubs.AMQPAnnotatedMessageProperties{}
		if m.Properties != nil {
			p = *m.Properties
		}
		m.Properties = &p
	}
	if id := a.Properties.MessageID; id == nil || id == "" {
		a.Properties.MessageID, b.Properties.MessageID = nil, nil
	}
	return key == storedKey && reflect.DeepEqual(a, b)
}
