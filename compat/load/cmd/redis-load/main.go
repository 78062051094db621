// redis-load drives Redis Streams: partitions are keys {topic}:{i}.
package main

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/redis/go-redis/v9"
)

func main() {
	c := lg.Flags("127.0.0.1:6379")
	pipe := flag.Int("pipeline", 500, "XADDs per pipeline")
	conns := flag.Int("clients", 2, "connections per partition in produce")
	count := flag.Int64("count", 1000, "XREAD COUNT")
	c.Parse()
	ctx := context.Background()
	cl := redis.NewClient(&redis.Options{Addr: c.Addr, PoolSize: 64, ReadTimeout: time.Minute})
	key := func(p int) string { return fmt.Sprintf("%s:%d", c.Topic, p) }
	switch c.Mode {
	case "setup":
		for p := range c.Parts {
			lg.Die(cl.Del(ctx, key(p)).Err())
		}
	case "produce":
		r := c.Begin("redis-load")
		var wg sync.WaitGroup
		nc := max(1, min(*conns*c.Parts, 8))
		for i := range nc {
			wg.Go(func() {
				pay := lg.NewPayloads(c.Size)
				for n := 0; n < c.N/nc; {
					p := cl.Pipeline()
					for k := 0; k < *pipe && n < c.N/nc; k++ {
						p.XAdd(ctx, &redis.XAddArgs{Stream: key((i + n) % c.Parts), Values: []any{"d", pay.Next()}})
						n++
					}
					_, err := p.Exec(ctx)
					lg.Die(err)
				}
			})
		}
		wg.Wait()
		r.End(int64(c.N/nc*nc), nil)
	case "consume":
		r := c.Begin("redis-load")
		var got atomic.Int64
		var wg sync.WaitGroup
		for p := range c.Parts {
			wg.Go(func() {
				last := "0"
				for got.Load() < int64(c.N) {
					rs, err := cl.XRead(ctx, &redis.XReadArgs{Streams: []string{key(p), last}, Count: *count, Block: 200 * time.Millisecond}).Result()
					if err == redis.Nil {
						continue
					}
					lg.Die(err)
					ms := rs[0].Messages
					last = ms[len(ms)-1].ID
					got.Add(int64(len(ms)))
				}
			})
		}
		wg.Wait()
		r.End(got.Load(), nil)
	case "latency":
		var e2e, ack lg.Recorder
		cctx, cancel := context.WithCancel(ctx)
		for p := range c.Parts {
			go func() {
				last := "$"
				for cctx.Err() == nil {
					rs, err := cl.XRead(cctx, &redis.XReadArgs{Streams: []string{key(p), last}, Count: 100, Block: time.Second}).Result()
					if err != nil {
						continue
					}
					now := time.Now()
					for _, m := range rs[0].Messages {
						last = m.ID
						if s, ok := m.Values["d"].(string); ok {
							if t, ok := lg.Stamp([]byte(s)); ok {
								e2e.Add(now.Sub(t))
							}
						}
					}
				}
			}()
		}
		time.Sleep(300 * time.Millisecond)
		pay := lg.NewPayloads(c.Size)
		var wg sync.WaitGroup
		r := c.Begin("redis-load")
		n := lg.Pace(c.Rate, c.Duration, func(i int, due time.Time) {
			b := pay.Stamped(due)
			wg.Go(func() {
				lg.Die(cl.XAdd(ctx, &redis.XAddArgs{Stream: key(i % c.Parts), Values: []any{"d", b}}).Err())
				ack.Add(time.Since(due))
			})
		})
		wg.Wait()
		for i := 0; e2e.Len() < n && i < 200; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		r.Note = fmt.Sprintf("rate=%d", c.Rate)
		r.End(int64(n), map[string]lg.Pct{"e2e": e2e.Pct(.1), "ack": ack.Pct(.1)})
		cancel()
	}
}
