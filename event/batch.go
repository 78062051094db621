package event

import (
	"hash/crc32"
	"sync"
)

// Batch is what a producer sends in one go: stored all or nothing, in one
// partition, with consecutive sequence numbers and one enqueued time. Build it
// with [NewBatch] and [Batch.AddRecord]; hand it to a log, which owns it until
// it calls back; then read First and Enqueued, and Release it.
type Batch struct {
	Encoding Encoding
	Count    int // events in all records
	Producer Producer
	Records  []Record

	// First and Enqueued (Unix milliseconds) are set by the engine, in commit
	// order. They may be read once the append's callback reports success.
	First    SequenceNumber
	Enqueued int64
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// NewBatch returns an empty batch.
func NewBatch(e Encoding) *Batch {
	b := batches.Get().(*Batch)
	b.Encoding = e
	return b
}

// AddRecord adds a record of count events whose body is s.B[Headroom:end]. The
// batch takes over the caller's reference to s. The body's checksum is taken
// here, where its bytes are still in the cache.
func (b *Batch) AddRecord(s *Slab, end, count int) {
	body := s.B[Headroom:end]
	b.Records = append(b.Records, Record{
		Header: Header{
			Encoding: b.Encoding,
			Count:    count,
			BodyLen:  len(body),
			BodyCRC:  crc32.Checksum(body, Castagnoli),
		},
		Body: body,
		slab: s,
		at:   Headroom,
	})
	b.Count += count
}

// Size is the number of bytes that the batch takes up in a log, less what the
// engine adds around each record.
func (b *Batch) Size() int {
	n := 0
	for i := range b.Records {
		n += RecordHeaderSize + len(b.Records[i].Body)
	}
	return n
}

// Slab is the buffer that holds record i, with room for its header and the
// engine's frame in front of the body. An engine that keeps the record beyond
// the batch retains it.
func (b *Batch) Slab(i int) (s *Slab, body int) { return b.Records[i].slab, b.Records[i].at }

// Release ends the batch: its slabs lose the batch's reference, and b must not
// be used again.
func (b *Batch) Release() {
	for i := range b.Records {
		b.Records[i].slab.Release()
	}
	clear(b.Records)
	*b = Batch{Records: b.Records[:0]}
	batches.Put(b)
}
