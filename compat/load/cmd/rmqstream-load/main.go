// rmqstream-load drives RabbitMQ's stream protocol: partitions are streams {topic}-{i}.
package main

import (
	"flag"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/amqp"
	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/message"
	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/stream"
)

func main() {
	c := lg.Flags("127.0.0.1:5552")
	batch := flag.Int("batch", 500, "messages per publish frame")
	credits := flag.Int("credits", 10, "initial chunk credits of a consumer")
	maxPend := flag.Int64("window", 20_000, "unconfirmed messages per stream")
	c.Parse()
	host, port, err := net.SplitHostPort(c.Addr)
	lg.Die(err)
	pn, _ := strconv.Atoi(port)
	env, err := stream.NewEnvironment(stream.NewEnvironmentOptions().SetHost(host).SetPort(pn).SetUser("guest").SetPassword("guest").
		SetAddressResolver(stream.AddressResolver{Host: host, Port: pn}).
		// The library asks for small socket buffers, which stall on the loopback MTU.
		SetReadBuffer(4 << 20).SetWriteBuffer(4 << 20))
	lg.Die(err)
	defer env.Close()
	name := func(p int) string { return fmt.Sprintf("%s-%d", c.Topic, p) }
	producer := func(p int, conf func(n int)) *stream.Producer {
		pr, err := env.NewProducer(name(p), stream.NewProducerOptions().SetBatchSize(*batch).SetQueueSize(int(*maxPend)))
		lg.Die(err)
		ch := pr.NotifyPublishConfirmation()
		go func() {
			for cs := range ch {
				for _, m := range cs {
					if !m.IsConfirmed() {
						lg.Die(fmt.Errorf("not confirmed: %v", m.GetError()))
					}
				}
				conf(len(cs))
			}
		}()
		return pr
	}
	switch c.Mode {
	case "setup":
		for p := range c.Parts {
			_ = env.DeleteStream(name(p))
			lg.Die(env.DeclareStream(name(p), stream.NewStreamOptions()))
		}
	case "produce":
		type pp struct {
			pr   *stream.Producer
			conf atomic.Int64
		}
		var all []*pp
		for p := range c.Parts {
			x := &pp{}
			x.pr = producer(p, func(n int) { x.conf.Add(int64(n)) })
			all = append(all, x)
		}
		r := c.Begin("rmqstream-load")
		var wg sync.WaitGroup
		for _, x := range all {
			wg.Go(func() {
				pay := lg.NewPayloads(c.Size)
				per := *batch
				if per*c.Size > 900_000 {
					per = max(1, 900_000/c.Size)
				}
				for n := 0; n < c.N/c.Parts; {
					b := make([]message.StreamMessage, 0, per)
					for len(b) < per && n < c.N/c.Parts {
						b = append(b, amqp.NewMessage(pay.Next()))
						n++
					}
					for int64(n)-x.conf.Load() > *maxPend {
						time.Sleep(200 * time.Microsecond)
					}
					lg.Die(x.pr.BatchSend(b))
				}
				for x.conf.Load() < int64(c.N/c.Parts) {
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		r.End(int64(c.N/c.Parts*c.Parts), nil)
	case "consume":
		r := c.Begin("rmqstream-load")
		var got atomic.Int64
		done := make(chan struct{})
		for p := range c.Parts {
			cons, err := env.NewConsumer(name(p), func(stream.ConsumerContext, *amqp.Message) {
				if got.Add(1) == int64(c.N) {
					close(done)
				}
			}, stream.NewConsumerOptions().SetOffset(stream.OffsetSpecification{}.First()).SetInitialCredits(int16(*credits)))
			lg.Die(err)
			defer cons.Close()
		}
		for last, idle := int64(-1), 0; idle < 5; { // give up after 5 s without progress
			select {
			case <-done:
				idle = 100
			case <-time.After(time.Second):
				if n := got.Load(); n == last {
					idle++
				} else {
					last, idle = n, 0
				}
			}
		}
		if got.Load() < int64(c.N) {
			r.Note = fmt.Sprintf("stalled at %d", got.Load())
		}
		r.End(got.Load(), nil)
	case "latency":
		var e2e, ack lg.Recorder
		for p := range c.Parts {
			_, err := env.NewConsumer(name(p), func(_ stream.ConsumerContext, m *amqp.Message) {
				if t, ok := lg.Stamp(m.GetData()); ok {
					e2e.Add(time.Since(t))
				}
			}, stream.NewConsumerOptions().SetOffset(stream.OffsetSpecification{}.Next()))
			lg.Die(err)
		}
		time.Sleep(500 * time.Millisecond)
		var prs []*stream.Producer
		dues := make([]chan time.Time, c.Parts)
		for p := range c.Parts {
			dues[p] = make(chan time.Time, 100_000)
			prs = append(prs, producer(p, func(n int) {
				for range n {
					ack.Add(time.Since(<-dues[p]))
				}
			}))
		}
		pay := lg.NewPayloads(c.Size)
		r := c.Begin("rmqstream-load")
		n := lg.Pace(c.Rate, c.Duration, func(i int, due time.Time) {
			dues[i%c.Parts] <- due
			lg.Die(prs[i%c.Parts].BatchSend([]message.StreamMessage{amqp.NewMessage(pay.Stamped(due))}))
		})
		for i := 0; (e2e.Len() < n || ack.Len() < n) && i < 200; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		r.Note = fmt.Sprintf("rate=%d", c.Rate)
		r.End(int64(n), map[string]lg.Pct{"e2e": e2e.Pct(.1), "ack": ack.Pct(.1)})
	}
}
