package segment

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// replay is what recovery learns from the journal.
type replay struct {
	s       *Store
	files   []*replayFile
	records map[store.LogID][]journalRecord
	damage  []damagedRun
	suspect map[store.LogID]suspicion
}

// damagedRun is a stretch of a journal file that was durable and is unreadable.
type damagedRun struct {
	file *replayFile
	to   int64
	err  *store.CorruptError // with its offset
}

// suspicion is damage to the journal that may touch a log: unless the log turns
// out to have the events up to next, some are lost.
type suspicion struct {
	next event.SequenceNumber
	err  *store.CorruptError
}

const anyNumber = event.SequenceNumber(1<<63 - 1)

type replayFile struct {
	generation
	f      File // nil if it is missing
	end    int64
	known  int64               // how far the file after it says that it was synced
	rounds map[int64]roundList // by start
}

// journalRecord is a record's place in the journal.
type journalRecord struct {
	file  *replayFile
	off   int64
	first event.SequenceNumber
	epoch uint64
	count int32
	size  int32
	flags event.Flags
}

func (r *journalRecord) next() event.SequenceNumber { return r.first + event.SequenceNumber(r.count) }

// replayJournal brings to the segments what only the journal has, and leaves no
// generation live. After a clean stop there is none.
func (s *Store) replayJournal() error {
	gens, err := s.liveGenerations()
	if err != nil || len(gens) == 0 {
		return err
	}
	r := &replay{s: s, records: map[store.LogID][]journalRecord{}, suspect: map[store.LogID]suspicion{}}
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
	if err := r.pin(); err != nil {
		return err
	}
	checkpoints, err := r.restore()
	if err != nil {
		return err
	}
	damage, err := r.lost()
	if err != nil {
		return err
	}
	return s.kv.Update(func(tx KVTx) error { return r.commit(tx, checkpoints, damage) })
}

func (s *Store) liveGenerations() ([]generation, error) {
	var gens []generation
	err := s.kv.View(func(tx KVTx) error {
		return eachEngine(tx, journalKeys, func(rest string, b []byte) error {
			var g generation
			err := g.decode(rest, b)
			gens = append(gens, g)
			return err
		})
	})
	return gens, err
}

func (r *replay) close() {
	for _, f := range r.files {
		if f.f != nil {
			f.f.Close()
		}
	}
}

func (r *replay) open(g *generation) error {
	file := &replayFile{generation: *g, rounds: map[int64]roundList{}}
	f, err := r.s.disk.Open(path.Join(journalDir, g.name), false)
	if errors.Is(err, fs.ErrNotExist) {
		// Registered, but lost before its folder was synced: then nothing in it
		// was acknowledged. If something was, the next file's first round says so.
		r.files = append(r.files, file)
		return nil
	}
	if err != nil {
		return err
	}
	file.f = f
	r.files = append(r.files, file)
	file.end, err = f.Size()
	return err
}

// linkFiles reads from each file's first round how the file before it ended.
func (r *replay) linkFiles() {
	byGen := map[uint64]*replayFile{}
	for _, f := range r.files {
		byGen[f.gen] = f
	}
	for _, file := range r.files {
		if file.f == nil {
			continue
		}
		var x found
		if newJournalScanner(file).next(&x) != nil || x.kind != kindRound {
			continue
		}
		_, prev, err := parseRound(x.body)
		before := byGen[prev.gen]
		if err != nil || before == nil || prev.start >= 0 {
			continue
		}
		before.known = -prev.start
		prev.start = before.known - prev.length
		before.rounds[prev.start] = prev
	}
}

func newJournalScanner(file *replayFile) *scanner {
	sc := newScanner(file.f, file.salt, journalBlock, file.end)
	sc.block = journalBlock
	return sc
}

// scan reads one generation.
func (r *replay) scan(file *replayFile) error {
	name := path.Join(journalDir, file.name)
	if file.f == nil {
		if file.known > 0 {
			r.damage = append(r.damage, damagedRun{file, file.known, &store.CorruptError{File: name, Detail: "the file is missing"}})
		}
		return nil
	}
	sc := newJournalScanner(file)
	var x found
	for {
		err := sc.next(&x)
		off := sc.off // where it is not, past the zeros that end a round
		switch {
		case err == nil:
			if err := r.take(file, &x); err != nil {
				return err
			}
			continue
		case errors.Is(err, io.EOF) && off >= file.known:
			return nil
		case errors.Is(err, io.EOF) || notAFrame(err):
		default:
			return err
		}
		// Here the file ends, or a write was torn, or something is damaged.
		cause := err
		bad, err := sc.damaged(off, file.known)
		if err != nil || !bad {
			return err
		}
		run := damagedRun{file, max(file.known, off+1), &store.CorruptError{File: name, Offset: off, Detail: cause.Error()}}
		err = sc.resync(off+1, &x)
		if err == nil {
			run.to = x.off
			err = r.take(file, &x)
		}
		r.damage = append(r.damage, run)
		r.s.log.Error("the journal is damaged", "file", name, "offset", off, "bytes", run.to-off, "error", cause)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// take notes one frame of the journal.
func (r *replay) take(file *replayFile, x *found) error {
	switch x.kind {
	case kindRound:
		this, prev, err := parseRound(x.body)
		if err != nil {
			return &store.CorruptError{File: path.Join(journalDir, file.name), Offset: x.off, Detail: err.Error()}
		}
		file.rounds[this.start] = this
		if prev.start > 0 {
			file.rounds[prev.start] = prev
		}
	case kindRecord:
		r.records[x.log] = append(r.records[x.log], journalRecord{file, x.off, x.First, x.Epoch, int32(x.Count), int32(x.size), x.Flags})
	}
	return nil
}

// pin notes which logs each damaged run may touch: those of the rounds that it
// lies in, or, where no list tells, all that there are.
func (r *replay) pin() error {
	for _, d := range r.damage {
		covered := d.err.Offset
		for _, start := range slices.Sorted(maps.Keys(d.file.rounds)) {
			l := d.file.rounds[start]
			end := l.start + l.length
			if l.start > covered || end <= covered || covered >= d.to {
				continue
			}
			for _, rl := range l.logs {
				if rl.next > r.suspect[rl.id].next {
					r.suspect[rl.id] = suspicion{rl.next, d.err}
				}
			}
			covered = end
		}
		if covered >= d.to {
			continue
		}
		if err := r.s.eachLog(func(id store.LogID) { r.suspect[id] = suspicion{anyNumber, d.err} }); err != nil {
			return err
		}
		for id := range r.records {
			r.suspect[id] = suspicion{anyNumber, d.err}
		}
	}
	return nil
}

// restore writes to each log's segment the records that it does not have.
func (r *replay) restore() (map[store.LogID]checkpoint, error) {
	s := r.s
	out := map[store.LogID]checkpoint{}
	var events int64
	for id, recs := range r.records {
		l, err := s.load(id, s.epoch.Load())
		if errors.Is(err, store.ErrDeleted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", id, err)
		}
		if l.refused == nil {
			if err := r.restoreLog(l, recs); err != nil {
				return nil, fmt.Errorf("partition %s: %w", id, err)
			}
		}
		if l.refused != nil {
			r.suspect[id] = suspicion{anyNumber, l.refused}
			l.closeFile()
			continue
		}
		l.files.Lock()
		err = l.syncLocked()
		c := l.checkpointLocked()
		l.files.Unlock()
		l.closeFile()
		if err != nil {
			return nil, err
		}
		out[id] = c
		events += int64(len(recs))
	}
	s.log.Info("replayed the journal after an unclean stop", "partitions", len(out), "records", events)
	return out, nil
}

// restoreLog appends to l the whole batches that continue it. A record of an
// older epoch than what is there already is one whose append failed before the
// log was given up: it was journaled, but nobody was told so, and its number
// may have been given again.
func (r *replay) restoreLog(l *log, recs []journalRecord) error {
	l.files.Lock()
	defer l.files.Unlock()
	var run []entry
	release := func() {
		for i := range run {
			run[i].slab.Release()
		}
		run = run[:0]
	}
	defer release()
	slices.SortFunc(recs, func(a, b journalRecord) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.epoch, a.epoch))
	})
	next, bytes, whole := l.flushed, 0, 0
	epoch := uint64(0)
	if l.active != nil {
		epoch = l.active.epoch
	}
	for i := range recs {
		rec := &recs[i]
		if rec.next() <= next || rec.first < next || rec.epoch < epoch {
			continue // the segment has it, or it is void
		}
		if rec.first != next {
			l.refused = &store.CorruptError{Log: l.id, File: path.Join(journalDir, rec.file.name), Offset: rec.off,
				Detail: fmt.Sprintf("the journal goes on at sequence number %d, but the events from %d on are missing", rec.first, next)}
			break
		}
		e, err := rec.read()
		if err != nil {
			return err
		}
		run = append(run, e)
		next, epoch = rec.next(), rec.epoch
		bytes += int(rec.size)
		if rec.flags&event.FlagBatchEnd == 0 {
			continue
		}
		if whole = len(run); bytes >= flushBytes {
			if err := l.writeOut(run); err != nil {
				return err
			}
			release()
			bytes, whole = 0, 0
		}
	}
	return l.writeOut(run[:whole])
}

func (r *journalRecord) read() (entry, error) {
	slab := event.NewSlab(int(r.size))
	b := slab.B[:r.size]
	var h event.Header
	_, err := r.file.f.ReadAt(b, r.off)
	if err == nil {
		err = h.Decode(b[event.FrameRoom:])
	}
	if err != nil {
		slab.Release()
		return entry{}, err
	}
	return entry{
		slab: slab, len: r.size, first: r.first, count: r.count,
		start: r.flags&event.FlagBatchStart != 0, enqueued: h.Enqueued,
	}, nil
}

// lost decides which of the suspects have lost events.
func (r *replay) lost() (map[store.LogID]*store.CorruptError, error) {
	out := map[store.LogID]*store.CorruptError{}
	for id, sus := range r.suspect {
		l, err := r.s.load(id, r.s.epoch.Load())
		if errors.Is(err, store.ErrDeleted) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", id, err)
		}
		l.closeFile()
		if l.visible < sus.next {
			e := *sus.err
			e.Log = id
			out[id] = &e
		}
	}
	return out, nil
}

// eachLog calls fn for every log that has a folder or a checkpoint.
func (s *Store) eachLog(fn func(store.LogID)) error {
	seen := map[store.LogID]bool{}
	hubs, err := s.disk.List("logs")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, h := range hubs {
		parts, err := s.disk.List(path.Join("logs", h))
		if err != nil {
			continue // not a folder
		}
		for _, p := range parts {
			if id, err := store.ParseLogID(h + "/" + p); err == nil {
				seen[id] = true
			}
		}
	}
	err = s.kv.View(func(tx KVTx) error {
		tx.Each(bucketLogs, "", func(key string, _ []byte) bool {
			if id, err := store.ParseLogID(key); err == nil {
				seen[id] = true
			}
			return true
		})
		return nil
	})
	if err != nil {
		return err
	}
	for id := range seen {
		fn(id)
	}
	return nil
}

// commit ends recovery: the checkpoints, the notes of damage, and that nothing
// in the journal is needed any more.
func (r *replay) commit(tx KVTx, checkpoints map[store.LogID]checkpoint, damage map[store.LogID]*store.CorruptError) error {
	if err := putCheckpoints(tx, checkpoints); err != nil {
		return err
	}
	for id, e := range damage {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := tx.Put(bucketEngine, damageKey(id), seal(damageKey(id), b)); err != nil {
			return err
		}
	}
	if len(damage) > 0 || len(r.damage) > 0 { // what is left of the journal may be of use
		for _, f := range r.files {
			if err := tx.Put(bucketEngine, keptKeys+f.name, seal(keptKeys+f.name, nil)); err != nil {
				return err
			}
		}
	}
	var gone []string
	for _, prefix := range []string{journalKeys, deletedKeys} {
		err := eachEngine(tx, prefix, func(rest string, _ []byte) error {
			gone = append(gone, prefix+rest)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, k := range gone {
		if err := tx.Delete(bucketEngine, k); err != nil {
			return err
		}
	}
	return nil
}
