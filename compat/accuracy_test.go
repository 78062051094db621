package compat

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/auth"
)

var accuracy = flag.Duration("accuracy", 0, "how long to offer twice of what throughput units allow, for each case of TestThroughputAccuracy; 0 skips it")

// accepted is when how much was taken.
type accepted struct {
	at     time.Time
	events int
	bytes  int
}

// TestThroughputAccuracy offers twice of what a namespace's units allow and holds
// what is taken in any ten seconds to them. It measures time, so that it runs only
// when it is asked to:
//
//	go test -run TestThroughputAccuracy . -accuracy 60s -timeout 30m -v
func TestThroughputAccuracy(t *testing.T) {
	if *accuracy == 0 {
		t.Skip("it measures; ask for it with -accuracy 60s")
	}
	for _, units := range []int{1, 4, 20} {
		for _, size := range []int{100, 16 << 10} {
			for _, door := range []string{"amqp", "http"} {
				t.Run(fmt.Sprintf("%d units, %d B, %s", units, size, door), func(t *testing.T) {
					b := Start(t, "--sync", "never")
					b.setTier("standard", units)
					perBatch := max(1, min(48<<10/size, 100))
					send := b.offerAMQP(perBatch, size)
					if door == "http" {
						send = b.offerHTTP(perBatch, size)
					}
					// Batches a second at the units: by events, or by bytes.
					limit := min(float64(1000*units)/float64(perBatch), float64(units<<20)/float64(perBatch*size))
					took := offer(t, *accuracy, 2*limit, send)
					low, high := 10.0, 0.0
					for from := range took {
						events, size, to := 0, 0, from
						for ; to < len(took) && took[to].at.Sub(took[from].at) < 10*time.Second; to++ {
							events += took[to].events
							size += took[to].bytes
						}
						if to == len(took) {
							break
						}
						share := max(float64(events)/float64(10_000*units), float64(size)/float64(10*units<<20))
						low, high = min(low, share), max(high, share)
					}
					t.Logf("of the units, in any ten seconds: %.3f to %.3f", low, high)
					if low < 0.95 || high > 1.05 {
						t.Error("that is not within 5 %")
					}
				})
			}
		}
	}
}

// offer sends so many batches a second, and returns when one was taken.
func offer(t *testing.T, length time.Duration, perSecond float64, send func(context.Context) (accepted, error)) []accepted {
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var mu sync.Mutex
	var took []accepted
	var wg sync.WaitGroup
	due := make(chan struct{}, 1000)
	for range 8 {
		wg.Go(func() {
			for range due {
				a, err := send(ctx)
				if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "50002") {
					t.Error(err)
				}
				if err == nil {
					a.at = time.Now()
					mu.Lock()
					took = append(took, a)
					mu.Unlock()
				}
			}
		})
	}
	began, sent := time.Now(), 0
	for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
		for ; float64(sent) < time.Since(began).Seconds()*perSecond; sent++ {
			select {
			case due <- struct{}{}:
			default: // they can't keep up
			}
		}
	}
	close(due)
	wg.Wait()
	return took
}

func (b *Broker) offerAMQP(n, size int) func(context.Context) (accepted, error) {
	p := b.producer(-1)
	return func(ctx context.Context) (accepted, error) {
		return accepted{events: n, bytes: n * size}, sendBatch(ctx, p, n, size)
	}
}

func (b *Broker) offerHTTP(n, size int) func(context.Context) (accepted, error) {
	one := `{"Body":"` + strings.Repeat("x", size) + `"}`
	body := []byte("[" + strings.Repeat(one+",", n-1) + one + "]")
	token := auth.SignSAS("http://localhost/events", "RootManageSharedAccessKey", "SAS_KEY_VALUE", time.Now().Add(time.Hour))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	return func(ctx context.Context) (accepted, error) {
		a := accepted{events: n, bytes: n * size}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.HTTP+"/events/messages", bytes.NewReader(body))
		if err != nil {
			return a, err
		}
		req.Header.Set("Authorization", token)
		req.Header.Set("Content-Type", "application/vnd.microsoft.servicebus.json")
		resp, err := client.Do(req)
		if err != nil {
			return a, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusCreated {
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		return a, err
	}
}
