// eh-load drives a broker with the official Event Hubs SDK (azeventhubs/v2).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"

	eh "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

func main() {
	c := lg.Flags("127.0.0.1:5672")
	cs := flag.String("conn", "", "connection string (default: emulator form, plain AMQP to -addr)")
	group := flag.String("group", "$Default", "consumer group")
	prefetch := flag.Int("prefetch", 0, "receiver prefetch (0: SDK default, 300)")
	take := flag.Int("take", 300, "events per ReceiveEvents call")
	maxB := flag.Uint64("batch-bytes", 0, "batch size limit (0: the link's)")
	conc := flag.Int("concurrency", 2, "batches in flight per partition")
	c.Parse()
	if *cs == "" {
		*cs = "Endpoint=sb://" + c.Addr + ";SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true"
	}
	ctx := context.Background()
	producer := func() *eh.ProducerClient {
		p, err := eh.NewProducerClientFromConnectionString(*cs, c.Topic, nil)
		lg.Die(err)
		return p
	}
	consumer := func() *eh.ConsumerClient {
		p, err := eh.NewConsumerClientFromConnectionString(*cs, c.Topic, *group, nil)
		lg.Die(err)
		return p
	}
	batch := func(p *eh.ProducerClient, part string) *eh.EventDataBatch {
		b, err := p.NewEventDataBatch(ctx, &eh.EventDataBatchOptions{PartitionID: &part, MaxBytes: *maxB})
		lg.Die(err)
		return b
	}
	switch c.Mode {
	case "props":
		p := producer()
		pr, err := p.GetEventHubProperties(ctx, nil)
		lg.Die(err)
		fmt.Printf("%+v\n", pr)
	case "produce":
		p := producer()
		defer p.Close(ctx)
		for i := range c.Parts {
			batch(p, strconv.Itoa(i)) // opens the link
		}
		r := c.Begin("eh-load")
		var left atomic.Int64
		left.Store(int64(c.N))
		var sent atomic.Int64
		var wg sync.WaitGroup
		for i := range c.Parts {
			for range *conc {
				wg.Go(func() {
					pay := lg.NewPayloads(c.Size)
					b := batch(p, strconv.Itoa(i))
					flush := func() {
						if b.NumEvents() == 0 {
							return
						}
						n := int64(b.NumEvents())
						lg.Die(p.SendEventDataBatch(ctx, b, nil))
						sent.Add(n)
						b = batch(p, strconv.Itoa(i))
					}
					for left.Add(-1) >= 0 {
						ed := &eh.EventData{Body: pay.Next()}
						err := b.AddEventData(ed, nil)
						if errors.Is(err, eh.ErrEventDataTooLarge) {
							flush()
							err = b.AddEventData(ed, nil)
						}
						lg.Die(err)
					}
					flush()
				})
			}
		}
		wg.Wait()
		r.End(sent.Load(), nil)
	case "consume":
		cl := consumer()
		defer cl.Close(ctx)
		var got atomic.Int64
		var wg sync.WaitGroup
		cctx, cancel := context.WithCancel(ctx)
		yes := true
		r := c.Begin("eh-load")
		for i := range c.Parts {
			wg.Go(func() {
				pc, err := cl.NewPartitionClient(strconv.Itoa(i), &eh.PartitionClientOptions{StartPosition: eh.StartPosition{Earliest: &yes}, Prefetch: int32(*prefetch)})
				lg.Die(err)
				defer pc.Close(ctx)
				for {
					evs, err := pc.ReceiveEvents(cctx, *take, nil)
					if got.Add(int64(len(evs))) >= int64(c.N) {
						cancel()
						return
					}
					if err != nil {
						if cctx.Err() == nil {
							lg.Die(err)
						}
						return
					}
				}
			})
		}
		wg.Wait()
		r.End(got.Load(), nil)
	case "latency":
		cl, p := consumer(), producer()
		var e2e, ack lg.Recorder
		yes := true
		for i := range c.Parts {
			pc, err := cl.NewPartitionClient(strconv.Itoa(i), &eh.PartitionClientOptions{StartPosition: eh.StartPosition{Latest: &yes}})
			lg.Die(err)
			go func() {
				for {
					evs, err := pc.ReceiveEvents(ctx, 1, nil)
					now := time.Now()
					for _, e := range evs {
						if t, ok := lg.Stamp(e.Body); ok {
							e2e.Add(now.Sub(t))
						}
					}
					if err != nil {
						return
					}
				}
			}()
			batch(p, strconv.Itoa(i))
		}
		time.Sleep(time.Second)
		pay := lg.NewPayloads(c.Size)
		r := c.Begin("eh-load")
		var wg sync.WaitGroup
		n := lg.Pace(c.Rate, c.Duration, func(i int, due time.Time) {
			wg.Go(func() {
				b := batch(p, strconv.Itoa(i%c.Parts))
				lg.Die(b.AddEventData(&eh.EventData{Body: pay.Stamped(due)}, nil))
				lg.Die(p.SendEventDataBatch(ctx, b, nil))
				ack.Add(time.Since(due))
			})
		})
		wg.Wait()
		for i := 0; e2e.Len() < n && i < 200; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		r.Note = fmt.Sprintf("rate=%d", c.Rate)
		r.End(int64(n), map[string]lg.Pct{"e2e": e2e.Pct(.1), "ack": ack.Pct(.1)})
	default:
		lg.Die(fmt.Errorf("unknown mode %q", c.Mode))
	}
}
