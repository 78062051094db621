package compat

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
)

var idempotentCuts = flag.Int("idempotent-cuts", 200, "how many acknowledgements are cut off from producers that speak .NET's and Java's frames")

const (
	cutHub        = "cuts"
	cutPartitions = 4

	epochStolen = "com.microsoft:producer-epoch-stolen"
)

// cutProducer sends numbered events to a partition, batch after batch, whatever
// happens to its connections: what was not acknowledged it sends again, with the
// same numbers.
type cutProducer struct {
	*cutting
	dialect
	name, partition string
	rng             *rand.Rand

	claim claim // what it says of itself when it attaches
	acked int   // events that are known to be stored: their numbers are 0 to acked-1
	start int32 // the number before the first event's, as the broker counts them
	batch []string
	// asks says that it is a new instance, which does not know where the one before
	// was: the broker tells it.
	asks bool
}

// cutting is what the producers have in common.
type cutting struct {
	t    *testing.T
	b    *Broker
	x    *thief
	cs   auth.ConnectionString
	over chan struct{} // closed when they are to end
	// silent is a producer that sends nothing.
	silent claim
	// fenced and late count refusals of instances before: of what they sent, and of
	// their attempts to come back.
	batches, repeats, takeovers, known, fenced, late atomic.Int64
}

// TestIdempotentCuts lets producers that speak .NET's and Java's frames lose their
// connections after the append and before the acknowledgement, while the broker is
// killed and new instances take over, and then reads the log: each event once, in
// order, and what an older instance sent afterwards nowhere.
func TestIdempotentCuts(t *testing.T) {
	t.Logf("-kill-seed %d", *killSeed)
	b := Start(t)
	b.Hub(cutHub, cutPartitions)
	cs, err := auth.ParseConnectionString(b.ConnectionString)
	if err != nil {
		t.Fatal(err)
	}
	c := &cutting{t: t, b: b, x: newThief(t, b.AMQP, 0.5, *killSeed), cs: cs, over: make(chan struct{}), silent: claim{epoch: new(int16(0))}}
	var producers []*cutProducer
	var sending sync.WaitGroup
	for i := range 2 * cutPartitions { // one of each in every partition
		p := &cutProducer{cutting: c, dialect: dialects[i%2], name: fmt.Sprint("producer ", i), partition: strconv.Itoa(i / 2),
			rng: rand.New(rand.NewPCG(*killSeed, uint64(100+i)))}
		if i%4 == 3 { // numbers wrap on the way
			p.start = math.MaxInt32 - 50
			p.claim.last = &p.start
		}
		producers = append(producers, p)
		sending.Go(p.run)
	}
	kills := c.cut(*idempotentCuts)
	c.x.stop() // each producer is then replaced once more, and hears every refusal
	close(c.over)
	sending.Wait()
	total := 0
	for _, p := range producers {
		total += p.acked
	}
	c.check(producers)
	b.Stop()
	if out, err := exec.Command(Binary(t), "verify", "--data", b.Data).CombinedOutput(); err != nil {
		t.Errorf("millrace verify: %v\n%s", err, out)
	}
	t.Logf("%d cuts, %d kills; %d events in %d batches, %d sent again; %d takeovers, at %d of which the broker knew of a batch that the one before did not; "+
		"%d sends and %d attaches of older instances refused", c.x.stolen.Load(), kills, total, c.batches.Load(), c.repeats.Load(),
		c.takeovers.Load(), c.known.Load(), c.fenced.Load(), c.late.Load())
	if kills == 0 || c.repeats.Load() == 0 || c.takeovers.Load() == 0 || c.fenced.Load() < int64(len(producers)) || c.late.Load() < int64(len(producers)) {
		t.Error("the test saw too little")
	}
}

// cut waits until so many acknowledgements have been cut off, and kills the broker
// now and then, also while it starts. It returns how often.
func (c *cutting) cut(n int) (kills int) {
	rng := rand.New(rand.NewPCG(*killSeed, 3))
	due := int64(30)
	for !c.t.Failed() {
		select {
		case <-c.x.took:
		case <-time.After(time.Minute):
			c.t.Errorf("no acknowledgement for a minute, after %d", c.x.stolen.Load())
		}
		stolen := c.x.stolen.Load()
		if stolen >= int64(n) {
			break
		}
		if stolen < due {
			continue
		}
		c.takeOver()
		c.b.Kill()
		kills++
		if rng.IntN(4) == 0 {
			c.b.RestartAndKill(time.Duration(rng.IntN(40)) * time.Millisecond)
			kills++
		}
		c.b.Restart()
		c.staysFenced()
		due = stolen + 20 + rng.Int64N(60)
	}
	return kills
}

// takeOver lets a new instance of the silent producer attach. No batch tells of it.
func (c *cutting) takeOver() {
	c.silent.epoch = new(*c.silent.epoch + 1)
	i, err := dialects[0].attach(c.b.AMQP, c.cs, cutHub+"/Partitions/0", c.silent)
	if err != nil {
		c.t.Errorf("a producer can't attach: %v", err)
		return
	}
	c.silent.id = &i.id
	i.close()
}

// staysFenced checks that the instance before is refused, as it is to be after a
// kill.
func (c *cutting) staysFenced() {
	before := claim{id: c.silent.id, epoch: new(*c.silent.epoch - 1)}
	i, err := dialects[0].attach(c.b.AMQP, c.cs, cutHub+"/Partitions/0", before)
	if err == nil {
		i.close()
	}
	if e := refused(err); e == nil || e.Condition != epochStolen {
		c.t.Errorf("after a kill, a producer of epoch %d attaches, where there was a newer one: %v", *before.epoch, err)
	}
}

func (p *cutProducer) path() string { return cutHub + "/Partitions/" + p.partition }

// number is what the n-th event has, counted from 1, as the broker counts.
func (p *cutProducer) number(n int) int32 { return event.NextSequence(p.start, n) }

// run sends until the test is over and nothing is under way.
func (p *cutProducer) run() {
	for !p.t.Failed() {
		i, err := p.attach(p.x.ln.Addr().String(), p.cs, p.path(), p.claim)
		if err != nil {
			if refused(err) != nil {
				p.t.Errorf("%s can't attach: %v", p.name, err)
			}
			continue // cut, or the broker is down: the proxy waits for it
		}
		done := p.joined(i) && p.sendAll(i)
		i.close()
		if done {
			return
		}
	}
}

// refused is why the broker refused something, or nil for another error.
func refused(err error) *wire.Error {
	e, _ := errors.AsType[*wire.Error](err)
	return e
}

// joined takes what the broker says of the producer, and compares it.
func (p *cutProducer) joined(i *instance) bool {
	expected := p.number(p.acked)
	switch {
	case p.claim.id == nil:
		p.claim.id, p.claim.epoch = &i.id, &i.epoch
	case *p.claim.id != i.id || *p.claim.epoch != i.epoch:
		p.t.Errorf("%s is told that it is %d, epoch %d", p.name, i.id, i.epoch)
		return false
	case p.asks && len(p.batch) > 0 && i.last == p.number(p.acked+len(p.batch)):
		p.known.Add(1) // what the instance before did not live to hear
		p.stored()
		expected = i.last
	}
	if i.last != expected {
		p.t.Errorf("%s is told that it is at %d, and was at %d with %d under way", p.name, i.last, expected, len(p.batch))
		return false
	}
	p.asks, p.claim.last = false, &expected
	return true
}

// stored notes that the batch under way is.
func (p *cutProducer) stored() {
	p.acked += len(p.batch)
	p.batch = nil
	last := p.number(p.acked)
	p.claim.last = &last
	p.batches.Add(1)
}

// sendAll sends until the connection is lost, or all is done.
func (p *cutProducer) sendAll(i *instance) (done bool) {
	for !p.t.Failed() {
		if len(p.batch) > 0 {
			p.repeats.Add(1)
		} else {
			select {
			case <-p.over:
				p.replace(i)
				return true
			default:
			}
			p.fill()
		}
		if err := i.send(p.number(p.acked+1), p.batch); err != nil {
			if refused(err) != nil {
				p.t.Errorf("%s, epoch %d, sent %d events from %d: %v", p.name, i.epoch, len(p.batch), p.number(p.acked+1), err)
			}
			p.replace(nil)
			return false
		}
		p.stored()
		if p.rng.IntN(30) == 0 {
			p.replace(i)
			return false
		}
	}
	return false
}

// fill makes the next batch. Now and then it is of several records and frames.
func (p *cutProducer) fill() {
	padding := p.rng.IntN(200)
	if p.rng.IntN(25) == 0 {
		padding = 40_000
	}
	for n := range 1 + p.rng.IntN(5) {
		p.batch = append(p.batch, fmt.Sprintf("%s|%d|%s", p.name, p.acked+n, strings.Repeat("x", padding)))
	}
}

// replace lets a new instance take over, at times: it knows the producer's id, and
// not what became of the last batch. The one before goes on: over its connection,
// if it still has one, and over others.
func (p *cutProducer) replace(zombie *instance) {
	if zombie == nil && p.rng.IntN(15) > 0 || p.asks || p.claim.id == nil {
		return
	}
	id, epoch, next := *p.claim.id, *p.claim.epoch+1, p.number(p.acked+1)
	before := p.claim
	p.claim, p.asks = claim{id: &id, epoch: &epoch}, true
	for !p.t.Failed() { // until it has taken over
		i, err := p.attach(p.x.ln.Addr().String(), p.cs, p.path(), p.claim)
		if err != nil {
			if refused(err) != nil {
				p.t.Errorf("a new instance of %s can't attach: %v", p.name, err)
			}
			continue
		}
		p.takeovers.Add(1)
		i.close()
		break
	}
	if zombie != nil {
		p.fences(&p.fenced, "a send", zombie.send(next, []string{p.name + "|zombie"}), epoch)
	}
	i, err := p.attach(p.b.AMQP, p.cs, p.path(), before)
	if err == nil {
		i.close()
	}
	p.fences(&p.late, "an attach", err, epoch)
}

// fences checks that an older instance is refused, unless its connection was lost.
func (p *cutProducer) fences(count *atomic.Int64, what string, err error, epoch int16) {
	e := refused(err)
	switch {
	case err == nil:
		p.t.Errorf("%s of %s's older instance is taken", what, p.name)
	case e == nil: // the broker was killed meanwhile
	case e.Condition != epochStolen || !strings.Contains(e.Description, fmt.Sprintf("Received:%d Current:%d", epoch-1, epoch)):
		p.t.Errorf("%s of %s's older instance is refused with %v", what, p.name, e)
	default:
		count.Add(1)
	}
}

// check reads the log: each producer's events are there once, in order, and nothing
// else.
func (c *cutting) check(producers []*cutProducer) {
	next := map[string]int{}
	for partition := range cutPartitions {
		eachStored(c.t, c.b, cutHub, strconv.Itoa(partition), func(body string) {
			who, rest, _ := strings.Cut(body, "|")
			number, _, _ := strings.Cut(rest, "|")
			if n, err := strconv.Atoi(number); err != nil || n != next[who] {
				c.t.Errorf("partition %d: event %s of %s, and %d is next", partition, number, who, next[who])
			}
			next[who]++
		})
	}
	for _, p := range producers {
		if next[p.name] != p.acked {
			c.t.Errorf("%s: %d events are stored, and %d were acknowledged", p.name, next[p.name], p.acked)
		}
	}
}
