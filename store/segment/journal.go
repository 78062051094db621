package segment

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// journalFile is one file of the journal. A file holds one generation at a
// time; the database lists the generations that recovery must read, with their
// salts, before a byte is written under them. Their numbers only name them:
// files are not used in that order.
type journalFile struct {
	f      File
	name   string // in the folder journal
	size   int64  // capacity
	filled bool   // all of it has been written once, so that writes don't grow it
	broken bool   // a write or a sync failed: it is not used again
	gen    uint64
	salt   salt

	// The committer's.
	off    int64 // where the next round goes
	synced int64
	last   roundList // of the round before
	dirty  map[*log]struct{}
}

const journalDir = "journal"

// journalBlock is what rounds of the journal begin at multiples of: what direct
// I/O asks for. The rest of a round's last block is zero. The first block holds
// the file's header.
const journalBlock = 4096

func alignBlock(n int64) int64 { return (n + journalBlock - 1) &^ (journalBlock - 1) }

func newSalt() salt {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return salt(binary.LittleEndian.Uint64(b[:]))
}

// roundList says which logs a round of the journal has records of, and where
// in the file it lies. It opens the round, and is repeated in the next one, so
// that whatever single place is damaged, the logs it touches are known. A
// file's first round repeats the last of the file before: its start is then how
// far that file was synced, negated, and the generation says which it was.
//
//	0      4      8        16       24       32       40           48        72
//	┌──────┬──────┬────────┬────────┬────────┬────────┬────────────┬─────────┬─────┐
//	│ this │ prev │ start  │ length │ start  │ length │ generation │ hub u64, partition u32,  … this, then
//	│ u32  │ u32  │ this   │ this   │ prev   │ prev   │ prev       │ zero u32, next i64       prev entries
//	└──────┴──────┴────────┴────────┴────────┴────────┴────────────┴──────────────────────────┘
type roundList struct {
	start, length int64
	gen           uint64 // of the file it is in, where that is not this one
	logs          []roundLog
}

type roundLog struct {
	id   store.LogID
	next event.SequenceNumber // after the round
}

const (
	roundHead  = 48
	roundEntry = 24
)

func roundBody(this, prev *roundList) int {
	return roundHead + roundEntry*(len(this.logs)+len(prev.logs))
}

// appendRound adds the list's body to b.
func appendRound(b []byte, this, prev *roundList) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(this.logs)))
	b = le.AppendUint32(b, uint32(len(prev.logs)))
	for _, r := range []*roundList{this, prev} {
		b = le.AppendUint64(b, uint64(r.start))
		b = le.AppendUint64(b, uint64(r.length))
	}
	b = le.AppendUint64(b, prev.gen)
	for _, r := range []*roundList{this, prev} {
		for _, l := range r.logs {
			b = le.AppendUint64(b, l.id.Hub)
			b = le.AppendUint32(b, l.id.Partition)
			b = le.AppendUint32(b, 0)
			b = le.AppendUint64(b, uint64(l.next))
		}
	}
	return b
}

// parseRound reads what appendRound wrote.
func parseRound(b []byte) (this, prev roundList, err error) {
	if len(b) < roundHead {
		return this, prev, errors.New("a round's list is too short")
	}
	le := binary.LittleEndian
	nThis, nPrev := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if int64(len(b)) != roundHead+roundEntry*(nThis+nPrev) {
		return this, prev, errors.New("a round's list has the wrong length")
	}
	this.start, this.length = int64(le.Uint64(b[8:])), int64(le.Uint64(b[16:]))
	prev.start, prev.length = int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))
	prev.gen = le.Uint64(b[40:])
	b = b[roundHead:]
	for i := range nThis + nPrev {
		l := roundLog{
			id:   store.LogID{Hub: le.Uint64(b), Partition: le.Uint32(b[8:])},
			next: event.SequenceNumber(le.Uint64(b[16:])),
		}
		if i < nThis {
			this.logs = append(this.logs, l)
		} else {
			prev.logs = append(prev.logs, l)
		}
		b = b[roundEntry:]
	}
	return this, prev, nil
}

// roundFrame builds the frame that opens a round, in b.
func (j *journalFile) roundFrame(b []byte, this *roundList) []byte {
	b = append(b[:0], make([]byte, frameOverhead)...)
	b = appendRound(b, this, &j.last)
	body := b[frameOverhead:]
	h := event.Header{
		Count:   len(this.logs),
		BodyLen: len(body),
		BodyCRC: crc32.Checksum(body, event.Castagnoli),
	}
	h.Encode(b[event.FrameRoom:])
	f := frame{kind: kindRound, durable: j.synced}
	f.encode(b, j.salt, this.start)
	for len(b)%frameAlign != 0 {
		b = append(b, 0)
	}
	return b
}

// begin gives the file a new generation, registered in the database, so that
// it can be written to. The caller has made sure that nothing in it is needed.
func (s *Store) begin(j *journalFile) error {
	j.salt, j.off, j.synced = newSalt(), journalBlock, 0
	j.last = roundList{}
	j.dirty = map[*log]struct{}{}
	err := s.kv.Update(func(tx KVTx) (err error) {
		if j.gen, err = bump(tx, keyGeneration); err != nil {
			return err
		}
		g := generation{gen: j.gen, salt: j.salt, name: j.name}
		return g.put(tx)
	})
	if err != nil {
		return err
	}
	return j.f.WriteAt([][]byte{journalHeader(j.gen, j.salt), zeros[:journalBlock-fileHeaderSize]}, 0)
}

// newJournalFile makes a file for the journal, empty.
func (s *Store) newJournalFile() (*journalFile, error) {
	s.mu.Lock()
	s.journals++
	name := fmt.Sprintf("%06d.jnl", s.journals)
	s.mu.Unlock()
	f, err := s.openJournal(name, true)
	if err != nil {
		return nil, err
	}
	if err := s.disk.SyncDir(journalDir); err != nil {
		f.Close()
		return nil, err
	}
	return &journalFile{f: f, name: name, size: s.o.JournalBytes}, nil
}

// openJournal opens a file of the journal past the system's cache, if the disk
// can: what is written is read again only after a crash, and copying it to the
// cache costs more than the rest of a commit. Without a sync before each
// acknowledgement the cache is where it is to go.
func (s *Store) openJournal(name string, create bool) (File, error) {
	name = path.Join(journalDir, name)
	if d, ok := s.disk.(directDisk); ok && s.o.Sync.Policy == SyncAlways {
		return d.OpenDirect(name, create)
	}
	return s.disk.Open(name, create)
}

// zeros is what a file is filled with.
var zeros [256 << 10]byte

// fill writes zeros from where the file ends up to its capacity and syncs, so
// that later writes overwrite blocks that exist: their sync is two to three
// times as fast (performance.md, section 3).
func (j *journalFile) fill(stop <-chan struct{}) error {
	n, err := j.f.Size()
	if err != nil {
		return err
	}
	for n = n &^ (journalBlock - 1); n < j.size; {
		select {
		case <-stop:
			return nil
		default:
		}
		step := min(j.size-n, int64(len(zeros)))
		if err := j.f.WriteAt([][]byte{zeros[:step]}, n); err != nil {
			return err
		}
		n += step
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.filled = true
	return nil
}
