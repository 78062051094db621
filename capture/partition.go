package capture

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

// partition captures one partition: it follows the log through a window, and then
// puts the window's file. Its fields belong to the goroutine of run, but for those
// at the top.
type partition struct {
	e       *Engine
	h       *hub.EventHub
	index   int
	key     string          // of the cursor
	entity  string          // for messages
	ctx     context.Context //nolint:containedctx // ends run
	cancel  context.CancelFunc
	wg      sync.WaitGroup // run
	changed chan struct{}  // the settings have; or nothing has
	stored  atomic.Int64   // the first event that is in no file; -1 while that is unknown

	gone    event.SequenceNumber // what is before it is known to be lost, or captured
	renames int                  // in a row
	loaded  bool
	cur     cursor
	version store.Version
	// settings are those of the window; others that come meanwhile begin it anew.
	settings *hub.Capture

	reader  *hub.Reader
	arrived chan struct{} // events, after what was seen
	win     window
	failing failure
}

// gather is how long events are let gather before they are read: the log is then
// read in runs, and not event by event.
const gather = time.Second

// slack is how long after its end a window is kept open by the clock: an append
// that was under way then belongs to it.
const slack = 2 * time.Second

func newPartition(e *Engine, h *hub.EventHub, index int) *partition {
	p := &partition{e: e, h: h, index: index, key: cursorKey(h.ID(), index), entity: h.At(index).Entity(), changed: make(chan struct{}, 1), arrived: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(e.ctx)
	p.stored.Store(-1)
	return p
}

// poke has the settings be looked at.
func (p *partition) poke() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// run captures until the engine is closed or the hub deleted.
func (p *partition) run() {
	defer p.close()
	for p.ctx.Err() == nil {
		wait, err := p.step(p.ctx)
		if p.ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = p.failing.add(p, err)
		} else {
			p.failing.over(p)
		}
		p.await(wait, err == nil)
	}
}

// forGood is how long to wait for nothing but a change of the settings.
const forGood = time.Duration(1<<63 - 1)

// await waits for a change of the settings, for a time, or, if that is asked for,
// for events.
func (p *partition) await(wait time.Duration, events bool) {
	if wait == 0 {
		return
	}
	var timer <-chan time.Time
	if wait != forGood {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	arrived := p.arrived
	if events && p.reader != nil && p.settings != nil {
		stop := p.reader.Notify(p.win.next-1, func() {
			select {
			case p.arrived <- struct{}{}:
			default:
			}
		})
		defer stop()
	} else {
		arrived = nil
	}
	select {
	case <-p.ctx.Done():
	case <-p.changed:
		p.failing.wait = 0
	case <-timer:
	case <-arrived:
		t := time.NewTimer(min(gather, wait))
		defer t.Stop()
		select {
		case <-p.ctx.Done():
		case <-t.C:
		}
	}
}

// close frees what the partition holds.
func (p *partition) close() {
	p.win.drop()
	if p.reader != nil {
		p.reader.Close()
		p.reader = nil
	}
}

// step does what there is to do now, and tells how long there is nothing.
func (p *partition) step(ctx context.Context) (time.Duration, error) {
	s, since, from := p.h.Captured(p.index)
	if s == nil {
		return forGood, nil
	}
	since = since.UTC()
	if !p.loaded || p.cur.Done && s.Enabled {
		if err := p.loadCursor(ctx, since, from); err != nil {
			return 0, err
		}
		p.loaded = true
		if p.cur.Intent == nil { // another window than the one that is known, perhaps
			p.win.drop()
		}
	}
	if !p.cur.Done {
		p.cur.Since = since // it goes on, though it may have been off for a moment
	}
	switch {
	case p.cur.Done:
		p.stored.Store(-1)
		p.close()
		return forGood, nil
	case p.cur.Intent != nil:
		p.stored.Store(int64(p.cur.Intent.First))
		return 0, p.put(ctx)
	}
	p.stored.Store(int64(p.cur.Next))
	wait, err := p.follow(ctx, s, !s.Enabled)
	if err != nil || s.Enabled || wait != forGood {
		return wait, err
	}
	p.win.drop()
	c := p.cur
	c.Done = true
	return 0, p.store(ctx, c)
}

// backlog is how many events are stored and not in a file.
func (p *partition) backlog(ctx context.Context) int64 {
	next := p.stored.Load()
	if next < 0 {
		return 0
	}
	info, err := p.h.At(p.index).Info(ctx)
	if err != nil {
		return 0
	}
	return max(0, int64(info.Next)-max(next, int64(info.First)))
}

// failure is what goes wrong, and how long that has been so.
type failure struct {
	wait  time.Duration
	times int
	said  time.Duration
}

// Waits between attempts.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	sayAgain   = time.Minute
)

// add counts an error, logs it if it is new or a minute has passed, and tells how
// long to wait.
func (f *failure) add(p *partition, err error) time.Duration {
	p.h.Metrics.CaptureErrors.Add(1)
	now := p.e.o.Elapsed()
	if f.times == 0 || now-f.said >= sayAgain {
		p.e.log.Warn("events can't be captured now; they wait in the log, and it is tried again",
			"namespace", p.h.Namespace().Name, "partition", p.entity, "attempts", f.times+1, "error", err)
		f.said = now
	}
	f.times++
	f.wait = min(max(2*f.wait, firstRetry), lastRetry)
	return f.wait/2 + time.Duration(rand.Int64N(int64(f.wait/2)+1))
}

// over says so if something went wrong before.
func (f *failure) over(p *partition) {
	if f.times > 0 {
		p.e.log.Info("events are captured again", "namespace", p.h.Namespace().Name, "partition", p.entity, "attempts", f.times)
	}
	*f = failure{}
}

// errNoRoom has events wait in the log.
var errNoRoom = errors.New("the disk of the data folder has too little room for files that are not finished")

// lost logs what retention removed before it was captured.
func (p *partition) lost(from, to event.SequenceNumber) {
	if from = max(from, p.gone); from >= to {
		return // it is known
	}
	p.gone = to
	p.h.Metrics.CaptureLost.Add(int64(to - from))
	p.e.log.Error("events were removed by retention before they were captured: they are in no file",
		"namespace", p.h.Namespace().Name, "partition", p.entity, "first", int64(from), "last", int64(to-1))
}
