package fileledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/millrace/millrace/once"
)

// The file is bbolt's. It has a bucket for each book, by its name, and in that
//
//	head      settled, token: 8 bytes each, big-endian
//	entries   a bucket: the number, 8 bytes big-endian, or the id → an entry
//	times     of ids alone, a bucket: until, 8 bytes big-endian, and the id → nothing
//
// An entry is a byte that is 1 for done, and token, until and gap of 8 bytes each.
var (
	headKey    = []byte("head")
	entriesKey = []byte("entries")
	timesKey   = []byte("times")
)

// entry is a claim, or a mark.
type entry struct {
	done  bool
	token int64
	until int64 // milliseconds; of the mark of an id, when it is forgotten
	gap   int64
}

func (x entry) encode() []byte {
	b := make([]byte, 1, 25)
	if x.done {
		b[0] = 1
	}
	for _, n := range []int64{x.token, x.until, x.gap} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return b
}

func decode(b []byte) (entry, error) {
	if len(b) != 25 {
		return entry{}, fmt.Errorf("an entry of %d bytes: the file is damaged", len(b))
	}
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
	return entry{done: b[0] == 1, token: number(1), until: number(9), gap: number(17)}, nil
}

func uint64Key(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func keyOf(e once.Event) []byte {
	if e.ID != "" {
		return []byte(e.ID)
	}
	return uint64Key(e.Sequence)
}

// page is a book in a transaction.
type page struct {
	book    *bbolt.Bucket
	entries *bbolt.Bucket
	times   *bbolt.Bucket // of ids
	ids     bool
	settled int64
	token   int64
	now     int64
}

// open opens a book, which is made if there is none.
func open(tx *bbolt.Tx, name string, ids bool) (*page, error) {
	b, err := tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return nil, err
	}
	p := &page{book: b, ids: ids, settled: -1}
	if p.entries, err = b.CreateBucketIfNotExists(entriesKey); err != nil {
		return nil, err
	}
	if ids {
		if p.times, err = b.CreateBucketIfNotExists(timesKey); err != nil {
			return nil, err
		}
	}
	if v := b.Get(headKey); len(v) == 16 {
		p.settled, p.token = int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))
	}
	return p, nil
}

// close moves settled on over the marks that follow it, and writes the head.
func (p *page) close() error {
	for !p.ids {
		k, v := p.entries.Cursor().First()
		if k == nil {
			break
		}
		x, err := decode(v)
		if err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint64(k))
		if !x.done || n-x.gap > p.settled+1 {
			break
		}
		p.settled = n
		if err := p.entries.Delete(k); err != nil {
			return err
		}
	}
	return p.book.Put(headKey, append(uint64Key(p.settled), uint64Key(p.token)...))
}

// forget drops some of the ids whose time is over.
func (p *page) forget(most int) error {
	if !p.ids {
		return nil
	}
	c := p.times.Cursor()
	for k, _ := c.First(); k != nil && most > 0; k, _ = c.First() {
		if int64(binary.BigEndian.Uint64(k)) > p.now {
			return nil
		}
		if err := p.entries.Delete(k[8:]); err != nil {
			return err
		}
		if err := p.times.Delete(k); err != nil {
			return err
		}
		most--
	}
	return nil
}

// get returns what is known of an event that is not settled.
func (p *page) get(k []byte) (entry, bool, error) {
	v := p.entries.Get(k)
	if v == nil {
		return entry{}, false, nil
	}
	x, err := decode(v)
	if p.ids && x.until <= p.now {
		return entry{}, false, err
	}
	return x, err == nil, err
}

func (p *page) put(k []byte, x entry) error {
	if p.ids {
		if v := p.entries.Get(k); v != nil {
			old, err := decode(v)
			if err != nil {
				return err
			}
			if err := p.times.Delete(append(uint64Key(old.until), k...)); err != nil {
				return err
			}
		}
		if err := p.times.Put(append(uint64Key(x.until), k...), nil); err != nil {
			return err
		}
	}
	return p.entries.Put(k, x.encode())
}

func (p *page) remove(k []byte, x entry) error {
	if p.ids {
		if err := p.times.Delete(append(uint64Key(x.until), k...)); err != nil {
			return err
		}
	}
	return p.entries.Delete(k)
}

// drop deletes the entries from one number to another.
func (p *page) drop(from, through int64) error {
	c, last := p.entries.Cursor(), uint64Key(through)
	var keys [][]byte
	for k, _ := c.Seek(uint64Key(from)); k != nil && bytes.Compare(k, last) <= 0; k, _ = c.Next() {
		keys = append(keys, k)
	}
	for _, k := range keys {
		if err := p.entries.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (p *page) isSettled(e once.Event) bool { return !p.ids && e.Sequence <= p.settled }

// claim claims an event, and answers.
func (p *page) claim(e once.Event, until int64) (once.Claim, error) {
	if p.isSettled(e) {
		return once.Claim{Event: e, State: once.Done}, nil
	}
	k := keyOf(e)
	x, ok, err := p.get(k)
	switch {
	case err != nil:
		return once.Claim{}, err
	case ok && x.done:
		if !p.ids && e.Gap > x.gap {
			x.gap = e.Gap
			err = p.mark(e, x)
		}
		return once.Claim{Event: e, State: once.Done}, err
	case ok && x.until > p.now:
		return once.Claim{Event: e, State: once.Busy, Until: time.UnixMilli(x.until)}, nil
	}
	err = p.put(k, entry{token: p.token, until: until})
	return once.Claim{Event: e, State: once.Claimed, Token: p.token, Until: time.UnixMilli(until)}, err
}

// whose says whether nobody else has become the claimer, and whether nothing is left to
// be done for the event.
func (p *page) whose(c once.Claim) (held, done bool, err error) {
	if p.isSettled(c.Event) {
		return c.Until.UnixMilli() >= p.now, true, nil
	}
	x, ok, err := p.get(keyOf(c.Event))
	return err == nil && (!ok || x.token == c.Token), x.done, err
}

// finish marks a claim, if it is held.
func (p *page) finish(c once.Claim, keep int64) (held bool, err error) {
	held, done, err := p.whose(c)
	if err != nil || !held || done {
		return held, err
	}
	return true, p.mark(c.Event, entry{done: true, token: c.Token, until: keep, gap: c.Event.Gap})
}

// extend has a claim last until a time, if it is held.
func (p *page) extend(c once.Claim, until int64) (held bool, err error) {
	held, done, err := p.whose(c)
	if err != nil || !held || done {
		return held, err
	}
	return true, p.put(keyOf(c.Event), entry{token: c.Token, until: until})
}

// mark marks an event that is not settled.
func (p *page) mark(e once.Event, x entry) error {
	begin := e.Sequence - x.gap
	switch {
	case p.ids:
		return p.put(keyOf(e), x)
	case begin > p.settled+1:
		if x.gap > 0 {
			if err := p.drop(begin, e.Sequence-1); err != nil {
				return err
			}
		}
		return p.put(keyOf(e), x)
	}
	p.settled = e.Sequence
	if x.gap > 0 {
		return p.drop(0, e.Sequence)
	}
	return p.entries.Delete(keyOf(e))
}
