package capture_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/hub"
)

// minute is the shortest window.
var minute = hub.Capture{Interval: time.Minute}

// TestTimeFirst: windows close by time, one after the other, and are named after
// their starts; those without events have files of 508 bytes from the first event
// on.
func TestTimeFirst(t *testing.T) {
	w := newWorld(t, minute)
	w.settle()
	w.pass(time.Minute + 5*time.Second)
	w.settle() // nothing was ever sent
	w.wantFiles()
	w.send(0, "a", "b") // at 00:01:05
	w.pass(30 * time.Second)
	w.settle()
	w.send(0, "c")
	w.pass(30 * time.Second)
	w.settle() // at 00:02:05
	w.wantFiles("0/2026/03/01/00/01/00.avro 0 1 2")
	w.pass(time.Minute)
	w.settle()
	w.wantFiles("0/2026/03/01/00/01/00.avro 0 1 2", "0/2026/03/01/00/02/00.avro")
	if n := len(w.dest.files["|localhost/orders/0/2026/03/01/00/02/00.avro"].data); n != 508 {
		t.Errorf("a file without events has %d bytes", n)
	}
	w.send(0, "d") // 00:03:05
	w.pass(time.Minute)
	w.settle()
	w.wantFiles("0/2026/03/01/00/01/00.avro 0 1 2", "0/2026/03/01/00/02/00.avro", "0/2026/03/01/00/03/00.avro 3")
}

// TestEventsDecideOnTheirWindow: events that were not looked at in time are in the
// window in which they were enqueued.
func TestEventsDecideOnTheirWindow(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
	for range 4 {
		w.send(0, "x")
		w.pass(40 * time.Second)
	}
	w.pass(time.Hour)
	w.send(0, "y")
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0 1", "0/2026/03/01/00/01/00.avro 2", "0/2026/03/01/00/02/00.avro 3")
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0 1", "0/2026/03/01/00/01/00.avro 2", "0/2026/03/01/00/02/00.avro 3", "0/2026/03/01/01/02/00.avro 4")
}

// TestSizeFirst: a window that is full closes at once, and the next opens where it
// closed: two files in one second have names of two.
func TestSizeFirst(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, Bytes: hub.MinCaptureBytes})
	twentieth := strings.Repeat("x", hub.MinCaptureBytes/20)
	w.pass(5 * time.Second)
	for range 50 {
		w.send(0, twentieth)
	}
	w.settle()
	full := []string{"0/2026/03/01/00/00/00.avro " + numbers(0, 20), "0/2026/03/01/00/00/05.avro " + numbers(20, 40)}
	w.wantFiles(full...)
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.wantFiles(append(full, "0/2026/03/01/00/00/06.avro "+numbers(40, 50))...)
}

// numbers are those from one up to another, less that.
func numbers(from, to int) string {
	var b strings.Builder
	for ; from < to; from++ {
		fmt.Fprintf(&b, "%d ", from)
	}
	return strings.TrimSpace(b.String())
}

// TestClockStepsBack: a window closes when its time has passed, whatever the clock
// of the wall says; names go on.
func TestClockStepsBack(t *testing.T) {
	w := newWorld(t, minute)
	w.send(0, "a")
	w.settle()
	w.now.Add(-time.Hour.Milliseconds())
	w.send(0, "b")
	w.settle()
	w.wantFiles()
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.send(0, "c")
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0 1", "0/2026/03/01/00/01/00.avro 2")
}

// TestSomebodyElsesFile: a name that is taken is left alone, and the next second's
// is used.
func TestSomebodyElsesFile(t *testing.T) {
	for _, plain := range []bool{false, true} {
		w := newWorld(t, minute)
		w.dest.plain = plain
		const taken = "|localhost/orders/0/2026/03/01/00/00/00.avro"
		w.dest.files[taken] = stored{data: []byte("mine")}
		w.send(0, "a")
		w.pass(time.Minute + 2*time.Second)
		w.settle()
		if have := string(w.dest.files[taken].data); have != "mine" {
			t.Errorf("somebody's file holds %q", have)
		}
		delete(w.dest.files, taken)
		w.wantFiles("0/2026/03/01/00/00/01.avro 0")
	}
}

// TestRetentionOvertakes: what retention removes before it is captured is lost,
// counted, and no more than that.
func TestRetentionOvertakes(t *testing.T) {
	for _, when := range []string{"before it is read", "within a window", "while a file waits", "while a file waits, then a crash"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
			big := strings.Repeat("x", 100<<10)
			w.send(0, big, big, "c")
			waits := strings.HasPrefix(when, "while")
			switch {
			case waits:
				w.dest.fail = func(call string, _ bool) error { return errDown }
				w.pass(time.Minute + 2*time.Second)
				w.stepUntil(errDown)
			case when == "within a window":
				w.settle()
			}
			w.trim(0, 2)
			if strings.HasSuffix(when, "crash") {
				w.reopen()
			}
			w.dest.fail = nil
			w.send(0, "d")
			w.pass(time.Minute + 2*time.Second)
			w.settle()
			w.pass(time.Minute)
			w.settle()
			want := map[string][]string{
				"before it is read":                {"0/2026/03/01/00/00/00.avro 2 3"},
				"within a window":                  {"0/2026/03/01/00/00/00.avro 0 1 2 3"}, // whole blocks are in the spool
				"while a file waits":               {"0/2026/03/01/00/00/00.avro 0 1 2", "0/2026/03/01/00/01/00.avro 3"},
				"while a file waits, then a crash": {"0/2026/03/01/00/00/00.avro 2", "0/2026/03/01/00/01/00.avro 3"},
			}[when]
			w.wantFiles(want...)
			lost := int64(4)
			for _, f := range w.dest.read(t) {
				lost -= int64(f.events)
			}
			if have := w.hub.Metrics.CaptureLost.Load(); have != lost {
				t.Errorf("%d events are counted as lost, not %d", have, lost)
			}
		})
	}
}

var errDown = errors.New("the destination is down")

// TestDestinationIsDown: events wait, in order, and come when it is back.
func TestDestinationIsDown(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
	w.dest.fail = func(string, bool) error { return errDown }
	for range 3 {
		w.send(0, "x")
		w.pass(time.Minute)
	}
	w.stepUntil(errDown)
	if n := w.hub.Metrics.CapturedMessages.Load(); n != 0 {
		t.Errorf("%d events are counted as captured", n)
	}
	w.dest.fail = nil
	w.pass(2 * time.Second)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0", "0/2026/03/01/00/01/00.avro 1", "0/2026/03/01/00/02/00.avro 2")
}

// TestNoRoom: without room on the disk nothing is read ahead, and nothing is lost.
func TestNoRoom(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
	w.room.Store(false)
	w.send(0, "x")
	w.pass(time.Minute + 2*time.Second)
	if _, err := w.parts[0].Step(t.Context()); err == nil || !strings.Contains(err.Error(), "too little room") {
		t.Fatal(err)
	}
	w.room.Store(true)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.avro 0")
}

// TestCaptureIsTurnedOffAndOn: what was enqueued by then is written, and what comes
// in between is not.
func TestCaptureIsTurnedOffAndOn(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := newWorld(t, minute)
		w.settle()
		w.send(0, "a")
		w.set(func(c *hub.Capture) { c.Enabled = false })
		if crash {
			w.reopen()
		}
		w.settle()
		w.wantFiles("0/2026/03/01/00/00/00.avro 0")
		if w.parts[0].Reads() {
			t.Error("the log is read while capture is off")
		}
		w.send(0, "b")
		w.pass(10 * time.Minute)
		w.settle()
		w.set(func(c *hub.Capture) { c.Enabled = true })
		if crash {
			w.reopen()
		}
		w.send(0, "c")
		w.pass(time.Minute + 2*time.Second)
		w.settle()
		w.wantFiles("0/2026/03/01/00/00/00.avro 0", "0/2026/03/01/00/10/00.avro 2")
	}
}

// TestSettingsChange: the open window takes the new settings, whole; one that is
// closed keeps its own.
func TestSettingsChange(t *testing.T) {
	w := newWorld(t, hub.Capture{Interval: time.Minute, SkipEmpty: true})
	w.send(0, "a")
	w.settle()
	w.set(func(c *hub.Capture) { c.Format, c.Container, c.Destination = hub.CaptureParquet, "lake", "other" })
	w.send(0, "b")
	w.pass(time.Minute)
	w.send(0, "c")
	w.dest.fail = func(string, bool) error { return errDown }
	w.stepUntil(errDown)
	w.set(func(c *hub.Capture) {
		c.Format, c.NameFormat = hub.CaptureAvroDeflate, "x-{PartitionId}-{Year}{Month}{Day}{Hour}{Minute}{Second}-{Namespace}-{EventHub}"
	})
	w.dest.fail = nil
	w.settle()
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/00.parquet 0 1", "x-0-20260301000100-localhost-orders.avro 2")
	if names := w.dest.names(); !strings.HasPrefix(names[0], "lake|") {
		t.Errorf("the file is in %s", names[0])
	}
}

// TestOtherSettingsChange: what is not about the capture leaves the open window, and
// what is in its file already, as they are.
func TestOtherSettingsChange(t *testing.T) {
	w := newWorld(t, minute)
	w.send(0, strings.Repeat("x", 200<<10))
	w.settle()
	entries, err := os.ReadDir(w.spool)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d unfinished files, %v", len(entries), err)
	}
	path := filepath.Join(w.spool, entries[0].Name())
	if err := os.Link(path, path+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := w.hub.CreateGroup(t.Context(), "readers"); err != nil {
		t.Fatal(err)
	}
	w.settle()
	before, err := os.Stat(path + ".kept")
	if err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the unfinished file has been begun anew, %v", err)
	}
}

// TestEveryNameIsTaken: a destination that says so of any name is not asked without
// a pause.
func TestEveryNameIsTaken(t *testing.T) {
	w := newWorld(t, minute)
	tries := 0
	w.dest.fail = func(call string, after bool) error {
		if call == "put" && !after {
			tries++
			return capture.ErrExists
		}
		return nil
	}
	w.send(0, "a")
	w.pass(time.Minute + 2*time.Second)
	for {
		if _, err := w.parts[0].Step(t.Context()); err != nil {
			if !strings.Contains(err.Error(), "10 names in a row are said to be taken") {
				t.Fatal(err)
			}
			break
		}
		if tries > 10 {
			t.Fatal("it is tried without end")
		}
	}
	w.dest.fail = nil
	w.settle()
	w.wantFiles("0/2026/03/01/00/00/10.avro 0")
}

// TestLogHasLostEvents: where the log ends before what is in files, that is said, and
// ends when capture is turned off and on.
func TestLogHasLostEvents(t *testing.T) {
	w := newWorld(t, minute)
	w.send(0, "a", "b")
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	key := "capture/" + strconv.FormatUint(w.hub.ID(), 16) + "/0"
	e, err := w.store.Meta().Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	ahead := strings.Replace(string(e.Value), `"next":2`, `"next":5`, 1)
	if _, err := w.store.Meta().Put(t.Context(), key, []byte(ahead), e.Version); err != nil || ahead == string(e.Value) {
		t.Fatalf("%s, %v", e.Value, err)
	}
	w.reopen()
	if _, err := w.parts[0].Step(t.Context()); err == nil || !strings.Contains(err.Error(), "the log ends before event 2 and events up to 4 are in files") {
		t.Fatal(err)
	}
	w.set(func(c *hub.Capture) { c.Enabled = false })
	w.settle()
	w.set(func(c *hub.Capture) { c.Enabled = true })
	w.send(0, "c")
	w.pass(time.Minute + 2*time.Second)
	w.settle()
	files := w.dest.read(t)
	if last := files[len(files)-1]; len(last.seqs) != 1 || last.seqs[0] != 2 {
		t.Errorf("the last file has the events %v", last.seqs)
	}
}

// TestRefusedSettings: what can't be is refused, and changes nothing.
func TestRefusedSettings(t *testing.T) {
	w := newWorld(t, minute)
	for text, change := range map[string]func(*hub.Capture){
		"from 60 to 900 whole seconds": func(c *hub.Capture) { c.Interval = 59 * time.Second },
		"whole seconds, not 1m0.5s":    func(c *hub.Capture) { c.Interval = 60500 * time.Millisecond },
		"from 10485760 to 524288000":   func(c *hub.Capture) { c.Bytes = hub.MaxCaptureBytes + 1 },
		"lacks {Hour}":                 func(c *hub.Capture) { c.NameFormat = strings.Replace(capture.DefaultNameFormat, "/{Hour}", "", 1) },
		"no destination":               func(c *hub.Capture) { c.Destination = "nowhere" },
		"can't go to itself":           func(c *hub.Capture) { c.Notice.Hub = "Orders" },
		"not a format":                 func(c *hub.Capture) { c.Format = "CSV" },
		"an http or https URL":         func(c *hub.Capture) { c.Notice.Webhook = "file:///SECRET" },
		"The webhook of Capture":       func(c *hub.Capture) { c.Notice.Webhook = "https://SECRET%zz" },
	} {
		err := w.hub.Update(t.Context(), func(s *hub.Settings) error {
			c := *s.Capture
			change(&c)
			s.Capture = &c
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%v; wanted %q", err, text)
		}
	}
	if err := w.all.Default().Update(t.Context(), func(s *hub.NamespaceSettings) error { s.Tier = hub.Basic; return nil }); err == nil {
		t.Error("a captured hub is allowed in the tier basic")
	}
}
