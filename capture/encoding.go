package capture

import (
	"fmt"

	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/hub"
)

// tools are what an encoding needs, kept for the next.
type tools struct {
	rows row.Decoder
	avro avro.Writer
}

func newTools() *tools { return &tools{} }

// grows tells whether a format's files grow block by block, so that they can be
// left and gone on with. The others are written when the window closes.
func grows(f hub.CaptureFormat) bool { return f != hub.CaptureParquet }

// encoding writes a part of a file.
type encoding struct {
	to      *spool
	events  int64 // in the file
	avro    *avro.Writer
	parquet *parquet.Writer
}

// resume goes on with a file that has so many events in whole blocks.
func (t *tools) resume(p *partition, to *spool, in *intent, events int64) (*encoding, error) {
	enc := &encoding{to: to, events: events}
	if err := to.open(); err != nil {
		return nil, err
	}
	if in.Format == hub.CaptureParquet {
		enc.parquet = parquet.NewWriter(&to.sum, parquet.Options{})
		return enc, nil
	}
	o := avro.Options{
		Codec:      avro.CodecNull,
		Sync:       avro.Marker(p.h.Namespace().Name, p.h.Name, uint32(p.index), in.First),
		HeaderOnly: in.HeaderOnly,
	}
	if in.Format == hub.CaptureAvroDeflate {
		o.Codec = avro.CodecDeflate
	}
	t.avro.Reset(&to.sum, o, events)
	enc.avro = &t.avro
	return enc, nil
}

// write adds an event, and tells whether all are in whole blocks now.
func (c *encoding) write(e *row.Row) (flushed bool, err error) {
	if c.parquet != nil {
		err = c.parquet.Write(e)
	} else {
		err = c.avro.Write(e)
		flushed = c.avro.Held() == 0
	}
	if err != nil {
		return false, fmt.Errorf("encode event %d: %w", e.Sequence, err)
	}
	c.events++
	return flushed, nil
}

// pause leaves the file: events in half a block are written again by who goes on.
func (c *encoding) pause() error { return c.to.close() }

// finish ends the file, if it is whole.
func (c *encoding) finish(whole bool) (err error) {
	switch {
	case !whole:
	case c.parquet != nil:
		err = c.parquet.Close()
	default:
		err = c.avro.Close()
	}
	if cerr := c.to.close(); err == nil {
		err = cerr
	}
	return err
}
