package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

func single(ctx context.Context, h *hub) (string, error) {
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("single-%d", i))
		if err := h.send(ctx, toPartition(0), text(want[i])); err != nil {
			return "", err
		}
	}
	events, err := h.all(ctx, 0)
	if err != nil {
		return "", err
	}
	return "", wantTexts(events, want)
}

func batch(ctx context.Context, h *hub) (string, error) {
	want := []string{"before"}
	if err := h.send(ctx, toPartition(1), text("before")); err != nil {
		return "", err
	}
	var batch []*eventhubs.EventData
	for i := range 500 {
		s := fmt.Sprintf("batch-%d-%s", i, bytes.Repeat([]byte{'x'}, i))
		want, batch = append(want, s), append(batch, text(s))
	}
	if err := h.send(ctx, toPartition(1), batch...); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 1)
	if err != nil {
		return "", err
	}
	if err := wantTexts(events, want); err != nil {
		return "", err
	}
	for _, e := range events[1:] {
		if !e.EnqueuedTime.Equal(*events[1].EnqueuedTime) {
			return "", fmt.Errorf("one batch was enqueued at %v and at %v", events[1].EnqueuedTime, e.EnqueuedTime)
		}
	}
	return "", nil
}

func partitionID(ctx context.Context, h *hub) (string, error) {
	if err := h.send(ctx, toPartition(2), text("to two"), text("also")); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 2)
	if err != nil {
		return "", err
	}
	if err := wantTexts(events, []string{"to two", "also"}); err != nil {
		return "", err
	}
	for _, other := range []string{"0", "1", "3"} {
		r, err := h.open(other, from(earliest))
		if err != nil {
			return "", err
		}
		if err := silent(ctx, r, 300*time.Millisecond); err != nil {
			return "", fmt.Errorf("partition %s: %w", other, err)
		}
	}
	return "", nil
}

func partitionKey(ctx context.Context, h *hub) (string, error) {
	keys := []string{"7", "131", "7149583486996073602", "FWfAT", "sOdeEAsyQoEuEFPGerWO", "!c*_!I@1^c", "$0cb",
		"-4189260826195535198", "p4*!jioeO/z-!-;w:dh", "alphabet", "clé à molette", "名前"}
	want := map[string][]string{}
	for round := range 3 {
		for _, key := range keys {
			a, b := fmt.Sprintf("%s/%d/a", key, round), fmt.Sprintf("%s/%d/b", key, round)
			if err := h.send(ctx, withKey(key), text(a), text(b)); err != nil {
				return "", err
			}
			want[key] = append(want[key], a, b)
		}
	}
	got := map[string][]string{}
	for p := range partitions {
		events, err := h.all(ctx, p)
		if err != nil {
			return "", err
		}
		for _, e := range events {
			if e.PartitionKey == nil {
				return "", fmt.Errorf("event %q came back without its key", e.Body)
			}
			if due := partitionOf(*e.PartitionKey, partitions); due != p {
				return "", fmt.Errorf("key %q is in partition %d, the hash says %d", *e.PartitionKey, p, due)
			}
			got[*e.PartitionKey] = append(got[*e.PartitionKey], string(e.Body))
		}
	}
	for _, key := range keys {
		if !slices.Equal(got[key], want[key]) {
			return "", fmt.Errorf("key %q: %q came back for %q", key, got[key], want[key])
		}
	}
	return "", nil
}

func roundRobin(ctx context.Context, h *hub) (string, error) {
	for i := range 8 {
		if err := h.send(ctx, nil, text(fmt.Sprint(i)), text(fmt.Sprint(i)), text(fmt.Sprint(i))); err != nil {
			return "", err
		}
	}
	var seen, spread []int
	for p := range partitions {
		events, err := h.all(ctx, p)
		if err != nil {
			return "", err
		}
		if len(events) == 0 || len(events)%3 != 0 {
			return "", fmt.Errorf("%d events in partition %d: it has none, or a part of a batch", len(events), p)
		}
		for i := 0; i < len(events); i += 3 {
			first := string(events[i].Body)
			if err := wantTexts(events[i:i+3], []string{first, first, first}); err != nil {
				return "", fmt.Errorf("partition %d: a batch is torn: %w", p, err)
			}
			n, err := strconv.Atoi(first)
			if err != nil {
				return "", err
			}
			seen = append(seen, n)
		}
		spread = append(spread, len(events)/3)
	}
	slices.Sort(seen)
	if !slices.Equal(seen, []int{0, 1, 2, 3, 4, 5, 6, 7}) {
		return "", fmt.Errorf("batches %v came back", seen)
	}
	return fmt.Sprintf("batches per partition: %v", spread), nil
}

func oneByte(ctx context.Context, h *hub) (string, error) {
	if err := h.send(ctx, toPartition(0), &eventhubs.EventData{Body: []byte{0xFF}}, &eventhubs.EventData{Body: []byte{}}); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 0)
	if err != nil {
		return "", err
	}
	if err := wantTexts(events, []string{"\xFF", ""}); err != nil {
		return "", err
	}
	if n := len(events[1].RawAMQPMessage.Body.Data); n != 1 {
		return "", fmt.Errorf("the empty event has %d data sections, not one", n)
	}
	return "1 byte and 0 bytes", nil
}

func large(ctx context.Context, h *hub) (string, error) {
	body := make([]byte, 900_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	if err := h.send(ctx, toPartition(3), &eventhubs.EventData{Body: body}, text("after")); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 3)
	if err != nil {
		return "", err
	}
	if len(events) != 2 || !bytes.Equal(events[0].Body, body) || string(events[1].Body) != "after" {
		return "", errors.New("the event came back changed")
	}
	return "", nil
}

func positions(ctx context.Context, h *hub) (string, error) {
	const n = 6
	for i := range n {
		if err := h.send(ctx, toPartition(0), text(strconv.Itoa(i))); err != nil {
			return "", err
		}
		time.Sleep(20 * time.Millisecond) // so that no two share a millisecond
	}
	events, err := h.all(ctx, 0)
	if err != nil {
		return "", err
	}
	if len(events) != n {
		return "", fmt.Errorf("%d events where %d were sent", len(events), n)
	}
	third := events[3]
	between := third.EnqueuedTime.Add(-5 * time.Millisecond)
	for _, c := range []struct {
		name  string
		start eventhubs.StartPosition
		first int
	}{
		{"earliest", earliest, 0},
		{"offset, exclusive", eventhubs.StartPosition{Offset: &third.Offset}, 4},
		{"offset, inclusive", eventhubs.StartPosition{Offset: &third.Offset, Inclusive: true}, 3},
		{"sequence number, exclusive", eventhubs.StartPosition{SequenceNumber: &third.SequenceNumber}, 4},
		{"sequence number, inclusive", eventhubs.StartPosition{SequenceNumber: &third.SequenceNumber, Inclusive: true}, 3},
		{"enqueued time between two, exclusive", eventhubs.StartPosition{EnqueuedTime: &between}, 3},
		{"enqueued time between two, inclusive", eventhubs.StartPosition{EnqueuedTime: &between, Inclusive: true}, 3},
		{"enqueued time, exclusive", eventhubs.StartPosition{EnqueuedTime: third.EnqueuedTime}, 4},
		{"enqueued time, inclusive", eventhubs.StartPosition{EnqueuedTime: third.EnqueuedTime, Inclusive: true}, 3},
	} {
		r, err := h.open("0", from(c.start))
		if err != nil {
			return "", err
		}
		got, err := next(ctx, r, n-c.first)
		if err != nil {
			return "", fmt.Errorf("%s: %w", c.name, err)
		}
		for i, e := range got {
			if e.SequenceNumber != int64(c.first+i) {
				return "", fmt.Errorf("%s: event %d arrived where %d was due", c.name, e.SequenceNumber, c.first+i)
			}
		}
		if err := r.Close(ctx); err != nil {
			return "", err
		}
	}
	if err := afterTheLast(ctx, h, events[n-1]); err != nil {
		return "", err
	}
	return "", latest(ctx, h)
}

// afterTheLast starts receivers after the last event: they get the next one.
func afterTheLast(ctx context.Context, h *hub, last *eventhubs.ReceivedEventData) error {
	var receivers []*eventhubs.PartitionClient
	for _, p := range []eventhubs.StartPosition{{SequenceNumber: &last.SequenceNumber}, {Offset: &last.Offset}, {EnqueuedTime: last.EnqueuedTime}} {
		r, err := h.open("0", from(p))
		if err != nil {
			return err
		}
		if err := silent(ctx, r, 300*time.Millisecond); err != nil {
			return fmt.Errorf("after the last event: %w", err)
		}
		receivers = append(receivers, r)
	}
	if err := h.send(ctx, toPartition(0), text("next")); err != nil {
		return err
	}
	for _, r := range receivers {
		got, err := next(ctx, r, 1)
		if err != nil {
			return fmt.Errorf("after the last event: %w", err)
		}
		if got[0].SequenceNumber != last.SequenceNumber+1 {
			return fmt.Errorf("after the last event, %d: event %d", last.SequenceNumber, got[0].SequenceNumber)
		}
		if err := r.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// latest attaches at the end. Since nothing tells when that has happened, marks
// are sent until one arrives: no older event may, and no mark be left out.
func latest(ctx context.Context, h *hub) error {
	r, err := h.open("0", from(eventhubs.StartPosition{Latest: new(true)}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := h.send(ctx, toPartition(0), text(fmt.Sprintf("mark %d", i))); err != nil && ctx.Err() == nil {
				failed <- err
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		failed <- nil
	}()
	got, err := next(ctx, r, 3)
	cancel()
	if sendErr := <-failed; err == nil {
		err = sendErr
	}
	if err != nil {
		return fmt.Errorf("latest: %w", err)
	}
	var first int
	if _, err := fmt.Sscanf(string(got[0].Body), "mark %d", &first); err != nil {
		return fmt.Errorf("latest: the old event %q arrived", got[0].Body)
	}
	return wantTexts(got, []string{fmt.Sprintf("mark %d", first), fmt.Sprintf("mark %d", first+1), fmt.Sprintf("mark %d", first+2)})
}

func hubProperties(ctx context.Context, h *hub) (string, error) {
	c, err := h.consumer()
	if err != nil {
		return "", err
	}
	p, err := h.producer()
	if err != nil {
		return "", err
	}
	for _, get := range []func(context.Context, *eventhubs.GetEventHubPropertiesOptions) (eventhubs.EventHubProperties, error){c.GetEventHubProperties, p.GetEventHubProperties} {
		got, err := get(ctx, nil)
		if err != nil {
			return "", err
		}
		age := time.Since(got.CreatedOn)
		if got.Name != h.name || !slices.Equal(got.PartitionIDs, []string{"0", "1", "2", "3"}) || age < -time.Second || age > 10*time.Minute || got.GeoReplicationEnabled {
			return "", fmt.Errorf("%+v", got)
		}
	}
	return "", nil
}

func partitionProperties(ctx context.Context, h *hub) (string, error) {
	c, err := h.consumer()
	if err != nil {
		return "", err
	}
	got, err := c.GetPartitionProperties(ctx, "1", nil)
	if err != nil {
		return "", err
	}
	want := eventhubs.PartitionProperties{EventHubName: h.name, PartitionID: "1", IsEmpty: true, BeginningSequenceNumber: -1,
		LastEnqueuedSequenceNumber: -1, LastEnqueuedOffset: "-1", LastEnqueuedOn: time.Time{}}
	if got.LastEnqueuedOn = got.LastEnqueuedOn.UTC(); got != want {
		return "", fmt.Errorf("of an empty partition: %+v, not %+v", got, want)
	}
	if err := h.send(ctx, toPartition(1), text("a"), text("b"), text("c")); err != nil {
		return "", err
	}
	events, err := h.all(ctx, 1)
	if err != nil {
		return "", err
	}
	p, err := h.producer()
	if err != nil {
		return "", err
	}
	if got, err = p.GetPartitionProperties(ctx, "1", nil); err != nil {
		return "", err
	}
	last := events[len(events)-1]
	want = eventhubs.PartitionProperties{EventHubName: h.name, PartitionID: "1", LastEnqueuedSequenceNumber: 2,
		LastEnqueuedOffset: last.Offset, LastEnqueuedOn: last.EnqueuedTime.UTC()}
	if got.LastEnqueuedOn = got.LastEnqueuedOn.UTC(); got != want {
		return "", fmt.Errorf("%+v, not %+v", got, want)
	}
	return "", nil
}

func lastEnqueued(context.Context, *hub) (string, error) {
	return "", skip("azeventhubs has no option that asks for them")
}
