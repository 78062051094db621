// nats-load drives NATS JetStream: partitions are file streams {topic}-{i}.
package main

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	c := lg.Flags("127.0.0.1:4222")
	window := flag.Int("window", 4096, "async publishes in flight, per connection")
	conns := flag.Int("conns", 8, "connections in produce (at most one per partition)")
	pull := flag.Int("pull", 1000, "messages per pull request")
	mem := flag.Bool("memory", false, "memory storage")
	c.Parse()
	ctx := context.Background()
	nc, err := nats.Connect("nats://" + c.Addr)
	lg.Die(err)
	js := func() jetstream.JetStream {
		nc, err := nats.Connect("nats://" + c.Addr)
		lg.Die(err)
		j, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(*window))
		lg.Die(err)
		return j
	}
	name := func(p int) string { return fmt.Sprintf("%s-%d", c.Topic, p) }
	subj := func(p int) string { return fmt.Sprintf("%s.%d", c.Topic, p) }
	switch c.Mode {
	case "setup":
		j := js()
		st := jetstream.FileStorage
		if *mem {
			st = jetstream.MemoryStorage
		}
		for p := range c.Parts {
			_ = j.DeleteStream(ctx, name(p))
			_, err := j.CreateStream(ctx, jetstream.StreamConfig{Name: name(p), Subjects: []string{subj(p)}, Storage: st})
			lg.Die(err)
		}
	case "produce":
		var all []jetstream.JetStream
		for range min(c.Parts, *conns) {
			all = append(all, js())
		}
		r := c.Begin("nats-load")
		var wg sync.WaitGroup
		var fail atomic.Int64
		for i, j := range all {
			wg.Go(func() {
				pay := lg.NewPayloads(c.Size)
				for k := i; k < c.N; k += len(all) {
					if _, err := j.PublishAsync(subj(k%c.Parts), pay.Next(), jetstream.WithStallWait(30*time.Second)); err != nil {
						fail.Add(1)
					}
				}
				<-j.PublishAsyncComplete()
			})
		}
		wg.Wait()
		if f := fail.Load(); f > 0 {
			r.Note = fmt.Sprintf("failed=%d", f)
		}
		r.End(int64(c.N)-fail.Load(), nil)
	case "consume":
		r := c.Begin("nats-load")
		var got atomic.Int64
		done := make(chan struct{})
		for p := range c.Parts {
			cons, err := js().OrderedConsumer(ctx, name(p), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
			lg.Die(err)
			cc, err := cons.Consume(func(m jetstream.Msg) {
				if got.Add(1) == int64(c.N) {
					close(done)
				}
			}, jetstream.PullMaxMessages(*pull))
			lg.Die(err)
			defer cc.Stop()
		}
		<-done
		r.End(got.Load(), nil)
	case "latency":
		var e2e, ack lg.Recorder
		for p := range c.Parts {
			cons, err := js().OrderedConsumer(ctx, name(p), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
			lg.Die(err)
			_, err = cons.Consume(func(m jetstream.Msg) {
				if t, ok := lg.Stamp(m.Data()); ok {
					e2e.Add(time.Since(t))
				}
			})
			lg.Die(err)
		}
		time.Sleep(500 * time.Millisecond)
		j := js()
		pay := lg.NewPayloads(c.Size)
		type fut struct {
			f   jetstream.PubAckFuture
			due time.Time
		}
		ch := make(chan fut, 100_000)
		fin := make(chan struct{})
		go func() {
			defer close(fin)
			for f := range ch {
				select {
				case <-f.f.Ok():
					ack.Add(time.Since(f.due))
				case err := <-f.f.Err():
					lg.Die(err)
				}
			}
		}()
		r := c.Begin("nats-load")
		n := lg.Pace(c.Rate, c.Duration, func(i int, due time.Time) {
			f, err := j.PublishAsync(subj(i%c.Parts), pay.Stamped(due), jetstream.WithStallWait(30*time.Second))
			lg.Die(err)
			ch <- fut{f, due}
		})
		close(ch)
		<-fin
		for i := 0; e2e.Len() < n && i < 200; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		r.Note = fmt.Sprintf("rate=%d", c.Rate)
		r.End(int64(n), map[string]lg.Pct{"e2e": e2e.Pct(.1), "ack": ack.Pct(.1)})
	}
	nc.Close()
}
