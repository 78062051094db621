// Command producer sends sample events to an event hub, to each partition in turn, as
// "millrace send --count" does, and on demand what goes wrong with producers: all of them
// a second time, or one that no consumer can read.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// order is the body of an event. EventID is made once for each order, before anything is
// sent: whoever gets the event twice, even as two events, can see that it is one.
type order struct {
	EventID   string `json:"event_id"`
	MessageID int    `json:"message_id"`
	Timestamp string `json:"timestamp"`
	Data      string `json:"data"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "producer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	hub := flag.String("hub", "trial", "the event hub")
	count := flag.Int("count", 10, "how many events are sent")
	interval := flag.Duration("interval", 0, "the pause between two events")
	twice := flag.Bool("twice", false, "send all a second time, and one more: an application that can't know whether it had sent them")
	spoilt := flag.Bool("spoilt", false, "send one in the middle that is not JSON")
	flag.Parse()

	client, err := azeventhubs.NewProducerClientFromConnectionString(os.Getenv("EVENTHUB_CONNECTION_STRING"), *hub, nil)
	if err != nil {
		return fmt.Errorf("$EVENTHUB_CONNECTION_STRING: %w", err)
	}
	defer client.Close(context.WithoutCancel(ctx))
	bodies, err := orders(*count)
	if err != nil {
		return err
	}
	switch {
	case *twice:
		more, err := orders(1)
		if err != nil {
			return err
		}
		bodies = append(append(bodies, bodies...), more...)
	case *spoilt:
		bodies[*count/2] = []byte(`{"event_id": `)
	}
	return send(ctx, client, bodies, *interval)
}

// orders makes the bodies of events.
func orders(n int) ([][]byte, error) {
	bodies := make([][]byte, n)
	for i := range bodies {
		var err error
		bodies[i], err = json.Marshal(order{
			EventID: rand.Text(), MessageID: i + 1, Timestamp: time.Now().UTC().Format(time.RFC3339Nano),
			Data: fmt.Sprintf("Order %d", i+1),
		})
		if err != nil {
			return nil, err
		}
	}
	return bodies, nil
}

// send sends events, each acknowledged before the next goes.
func send(ctx context.Context, client *azeventhubs.ProducerClient, bodies [][]byte, interval time.Duration) error {
	hub, err := client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return fmt.Errorf("the event hub can't be used: %w", err)
	}
	for i, body := range bodies {
		partition := hub.PartitionIDs[i%len(hub.PartitionIDs)]
		batch, err := client.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionID: &partition})
		if err != nil {
			return err
		}
		if err := batch.AddEventData(&azeventhubs.EventData{Body: body}, nil); err != nil {
			return err
		}
		if err := client.SendEventDataBatch(ctx, batch, nil); err != nil {
			return fmt.Errorf("event %d was not acknowledged: %w", i+1, err)
		}
		fmt.Fprintf(os.Stdout, "sent to partition %s: %s\n", partition, body)
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
