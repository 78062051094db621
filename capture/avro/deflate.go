package avro

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/flate"
)

// level is what blocks are compressed with. It is part of what a file is.
const level = 6

// packer compresses blocks. It takes up a megabyte, so that writers lend it to
// each other and have it for one block at a time.
type packer struct {
	z   *flate.Writer
	out []byte // headRoom, and the compressed block
}

var packers = sync.Pool{New: func() any {
	p := new(packer)
	p.z, _ = flate.NewWriter(p, level) // fails for other levels alone
	return p
}}

// Write implements io.Writer for the compressor.
func (p *packer) Write(b []byte) (int, error) {
	p.out = append(p.out, b...)
	return len(b), nil
}

// deflate writes the block compressed.
func (w *Writer) deflate(body []byte) {
	p := packers.Get().(*packer)
	if p.out == nil {
		p.out = make([]byte, headRoom, headRoom+BlockSize)
	}
	p.out = p.out[:headRoom]
	p.z.Reset(p)
	_, err := p.z.Write(w.buf[headRoom:])
	if err == nil {
		_, err = p.z.Write(body)
	}
	if err == nil {
		err = p.z.Close()
	}
	if err != nil {
		w.err = fmt.Errorf("compress a block of a captured file: %w", err)
		return
	}
	w.put(append(w.head(p.out, len(p.out)-headRoom), w.opts.Sync[:]...))
	if cap(p.out) > 4*BlockSize {
		p.out = nil
	}
	packers.Put(p)
}
