package store

import (
	"errors"
	"fmt"

	"github.com/millrace/millrace/event"
)

// Errors that a caller decides on. Engines wrap them with what they know.
var (
	// ErrFull: the disk has less free space than the reserve. Certainly not
	// stored; appends go on by themselves once there is space.
	ErrFull = errors.New("the data disk is full")
	// ErrUnknown: a write or a sync failed, so it is not known whether the batch
	// will be there after a restart.
	ErrUnknown = errors.New("it is unknown whether the events were stored")
	// ErrClosed: the log or the store has been closed.
	ErrClosed = errors.New("the log is closed")
	// ErrDeleted: the log has been deleted.
	ErrDeleted = errors.New("the log has been deleted")
	// ErrNotFound: no such key.
	ErrNotFound = errors.New("no such key")
)

// TooLargeError refuses a batch that can't be stored whatever the disk holds.
type TooLargeError struct{ Size, Limit int }

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a batch of %d bytes is larger than the %d bytes that a log accepts", e.Size, e.Limit)
}

// OutOfRangeError refuses to read from a number that is not retained, or not
// yet given.
type OutOfRangeError struct {
	From, First, Next event.SequenceNumber
}

// Error implements error.
func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("sequence number %d is outside %d to %d", e.From, e.First, e.Next)
}

// CorruptError names stored bytes that are not what was written. The log that
// it belongs to refuses what would need those bytes, and nothing else does.
type CorruptError struct {
	Log    LogID
	File   string // path below the data folder
	Offset int64
	Detail string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("partition %s: damage in %s at byte %d: %s", e.Log, e.File, e.Offset, e.Detail)
}

// ConflictError refuses a change to a key whose version is not the expected one.
type ConflictError struct {
	Key           string
	Expect, Found Version
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("key %q is at version %d, not %d", e.Key, e.Found, e.Expect)
}

// NotOwnerError says that another node owns the log, and which if known.
type NotOwnerError struct{ Hint string }

// Error implements error.
func (e *NotOwnerError) Error() string {
	if e.Hint == "" {
		return "another node owns this partition"
	}
	return "this partition is owned by " + e.Hint
}
