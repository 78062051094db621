package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// sample is a sample event: one that a consumer can recognise should it get it
// twice, and put in order.
type sample struct {
	EventID   string `json:"event_id"`
	MessageID int    `json:"message_id"`
	Timestamp string `json:"timestamp"`
	Value     int    `json:"value"`
	Data      string `json:"data"`
}

func newSample(n int, now time.Time) sample {
	return sample{
		EventID:   newUUID(),
		MessageID: n,
		Timestamp: now.UTC().Format("2006-01-02T15:04:05.000000-07:00"), // as Python's isoformat
		Value:     n * 10,
		Data:      fmt.Sprintf("Sample event %d", n),
	}
}

// newUUID is a random UUID, version 4 (RFC 9562).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// samples sends sample events, a batch to each partition in turn.
func (s *sender) samples(ctx context.Context) error {
	size := max(1, s.batch)
	for n := 1; n <= s.count; {
		if n > 1 {
			if err := pause(ctx, s.interval); err != nil {
				return err
			}
		}
		to := s.goal(true)
		b, err := s.producer.begin(ctx, to)
		if err != nil {
			return err
		}
		var sent []sample
		total := 0
		for ; n <= s.count && len(sent) < size; n++ {
			x := newSample(n, time.Now())
			body, err := json.Marshal(x)
			if err != nil {
				return err
			}
			err = b.add(s.event(body, "application/json"))
			if errors.Is(err, azeventhubs.ErrEventDataTooLarge) && len(sent) > 0 {
				break // the batch is full
			}
			if err != nil {
				return fmt.Errorf("event %d does not fit in a batch: %w", n, err)
			}
			sent = append(sent, x)
			total += len(body)
		}
		if err := s.send(ctx, b, to, total); err != nil {
			return err
		}
		for _, x := range sent {
			s.say("%s", describe(x, to))
		}
	}
	return nil
}

// describe is the line for a sample that was sent.
func describe(x sample, to goal) string {
	where := "partition " + to.partition
	if to.key != "" {
		where = "key " + to.key
	}
	return fmt.Sprintf("event %d → %s  event_id %s", x.MessageID, where, x.EventID)
}

// pause waits, unless it is interrupted.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const (
	// maxLine is the longest line, in bytes: no event hub takes a larger event.
	maxLine = 20 << 20
	// linesAhead is how many lines are read before they can be sent.
	linesAhead = 256
)

// line is a line of standard input, or why there is none.
type line struct {
	body []byte
	err  error
}

// readLines reads ahead, so that what is waiting can go in one batch. It ends
// with its input, or ctx; a read under way then ends with the process.
func readLines(ctx context.Context, in io.Reader) <-chan line {
	out := make(chan line, linesAhead)
	go func() {
		defer close(out)
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 64<<10), maxLine)
		for lines.Scan() {
			select {
			case out <- line{body: bytes.Clone(lines.Bytes())}:
			case <-ctx.Done():
				return
			}
		}
		if err := lines.Err(); err != nil {
			select {
			case out <- line{err: fmt.Errorf("standard input can't be read: %w", err)}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// lines sends the lines of an input, those that wait together in one batch.
func (s *sender) lines(ctx context.Context, in io.Reader) error {
	input := readLines(ctx, in)
	var open batch
	var to goal
	total := 0
	flush := func() error {
		if open == nil {
			return nil
		}
		b := open
		open = nil
		err := s.send(ctx, b, to, total)
		total = 0
		return err
	}
	for n := 1; ; n++ {
		next, more, err := nextLine(ctx, input, flush)
		if err == nil {
			err = next.err
		}
		if err != nil || !more {
			return errors.Join(err, flush())
		}
		for added := false; !added; {
			if open == nil {
				to = s.goal(false)
				if open, err = s.producer.begin(ctx, to); err != nil {
					return err
				}
			}
			err := open.add(s.event(next.body, ""))
			switch {
			case err == nil:
				added = true
				total += len(next.body)
			case errors.Is(err, azeventhubs.ErrEventDataTooLarge) && open.events() > 0:
				if err := flush(); err != nil {
					return err
				}
			case errors.Is(err, azeventhubs.ErrEventDataTooLarge):
				return fmt.Errorf("line %d has %d bytes, more than an event may have", n, len(next.body))
			default:
				return err
			}
		}
		if s.batch > 0 && open.events() >= s.batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// nextLine returns a line; when none is waiting, idle is called first.
func nextLine(ctx context.Context, input <-chan line, idle func() error) (line, bool, error) {
	select {
	case l, more := <-input:
		return l, more, nil
	default:
	}
	if err := idle(); err != nil {
		return line{}, false, err
	}
	select {
	case l, more := <-input:
		return l, more, nil
	case <-ctx.Done():
		return line{}, false, ctx.Err()
	}
}
