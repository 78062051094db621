package capture

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// window is what is known of the open window. It is not stored: a start reads its
// events again.
type window struct {
	open   bool
	opened time.Duration // by the clock that never goes back
	intent               // so far
	// next is the first event that has not been looked at, and size what those
	// before it weigh.
	next event.SequenceNumber
	size int64
	// incomplete is how many had properties that their producers encoded wrongly.
	incomplete int64
	// spool has whole blocks of the events before spooled, which are so many. It is
	// nil until there is one.
	spool         *spool
	spooled       event.SequenceNumber
	spooledEvents int64
}

// verdict is how the reading of a window ended.
type verdict int

const (
	atTail verdict = iota
	// full: the last event that was looked at closes the window, or the next is
	// after its end.
	full
	// beyond: the window has no event, and the next is after its end.
	beyond
)

// drop forgets what is known of the window: it begins anew.
func (w *window) drop() {
	if w.spool != nil {
		w.spool.remove()
	}
	*w = window{}
}

// begin opens the window that the cursor stands in, unless it is open with the
// same settings.
func (p *partition) begin(s *hub.Capture) {
	if p.win.open && *p.settings == *s {
		return
	}
	p.win.drop()
	p.settings = s
	p.win = window{open: true, opened: p.e.o.Elapsed(), next: p.cur.Next, spooled: p.cur.Next, intent: intent{
		First: p.cur.Next, End: p.cur.Next, Start: p.cur.Start,
		Destination: s.Destination, Container: s.Container, Format: s.Format, HeaderOnly: s.HeaderOnly,
	}}
}

// end is when the window closes by time.
func (p *partition) end() time.Time { return p.win.Start.Add(p.settings.Interval) }

// follow reads what has come into the window, and closes it when it is full or
// over, or, if it is to be the last, at the log's end. It tells how long there is
// nothing to do: forGood of the last.
func (p *partition) follow(ctx context.Context, s *hub.Capture, last bool) (time.Duration, error) {
	p.begin(s)
	if p.reader == nil {
		r, err := p.h.At(p.index).OpenReader(ctx)
		if err != nil {
			return 0, err
		}
		p.reader = r
		// Without a sync before each acknowledgement a loss of power takes events back,
		// those in files among them.
		if info, err := r.Info(ctx); err == nil && info.Next < p.cur.Next {
			if last {
				return forGood, nil
			}
			p.close() // so that it is looked at again
			return 0, fmt.Errorf("the log ends before event %d and events up to %d are in files: it has lost them; what comes is captured from there on, or, if capture is turned off and on, at once", info.Next, p.cur.Next-1)
		}
	}
	v, due, err := p.read(ctx)
	if err != nil {
		p.win.drop() // the spool may end in half a block
		return 0, err
	}
	w := &p.win
	switch {
	case v == full, last && w.Events > 0:
		return 0, p.seal(ctx)
	case v == beyond:
		return 0, p.empty(ctx, due)
	case last:
		return forGood, nil
	}
	// By the wall's clock, or, if that was set back, by what has passed.
	now := p.e.o.Now()
	left := min(p.end().Add(slack).Sub(now), s.Interval+slack-(p.e.o.Elapsed()-w.opened))
	if left > 0 {
		return left, nil
	}
	if w.Events > 0 {
		return 0, p.seal(ctx)
	}
	return 0, p.empty(ctx, now.Add(-slack))
}

// read takes in what the log has for the window. due is when the event was
// enqueued that is beyond it.
func (p *partition) read(ctx context.Context) (v verdict, due time.Time, err error) {
	t, err := p.e.borrow(ctx)
	if err != nil {
		return atTail, due, err
	}
	defer p.e.giveBack(t)
	w := &p.win
	from := w.next
	var enc *encoding
	if grows(w.Format) && w.next >= w.spooled {
		if !p.e.o.Room() {
			return atTail, due, errNoRoom
		}
		if w.spool == nil {
			w.spool = newSpool(p.e.spoolPath(p.h.ID(), p.index))
		}
		if enc, err = t.resume(p, w.spool, &w.intent, w.spooledEvents); err != nil {
			return atTail, due, err
		}
		from = w.spooled
	}
	for done := false; !done && err == nil; {
		var c *event.Chunk
		if c, err = p.reader.Read(ctx, from, readSize); err != nil {
			break
		}
		if done = c.Empty(); !done {
			if first := c.Records[0].First; first > from {
				p.overtaken(from, first)
			}
			from = c.Next()
			v, due, err = p.take(t, enc, c)
			done = v != atTail
		} else if first, ierr := p.first(ctx); ierr == nil && first > from {
			p.overtaken(from, first) // and nothing has come since
		}
		c.Close()
	}
	if enc != nil {
		if perr := enc.pause(); err == nil {
			err = perr
		}
	}
	return v, due, err
}

// first is the first event that the log has, or will have.
func (p *partition) first(ctx context.Context) (event.SequenceNumber, error) {
	info, err := p.reader.Info(ctx)
	return info.First, err
}

// take takes a chunk's events into the window, until one closes it.
func (p *partition) take(t *tools, enc *encoding, c *event.Chunk) (v verdict, due time.Time, err error) {
	w, s := &p.win, p.settings
	for i := range c.Records {
		r := &c.Records[i]
		from := max(r.First, w.spooled)
		if enc == nil {
			from = max(r.First, w.next)
		}
		if at := time.UnixMilli(r.Enqueued); r.Next() > w.next && !at.Before(p.end()) {
			if w.Events > 0 {
				return full, due, nil
			}
			return beyond, at, nil
		}
		for e, err := range t.rows.Rows(r, from) {
			if err != nil {
				return atTail, due, err
			}
			if enc != nil {
				flushed, err := enc.write(e)
				if err != nil {
					return atTail, due, err
				}
				if flushed {
					w.spooled, w.spooledEvents = e.Sequence+1, enc.events
				}
			}
			if e.Sequence >= w.next && w.count(e) >= s.Bytes {
				return full, due, nil
			}
		}
	}
	return atTail, due, nil
}

// count adds an event to the window, and returns what all weigh.
func (w *window) count(e *row.Row) int64 {
	if w.Events == 0 {
		w.FirstEnqueued = e.Enqueued
	}
	w.Events++
	w.LastEnqueued = e.Enqueued
	w.End = e.Sequence + 1
	w.next = w.End
	w.size += weight(e)
	if e.Incomplete {
		w.incomplete++
	}
	return w.size
}

// weight is what an event counts towards the size of a window: its data, whatever
// a format makes of it.
func weight(e *row.Row) int64 {
	n := len(e.Body)
	for _, all := range [2][]row.Property{e.System, e.Properties} {
		for i := range all {
			n += len(all[i].Name) + len(all[i].Value.Text)
			if k := all[i].Value.Kind; k == row.Long || k == row.Double {
				n += 8
			}
		}
	}
	return int64(n)
}

// overtaken goes on behind what retention has removed while it was read from a
// number on.
func (p *partition) overtaken(from, to event.SequenceNumber) {
	p.lost(from, to)
	w := &p.win
	if from == w.spooled { // what was looked at and is not in the spool has gone too
		w.Events = w.spooledEvents + max(0, int64(w.next-to))
		w.spooled = to
	}
	if w.next = max(w.next, to); w.Events == 0 {
		w.First, w.End, w.size = w.next, w.next, 0
	}
}

// seal closes the window: its file is written to the spool, and becomes certain.
func (p *partition) seal(ctx context.Context) error {
	w := &p.win
	if err := p.complete(ctx); err != nil {
		w.drop()
		return err
	}
	if w.Events == 0 { // retention has taken all of them
		p.cur.Next = w.End
		w.drop()
		return nil
	}
	if w.incomplete > 0 {
		p.e.log.Warn("events are captured without some of their properties, which their producers encoded wrongly",
			"namespace", p.h.Namespace().Name, "partition", p.entity, "events", w.incomplete, "first", int64(w.First), "last", int64(w.End-1))
	}
	in := w.intent
	in.NextStart = p.end()
	if w.size >= p.settings.Bytes { // the next one opens where it closes
		last := time.UnixMilli(in.LastEnqueued).UTC()
		if last.Before(w.Start) {
			last = w.Start
		}
		if last.Before(in.NextStart) {
			in.NextStart = last
		}
	}
	return p.intend(ctx, in)
}

// complete writes what the spool lacks of the window's file.
func (p *partition) complete(ctx context.Context) error {
	w := &p.win
	if w.spool == nil {
		w.spool = newSpool(p.e.spoolPath(p.h.ID(), p.index))
	}
	events, err := p.encode(ctx, w.spool, &w.intent, w.spooled, w.spooledEvents)
	if err != nil {
		return err
	}
	w.Events = events
	w.Size, w.CRC64 = w.spool.sum.Size, w.spool.sum.CRC64
	return nil
}

// encode writes the events of a file from one of them on to the end of the file,
// and returns how many the file has in all.
func (p *partition) encode(ctx context.Context, to *spool, in *intent, from event.SequenceNumber, before int64) (int64, error) {
	if !grows(in.Format) {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case p.e.wide <- struct{}{}:
		}
		defer func() { <-p.e.wide }()
	}
	t, err := p.e.borrow(ctx)
	if err != nil {
		return 0, err
	}
	defer p.e.giveBack(t)
	if !p.e.o.Room() {
		return 0, errNoRoom
	}
	enc, err := t.resume(p, to, in, before)
	if err != nil {
		return 0, err
	}
	err = p.encodeRange(ctx, t, enc, from, in.End)
	if cerr := enc.finish(err == nil); err == nil {
		err = cerr
	}
	return enc.events, err
}

func (p *partition) encodeRange(ctx context.Context, t *tools, enc *encoding, from, end event.SequenceNumber) error {
	for from < end {
		c, err := p.reader.Read(ctx, from, readSize)
		if err != nil {
			return err
		}
		if c.Empty() {
			c.Close()
			first, err := p.first(ctx)
			if err != nil {
				return err
			}
			if first < end {
				return fmt.Errorf("the log ends at event %d, before the end of a window of events up to %d", from, end)
			}
			p.lost(from, end) // and nothing has come since
			return nil
		}
		if first := c.Records[0].First; first > from {
			p.lost(from, min(first, end))
		}
		next := c.Next()
		err = func() error {
			defer c.Close()
			for i := range c.Records {
				for e, err := range t.rows.Rows(&c.Records[i], max(from, c.Records[i].First)) {
					if err != nil {
						return err
					}
					if e.Sequence >= end {
						return nil
					}
					if _, err := enc.write(e); err != nil {
						return err
					}
				}
			}
			return nil
		}()
		if err != nil {
			return err
		}
		from = next
	}
	return nil
}

// empty ends a window without events that is over. due is when the next window has
// to last until, at least.
func (p *partition) empty(ctx context.Context, due time.Time) error {
	end, interval := p.end(), p.settings.Interval
	if !p.settings.SkipEmpty && p.e.o.Now().Sub(end) <= interval && p.begun(ctx) {
		if err := p.complete(ctx); err != nil {
			p.win.drop()
			return err
		}
		in := p.win.intent
		in.NextStart = end
		return p.intend(ctx, in)
	}
	// Windows long past, of a broker that did not run, have no file.
	k := math.Max(1, math.Floor(float64(due.Sub(p.win.Start))/float64(interval)))
	p.cur.Start = p.win.Start.Add(time.Duration(k) * interval)
	p.win.drop()
	return nil
}

// begun tells whether the hub has ever had an event: until then no empty files are
// written. Source: blob.md, section 4.1.
func (p *partition) begun(ctx context.Context) bool {
	for i := range p.h.Partitions() {
		if info, err := p.h.At(i).Info(ctx); err == nil && info.Next > 0 {
			return true
		}
	}
	return false
}
