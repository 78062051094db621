package segment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// Report is what Verify found.
type Report struct {
	Partitions, Segments   int
	Records, Events, Bytes int64
	Unclean                bool    // the broker was not stopped: the next start reads the journal
	JournalRecords         int64   // in the journal then
	Unfinished             int64   // bytes of writes that a crash cut, which nobody was told of
	Damage                 []error // *store.CorruptError, mostly
}

// Verify reads every stored byte of the folder in o.Dir, which no broker may
// have open, and changes nothing. each, if not nil, is called with every record
// and says what is wrong with its body, if anything.
func Verify(ctx context.Context, o Options, each func(*event.Record) error) (Report, error) {
	o = o.withDefaults()
	s := &Store{o: o, disk: o.Disk, kv: o.KV, log: o.Logger}
	if s.disk == nil {
		if err := checkFormat(o.Dir); err != nil {
			return Report{}, err
		}
		if _, err := os.Stat(filepath.Join(o.Dir, kvFile)); err != nil {
			return Report{}, fmt.Errorf("%s is not a data folder: %w", o.Dir, err)
		}
		kv, err := openBolt(filepath.Join(o.Dir, kvFile), true)
		if errors.Is(err, errLocked) {
			return Report{}, fmt.Errorf("%w: %s is open in a broker%s; stop it first", ErrInUse, o.Dir, ownerOf(o.Dir))
		}
		if err != nil {
			return Report{}, err
		}
		defer kv.Close()
		s.disk, s.kv = NewDisk(o.Dir), kv
		if d, ok := s.disk.(io.Closer); ok {
			defer d.Close()
		}
	}
	v := &verifier{s: s, ctx: ctx, each: each}
	if err := v.run(); err != nil {
		return v.Report, err
	}
	return v.Report, nil
}

type verifier struct {
	Report
	s    *Store
	ctx  context.Context //nolint:containedctx // lives as long as the call to Verify
	each func(*event.Record) error
}

func (v *verifier) damage(err error) { v.Damage = append(v.Damage, err) }

func (v *verifier) run() error {
	v.checkDatabase()
	if err := v.checkJournal(); err != nil {
		return err
	}
	var ids []store.LogID
	if err := v.s.eachLog(func(id store.LogID) { ids = append(ids, id) }); err != nil {
		return err
	}
	for _, id := range ids {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if err := v.checkLog(id); err != nil {
			return fmt.Errorf("partition %s: %w", id, err)
		}
	}
	return nil
}

// checkDatabase reads all pages and all values of the database.
func (v *verifier) checkDatabase() {
	if b, ok := v.s.kv.(*boltKV); ok {
		if err := b.check(); err != nil {
			v.damage(fmt.Errorf("%s: %w", kvFile, err))
		}
	}
	err := v.s.kv.View(func(tx KVTx) error {
		if err := checkEngine(tx); err != nil {
			return err
		}
		tx.Each(bucketLogs, "", func(key string, b []byte) bool {
			if _, err := unseal(key, b); err != nil {
				v.damage(err)
			}
			return true
		})
		tx.Each(bucketMeta, "", func(key string, b []byte) bool {
			if _, err := openMeta(key, b); err != nil {
				v.damage(err)
			}
			return true
		})
		return nil
	})
	if err != nil {
		v.damage(err)
	}
}

// checkJournal reads what an unclean stop left in the journal.
func (v *verifier) checkJournal() error {
	gens, err := v.s.liveGenerations()
	if err != nil {
		v.damage(err)
		return nil
	}
	v.Unclean = len(gens) > 0
	r := &replay{s: v.s, records: map[store.LogID][]journalRecord{}, suspect: map[store.LogID]suspicion{}}
	defer r.close()
	for i := range gens {
		if err := r.open(&gens[i]); err != nil {
			return err
		}
	}
	r.linkFiles()
	for _, f := range r.files {
		if err := r.scan(f); err != nil {
			return err
		}
	}
	for _, d := range r.damage {
		v.damage(d.err)
	}
	for _, recs := range r.records {
		v.JournalRecords += int64(len(recs))
	}
	return nil
}

// checkLog reads a log's segments from the first to the last byte.
func (v *verifier) checkLog(id store.LogID) error {
	c, noted, err := v.s.loadState(id)
	if errors.Is(err, store.ErrDeleted) {
		return nil
	}
	if err != nil {
		v.damage(err)
		return nil
	}
	if noted != nil {
		v.damage(fmt.Errorf("noted when the broker started: %w", noted))
	}
	v.Partitions++
	dir := path.Join("logs", id.String())
	segs, _, err := v.s.findSegments(dir)
	if err != nil {
		return err
	}
	next, epoch := c.first, uint64(0)
	for i, g := range segs {
		stop := anyNumber
		if i+1 < len(segs) {
			stop = segs[i+1].first
		}
		if i > 0 && g.first != next || i == 0 && g.first > c.first && c.offset > 0 && c.first < c.next {
			v.damage(&store.CorruptError{Log: id, File: dir, Detail: fmt.Sprintf("the events from sequence number %d to %d are missing", next, g.first-1)})
		}
		if next, err = v.checkSegment(id, g, stop, &c); err != nil {
			return err
		}
		epoch = g.epoch
	}
	if next < c.next && c.first < c.next && epoch <= c.epoch {
		v.damage(&store.CorruptError{Log: id, File: dir, Detail: fmt.Sprintf("the log ends before sequence number %d, and %d was stored", next, c.next-1)})
	}
	return nil
}

// checkSegment reads one file and returns the number after its last event.
func (v *verifier) checkSegment(id store.LogID, g *segmentFile, stop event.SequenceNumber, c *checkpoint) (event.SequenceNumber, error) {
	name := path.Join("logs", id.String(), g.name)
	f, err := v.s.disk.Open(name, false)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	v.Segments++
	v.Bytes += g.end.Load()
	l := &log{s: v.s, id: id}
	if g.end.Load() < fileHeaderSize {
		v.Unfinished += g.end.Load()
		return g.first, nil
	}
	if err := v.s.checkHeader(f, g, l); err != nil {
		v.damage(err)
	}
	known := int64(0)
	if c.of(g) {
		known = c.offset
	}
	sealed := stop != anyNumber
	sc := newScanner(f, g.salt, fileHeaderSize, g.end.Load())
	at := batchTail{next: g.first, whole: g.first}
	var x found
	for at.next < stop {
		off := sc.off
		err := sc.next(&x)
		if err == nil && !at.follow(&x, id) {
			err = errFollows
		}
		switch {
		case err == nil:
			v.record(&x, name, id)
			continue
		case errors.Is(err, io.EOF) && !sealed && off >= known:
			v.Unfinished += off - max(at.end, fileHeaderSize)
			return at.whole, nil
		case !errors.Is(err, io.EOF) && !notAFrame(err) && !errors.Is(err, errFollows):
			return at.whole, err
		}
		bad, derr := sc.damaged(off, known)
		if derr != nil {
			return at.whole, derr
		}
		if !bad && !sealed {
			v.Unfinished += g.end.Load() - max(at.end, fileHeaderSize)
			return at.whole, nil
		}
		v.damage(&store.CorruptError{Log: id, File: name, Offset: off, Detail: err.Error()})
		if err := sc.resync(off+1, &x); err != nil {
			if sealed {
				return stop, nil
			}
			return max(at.whole, c.next), nil
		}
		at = batchTail{next: x.Next(), whole: x.Next(), inner: x.Flags&event.FlagBatchEnd == 0, epoch: x.Epoch}
		v.record(&x, name, id)
	}
	return at.next, nil
}

// record counts a whole record and looks at what is in it.
func (v *verifier) record(x *found, file string, id store.LogID) {
	v.Records++
	v.Events += int64(x.Count)
	if v.each == nil {
		return
	}
	r := event.Record{Header: x.Header, Body: x.body}
	if err := v.each(&r); err != nil {
		v.damage(&store.CorruptError{Log: id, File: file, Offset: x.off, Detail: err.Error()})
	}
}
