// Command consumer processes the events of an event hub in Go, each once: checkpoints in
// a blob container, the second record in Redis, and package once/processor between them.
// Start it several times, and the processes share the partitions. README.md has the rest.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/once/processor"
	"github.com/millrace/millrace/once/redisledger"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	hub := flag.String("hub", "trial", "the event hub")
	group := flag.String("group", azeventhubs.DefaultConsumerGroup, "the consumer group")
	once := flag.Bool("once", false, "keep a ledger in Redis, and process each event once")
	id := flag.String("id", "", "the field of the body that the ledger knows an event by, such as event_id (default its partition and sequence number)")
	letters := flag.String("dead-letters", "", "the event hub for events that can't be processed")
	flag.Parse()

	connection := os.Getenv("EVENTHUB_CONNECTION_STRING")
	namespace, err := azeventhubs.ParseConnectionString(connection)
	if err != nil {
		return fmt.Errorf("$EVENTHUB_CONNECTION_STRING: %w", err)
	}
	client, err := azeventhubs.NewConsumerClientFromConnectionString(connection, *hub, *group, nil)
	if err != nil {
		return err
	}
	defer client.Close(context.WithoutCancel(ctx))
	store, err := openCheckpoints(ctx)
	if err != nil {
		return err
	}
	address, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		return fmt.Errorf("$REDIS_URL: %w", err)
	}
	rdb := redis.NewClient(address)
	defer rdb.Close()
	end, err := newAccident(os.Getenv("DIE"))
	if err != nil {
		return err
	}
	work := &shop{redis: rdb, effects: cmp.Or(os.Getenv("EFFECTS"), "effects"), end: end}

	o := processor.Options{
		Namespace: namespace.FullyQualifiedNamespace,
		Group:     *group,
		Handle:    work.handle,
		// A group without a checkpoint begins with what is there, not with what comes.
		Start: azeventhubs.StartPositions{Default: azeventhubs.StartPosition{Earliest: new(true)}},
		// Seldom, since a checkpoint is a write to the blob service. What is repeated
		// after a crash without a ledger is what came since the last one.
		CheckpointEvents: 10,
		// Short, so that nobody who tries this has to wait. Another process takes over
		// what a dead one owned after Expiry, and what it had claimed after Lease.
		Balance: time.Second, Expiry: 4 * time.Second, Lease: 10 * time.Second, Greedy: true,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if *once {
		o.Ledger = redisledger.New(rdb, redisledger.Options{})
	}
	if *id != "" {
		o.ID = func(e *azeventhubs.ReceivedEventData) string { return field(e, *id) }
	}
	if *letters != "" {
		producer, err := azeventhubs.NewProducerClientFromConnectionString(connection, *letters, nil)
		if err != nil {
			return err
		}
		defer producer.Close(context.WithoutCancel(ctx))
		o.DeadLetters = processor.Hub(producer)
	}
	p, err := processor.New(client, end.at(store), o)
	if err != nil {
		return err
	}
	return p.Run(ctx) // until Ctrl-C: then what is at work is finished, and checkpointed
}

// openCheckpoints opens the container of the checkpoints, and makes it if it is not there.
func openCheckpoints(ctx context.Context) (*checkpoints.BlobStore, error) {
	c, err := container.NewClientFromConnectionString(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), "checkpoints", nil)
	if err != nil {
		return nil, fmt.Errorf("$AZURE_STORAGE_CONNECTION_STRING: %w", err)
	}
	if _, err := c.Create(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		return nil, fmt.Errorf("the container for checkpoints: %w", err)
	}
	return checkpoints.NewBlobStore(c, nil)
}

// shop is what events have their effect on. Here it is a counter for each event, so that
// one sees which have had theirs twice: think of it as a card that is charged, or a mail.
// (An effect that really is in Redis could have its mark in the same MULTI.)
type shop struct {
	redis   *redis.Client
	effects string // the hash with the counters
	end     *accident
}

// handle processes a batch: here one event, since Options.Batch says nothing else.
func (s *shop) handle(ctx context.Context, b processor.Batch) error {
	for i, e := range b.Events {
		id := field(e, "event_id")
		if id == "" {
			// It will be no better the next time: put it aside, and go on with the rest.
			return &processor.PoisonError{Index: i, Err: errors.New("there is no event_id in the body")}
		}
		if err := s.redis.HIncrBy(ctx, s.effects, id, 1).Err(); err != nil {
			// That is not the event's fault: wait until Redis is back, and don't count it.
			return processor.Unavailable(err)
		}
		s.end.afterEffect()
	}
	return nil
}

// field is a field of a JSON body, if it is text, or "".
func field(e *azeventhubs.ReceivedEventData, name string) string {
	var body map[string]any
	if json.Unmarshal(e.Body, &body) != nil {
		return ""
	}
	text, _ := body[name].(string)
	return text
}
