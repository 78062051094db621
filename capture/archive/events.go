package archive

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/millrace/millrace/capture/row"
)

// Query says which events are wanted. The zero value wants all.
type Query struct {
	From int64 // a sequence number
	// Since and Until bound the enqueued time, which has whole seconds in Avro;
	// zero means no bound. Until is not included.
	Since, Until time.Time
}

// Event is an event and the file that it was read from.
type Event struct {
	*row.Row
	File *File
}

// Events yields the events of sorted files: partition after partition, those of
// each in order. An event lasts until the next is asked for. After a *DamageError
// it goes on with the next file, if it is asked to; other errors are the last.
func Events(ctx context.Context, files []*File, q Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var over Partition // is past q.Until
		ended := false
		for i, f := range files {
			of, named := f.Partition()
			if ended && named && of == over || q.skips(files, i) {
				continue
			}
			past, more := q.read(ctx, f, yield)
			if !more {
				return
			}
			over, ended = of, past && named
		}
	}
}

// skips tells whether a file has nothing that is wanted, by what is known of it and
// of the one after it, without a look into it.
func (q *Query) skips(files []*File, i int) bool {
	f := files[i]
	if f.Counted && (f.Events == 0 || int64(f.Last) < q.From) {
		return true
	}
	if q.Since.IsZero() || i+1 == len(files) {
		return false
	}
	of, named := f.Partition()
	next, ok := files[i+1].Partition()
	// The next window began no later than within the second that its file's name
	// says, and this file's events came before.
	return named && ok && of == next && !files[i+1].Of.Start.Add(time.Second).After(q.Since)
}

// read yields a file's events. past tells that the partition has no more that are
// wanted, more that anything is wanted at all.
func (q *Query) read(ctx context.Context, f *File, yield func(Event, error) bool) (past, more bool) {
	r, err := f.Open(ctx)
	if err != nil {
		return false, proceed(err, yield)
	}
	defer r.Close()
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return false, true
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, proceed(err, yield)
		}
		at := time.UnixMilli(e.Enqueued)
		switch {
		case !q.Until.IsZero() && !at.Before(q.Until):
			return true, true
		case int64(e.Sequence) < q.From || at.Before(q.Since):
			continue
		}
		if !yield(Event{e, f}, nil) {
			return false, false
		}
	}
}

// proceed yields an error, and tells whether to go on.
func proceed(err error, yield func(Event, error) bool) bool {
	var damage *DamageError
	return yield(Event{}, err) && errors.As(err, &damage)
}
