package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

// Options say how to capture. Meta and Spool are needed to start.
type Options struct {
	// Meta holds where the capture of each partition stands, under keys that begin
	// with "capture/". It outlives the engine.
	Meta store.Meta
	// Spool is a folder for files that are not finished, made if absent. What is in
	// it is worth nothing after a start.
	Spool string
	// Destinations has where files can go, by name; "" is where they go unless a
	// hub's settings say something else. Nil means none.
	Destinations map[string]Destination
	// Room tells whether the disk of Spool has room to spare; nil means that it
	// always has. Without, nothing is read ahead: events wait in the log.
	Room func() bool
	// Client posts notices to webhooks; nil means one that gives up after 10 s, and
	// follows no redirects.
	Client *http.Client
	// Now is the clock; nil means time.Now. Elapsed is one that never goes back; nil
	// means the system's.
	Now     func() time.Time
	Elapsed func() time.Duration
	// Logger; nil means none.
	Logger *slog.Logger
}

// Limits that keep the memory of all partitions together within 64 MiB, the
// encoders' and the destinations' buffers among it.
const (
	// encoders is how many partitions are read and encoded at a time.
	encoders = 4
	// rowGroups is how many of them may be at Parquet, each of which holds a row
	// group.
	rowGroups = 2
	// uploads is how many files are put at a time into one destination. It keeps
	// nothing of them in memory; others don't wait for one that is slow.
	uploads = 4
	// readSize is how much is read of a log at a time.
	readSize = 1 << 20
)

// Engine captures the events of all hubs whose settings say so. It is a
// [hub.Capturer]. Make it with New, give it to the hub, then Start it; Close it
// before the hub.
type Engine struct {
	o     Options
	log   *slog.Logger
	tools chan *tools   // of those who encode
	wide  chan struct{} // of those who hold a row group
	mail  chan struct{} // there are notices

	places []*place

	ctx    context.Context //nolint:containedctx // ends the capture
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	started bool
	hubs    map[uint64]*captured
}

// place is a destination by its name.
type place struct {
	Destination
	name  string
	slots chan struct{} // of those who put
}

// captured is a hub that is captured, or was.
type captured struct {
	hub   *hub.EventHub
	parts []*partition
}

// New returns an engine, which can judge settings before it is started.
func New(o Options) *Engine {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Elapsed == nil {
		began := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(began) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Client == nil {
		o.Client = &http.Client{
			Timeout:       10 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a notice that is sent on may come as a GET
		}
	}
	if o.Room == nil {
		o.Room = func() bool { return true }
	}
	e := &Engine{o: o, log: o.Logger, tools: make(chan *tools, encoders), wide: make(chan struct{}, rowGroups), mail: make(chan struct{}, 1), hubs: map[uint64]*captured{}}
	for range encoders {
		e.tools <- nil // made when first used
	}
	for name, d := range o.Destinations {
		e.places = append(e.places, &place{d, name, make(chan struct{}, uploads)})
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Start begins to capture, where it was left. The namespaces are those whose hubs
// it is told of.
func (e *Engine) Start(ctx context.Context, all *hub.Namespaces) error {
	if err := os.RemoveAll(e.o.Spool); err != nil {
		return fmt.Errorf("clear the folder of unfinished captured files: %w", err)
	}
	left, err := e.leftovers(ctx)
	if err != nil {
		return fmt.Errorf("read where the capture of events stands: %w", err)
	}
	var hubs []*hub.EventHub
	for _, ns := range all.All() {
		hubs = append(hubs, ns.EventHubs()...)
	}
	e.mu.Lock()
	e.started = true
	e.mu.Unlock()
	e.wg.Go(func() { e.deliver(all) })
	for _, h := range hubs {
		if s := h.Settings(); s.Capture != nil {
			e.CaptureChanged(h)
		}
		delete(left, h.ID())
	}
	for id := range left { // of hubs that are gone
		if err := e.forget(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the capture and waits for it. What is not in a file yet is written
// when an engine starts again.
func (e *Engine) Close() {
	e.mu.Lock()
	e.started = false
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
}

// cursorKeys is what the keys of cursors begin with; the hub's id and the
// partition follow.
const cursorKeys = "capture/"

func cursorKey(hub uint64, partition int) string {
	return cursorKeys + strconv.FormatUint(hub, 16) + "/" + strconv.Itoa(partition)
}

// leftovers are the ids of the hubs that there are cursors of.
func (e *Engine) leftovers(ctx context.Context) (map[uint64]bool, error) {
	ids := map[uint64]bool{}
	for entry, err := range e.o.Meta.List(ctx, cursorKeys, "") {
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(entry.Key, cursorKeys), "/")
		id, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("the key %q is not one of ours: %w", entry.Key, err)
		}
		ids[id] = true
	}
	return ids, nil
}

// forget deletes the cursors of a hub.
func (e *Engine) forget(ctx context.Context, id uint64) error {
	var keys []string
	for entry, err := range e.o.Meta.List(ctx, cursorKeys+strconv.FormatUint(id, 16)+"/", "") {
		if err != nil {
			return err
		}
		keys = append(keys, entry.Key)
	}
	for _, key := range keys {
		if err := e.o.Meta.Delete(ctx, key, store.AnyVersion); err != nil {
			return fmt.Errorf("forget the capture of a deleted event hub: %w", err)
		}
	}
	return nil
}

// CheckCapture implements hub.Capturer.
func (e *Engine) CheckCapture(c *hub.Capture) error {
	if c.NameFormat != "" {
		if _, err := ParseNameFormat(c.NameFormat); err != nil {
			return err
		}
	}
	_, err := e.destination(c.Destination)
	return err
}

// destination finds one by its name, in any case.
func (e *Engine) destination(name string) (*place, error) {
	for _, d := range e.places {
		if strings.EqualFold(d.name, name) {
			return d, nil
		}
	}
	if name == "" {
		return nil, errors.New("The broker has no Blob endpoint for captured files, and the settings name no other destination")
	}
	return nil, fmt.Errorf("The broker's configuration has no destination for captured files of the name '%s'", name)
}

// CaptureChanged implements hub.Capturer.
func (e *Engine) CaptureChanged(h *hub.EventHub) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started {
		return
	}
	c := e.hubs[h.ID()]
	select {
	case <-h.Ended():
		if c != nil {
			delete(e.hubs, h.ID())
			e.wg.Go(func() { e.end(c) })
		}
		return
	default:
	}
	if c == nil {
		if s := h.Settings(); s.Capture == nil {
			return
		}
		c = &captured{hub: h}
		e.hubs[h.ID()] = c
	}
	for len(c.parts) < h.Partitions() {
		p := newPartition(e, h, len(c.parts))
		c.parts = append(c.parts, p)
		p.wg.Go(p.run)
		e.wg.Go(p.wg.Wait)
	}
	for _, p := range c.parts {
		p.poke()
	}
}

// end waits until nobody is at a deleted hub, and deletes what is left of it.
func (e *Engine) end(c *captured) {
	for _, p := range c.parts {
		p.cancel()
	}
	for _, p := range c.parts {
		p.wg.Wait()
	}
	if err := e.forget(context.WithoutCancel(e.ctx), c.hub.ID()); err != nil {
		e.log.Warn("where the capture of a deleted event hub stood can't be deleted yet; the next start goes on", "hub", c.hub.Name, "error", err)
	}
}

// Backlog is how many events of a hub are stored and not in a file yet.
func (e *Engine) Backlog(ctx context.Context, h *hub.EventHub) int64 {
	e.mu.Lock()
	c := e.hubs[h.ID()]
	var parts []*partition
	if c != nil {
		parts = c.parts
	}
	e.mu.Unlock()
	n := int64(0)
	for _, p := range parts {
		n += p.backlog(ctx)
	}
	return n
}

// spoolPath is where a partition's unfinished file is.
func (e *Engine) spoolPath(hub uint64, partition int) string {
	return filepath.Join(e.o.Spool, strconv.FormatUint(hub, 16)+"-"+strconv.Itoa(partition)+".tmp")
}

// borrow waits for the tools to encode with.
func (e *Engine) borrow(ctx context.Context) (*tools, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case t := <-e.tools:
		if t == nil {
			t = newTools()
		}
		return t, nil
	}
}

func (e *Engine) giveBack(t *tools) { e.tools <- t }
