package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

// cursor is where the capture of a partition stands, as it is stored.
type cursor struct {
	// Since is when the capture was turned on that this is of.
	Since time.Time `json:"since"`
	// Done says that it has been turned off, and everything is written.
	Done bool `json:"done,omitempty"`
	// Next is the first event that is in no file yet.
	Next event.SequenceNumber `json:"next"`
	// Start is when the window that it is in began.
	Start time.Time `json:"start"`
	// Last is the time that the last file is named after; zero if there is none.
	Last time.Time `json:"last,omitzero"`
	// Intent is the file that is being put; nil while a window is open.
	Intent *intent `json:"intent,omitempty"`
}

// intent is a file that is certain, and may be at its destination already.
// Source: blob.md, section 4.4.
type intent struct {
	First event.SequenceNumber `json:"first"`
	// End follows the last event; equal to First for a file without events.
	End    event.SequenceNumber `json:"end"`
	Events int64                `json:"events"` // fewer than that where retention was faster
	// FirstEnqueued and LastEnqueued are of the events, in Unix milliseconds.
	FirstEnqueued int64 `json:"firstEnqueued,omitempty"`
	LastEnqueued  int64 `json:"lastEnqueued,omitempty"`

	Size  int64  `json:"size"`
	CRC64 uint64 `json:"crc64"`

	// Start is the time in the name, and NextStart when the next window begins.
	Start     time.Time `json:"start"`
	NextStart time.Time `json:"nextStart"`
	Name      string    `json:"name"`

	Destination string            `json:"destination,omitempty"`
	Container   string            `json:"container,omitempty"`
	Format      hub.CaptureFormat `json:"format"`
	HeaderOnly  bool              `json:"headerOnly,omitempty"`
}

// loadCursor reads where a partition stands: where its capture was turned on, if
// nothing is stored of that. One that was turned off and on again before all was
// written goes on as if it had not been.
func (p *partition) loadCursor(ctx context.Context, since time.Time, from event.SequenceNumber) error {
	begin := cursor{Since: since, Next: from, Start: since, Done: since.IsZero()}
	e, err := p.e.o.Meta.Get(ctx, p.key)
	if errors.Is(err, store.ErrNotFound) {
		p.cur, p.version = begin, 0
		return nil
	}
	if err != nil {
		return fmt.Errorf("read where the capture stands: %w", err)
	}
	var c cursor
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return fmt.Errorf("the record %s of where the capture stands can't be read: %w", p.key, err)
	}
	if c.Done && !c.Since.Equal(since) {
		begin.Last = c.Last
		c = begin
	}
	c.Since = since
	p.cur, p.version = c, e.Version
	return nil
}

// store makes c where the partition stands, durably. After an error it is unknown
// where that is, and read again.
func (p *partition) store(ctx context.Context, c cursor) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	v, err := p.e.o.Meta.Put(ctx, p.key, b, p.version)
	if err != nil {
		p.loaded = false
		return fmt.Errorf("store where the capture stands: %w", err)
	}
	p.cur, p.version = c, v
	return nil
}
