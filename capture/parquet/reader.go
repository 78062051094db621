package parquet

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

// ErrFormat is what every error about a file's bytes wraps.
var ErrFormat = errors.New("not a captured Parquet file")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Reader reads a captured file of ours. It keeps a page of each column in memory.
// It is for one goroutine.
type Reader struct {
	groups []parquet.RowGroup
	next   int          // group to be opened
	rows   parquet.Rows // of the group that is open
	events int64
	buf    [1]parquet.Row
	row    row.Row
	err    error
}

// NewReader looks through a file of a number of bytes, so that what is in it can be
// read in memory that it is worth, and reads its footer. Errors wrap ErrFormat, or
// are what r returns.
func NewReader(r io.ReaderAt, size int64) (rd *Reader, err error) {
	defer recovered(&err)
	f, err := inspect(r, size)
	if err != nil {
		return nil, err
	}
	return &Reader{groups: f.RowGroups()}, nil
}

// recovered makes an error of a panic of the library's, of which none is known to
// be left for a file that passed inspection.
func recovered(err *error) {
	if x := recover(); x != nil {
		*err = bad("%v", x)
	}
}

// Close frees what the reader holds. It does not close what it reads.
func (r *Reader) Close() error {
	if r.err == nil {
		r.err = errClosed
	}
	rows := r.rows
	r.rows = nil
	if rows == nil {
		return nil
	}
	return rows.Close()
}

// Next returns the next event, which lasts until the next call, and io.EOF after
// the last. Its properties' values are of the kinds String and Null alone. Other
// errors wrap ErrFormat, or are what the file's reader returns; they are final.
func (r *Reader) Next() (x *row.Row, err error) {
	if r.err != nil {
		return nil, r.err
	}
	if err = r.read(); err != nil {
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("event %d of the file: %w", r.events, err)
		}
		r.err = err
		return nil, err
	}
	r.events++
	return &r.row, nil
}

// read reads the next row.
func (r *Reader) read() (err error) {
	defer recovered(&err)
	for {
		if r.rows == nil {
			if r.next == len(r.groups) {
				return io.EOF
			}
			r.rows = r.groups[r.next].Rows()
			r.next++
		}
		n, err := r.rows.ReadRows(r.buf[:])
		if n == 1 {
			return r.take(r.buf[0])
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		rows := r.rows
		r.rows = nil
		if err := rows.Close(); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
}

// take makes a row of Parquet's values.
func (r *Reader) take(values parquet.Row) error {
	if cap(r.row.System) > keep || cap(r.row.Properties) > keep {
		r.row = row.Row{}
	}
	r.row = row.Row{System: r.row.System[:0], Properties: r.row.Properties[:0]}
	system, properties := 0, 0 // values read of each
	for _, v := range values {
		switch v.Column() {
		case colSequence:
			r.row.Sequence = event.SequenceNumber(v.Int64())
		case colOffset:
			r.row.Offset = v.ByteArray()
		case colEnqueued:
			r.row.Enqueued = v.Int64()
		case colSystemName:
			if v.DefinitionLevel() > 0 {
				r.row.System = append(r.row.System, row.Property{Name: v.ByteArray()})
			}
		case colPropertyName:
			if v.DefinitionLevel() > 0 {
				r.row.Properties = append(r.row.Properties, row.Property{Name: v.ByteArray()})
			}
		case colSystemValue:
			if v.DefinitionLevel() > 0 {
				if system == len(r.row.System) {
					return bad("SystemProperties has more values than names")
				}
				r.row.System[system].Value = row.Value{Kind: row.String, Text: v.ByteArray()}
				system++
			}
		case colPropertyValue:
			if v.DefinitionLevel() > 0 {
				if properties == len(r.row.Properties) {
					return bad("Properties has more values than names")
				}
				if v.DefinitionLevel() > 1 {
					r.row.Properties[properties].Value = row.Value{Kind: row.String, Text: v.ByteArray()}
				}
				properties++
			}
		case colBody:
			if !v.IsNull() {
				if r.row.Body = v.ByteArray(); r.row.Body == nil {
					r.row.Body = []byte{}
				}
			}
		}
	}
	if system < len(r.row.System) || properties < len(r.row.Properties) {
		return bad("a map has more names than values")
	}
	return nil
}
