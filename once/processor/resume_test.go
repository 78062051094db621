package processor_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/processor"
)

// mute is a ledger that can't say what is settled for so many times.
type mute struct {
	once.Ledger
	left atomic.Int32
}

func (m *mute) Status(ctx context.Context, s once.Stream) (once.Status, error) {
	if m.left.Add(-1) >= 0 {
		return once.Status{}, errors.New("it is away")
	}
	return m.Ledger.Status(ctx, s)
}

// TestLedgerAwayAtStart: where the ledger alone says where to go on, it is waited for:
// to begin at the latest event instead would skip what came meanwhile, and settle it.
func TestLedgerAwayAtStart(t *testing.T) {
	for name, partitions := range map[string][]string{"pinned": {"0", "1", "2", "3"}, "shared": nil} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			ledger := &mute{Ledger: once.NewMemory(time.Hour)}
			o := h.options()
			o.Ledger, o.MinBackoff = ledger, time.Millisecond
			y := newTally(4)
			o.Handle, o.Partitions = y.handler("dead"), []string{"0", "1", "2", "3"} // writes no checkpoint
			_, stop := h.start(o)
			h.send(1)
			y.wait(t)
			stop()

			h.send(1)
			ledger.left.Store(5)
			later := newTally(4)
			o.Handle, o.Partitions = later.handler("heir"), partitions
			o.Start = azeventhubs.StartPositions{Default: azeventhubs.StartPosition{Latest: new(true)}}
			_, stop = h.start(o)
			later.wait(t)
			stop()
		})
	}
}

// heard closes a channel when a text is logged.
type heard struct {
	text string
	once atomic.Bool
	said chan struct{}
}

func (h *heard) Write(b []byte) (int, error) {
	if strings.Contains(string(b), h.text) && h.once.CompareAndSwap(false, true) {
		close(h.said)
	}
	return len(b), nil
}

// TestCheckpointBeyondTheEnd: a checkpoint that the partition does not reach, as one of a
// hub that was deleted and made again, is no silent wait.
func TestCheckpointBeyondTheEnd(t *testing.T) {
	h := newHub(t)
	h.send(3)
	err := h.store().SetCheckpoint(t.Context(), azeventhubs.Checkpoint{
		FullyQualifiedNamespace: h.ns, EventHubName: h.name, ConsumerGroup: azeventhubs.DefaultConsumerGroup, PartitionID: "2",
		Offset: new("500"), SequenceNumber: new(int64(500)),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, partitions := range map[string][]string{"pinned": {"2"}, "shared": nil} {
		t.Run(name, func(t *testing.T) {
			log := &heard{text: `msg="the partition ends before what is taken as done`, said: make(chan struct{})}
			o := h.options()
			o.Handle, o.Partitions = func(context.Context, processor.Batch) error { return nil }, partitions
			o.Logger = slog.New(slog.NewTextHandler(log, nil))
			p, err := processor.New(h.consumer(h.name, o.Group), h.store(), o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			over := make(chan error, 1)
			go func() { over <- p.Run(ctx) }()
			select {
			case <-log.said:
			case err := <-over:
				t.Fatalf("the log says nothing of it; it ends with %v", err)
			}
			cancel()
			<-over
		})
	}
}
