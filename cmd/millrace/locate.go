package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// lookupPatience is how long an event that has to be there may take to come.
const lookupPatience = 30 * time.Second

// extent is what a partition holds: the events from first up to, and without, end.
type extent struct {
	first, end int64
	last       azeventhubs.PartitionProperties
}

func (e extent) empty() bool { return e.first >= e.end }

// locator finds positions in the partitions of an event hub.
type locator struct {
	client *azeventhubs.ConsumerClient
	group  string // that the client reads in, for messages
}

// extent asks what a partition holds now.
func (l *locator) extent(ctx context.Context, partition string) (extent, error) {
	p, err := l.client.GetPartitionProperties(ctx, partition, nil)
	if err != nil {
		return extent{}, fmt.Errorf("partition %s: %w", partition, explain(err))
	}
	e := extent{first: p.BeginningSequenceNumber, end: p.LastEnqueuedSequenceNumber + 1, last: p}
	if p.IsEmpty {
		e.first = e.end
	}
	return e, nil
}

// next is the sequence number of the first event at or after a position. What is
// older than the oldest event is at that one; what is beyond the end of what has
// come so far, at the next that will, but for sequence numbers, which is an error.
func (l *locator) next(ctx context.Context, partition string, at azeventhubs.StartPosition, in extent) (int64, error) {
	switch {
	case at.Earliest != nil:
		return in.first, nil
	case at.Latest != nil:
		return in.end, nil
	case at.SequenceNumber != nil && *at.SequenceNumber > in.end:
		return 0, fmt.Errorf("partition %s has no event #%d: the next that comes will be #%d, which \"latest\" means", partition, *at.SequenceNumber, in.end)
	case at.SequenceNumber != nil:
		return max(*at.SequenceNumber, in.first), nil
	case in.empty():
		return in.end, nil
	}
	if at.EnqueuedTime != nil {
		// The filter has milliseconds: what is between two of them is after the first.
		since := at.EnqueuedTime.Add(time.Millisecond - 1).Truncate(time.Millisecond)
		if in.last.LastEnqueuedOn.Before(since) {
			return in.end, nil
		}
		at.EnqueuedTime = &since
	}
	e, err := l.read(ctx, partition, at)
	if errors.Is(err, context.DeadlineExceeded) {
		return 0, fmt.Errorf("partition %s: no event comes from the position that is asked for", partition)
	}
	if err != nil {
		return 0, err
	}
	return e.SequenceNumber, nil
}

// read reads the one event at a position. It owns nothing, so it takes the
// partition from nobody, but where receivers with an owner level read, a group
// lets no others in.
func (l *locator) read(ctx context.Context, partition string, at azeventhubs.StartPosition) (*azeventhubs.ReceivedEventData, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	c, err := l.client.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: at, Prefetch: -1})
	if err != nil {
		return nil, err
	}
	defer goodbye(c)
	events, err := c.ReceiveEvents(ctx, 1, nil)
	if held(err) {
		return nil, fmt.Errorf("partition %s: %w", partition, &heldError{l.group, err})
	}
	if err != nil {
		return nil, fmt.Errorf("partition %s can't be read in the group %s: %w", partition, l.group, explain(err))
	}
	return events[0], nil
}

// heldError says that a group's consumers let nobody else in.
type heldError struct {
	group string
	err   error
}

// Error implements error.
func (e *heldError) Error() string {
	return fmt.Sprintf("consumers of the group %s run, and let nobody else read in it", e.group)
}

// Unwrap returns the cause.
func (e *heldError) Unwrap() error { return e.err }

// held tells whether a group's receivers with an owner level keep others out. The
// SDK has no error of its own for a link that is refused for that.
func held(err error) bool {
	return err != nil && strings.Contains(err.Error(), "amqp:link:stolen")
}

// notFound tells whether an entity is not there, whether the link is refused or the
// token for it.
func notFound(err error) bool {
	var remote *amqp.Error
	var rpc interface {
		error
		RPCCode() int
	}
	return errors.As(err, &remote) && remote.Condition == amqp.ErrCondNotFound || errors.As(err, &rpc) && rpc.RPCCode() == http.StatusNotFound
}
