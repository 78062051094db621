package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store/segment"
	"github.com/millrace/millrace/store/storetest"
)

// world is a set of namespaces on a simulated disk, with a clock to turn.
type world struct {
	t    testing.TB
	disk *sim.Disk
	kv   *segment.MemoryKV
	now  atomic.Int64

	configured []hub.RulesOf
	sync       segment.Sync

	store *segment.Store
	all   *hub.Namespaces
	ns    *hub.Namespace
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, disk: sim.NewDisk(), kv: segment.NewMemoryKV()}
	w.now.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	w.open()
	t.Cleanup(w.close)
	return w
}

func (w *world) clock() time.Time { return time.UnixMilli(w.now.Load()) }

func (w *world) pass(d time.Duration) { w.now.Add(d.Milliseconds()) }

func (w *world) open() {
	w.t.Helper()
	var err error
	w.store, err = segment.Open(context.Background(), segment.Options{Disk: w.disk, KV: w.kv, Sync: w.sync, Now: w.clock, JournalBytes: 100_000, SegmentBytes: 20_000, CacheBytes: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.all, err = hub.Open(context.Background(), hub.Options{Store: w.store, Now: w.clock, Configured: w.configured,
		Rules: []hub.Rule{{Name: "RootManageSharedAccessKey", Rights: auth.Manage, Primary: "SAS_KEY_VALUE"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.ns = w.all.Default()
}

func (w *world) close() {
	w.all.Close()
	w.store.Close()
}

func (w *world) reopen() { w.close(); w.open() }

func (w *world) hub(name string, partitions int, s hub.Settings) *hub.EventHub {
	w.t.Helper()
	h, err := w.ns.CreateEventHub(context.Background(), name, partitions, s)
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func appendTo(p *hub.Partition, count int, body string) (event.SequenceNumber, error) {
	b := storetest.Batch(count, body)
	done := make(chan error, 1)
	p.Append(b, func(err error) { done <- err })
	if err := <-done; err != nil {
		return 0, err
	}
	defer b.Release()
	return b.First, nil
}

func (w *world) append(p *hub.Partition, count int, body string) event.SequenceNumber {
	w.t.Helper()
	n, err := appendTo(p, count, body)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func kind(err error) hub.Kind {
	var e *hub.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func TestEntities(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("Orders", 4, hub.Settings{Groups: []hub.Group{{Name: "billing"}}})
	w.append(h.At(2), 3, "abc")

	for _, c := range []struct {
		what string
		err  error
		want hub.Kind
	}{
		{"the same name in another case", second(w.ns.CreateEventHub(ctx, "ORDERS", 1, hub.Settings{})), hub.AlreadyExists},
		{"no partitions", second(w.ns.CreateEventHub(ctx, "x", 0, hub.Settings{})), hub.InvalidArgument},
		{"too many partitions", second(w.ns.CreateEventHub(ctx, "x", 1025, hub.Settings{})), hub.InvalidArgument},
		{"a name with a space", second(w.ns.CreateEventHub(ctx, "a b", 1, hub.Settings{})), hub.InvalidArgument},
		{"a name that ends in a dot", second(w.ns.CreateEventHub(ctx, "ab.", 1, hub.Settings{})), hub.InvalidArgument},
		{"a short retention", second(w.ns.CreateEventHub(ctx, "x", 1, hub.Settings{Retention: time.Second})), hub.InvalidArgument},
		{"a hub that is not there", second(w.ns.EventHub("nope")), hub.NotFound},
		{"deleting it", w.ns.DeleteEventHub(ctx, "nope"), hub.NotFound},
		{"a group that is not there", second(h.Group("nope")), hub.NotFound},
		{"deleting it", h.DeleteGroup(ctx, "nope"), hub.NotFound},
		{"creating $Default", h.CreateGroup(ctx, "$default"), hub.Forbidden},
		{"deleting $Default", h.DeleteGroup(ctx, "$Default"), hub.Forbidden},
		{"a group twice", h.CreateGroup(ctx, "Billing"), hub.AlreadyExists},
		{"a long group name", h.CreateGroup(ctx, fmt.Sprintf("%051d", 1)), hub.InvalidArgument},
		{"partition 4 of 4", second(h.Partition("4")), hub.PartitionOutOfRange},
		{"partition -1", second(h.Partition("-1")), hub.PartitionOutOfRange},
		{"partition 01", second(h.Partition("01")), hub.PartitionOutOfRange},
		{"partition +1", second(h.Partition("+1")), hub.PartitionOutOfRange},
		{"partition x", second(h.Partition("x")), hub.PartitionOutOfRange},
	} {
		if kind(c.err) != c.want {
			t.Errorf("%s: %v, want kind %v", c.what, c.err, c.want)
		}
	}
	if err := h.CreateGroup(ctx, "audit"); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteGroup(ctx, "billing"); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	h, err := w.ns.EventHub("orders")
	if err != nil {
		t.Fatal(err)
	}
	if gs := h.Groups(); h.Name != "Orders" || h.Partitions() != 4 || len(gs) != 2 || gs[1].Name != "audit" || h.Settings().Retention != hub.DefaultRetention {
		t.Errorf("after a restart: %s, %d partitions, groups %v, %+v", h.Name, h.Partitions(), gs, h.Settings())
	}
	if i, err := h.At(2).Info(ctx); err != nil || i.Next != 3 {
		t.Errorf("after a restart: %+v, %v", i, err)
	}
	if err := w.ns.DeleteEventHub(ctx, "ORDERS"); err != nil {
		t.Fatal(err)
	}
	<-h.Ended()
	if _, err := appendTo(h.At(2), 1, "x"); kind(err) != hub.NotFound {
		t.Errorf("sending to a deleted hub: %v", err)
	}
	w.reopen()
	h = w.hub("orders", 2, hub.Settings{})
	if i, err := h.At(1).Info(ctx); err != nil || i.Next != 0 || i.Last() != -1 || !i.Empty || !i.LastEnqueued.IsZero() {
		t.Errorf("made anew it has %+v, %v", i, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestNamespaces(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	if _, err := w.all.Create(ctx, "payments", hub.NamespaceSettings{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.all.Create(ctx, "Payments", hub.NamespaceSettings{}); kind(err) != hub.AlreadyExists {
		t.Error(err)
	}
	w.reopen()
	for host, want := range map[string]string{
		"": "localhost", "localhost:5672": "localhost", "payments": "payments", "PAYMENTS.servicebus.windows.net": "payments",
		"payments:5671": "payments", "other.example": "localhost", "[::1]:5672": "localhost", "127.0.0.1": "localhost",
	} {
		if got := w.all.Lookup(host).Name; got != want {
			t.Errorf("host %q means namespace %q, want %q", host, got, want)
		}
	}
	h := w.hub("h", 1, hub.Settings{Rules: []hub.Rule{{Name: "reader", Rights: auth.Listen, Primary: "k"}}})
	if err := w.ns.Update(ctx, setRules(hub.Rule{Name: "sender", Rights: auth.Send, Primary: "p", Secondary: "s"})); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	for _, c := range []struct {
		ns, hub, name string
		want          auth.Rights
	}{
		{"localhost", "", "rootmanagesharedaccesskey", auth.Manage},
		{"payments", "", "RootManageSharedAccessKey", auth.Manage},
		{"localhost", "", "Sender", auth.Send},
		{"payments", "", "sender", 0},
		{"localhost", "h", "reader", auth.Listen},
		{"localhost", "", "reader", 0},
		{"localhost", "nope", "reader", 0},
	} {
		if r, ok := w.all.Rule(c.ns, c.hub, c.name); r.Rights != c.want || ok != (c.want != 0) {
			t.Errorf("rule %s of %s/%s: %+v, %v", c.name, c.ns, c.hub, r, ok)
		}
	}
	_ = h
}

func TestRouting(t *testing.T) {
	w := newWorld(t)
	h := w.hub("h", 3, hub.Settings{})
	var got []int
	for range 7 {
		got = append(got, h.Next().Index())
	}
	if !slices.Equal(got, []int{0, 1, 2, 0, 1, 2, 0}) {
		t.Errorf("turns %v", got)
	}
	if p := h.ForKey("alphabet"); p.Index() != 0 || p.Hub() != h {
		t.Errorf("key alphabet goes to %d", p.Index())
	}
}

func TestPositions(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("h", 2, hub.Settings{})
	p := h.At(0)
	start := w.clock()
	for range 10 { // 0-1 at 0 s, 2-3 at 1 s, …
		w.append(p, 2, "x")
		w.pass(time.Second)
	}
	at := func(d time.Duration) time.Time { return start.Add(d) }
	r, err := p.OpenReader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	check := func(pos event.Position, want event.SequenceNumber) {
		t.Helper()
		if got, err := r.Start(ctx, pos); err != nil || got != want {
			t.Errorf("%+v starts at %d, want %d (%v)", pos, got, want, err)
		}
	}
	check(event.Position{}, 0)
	check(event.Position{Origin: event.Latest}, 20)
	for _, o := range []event.Origin{event.AtSequence, event.AtOffset} {
		check(event.Position{Origin: o, Sequence: -1}, 0)
		check(event.Position{Origin: o, Sequence: -1, Inclusive: true}, 0)
		check(event.Position{Origin: o, Sequence: 7}, 8)
		check(event.Position{Origin: o, Sequence: 7, Inclusive: true}, 7)
		check(event.Position{Origin: o, Sequence: 19}, 20)
		if _, err := r.Start(ctx, event.Position{Origin: o, Sequence: 20}); kind(err) != hub.InvalidPosition {
			t.Errorf("beyond the end: %v", err)
		}
	}
	check(event.Position{Origin: event.AtEnqueued, Enqueued: at(0)}, 2)
	check(event.Position{Origin: event.AtEnqueued, Enqueued: at(0), Inclusive: true}, 0)
	check(event.Position{Origin: event.AtEnqueued, Enqueued: at(4500 * time.Millisecond)}, 10)
	check(event.Position{Origin: event.AtEnqueued, Enqueued: at(-time.Hour)}, 0)
	check(event.Position{Origin: event.AtEnqueued, Enqueued: at(time.Hour)}, 20)

	empty, err := h.At(1).OpenReader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if n, err := empty.Start(ctx, event.Position{Origin: event.AtSequence, Sequence: -1}); n != 0 || err != nil {
		t.Errorf("in an empty partition: %d, %v", n, err)
	}
	_, err = empty.Start(ctx, event.Position{Origin: event.AtOffset, Sequence: 5})
	if want := "The supplied offset '5' is invalid. The last offset in the system is '-1'"; err == nil || err.Error() != want {
		t.Errorf("in an empty partition: %v", err)
	}
}

func TestRetention(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("h", 3, hub.Settings{Retention: time.Hour})
	p := h.At(0)
	for range 120 { // an event of 1 kB every minute, two hours long
		w.append(p, 1, string(make([]byte, 1000)))
		w.pass(time.Minute)
		w.all.Expire(ctx)
		i, err := p.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// Retained is what is younger than an hour, or was at the last look.
		if n := int64(i.Next - i.First); n > 62 || int64(i.Next) > 60 && n < 59 {
			t.Fatalf("with %d events sent, %d are retained", i.Next, n)
		}
	}
	var size int64
	for _, n := range w.disk.Files() {
		size += n
	}
	i, err := p.Info(ctx)
	if err != nil || i.Bytes > 110_000 {
		t.Errorf("%+v, %v (all files: %d)", i, err, size)
	}
	r, err := p.OpenReader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := r.Read(ctx, 0, 1) // from before what is retained: the oldest
	if err != nil || c.Records[0].First != i.First {
		t.Fatalf("reading what has expired: %v", err)
	}
	c.Close()
	w.pass(3 * time.Hour)
	w.all.Expire(ctx)
	if i, err := p.Info(ctx); err != nil || !i.Empty || i.Next != 120 {
		t.Errorf("when all has expired: %+v, %v", i, err)
	}
	w.reopen()
	h, err = w.ns.EventHub("h")
	if err != nil {
		t.Fatal(err)
	}
	if n := w.append(h.At(0), 1, "again"); n != 120 {
		t.Errorf("numbering goes on at %d", n)
	}
	if err := h.Update(ctx, func(s *hub.Settings) error { s.Retention = -1; return nil }); err != nil {
		t.Fatal(err)
	}
	w.pass(1000 * time.Hour)
	w.all.Expire(ctx)
	if i, err := h.At(0).Info(ctx); err != nil || i.Empty {
		t.Errorf("kept for ever: %+v, %v", i, err)
	}
}

// TestFailedWrite breaks the disk for a while: appends fail with a retriable
// error, and go on by themselves, in order and without a gap.
func TestFailedWrite(t *testing.T) {
	w := newWorld(t)
	h := w.hub("h", 1, hub.Settings{})
	p := h.At(0)
	w.append(p, 1, "before")
	var broken atomic.Bool
	broken.Store(true)
	w.disk.SetFault(func(op, name string) error {
		if broken.Load() && op != "create" {
			return errors.New("broken")
		}
		return nil
	})
	for range 5 {
		// StorageFull: what was acknowledged before could not go to its segment.
		if _, err := appendTo(p, 1, "x"); kind(err) != hub.Moved && kind(err) != hub.Internal && kind(err) != hub.StorageFull {
			t.Fatalf("on a broken disk: %v", err)
		}
	}
	broken.Store(false)
	w.pass(time.Second) // the disk is looked at again
	n := w.append(p, 1, "after")
	if m := w.append(p, 1, "more"); m != n+1 {
		t.Errorf("%d follows %d", m, n)
	}
	r, err := p.OpenReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := r.Read(t.Context(), 0, 1<<20)
	if err != nil || string(c.Records[0].Body) != "before" {
		t.Fatalf("what was acknowledged before: %v", err)
	}
	c.Close()
}

// TestAppendsKeepTheirOrder appends while the log is being opened.
func TestAppendsKeepTheirOrder(t *testing.T) {
	w := newWorld(t)
	h := w.hub("h", 1, hub.Settings{})
	var wg sync.WaitGroup
	for i := range 200 {
		b := storetest.Batch(1, fmt.Sprint(i))
		wg.Add(1)
		h.At(0).Append(b, func(err error) {
			defer wg.Done()
			if err != nil || b.First != event.SequenceNumber(i) {
				t.Errorf("append %d: number %d, %v", i, b.First, err)
			}
		})
	}
	wg.Wait()
	if m := &h.Metrics; m.IncomingRequests.Load() != 200 || m.IncomingMessages.Load() != 200 || m.Requests[hub.Success].Load() != 200 {
		t.Errorf("metrics: %d requests", m.IncomingRequests.Load())
	}
}

// TestReceivers compares a group's rules with a model of them (amqp.md 5.6).
func TestReceivers(t *testing.T) {
	w := newWorld(t)
	h := w.hub("h", 1, hub.Settings{})
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		if err := h.CreateGroup(context.Background(), fmt.Sprint("g", round)); err != nil {
			rt.Fatal(err)
		}
		g, err := h.Group(fmt.Sprint("g", round))
		if err != nil {
			rt.Fatal(err)
		}
		type seat struct {
			r    *hub.Receiver
			o    hub.ReceiverOptions
			lost error
		}
		var in []*seat
		lost := map[string]error{}
		id := 0
		rt.Repeat(map[string]func(*rapid.T){
			"join": func(rt *rapid.T) {
				id++
				s := &seat{}
				name := fmt.Sprint("r", id)
				s.o = hub.ReceiverOptions{Name: name, Exclusive: rapid.Bool().Draw(rt, "exclusive"), Epoch: rapid.Int64Range(0, 3).Draw(rt, "epoch"),
					Lost: func(err error) { lost[name] = err }}
				var owner *seat
				for _, x := range in {
					if x.o.Exclusive {
						owner = x
					}
				}
				var want hub.Kind
				switch {
				case owner != nil && (!s.o.Exclusive || s.o.Epoch < owner.o.Epoch):
					want = hub.Stolen
				case !s.o.Exclusive && len(in) == hub.MaxReceivers:
					want = hub.QuotaExceeded
				}
				var err error
				s.r, err = g.Join(h.At(0), s.o)
				if kind(err) != want {
					rt.Fatalf("join %+v: %v, want %v", s.o, err, want)
				}
				if want != 0 {
					return
				}
				if s.o.Exclusive {
					for _, x := range in {
						if kind(lost[x.o.Name]) != hub.Stolen {
							rt.Fatalf("%s was not told that it lost its place: %v", x.o.Name, lost[x.o.Name])
						}
						delete(lost, x.o.Name)
					}
					in = nil
				}
				in = append(in, s)
			},
			"leave": func(rt *rapid.T) {
				if len(in) == 0 {
					rt.Skip("nobody is there")
				}
				i := rapid.IntRange(0, len(in)-1).Draw(rt, "who")
				in[i].r.Leave()
				in[i].r.Leave()
				in = slices.Delete(in, i, i+1)
			},
			"": func(rt *rapid.T) {
				if len(lost) > 0 {
					rt.Fatalf("lost their places for no reason: %v", lost)
				}
				if n := len(g.Seats()); n != len(in) {
					rt.Fatalf("%d seats are taken, want %d", n, len(in))
				}
			},
		})
		for _, s := range in {
			s.lost = nil
		}
		if err := h.DeleteGroup(context.Background(), g.Name); err != nil {
			rt.Fatal(err)
		}
		for _, s := range in {
			if kind(lost[s.o.Name]) != hub.NotFound {
				rt.Fatalf("%s was not told that its group is gone: %v", s.o.Name, lost[s.o.Name])
			}
		}
		if _, err := g.Join(h.At(0), hub.ReceiverOptions{Lost: func(error) {}}); kind(err) != hub.NotFound {
			rt.Fatalf("joining a group that is gone: %v", err)
		}
	})
}

func TestReceiverTexts(t *testing.T) {
	w := newWorld(t)
	h := w.hub("h", 1, hub.Settings{})
	g, err := h.Group("$default")
	if err != nil {
		t.Fatal(err)
	}
	var lost error
	join := func(name string, exclusive bool, epoch int64) error {
		_, err := g.Join(h.At(0), hub.ReceiverOptions{Name: name, Exclusive: exclusive, Epoch: epoch, Lost: func(err error) { lost = err }})
		return err
	}
	if err := join("", false, 0); err != nil {
		t.Fatal(err)
	}
	if err := join("", true, 3); err != nil {
		t.Fatal(err)
	}
	want := func(err error, text string) {
		t.Helper()
		if err == nil || err.Error() != text {
			t.Errorf("got  %v\nwant %s", err, text)
		}
	}
	want(lost, "New receiver 'nil' with higher epoch of '3' is created hence current receiver 'nil' with epoch '' is getting disconnected. If you are recreating the receiver, make sure a higher epoch is used.")
	want(join("b", true, 2), "Receiver 'nil' with a higher epoch '3' already exists. Receiver 'b' with epoch 2 cannot be created. Make sure you are creating receiver with increasing epoch value to ensure connectivity, or ensure all old epoch receivers are closed or disconnected.")
	want(join("c", false, 0), "At least one receiver for the endpoint is created with epoch of '3', and so non-epoch receiver is not allowed. Either reconnect with a higher epoch, or make sure all epoch receivers are closed or disconnected.")
}

// TestDeletionSurvivesACrash deletes a hub and loses power at a random moment:
// the hub is there whole, or gone with all its files.
func TestDeletionSurvivesACrash(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	h := w.hub("h", 3, hub.Settings{})
	for p := range 3 {
		w.append(h.At(p), 1, "x")
	}
	for step := 1; ; step++ { // the database fails at the step-th change
		n := 0
		w.kv.SetFault(func() error {
			if n++; n >= step {
				return errors.New("power cut")
			}
			return nil
		})
		err := w.ns.DeleteEventHub(ctx, "h")
		w.kv.SetFault(nil)
		if err == nil && n < step {
			return // it got through
		}
		w.close()
		w.open()
		if h, err := w.ns.EventHub("h"); err == nil {
			for p := range 3 {
				if i, err := h.At(p).Info(ctx); err != nil || i.Next != 1 {
					t.Fatalf("step %d: the hub is there, but partition %d has %+v, %v", step, p, i, err)
				}
			}
			continue
		}
		for name := range w.disk.Files() {
			if strings.HasPrefix(name, "logs/") {
				t.Fatalf("step %d: the hub is gone, but %s is not", step, name)
			}
		}
		h = w.hub("h", 3, hub.Settings{})
		for p := range 3 {
			w.append(h.At(p), 1, "x")
		}
	}
}
