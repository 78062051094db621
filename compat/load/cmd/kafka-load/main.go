// kafka-load drives any broker that speaks the Kafka protocol.
package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

func main() {
	c := lg.Flags("127.0.0.1:9092")
	linger := flag.Duration("linger", 0, "producer linger")
	batch := flag.Int("batch-bytes", 1_000_000, "max record batch bytes")
	inflight := flag.Int("max-buffered", 50_000, "records buffered in the client")
	idem := flag.Bool("idempotent", true, "idempotent producer")
	part := flag.String("partitioner", "rr", "rr | sticky")
	comp := flag.String("compression", "none", "none | lz4 | zstd | snappy | gzip")
	fetchMax := flag.Int("fetch-max-bytes", 50<<20, "fetch.max.bytes")
	fetchPart := flag.Int("fetch-partition-bytes", 1<<20, "max.partition.fetch.bytes")
	user := flag.String("user", "", "SASL PLAIN user (Event Hubs: $ConnectionString)")
	pass := flag.String("pass", "", "SASL PLAIN password")
	conns := flag.Int("clients", 1, "independent producer clients")
	old := flag.String("max-version", "", "cap protocol versions, e.g. v0.11.0 (old brokers)")
	c.Parse()
	ctx := context.Background()

	base := []kgo.Opt{kgo.SeedBrokers(strings.Split(c.Addr, ",")...), kgo.MetadataMinAge(100 * time.Millisecond)}
	if *user != "" {
		base = append(base, kgo.SASL(plain.Auth{User: *user, Pass: *pass}.AsMechanism()))
	}
	if *old != "" {
		if v := kversion.FromString(*old); v != nil {
			base = append(base, kgo.MaxVersions(v))
		}
	}
	prod := append([]kgo.Opt{}, base...)
	prod = append(prod, kgo.DefaultProduceTopic(c.Topic), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(*linger),
		kgo.ProducerBatchMaxBytes(int32(*batch)), kgo.MaxBufferedRecords(*inflight))
	if !*idem {
		prod = append(prod, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(5))
	}
	if *part == "rr" {
		prod = append(prod, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	} else {
		prod = append(prod, kgo.RecordPartitioner(kgo.StickyPartitioner()))
	}
	switch *comp {
	case "none":
		prod = append(prod, kgo.ProducerBatchCompression(kgo.NoCompression()))
	case "lz4":
		prod = append(prod, kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	case "zstd":
		prod = append(prod, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	case "snappy":
		prod = append(prod, kgo.ProducerBatchCompression(kgo.SnappyCompression()))
	case "gzip":
		prod = append(prod, kgo.ProducerBatchCompression(kgo.GzipCompression()))
	}
	consumeFrom := func(o kgo.Offset) []kgo.Opt {
		m := map[int32]kgo.Offset{}
		for p := range int32(c.Parts) {
			m[p] = o
		}
		return append(append([]kgo.Opt{}, base...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{c.Topic: m}),
			kgo.FetchMaxBytes(int32(*fetchMax)), kgo.FetchMaxPartitionBytes(int32(*fetchPart)), kgo.FetchMaxWait(500*time.Millisecond))
	}
	pay := lg.NewPayloads(c.Size)

	switch c.Mode {
	case "setup":
		cl, err := kgo.NewClient(base...)
		lg.Die(err)
		defer cl.Close()
		adm := kadm.NewClient(cl)
		_, _ = adm.DeleteTopics(ctx, c.Topic)
		time.Sleep(200 * time.Millisecond)
		r, err := adm.CreateTopics(ctx, int32(c.Parts), 1, nil, c.Topic)
		lg.Die(err)
		for _, t := range r {
			lg.Die(t.Err)
		}
		fmt.Println("created", c.Topic, c.Parts)

	case "produce":
		var cls []*kgo.Client
		for range *conns {
			cl, err := kgo.NewClient(prod...)
			lg.Die(err)
			defer cl.Close()
			// Warm: metadata and producer id are not part of the measured run.
			lg.Die(cl.ProduceSync(ctx, &kgo.Record{Value: pay.Next()}).FirstErr())
			cls = append(cls, cl)
		}
		r := c.Begin("kafka-load")
		var failed atomic.Int64
		var first atomic.Pointer[error]
		var wg sync.WaitGroup
		for i, cl := range cls {
			wg.Add(1)
			go func(i int, cl *kgo.Client) {
				defer wg.Done()
				pay := lg.NewPayloads(c.Size)
				for n := i; n < c.N; n += len(cls) {
					cl.Produce(ctx, &kgo.Record{Value: pay.Next()}, func(_ *kgo.Record, err error) {
						if err != nil {
							failed.Add(1)
							first.CompareAndSwap(nil, &err)
						}
					})
				}
				lg.Die(cl.Flush(ctx))
			}(i, cl)
		}
		wg.Wait()
		if f := failed.Load(); f > 0 {
			r.Note = fmt.Sprintf("failed=%d first=%v", f, *first.Load())
		}
		r.End(int64(c.N)-failed.Load(), nil)

	case "consume":
		cl, err := kgo.NewClient(consumeFrom(kgo.NewOffset().AtStart())...)
		lg.Die(err)
		defer cl.Close()
		r := c.Begin("kafka-load")
		var got int64
		for got < int64(c.N) {
			fs := cl.PollFetches(ctx)
			fs.EachError(func(t string, p int32, err error) { lg.Die(fmt.Errorf("%s/%d: %w", t, p, err)) })
			got += int64(fs.NumRecords())
		}
		r.End(got, nil)

	case "latency":
		cons, err := kgo.NewClient(consumeFrom(kgo.NewOffset().AtEnd())...)
		lg.Die(err)
		defer cons.Close()
		cl, err := kgo.NewClient(prod...)
		lg.Die(err)
		defer cl.Close()
		var e2e, ack lg.Recorder
		pctx, cancel := context.WithCancel(ctx)
		started := make(chan struct{}, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				fs := cons.PollFetches(pctx)
				if pctx.Err() != nil {
					return
				}
				now := time.Now()
				fs.EachRecord(func(r *kgo.Record) {
					if len(r.Key) > 0 {
						select {
						case started <- struct{}{}:
						default:
						}
						return
					}
					if t, ok := lg.Stamp(r.Value); ok {
						e2e.Add(now.Sub(t))
					}
				})
			}
		}()
	warm: // AtEnd resolves asynchronously: send markers until one arrives.
		for {
			lg.Die(cl.ProduceSync(ctx, &kgo.Record{Key: []byte("warm"), Value: pay.Next()}).FirstErr())
			select {
			case <-started:
				break warm
			case <-time.After(100 * time.Millisecond):
			}
		}
		r := c.Begin("kafka-load")
		n := lg.Pace(c.Rate, c.Duration, func(_ int, due time.Time) {
			cl.Produce(ctx, &kgo.Record{Value: pay.Stamped(due)}, func(_ *kgo.Record, err error) {
				lg.Die(err)
				ack.Add(time.Since(due))
			})
		})
		lg.Die(cl.Flush(ctx))
		for i := 0; e2e.Len() < n && i < 200; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		r.Note = fmt.Sprintf("rate=%d", c.Rate)
		r.End(int64(n), map[string]lg.Pct{"e2e": e2e.Pct(.1), "ack": ack.Pct(.1)})
		cancel()
		<-done
	default:
		lg.Die(fmt.Errorf("unknown mode %q", c.Mode))
	}
}
