package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const mb = 1e6

// idle is the part of G10 that needs brokers with nothing to do.
func (b *bench) idle() error {
	if !b.wants("G10") {
		return nil
	}
	p, err := b.broker("idle", "always")
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Join(b.dir, "idle"))
	defer p.stop()
	time.Sleep(3 * time.Second) // the journal's files are filled
	rss, err := p.status("VmRSS")
	if err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G10", What: "resident, idle", Unit: "MB", Limit: 20}).add(rss / mb)
	anon, err := p.status("RssAnon")
	if err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G10", What: "of that, not pages of the program's file", Unit: "MB"}).add(anon / mb)
	if _, err := b.hub(p, "thousand", 1000); err != nil {
		return err
	}
	if _, err := b.generate(p, "amqp-load", amqpLoad("-mode", "produce", "-format", "single", "-spread", "-partitions", "1000", "-n", "10000", "-size", "1024", "-topic", "thousand")...); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	if rss, err = p.status("VmRSS"); err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G10", What: "resident, after 10 events to each of 1,000 partitions", Unit: "MB"}).add(rss / mb)
	p.stop()
	if p, err = b.broker("idle", "always"); err != nil {
		return err
	}
	defer p.stop()
	time.Sleep(3 * time.Second)
	if rss, err = p.status("VmRSS"); err != nil {
		return err
	}
	b.report.figure(figure{Goal: "G10", What: "resident, 1,000 idle partitions", Unit: "MB", Limit: 50}).add(rss / mb)
	return nil
}

// peak is the rest of G10: the most that the brokers of the rounds have held.
func (b *bench) peak() error {
	f := b.report.figure(figure{Goal: "G10", What: "most resident under the load of this run", Unit: "MB", Limit: 150})
	for _, p := range []*process{b.always, b.never} {
		most, err := p.status("VmHWM")
		if err != nil {
			return err
		}
		if most /= mb; len(f.Ours) == 0 {
			f.add(most)
		} else {
			f.Ours[0] = max(f.Ours[0], most)
		}
	}
	return nil
}

// starts is G9: how long a start takes, and how much it reads.
func (b *bench) starts(rounds int) error {
	data := []struct {
		name string
		fill func(*process) error
	}{
		{"empty", nil},
		{"1,000 partitions", func(p *process) error {
			if _, err := b.hub(p, "thousand", 1000); err != nil {
				return err
			}
			_, err := b.generate(p, "amqp-load", amqpLoad("-mode", "produce", "-format", "single", "-spread", "-partitions", "1000", "-n", "10000", "-size", "1024", "-topic", "thousand")...)
			return err
		}},
		{gigabytes(b.small), func(p *process) error { return b.fill(p, b.small) }},
		{gigabytes(b.large), func(p *process) error { return b.fill(p, b.large) }},
	}
	for i, d := range data {
		if d.fill == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "G9: filling %s\n", d.name)
		p, err := b.broker(dataName(i), "never")
		if err == nil {
			err = d.fill(p)
		}
		if err != nil {
			return err
		}
		p.stop()
	}
	// The clean starts come first: a crash leaves more to read.
	for range rounds {
		var ms, read [4]float64
		for i := range data {
			if data[i].fill == nil {
				os.RemoveAll(filepath.Join(b.dir, dataName(i)))
			}
			p, err := b.start(i, &ms[i], &read[i])
			if err != nil {
				return err
			}
			p.stop()
		}
		const unit = "ms to ready"
		b.report.figure(figure{Goal: "G9", What: "start, empty", Unit: unit, Limit: 50}).add(ms[0])
		b.report.figure(figure{Goal: "G9", What: "start, 1,000 partitions", Unit: unit, Limit: 250}).add(ms[1])
		b.report.figure(figure{Goal: "G9", What: "start, " + data[3].name + ", after a clean stop", Unit: unit, Than: data[2].name, Limit: 1.2}).add(ms[3], ms[2])
		b.report.figure(figure{Goal: "G9", What: "bytes read by that start", Unit: "kB", Than: data[2].name}).add(read[3]/1e3, read[2]/1e3)
	}
	for range rounds {
		var ms, read [4]float64
		for _, i := range []int{2, 3} {
			p, err := b.broker(dataName(i), "always")
			if err != nil {
				return err
			}
			if err := b.killUnderLoad(p); err != nil {
				return err
			}
			if p, err = b.start(i, &ms[i], &read[i]); err != nil {
				return err
			}
			p.stop()
		}
		const unit = "ms to ready"
		b.report.figure(figure{Goal: "G9", What: "start, " + data[3].name + ", after kill -9 under load", Unit: unit, Limit: 1000}).add(ms[3])
		b.report.figure(figure{Goal: "G9", What: "the same, beside the small backlog", Unit: unit, Than: data[2].name}).add(ms[3], ms[2])
		b.report.figure(figure{Goal: "G9", What: "bytes read by that start after kill -9", Unit: "kB", Than: data[2].name}).add(read[3]/1e3, read[2]/1e3)
	}
	return nil
}

func dataName(i int) string { return "start" + strconv.Itoa(i) }

func gigabytes(n int64) string { return strconv.FormatFloat(float64(n)/1e9, 'g', 3, 64) + " GB" }

func (b *bench) start(i int, ms, read *float64) (*process, error) {
	p, err := b.broker(dataName(i), "always")
	if err != nil {
		return nil, err
	}
	*ms = float64(p.started) / 1e6
	*read, err = p.read()
	return p, err
}

// fill stores a backlog, of events of 1 KiB in a hub of 4 partitions.
func (b *bench) fill(p *process, bytes int64) error {
	if _, err := b.hub(p, "backlog", 4); err != nil {
		return err
	}
	_, err := b.generate(p, "amqp-load", amqpLoad(append(sized(int(bytes/1024), 1024), "-mode", "produce", "-format", "batch", "-window", "4", "-partitions", "4", "-topic", "backlog")...)...)
	return err
}

// killUnderLoad sends to the backlog, one by one, and kills the broker amid it.
func (b *bench) killUnderLoad(p *process) error {
	args := amqpLoad("-addr", p.addr, "-mode", "produce", "-format", "single", "-window", "100", "-partitions", "4", "-n", "100000000", "-topic", "backlog")
	cmd := exec.CommandContext(b.ctx, b.bin("amqp-load"), args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	p.kill()
	cmd.Wait() //nolint:errcheck // it loses its broker, and says so
	return nil
}
