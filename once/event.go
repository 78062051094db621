package once

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// MaxSequence is the largest sequence number that every ledger can keep: Redis
// counts in floating-point numbers of 53 bits.
const MaxSequence = 1<<53 - 1

// MaxID is how many bytes an id has at most.
const MaxID = 1024

// ErrInvalid is what an event that can't be kept is refused with.
var ErrInvalid = errors.New("once: the event can't be kept")

// Stream is one partition as one consumer group reads it.
type Stream struct {
	Namespace string // the host name, as in the checkpoint: example.servicebus.windows.net
	Hub       string
	Group     string // the consumer group: $Default
	Partition string // the partition's id: 0

	// Generation tells a hub from an earlier one of the same name. Sequence numbers
	// begin again when a hub is deleted and made again, or an emulator restarted; a
	// ledger that does not know takes the new events for old ones, and they are
	// skipped. The hub's creation time, which its properties have, does.
	Generation string
}

// Event is what a ledger knows an event by. [Order] makes them for a receiver.
type Event struct {
	Stream

	// Sequence is the event's sequence number, 0 to [MaxSequence]. It is not looked
	// at if there is an ID.
	Sequence int64

	// Gap is how many numbers directly below Sequence no event will be delivered for,
	// or is wanted any more: retention has taken them, compaction, or the receiver was
	// opened behind them. Once the event is marked, they are settled with it. Zero is
	// always right, but a ledger can't forget the marks above a number that never
	// comes, until [Ledger.Settle] is called.
	Gap int64

	// ID is an id that the producer gave the event, where it may have sent it more
	// than once: then the copies are one event, in whichever partition of the hub they
	// are. Partition, Sequence and Gap are not looked at. It has [MaxID] bytes at most.
	ID string
}

// Order makes the events of one receiver of one partition. It sees the numbers that
// are missing between them, so that the ledger's marks of all that came are forgotten.
//
// Make one for each receiver that is opened, and call Event in the order of delivery.
// The receiver is opened at the group's checkpoint, or where the group is to begin if
// there is none: all that is before the first event is settled with it, as not wanted.
// A receiver that only looks somewhere into the partition must not mark with an Order.
// It is not for concurrent use; the events that it makes are.
type Order struct {
	stream Stream
	last   int64
}

// NewOrder returns the order of a receiver that has received nothing.
func NewOrder(s Stream) *Order {
	return &Order{stream: s, last: -1}
}

// Event returns the event of a sequence number that the receiver was delivered.
func (o *Order) Event(sequence int64) Event {
	e := Event{Stream: o.stream, Sequence: sequence}
	if sequence > o.last {
		e.Gap = sequence - o.last - 1
		o.last = sequence
	}
	return e
}

// Validate returns an error that is [ErrInvalid], unless the event can be kept.
func (e Event) Validate() error {
	switch {
	case e.Namespace == "" || e.Hub == "" || e.Group == "":
		return fmt.Errorf("%w: it needs a namespace, a hub and a consumer group", ErrInvalid)
	case len(e.ID) > MaxID:
		return fmt.Errorf("%w: its id has more than %d bytes", ErrInvalid, MaxID)
	case e.ID != "":
		return nil
	case e.Partition == "":
		return fmt.Errorf("%w: it needs a partition", ErrInvalid)
	case e.Sequence < 0 || e.Sequence > MaxSequence:
		return fmt.Errorf("%w: the sequence number %d is not from 0 to %d", ErrInvalid, e.Sequence, int64(MaxSequence))
	case e.Gap < 0 || e.Gap > e.Sequence:
		return fmt.Errorf("%w: a gap of %d below the sequence number %d", ErrInvalid, e.Gap, e.Sequence)
	}
	return nil
}

// String names the event in errors.
func (e Event) String() string {
	if e.ID != "" {
		return fmt.Sprintf("event %q of %s/%s for %s", e.ID, e.Namespace, e.Hub, e.Group)
	}
	return fmt.Sprintf("event %d of %s/%s, partition %s, for %s", e.Sequence, e.Namespace, e.Hub, e.Partition, e.Group)
}

// Book returns the name of the stream's book: what a ledger keeps under one lock.
func (s Stream) Book() string {
	return "n/" + s.name() + "/" + url.PathEscape(s.Partition)
}

// Book returns the name of the event's book. Those of numbers have one for each
// stream, those of ids sixteen for each hub and group.
func (e Event) Book() string {
	if e.ID == "" {
		return e.Stream.Book()
	}
	sum := sha256.Sum256([]byte(e.ID))
	return "i/" + e.name() + "/" + hex.EncodeToString(sum[:1])[:1]
}

func (s Stream) name() string {
	parts := []string{s.Namespace, s.Hub, s.Group, s.Generation}
	for i, p := range parts {
		if i < 2 {
			p = strings.ToLower(p) // as the service compares them
		}
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}

// Book is some events of one book, for who writes a ledger.
type Book struct {
	Name   string
	IDs    bool  // it keeps ids, not numbers
	Events []int // the indexes of the events, in their order
}

// Books returns the books that events are in, by name, so that who locks them in that
// order meets no deadlock. An event that can't be kept is an error.
func Books(events []Event) ([]Book, error) {
	byName := map[string]*Book{}
	var last Event
	var b *Book
	for i, e := range events {
		if err := e.Validate(); err != nil {
			return nil, err
		}
		if b == nil || e.ID != "" || last.ID != "" || e.Stream != last.Stream {
			name := e.Book()
			if b = byName[name]; b == nil {
				b = &Book{Name: name, IDs: e.ID != ""}
				byName[name] = b
			}
		}
		b.Events = append(b.Events, i)
		last = e
	}
	books := make([]Book, 0, len(byName))
	for b := range maps.Values(byName) {
		books = append(books, *b)
	}
	slices.SortFunc(books, func(a, b Book) int { return cmp.Compare(a.Name, b.Name) })
	return books, nil
}

// BooksOfClaims returns the books that claimed events are in, as Books does.
func BooksOfClaims(claims []Claim) ([]Book, error) {
	events := make([]Event, len(claims))
	for i, c := range claims {
		events[i] = c.Event
	}
	return Books(events)
}
