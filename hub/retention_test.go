package hub_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// TestRetentionUnderLoad has the hours pass while events are appended and read:
// readers that keep up, that begin anew, and that are slow. None misses an event
// that is retained, none is given one that was removed before it asked, and the
// disk gets back what they took.
func TestRetentionUnderLoad(t *testing.T) {
	const (
		partitions = 2
		keep       = 2 * time.Hour
		step       = 3 * time.Minute
		steps      = 200 // ten hours
		perStep    = 8
	)
	w, ctx := newWorld(t), t.Context()
	h := w.hub("h", partitions, hub.Settings{Retention: keep})
	body := strings.Repeat("x", 500)
	ended := make(chan struct{})
	readers := map[string][]*retentionReader{}
	var reading sync.WaitGroup
	for p := range partitions {
		for name, r := range map[string]*retentionReader{
			"that keeps up": {most: 1 << 20}, "that begins anew": {most: 20_000, anew: true}, "that is slow": {most: 1, pace: make(chan struct{})},
		} {
			r.p, r.ended = h.At(p), ended
			readers[name] = append(readers[name], r)
			reading.Go(func() {
				if err := r.run(t); err != nil {
					t.Errorf("the reader of partition %d %s: %v", p, name, err)
				}
				for r.pace != nil { // it has failed
					if _, ok := <-r.pace; !ok {
						break
					}
				}
			})
		}
	}
	slow := readers["that is slow"]
	largest := int64(0)
	for n := range steps {
		var appending sync.WaitGroup
		for p := range partitions {
			appending.Go(func() {
				for i := range perStep {
					number := n*perStep + i
					if first, err := appendTo(h.At(p), 1, fmt.Sprint(number, " ", body)); err != nil || first != event.SequenceNumber(number) {
						t.Errorf("partition %d: event %d has the number %d, %v", p, number, first, err)
					}
				}
			})
		}
		w.all.Expire(ctx) // while they are being appended
		appending.Wait()
		for _, r := range slow {
			r.pace <- struct{}{}
		}
		w.pass(step)
		w.all.Expire(ctx)
		for p := range partitions {
			i, err := h.At(p).Info(ctx)
			if err != nil {
				t.Fatal(err)
			}
			// All that is younger than two hours, and nothing that a look three minutes
			// ago would have removed.
			if kept, least := int(i.Next-i.First), min(n+1, int(keep/step))*perStep; kept < least || kept > least+2*perStep {
				t.Fatalf("partition %d: after %d events %d are retained, of which %d are young", p, i.Next, kept, least)
			}
		}
		size := int64(0)
		for name, n := range w.disk.Files() {
			if strings.HasPrefix(name, "logs/") {
				size += n
			}
		}
		largest = max(largest, size)
	}
	close(ended)
	for _, r := range slow {
		close(r.pace)
	}
	reading.Wait()
	retained := int64(partitions * int(keep/step) * perStep * 600)
	if largest > 2*retained {
		t.Errorf("%d bytes were on disk, of which about %d were retained", largest, retained)
	}
	for _, r := range slow {
		if r.jumps == 0 {
			t.Error("the slow reader never came late for an event: the test saw too little")
		}
	}
}

// retentionReader reads a partition from its start to its end and beyond.
type retentionReader struct {
	p     *hub.Partition
	most  int           // how many bytes it reads at a time
	anew  bool          // it begins anew every few reads
	pace  chan struct{} // if not nil, it reads when told to
	ended chan struct{} // closed when nothing follows
	jumps int           // events gone before it came to them
}

func (r *retentionReader) run(t *testing.T) error {
	ctx := t.Context()
	reader, err := r.p.OpenReader(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	var next event.SequenceNumber
	for n := 0; ; n++ {
		last := false
		select {
		case <-r.ended:
			last = true
		default:
		}
		if r.pace != nil {
			<-r.pace
		}
		before, err := reader.Info(ctx)
		if err != nil {
			return err
		}
		if r.anew && n%10 == 0 && !last {
			next = before.First
		}
		c, err := reader.Read(ctx, next, r.most)
		if err != nil {
			return err
		}
		after, err := reader.Info(ctx)
		if err != nil {
			c.Close()
			return err
		}
		if c.Empty() {
			c.Close()
			if last {
				if next != after.Next {
					return fmt.Errorf("it ends at %d, and %d follows", next, after.Next)
				}
				return nil
			}
			r.wait(reader, next)
			continue
		}
		if next, err = r.check(c, next, &before, &after); err != nil {
			return err
		}
	}
}

// wait waits for the event of a number, or the end.
func (r *retentionReader) wait(reader *hub.Reader, next event.SequenceNumber) {
	came := make(chan struct{})
	defer reader.Notify(next-1, func() { close(came) })()
	select {
	case <-came:
	case <-r.ended:
	}
}

// check looks at what was read from a number on, and closes it.
func (r *retentionReader) check(c *event.Chunk, from event.SequenceNumber, before, after *hub.Info) (event.SequenceNumber, error) {
	defer c.Close()
	if first := c.Records[0].First; first != from {
		if first < from || first < before.First || first > after.First {
			return 0, fmt.Errorf("after %d came %d, while the first went from %d to %d", from-1, first, before.First, after.First)
		}
		from = first
		r.jumps++
	}
	for i := range c.Records {
		x := &c.Records[i]
		if x.First != from {
			return 0, fmt.Errorf("after %d came %d", from-1, x.First)
		}
		if number, _, _ := strings.Cut(string(x.Body), " "); number != fmt.Sprint(int64(x.First)) {
			return 0, errors.New("event " + fmt.Sprint(int64(x.First)) + " has the body of event " + number)
		}
		from = x.Next()
	}
	return from, nil
}
