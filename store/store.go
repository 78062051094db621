// Package store is the contract of storage: what the hub asks of an engine,
// and what every engine promises. It holds no engine; store/segment is the one
// for a single machine, and store/storetest is the suite that each passes.
//
// It knows batches, records and positions, and nothing of hubs' rules or of
// protocols.
package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/event"
)

// LogID names a log: a partition of an event hub. Hub is the hub's own number,
// given once at its creation and never again, so that a hub deleted and made
// anew under the same name has nothing in common with its predecessor.
type LogID struct {
	Hub       uint64
	Partition uint32
}

// String is the id as it stands in messages and folder names: the hub's number
// in sixteen hexadecimal digits, a slash, the partition in decimal.
func (id LogID) String() string { return fmt.Sprintf("%016x/%d", id.Hub, id.Partition) }

// ParseLogID reads what String wrote.
func ParseLogID(s string) (LogID, error) {
	h, p, ok := strings.Cut(s, "/")
	hub, err1 := strconv.ParseUint(h, 16, 64)
	part, err2 := strconv.ParseUint(p, 10, 32)
	id := LogID{Hub: hub, Partition: uint32(part)}
	if !ok || err1 != nil || err2 != nil || id.String() != s {
		return LogID{}, fmt.Errorf("%q is not a log id", s)
	}
	return id, nil
}

// LogConfig is what a log needs to know of its hub.
type LogConfig struct {
	// Retention is how long events are kept. Segments roll at a sixteenth of
	// it, five minutes at least, so that space comes back in steps. Zero means
	// no limit: segments roll by size alone.
	Retention time.Duration
	// Bytes is how much is kept. Segments roll at an eighth of it, so that space
	// comes back in steps. Zero means no limit.
	Bytes int64
}

// Bounds is what a log holds at one moment.
type Bounds struct {
	First event.SequenceNumber // the oldest event retained; equal to Next when there is none
	Next  event.SequenceNumber // the number that the next event will get
	// LastEnqueued is the enqueued time of event Next-1, in Unix milliseconds,
	// kept even when that event is no longer retained; 0 when Next is 0.
	LastEnqueued int64
	// Bytes is how much the retained events take up on disk.
	Bytes int64
}

// Empty tells whether no event is retained.
func (b Bounds) Empty() bool { return b.First == b.Next }

// Reader reads a log. Reading is open on any node. A Reader remembers where it
// last read, so each consumer opens its own; it is for one goroutine at a time,
// except Bounds and Notify, which any may call.
type Reader interface {
	// Read returns consecutive records, the first of which holds from, up to
	// max bytes but at least one whole record. At the tail it returns an empty
	// chunk at once. The caller closes the chunk. Errors: *OutOfRangeError when
	// from is older than what is retained, or newer than the tail;
	// *CorruptError, which is never turned into a skip.
	Read(ctx context.Context, from event.SequenceNumber, max int) (*event.Chunk, error)
	// Recent is Read for what is in memory, or at the tail: it never waits. It
	// returns false for everything else, errors among it; Read then says more.
	Recent(from event.SequenceNumber, max int) (*event.Chunk, bool)
	// Seek returns the number of the first event enqueued at or after the given
	// time, in Unix milliseconds; Next when there is none yet.
	Seek(ctx context.Context, enqueued int64) (event.SequenceNumber, error)
	// Bounds is what the log holds now. The only cost of a log that is not open
	// is to look at where it ends.
	Bounds(ctx context.Context) (Bounds, error)
	// Notify calls fn once, as soon as an event after the given one is visible
	// (at once if it is), or the log ends. fn must not block. stop withdraws it;
	// afterwards fn may still be running, but won't start.
	Notify(after event.SequenceNumber, fn func()) (stop func())
	// Close frees what the reader holds.
	Close() error
}

// Log is a Reader that owns its partition: this node, and no other, may append.
type Log interface {
	Reader
	// Append stores b. It returns at once; done runs exactly once, in the order
	// of the appends, when b is durable under the engine's policy and visible,
	// with First and Enqueued set, or when it failed: ErrFull, *TooLargeError
	// and *CorruptError mean certainly not stored, ErrUnknown that it may yet
	// appear. The log owns b until then. done must not block, and may append.
	Append(b *event.Batch, done func(error))
	// Trim makes the events before a number unreadable, durably; their space
	// comes back as whole files are left behind.
	Trim(ctx context.Context, before event.SequenceNumber) error
	// Configure changes what Open was told.
	Configure(LogConfig) error
	// Epoch is the number of this ownership: higher than any before it. It is
	// stored with every record.
	Epoch() uint64
	// Done is closed when this node no longer owns the log; Err then says why:
	// ErrClosed, ErrDeleted, ErrUnknown after a failed write (open it again),
	// or *NotOwnerError.
	Done() <-chan struct{}
	Err() error
}

// SizeLimited is a Log that can tell how much of it fits into a number of bytes.
type SizeLimited interface {
	// Within returns the first of the newest events that take up no more than the
	// given number of bytes, as near as files allow: Trim to it brings the rest
	// back.
	Within(bytes int64) event.SequenceNumber
}

// Store is an engine.
type Store interface {
	// Open makes this node the log's owner, creating the log when it has never
	// been written to. A *NotOwnerError says who else should.
	Open(ctx context.Context, id LogID, c LogConfig) (Log, error)
	// OpenReader opens a log for reading.
	OpenReader(ctx context.Context, id LogID) (Reader, error)
	// Delete removes a log for good. Its readers and its owner end with
	// ErrDeleted. Deleting what does not exist is no error.
	Delete(ctx context.Context, id LogID) error
	// Meta holds the small facts.
	Meta() Meta
	// Close waits for appends in flight and syncs what is stored.
	Close() error
}

// Version numbers the states of one key: it grows with every change, also over
// a deletion. 0 is the version of a key that does not exist.
type Version uint64

// AnyVersion, as what a change expects, means: whatever is there.
const AnyVersion = ^Version(0)

// Entry is a key with its value.
type Entry struct {
	Key     string
	Value   []byte // the receiver's own
	Version Version
}

// Meta is a durable map for small facts that rarely change, with compare and
// set. What must change together is one value. A change is durable when its
// call returns.
type Meta interface {
	// Get returns a key's entry, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// Put stores value under key if the key's version is the expected one, and
	// returns the new version; *ConflictError if it isn't.
	Put(ctx context.Context, key string, value []byte, expect Version) (Version, error)
	// Delete removes the key, likewise. Deleting a key that does not exist
	// succeeds if that was expected (0 or AnyVersion).
	Delete(ctx context.Context, key string, expect Version) error
	// List yields the entries whose keys begin with prefix and come after the
	// given key, in byte order: one snapshot, whatever happens meanwhile. The
	// body of the loop must not change the map.
	List(ctx context.Context, prefix, after string) iter.Seq2[Entry, error]
}
