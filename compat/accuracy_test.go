package compat

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"

	"github.com/millrace/millrace/auth"
)

var accuracy = flag.Duration("accuracy", 0, "how long to send twice of what throughput units allow, or to receive as fast as they do, for each case of TestThroughputAccuracy and TestEgressAccuracy; 0 skips them")

// accepted is when how much was taken, or delivered.
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
					within(t, took, 1000*units, units<<20)
				})
			}
		}
	}
}

// within holds what passed in any ten seconds to so many events, or bytes, a
// second, whichever is less.
func within(t *testing.T, took []accepted, events, bytes int) {
	t.Helper()
	low, high := 10.0, 0.0
	var sum accepted
	to := 0
	for _, from := range took {
		for ; to < len(took) && took[to].at.Sub(from.at) < 10*time.Second; to++ {
			sum.events += took[to].events
			sum.bytes += took[to].bytes
		}
		if to == len(took) {
			break
		}
		share := max(float64(sum.events)/float64(10*events), float64(sum.bytes)/float64(10*bytes))
		low, high = min(low, share), max(high, share)
		sum.events -= from.events
		sum.bytes -= from.bytes
	}
	t.Logf("of the units, in any ten seconds: %.3f to %.3f", low, high)
	if low < 0.95 || high > 1.05 {
		t.Error("that is not within 5 %")
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
				// A timer of the SDK's may see the end before ctx does.
				over := ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)
				if err != nil && !over && !strings.Contains(err.Error(), "50002") {
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

// TestEgressAccuracy reads what is stored, again and again, as fast as it comes, and
// holds what is delivered in any ten seconds to a namespace's units. As the other,
// it runs when it is asked to:
//
//	go test -run TestEgressAccuracy . -accuracy 60s -timeout 30m -v
func TestEgressAccuracy(t *testing.T) {
	if *accuracy == 0 {
		t.Skip("it measures; ask for it with -accuracy 60s")
	}
	const partitions = 4 // of the hub events
	for _, c := range []struct{ size, perBatch, batches int }{{100, 2000, 50}, {16 << 10, 60, 40}} {
		b := Start(t, "--sync", "never")
		for p := range partitions {
			b.store(strconv.Itoa(p), c.batches, c.perBatch, c.size)
		}
		for _, units := range []int{1, 4, 20} {
			t.Run(fmt.Sprintf("%d units, %d B", units, c.size), func(t *testing.T) {
				b.setTier("standard", units)
				ctx, cancel := context.WithTimeout(t.Context(), *accuracy)
				defer cancel()
				var got [partitions][]accepted
				var wg sync.WaitGroup
				for p := range partitions {
					wg.Go(func() { got[p] = b.readAgain(t, ctx, strconv.Itoa(p), c.batches*c.perBatch, c.size) })
				}
				wg.Wait()
				took := slices.Concat(got[:]...)
				slices.SortFunc(took, func(a, b accepted) int { return a.at.Compare(b.at) })
				within(t, took, 4096*units, 2*units<<20)
			})
		}
	}
}

// store stores events in a partition, while the namespace is not limited.
func (b *Broker) store(partition string, batches, perBatch, size int) {
	b.t.Helper()
	ctx, p := context.Background(), b.producer(3)
	for range batches {
		batch, err := p.NewEventDataBatch(ctx, &eventhubs.EventDataBatchOptions{PartitionID: &partition})
		for range perBatch {
			if err == nil {
				err = batch.AddEventData(&eventhubs.EventData{Body: make([]byte, size)}, nil)
			}
		}
		if err == nil {
			err = p.SendEventDataBatch(ctx, batch, nil)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// readAgain reads a partition of so many events from its start to its end, and
// again, until ctx ends. It returns what came, by the millisecond. The SDK would
// take more of the machine than the broker does; this is what is below it.
func (b *Broker) readAgain(t *testing.T, ctx context.Context, partition string, events, size int) (took []accepted) {
	conn, err := amqp.Dial(ctx, "amqp://"+b.AMQP, &amqp.ConnOptions{SASLType: amqp.SASLTypePlain("RootManageSharedAccessKey", "SAS_KEY_VALUE")})
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	session, err := conn.NewSession(ctx, nil)
	for err == nil {
		var r *amqp.Receiver
		r, err = session.NewReceiver(ctx, "events/ConsumerGroups/$Default/Partitions/"+partition, &amqp.ReceiverOptions{
			Credit: 2000, RequestedSenderSettleMode: amqp.SenderSettleModeSettled.Ptr(), Filters: []amqp.LinkFilter{amqp.NewSelectorFilter("amqp.annotation.x-opt-offset > '-1'")},
		})
		for n := 0; n < events && err == nil; n++ {
			if _, err = r.Receive(ctx, nil); err != nil {
				break
			}
			if now := time.Now(); len(took) == 0 || now.Sub(took[len(took)-1].at) > time.Millisecond {
				took = append(took, accepted{at: now})
			}
			last := &took[len(took)-1]
			last.events++
			last.bytes += size
		}
		if err == nil {
			err = r.Close(ctx)
		}
	}
	if ctx.Err() == nil {
		t.Errorf("partition %s: %v", partition, err)
	}
	return took
}
