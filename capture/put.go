package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/hub"
)

// Names of what is kept with a file, where the destination can. With them tests
// prove that files have no gap and no overlap (blob.md, section 4.4).
const (
	metaFirst = "firstseq"
	metaLast  = "lastseq"
	metaCount = "count"
	metaCRC64 = "crc64"
	typeAvro  = "application/avro"
	typeParq  = "application/vnd.apache.parquet"
)

// intend gives a file its name, and makes it certain: whatever happens, it is put,
// with these bytes.
func (p *partition) intend(ctx context.Context, in intent) error {
	in.Start = NextStart(in.Start, p.cur.Last)
	if err := p.name(&in); err != nil {
		p.win.drop()
		return err
	}
	c := p.cur
	c.Intent = &in
	if err := p.store(ctx, c); err != nil {
		p.win.drop() // its file is at its end: nothing can be added if it is not certain
		return err
	}
	return nil
}

func (p *partition) name(in *intent) error {
	pattern := DefaultNameFormat
	if p.settings != nil && p.settings.NameFormat != "" {
		pattern = p.settings.NameFormat
	} else if s := p.h.Settings().Capture; s != nil && s.NameFormat != "" {
		pattern = s.NameFormat
	}
	f, err := ParseNameFormat(pattern)
	if err != nil {
		return err
	}
	suffix := SuffixAvro
	if in.Format == hub.CaptureParquet {
		suffix = SuffixParquet
	}
	in.Name, err = f.Expand(Name{Namespace: shortName(p.h.Namespace().Name), EventHub: p.h.Name, Partition: uint32(p.index), Start: in.Start, Suffix: suffix})
	return err
}

// shortName is the first label of a namespace's host.
func shortName(namespace string) string {
	short, _, _ := strings.Cut(namespace, ".")
	return short
}

// put puts the file that is certain, and goes on to the next window.
func (p *partition) put(ctx context.Context) error {
	in := p.cur.Intent
	d, err := p.e.destination(in.Destination)
	if err != nil {
		return p.redirect(ctx, err)
	}
	ready := p.win.spool != nil && p.win.First == in.First && p.win.CRC64 == in.CRC64 && p.win.Size == in.Size && p.win.spool.whole()
	if !ready { // after a start, or an error: it may be there already
		there, err := p.isThere(ctx, d)
		if err != nil {
			return err
		}
		if there {
			return p.done(ctx, d)
		}
		if changed, err := p.rebuild(ctx); changed || err != nil {
			return err
		}
	}
	switch err := p.upload(ctx, d); {
	case err == nil:
		return p.done(ctx, d)
	case !errors.Is(err, ErrExists):
		return fmt.Errorf("put the captured file %s: %w", in.Name, err)
	}
	there, err := p.isThere(ctx, d)
	switch {
	case err != nil:
		return err
	case there:
		return p.done(ctx, d)
	}
	return p.rename(ctx)
}

func (p *partition) upload(ctx context.Context, d *place) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case d.slots <- struct{}{}:
	}
	defer func() { <-d.slots }()
	in := p.cur.Intent
	f := &File{Path: p.win.spool.path, Size: in.Size, ContentType: typeAvro, Metadata: map[string]string{
		metaFirst: strconv.FormatInt(int64(in.First), 10), metaLast: strconv.FormatInt(int64(in.End)-1, 10),
		metaCount: strconv.FormatInt(in.Events, 10), metaCRC64: strconv.FormatUint(in.CRC64, 16),
	}}
	if in.Format == hub.CaptureParquet {
		f.ContentType = typeParq
	}
	return d.Put(ctx, in.Container, in.Name, f)
}

// isThere tells whether the file that is certain is at its destination.
func (p *partition) isThere(ctx context.Context, d Destination) (bool, error) {
	in := p.cur.Intent
	o, err := d.Stat(ctx, in.Container, in.Name)
	if errors.Is(err, ErrMissing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the captured file %s: %w", in.Name, err)
	}
	if o.Size != in.Size {
		return false, nil
	}
	if text, ok := o.Metadata[metaCRC64]; ok {
		return text == strconv.FormatUint(in.CRC64, 16) && o.Metadata[metaFirst] == strconv.FormatInt(int64(in.First), 10), nil
	}
	r, err := d.Open(ctx, in.Container, in.Name)
	if errors.Is(err, ErrMissing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the captured file %s: %w", in.Name, err)
	}
	defer r.Close()
	sum := Sum{W: io.Discard}
	if _, err := io.Copy(&sum, r); err != nil {
		return false, fmt.Errorf("read the captured file %s: %w", in.Name, err)
	}
	return sum.CRC64 == in.CRC64, nil
}

// rebuild makes the file again, from the log. If it has become another one, because
// retention was faster or another version of this program encodes it, that one
// becomes certain in its place, which changed tells: the first is not at the
// destination.
func (p *partition) rebuild(ctx context.Context) (changed bool, err error) {
	if p.reader == nil {
		if p.reader, err = p.h.At(p.index).OpenReader(ctx); err != nil {
			return false, err
		}
	}
	in := *p.cur.Intent
	p.win.drop()
	s := newSpool(p.e.spoolPath(p.h.ID(), p.index))
	events, err := p.encode(ctx, s, &in, in.First, 0)
	if err != nil {
		s.remove()
		return false, err
	}
	changed = s.sum.CRC64 != in.CRC64 || s.sum.Size != in.Size
	in.Events, in.Size, in.CRC64 = events, s.sum.Size, s.sum.CRC64
	p.win = window{intent: in, spool: s}
	if !changed {
		return false, nil
	}
	c := p.cur
	c.Intent = &in
	if in.Events == 0 && in.End > in.First { // all of it is lost
		p.win.drop()
		c = cursor{Since: c.Since, Next: in.End, Start: in.NextStart, Last: c.Last}
	}
	return true, p.store(ctx, c)
}

// rename gives the file the next name, since somebody else's has the one it had.
func (p *partition) rename(ctx context.Context) error {
	in := *p.cur.Intent
	old := in.Name
	in.Start = in.Start.Add(time.Second)
	if err := p.name(&in); err != nil {
		return err
	}
	p.e.log.Warn("a captured file gets another name: there is a file of its name that is not ours",
		"namespace", p.h.Namespace().Name, "partition", p.entity, "name", old, "next", in.Name)
	c := p.cur
	c.Intent = &in
	if err := p.store(ctx, c); err != nil {
		return err
	}
	if p.renames++; p.renames%manyRenames == 0 {
		return fmt.Errorf("%d names in a row are said to be taken, the last of them %s: does the destination refuse whatever is conditional?", p.renames, old)
	}
	return nil
}

// manyRenames is how many names are tried before there is a pause.
const manyRenames = 10

// redirect lets a file go where the settings now say, when the destination that it
// was for is gone from the configuration. Otherwise it waits for that one: the file
// may be there.
func (p *partition) redirect(ctx context.Context, cause error) error {
	s, in := p.h.Settings().Capture, *p.cur.Intent
	if s == nil || strings.EqualFold(s.Destination, in.Destination) {
		return cause
	}
	if _, err := p.e.destination(s.Destination); err != nil {
		return cause
	}
	p.e.log.Warn("a captured file goes to another destination, since the one it was for is not configured any more: if it had arrived there, it is in both",
		"namespace", p.h.Namespace().Name, "partition", p.entity, "from", in.Destination, "to", s.Destination, "name", in.Name)
	in.Destination, in.Container = s.Destination, s.Container
	c := p.cur
	c.Intent = &in
	return p.store(ctx, c)
}

// done tells of the file, and opens the next window.
func (p *partition) done(ctx context.Context, d Destination) error {
	in := *p.cur.Intent
	if s := p.h.Settings().Capture; s != nil {
		if err := p.announce(ctx, &s.Notice, &in, d); err != nil {
			return err
		}
	}
	if err := p.store(ctx, cursor{Since: p.cur.Since, Next: in.End, Start: in.NextStart, Last: in.Start}); err != nil {
		return err
	}
	p.renames = 0
	m := &p.h.Metrics
	m.CapturedMessages.Add(in.Events)
	m.CapturedBytes.Add(in.Size)
	m.CapturedFiles.Add(1)
	p.stored.Store(int64(in.End))
	p.win.drop()
	p.e.log.Debug("captured", "namespace", p.h.Namespace().Name, "partition", p.entity, "name", in.Name, "events", in.Events, "bytes", in.Size)
	return nil
}
