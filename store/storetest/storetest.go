// Package storetest is the suite that every storage engine passes: what
// package store promises, tried from outside. An engine's test calls Run.
//
// It knows the contract alone, and no engine.
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// Engine opens stores for the suite.
type Engine struct {
	// New returns a function that opens a store on data of its own, with the
	// given clock. Called again after the store was closed, it opens the same data.
	New func(t *testing.T) func(now func() time.Time) (store.Store, error)
}

// Run runs the suite.
func Run(t *testing.T, e Engine) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *fixture)
	}{
		{"AppendAndRead", testAppendAndRead},
		{"BatchOfManyRecords", testManyRecords},
		{"ReadFromTheMiddle", testReadFromTheMiddle},
		{"ReadOutOfRange", testOutOfRange},
		{"ReadBounded", testReadBounded},
		{"DoneInOrder", testDoneInOrder},
		{"LogsAreIndependent", testIndependent},
		{"TimeNeverRunsBackwards", testTime},
		{"Seek", testSeek},
		{"Notify", testNotify},
		{"Trim", testTrim},
		{"TrimEverything", testTrimEverything},
		{"Reopen", testReopen},
		{"Delete", testDelete},
		{"TooLarge", testTooLarge},
		{"Closed", testClosed},
		{"Producer", testProducer},
		{"MetaCompareAndSet", testMetaCAS},
		{"MetaList", testMetaList},
		{"MetaSurvives", testMetaSurvives},
		{"MetaRace", testMetaRace},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fixture{T: t, open: e.New(t)}
			f.now.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli())
			f.reopen()
			t.Cleanup(func() { f.Store.Close() })
			c.test(t, f)
		})
	}
}

type fixture struct {
	*testing.T
	store.Store
	open func(func() time.Time) (store.Store, error)
	now  atomic.Int64
}

func (f *fixture) reopen() {
	f.Helper()
	if f.Store != nil {
		if err := f.Store.Close(); err != nil {
			f.Fatal(err)
		}
	}
	s, err := f.open(func() time.Time { return time.UnixMilli(f.now.Load()) })
	if err != nil {
		f.Fatal(err)
	}
	f.Store = s
}

func (f *fixture) log(hub uint64, part uint32) store.Log {
	f.Helper()
	l, err := f.Open(context.Background(), store.LogID{Hub: hub, Partition: part}, store.LogConfig{Retention: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	return l
}

// Batch builds a batch of one record for each of the bodies given, each of
// count events.
func Batch(count int, bodies ...string) *event.Batch {
	b := event.NewBatch(event.EncodingKafka)
	for _, body := range bodies {
		s := event.NewSlab(event.Headroom + len(body) + 8)
		copy(s.B[event.Headroom:], body)
		b.AddRecord(s, event.Headroom+len(body), count)
	}
	return b
}

// Append appends and waits.
func Append(l store.Log, b *event.Batch) error {
	done := make(chan error, 1)
	l.Append(b, func(err error) { done <- err })
	return <-done
}

func (f *fixture) append(l store.Log, count int, bodies ...string) event.SequenceNumber {
	f.Helper()
	b := Batch(count, bodies...)
	if err := Append(l, b); err != nil {
		f.Fatal(err)
	}
	first := b.First
	b.Release()
	return first
}

// Bodies reads all records from a number on, and checks that nothing is missing
// between them.
func Bodies(r store.Reader, from event.SequenceNumber) (out []string, err error) {
	for {
		c, err := r.Read(context.Background(), from, 64<<10)
		if err != nil {
			return out, err
		}
		if c.Empty() {
			c.Close()
			return out, nil
		}
		for i := range c.Records {
			x := &c.Records[i]
			if i > 0 && x.First != from || x.First > from {
				return out, fmt.Errorf("record %d follows %d", x.First, from)
			}
			if err := x.Check(); err != nil {
				return out, err
			}
			out = append(out, string(x.Body))
			from = x.Next()
		}
		c.Close()
	}
}

func (f *fixture) expect(r store.Reader, from event.SequenceNumber, want ...string) {
	f.Helper()
	got, err := Bodies(r, from)
	if err != nil {
		f.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		f.Fatalf("from %d: read %d records %.200q, want %d %.200q", from, len(got), got, len(want), want)
	}
}

func testAppendAndRead(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	f.expect(l, 0)
	if n := f.append(l, 3, "abc"); n != 0 {
		t.Errorf("the first event has number %d", n)
	}
	if n := f.append(l, 1, "d"); n != 3 {
		t.Errorf("the fourth event has number %d", n)
	}
	f.expect(l, 0, "abc", "d")
	b, err := l.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b.First != 0 || b.Next != 4 || b.LastEnqueued != f.now.Load() || b.Bytes <= 0 {
		t.Errorf("bounds %+v", b)
	}
}

func testManyRecords(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprintf("%d:%s", i, string(make([]byte, i*3000))))
	}
	f.append(l, 7, want...)
	f.append(l, 1, "next")
	f.expect(l, 0, append(want, "next")...)
	c, err := l.Read(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Records[0].Flags&event.FlagBatchStart == 0 || c.Records[0].Flags&event.FlagBatchEnd != 0 {
		t.Errorf("flags of the first record: %b", c.Records[0].Flags)
	}
}

func testReadFromTheMiddle(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	for range 300 {
		f.append(l, 5, string(make([]byte, 2000)))
	}
	r, err := f.OpenReader(t.Context(), store.LogID{Hub: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, from := range []event.SequenceNumber{0, 1, 4, 5, 777, 1499, 3, 750, 751} {
		c, err := r.Read(t.Context(), from, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		if x := c.Records[0]; x.First > from || x.Next() <= from {
			t.Errorf("from %d: the first record is %d to %d", from, x.First, x.Next())
		}
		c.Close()
	}
}

func testOutOfRange(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	f.append(l, 2, "ab")
	for _, from := range []event.SequenceNumber{-1, 3, 100} {
		_, err := l.Read(t.Context(), from, 1000)
		var oor *store.OutOfRangeError
		if !errors.As(err, &oor) || oor.First != 0 || oor.Next != 2 {
			t.Errorf("from %d: %v", from, err)
		}
	}
	c, err := l.Read(t.Context(), 2, 1000)
	if err != nil || !c.Empty() {
		t.Fatalf("at the tail: %v", err)
	}
	c.Close()
}

func testReadBounded(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	for range 50 {
		f.append(l, 1, string(make([]byte, 10_000)))
	}
	c, err := l.Read(t.Context(), 0, 35_000)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.Records); n < 1 || n > 3 { // a read may end where a file does
		t.Errorf("%d records of 10,000 bytes for a limit of 35,000", n)
	}
	c.Close()
	if c, ok := l.Recent(50, 1); !ok || !c.Empty() {
		t.Errorf("at the tail nothing is recent: %v", ok)
	} else {
		c.Close()
	}
	if _, ok := l.Recent(51, 1); ok {
		t.Error("what is to come is recent")
	}
	if c, ok := l.Recent(49, 1000); ok { // an engine need not keep anything in memory
		if c.Empty() || c.Records[0].First != 49 {
			t.Error("what is recent is not what was asked for")
		}
		c.Close()
	}
	c, err = l.Read(t.Context(), 0, 1)
	if err != nil || len(c.Records) != 1 {
		t.Fatalf("a small limit: %v", err)
	}
	c.Close()
}

func testDoneInOrder(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	var mu sync.Mutex
	var got []int
	var firsts []event.SequenceNumber
	var wg sync.WaitGroup
	for i := range 500 {
		b := Batch(2, fmt.Sprint(i))
		wg.Add(1)
		l.Append(b, func(err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			got = append(got, i)
			firsts = append(firsts, b.First)
		})
	}
	wg.Wait()
	for i := range got {
		if got[i] != i || firsts[i] != event.SequenceNumber(2*i) {
			t.Fatalf("callback %d was for append %d, number %d", i, got[i], firsts[i])
		}
	}
}

func testIndependent(t *testing.T, f *fixture) {
	var wg sync.WaitGroup
	for p := range uint32(20) {
		wg.Go(func() {
			l := f.log(9, p)
			for i := range 50 {
				if err := Append(l, Batch(1, fmt.Sprintf("%d/%d", p, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for p := range uint32(20) {
		got, err := Bodies(f.log(9, p), 0)
		if err != nil || len(got) != 50 {
			t.Fatalf("partition %d: %d records, %v", p, len(got), err)
		}
		for i, b := range got {
			if b != fmt.Sprintf("%d/%d", p, i) {
				t.Fatalf("partition %d, record %d: %q", p, i, b)
			}
		}
	}
}

func testTime(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	start := f.now.Load()
	var last int64
	for _, step := range []int64{0, 10, -500, 3, 600} {
		f.now.Add(step)
		b := Batch(1, "x")
		if err := Append(l, b); err != nil {
			t.Fatal(err)
		}
		if b.Enqueued < last {
			t.Errorf("enqueued %d after %d", b.Enqueued-start, last-start)
		}
		last = b.Enqueued
		b.Release()
	}
	f.now.Store(start - 10_000)
	f.reopen()
	b := Batch(1, "x")
	if err := Append(f.log(1, 0), b); err != nil {
		t.Fatal(err)
	}
	if b.Enqueued < last {
		t.Errorf("after a restart: enqueued %d after %d", b.Enqueued-start, last-start)
	}
}

func testSeek(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	start := f.now.Load()
	for range 200 {
		f.append(l, 2, string(make([]byte, 3000)))
		f.now.Add(100)
	}
	check := func(l store.Reader) {
		t.Helper()
		for _, c := range []struct {
			at   int64
			want event.SequenceNumber
		}{{-1000, 0}, {0, 0}, {1, 2}, {100, 2}, {9_950, 200}, {10_000, 200}, {19_900, 398}, {19_901, 400}, {1 << 40, 400}} {
			got, err := l.Seek(t.Context(), start+c.at)
			if err != nil || got != c.want {
				t.Errorf("seek %+d: %d, want %d, %v", c.at, got, c.want, err)
			}
		}
	}
	check(l)
	f.reopen()
	check(f.log(1, 0))
}

func testNotify(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	woken := make(chan int, 10)
	l.Notify(-1, func() { woken <- 1 })
	stop := l.Notify(-1, func() { woken <- 2 })
	stop()
	l.Notify(0, func() { woken <- 3 })
	select {
	case n := <-woken:
		t.Fatalf("%d was woken by nothing", n)
	default:
	}
	f.append(l, 1, "a")
	if n := <-woken; n != 1 {
		t.Fatalf("%d was woken", n)
	}
	l.Notify(-1, func() { woken <- 4 })
	if n := <-woken; n != 4 {
		t.Fatalf("%d was woken by what was there already", n)
	}
	f.append(l, 1, "b")
	if n := <-woken; n != 3 {
		t.Fatalf("%d was woken", n)
	}
	l.Notify(1, func() { woken <- 5 })
	if err := f.Delete(t.Context(), store.LogID{Hub: 1}); err != nil {
		t.Fatal(err)
	}
	if n := <-woken; n != 5 {
		t.Fatalf("%d was woken by the end", n)
	}
}

func testTrim(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	for i := range 10 {
		f.append(l, 2, fmt.Sprint(i))
	}
	for _, before := range []event.SequenceNumber{5, 4, 0} {
		if err := l.Trim(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	check := func(l store.Reader) {
		t.Helper()
		b, err := l.Bounds(t.Context())
		if err != nil || b.First != 5 || b.Next != 20 {
			t.Fatalf("bounds %+v, %v", b, err)
		}
		var oor *store.OutOfRangeError
		if _, err := l.Read(t.Context(), 4, 100); !errors.As(err, &oor) {
			t.Fatalf("reading what was trimmed: %v", err)
		}
		f.expect(l, 5, "2", "3", "4", "5", "6", "7", "8", "9")
		if n, err := l.Seek(t.Context(), 0); n != 5 || err != nil {
			t.Fatalf("seek to the beginning: %d, %v", n, err)
		}
	}
	check(l)
	f.reopen()
	check(f.log(1, 0))
}

func testTrimEverything(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	f.append(l, 10, "a")
	last := f.now.Load()
	f.now.Add(1000)
	if err := l.Trim(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b, err := f.log(1, 0).Bounds(t.Context())
		if err != nil || b.First != 10 || b.Next != 10 || !b.Empty() || b.LastEnqueued != last {
			t.Fatalf("bounds %+v, %v", b, err)
		}
		f.reopen()
	}
	if n := f.append(f.log(1, 0), 1, "b"); n != 10 {
		t.Errorf("numbering goes on at %d", n)
	}
	f.reopen()
	f.expect(f.log(1, 0), 10, "b")
}

func testReopen(t *testing.T, f *fixture) {
	var want []string
	var epoch uint64
	for i := range 5 {
		l := f.log(1, 7)
		if l.Epoch() <= epoch {
			t.Errorf("epoch %d after %d", l.Epoch(), epoch)
		}
		epoch = l.Epoch()
		body := fmt.Sprintf("%d%s", i, string(make([]byte, i*40_000)))
		if n := f.append(l, 4, body); n != event.SequenceNumber(4*i) {
			t.Errorf("start %d: numbering goes on at %d", i, n)
		}
		want = append(want, body)
		f.expect(l, 0, want...)
		f.reopen()
	}
	f.expect(f.log(1, 7), 0, want...)
}

func testDelete(t *testing.T, f *fixture) {
	id := store.LogID{Hub: 5, Partition: 1}
	l := f.log(5, 1)
	f.append(l, 1, "x")
	f.append(f.log(5, 2), 1, "y")
	r, err := f.OpenReader(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	<-l.Done()
	if !errors.Is(l.Err(), store.ErrDeleted) {
		t.Errorf("the owner got %v", l.Err())
	}
	if _, err := r.Read(t.Context(), 0, 100); !errors.Is(err, store.ErrDeleted) {
		t.Errorf("a reader got %v", err)
	}
	if err := Append(l, Batch(1, "z")); !errors.Is(err, store.ErrDeleted) {
		t.Errorf("an append got %v", err)
	}
	f.expect(f.log(5, 2), 0, "y")
	f.reopen()
	f.expect(f.log(5, 2), 0, "y")
}

func testTooLarge(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	b := event.NewBatch(event.EncodingKafka)
	for range 40 {
		s := event.NewSlab(1 << 20)
		b.AddRecord(s, 1<<20, 1)
	}
	var tl *store.TooLargeError
	if err := Append(l, b); !errors.As(err, &tl) || tl.Limit == 0 {
		t.Errorf("got %v", err)
	}
	b.Release()
	f.append(l, 1, "small")
	big := string(make([]byte, 5<<20))
	f.append(l, 1, big)
	f.append(l, 1, "after")
	f.expect(l, 0, "small", big, "after")
	f.reopen()
	f.expect(f.log(1, 0), 0, "small", big, "after")
}

func testClosed(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	f.append(l, 1, "x")
	if err := f.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Append(l, Batch(1, "y")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if _, err := l.Read(t.Context(), 0, 1); !errors.Is(err, store.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := f.Open(t.Context(), store.LogID{Hub: 1}, store.LogConfig{}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("open: %v", err)
	}
	<-l.Done()
}

func testProducer(t *testing.T, f *fixture) {
	l := f.log(1, 0)
	b := Batch(3, "abc", "def")
	b.Producer = event.Producer{ID: 77, Epoch: 2, Sequence: 10, Set: true}
	if err := Append(l, b); err != nil {
		t.Fatal(err)
	}
	b.Release()
	f.reopen()
	c, err := f.log(1, 0).Read(t.Context(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, want := range []int32{10, 13} {
		if p := c.Records[i].Producer; p != (event.Producer{ID: 77, Epoch: 2, Sequence: want, Set: true}) {
			t.Errorf("record %d: %+v", i, p)
		}
	}
}

func testMetaCAS(t *testing.T, f *fixture) {
	m, ctx := f.Meta(), t.Context()
	if _, err := m.Get(ctx, "k"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a key that is not there: %v", err)
	}
	v1, err := m.Put(ctx, "k", []byte("one"), 0)
	if err != nil || v1 == 0 {
		t.Fatal(v1, err)
	}
	var conflict *store.ConflictError
	if _, err := m.Put(ctx, "k", []byte("two"), 0); !errors.As(err, &conflict) || conflict.Found != v1 {
		t.Fatalf("create twice: %v", err)
	}
	v2, err := m.Put(ctx, "k", []byte("two"), v1)
	if err != nil || v2 <= v1 {
		t.Fatal(v2, err)
	}
	if err := m.Delete(ctx, "k", v1); !errors.As(err, &conflict) {
		t.Fatalf("delete an old version: %v", err)
	}
	if e, err := m.Get(ctx, "k"); err != nil || string(e.Value) != "two" || e.Version != v2 || e.Key != "k" {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := m.Delete(ctx, "k", v2); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(ctx, "k", store.AnyVersion); err != nil {
		t.Fatalf("delete what is not there: %v", err)
	}
	v3, err := m.Put(ctx, "k", nil, store.AnyVersion)
	if err != nil || v3 <= v2 {
		t.Fatalf("after a deletion: version %d after %d, %v", v3, v2, err)
	}
	if e, err := m.Get(ctx, "k"); err != nil || len(e.Value) != 0 {
		t.Fatalf("an empty value: %+v, %v", e, err)
	}
}

func testMetaList(t *testing.T, f *fixture) {
	m, ctx := f.Meta(), t.Context()
	for _, k := range []string{"b/2", "a/1", "b/10", "b/1", "c", "b", "b/1/x"} {
		if _, err := m.Put(ctx, k, []byte(k), 0); err != nil {
			t.Fatal(err)
		}
	}
	list := func(prefix, after string, stop int) string {
		var out []string
		for e, err := range m.List(ctx, prefix, after) {
			if err != nil {
				t.Fatal(err)
			}
			if string(e.Value) != e.Key {
				t.Errorf("%q has the value %q", e.Key, e.Value)
			}
			if out = append(out, e.Key); len(out) == stop {
				break
			}
		}
		return fmt.Sprint(out)
	}
	for _, c := range []struct{ prefix, after, want string }{
		{"", "", "[a/1 b b/1 b/1/x b/10 b/2 c]"},
		{"b/", "", "[b/1 b/1/x b/10 b/2]"},
		{"b/", "b/1", "[b/1/x b/10 b/2]"},
		{"b/", "b/19", "[b/2]"},
		{"b/", "zz", "[]"},
		{"x", "", "[]"},
	} {
		if got := list(c.prefix, c.after, -1); got != c.want {
			t.Errorf("List(%q, %q) = %s, want %s", c.prefix, c.after, got, c.want)
		}
	}
	if got := list("b", "", 2); got != "[b b/1]" {
		t.Errorf("stopped after two: %s", got)
	}
}

func testMetaSurvives(t *testing.T, f *fixture) {
	v, err := f.Meta().Put(t.Context(), "k", []byte("v"), 0)
	if err != nil {
		t.Fatal(err)
	}
	f.reopen()
	e, err := f.Meta().Get(t.Context(), "k")
	if err != nil || string(e.Value) != "v" || e.Version != v {
		t.Fatalf("%+v, %v", e, err)
	}
}

func testMetaRace(t *testing.T, f *fixture) {
	m, ctx := f.Meta(), t.Context()
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				e, err := m.Get(ctx, "counter")
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
					return
				}
				var n uint64
				if len(e.Value) == 8 {
					n = binary.LittleEndian.Uint64(e.Value)
				}
				_, err = m.Put(ctx, "counter", binary.LittleEndian.AppendUint64(nil, n+1), e.Version)
				var conflict *store.ConflictError
				switch {
				case err == nil:
					done++
				case !errors.As(err, &conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	e, err := m.Get(ctx, "counter")
	if err != nil || binary.LittleEndian.Uint64(e.Value) != workers*each {
		t.Fatalf("%v, %v", e, err)
	}
}
