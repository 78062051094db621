package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"reflect"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// seekTo moves the checkpoints of the hub's default group with the command.
func seekTo(ctx context.Context, h *hub, to string, more ...string) error {
	args := append([]string{"seek", "--connection-string", h.connection, "--storage-connection-string", os.Getenv("MILLRACE_STORAGE_CONNECTION_STRING"),
		"--hub", h.name, "--container", h.name, "--to", to}, more...)
	if out, err := exec.CommandContext(ctx, os.Getenv("MILLRACE_BINARY"), args...).CombinedOutput(); err != nil {
		return fmt.Errorf("seek to %s: %w: %s", to, err, out)
	}
	return nil
}

func seek(ctx context.Context, h *hub) (string, error) {
	const first, later = 10, 2 // events
	if _, err := sendToAll(ctx, h, "first", first); err != nil {
		return "", err
	}
	starts := []int64{0, 4, first, 7}
	for p, to := range []string{"earliest", "#4", "latest", "@7"} {
		if err := seekTo(ctx, h, to, "--partition", fmt.Sprint(p)); err != nil {
			return "", err
		}
	}
	if _, err := sendToAll(ctx, h, "later", later); err != nil {
		return "", err
	}
	if err := startsAt(ctx, h, starts, first+later); err != nil {
		return "", err
	}
	if err := seekTo(ctx, h, "#2"); err != nil {
		return "", err
	}
	return "", startsAt(ctx, h, []int64{2, 2, 2, 2}, first+later)
}

// startsAt wants a processor, whose default is the end, to get the events from some
// numbers on, by partition, up to an end.
func startsAt(ctx context.Context, h *hub, starts []int64, end int64) error {
	b, err := startBalancerFrom(ctx, h, eventhubs.ProcessorStrategyGreedy, always, eventhubs.StartPosition{Latest: new(true)})
	if err != nil {
		return err
	}
	want, total := map[string][]int64{}, 0
	for p, n := range starts {
		for ; n < end; n++ {
			want[fmt.Sprint(p)] = append(want[fmt.Sprint(p)], n)
			total++
		}
	}
	if err := until(ctx, "the events", receiveTimeout, func() (bool, error) { return len(b.bodies()) >= total, nil }); err != nil {
		return fmt.Errorf("%w: %d of %d", err, len(b.bodies()), total)
	}
	if err := b.end(); err != nil {
		return err
	}
	got := map[string][]int64{}
	for id, events := range b.got {
		for _, e := range events {
			got[id] = append(got[id], e.SequenceNumber)
		}
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("events %v, not %v", got, want)
	}
	return nil
}
