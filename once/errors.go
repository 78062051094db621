package once

import (
	"errors"
	"fmt"
	"time"
)

// ErrLease is the cause with which the context of a function ends when its lease is
// over, since it could not be extended: from then on somebody else may have the event.
var ErrLease = errors.New("once: the lease of the claim is over")

// ErrTimeout is the cause with which the context of a function ends that has run for as
// long as a [Runner] lets it.
var ErrTimeout = errors.New("once: the function has run for longer than its time-out")

// ErrShortLease refuses a lease of less than a millisecond.
var ErrShortLease = errors.New("once: a lease is a millisecond at least")

// BusyError says that somebody else claims an event. It is not done: who goes on with
// the next ones must not write a checkpoint beyond it.
type BusyError struct {
	Event Event
	Until time.Time // when the claim is over, by the ledger's clock
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("once: somebody else claims %s until %s", e.Event, e.Until.UTC().Format(time.RFC3339Nano))
}

// MarkError says that a function has succeeded, and that it is not known whether its
// events are marked. They may be done: delivered again, they are skipped if the mark
// came to pass, and processed a second time if not. Marking the claims again settles
// it, while the ledger can be reached and their lease lasts.
type MarkError struct {
	Claims []Claim
	Err    error
}

func (e *MarkError) Error() string {
	return fmt.Sprintf("once: %s succeeded, and may not be marked: %v", several(e.Claims), e.Err)
}

// Unwrap returns why.
func (e *MarkError) Unwrap() error { return e.Err }

// LostError says that claims were over when they were to be marked or extended, and
// somebody else had become the claimer: what was done for these events may be done twice.
type LostError struct {
	Claims []Claim
}

func (e *LostError) Error() string {
	return fmt.Sprintf("once: the claim was over, and is somebody else's: %s", several(e.Claims))
}

func several(claims []Claim) string {
	switch len(claims) {
	case 0:
		return "no event"
	case 1:
		return claims[0].Event.String()
	}
	return fmt.Sprintf("%s and %d more", claims[0].Event, len(claims)-1)
}
