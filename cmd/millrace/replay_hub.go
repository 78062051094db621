package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// Limits of reading a hub.
const (
	readersAtOnce   = 8   // partitions
	eventsAtOnce    = 100 // of a partition
	idleFor         = 5 * time.Second
	idleRoundsAtEnd = 6
)

// hubSource is a range of an event hub: of each partition, the events from one
// sequence number up to, and without, another.
type hubSource struct {
	locator
	id     hubID
	ranges []*hubRange
	resume *resumeFile // nil without --resume
	fresh  bool        // the file is not there yet
}

// hubID tells an event hub from others, and from one of its name that was there
// before.
type hubID struct {
	Namespace string    `json:"namespace"`
	Hub       string    `json:"hub"`
	Created   time.Time `json:"created"`
}

func (h hubID) String() string {
	return fmt.Sprintf("%s at %s, created %s", h.Hub, h.Namespace, h.Created.UTC().Format(time.RFC3339))
}

func (h hubID) equal(x hubID) bool {
	return strings.EqualFold(h.Namespace, x.Namespace) && strings.EqualFold(h.Hub, x.Hub) && h.Created.Equal(x.Created)
}

// hubRange is what is wanted of a partition.
type hubRange struct {
	partition string
	start     int64
	next, end int64 // what is left to be read
	gone      int64 // events that were removed before they could be read
}

// openSource asks for the hub that --from-hub names. It need not be of the
// namespace that the events go to.
func (o *replayOptions) openSource(ctx context.Context) (s *hubSource, all []string, err error) {
	flags := o.broker
	if o.fromConnection != "" {
		flags.connectionString = o.fromConnection
	}
	t, hub, err := flags.openHub(ctx, o.fromHub)
	if err != nil {
		return nil, nil, fmt.Errorf("--from-hub: %w", err)
	}
	client, err := t.consumer(hub, o.fromGroup, "")
	if err != nil {
		return nil, nil, err
	}
	s = &hubSource{locator: locator{client, o.fromGroup}}
	p, err := client.GetEventHubProperties(ctx, nil)
	if err != nil {
		return s, nil, fmt.Errorf("the event hub %s can't be read: %w", hub, explain(err))
	}
	if s.id, err = t.identify(p); err != nil {
		return s, nil, err
	}
	all = p.PartitionIDs
	if len(o.partitions) > 0 {
		all = nil
		for _, n := range o.partitions {
			id := strconv.FormatUint(uint64(n), 10)
			if !slices.Contains(p.PartitionIDs, id) {
				return s, nil, misused("the event hub %s has no partition %s; it has %s", p.Name, id, strings.Join(p.PartitionIDs, ", "))
			}
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return s, all, nil
}

// identify names a hub of the broker.
func (t *target) identify(p azeventhubs.EventHubProperties) (hubID, error) {
	namespace, err := t.namespace()
	return hubID{namespace, p.Name, p.CreatedOn.UTC()}, err
}

// prepare decides which events are wanted: those that the file of --resume has left,
// or else those of the flags.
func (o *replayOptions) prepare(ctx context.Context, s *hubSource, target hubID, partitions []string, now time.Time) error {
	if strings.EqualFold(s.id.Hub, target.Hub) && s.id.Created.Equal(target.Created) {
		return misused("the event hub %s would be sent to itself: name another with --hub", target.Hub)
	}
	from, err := parsePosition("from", o.from, now)
	if err != nil {
		return &usageError{err}
	}
	until := azeventhubs.StartPosition{Latest: new(true)}
	if o.until != "" {
		if until, err = parsePosition("until", o.until, now); err != nil {
			return &usageError{err}
		}
	}
	if o.resume == "" {
		return s.measure(ctx, partitions, from, until)
	}
	want := resumeState{Version: resumeVersion, Source: s.id, Target: target, From: o.from, Until: o.until, ByKey: o.byKey, Partitions: map[string]*resumePartition{}}
	if s.resume, err = readResume(o.resume); err != nil {
		return err
	}
	if s.resume != nil {
		if err := s.resume.fits(want, partitions); err != nil {
			return err
		}
		for _, id := range partitions {
			left := s.resume.Partitions[id]
			s.ranges = append(s.ranges, &hubRange{partition: id, start: left.Next, next: left.Next, end: left.End})
		}
		return nil
	}
	if err := s.measure(ctx, partitions, from, until); err != nil {
		return err
	}
	for _, r := range s.ranges {
		want.Partitions[r.partition] = &resumePartition{Next: r.next, End: r.end}
	}
	s.resume, s.fresh = &resumeFile{o.resume, want}, true
	return nil
}

// keep keeps which events were the last that are acknowledged, by partition, with all
// before them.
func (s *hubSource) keep(last map[string]int64) error {
	if s.resume == nil {
		return nil
	}
	for id, n := range last {
		s.resume.Partitions[id].Next = n + 1
	}
	return s.resume.save()
}

// keepBatch keeps that a partition's batch is acknowledged.
func (s *hubSource) keepBatch(partition string, b *openBatch) error {
	if s.resume == nil {
		return nil
	}
	s.resume.Partitions[partition].TargetEnd += int64(b.NumEvents())
	return s.keep(map[string]int64{partition: b.last})
}

// finish is called when everything is acknowledged. It fails if events were gone
// before they could be read.
func (s *hubSource) finish() error {
	last := map[string]int64{}
	for _, r := range s.ranges {
		last[r.partition] = max(r.end, r.start) - 1
	}
	if err := s.keep(last); err != nil {
		return err
	}
	if n := s.gone(); n > 0 {
		return &goneError{n}
	}
	return nil
}

// goneError says that events were gone before they could be read.
type goneError struct{ n int64 }

// Error implements error.
func (e *goneError) Error() string {
	return fmt.Sprintf("%s gone from the event hub before they could be read: everything else was sent", were(int(e.n), "event"))
}

// measure finds out which events are wanted: those that are there now, from one
// position to another.
func (s *hubSource) measure(ctx context.Context, partitions []string, from, until azeventhubs.StartPosition) error {
	for _, id := range partitions {
		in, err := s.extent(ctx, id)
		if err != nil {
			return err
		}
		r := &hubRange{partition: id}
		if r.start, err = s.next(ctx, id, from, in); err != nil {
			return s.readAdvice(err)
		}
		if r.end, err = s.next(ctx, id, until, in); err != nil {
			return s.readAdvice(err)
		}
		r.next = r.start
		s.ranges = append(s.ranges, r)
	}
	return nil
}

// readAdvice says what to do where a group lets nobody in.
func (s *hubSource) readAdvice(err error) error {
	if errors.As(err, new(*heldError)) {
		return fmt.Errorf("%w: name another consumer group with --from-group", err)
	}
	return err
}

func (s *hubSource) partitions() []string {
	var all []string
	for _, r := range s.ranges {
		all = append(all, r.partition)
	}
	return all
}

// gone counts the events that the source removed before they could be read.
func (s *hubSource) gone() (n int64) {
	for _, r := range s.ranges {
		n += r.gone
	}
	return n
}

// arrival is what a partition's reader hands over.
type arrival struct {
	partition string
	events    []*azeventhubs.ReceivedEventData
	err       error
}

// events reads several partitions at a time. Those who read wait for what they have
// read to be taken.
func (s *hubSource) events(ctx context.Context) iter.Seq2[replayed, error] {
	return func(yield func(replayed, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		arrivals := make(chan arrival)
		go s.read(ctx, arrivals)
		defer func() {
			cancel()
			for range arrivals { // until all who read have ended
			}
		}()
		for a := range arrivals {
			for _, e := range a.events {
				m, key, bytes := copied(e)
				if !yield(replayed{a.partition, e.SequenceNumber, m, key, bytes, nil}, nil) {
					return
				}
			}
			if a.err != nil && !yield(replayed{}, a.err) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(replayed{}, err)
		}
	}
}

// read reads the partitions, and closes the channel when it has.
func (s *hubSource) read(ctx context.Context, to chan<- arrival) {
	defer close(to)
	var readers sync.WaitGroup
	defer readers.Wait()
	slots := make(chan struct{}, readersAtOnce)
	for _, r := range s.ranges {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		readers.Go(func() {
			defer func() { <-slots }()
			if err := s.readPartition(ctx, r, to); err != nil && ctx.Err() == nil {
				select {
				case to <- arrival{partition: r.partition, err: err}:
				case <-ctx.Done():
				}
			}
		})
	}
}

// readPartition reads a partition up to the end of its range.
func (s *hubSource) readPartition(ctx context.Context, r *hubRange, to chan<- arrival) error {
	if r.next >= r.end {
		return nil
	}
	from := r.next
	c, err := s.client.NewPartitionClient(r.partition, &azeventhubs.PartitionClientOptions{
		StartPosition: azeventhubs.StartPosition{SequenceNumber: &from, Inclusive: true}, Prefetch: eventsAtOnce,
	})
	if err != nil {
		return err
	}
	defer goodbye(c)
	for idle := 0; r.next < r.end; {
		wait, cancel := context.WithTimeout(ctx, idleFor)
		events, err := c.ReceiveEvents(wait, int(min(eventsAtOnce, r.end-r.next)), nil)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case held(err):
			return s.readAdvice(fmt.Errorf("partition %s: %w", r.partition, &heldError{s.group, err}))
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("partition %s can't be read: %w", r.partition, explain(err))
		case len(events) == 0:
			if idle++; idle > idleRoundsAtEnd {
				return fmt.Errorf("partition %s: event #%d does not come", r.partition, r.next)
			}
			if err := s.whatIsGone(ctx, r, r.end); err != nil {
				return err
			}
			continue
		}
		idle = 0
		if err := s.hand(ctx, r, events, to); err != nil {
			return err
		}
	}
	return nil
}

// hand hands events over, without those after the range.
func (s *hubSource) hand(ctx context.Context, r *hubRange, events []*azeventhubs.ReceivedEventData, to chan<- arrival) error {
	if first := events[0].SequenceNumber; first > r.next {
		if err := s.whatIsGone(ctx, r, min(first, r.end)); err != nil {
			return err
		}
	}
	events = slices.DeleteFunc(events, func(e *azeventhubs.ReceivedEventData) bool { return e.SequenceNumber >= r.end })
	if len(events) == 0 { // the last numbers were no events
		r.next = r.end
		return nil
	}
	r.next = events[len(events)-1].SequenceNumber + 1
	select {
	case to <- arrival{partition: r.partition, events: events}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whatIsGone looks whether events before one have been removed meanwhile: numbers
// may also be missing since they were no events, as in the cloud's transactions.
func (s *hubSource) whatIsGone(ctx context.Context, r *hubRange, before int64) error {
	in, err := s.extent(ctx, r.partition)
	if err != nil {
		return err
	}
	if in.end < r.end {
		return fmt.Errorf("partition %s ends at #%d, before #%d: it is not what it was when the replay began", r.partition, in.end, r.end)
	}
	if first := min(in.first, before); first > r.next {
		r.gone += first - r.next
		r.next = first
	}
	return nil
}

// goOn says where each partition goes on that isn't done.
func (s *hubSource) goOn(done map[string]*replayedPartition) string {
	if s.resume != nil {
		return fmt.Sprintf("%s has what is acknowledged. To go on, give the same flags again.", s.resume.path)
	}
	var lines []string
	for _, r := range s.ranges {
		from, acknowledged := r.start, ""
		if p := done[r.partition]; p != nil && p.Events > 0 {
			from, acknowledged = p.Last+1, fmt.Sprintf("Partition %s is acknowledged up to #%d. ", r.partition, p.Last)
		}
		if from < r.end {
			lines = append(lines, fmt.Sprintf("%sTo go on: --partition %s --from '#%d' --until '#%d'.", acknowledged, r.partition, from, r.end))
		}
	}
	return strings.Join(lines, "\n")
}
