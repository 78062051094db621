package main

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/capture/archive"
)

// replaySource is where the events of a replay come from.
type replaySource interface {
	// partitions are the ids of those that the events were in.
	partitions() []string
	// events yields them, each partition's in order. An event lasts until the next is
	// asked for.
	events(ctx context.Context) iter.Seq2[replayed, error]
	// goOn says which flags send what is left after an early end; "" if that can't be
	// said, or everything was taken.
	goOn(done map[string]*replayedPartition) string
}

// replayed is an event to be sent again.
type replayed struct {
	partition string // that it was in
	sequence  int64  // that it had there
	message   *azeventhubs.AMQPAnnotatedMessage
	key       string // which is not in the message
	bytes     int    // of the body

	file *archive.File // that it was captured to; nil if it comes from a hub
}

// place says where the event was.
func (e *replayed) place() string {
	if e.file != nil {
		return fmt.Sprintf("%s, event %d", e.file.Place(), e.sequence)
	}
	return fmt.Sprintf("partition %s, event %d", e.partition, e.sequence)
}

// capturedSource is captured files.
type capturedSource struct {
	files []*archive.File
	query archive.Query
}

// openCaptured finds the files to be replayed. They are all of one event hub.
func (o *replayOptions) openCaptured(ctx context.Context, now time.Time) (*capturedSource, error) {
	q, err := o.query(now)
	if err != nil {
		return nil, err
	}
	files, _, err := o.list(ctx, o.locations)
	if err != nil {
		return nil, err
	}
	if files, err = o.choose(files); err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errNoFiles(o.locations)
	}
	hubs := map[string]bool{}
	for _, f := range files {
		if f.Named {
			hubs[f.Of.Namespace+"/"+f.Of.EventHub] = true
		}
	}
	if len(hubs) > 1 {
		return nil, misused("there are files of %d event hubs, %s: say whose are wanted with --event-hub, or give its folder", len(hubs), joined(hubs))
	}
	s := &capturedSource{files, q}
	if o.byKey {
		return s, nil
	}
	return s, nameless(files, "events can't be sent to the partitions that they were in, and --by-key would have to choose others")
}

func joined(set map[string]bool) string {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " and ")
}

func (s *capturedSource) partitions() []string {
	var all []string
	for _, f := range s.files {
		if id := partitionOf(f); !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all
}

func (s *capturedSource) events(ctx context.Context) iter.Seq2[replayed, error] {
	return func(yield func(replayed, error) bool) {
		for e, err := range archive.Events(ctx, s.files, s.query) {
			if err != nil {
				if !yield(replayed{}, err) {
					return
				}
				continue
			}
			m, key := again(e.Row)
			if !yield(replayed{partitionOf(e.File), int64(e.Sequence), m, key, len(e.Body), e.File}, nil) {
				return
			}
		}
	}
}

// goOn goes by the order in which partitions are read: one after the other.
func (s *capturedSource) goOn(done map[string]*replayedPartition) string {
	for _, f := range s.files {
		if !f.Named {
			return ""
		}
	}
	// The first of which not all that was taken is acknowledged is where to go on, or
	// else the last.
	all := s.partitions()
	at := 0
	for i, id := range all {
		if p := done[id]; p != nil {
			if at = i; p.taken > p.Events {
				break
			}
		}
	}
	p := done[all[at]]
	if p == nil || p.Events == 0 {
		return "To go on: --partition " + strings.Join(all[at:], ",") + "."
	}
	text := fmt.Sprintf("Partition %s is acknowledged up to #%d. To go on: --partition %s --from '#%s'", all[at], p.Last, all[at], strconv.FormatInt(p.Last+1, 10))
	if rest := all[at+1:]; len(rest) > 0 {
		text += ", and then --partition " + strings.Join(rest, ",")
	}
	return text + "."
}
