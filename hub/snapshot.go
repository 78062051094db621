package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// What a partition knows of its producers is a function of its log, but for what
// they have said when they came. A snapshot of it is kept in the database, with
// the number of the event up to which it goes; opening the log reads the headers
// of what came later. A partition without a snapshot has never had a producer,
// and nothing is read.

const (
	// snapshotBytes is how much may be appended before the next snapshot, and so how
	// much an opening reads.
	snapshotBytes = 16 << 20
	// replayBytes is how much of the log is read at once.
	replayBytes = 1 << 20
)

// Keys of Meta.
const (
	producerKeys  = "producers/" // + hub id, slash, partition: producerSnapshot
	producerIDKey = "producer-ids"
)

type producerSnapshot struct {
	// Next is the number of the first event that is not accounted for.
	Next event.SequenceNumber `json:"next"`
	// Producers begin with the one that has sent nothing for the longest.
	Producers []producerRecord `json:"producers"`
}

type producerRecord struct {
	ID    int64  `json:"id"`
	Epoch int16  `json:"epoch"`
	Last  *int32 `json:"last,omitempty"` // absent: the next batch may begin anywhere
	// Recent are the last batches: sequence number, count, first event's number,
	// enqueued time, content.
	Recent [][5]int64 `json:"recent,omitempty"`
}

func (p *Partition) producersKey() string {
	return fmt.Sprintf("%s%016x/%d", producerKeys, p.hub.id, p.index)
}

// loadProducers reads what is known of a log's producers. Nothing has been
// appended since it was opened.
func (p *Partition) loadProducers(ctx context.Context, l store.Log) (*producers, error) {
	ps := &producers{p: p, log: l, byID: map[int64]*producer{}}
	e, err := p.hub.ns.all.meta.Get(ctx, p.producersKey())
	if errors.Is(err, store.ErrNotFound) {
		return ps, nil
	}
	if err != nil {
		return nil, err
	}
	var snap producerSnapshot
	if err := json.Unmarshal(e.Value, &snap); err != nil {
		return nil, fmt.Errorf("the record %s: %w", e.Key, err)
	}
	b, err := l.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	ps.version, ps.kept, ps.saved, ps.upTo = e.Version, true, snap.Next, b.Next
	for i := range snap.Producers {
		ps.restore(&snap.Producers[i])
	}
	ps.savedAt = p.in.Load()
	switch {
	case snap.Next > b.Next: // events were lost that had not been synced, as the policy allows
		for _, s := range ps.byID {
			s.lose(b.Next)
		}
		return ps, ps.save(ctx)
	case snap.Next < b.First:
		p.hub.ns.all.log.Error("events were removed that producers' numbers had to be read from; the producers are forgotten", "partition", p.Entity())
		clear(ps.byID)
		return ps, ps.save(ctx)
	}
	err = ps.replay(ctx, snap.Next, b.Next)
	var corrupt *store.CorruptError
	if errors.As(err, &corrupt) {
		p.hub.ns.all.log.Error("what producers have sent can't be read, so nothing more is taken of them", "partition", p.Entity(), "error", err)
		ps.failed, err = err, nil
	}
	return ps, err
}

// restore adds a producer from a snapshot.
func (ps *producers) restore(r *producerRecord) {
	s := ps.get(r.ID)
	s.met, s.epoch = true, r.Epoch
	if r.Last != nil {
		s.last, s.known = *r.Last, true
	}
	for _, x := range r.Recent[max(0, len(r.Recent)-recentBatches):] {
		s.recent[s.n] = published{int32(x[0]), int(x[1]), event.SequenceNumber(x[2]), x[3], content(x[4])}
		s.n++
	}
}

// replay notes the batches that the log holds from a number up to another.
func (ps *producers) replay(ctx context.Context, from, to event.SequenceNumber) error {
	defer ps.log.Close()   // the reader in it
	var batch event.Header // the batch so far, of several records
	var sum content
	for from < to {
		c, err := ps.log.Read(ctx, from, replayBytes)
		if err != nil {
			return err
		}
		for i := range c.Records {
			h := &c.Records[i].Header
			ps.savedAt -= int64(event.RecordHeaderSize + h.BodyLen)
			if h.Flags&event.FlagBatchStart != 0 {
				batch, sum = *h, 0
			} else {
				batch.Count += h.Count
			}
			sum = sum.with(h)
			if h.Flags&event.FlagBatchEnd != 0 && batch.Producer.Set {
				ps.get(batch.Producer.ID).stored(batch.Producer.Epoch, published{batch.Producer.Sequence, batch.Count, batch.First, batch.Enqueued, sum})
			}
		}
		if c.Empty() {
			c.Close()
			return fmt.Errorf("the log ends before number %d", to)
		}
		from = c.Next()
		c.Close()
	}
	return nil
}

// snapshot is what is known now, with how many joins.
func (ps *producers) snapshot(ctx context.Context) (snap producerSnapshot, joins int, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.failed != nil {
		return snap, 0, ps.failed
	}
	snap.Next = ps.upTo
	if ps.under == 0 { // what else the log holds is no producer's
		b, err := ps.log.Bounds(ctx)
		if err != nil {
			return snap, 0, err
		}
		snap.Next = b.Next
	}
	all := make([]*producer, 0, len(ps.byID))
	for _, s := range ps.byID {
		if s.met {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *producer) int { return cmp.Compare(a.used, b.used) })
	for _, s := range all {
		r := producerRecord{ID: s.id, Epoch: s.epoch}
		if s.known {
			r.Last = new(s.last)
		}
		for _, x := range s.recent[:s.n] {
			r.Recent = append(r.Recent, [5]int64{int64(x.sequence), int64(x.count), int64(x.first), x.enqueued, int64(x.content)})
		}
		snap.Producers = append(snap.Producers, r)
	}
	return snap, ps.joins, nil
}

// save writes a snapshot to the database.
func (ps *producers) save(ctx context.Context) error {
	ps.saving.Lock()
	defer ps.saving.Unlock()
	p := ps.p
	at := p.in.Load()
	snap, joins, err := ps.snapshot(ctx)
	if err != nil {
		return err
	}
	v, err := json.Marshal(snap)
	if err != nil {
		return err
	}
	p.mu.Lock()
	ended := p.ended
	p.mu.Unlock()
	if ended {
		return store.ErrDeleted
	}
	if err := ps.put(ctx, v); err != nil {
		return err
	}
	ps.mu.Lock()
	ps.kept, ps.saved, ps.savedAt, ps.savedJoins = true, snap.Next, at, joins
	ps.mu.Unlock()
	return nil
}

// put writes to the database. A log that has failed meanwhile has a successor,
// whose snapshots hold; one of its own may have come between before it did.
func (ps *producers) put(ctx context.Context, v []byte) error {
	meta, key := ps.p.hub.ns.all.meta, ps.p.producersKey()
	for {
		version, err := meta.Put(ctx, key, v, ps.version)
		var conflict *store.ConflictError
		switch {
		case err == nil:
			ps.version = version
			return nil
		case !errors.As(err, &conflict):
			return err
		case ps.log.Err() != nil:
			return ps.log.Err()
		}
		e, err := meta.Get(ctx, key)
		if errors.Is(err, store.ErrNotFound) {
			return store.ErrDeleted // with the hub
		}
		if err != nil {
			return err
		}
		ps.version = e.Version
	}
}

// beforeTrim writes a snapshot if events are to be removed that producers' numbers
// would have to be read from, and returns up to where they may be.
func (ps *producers) beforeTrim(ctx context.Context, before event.SequenceNumber) (event.SequenceNumber, error) {
	ps.mu.Lock()
	needs := ps.kept && before > ps.saved
	if needs && ps.failed != nil {
		// What is damaged goes, and with it what can't be known any more.
		clear(ps.byID)
		ps.failed = nil
		ps.p.hub.ns.all.log.Error("damaged events are removed that producers' numbers had to be read from; the producers are forgotten", "partition", ps.p.Entity())
	}
	ps.mu.Unlock()
	if !needs {
		return before, nil
	}
	if err := ps.save(ctx); err != nil {
		return 0, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return min(before, ps.saved), nil
}

// trim removes the events before a number.
func (p *Partition) trim(ctx context.Context, l *openLog, before event.SequenceNumber) error {
	before, err := l.producers.beforeTrim(ctx, before)
	if err != nil {
		return err
	}
	return l.Trim(ctx, before)
}

// saveProducers writes the snapshots for which more than so many bytes have come.
func (h *EventHub) saveProducers(ctx context.Context, beyond int64) {
	for _, p := range h.partitions() {
		l := p.log.Load()
		if !l.usable() {
			continue
		}
		ps := l.producers
		ps.mu.Lock()
		due := ps.kept && ps.failed == nil && p.in.Load()-ps.savedAt > beyond
		ps.mu.Unlock()
		if !due {
			continue
		}
		if err := ps.save(ctx); err != nil && ctx.Err() == nil && l.usable() {
			p.hub.ns.all.log.Warn("what is known of a partition's producers can't be stored; it is tried again", "partition", p.Entity(), "error", err)
		}
	}
}

// closeProducers writes the snapshots that are not of the logs' ends, so that
// nothing has to be read at the next start.
func (n *Namespaces) closeProducers() {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, ns := range n.All() {
		for _, h := range ns.EventHubs() {
			h.saveProducers(ctx, 0)
		}
	}
}

// idBlock is how many producers' ids are taken from the database at once. What is
// left of them at a stop is never given.
const idBlock = 1000

// newProducerID returns an id that the broker has given to no producer before.
// They are unique over all hubs, as Kafka's have to be (kafka.md 4.3).
func (n *Namespaces) newProducerID(ctx context.Context) (int64, error) {
	n.producerIDs.Lock()
	defer n.producerIDs.Unlock()
	if n.nextProducer == n.endProducer {
		begin := int64(1)
		e, err := n.meta.Get(ctx, producerIDKey)
		if err == nil {
			err = json.Unmarshal(e.Value, &begin)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, fmt.Errorf("the record %s: %w", producerIDKey, err)
		}
		b, err := json.Marshal(begin + idBlock)
		if err != nil {
			return 0, err
		}
		if _, err := n.meta.Put(ctx, producerIDKey, b, e.Version); err != nil {
			return 0, err
		}
		n.nextProducer, n.endProducer = begin, begin+idBlock
	}
	n.nextProducer++
	return n.nextProducer - 1, nil
}
