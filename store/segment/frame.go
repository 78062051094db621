package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// Both kinds of file hold frames, one after the other, each at a multiple of
// eight bytes, each around one record. All numbers are little endian.
//
//	 0       4          8       16          20     24             32
//	 ┌───────┬──────────┬───────┬───────────┬──────┬──────────────┬────────────────┬──────────┐
//	 │ magic │ salted   │ hub   │ partition │ kind │ durable      │ record header, │ body …   │
//	 │ MRF1  │ CRC32C   │       │           │      │ offset       │ 64 bytes       │ + 0 to 7 │
//	 └───────┴──────────┴───────┴───────────┴──────┴──────────────┴────────────────┴──────────┘
//
// The salted CRC covers the file's salt, the frame's offset in the file, and
// bytes 8 to 96. Journal files are reused, so a stale frame of the file's
// former life is whole and would pass for a new one but for the salt. The
// record's own checksums are unsalted: a record is copied from the journal to a
// segment, or to another engine, as it is.
//
// The durable offset says how much of this very file was synced when the frame
// was written. Damage before the largest of them is damage; after it, it may be
// what a crash left of a write that nobody was told of.

const (
	frameMagic = 0x3146524D // "MRF1"
	frameAlign = 8

	// frameOverhead is what stands in front of a record's body in a file.
	frameOverhead = event.Headroom
)

type frameKind uint32

const (
	kindRecord frameKind = 0
	// kindRound opens a round of the journal: its body lists the partitions of
	// this round and of the one before, so that damage can be pinned to them.
	kindRound frameKind = 1
)

// frame is a frame's own 32 bytes.
type frame struct {
	log     store.LogID
	kind    frameKind
	durable int64
}

// salt keys the checksums of one file: nobody outside can make bytes that pass
// for a frame.
type salt uint64

// crc is the salted checksum of the frame at b, which reaches to the end of the
// record's header: the CRC32C of bytes 8 to 96, XORed with the upper half of a
// mix (the finaliser of splitmix64) of the salt and the offset.
func (s salt) crc(b []byte, off int64) uint32 {
	x := uint64(s) + uint64(off)*0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	x ^= x >> 31
	return crc32.Checksum(b[8:frameOverhead], event.Castagnoli) ^ uint32(x>>32)
}

// encode writes the frame in front of a record header that is already in
// place: b is the frame's whole run of bytes, off where it will stand.
func (f *frame) encode(b []byte, s salt, off int64) {
	le := binary.LittleEndian
	b = b[:frameOverhead]
	le.PutUint32(b, frameMagic)
	le.PutUint64(b[8:], f.log.Hub)
	le.PutUint32(b[16:], f.log.Partition)
	le.PutUint32(b[20:], uint32(f.kind))
	le.PutUint64(b[24:], uint64(f.durable))
	le.PutUint32(b[4:], s.crc(b, off))
}

// errFrame says that there is no frame at some place.
var errFrame = errors.New("no frame with a matching checksum")

// decode reads the frame and the record header at b, which begins at off.
func (f *frame) decode(h *event.Header, b []byte, s salt, off int64) error {
	le := binary.LittleEndian
	if len(b) < frameOverhead || le.Uint32(b) != frameMagic || le.Uint32(b[4:]) != s.crc(b, off) {
		return errFrame
	}
	*f = frame{
		log:     store.LogID{Hub: le.Uint64(b[8:]), Partition: le.Uint32(b[16:])},
		kind:    frameKind(le.Uint32(b[20:])),
		durable: int64(le.Uint64(b[24:])),
	}
	return h.Decode(b[event.FrameRoom:frameOverhead])
}

// frameSize is the room that a record with a body of n bytes takes in a file.
func frameSize(n int) int { return (frameOverhead + n + frameAlign - 1) &^ (frameAlign - 1) }

// File headers. The salt and the first sequence number of a segment also stand
// in its name, a journal file's in the database: damage to a header costs a
// message, not events.
//
//	0          8      16     24          28      32       40            48     60
//	┌──────────┬──────┬──────┬───────────┬───────┬────────┬─────────────┬──────┬────────┐
//	│ MRSEG  1 │ salt │ hub  │ partition │ zero  │ first  │ enqueued ms │ zero │ CRC32C │
//	│ MRJNL  1 │      │ generation, zero …                                      │        │
//	└──────────┴──────┴──────┴───────────┴───────┴────────┴─────────────┴──────┴────────┘
const fileHeaderSize = 64

var (
	segmentMagic = [8]byte{'M', 'R', 'S', 'E', 'G', 0, 0, 1}
	journalMagic = [8]byte{'M', 'R', 'J', 'N', 'L', 0, 0, 1}
)

type segmentHeader struct {
	salt     salt
	log      store.LogID
	first    event.SequenceNumber
	enqueued int64 // of the first record, Unix ms: no record in the file is older
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, fileHeaderSize)
	le := binary.LittleEndian
	copy(b, segmentMagic[:])
	le.PutUint64(b[8:], uint64(h.salt))
	le.PutUint64(b[16:], h.log.Hub)
	le.PutUint32(b[24:], h.log.Partition)
	le.PutUint64(b[32:], uint64(h.first))
	le.PutUint64(b[40:], uint64(h.enqueued))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], event.Castagnoli))
	return b
}

func (h *segmentHeader) decode(b []byte) error {
	le := binary.LittleEndian
	if len(b) < fileHeaderSize || le.Uint32(b[60:]) != crc32.Checksum(b[:60], event.Castagnoli) {
		return errors.New("the file header does not match its checksum")
	}
	if [8]byte(b) != segmentMagic {
		return errors.New("the file is not a segment of a version that this program knows")
	}
	*h = segmentHeader{
		salt:     salt(le.Uint64(b[8:])),
		log:      store.LogID{Hub: le.Uint64(b[16:]), Partition: le.Uint32(b[24:])},
		first:    event.SequenceNumber(le.Uint64(b[32:])),
		enqueued: int64(le.Uint64(b[40:])),
	}
	return nil
}

func journalHeader(gen uint64, s salt) []byte {
	b := make([]byte, fileHeaderSize)
	le := binary.LittleEndian
	copy(b, journalMagic[:])
	le.PutUint64(b[8:], uint64(s))
	le.PutUint64(b[16:], gen)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], event.Castagnoli))
	return b
}

// segmentName is a segment's file name: its first sequence number, the epoch in
// which it was made, and its salt. Of two with the same first number the later
// epoch's counts: the other was given up after a failed sync.
func segmentName(first event.SequenceNumber, epoch uint64, s salt) string {
	return fmt.Sprintf("%019d-%08x-%016x.seg", first, epoch, uint64(s))
}

// parseSegmentName reads what segmentName made.
func parseSegmentName(name string) (first event.SequenceNumber, epoch uint64, s salt, ok bool) {
	base, ok := strings.CutSuffix(name, ".seg")
	f := strings.Split(base, "-")
	if !ok || len(f) != 3 || len(f[0]) != 19 || len(f[2]) != 16 {
		return 0, 0, 0, false
	}
	n, err1 := strconv.ParseInt(f[0], 10, 64)
	epoch, err2 := strconv.ParseUint(f[1], 16, 64)
	u, err3 := strconv.ParseUint(f[2], 16, 64)
	first, s = event.SequenceNumber(n), salt(u)
	return first, epoch, s, err1 == nil && err2 == nil && err3 == nil && name == segmentName(first, epoch, s)
}
