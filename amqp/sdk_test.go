package amqp_test

import (
	"bytes"
	"fmt"
	"testing"
)

// TestSendAndReceive is the thinnest slice: the SDK sends, the SDK receives.
func TestSendAndReceive(t *testing.T) {
	b := start(t)
	b.hub("h", 2)
	p := b.producer("h")
	props, err := p.GetEventHubProperties(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if props.Name != "h" || fmt.Sprint(props.PartitionIDs) != "[0 1]" {
		t.Errorf("%+v", props)
	}
	b.send(p, "1", "one", "two")
	b.send(p, "1", "three")
	evs := b.receive(b.consumer("h"), "1", earliest(), 3)
	for i, want := range []string{"one", "two", "three"} {
		if e := evs[i]; string(e.Body) != want || e.SequenceNumber != int64(i) || e.Offset != fmt.Sprint(i) || e.EnqueuedTime == nil {
			t.Errorf("event %d: %q, number %d, offset %s", i, e.Body, e.SequenceNumber, e.Offset)
		}
	}
	pp, err := p.GetPartitionProperties(t.Context(), "1", nil)
	if err != nil || pp.LastEnqueuedSequenceNumber != 2 || pp.LastEnqueuedOffset != "2" || pp.IsEmpty {
		t.Errorf("%+v, %v", pp, err)
	}
	if pp, err = p.GetPartitionProperties(t.Context(), "0", nil); err != nil || !pp.IsEmpty || pp.LastEnqueuedSequenceNumber != -1 {
		t.Errorf("%+v, %v", pp, err)
	}
}

// TestLargeEvents sends an event that takes many frames, both ways.
func TestLargeEvents(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producer("h")
	big := bytes.Repeat([]byte("0123456789"), 90_000)
	b.send(p, "0", "before")
	b.send(p, "0", string(big))
	b.send(p, "0", "after")
	var many []string
	for i := range 900 {
		many = append(many, fmt.Sprintf("%d:%s", i, bytes.Repeat([]byte("x"), 1000)))
	}
	b.send(p, "0", many...)
	evs := b.receive(b.consumer("h"), "0", earliest(), 3+len(many))
	if string(evs[0].Body) != "before" || !bytes.Equal(evs[1].Body, big) || string(evs[2].Body) != "after" {
		t.Error("the events are not what was sent")
	}
	for i, want := range many {
		if string(evs[3+i].Body) != want {
			t.Fatalf("event %d: %.40q", i, evs[3+i].Body)
		}
	}
}
