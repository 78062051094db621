package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// How fast the processors balance. The SDK waits between 0.8 and 1.3 intervals.
const (
	interval   = time.Second
	expiry     = 5 * time.Second
	victimArg  = "processor-that-is-killed"
	fullRounds = 3 * interval // two claims, one a round, and the whole second that Last-Modified is rounded to
)

// balancer is a running Processor and what it has received.
type balancer struct {
	store  *checkpoints.BlobStore
	client *eventhubs.ConsumerClient
	stop   context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	active map[string]bool                           // partitions it reads
	got    map[string][]*eventhubs.ReceivedEventData // by partition
	errs   []error                                   // what ended its partition clients
}

// keep is called for every event; it says whether to checkpoint it.
type keep func(*eventhubs.ReceivedEventData) bool

func always(*eventhubs.ReceivedEventData) bool { return true }

// startBalancer starts a processor on the hub, with its store in a container of
// the hub's name.
func startBalancer(ctx context.Context, h *hub, strategy eventhubs.ProcessorStrategy, checkpoint keep) (*balancer, error) {
	return startBalancerFrom(ctx, h, strategy, checkpoint, earliest)
}

// startBalancerFrom is startBalancer with another default position.
func startBalancerFrom(ctx context.Context, h *hub, strategy eventhubs.ProcessorStrategy, checkpoint keep, from eventhubs.StartPosition) (*balancer, error) {
	cc, err := container.NewClientFromConnectionString(os.Getenv("MILLRACE_STORAGE_CONNECTION_STRING"), h.name, nil)
	if err != nil {
		return nil, err
	}
	if _, err := cc.Create(ctx, nil); err != nil && !strings.Contains(err.Error(), "ContainerAlreadyExists") {
		return nil, err
	}
	store, err := checkpoints.NewBlobStore(cc, nil)
	if err != nil {
		return nil, err
	}
	client, err := h.newConsumer(eventhubs.DefaultConsumerGroup)
	if err != nil {
		return nil, err
	}
	p, err := eventhubs.NewProcessor(client, store, &eventhubs.ProcessorOptions{
		LoadBalancingStrategy: strategy, UpdateInterval: interval, PartitionExpirationDuration: expiry,
		StartPositions: eventhubs.StartPositions{Default: from},
	})
	if err != nil {
		return nil, err
	}
	b := &balancer{store: store, client: client, ended: make(chan error, 1), active: map[string]bool{}, got: map[string][]*eventhubs.ReceivedEventData{}}
	ctx, b.stop = context.WithCancel(ctx)
	h.closers = append(h.closers, func(context.Context) error { b.stop(); return nil })
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			pc := p.NextPartitionClient(ctx)
			if pc == nil {
				return
			}
			readers.Go(func() { b.read(ctx, pc, checkpoint) })
		}
	})
	go func() {
		err := p.Run(ctx)
		readers.Wait()
		b.ended <- err
	}()
	return b, nil
}

// read reads a partition for as long as the processor owns it.
func (b *balancer) read(ctx context.Context, pc *eventhubs.ProcessorPartitionClient, checkpoint keep) {
	id := pc.PartitionID()
	b.mu.Lock()
	b.active[id] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.active, id)
		b.mu.Unlock()
		pc.Close(context.WithoutCancel(ctx)) //nolint:errcheck // its partition is gone
	}()
	for {
		wait, cancel := context.WithTimeout(ctx, time.Second)
		events, err := pc.ReceiveEvents(wait, 100, nil)
		cancel()
		for _, e := range events {
			b.mu.Lock()
			b.got[id] = append(b.got[id], e)
			b.mu.Unlock()
			if checkpoint(e) {
				if err := pc.UpdateCheckpoint(ctx, e, nil); err != nil {
					b.failed(err)
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			b.failed(err)
			return
		}
	}
}

func (b *balancer) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs = append(b.errs, err)
}

// owns is how many partitions the balancer reads.
func (b *balancer) owns() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.active)
}

// bodies is what the balancer has received from all partitions.
func (b *balancer) bodies() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, events := range b.got {
		for _, e := range events {
			out = append(out, string(e.Body))
		}
	}
	return out
}

// end stops the processor as an application does.
func (b *balancer) end() error {
	b.stop()
	select {
	case err := <-b.ended:
		return err
	case <-time.After(15 * time.Second):
		return errors.New("the processor does not stop")
	}
}

// owners counts the partitions of each owner in the checkpoint store.
func (b *balancer) owners(ctx context.Context, h *hub) (map[string]int, error) {
	p, err := eventhubs.ParseConnectionString(h.connection)
	if err != nil {
		return nil, err
	}
	list, err := b.store.ListOwnership(ctx, p.FullyQualifiedNamespace, h.name, eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, o := range list {
		out[o.OwnerID]++
	}
	return out, nil
}

// until waits for a condition.
func until(ctx context.Context, what string, limit time.Duration, ok func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		done, err := ok()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case done:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%s: not within %v", what, limit)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sendToAll sends n events to every partition and returns their bodies.
func sendToAll(ctx context.Context, h *hub, label string, n int) ([]string, error) {
	var want []string
	for p := range partitions {
		var events []*eventhubs.EventData
		for i := range n {
			s := fmt.Sprintf("%s/%d/%d", label, p, i)
			want, events = append(want, s), append(events, text(s))
		}
		if err := h.send(ctx, toPartition(p), events...); err != nil {
			return nil, err
		}
	}
	return want, nil
}

func processor(ctx context.Context, h *hub) (string, error) {
	// The first takes all, so that the second has to steal its share.
	a, err := startBalancer(ctx, h, eventhubs.ProcessorStrategyGreedy, always)
	if err != nil {
		return "", err
	}
	if err := until(ctx, "the first owns all", 15*time.Second, func() (bool, error) { return a.owns() == partitions, nil }); err != nil {
		return "", err
	}
	b, err := startBalancer(ctx, h, eventhubs.ProcessorStrategyBalanced, always)
	if err != nil {
		return "", err
	}
	if err := until(ctx, "two each", 20*time.Second, func() (bool, error) {
		owners, err := a.owners(ctx, h)
		return len(owners) == 2 && owners[a.client.InstanceID()] == 2 && a.owns() == 2 && b.owns() == 2, err
	}); err != nil {
		return "", err
	}
	want, err := sendToAll(ctx, h, "shared", 50)
	if err != nil {
		return "", err
	}
	if err := until(ctx, "all events", receiveTimeout, func() (bool, error) { return len(a.bodies())+len(b.bodies()) >= len(want), nil }); err != nil {
		return "", fmt.Errorf("%w: %d and %d of %d", err, len(a.bodies()), len(b.bodies()), len(want))
	}
	time.Sleep(2 * interval) // for copies, which another round of balancing would bring
	if err := errors.Join(a.end(), b.end()); err != nil {
		return "", err
	}
	if len(a.bodies()) != len(want)/2 || len(b.bodies()) != len(want)/2 {
		return "", fmt.Errorf("%d and %d of %d events", len(a.bodies()), len(b.bodies()), len(want))
	}
	if got := slices.Sorted(slices.Values(append(a.bodies(), b.bodies()...))); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		return "", errors.New("not each event arrived once")
	}
	for _, err := range a.errs {
		var lost *eventhubs.Error
		if !errors.As(err, &lost) || lost.Code != eventhubs.ErrorCodeOwnershipLost {
			return "", fmt.Errorf("a stolen partition ended with %w", err)
		}
	}
	if len(a.errs) != 2 || len(b.errs) != 0 {
		return "", fmt.Errorf("%d and %d partition clients ended with an error", len(a.errs), len(b.errs))
	}
	return "the robbed one sees " + describe(a.errs[0]), nil
}

// victim is the process that takeover kills: a processor that tells how many
// partitions it owns and what it receives, until it dies or its parent does.
func victim(ctx context.Context, name string) error {
	h := &hub{name: name, connection: os.Getenv("MILLRACE_CONNECTION_STRING")}
	b, err := startBalancer(ctx, h, eventhubs.ProcessorStrategyGreedy, always)
	if err != nil {
		return err
	}
	go func() {
		os.Stdin.Read(make([]byte, 1)) //nolint:errcheck // it ends when the parent does
		os.Exit(1)
	}()
	for {
		fmt.Println(b.owns(), len(b.bodies()))
		time.Sleep(20 * time.Millisecond)
	}
}

func takeover(ctx context.Context, h *hub) (string, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], victimArg, h.name)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // held open for as long as this process lives
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer cmd.Wait()         //nolint:errcheck // it is killed
	defer cmd.Process.Kill() //nolint:errcheck // it may be dead
	var mu sync.Mutex
	var owned, received int
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			mu.Lock()
			fmt.Sscan(lines.Text(), &owned, &received) //nolint:errcheck // the last line may be cut
			mu.Unlock()
		}
	}()
	victimHas := func() (int, int) { mu.Lock(); defer mu.Unlock(); return owned, received }
	if err := until(ctx, "the first owns all", 15*time.Second, func() (bool, error) { n, _ := victimHas(); return n == partitions, nil }); err != nil {
		return "", err
	}
	b, err := startBalancer(ctx, h, eventhubs.ProcessorStrategyBalanced, always)
	if err != nil {
		return "", err
	}
	if err := until(ctx, "two each", 20*time.Second, func() (bool, error) { n, _ := victimHas(); return n == 2 && b.owns() == 2, nil }); err != nil {
		return "", err
	}
	before, err := sendToAll(ctx, h, "before", 10)
	if err != nil {
		return "", err
	}
	if err := until(ctx, "both have their events", receiveTimeout, func() (bool, error) {
		_, n := victimHas()
		return n == len(before)/2 && len(b.bodies()) == len(before)/2, nil
	}); err != nil {
		return "", err
	}
	if err := cmd.Process.Kill(); err != nil {
		return "", err
	}
	killed := time.Now()
	after, err := sendToAll(ctx, h, "after", 10)
	if err != nil {
		return "", err
	}
	if err := until(ctx, "the other owns all", expiry+fullRounds, func() (bool, error) {
		owners, err := b.owners(ctx, h)
		return b.owns() == partitions && owners[b.client.InstanceID()] == partitions, err
	}); err != nil {
		return "", err
	}
	took := time.Since(killed)
	if took < expiry-2*interval {
		return "", fmt.Errorf("the other took over after %v: the expiry of %v did not count", took, expiry)
	}
	missing := func() map[string]bool {
		left := map[string]bool{}
		for _, s := range after {
			left[s] = true
		}
		for _, s := range b.bodies() {
			delete(left, s)
		}
		return left
	}
	if err := until(ctx, "every later event", receiveTimeout, func() (bool, error) { return len(missing()) == 0, nil }); err != nil {
		return "", fmt.Errorf("%w: %v", err, slices.Collect(maps.Keys(missing())))
	}
	return fmt.Sprintf("expiry %v, all partitions within %v", expiry, expiry+fullRounds), b.end()
}

func checkpoint(ctx context.Context, h *hub) (string, error) {
	const first, marked, later = 10, 5, 6 // events, the one checkpointed, events that come while nobody reads
	if _, err := sendToAll(ctx, h, "first", first); err != nil {
		return "", err
	}
	a, err := startBalancer(ctx, h, eventhubs.ProcessorStrategyGreedy, func(e *eventhubs.ReceivedEventData) bool { return e.SequenceNumber == marked })
	if err != nil {
		return "", err
	}
	if err := until(ctx, "the first events", receiveTimeout, func() (bool, error) { return len(a.bodies()) == partitions*first, nil }); err != nil {
		return "", err
	}
	if err := a.end(); err != nil {
		return "", err
	}
	if len(a.errs) > 0 {
		return "", errors.Join(a.errs...)
	}
	if _, err := sendToAll(ctx, h, "later", later); err != nil {
		return "", err
	}
	b, err := startBalancer(ctx, h, eventhubs.ProcessorStrategyGreedy, always)
	if err != nil {
		return "", err
	}
	want := partitions * (first - marked - 1 + later)
	if err := until(ctx, "the rest", receiveTimeout, func() (bool, error) { return len(b.bodies()) >= want, nil }); err != nil {
		return "", fmt.Errorf("%w: %d of %d", err, len(b.bodies()), want)
	}
	if err := b.end(); err != nil {
		return "", err
	}
	for p := range partitions {
		for i, e := range b.got[strconv.Itoa(p)] {
			if e.SequenceNumber != int64(marked+1+i) {
				return "", fmt.Errorf("partition %d went on with event %d where %d was due", p, e.SequenceNumber, marked+1+i)
			}
		}
	}
	if len(b.bodies()) != want {
		return "", fmt.Errorf("%d events after the checkpoints, not %d", len(b.bodies()), want)
	}
	return "", nil
}
