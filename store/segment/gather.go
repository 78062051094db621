package segment

import (
	"sort"

	"github.com/millrace/millrace/event"
)

// entry is a record in memory: a run of bytes in a slab, frame and header first.
type entry struct {
	slab     *event.Slab
	off, len int32
	first    event.SequenceNumber
	count    int32
	start    bool // of a batch
	enqueued int64
}

func (e *entry) bytes() []byte { return e.slab.B[e.off : e.off+e.len] }

func (e *entry) next() event.SequenceNumber { return e.first + event.SequenceNumber(e.count) }

// gather collects framed records for one write to a file. Neighbours in a slab
// go as one buffer.
type gather struct {
	salt    salt
	start   int64
	off     int64
	vectors [][]byte
	slab    *event.Slab // of the last record added, and where it ends
	end     int32
}

func (g *gather) begin(s salt, off int64) {
	*g = gather{salt: s, start: off, off: off, vectors: g.vectors[:0]}
}

// raw adds bytes that are framed already.
func (g *gather) raw(b []byte) {
	g.vectors = append(g.vectors, b)
	g.off += int64(len(b))
	g.slab = nil
}

// add frames a record for the place where it will stand, and adds it. The
// frame is written into the record's slab, ahead of what readers look at.
func (g *gather) add(f *frame, e *entry) {
	b := e.bytes()
	f.encode(b, g.salt, g.off)
	g.off += int64(e.len)
	if e.slab == g.slab && e.off == g.end {
		v := &g.vectors[len(g.vectors)-1]
		*v = (*v)[:len(*v)+len(b)] // its capacity is the rest of the slab
	} else {
		g.vectors = append(g.vectors, b)
	}
	g.slab, g.end = e.slab, e.off+e.len
}

// write writes what was added and returns where it ends.
func (g *gather) write(f File) (end int64, err error) {
	err = f.WriteAt(g.vectors, g.start)
	clear(g.vectors)
	g.slab = nil
	return g.off, err
}

// tail is the queue of a log's newest records.
type tail struct {
	q    []entry
	head int
}

func (t *tail) entries() []entry { return t.q[t.head:] }

func (t *tail) push(es []entry) { t.q = append(t.q, es...) }

func (t *tail) pop(n int) {
	for i := range t.q[t.head : t.head+n] {
		t.q[t.head+i].slab.Release()
		t.q[t.head+i] = entry{}
	}
	t.head += n
	if t.head > 64 && t.head > len(t.q)/2 {
		n := copy(t.q, t.q[t.head:])
		clear(t.q[n:])
		t.q, t.head = t.q[:n], 0
	}
}

// at is the index, in entries, of the record that holds n; len if none does.
func (t *tail) at(n event.SequenceNumber) int {
	es := t.entries()
	return sort.Search(len(es), func(i int) bool { return es[i].next() > n })
}
