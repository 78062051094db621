package once

import (
	"context"
	"time"
)

// Ledger records which events are claimed and which are done. All of it is safe for
// concurrent use, by any number of processes where the ledger is a server.
//
// An event is unseen, claimed by one claimer until a time, or done. A call concerns
// each event by itself: a batch is not all or nothing, unless a ledger says so. When a
// call fails, some of it may have come to pass; a claim of it ends with its lease.
// Events that can't be kept are refused with [ErrInvalid] before anything is done.
type Ledger interface {
	// Claim claims the events that are unseen, or whose claim is over, for the lease
	// from now on, and answers for each, in their order. The whole milliseconds of the
	// lease count, of which it needs one. An event that is in the call twice is
	// claimed, and busy.
	Claim(ctx context.Context, events []Event, lease time.Duration) ([]Claim, error)

	// Mark marks claimed events as done. Those of which somebody else has become the
	// claimer since are in a [LostError]; the others are marked. A claim whose lease
	// is over, but that nobody else holds, is as good as any; and one that is marked
	// already may be marked again. Of an event that is settled meanwhile nobody knows
	// by whom: it is lost if the lease is over.
	Mark(ctx context.Context, claims []Claim) error

	// Extend has claims last for the lease from now on, whether it was over or not, and
	// answers with them in their order, with their new Until. Those that Mark would find
	// lost are in a [LostError]; they are answered as they were, and the others extended.
	// One that is marked already stays so. One that the ledger knows nothing of is taken
	// again, so a claim is not to be extended once it is released.
	Extend(ctx context.Context, claims []Claim, lease time.Duration) ([]Claim, error)

	// Release gives claims up that are not marked. It is no error if one is held by
	// somebody else by now.
	Release(ctx context.Context, claims []Claim) error

	// Settle marks everything up to and including a sequence number, seen or unseen,
	// and forgets what it knew of it. It is right for the number of a checkpoint that
	// has been written: what is below is done, or given up. It never goes back.
	Settle(ctx context.Context, s Stream, through int64) error

	// Status says what is kept of a stream.
	Status(ctx context.Context, s Stream) (Status, error)
}

// State is what a ledger answers of an event that is to be claimed.
type State uint8

// The states of an event, for who asks.
const (
	Claimed State = iota + 1 // by who asks: process it, then mark it or give it up
	Done                     // skip it
	Busy                     // somebody else claims it, until a time
)

// String returns the state in a word.
func (s State) String() string {
	switch s {
	case Claimed:
		return "claimed"
	case Done:
		return "done"
	case Busy:
		return "busy"
	}
	return "unknown"
}

// Claim is what a ledger answers of an event. It is marked as it was given.
type Claim struct {
	Event Event
	State State

	// Token is larger than that of every earlier claim of the event, and of every
	// event in its book. A store that keeps the largest that it was given, and refuses
	// lower ones, is safe from a claimer that wakes up late.
	Token int64

	// Until is when the claim, of who asks or of somebody else, is over, by the
	// ledger's clock.
	Until time.Time
}

// Status is what a ledger keeps of a stream.
type Status struct {
	Settled int64 // everything up to it is done; -1 for nothing
	Marks   int   // events beyond that are done
	Claims  int   // events beyond that are or were claimed, and are not done
}
