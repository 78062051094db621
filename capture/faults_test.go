package capture_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

// one is what a fault is told of once, and then no more.
type one struct {
	call  string
	after bool
	err   error
	armed bool
}

func (o *one) fail(call string, after bool) error {
	if !o.armed || call != o.call || after != o.after {
		return nil
	}
	o.armed = false
	return o.err
}

// TestWhereItStandsCantBeStored: the broker goes on when a change of what is stored
// failed, or succeeded and was said to have failed; each event is in one file, once.
func TestWhereItStandsCantBeStored(t *testing.T) {
	for _, format := range []hub.CaptureFormat{hub.CaptureAvro, hub.CaptureAvroDeflate, hub.CaptureParquet} {
		for _, when := range []string{"the intent", "the next window"} {
			for _, after := range []bool{false, true} {
				fault := &one{call: "meta put", after: after, err: errors.New("the disk is full")}
				w := newWorldWith(t, hub.Capture{Interval: time.Minute, SkipEmpty: true, Format: format}, func(w *world) {
					w.meta = func(m store.Meta) store.Meta { return faultyMeta{m, fault.fail} }
				})
				w.send(0, "a", strings.Repeat("x", 100<<10), "b")
				w.settle()
				w.pass(time.Minute + 2*time.Second)
				if when == "the next window" {
					if _, err := w.parts[0].Step(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				fault.armed = true
				w.stepUntil(fault.err)
				w.settle()
				w.send(0, "c")
				w.pass(time.Minute + 2*time.Second)
				w.settle()
				suffix := ".avro"
				if format == hub.CaptureParquet {
					suffix = ".parquet"
				}
				w.wantFiles("0/2026/03/01/00/00/00"+suffix+" 0 1 2", "0/2026/03/01/00/01/00"+suffix+" 3")
				if t.Failed() {
					t.Fatalf("%s, %s, after: %t", format, when, after)
				}
				w.close()
			}
		}
	}
}

// TestOffAndOnUnseen: capture that is turned off and on again before that was seen
// goes on; and what it has written by then is not written again, when it is turned
// off later and the broker starts anew.
func TestOffAndOnUnseen(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
	w.send(0, "a")
	w.settle()
	w.pass(time.Second)
	w.set(func(c *hub.Capture) { c.Enabled = false })
	w.set(func(c *hub.Capture) { c.Enabled = true })
	w.send(0, "b")
	w.settle()
	w.set(func(c *hub.Capture) { c.Enabled = false })
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0 1")
	w.reopen()
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0 1")
	w.pass(time.Minute)
	w.set(func(c *hub.Capture) { c.Enabled = true })
	w.send(0, "c")
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0 1", "0/2026/03/01/00/01/01.avro 2")
}

// TestRetentionTakesAll: a file that has to be made again, and none of whose events
// is left, with none after them, is given up; that its events are lost is counted.
func TestRetentionTakesAll(t *testing.T) {
	for _, format := range []hub.CaptureFormat{hub.CaptureAvro, hub.CaptureParquet} {
		w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true, Format: format})
		w.send(0, "a", "b", "c")
		w.dest.fail = func(string, bool) error { return errDown }
		w.pass(time.Minute + 2*time.Second)
		w.stepUntil(errDown)
		w.trim(0, 3)
		w.reopen()
		w.dest.fail = nil
		w.settle()
		w.wantFiles()
		if n := w.hub.Metrics.CaptureLost.Load(); n != 3 {
			t.Errorf("%d events are counted as lost", n)
		}
	}
}

// TestRetentionTakesTheOpenWindow: the same of events that were read, and are in no
// block yet.
func TestRetentionTakesTheOpenWindow(t *testing.T) {
	for _, format := range []hub.CaptureFormat{hub.CaptureAvro, hub.CaptureParquet} {
		w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true, Format: format})
		w.send(0, "a", "b", "c")
		w.settle()
		w.trim(0, 3)
		w.pass(time.Minute + 2*time.Second)
		w.settle()
		w.wantFiles()
		if n := w.hub.Metrics.CaptureLost.Load(); n != 3 {
			t.Errorf("%s: %d events are counted as lost", format, n)
		}
	}
}

// TestUnfinishedFileIsLost: somebody empties the folder of unfinished files. What is
// put is whole all the same.
func TestUnfinishedFileIsLost(t *testing.T) {
	for _, cut := range []bool{false, true} {
		for _, waits := range []bool{false, true} {
			w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
			w.send(0, strings.Repeat("x", 100<<10), "b")
			w.settle()
			if waits {
				w.dest.fail = func(string, bool) error { return errDown }
				w.pass(time.Minute + 2*time.Second)
				w.stepUntil(errDown)
				w.dest.fail = nil
			}
			entries, err := os.ReadDir(w.spool)
			if err != nil || len(entries) != 1 {
				t.Fatalf("%d unfinished files, %v", len(entries), err)
			}
			path := filepath.Join(w.spool, entries[0].Name())
			if cut {
				err = os.Truncate(path, 1000)
			} else {
				err = os.Remove(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !waits {
				w.send(0, strings.Repeat("y", 100<<10))
				w.pass(time.Minute + 2*time.Second)
			}
			for range 4 { // the first may say so
				w.parts[0].Step(t.Context()) //nolint:errcheck // it is tried again
			}
			w.settle()
			if want := "0/2026/03/01/00/00/00.avro 0 1"; waits {
				w.wantFiles(want)
			} else {
				w.wantFiles(want + " 2")
			}
		}
	}
}
