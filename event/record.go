package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// A record is the unit of storage: a header that describes it whole, and a
// body. It is the same in every engine, so that a log moves between engines as
// a copy. All numbers are little endian.
//
//	 0        4        8        12  13  14    16       20         24
//	 ┌────────┬────────┬────────┬───┬───┬─────┬────────┬──────────┐
//	 │ header │ body   │ body   │ver│enc│flags│ count  │ producer │
//	 │ CRC32C │ CRC32C │ length │   │   │     │        │ sequence │
//	 ├────────┴────────┼────────┴───┴───┴─────┼────────┴──────────┤
//	24│ first sequence │32 enqueued, Unix ms  │40 epoch           │
//	 ├─────────────────┼─────────┬────────────┴───────────────────┘
//	48│ producer id    │56 p.epoch│58 zero, 6 bytes
//	 ├─────────────────┴─────────┴────────────────────────────────┐
//	64│ body …
//
// The header's CRC covers bytes 4 to 64, and so the body's CRC: whoever checks
// both has checked everything.

// RecordHeaderSize is the length of a record's header.
const RecordHeaderSize = 64

// RecordVersion is the version that this code writes and reads.
const RecordVersion = 1

// Flags of a record.
type Flags uint16

const (
	// FlagBatchEnd marks the last record of a batch. A batch without it was cut
	// short by a crash and does not exist.
	FlagBatchEnd Flags = 1 << iota
	// FlagBatchStart marks the first record of a batch.
	FlagBatchStart
	// FlagProducer says that the producer fields are set.
	FlagProducer
)

// Producer is the identity of a producer whose batches are to be stored once
// only. Its zero value means: none.
type Producer struct {
	ID       int64
	Epoch    int16
	Sequence int32 // of the batch's first event
	Set      bool
}

// NextSequence is the sequence number that a producer gives the event n events
// after the one with number s. Numbers wrap, from 2147483647 to 0.
func NextSequence(s int32, n int) int32 { return int32((int64(s) + int64(n)) & math.MaxInt32) }

// Header is a record's header.
type Header struct {
	Encoding Encoding
	Flags    Flags
	Count    int            // events in the body
	First    SequenceNumber // of the body's first event
	Enqueued int64          // Unix milliseconds, the same for a whole batch
	Epoch    uint64         // of the log's owner that wrote it
	Producer Producer
	BodyLen  int
	BodyCRC  uint32
}

// Next is the sequence number that follows the record's last event.
func (h *Header) Next() SequenceNumber { return h.First + SequenceNumber(h.Count) }

// Castagnoli is the CRC32C table, used for every checksum that is stored.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of [Header.Decode] and [Record.Check]. They say that bytes are not a
// record; whether that is a torn tail or damage is the engine's to judge.
var (
	ErrHeader  = errors.New("record header does not match its checksum")
	ErrBody    = errors.New("record body does not match its checksum")
	ErrVersion = errors.New("record version is unknown")
)

// Encode writes the header into b, which holds at least RecordHeaderSize bytes.
func (h *Header) Encode(b []byte) {
	le := binary.LittleEndian
	b = b[:RecordHeaderSize]
	flags := h.Flags
	if h.Producer.Set {
		flags |= FlagProducer
	}
	le.PutUint32(b[4:], h.BodyCRC)
	le.PutUint32(b[8:], uint32(h.BodyLen))
	b[12], b[13] = RecordVersion, byte(h.Encoding)
	le.PutUint16(b[14:], uint16(flags))
	le.PutUint32(b[16:], uint32(h.Count))
	le.PutUint32(b[20:], uint32(h.Producer.Sequence))
	le.PutUint64(b[24:], uint64(h.First))
	le.PutUint64(b[32:], uint64(h.Enqueued))
	le.PutUint64(b[40:], h.Epoch)
	le.PutUint64(b[48:], uint64(h.Producer.ID))
	le.PutUint16(b[56:], uint16(h.Producer.Epoch))
	clear(b[58:64])
	le.PutUint32(b, crc32.Checksum(b[4:], Castagnoli))
}

// Decode reads a header from b. It returns ErrHeader when b is too short or
// does not match its checksum, or has numbers that would overflow where they are
// added up, ErrVersion when a newer Millrace wrote it.
func (h *Header) Decode(b []byte) error {
	if len(b) < RecordHeaderSize {
		return ErrHeader
	}
	le := binary.LittleEndian
	b = b[:RecordHeaderSize]
	if le.Uint32(b) != crc32.Checksum(b[4:], Castagnoli) {
		return ErrHeader
	}
	if b[12] != RecordVersion {
		return fmt.Errorf("%w: %d, this program knows %d", ErrVersion, b[12], RecordVersion)
	}
	count, size, first := le.Uint32(b[16:]), le.Uint32(b[8:]), SequenceNumber(le.Uint64(b[24:]))
	if count > math.MaxInt32 || size > math.MaxInt32 || first < 0 || first > math.MaxInt64-SequenceNumber(count) {
		return fmt.Errorf("%w, or says what no record does: %d events in %d bytes, from number %d on", ErrHeader, count, size, first)
	}
	flags := Flags(le.Uint16(b[14:]))
	*h = Header{
		Encoding: Encoding(b[13]),
		Flags:    flags,
		Count:    int(count),
		First:    first,
		Enqueued: int64(le.Uint64(b[32:])),
		Epoch:    le.Uint64(b[40:]),
		BodyCRC:  le.Uint32(b[4:]),
		BodyLen:  int(size),
	}
	if flags&FlagProducer != 0 {
		h.Producer = Producer{
			ID:       int64(le.Uint64(b[48:])),
			Epoch:    int16(le.Uint16(b[56:])),
			Sequence: int32(le.Uint32(b[20:])),
			Set:      true,
		}
	}
	return nil
}

// Record is a header and its body. In a [Batch] it owns its memory; in a
// [Chunk] it is a view that ends with the chunk.
type Record struct {
	Header
	Body []byte

	slab *Slab // in a Batch: what Body lies in
	at   int   // in a Batch: where in the slab Body starts
}

// Check tells whether the body matches the header's checksum.
func (r *Record) Check() error {
	if len(r.Body) != r.BodyLen || crc32.Checksum(r.Body, Castagnoli) != r.BodyCRC {
		return ErrBody
	}
	return nil
}
