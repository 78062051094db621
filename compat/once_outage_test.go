package compat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/redisledger"
)

// outage is a partition whose consumers keep going while the ledger is away, and what
// became of its events. Effects are kept here, beside the ledger.
type outage struct {
	t      *testing.T
	last   int64 // sequence numbers go from 0 to last
	mu     sync.Mutex
	change *sync.Cond

	effects  map[int64]int  // of each event
	excused  map[int64]int  // effects whose mark failed, so that there may be another
	total    int            // effects
	failures map[string]int // errors that consumers met, by their cause
	failed   int
}

func newOutage(t *testing.T, events int64) *outage {
	o := &outage{t: t, last: events - 1, effects: map[int64]int{}, excused: map[int64]int{}, failures: map[string]int{}}
	o.change = sync.NewCond(&o.mu)
	return o
}

// run has consumers be delivered all events, over their runners, while fault breaks
// things, and checks that each event had its effect.
func (o *outage) run(runners []once.Runner, fault func()) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { o.change.Broadcast() })
	defer stop()
	var wg sync.WaitGroup
	for i, r := range runners {
		wg.Go(func() { o.consume(ctx, r, rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	fault()
	wg.Wait()
	repeated := 0
	for n := range o.last + 1 {
		switch got, may := o.effects[n], 1+o.excused[n]; {
		case got == 0:
			o.t.Errorf("%d was lost", n)
		case got > may:
			o.t.Errorf("%d had its effect %d times, with %d marks that failed", n, got, may-1)
		case got > 1:
			repeated++
		}
	}
	if ctx.Err() != nil {
		o.t.Error("the consumers did not come to an end")
	}
	o.t.Logf("%d events, %d effects; %d were repeated after %d marks that failed; errors met: %v",
		o.last+1, o.total, repeated, len(o.excused), o.failures)
}

// consume reads the partition to its end, in batches, each as often as it takes.
func (o *outage) consume(ctx context.Context, r once.Runner, random *rand.Rand) {
	order := once.NewOrder(ledgertest.Stream("0"))
	for next := int64(0); next <= o.last && ctx.Err() == nil; {
		var batch []once.Event
		for n := 1 + random.Int64N(8); n > 0 && next <= o.last; n-- {
			batch = append(batch, order.Event(next))
			next++
		}
		for done := 0; done < len(batch) && ctx.Err() == nil; {
			wrong := random.IntN(10) == 0
			settled, err := r.DoBatch(ctx, batch[done:], func(ctx context.Context, fresh []int) error {
				if wrong || ctx.Err() != nil {
					return errGone
				}
				o.effect(batch[done:], fresh)
				return nil
			})
			o.outcome(batch[done:done+settled], err)
			if done += settled; err != nil {
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
	}
}

func (o *outage) effect(batch []once.Event, fresh []int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range fresh {
		o.effects[batch[i].Sequence]++
		o.total++
	}
	o.change.Broadcast()
}

// outcome notes what a call has said. Events that are done must have been processed.
func (o *outage) outcome(settled []once.Event, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range settled {
		if o.effects[e.Sequence] == 0 {
			o.t.Errorf("%d is done, and was never processed", e.Sequence)
		}
	}
	var uncertain []once.Claim
	if maybe, ok := errors.AsType[*once.MarkError](err); ok {
		uncertain = maybe.Claims
	} else if lost, ok := errors.AsType[*once.LostError](err); ok {
		uncertain = lost.Claims
	}
	for _, c := range uncertain {
		o.excused[c.Event.Sequence]++
	}
	if err != nil && !errors.Is(err, errGone) {
		o.failures[cause(err)]++
		o.failed++
		o.change.Broadcast()
	}
}

// cause is the error at the bottom of another.
func cause(err error) string {
	for {
		next := errors.Unwrap(err)
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			next = many.Unwrap()[len(many.Unwrap())-1]
		}
		if next == nil {
			text, _, _ := strings.Cut(err.Error(), " script:") // of Redis, which is long
			return text
		}
		err = next
	}
}

// until waits for something of the consumers to come about.
func (o *outage) until(what string, come func() bool) {
	o.t.Helper()
	deadline := time.Now().Add(patience)
	timer := time.AfterFunc(patience, o.change.Broadcast)
	defer timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !come() {
		if time.Now().After(deadline) {
			o.t.Fatalf("waiting for %s; errors met: %v", what, o.failures)
		}
		o.change.Wait()
	}
}

// progress waits until there were so many effects more.
func (o *outage) progress(n int) {
	o.t.Helper()
	o.mu.Lock()
	want := min(o.total+n, int(o.last)+1)
	o.mu.Unlock()
	o.until(fmt.Sprint(want, " effects"), func() bool { return o.total >= want })
}

// noticed waits until consumers have met so many errors more.
func (o *outage) noticed(n int) {
	o.t.Helper()
	o.mu.Lock()
	want := o.failed + n
	o.mu.Unlock()
	o.until("an error", func() bool { return o.failed >= want })
}

// willNotice returns a function that says whether consumers have met so many errors
// more, or do not before a test gives up.
func (o *outage) willNotice(n int) func() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	want, deadline := o.failed+n, time.Now().Add(patience)
	return func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failed < want && time.Now().After(deadline) {
			o.t.Fatalf("waiting for an error; errors met: %v", o.failures)
		}
		return o.failed >= want
	}
}

// redisRunner is of a consumer with a client of its own, which waits for answers for so
// long, and does not try again by itself. Its leases are twice as long.
func redisRunner(t testing.TB, address string, patient time.Duration) once.Runner {
	redis.SetLogger(&logging.VoidLogger{}) // dials that fail are what is tested
	client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1, DialTimeout: patient, ReadTimeout: patient, WriteTimeout: patient})
	t.Cleanup(func() { client.Close() })
	return once.Runner{Ledger: redisledger.New(client, redisledger.Options{}), Lease: 2 * patient, Wait: true}
}

// impatient is what a consumer is that meets outages often.
const impatient = 500 * time.Millisecond

func times[T any](n int, make func() T) (all []T) {
	for range n {
		all = append(all, make())
	}
	return all
}

// settledAt checks that a ledger has settled everything.
func (o *outage) settledAt(l once.Ledger) {
	o.t.Helper()
	if s, err := l.Status(o.t.Context(), ledgertest.Stream("0")); err != nil || s != (once.Status{Settled: o.last}) {
		o.t.Errorf("the status is %+v, %v, want %d and nothing else", s, err, o.last)
	}
}

// TestOutageRedisKilled has a Redis that syncs always be killed amid claims and marks,
// and start again: consumers meet errors, go on by themselves, and no mark is gone.
func TestOutageRedisKilled(t *testing.T) {
	address, p := redisServer(t)
	o := newOutage(t, 4000)
	o.run(times(3, func() once.Runner { return redisRunner(t, address, impatient) }), func() {
		for range 8 {
			o.progress(300)
			p.kill()
			o.noticed(1)
			p.start(t)
		}
	})
	o.settledAt(redisRunner(t, address, impatient).Ledger)
}

// TestOutageRedisSlow has a Redis answer late, which only takes longer.
func TestOutageRedisSlow(t *testing.T) {
	address, _ := redisServer(t)
	slow := newProxy(t, address)
	slow.delay.Store(int64(20 * time.Millisecond))
	o := newOutage(t, 200)
	o.run([]once.Runner{redisRunner(t, slow.address, time.Minute), redisRunner(t, address, time.Minute)}, func() {})
	if o.failed > 0 {
		t.Errorf("errors: %v", o.failures)
	}
	o.settledAt(redisRunner(t, address, time.Minute).Ledger)
}

// TestOutageRedisStalls has the way of one consumer to Redis stall now and then, for
// longer than a lease, while others have none such: they take its events over.
func TestOutageRedisStalls(t *testing.T) {
	address, _ := redisServer(t)
	way := newProxy(t, address)
	o := newOutage(t, 1500)
	o.run([]once.Runner{redisRunner(t, way.address, impatient), redisRunner(t, address, impatient)}, func() {
		for range 3 {
			o.progress(50)
			way.stall()
			o.noticed(2)
			way.resume()
		}
	})
	o.settledAt(redisRunner(t, address, impatient).Ledger)
}

// TestOutageRedisStallsInMidRun has the way stall while a function runs: its context
// ends with its lease, another consumer takes the event over, and when the way is free
// again the first learns that it is done.
func TestOutageRedisStallsInMidRun(t *testing.T) {
	address, _ := redisServer(t)
	way := newProxy(t, address)
	cut, direct := redisRunner(t, way.address, impatient), redisRunner(t, address, impatient)
	e := once.Event{Stream: ledgertest.Stream("0")}
	ran, err := cut.Do(t.Context(), e, func(ctx context.Context) error {
		way.stall()
		<-ctx.Done()
		return ctx.Err()
	})
	if !ran || !errors.Is(err, once.ErrLease) {
		t.Fatal(ran, err)
	}
	if ran, err := direct.Do(t.Context(), e, func(context.Context) error { return nil }); !ran || err != nil {
		t.Fatal(ran, err)
	}
	way.resume()
	if ran, err := cut.Do(t.Context(), e, nil); ran || err != nil {
		t.Fatal(ran, err)
	}

	// At the mark, for a moment: it is tried again.
	e.Sequence = 1
	ran, err = cut.Do(t.Context(), e, func(context.Context) error {
		way.stall()
		time.AfterFunc(cut.Lease/4, way.resume)
		return nil
	})
	if !ran || err != nil {
		t.Fatal(ran, err)
	}

	// At the mark, for long: nobody knows that the event is done, so it is done again, and
	// a mark that comes late is told.
	e.Sequence = 2
	ran, err = cut.Do(t.Context(), e, func(context.Context) error {
		way.stall()
		return nil
	})
	maybe, ok := errors.AsType[*once.MarkError](err)
	if !ran || !ok {
		t.Fatal(ran, err)
	}
	if ran, err := direct.Do(t.Context(), e, func(context.Context) error { return nil }); !ran || err != nil {
		t.Fatal(ran, err)
	}
	way.resume()
	if _, lost := errors.AsType[*once.LostError](cut.Ledger.Mark(t.Context(), maybe.Claims)); !lost {
		t.Fatal("a mark was taken from who had lost his claim")
	}
}

// TestOutageRedisFull has a Redis that evicts nothing reach its limit of memory: claims
// are refused, and go on when there is room.
func TestOutageRedisFull(t *testing.T) {
	address, _ := redisServer(t)
	admin := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { admin.Close() })
	limit := func(bytes string) {
		t.Helper()
		if err := admin.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	o := newOutage(t, 4000)
	o.run(times(3, func() once.Runner { return redisRunner(t, address, impatient) }), func() {
		for range 4 {
			o.progress(300)
			limit("1")
			o.noticed(5)
			limit("0")
		}
	})
	if met := slices.Sorted(maps.Keys(o.failures)); !strings.Contains(strings.Join(met, "\n"), "OOM") {
		t.Errorf("the errors met are %q", met)
	}
	o.settledAt(redisRunner(t, address, impatient).Ledger)
}

// TestOutageRedisFailsOver has a replica that is behind be promoted: marks that it did
// not get are gone, so their events are processed again; none is skipped. A claimer from
// before can't mark over one from after.
func TestOutageRedisFailsOver(t *testing.T) {
	first, p := redisServer(t)
	replication := newProxy(t, first)
	second, _ := redisServer(t)
	admin := redis.NewClient(&redis.Options{Addr: second})
	t.Cleanup(func() { admin.Close() })
	host, port, _ := strings.Cut(replication.address, ":")
	if err := admin.ReplicaOf(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
	way := newProxy(t, first)
	before := redisRunner(t, way.address, impatient)
	o := newOutage(t, 1500)
	for !strings.Contains(admin.Info(t.Context(), "replication").Val(), "master_link_status:up") {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the replica did not come up")
		}
	}

	late := []once.Event{{Stream: ledgertest.Stream("late")}}
	var stale []once.Claim
	o.run(times(3, func() once.Runner { return redisRunner(t, way.address, impatient) }), func() {
		o.progress(300)
		replication.stall()
		o.progress(300)
		var err error
		if stale, err = before.Ledger.Claim(t.Context(), late, time.Minute); err != nil {
			t.Fatal(err)
		}
		p.kill()
		o.noticed(1)
		replication.cut() // what has not come yet never does
		if err := admin.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
			t.Fatal(err)
		}
		o.mu.Lock()
		for n, times := range o.effects { // those that were not replicated may have another
			o.excused[n] += times
		}
		o.mu.Unlock()
		way.target.Store(&second)
	})
	// What consumers had done before does not come again, unless they open their
	// receivers again at a checkpoint from before: then it is processed again.
	o.run([]once.Runner{redisRunner(t, second, impatient)}, func() {})
	if o.total <= int(o.last)+1 {
		t.Error("nothing was processed again: no mark was behind")
	}
	o.settledAt(redisRunner(t, second, impatient).Ledger)

	after, err := before.Ledger.Claim(t.Context(), late, time.Minute)
	if err != nil || after[0].State != once.Claimed || after[0].Token <= stale[0].Token {
		t.Fatalf("%+v, %v, after %+v", after, err, stale)
	}
	if _, err := before.Ledger.Extend(t.Context(), stale, time.Minute); err == nil {
		t.Error("a claim from before the failover was extended over one from after")
	}
	if err := before.Ledger.Mark(t.Context(), stale); err == nil {
		t.Error("a claimer from before the failover marked over one from after")
	}
	if err := before.Ledger.Mark(t.Context(), after); err != nil {
		t.Error(err)
	}
}
