package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
)

// DamageError says that a file is not what was captured.
type DamageError struct {
	File *File
	Err  error // names the byte, where that is known
}

// Error implements error.
func (e *DamageError) Error() string { return e.File.Place() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// errSum is damage that the format did not show.
var errSum = errors.New("its bytes are not those that were written: the checksum kept with it is another")

// Reader reads the events of one file.
type Reader struct {
	file *File
	rows interface {
		Next() (*row.Row, error)
	}
	close []func() error
	sum   capture.Sum
	whole io.Reader // what is to be read to the end before the sum counts; nil: it is known
}

// Open opens the file. A Parquet file that is not on this machine is copied to a
// temporary one first.
func (f *File) Open(ctx context.Context) (*Reader, error) {
	if err := f.ask(ctx); err != nil {
		return nil, err
	}
	from, err := f.at.Destination.Open(ctx, f.at.Container, f.Name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Place(), err)
	}
	r := &Reader{file: f, close: []func() error{from.Close}, sum: capture.Sum{W: io.Discard}}
	if path.Ext(f.Name) == capture.SuffixParquet {
		err = r.openParquet(from)
	} else {
		err = r.openAvro(from)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) openAvro(from io.Reader) error {
	r.whole = io.TeeReader(from, &r.sum)
	rows, err := avro.NewReader(r.whole)
	if err != nil {
		return r.fail(err)
	}
	r.rows = rows
	return nil
}

// openParquet opens a file that must be read at any place.
func (r *Reader) openParquet(from io.ReadCloser) error {
	local, ok := from.(*os.File)
	if !ok {
		var err error
		if local, err = r.spool(from); err != nil {
			return err
		}
	}
	info, err := local.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", r.file.Place(), err)
	}
	rows, err := parquet.NewReader(local, info.Size())
	if err != nil {
		return r.fail(err)
	}
	r.rows = rows
	r.close = append(r.close, rows.Close)
	return nil
}

// spool copies what comes to a temporary file.
func (r *Reader) spool(from io.Reader) (*os.File, error) {
	tmp, err := os.CreateTemp("", "millrace-*.parquet")
	if err != nil {
		return nil, fmt.Errorf("copy %s to this machine: %w", r.file.Place(), err)
	}
	r.close = append(r.close, func() error { return errors.Join(tmp.Close(), os.Remove(tmp.Name())) })
	r.sum.W = tmp
	if _, err := io.Copy(&r.sum, from); err != nil {
		return nil, fmt.Errorf("copy %s to this machine: %w", r.file.Place(), err)
	}
	if r.file.sum && r.sum.CRC64 != r.file.crc64 {
		return nil, &DamageError{r.file, errSum}
	}
	return tmp, nil
}

// fail says which file an error is about, and whether it is one of its bytes.
func (r *Reader) fail(err error) error {
	var format *avro.FormatError
	if errors.As(err, &format) || errors.Is(err, parquet.ErrFormat) {
		return &DamageError{r.file, err}
	}
	return fmt.Errorf("%s: %w", r.file.Place(), err)
}

// Next returns the next event, which lasts until the next call, and io.EOF after
// the last. A *DamageError is final, as other errors are.
func (r *Reader) Next() (*row.Row, error) {
	e, err := r.rows.Next()
	switch {
	case err == nil:
		return e, nil
	case !errors.Is(err, io.EOF):
		return nil, r.fail(err)
	}
	if r.whole != nil && r.file.sum && r.sum.CRC64 != r.file.crc64 {
		return nil, &DamageError{r.file, errSum}
	}
	return nil, io.EOF
}

// Close frees what the reader holds.
func (r *Reader) Close() error {
	var all error
	for i := len(r.close) - 1; i >= 0; i-- {
		all = errors.Join(all, r.close[i]())
	}
	r.close = nil
	return all
}

// Learn finds out the file's facts: from what is kept with it, or else by Count.
func (f *File) Learn(ctx context.Context) error {
	if err := f.ask(ctx); err != nil || f.Counted {
		return err
	}
	return f.Count(ctx)
}

// Count reads the whole file, for its facts.
func (f *File) Count(ctx context.Context) error {
	r, err := f.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	var facts Facts
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			f.Facts, f.Counted = facts, true
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if facts.Events == 0 {
			facts.First, facts.Last = e.Sequence, e.Sequence
		}
		facts.Events++
		facts.First, facts.Last = min(facts.First, e.Sequence), max(facts.Last, e.Sequence)
	}
}
