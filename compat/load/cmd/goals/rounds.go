package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"
)

// perM is what most figures are.
const perM = "broker cpu-s per million events"

// startAll starts the brokers and the floors.
func (b *bench) startAll() (err error) {
	raw := filepath.Join(b.dir, "raw")
	if err := os.Mkdir(raw, 0o755); err != nil {
		return err
	}
	start := func(p **process, tool string, args ...string) {
		if err == nil {
			*p, err = b.floor(tool, args...)
		}
	}
	start(&b.stub, "stub-amqp", "-partitions", "1")
	start(&b.stub100, "stub-amqp", "-partitions", "1", "-size", "100")
	start(&b.rawNone, "rawlog", "-mode", "serve", "-dir", raw)
	start(&b.rawGroup, "rawlog", "-mode", "serve", "-dir", raw, "-sync", "group")
	if err == nil {
		b.never, err = b.broker("never", "never")
	}
	if err == nil {
		b.always, err = b.broker("always", "always")
	}
	return err
}

func (b *bench) stopAll() {
	for _, p := range b.running {
		p.stop()
	}
	b.running = nil
	for _, name := range []string{"always", "never", "raw"} {
		os.RemoveAll(filepath.Join(b.dir, name))
	}
}

// fresh makes a hub of a name that was not used before.
func (b *bench) fresh(p *process, partitions int) (name string, remove func(), err error) {
	b.hubs++
	name = fmt.Sprintf("hub%d", b.hubs)
	remove, err = b.hub(p, name, partitions)
	return name, remove, err
}

// plain are the arguments that make amqp-load speak to a broker as an Event
// Hubs client does.
var plain = []string{"-user", "RootManageSharedAccessKey", "-pass", "SAS_KEY_VALUE", "-durable=false",
	"-filter", "amqp.annotation.x-opt-offset > '-1'"}

func amqpLoad(args ...string) []string { return append(args, plain...) }

func sized(n, size int) []string {
	return []string{"-n", strconv.Itoa(n), "-size", strconv.Itoa(size)}
}

// sdk is G2 and G5: the official SDK sends batches, and receives them.
func (b *bench) sdk() error {
	for _, x := range []struct {
		size, n, consume        int
		stub                    *process
		quietProduce, quietRead float64
	}{
		{1024, b.events(400_000), b.events(200_000), b.stub, 1.5, 1.5},
		{100, b.events(1_500_000), b.events(400_000), b.stub100, 0.4, 1.2},
	} {
		if err := b.sdkSize(x.size, x.n, x.consume, x.stub, x.quietProduce, x.quietRead); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) sdkSize(size, n, consume int, stub *process, quietProduce, quietRead float64) error {
	name, remove, err := b.fresh(b.never, 1)
	if err != nil {
		return err
	}
	defer remove()
	produce := append(sized(n, size), "-mode", "produce", "-topic", name)
	ours, err := b.generate(b.never, "eh-load", produce...)
	if err != nil {
		return err
	}
	if b.wants("G2") {
		floor, err := b.generate(stub, "eh-load", produce...)
		if err != nil {
			return err
		}
		raw, err := b.generate(b.rawNone, "rawlog", append(sized(n, size), "-mode", "produce")...)
		if err != nil {
			return err
		}
		b.report.figure(figure{Goal: "G2", What: fmt.Sprintf("SDK batches, produce, %d B, no fsync", size), Unit: perM,
			Than: "stub-amqp + rawlog", Limit: 1.5, Quiet: quietProduce}).
			add(ours.BrokerCPUPerM, floor.BrokerCPUPerM, raw.BrokerCPUPerM)
	}
	if !b.wants("G5") {
		return nil
	}
	take := append(sized(consume, size), "-mode", "consume", "-topic", name)
	if ours, err = b.generate(b.never, "eh-load", take...); err != nil {
		return err
	}
	floor, err := b.generate(stub, "eh-load", take...)
	if err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G5", What: fmt.Sprintf("SDK, consume, %d B", size), Unit: perM,
		Than: "stub-amqp", Limit: 2, Quiet: quietRead}).
		add(ours.BrokerCPUPerM, floor.BrokerCPUPerM)
	return nil
}

// single is G3: messages one by one, many in flight.
func (b *bench) single() error {
	name, remove, err := b.fresh(b.never, 1)
	if err != nil {
		return err
	}
	defer remove()
	args := amqpLoad(append(sized(b.events(200_000), 1024), "-mode", "produce", "-format", "single", "-window", "1000", "-topic", name)...)
	ours, err := b.generate(b.never, "amqp-load", args...)
	if err != nil {
		return err
	}
	floor, err := b.generate(b.stub, "amqp-load", args...)
	if err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G3", What: "single messages pipelined, 1024 B, no fsync", Unit: perM,
		Than: "stub-amqp", Limit: 2, Quiet: 7}).
		add(ours.BrokerCPUPerM, floor.BrokerCPUPerM)
	return nil
}

// durable is G6: the disk is synced before every acknowledgement.
func (b *bench) durable() error {
	name, remove, err := b.fresh(b.always, 1)
	if err != nil {
		return err
	}
	defer remove()
	n := b.events(400_000)
	ours, err := b.generate(b.always, "amqp-load", amqpLoad(append(sized(n, 1024), "-mode", "produce", "-format", "batch", "-window", "16", "-topic", name)...)...)
	if err != nil {
		return err
	}
	raw, err := b.generate(b.rawGroup, "rawlog", append(sized(n, 1024), "-mode", "produce")...)
	if err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G6", What: "batches, 16 in flight, 1024 B, fsync before every ack", Unit: perM,
		Limit: 1.5}).add(ours.BrokerCPUPerM)
	b.report.figure(figure{Goal: "G6", What: "the same, beside the floor", Unit: perM,
		Than: "rawlog, group fdatasync"}).add(ours.BrokerCPUPerM, raw.BrokerCPUPerM)
	b.report.figure(figure{Goal: "G6", What: "the same, rate", Unit: "events/s",
		Than: "rawlog, group fdatasync"}).add(ours.EventsPerS, raw.EventsPerS)
	f := b.report.figure(figure{Goal: "G6", What: "the same, rate to reach", Unit: "events/s", Limit: 100_000, AtLeast: true})
	f.add(ours.EventsPerS)
	return nil
}

// latencies is G8: a thousand events a second, one by one.
func (b *bench) latencies() error {
	latency := func(p *process) (lg.Pct, error) {
		topic := "latency"
		if p.http != "" {
			name, remove, err := b.fresh(p, 1)
			if err != nil {
				return lg.Pct{}, err
			}
			defer remove()
			topic = name
		}
		r, err := b.generate(p, "amqp-load", amqpLoad("-mode", "latency", "-ack-only", "-rate", "1000", "-duration", "5s", "-size", "1024", "-topic", topic)...)
		return r.Lat["ack"], err
	}
	control, err := latency(b.stub)
	if err != nil {
		return err
	}
	never, err := latency(b.never)
	if err != nil {
		return err
	}
	always, err := latency(b.always)
	if err != nil {
		return err
	}
	d50, d99, err := b.fdatasync()
	if err != nil {
		return err
	}
	const unit = "ms to ack, 1,000/s"
	const control50 = "stub-amqp"
	b.report.figure(figure{Goal: "G8", What: "p50, no fsync", Unit: unit, Than: control50, Limit: 2, Quiet: 0.4}).add(never.P50, control.P50)
	f := b.report.figure(figure{Goal: "G8", What: "p50, fsync", Unit: unit, Than: control50 + "; goal: + 2 fdatasync", Quiet: 0.5})
	f.add(always.P50, control.P50)
	f.Slack = append(f.Slack, 2*d50)
	f = b.report.figure(figure{Goal: "G8", What: "p99, fsync", Unit: unit, Than: control50 + "; goal: + 2 fdatasync"})
	f.add(always.P99, control.P99)
	f.Slack = append(f.Slack, 2*d99)
	b.report.figure(figure{Goal: "G8", What: "fdatasync of this disk, p50", Unit: "ms"}).add(d50)
	b.report.figure(figure{Goal: "G8", What: "fdatasync of this disk, p99", Unit: "ms"}).add(d99)
	return nil
}

// fdatasync measures the disk at the rate of the events: 4 KiB that overwrite a
// file of zeros, as the journal does.
func (b *bench) fdatasync() (p50, p99 float64, err error) {
	f, err := os.Create(filepath.Join(b.dir, "fdatasync"))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	const n, block = 2000, 4096
	buf := make([]byte, block)
	for range n {
		if _, err := f.Write(buf); err != nil {
			return 0, 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, 0, err
	}
	var rec lg.Recorder
	var failed error
	lg.Pace(1000, n*time.Millisecond, func(i int, _ time.Time) {
		began := time.Now()
		if _, err := f.WriteAt(buf, int64(i)*block); err != nil {
			failed = err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			failed = err
		}
		rec.Add(time.Since(began))
	})
	p := rec.Pct(.1)
	return p.P50, p.P99, failed
}

// spread is G11: the same events over one partition and over a thousand, from
// one sender that goes round them. Each partition has had some before, so that
// the making of its files, which costs as much as hundreds of events, is not
// counted as a cost of each.
func (b *bench) spread() error {
	run := func(partitions, n int, args ...string) (float64, error) {
		name, remove, err := b.fresh(b.always, partitions)
		if err != nil {
			return 0, err
		}
		defer remove()
		to := []string{"-mode", "produce", "-spread", "-partitions", strconv.Itoa(partitions), "-topic", name}
		if _, err := b.generate(b.always, "amqp-load", amqpLoad(append(sized(20_000, 1024), to...)...)...); err != nil {
			return 0, err
		}
		r, err := b.generate(b.always, "amqp-load", amqpLoad(append(append(sized(n, 1024), args...), to...)...)...)
		return r.BrokerCPUPerM, err
	}
	for _, x := range []struct {
		what  string
		n     int
		limit float64
		args  []string
	}{
		{"1,000 partitions, batches of 60", b.events(300_000), 1.25, []string{"-format", "batch", "-batch-max", "60", "-window", "64"}},
		{"1,000 partitions, one by one", b.events(150_000), 2, []string{"-format", "single", "-window", "1000"}},
	} {
		one, err := run(1, x.n, x.args...)
		if err != nil {
			return err
		}
		many, err := run(1000, x.n, x.args...)
		if err != nil {
			return err
		}
		b.report.figure(figure{Goal: "G11", What: x.what, Unit: perM, Than: "ours, 1 partition", Limit: x.limit}).add(many, one)
	}
	return nil
}
