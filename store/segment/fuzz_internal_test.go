package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"reflect"
	"runtime/metrics"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// allocated is how many bytes fn allocates, give or take what the runtime keeps
// for small objects.
func allocated(fn func()) uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	before := s[0].Value.Uint64()
	fn()
	metrics.Read(s)
	return s[0].Value.Uint64() - before
}

// RepairFrames gives all frames of a file checksums that match, from the first
// one at or after off on: a fuzzer does not get past them by itself. What a
// frame says of its own length is kept.
func RepairFrames(b []byte, s uint64, off int) {
	le := binary.LittleEndian
	for off = (off + frameAlign - 1) &^ (frameAlign - 1); off+frameOverhead <= len(b); {
		x := b[off:]
		if le.Uint32(x) != frameMagic {
			off += frameAlign
			continue
		}
		h := x[event.FrameRoom:frameOverhead]
		n := int(le.Uint32(h[8:]))
		if n <= len(x)-frameOverhead {
			body := x[frameOverhead : frameOverhead+n]
			le.PutUint32(h[4:], crc32.Checksum(body, event.Castagnoli))
		}
		le.PutUint32(h, crc32.Checksum(h[4:], event.Castagnoli))
		le.PutUint32(x[4:], salt(s).crc(x, int64(off)))
		off += min(frameSize(n), len(x))
	}
}

// SaltOf is the salt in a segment's name; 0 if it is none.
func SaltOf(name string) uint64 {
	_, _, s, _ := parseSegmentName(name)
	return uint64(s)
}

const fuzzSalt = salt(0x0123456789abcdef)

var fuzzLog = store.LogID{Hub: 7, Partition: 1}

// fuzzFrame is a frame as the engine writes it, to stand at off.
func fuzzFrame(off int64, f frame, h event.Header, body []byte) []byte {
	b := make([]byte, frameSize(len(body)))
	copy(b[frameOverhead:], body)
	h.BodyLen, h.BodyCRC = len(body), crc32.Checksum(body, event.Castagnoli)
	h.Encode(b[event.FrameRoom:])
	f.encode(b, fuzzSalt, off)
	return b
}

// fuzzSegment is a segment of batches, the last of which is unfinished.
func fuzzSegment(durable ...int64) []byte {
	h := segmentHeader{salt: fuzzSalt, log: fuzzLog, first: 10, enqueued: 5}
	b := h.encode()
	next := event.SequenceNumber(10)
	for i, d := range durable {
		flags := event.FlagBatchStart | event.FlagBatchEnd
		if i == len(durable)-1 {
			flags = event.FlagBatchStart
		}
		body := bytes.Repeat([]byte{byte(i)}, 3*i)
		r := event.Header{Encoding: event.EncodingKafka, Flags: flags, Count: 2, First: next, Enqueued: 5, Epoch: 1}
		b = append(b, fuzzFrame(int64(len(b)), frame{log: fuzzLog, durable: d}, r, body)...)
		next += 2
	}
	return b
}

// notOurs tells whether an error of a scan is of none of the kinds that callers
// decide on.
func notOurs(err error) bool {
	var c *store.CorruptError
	return err != nil && !notAFrame(err) && !errors.Is(err, io.EOF) && !errors.As(err, &c)
}

// FuzzFrame reads whatever comes as a frame, as it is and with checksums that
// match: it is refused with an error of ours, or is the same when it is written
// and read again. Elsewhere, or in another file, it is none.
func FuzzFrame(f *testing.F) {
	f.Add(fuzzFrame(64, frame{log: fuzzLog, durable: 7}, event.Header{Count: 1}, []byte("body")), int64(64))
	f.Add(fuzzFrame(0, frame{kind: kindRound}, event.Header{}, nil), int64(0))
	f.Add(make([]byte, frameOverhead-1), int64(-8))
	f.Fuzz(func(t *testing.T, b []byte, off int64) {
		var x frame
		var h event.Header
		if err := x.decode(&h, b, fuzzSalt, off); notOurs(err) {
			t.Fatal(err)
		}
		if len(b) < frameOverhead {
			return
		}
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b, frameMagic)
		head := b[event.FrameRoom:frameOverhead]
		binary.LittleEndian.PutUint32(head, crc32.Checksum(head[4:], event.Castagnoli))
		binary.LittleEndian.PutUint32(b[4:], fuzzSalt.crc(b, off))
		if err := x.decode(&h, b, fuzzSalt, off); err != nil {
			if !errors.Is(err, event.ErrVersion) && !errors.Is(err, event.ErrHeader) {
				t.Fatal(err)
			}
			return
		}
		again := make([]byte, frameOverhead)
		h.Encode(again[event.FrameRoom:])
		x.encode(again, fuzzSalt, off)
		var y frame
		var g event.Header
		if err := y.decode(&g, again, fuzzSalt, off); err != nil || x != y || g != h {
			t.Fatalf("%+v %+v becomes %+v %+v, %v", x, h, y, g, err)
		}
		if y.decode(&g, again, fuzzSalt, off+frameAlign) == nil || y.decode(&g, again, fuzzSalt+1, off) == nil {
			t.Fatalf("%+v is a frame elsewhere, too", x)
		}
		if n := frameSize(h.BodyLen); n < frameOverhead+h.BodyLen || n%frameAlign != 0 || n >= frameOverhead+h.BodyLen+frameAlign {
			t.Fatalf("a frame of %d bytes around %d", n, h.BodyLen)
		}
	})
}

// FuzzSegment scans whatever comes as a segment file, as it is and with
// checksums that match. All that is found lies in the file and goes forward; the
// end of the log is a whole batch's, and cutting the file there changes nothing;
// and no more memory is used than the file is long.
func FuzzSegment(f *testing.F) {
	whole := fuzzSegment(0, 64, 160, 160, 260)
	for _, known := range []int64{0, 64, 200, 1 << 40, -1} {
		f.Add(whole, known, false)
		f.Add(whole, known, true)
		f.Add(whole[:len(whole)-40], known, false)
		torn := bytes.Clone(whole)
		torn[170] ^= 1
		f.Add(torn, known, false)
		huge := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(huge[64+event.FrameRoom+8:], 1<<32-1)
		f.Add(huge, known, true)
	}
	f.Add([]byte{}, int64(0), true)
	f.Add(append(whole, make([]byte, 5000)...), int64(0), true)
	f.Add(append(fuzzSegment(0), magicBytes...), int64(0), true)
	f.Fuzz(func(t *testing.T, b []byte, known int64, repair bool) {
		if repair {
			b = bytes.Clone(b)
			RepairFrames(b, uint64(fuzzSalt), fileHeaderSize)
		}
		var h segmentHeader
		if h.decode(b) == nil && !bytes.Equal(h.encode()[:28], b[:28]) {
			t.Fatalf("%+v is not what the header says", h)
		}
		used := allocated(func() { walk(t, b, 0) })
		if limit := uint64(3<<20 + 4*len(b)); used > limit {
			t.Fatalf("%d bytes are allocated for a file of %d", used, len(b))
		}
		end, err := findEnd(b, known)
		if notOurs(err) {
			t.Fatal(err)
		}
		if end.end > int64(max(len(b), fileHeaderSize)) || end.whole < 10 {
			t.Fatalf("the log ends at %d, with number %d, in a file of %d", end.end, end.whole, len(b))
		}
		if err != nil || int64(len(b)) < end.end {
			return
		}
		again, err := findEnd(b[:end.end], known)
		if err != nil || again.end != end.end || again.whole != end.whole || again.enqueued != end.enqueued {
			t.Fatalf("cut at %d, number %d, it ends at %d, number %d, %v", end.end, end.whole, again.end, again.whole, err)
		}
	})
}

func findEnd(b []byte, known int64) (batchTail, error) {
	at := batchTail{next: 10, whole: 10, end: fileHeaderSize}
	g := &segmentFile{first: 10, salt: fuzzSalt}
	g.end.Store(int64(len(b)))
	var s Store
	err := s.findEnd(bytes.NewReader(b), g, fuzzLog, &at, known)
	return at, err
}

// walk reads all frames of a file, over damage too.
func walk(t *testing.T, b []byte, block int64) {
	sc := newScanner(bytes.NewReader(b), fuzzSalt, fileHeaderSize, int64(len(b)))
	sc.block = block
	var x found
	last := int64(0)
	for {
		off := sc.off
		err := sc.next(&x)
		if notOurs(err) {
			t.Fatal(err)
		}
		if err != nil {
			if err = sc.resync(off+1, &x); errors.Is(err, io.EOF) {
				return
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if x.off <= last && last > 0 || x.off%frameAlign != 0 || x.off+int64(x.size) > int64(len(b)) || sc.off != x.off+int64(x.size) {
			t.Fatalf("a frame of %d bytes at %d, after %d, of %d", x.size, x.off, last, len(b))
		}
		if len(x.body) != x.BodyLen || !bytes.Equal(x.run, b[x.off:x.off+int64(x.size)]) || !bytes.HasPrefix(x.run[frameOverhead:], x.body) {
			t.Fatalf("the frame at %d is not what the file holds", x.off)
		}
		last = x.off
	}
}

// fuzzDisk is a folder without a log.
type fuzzDisk struct{ Disk }

func (fuzzDisk) List(string) ([]string, error) { return nil, fs.ErrNotExist }

// fuzzFile is a file that is only read.
type fuzzFile struct {
	File
	*bytes.Reader
}

func (f fuzzFile) ReadAt(b []byte, off int64) (int, error) { return f.Reader.ReadAt(b, off) }
func (f fuzzFile) Size() (int64, error)                    { return f.Reader.Size(), nil }
func (fuzzFile) Close() error                              { return nil }

// expand makes a journal file of a short form, in which its zeros are left out:
// pieces, each behind its length, which begin at multiples of a block; or right
// behind the one before, if the length's highest bit is set.
func expand(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	out := make([]byte, journalBlock)
	for len(b) > 2 && len(out) < 1<<20 {
		n := int(binary.LittleEndian.Uint16(b))
		if n < 1<<15 {
			out = append(out, make([]byte, alignBlock(int64(len(out)))-int64(len(out)))...)
		}
		b = b[2:]
		n = min(n&(1<<15-1), len(b))
		out = append(out, b[:n]...)
		b = b[n:]
	}
	return append(out, make([]byte, alignBlock(int64(len(out)))-int64(len(out)))...)
}

// shorten is expand's inverse.
func shorten(file []byte) (b []byte) {
	for file = file[journalBlock:]; len(file) > 0; {
		n := min(journalBlock, len(file))
		piece := bytes.TrimRight(file[:n], "\x00")
		piece = file[:min((len(piece)+frameAlign-1)&^(frameAlign-1), n)]
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(piece))), piece...)
		file = file[n:]
	}
	return b
}

// fuzzJournal is a journal file as the committer writes it, shortened: a round
// for each number of records.
func fuzzJournal(prev roundList, rounds ...int) []byte {
	j := &journalFile{salt: fuzzSalt, last: prev}
	b := make([]byte, journalBlock)
	next := event.SequenceNumber(10)
	for _, n := range rounds {
		this := roundList{start: int64(len(b))}
		if n > 0 {
			this.logs = []roundLog{{fuzzLog, next + event.SequenceNumber(n)}}
		}
		at := len(b)
		this.length = int64(frameSize(roundBody(&this, &j.last)) + n*frameSize(4))
		b = append(b, j.roundFrame(nil, &this)...)
		for range n {
			h := event.Header{Flags: event.FlagBatchStart | event.FlagBatchEnd, Count: 1, First: next, Epoch: 1, Enqueued: 5}
			b = append(b, fuzzFrame(int64(len(b)), frame{log: fuzzLog, durable: j.synced}, h, []byte("body"))...)
			next++
		}
		b = append(b, make([]byte, alignBlock(int64(len(b)))-int64(len(b)))...)
		j.synced, j.last = int64(at), this
	}
	short := shorten(b)
	if !bytes.Equal(expand(short), b) {
		panic("a journal is not the same when it is shortened")
	}
	return short
}

// FuzzJournal replays whatever comes as two files of the journal, as they are
// and with checksums that match. What is found of records lies in the files and
// can be read; damage lies where it was durable, and names the logs it may touch;
// and no more memory is used than the files are long.
func FuzzJournal(f *testing.F) {
	first := fuzzJournal(roundList{}, 1, 3)
	second := fuzzJournal(roundList{start: -int64(len(expand(first))), length: journalBlock, gen: 3, logs: []roundLog{{fuzzLog, 14}}}, 2, 0)
	f.Add(first, second, false)
	f.Add(first, second, true)
	f.Add(first[:len(first)-80], second, false)
	f.Add(first, []byte{}, true)
	f.Add([]byte{}, second, true)
	damaged := bytes.Clone(first)
	damaged[40] ^= 1
	f.Add(damaged, second, false)
	far := fuzzJournal(roundList{start: -1 << 63, length: 1<<63 - 1, gen: 3, logs: []roundLog{{fuzzLog, 1<<63 - 1}}}, 1)
	f.Add(first, far, true)
	f.Add(append(bytes.Clone(first), 0, 0x10, 0, 0, 0, 0), second, true)
	f.Fuzz(func(t *testing.T, first, second []byte, repair bool) {
		first, second = expand(first), expand(second)
		if repair {
			RepairFrames(first, uint64(fuzzSalt), journalBlock)
			RepairFrames(second, uint64(fuzzSalt), journalBlock)
		}
		s := &Store{disk: fuzzDisk{}, kv: NewMemoryKV(), log: slog.New(slog.DiscardHandler)}
		r := &replay{s: s, records: map[store.LogID][]journalRecord{}, suspect: map[store.LogID]suspicion{}}
		for i, b := range [][]byte{first, second} {
			r.files = append(r.files, &replayFile{
				generation: generation{gen: uint64(3 + i), salt: fuzzSalt, name: "000001.jnl"},
				f:          fuzzFile{Reader: bytes.NewReader(b)}, end: int64(len(b)), rounds: map[int64]roundList{},
			})
		}
		used := allocated(func() { replayAll(t, r) })
		if limit := uint64(4<<20 + 32*(len(first)+len(second))); used > limit {
			t.Fatalf("%d bytes are allocated for files of %d and %d", used, len(first), len(second))
		}
	})
}

func replayAll(t *testing.T, r *replay) {
	r.linkFiles()
	for _, file := range r.files {
		if err := r.scan(file); err != nil {
			if notOurs(err) {
				t.Fatal(err)
			}
			return
		}
	}
	if err := r.pin(); err != nil {
		t.Fatal(err)
	}
	for id, recs := range r.records {
		for _, rec := range recs {
			if rec.off < journalBlock || rec.size < frameOverhead || rec.off+int64(rec.size) > rec.file.end || rec.count < 0 {
				t.Fatalf("partition %s has %+v in a file of %d", id, rec, rec.file.end)
			}
			e, err := rec.read()
			if err != nil {
				t.Fatalf("%+v was found, and can't be read: %v", rec, err)
			}
			if e.first != rec.first || e.next() != rec.next() {
				t.Fatalf("%+v is read as %+v", rec, e)
			}
			e.slab.Release()
		}
	}
	for _, d := range r.damage {
		if d.err.Offset < journalBlock && d.file.end >= journalBlock || d.to <= d.err.Offset {
			t.Fatalf("damage from %d to %d", d.err.Offset, d.to)
		}
		if len(r.records) > 0 && len(r.suspect) == 0 && len(d.file.rounds) == 0 {
			t.Fatal("damage touches no log")
		}
	}
}

// FuzzValues reads whatever comes as the values that the database keeps for the
// engine, as a round's list, and as a segment's name: it is refused, or is the
// same when it is written again.
func FuzzValues(f *testing.F) {
	c := checkpoint{segment: 1, epoch: 2, offset: 3, next: 4, enqueued: 5, first: 6}
	value := c.encode(fuzzLog)
	f.Add(value, fuzzLog.String(), false)
	f.Add(value[:48], fuzzLog.String(), true)
	f.Add(appendRound(nil, &roundList{start: 4096, length: 9, logs: []roundLog{{fuzzLog, 7}}}, &roundList{start: -1, gen: 2, logs: []roundLog{{fuzzLog, 6}}}), segmentName(7, 1, fuzzSalt), false)
	f.Add(append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, make([]byte, roundHead)...), "+000000000000000001-1-0123456789ABCDEF.seg", false)
	f.Add(append(make([]byte, 8), "000001.jnl"...), "0000000000000003", true)
	f.Add(sealMeta("key", 7, []byte("value")), "key", false)
	f.Add(binary.LittleEndian.AppendUint64(nil, 9), keyEpoch, true)
	f.Fuzz(func(t *testing.T, b []byte, key string, repair bool) {
		if this, prev, err := parseRound(b); err == nil {
			if again := appendRound(nil, &this, &prev); len(again) != len(b) || roundBody(&this, &prev) != len(b) {
				t.Fatalf("a list of %d bytes becomes one of %d", len(b), len(again))
			} else if this2, prev2, err := parseRound(again); err != nil || !reflect.DeepEqual(this, this2) || !reflect.DeepEqual(prev, prev2) {
				t.Fatalf("%+v %+v becomes %+v %+v, %v", this, prev, this2, prev2, err)
			}
		}
		if first, epoch, s, ok := parseSegmentName(key); ok && (segmentName(first, epoch, s) != key || first < 0) {
			t.Fatalf("%q is read as %q", key, segmentName(first, epoch, s))
		}
		if e, err := openMeta(key, b); err == nil && !bytes.Equal(sealMeta(key, e.Version, e.Value), b) {
			t.Fatalf("%x is opened as %+v", b, e)
		}
		if repair {
			b = seal(key, b)
		}
		v, err := unseal(key, b)
		if err != nil {
			return
		}
		if !bytes.Equal(seal(key, v), b) {
			t.Fatalf("%x holds %x", b, v)
		}
		var g generation
		if g.decode(key, v) == nil && (journalKey(g.gen) != journalKeys+key || len(g.name) > len(v)) {
			t.Fatalf("%q is read as %q", key, journalKey(g.gen))
		}
		id, err := store.ParseLogID(key)
		if err != nil {
			return
		}
		if id.String() != key {
			t.Fatalf("%q is read as %q", key, id)
		}
		var c checkpoint
		var corrupt *store.CorruptError
		if err := c.decode(id, b); err != nil {
			if !errors.As(err, &corrupt) {
				t.Fatal(err)
			}
		} else if !bytes.Equal(c.encode(id), b) {
			t.Fatalf("%x is read as %+v", b, c)
		}
	})
}

// LoadKV reads a database into memory.
func LoadKV(path string) (*MemoryKV, error) {
	kv, err := openBolt(path, true)
	if err != nil {
		return nil, err
	}
	defer kv.Close()
	m := NewMemoryKV()
	err = kv.View(func(from KVTx) error {
		return m.Update(func(to KVTx) (err error) {
			for _, bucket := range buckets {
				from.Each(bucket, "", func(key string, v []byte) bool {
					err = to.Put(bucket, key, v)
					return err == nil
				})
			}
			return err
		})
	})
	return m, err
}

// Allocated is allocated, for the package's other tests.
func Allocated(fn func()) uint64 { return allocated(fn) }
