package parquet

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace/millrace/capture/row"
)

// columns is the schema, in the order of the columns.
type columns struct {
	SequenceNumber   int64              `parquet:"SequenceNumber"`
	Offset           string             `parquet:"Offset"`
	EnqueuedTimeUtc  int64              `parquet:"EnqueuedTimeUtc,timestamp(millisecond)"`
	PartitionKey     *string            `parquet:"PartitionKey,optional,dict"`
	SystemProperties map[string]string  `parquet:"SystemProperties" parquet-key:",dict"`
	Properties       map[string]*string `parquet:"Properties" parquet-key:",dict" parquet-value:",optional"`
	Body             *[]byte            `parquet:"Body,optional"`
}

// The columns' leaves.
const (
	colSequence = iota
	colOffset
	colEnqueued
	colPartitionKey
	colSystemName
	colSystemValue
	colPropertyName
	colPropertyValue
	colBody
	leaves
)

var schema = parquet.NewSchema("EventData", parquet.SchemaOf(columns{}))

const (
	// DefaultRowGroup is the size of row groups if Options say nothing.
	DefaultRowGroup = 8 << 20
	// MaxRowGroup is the largest size of row groups.
	MaxRowGroup = 64 << 20
)

// Options say what a file is like beside its events.
type Options struct {
	// RowGroup is where a row group ends: with the event that makes its values,
	// before they are compressed, that many bytes or more. It is about what a
	// Writer may come to keep in memory, for events that can't be compressed, beside
	// a few megabytes of its own. 0 is DefaultRowGroup; what is above MaxRowGroup is
	// MaxRowGroup.
	RowGroup int
}

// pageSize is where a page ends, and is compressed.
const pageSize = 256 << 10

// maxDictionary is where a dictionary of names ends, and names are written out.
const maxDictionary = 256 << 10

// Writer writes one file. It keeps a row group, compressed page by page, in memory.
// It is for one goroutine. Every error is final: the file is then to be written
// anew.
type Writer struct {
	w      *parquet.GenericWriter[columns]
	out    counted
	err    error
	limit  int
	group  int // bytes in the row group
	events int64

	values []parquet.Value
	text   []byte // what is not in the row as it has to be
}

// counted counts what is written.
type counted struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// NewWriter returns a writer of a file to w, which it does not close.
func NewWriter(w io.Writer, opts Options) *Writer {
	wr := &Writer{out: counted{w: w}, limit: min(opts.RowGroup, MaxRowGroup)}
	if opts.RowGroup <= 0 {
		wr.limit = DefaultRowGroup
	}
	config := []parquet.WriterOption{
		schema,
		parquet.CreatedBy("millrace", "1", "capture"), // the files' version, not the program's
		parquet.Compression(codec{}),
		parquet.DefaultEncodingFor(parquet.ByteArray, &parquet.Plain), // which every reader knows
		parquet.DataPageVersion(2),
		parquet.PageBufferSize(pageSize),
		parquet.DictionaryMaxBytes(maxDictionary),
		parquet.WriteBufferSize(pageSize),
	}
	for _, path := range [][]string{
		{"Offset"}, {"PartitionKey"}, {"Body"},
		{"SystemProperties", "key_value", "key"}, {"SystemProperties", "key_value", "value"},
		{"Properties", "key_value", "key"}, {"Properties", "key_value", "value"},
	} {
		// The least and the greatest of these would be whole values: a body in a
		// page's header.
		config = append(config, parquet.SkipPageBounds(path...), parquet.SkipPageStatistics(path...))
	}
	wr.w = parquet.NewGenericWriter[columns](&wr.out, config...)
	return wr
}

// Size is how many bytes have been written so far; after Close, the file's size.
func (w *Writer) Size() int64 { return w.out.n }

// Events is how many events have been added.
func (w *Writer) Events() int64 { return w.events }

var errClosed = errors.New("the captured file has been closed")

// Write adds an event, of which it keeps nothing.
func (w *Writer) Write(r *row.Row) error {
	if w.err != nil {
		return w.err
	}
	if _, err := w.w.WriteRows([]parquet.Row{w.row(r)}); err != nil {
		return w.fail(err)
	}
	w.events++
	if w.group >= w.limit {
		w.group = 0
		if err := w.w.Flush(); err != nil {
			return w.fail(err)
		}
	}
	return nil
}

func (w *Writer) fail(err error) error {
	w.err = fmt.Errorf("write a captured file: %w", err)
	return w.err
}

// Close writes what is left, and the footer. It does not close what it writes to.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if err := w.w.Close(); err != nil {
		return w.fail(err)
	}
	w.err = errClosed
	return nil
}

// keep bounds what a Writer keeps of its memory after a large event.
const keep = 1 << 16

// row makes Parquet's values of a row, in the order of the leaves. Of a value's two
// levels the first says whether it continues a list, the second how far down the
// path to it there is something.
func (w *Writer) row(r *row.Row) parquet.Row {
	if cap(w.values) > keep {
		w.values = nil
	}
	if cap(w.text) > keep {
		w.text = nil
	}
	w.text = w.text[:0]
	v := append(w.values[:0],
		parquet.Int64Value(int64(r.Sequence)).Level(0, 0, colSequence),
		parquet.ByteArrayValue(r.Offset).Level(0, 0, colOffset),
		parquet.Int64Value(r.Enqueued).Level(0, 0, colEnqueued))
	w.group += 3*8 + len(r.Offset) + len(r.Body)
	if key, ok := r.PartitionKey(); ok {
		v = append(v, parquet.ByteArrayValue(key).Level(0, 1, colPartitionKey))
		w.group += len(key)
	} else {
		v = append(v, parquet.NullValue().Level(0, 0, colPartitionKey))
	}
	v = w.properties(v, r.System, colSystemName, 1)
	v = w.properties(v, r.Properties, colPropertyName, 2)
	if r.Body != nil {
		v = append(v, parquet.ByteArrayValue(r.Body).Level(0, 1, colBody))
	} else {
		v = append(v, parquet.NullValue().Level(0, 0, colBody))
	}
	w.values = v
	return v
}

// properties adds a map's names and then its values, which are the next leaf.
func (w *Writer) properties(v []parquet.Value, p []row.Property, leaf, level int) []parquet.Value {
	if len(p) == 0 {
		return append(v, parquet.NullValue().Level(0, 0, leaf), parquet.NullValue().Level(0, 0, leaf+1))
	}
	continued := 0
	for i := range p {
		v = append(v, parquet.ByteArrayValue(p[i].Name).Level(continued, 1, leaf))
		w.group += 2*8 + len(p[i].Name)
		continued = 1
	}
	continued = 0
	for i := range p {
		x := &p[i].Value
		text := x.Text
		if x.Kind != row.String {
			at := len(w.text)
			w.text = x.AppendJSON(w.text)
			text = w.text[at:]
		}
		if x.Kind == row.Null && level > 1 {
			v = append(v, parquet.NullValue().Level(continued, level-1, leaf+1))
		} else {
			v = append(v, parquet.ByteArrayValue(text).Level(continued, level, leaf+1))
			w.group += len(text)
		}
		continued = 1
	}
	return v
}
