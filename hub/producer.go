package hub

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/millrace/millrace/event"
)

// A producer whose batches are to be stored once only has an id, an epoch, which
// the newest of its instances has raised above all others', and numbers its
// events, batch by batch (amqp.md 6.4, kafka.md 4.3). Of each, a partition keeps
// where it is and its last few batches, so that one that is sent again, because
// its acknowledgement was lost, is known and acknowledged again. The servers
// share this: whatever they read it from, it comes as event.Producer.

const (
	// maxProducers is how many producers a partition remembers. Beyond it the one
	// that has sent nothing for the longest is forgotten: should it send again, its
	// next batch is taken whatever its number, so that a batch it repeats just then
	// is stored twice.
	maxProducers = 1024
	// recentBatches is how many batches of a producer can be repeated: as many as a
	// Kafka producer may have under way.
	recentBatches = 5
)

// published is a batch that is stored.
type published struct {
	sequence int32 // of its first event
	count    int
	first    event.SequenceNumber
	enqueued int64
	content  content
}

// content tells a batch from another with the same numbers: its size, and a
// checksum of its records' checksums. An SDK for AMQP that has given up a batch
// gives its numbers to the next one, which would be acknowledged and lost if
// numbers alone made it a repeat. Kafka's clients don't, and may compress anew what
// they repeat: theirs is 0.
type content uint64

// with adds a record. Records are cut by their events' sizes alone, so that a
// repeat has the same.
func (c content) with(h *event.Header) content {
	if h.Encoding != event.EncodingAMQP {
		return 0
	}
	var b [12]byte
	le := binary.LittleEndian
	le.PutUint32(b[:], h.BodyCRC)
	le.PutUint32(b[4:], uint32(h.BodyLen))
	le.PutUint32(b[8:], uint32(h.Count))
	sum := crc32.Update(uint32(c), event.Castagnoli, b[:])
	return content(uint64(c)>>32+uint64(h.BodyLen))<<32 | content(sum)
}

func contentOf(b *event.Batch) (c content) {
	for i := range b.Records {
		c = c.with(&b.Records[i].Header)
	}
	return c
}

// producer is what a partition knows of one. producers.mu guards it.
type producer struct {
	id int64
	// met says that it has come, or has published something: else it has no epoch.
	met   bool
	epoch int16
	// last is the sequence number of the last event that was published, if one is
	// known: else the next batch may begin anywhere.
	last  int32
	known bool
	// recent are its last batches under this epoch, oldest first.
	recent [recentBatches]published
	n      int

	used  uint64 // by producers.uses
	under bool   // a batch is under way: the others wait in queue
	queue []*appending
	// joining counts those who wait, in idle, for the end of what is under way to
	// take over; nothing more is begun meanwhile.
	joining int
	idle    []chan struct{}
}

// busy tells whether somebody relies on the producer's being remembered.
func (s *producer) busy() bool { return s.under || len(s.queue) > 0 || s.joining > 0 }

// judge tells what is to become of the next batch: nothing, if it was stored
// before; it is refused with an error; or it is stored. Nothing of the producer's
// is under way, so that what is known of it is all there is.
func (s *producer) judge(b *event.Batch, entity string) (repeats *published, err error) {
	p := &b.Producer
	if !s.met {
		return nil, nil
	}
	if p.Epoch == s.epoch {
		for i := range s.recent[:s.n] {
			if r := &s.recent[i]; r.sequence == p.Sequence && r.count == b.Count && r.content == contentOf(b) {
				return r, nil
			}
		}
	}
	switch {
	case p.Epoch < s.epoch:
		return nil, fenced(entity, s.id, p.Epoch, s.epoch)
	case p.Epoch > s.epoch:
		// It did not say before where it would begin, as AMQP's do.
		if p.Sequence != 0 {
			return nil, outOfSequence(entity, s.id, p.Sequence, 0)
		}
	case s.known:
		if next := event.NextSequence(s.last, 1); p.Sequence != next {
			return nil, outOfSequence(entity, s.id, p.Sequence, next)
		}
	}
	return nil, nil
}

// stored notes a batch that is stored.
func (s *producer) stored(epoch int16, b published) {
	if s.met && epoch < s.epoch {
		return
	}
	if !s.met || epoch > s.epoch {
		s.met, s.epoch, s.n = true, epoch, 0
	}
	if s.n == recentBatches {
		s.n = copy(s.recent[:], s.recent[1:])
	}
	s.recent[s.n] = b
	s.n++
	s.last, s.known = event.NextSequence(b.sequence, b.count-1), true
}

// lose forgets the batches from a number of the log on: the log has lost them.
func (s *producer) lose(from event.SequenceNumber) {
	n := s.n
	for s.n > 0 && s.recent[s.n-1].first >= from {
		s.n--
	}
	switch {
	case s.n == n:
	case s.n == 0:
		s.known = false
	default:
		r := &s.recent[s.n-1]
		s.last = event.NextSequence(r.sequence, r.count-1)
	}
}

// Claim is what a producer says of itself when it comes; what is nil is the
// broker's to say (amqp.md 6.1).
type Claim struct {
	ID    *int64
	Epoch *int16
	// Sequence is the number of the last event that it has published.
	Sequence *int32
}

// join lets an instance of the producer begin, and returns what it is to go by.
// changed says that something is known that no batch tells.
func (s *producer) join(c *Claim, entity string) (p event.Producer, changed bool, err error) {
	p = event.Producer{ID: s.id, Epoch: s.epoch, Set: true}
	if c.Epoch != nil {
		p.Epoch = *c.Epoch
	}
	if s.met && p.Epoch < s.epoch {
		return p, false, fenced(entity, s.id, p.Epoch, s.epoch)
	}
	// Where it says that it is, it is told so again, whatever is known: from there
	// it numbers what it sends, which may well be what was stored already.
	if p.Sequence = s.last; c.Sequence != nil {
		p.Sequence = *c.Sequence
	}
	if s.met && p.Epoch == s.epoch && (s.n > 0 || s.known && s.last == p.Sequence) {
		return p, false, nil
	}
	s.met, s.epoch, s.last, s.known, s.n = true, p.Epoch, p.Sequence, true, 0
	return p, true, nil
}

// fenced is worded so that "Received:0 Current:1" is in it, which clients look
// for (amqp.md 6.4).
func fenced(entity string, id int64, received, current int16) *Error {
	return fail(ProducerFenced, entity, "The producer has been fenced: another with the same producer id %d has a higher epoch. Received:%d Current:%d.", id, received, current)
}

// outOfSequence calls numbers old that lie behind, in the words that clients look
// for (amqp.md 6.4). Numbers wrap, so that behind means: nearer that way.
func outOfSequence(entity string, id int64, received, expected int32) *Error {
	what := "a sequence number out of order"
	if event.NextSequence(received, -int(expected)) >= 1<<30 {
		what = "an old sequence number"
	}
	return fail(OutOfSequence, entity, "The batch of producer %d has %s. Received:%d Expected:%d.", id, what, received, expected)
}
