package event

import "sync"

// Chunk is a run of consecutive records read from a log: views into slabs that
// stay valid until Close. The records are not to be written to.
type Chunk struct {
	Records []Record

	slabs []*Slab
}

var chunks = sync.Pool{New: func() any { return new(Chunk) }}

// NewChunk returns an empty chunk; engines fill it.
func NewChunk() *Chunk { return chunks.Get().(*Chunk) }

// Hold makes the chunk keep a slab, whose reference it takes over, until Close.
func (c *Chunk) Hold(s *Slab) { c.slabs = append(c.slabs, s) }

// Add appends a record whose body lies in a slab that the chunk holds.
func (c *Chunk) Add(h *Header, body []byte) {
	c.Records = append(c.Records, Record{Header: *h, Body: body})
}

// Empty tells whether there is nothing in it: the reader stands at the tail.
func (c *Chunk) Empty() bool { return len(c.Records) == 0 }

// Size is how much memory the chunk keeps.
func (c *Chunk) Size() int64 {
	n := int64(0)
	for _, s := range c.slabs {
		n += int64(len(s.B))
	}
	return n
}

// Next is the sequence number that follows the chunk's last event, for a chunk
// that is not empty.
func (c *Chunk) Next() SequenceNumber { return c.Records[len(c.Records)-1].Next() }

// Close releases the chunk's memory. Neither the chunk nor any view from it may
// be used afterwards.
func (c *Chunk) Close() {
	for _, s := range c.slabs {
		s.Release()
	}
	clear(c.slabs)
	clear(c.Records)
	c.slabs, c.Records = c.slabs[:0], c.Records[:0]
	chunks.Put(c)
}
