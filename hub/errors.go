package hub

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/store"
)

// Kind sorts errors by what a client can do about them. Each server has one
// table from kind to its protocol's condition, code or status.
type Kind int

// The kinds.
const (
	// NotFound: there is no such namespace, event hub, consumer group or rule.
	NotFound Kind = iota + 1
	// AlreadyExists: an entity of that name is there already.
	AlreadyExists
	// InvalidArgument: a name, setting or selector that can't be.
	InvalidArgument
	// PartitionOutOfRange: the event hub has no partition of that id.
	PartitionOutOfRange
	// InvalidPosition: an offset or sequence number beyond the last event.
	InvalidPosition
	// TooLarge: an event or batch over the size limit.
	TooLarge
	// Unauthorized: the rule in question does not give the right.
	Unauthorized
	// Forbidden: what may not be done to this entity at all.
	Forbidden
	// QuotaExceeded: one receiver, group or event hub more than allowed.
	QuotaExceeded
	// Stolen: a receiver lost its partition to one with an epoch, or may not
	// have it because of one.
	Stolen
	// ProducerFenced: a producer's batch has an epoch that another instance of it
	// has raised since.
	ProducerFenced
	// OutOfSequence: a producer's batch does not follow its last one.
	OutOfSequence
	// Revoked: the publisher may not send any more.
	Revoked
	// Disabled: the entity's status does not allow it.
	Disabled
	// Busy: too much at once; worth a retry after RetryAfter.
	Busy
	// StorageFull: the data disk is full; worth a retry.
	StorageFull
	// Moved: the partition is being reopened, here or on another node; worth a
	// retry. Whether an append was stored is unknown.
	Moved
	// Corrupt: stored bytes are damaged.
	Corrupt
	// Closed: the broker is stopping.
	Closed
	// Internal: anything else.
	Internal
)

// Kinds returns every kind, for tests that hold a server's table complete.
func Kinds() []Kind {
	var ks []Kind
	for k := NotFound; k <= Internal; k++ {
		ks = append(ks, k)
	}
	return ks
}

var kindNames = [...]string{"", "NotFound", "AlreadyExists", "InvalidArgument", "PartitionOutOfRange", "InvalidPosition", "TooLarge",
	"Unauthorized", "Forbidden", "QuotaExceeded", "Stolen", "ProducerFenced", "OutOfSequence", "Revoked", "Disabled", "Busy", "StorageFull", "Moved", "Corrupt", "Closed", "Internal"}

// String is the constant's own name.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Error is what this package returns. Its text follows the service's, because
// clients match on it; the tracking id is the server's to add.
type Error struct {
	Kind Kind
	// Entity is the path of the entity in question, such as
	// "hub/ConsumerGroups/$Default/Partitions/0"; may be empty.
	Entity string
	// Text is what a client may be told.
	Text string
	// RetryAfter is how long to wait before trying again, when Kind is Busy.
	RetryAfter time.Duration
	// Err is the cause, for our own log.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(k Kind, entity, format string, args ...any) *Error {
	return &Error{Kind: k, Entity: entity, Text: fmt.Sprintf(format, args...)}
}

// notFound is worded as the service does: the SDKs decide by the phrase that an
// entity is missing for good (amqp.md 3.4).
func notFound(namespace, entity string) *Error {
	return fail(NotFound, entity, "The messaging entity 'sb://%s/%s' could not be found. To know more visit https://aka.ms/sbResourceMgrExceptions. ", namespace, entity)
}

// fromStore turns a storage error into this package's.
func fromStore(err error, entity string) error {
	if err == nil {
		return nil
	}
	var he *Error
	if errors.As(err, &he) {
		return err
	}
	e := &Error{Entity: entity, Err: err}
	var large *store.TooLargeError
	var corrupt *store.CorruptError
	var owner *store.NotOwnerError
	switch {
	case errors.Is(err, store.ErrFull):
		e.Kind, e.Text = StorageFull, "The storage of the broker is full. Events can be read; sending is possible again when there is space."
	case errors.Is(err, store.ErrDeleted):
		e.Kind, e.Text = NotFound, fmt.Sprintf("The messaging entity '%s' could not be found. It has been deleted.", entity)
	case errors.Is(err, store.ErrClosed):
		e.Kind, e.Text = Closed, "The broker is shutting down."
	case errors.As(err, &large):
		e.Kind, e.Text = TooLarge, fmt.Sprintf("The batch of %d bytes exceeds the limit of %d bytes.", large.Size, large.Limit)
	case errors.As(err, &corrupt):
		e.Kind, e.Text = Corrupt, fmt.Sprintf("The stored events of '%s' are damaged; the broker's log says where.", entity)
	case errors.Is(err, store.ErrUnknown), errors.As(err, &owner):
		e.Kind, e.Text = Moved, "The partition is being reopened. It is unknown whether the events were stored; please retry."
	default:
		e.Kind, e.Text = Internal, "The broker was unable to process the request; please retry the operation."
	}
	return e
}
