package capture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/avro"
	"github.com/millrace/millrace/capture/parquet"
	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store"
	"github.com/millrace/millrace/store/segment"
)

// memory is a destination.
type memory struct {
	mu    sync.Mutex
	files map[string]stored
	// fail, if set, is asked before and after each call: an error is returned in its
	// place.
	fail func(call string, after bool) error
	// plain keeps no metadata, as a folder.
	plain bool
}

type stored struct {
	data []byte
	meta map[string]string
}

func (m *memory) call(name string, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(name, false); err != nil {
			return err
		}
	}
	err := do()
	if m.fail != nil {
		if ferr := m.fail(name, true); ferr != nil {
			return ferr
		}
	}
	return err
}

func (m *memory) Put(_ context.Context, container, name string, f *capture.File) error {
	return m.call("put", func() error {
		key := container + "|" + name
		if _, ok := m.files[key]; ok {
			return capture.ErrExists
		}
		data, err := os.ReadFile(f.Path)
		if err != nil {
			return err
		}
		if int64(len(data)) != f.Size {
			return fmt.Errorf("%d bytes are in a file of %d", len(data), f.Size)
		}
		m.files[key] = stored{data, maps.Clone(f.Metadata)}
		return nil
	})
}

func (m *memory) Stat(_ context.Context, container, name string) (o capture.Object, err error) {
	err = m.call("stat", func() error {
		f, ok := m.files[container+"|"+name]
		if !ok {
			return capture.ErrMissing
		}
		o = capture.Object{Name: name, Size: int64(len(f.data)), Metadata: f.meta}
		if m.plain {
			o.Metadata = nil
		}
		return nil
	})
	return o, err
}

func (m *memory) Open(_ context.Context, container, name string) (r io.ReadCloser, err error) {
	err = m.call("open", func() error {
		f, ok := m.files[container+"|"+name]
		if !ok {
			return capture.ErrMissing
		}
		r = io.NopCloser(bytes.NewReader(f.data))
		return nil
	})
	return r, err
}

func (m *memory) List(context.Context, string, string) iter.Seq2[capture.Object, error] { return nil }

func (m *memory) URL(container, name string) string { return "memory:" + container + "/" + name }

func (m *memory) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files))
}

// file is what a captured file holds.
type file struct {
	name   string
	events int
	seqs   []int64
	bodies []string
}

// read reads all files, by name.
func (m *memory) read(t testing.TB) []file {
	t.Helper()
	var out []file
	for _, key := range m.names() {
		_, name, _ := strings.Cut(key, "|")
		m.mu.Lock()
		data := m.files[key].data
		m.mu.Unlock()
		f := file{name: name}
		var rows interface{ Next() (*row.Row, error) }
		var err error
		if strings.HasSuffix(name, capture.SuffixParquet) {
			rows, err = parquet.NewReader(bytes.NewReader(data), int64(len(data)))
		} else {
			rows, err = avro.NewReader(bytes.NewReader(data))
		}
		for err == nil {
			var e *row.Row
			if e, err = rows.Next(); err == nil {
				f.seqs, f.bodies = append(f.seqs, int64(e.Sequence)), append(f.bodies, string(e.Body))
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v", name, err)
		}
		f.events = len(f.seqs)
		out = append(out, f)
	}
	return out
}

// world is a hub on a simulated disk that is captured, with a clock to turn.
type world struct {
	t     testing.TB
	disk  *sim.Disk
	kv    *segment.MemoryKV
	now   atomic.Int64 // Unix milliseconds
	ran   atomic.Int64 // milliseconds, never back
	dest  *memory
	meta  func(store.Meta) store.Meta
	room  atomic.Bool
	spool string

	store  *segment.Store
	engine *capture.Engine
	all    *hub.Namespaces
	hub    *hub.EventHub
	parts  []capture.Partition
}

var midnight = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, c hub.Capture) *world {
	w := newWorldWith(t, c, nil)
	t.Cleanup(w.close)
	return w
}

func newWorldWith(t testing.TB, c hub.Capture, prepare func(*world)) *world {
	w := &world{t: t, disk: sim.NewDisk(), kv: segment.NewMemoryKV(), dest: &memory{files: map[string]stored{}}, spool: filepath.Join(t.TempDir(), "spool")}
	w.now.Store(midnight.UnixMilli())
	w.room.Store(true)
	n := 1
	if prepare != nil {
		prepare(w)
		n = 2
	}
	w.open()
	c.Enabled = true
	h, err := w.all.Default().CreateEventHub(context.Background(), "orders", n, hub.Settings{Retention: -1, Capture: &c})
	if err != nil {
		t.Fatal(err)
	}
	w.take(h)
	return w
}

func (w *world) clock() time.Time { return time.UnixMilli(w.now.Load()) }

func (w *world) pass(d time.Duration) {
	w.now.Add(d.Milliseconds())
	w.ran.Add(d.Milliseconds())
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.store, err = segment.Open(context.Background(), segment.Options{Disk: w.disk, KV: w.kv, Now: w.clock, JournalBytes: 1 << 20, SegmentBytes: 1 << 20})
	if err != nil {
		w.t.Fatal(err)
	}
	meta := w.store.Meta()
	if w.meta != nil {
		meta = w.meta(meta)
	}
	w.engine = capture.New(capture.Options{Meta: meta, Spool: w.spool, Destinations: map[string]capture.Destination{"": w.dest, "other": w.dest},
		Now: w.clock, Elapsed: func() time.Duration { return time.Duration(w.ran.Load()) * time.Millisecond }, Room: w.room.Load})
	w.all, err = hub.Open(context.Background(), hub.Options{Store: w.store, Now: w.clock, Capturer: w.engine})
	if err != nil {
		w.t.Fatal(err)
	}
	if h, err := w.all.Default().EventHub("orders"); err == nil {
		w.take(h)
	}
}

func (w *world) take(h *hub.EventHub) {
	w.hub, w.parts = h, nil
	for i := range h.Partitions() {
		w.parts = append(w.parts, w.engine.Manual(h, i))
	}
}

func (w *world) close() {
	for _, p := range w.parts {
		p.Close()
	}
	w.engine.Close()
	w.all.Close()
	w.store.Close()
}

// send sends events of a body each.
func (w *world) send(partition int, bodies ...string) {
	w.t.Helper()
	var b message.Builder
	for _, body := range bodies {
		var d message.Draft
		d.Body = []byte(body)
		var p message.Parsed
		if err := p.Parse(d.Append(nil)); err != nil {
			w.t.Fatal(err)
		}
		b.Add(&p, message.Marks{}, 0)
	}
	batch, done := b.Batch(), make(chan error, 1)
	w.hub.At(partition).Append(batch, func(err error) { done <- err })
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	batch.Release()
}

// settle steps until there is nothing to do.
func (w *world) settle() {
	w.t.Helper()
	for _, p := range w.parts {
		for n := 0; ; n++ {
			wait, err := p.Step(context.Background())
			if err != nil {
				w.t.Fatal(err)
			}
			if wait != 0 {
				break
			}
			if n > 1000 {
				w.t.Fatal("there is no end to what there is to do")
			}
		}
	}
}

// stepUntil steps until there is an error, which has to be this.
func (w *world) stepUntil(want error) {
	w.t.Helper()
	for range 1000 {
		if _, err := w.parts[0].Step(context.Background()); err != nil {
			if !errors.Is(err, want) {
				w.t.Fatal(err)
			}
			return
		}
	}
	w.t.Fatal("there is no error")
}

// trim removes the events before a number.
func (w *world) trim(partition int, before event.SequenceNumber) {
	w.t.Helper()
	l, err := w.store.Open(context.Background(), store.LogID{Hub: w.hub.ID(), Partition: uint32(partition)}, store.LogConfig{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := l.Trim(context.Background(), before); err != nil {
		w.t.Fatal(err)
	}
}

// set changes the settings of the capture.
func (w *world) set(change func(*hub.Capture)) {
	w.t.Helper()
	if err := w.hub.Update(context.Background(), func(s *hub.Settings) error {
		c := *s.Capture
		change(&c)
		s.Capture = &c
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// reopen is a stop and a start: of the unfinished files nothing is left.
func (w *world) reopen() {
	w.t.Helper()
	w.close()
	if err := os.RemoveAll(w.spool); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// wantFiles wants files of these names, each with the numbers of its events.
func (w *world) wantFiles(want ...string) {
	w.t.Helper()
	var have []string
	for _, f := range w.dest.read(w.t) {
		have = append(have, strings.TrimSpace(strings.TrimPrefix(f.name, "localhost/orders/")+" "+strings.Trim(fmt.Sprint(f.seqs), "[]")))
	}
	if !slices.Equal(have, want) {
		w.t.Errorf("the files are\n%s\nnot\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}
