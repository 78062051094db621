package amqp_test

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/store/segment"
)

// meter drives a broker without allocating anything itself, so that what is
// allocated is the broker's.
type meter struct {
	*peer
	r    *bufio.Reader
	out  []byte // what one operation sends
	flow []byte
	acks int // what answers it
}

// events is how many events an operation of a meter moves.
const events = 512

func newMeter(tb testing.TB) (*meter, *broker) {
	b := start(tb, func(b *broker) { b.seg.Sync = segment.Sync{Policy: segment.SyncNever} })
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "meter", Hostname: "localhost", MaxFrameSize: 65536})
	p.login(goodToken("h"), "sb://localhost/h")
	return &meter{peer: p, r: bufio.NewReaderSize(p.nc, 256<<10)}, b
}

// batches has an operation send one batch.
func (m *meter) batches() {
	m.attachSender(1, "h/Partitions/0")
	body := transfer(1, 1, message.BatchFormat, false, false)
	for range events {
		body = append(body, data(data(bytes.Repeat([]byte("x"), 100)))...)
	}
	m.out, m.acks = framed(0, body), 1
}

// singles has an operation send messages one by one, the last of them unsettled.
func (m *meter) singles() {
	m.attachSender(1, "h/Partitions/0")
	for i := range events {
		m.out = append(m.out, framed(0, append(transfer(1, uint32(i), 0, i < events-1, false), data(bytes.Repeat([]byte("x"), 100))...))...)
	}
	m.acks = 1
}

func (m *meter) send() {
	m.write(m.out)
	m.count(wire.DescDisposition, m.acks)
}

// receiveFrom has receive go on from the log's beginning, on a new link.
func (m *meter) receiveFrom(handle uint32) {
	m.attachReceiver(handle, "h/ConsumerGroups/$Default/Partitions/0")
}

// receive grants credit for one operation's events and takes them. sent is how
// many the link has had.
func (m *meter) receive(handle, sent uint32, all uint32) {
	opt := func(n uint32) wire.Optional { return wire.Optional{Value: n, Set: true} }
	x := wire.Flow{NextIncomingID: opt(all), IncomingWindow: 5000, OutgoingWindow: 1000,
		Handle: opt(handle), DeliveryCount: opt(sent), LinkCredit: opt(events)}
	var at int
	m.flow, at = wire.BeginFrame(m.flow[:0], wire.FrameAMQP, 0)
	m.flow = x.Append(m.flow)
	wire.EndFrame(m.flow, at)
	m.write(m.flow)
	m.count(wire.DescTransfer, events)
}

// count reads until so many frames of a performative have come.
func (m *meter) count(desc byte, n int) {
	for n > 0 {
		h, err := m.r.Peek(wire.FrameHeaderSize)
		if err != nil {
			m.Fatal(err)
		}
		size, err := wire.FrameSize(h, 256<<10)
		if err != nil {
			m.Fatal(err)
		}
		b, err := m.r.Peek(size)
		if err != nil {
			m.Fatal(err)
		}
		switch body := b[wire.FrameHeaderSize:]; {
		case len(body) < 3:
		case body[2] == desc:
			n--
		case body[2] == wire.DescDetach, body[2] == wire.DescClose:
			m.Fatalf("the broker says % x", body)
		}
		m.r.Discard(size)
	}
}

// TestNothingIsAllocatedPerEvent: an operation may allocate a little, for its
// append, its flow or a pool that the collector has emptied; its events nothing.
func TestNothingIsAllocatedPerEvent(t *testing.T) {
	check := func(t *testing.T, f func()) {
		t.Helper()
		for range 10 { // pools and buffers are filled
			f()
		}
		if n := testing.AllocsPerRun(40, f); n > events/8 {
			t.Errorf("%.0f allocations for %d events", n, events)
		}
	}
	t.Run("batches", func(t *testing.T) {
		m, _ := newMeter(t)
		m.batches()
		check(t, m.send)
	})
	t.Run("singles", func(t *testing.T) {
		m, _ := newMeter(t)
		m.singles()
		check(t, m.send)
	})
	t.Run("delivery", func(t *testing.T) {
		m, _ := newMeter(t)
		m.batches()
		for range 60 {
			m.send()
		}
		m.receiveFrom(2)
		var n uint32
		check(t, func() {
			m.receive(2, n, n+1)
			n += events
		})
	})
}

// BenchmarkIngest sends events to a partition, not synced. An operation is 512
// events of 100 bytes, and their acknowledgement.
func BenchmarkIngest(b *testing.B) {
	for name, prepare := range map[string]func(*meter){"batches": (*meter).batches, "singles": (*meter).singles} {
		b.Run(name, func(b *testing.B) {
			m, _ := newMeter(b)
			prepare(m)
			b.ReportAllocs()
			for b.Loop() {
				m.send()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
		})
	}
}

// BenchmarkDelivery receives events of a partition, some from memory and most
// from files. An operation is 512 events of 100 bytes.
func BenchmarkDelivery(b *testing.B) {
	m, _ := newMeter(b)
	m.batches()
	const stored = 400
	for range stored {
		m.send()
	}
	handle, sent, all := uint32(1), uint32(stored*events), uint32(1)
	b.ReportAllocs()
	for b.Loop() {
		if sent == stored*events { // from the beginning
			b.StopTimer()
			if handle > 1 {
				m.peer.send(0, (&wire.Detach{Handle: handle, Closed: true}).Append(nil))
				m.count(wire.DescDetach, 1)
			}
			handle, sent = handle+1, 0
			m.peer.send(0, (&wire.Attach{Name: str("r"), Handle: handle, Role: wire.RoleReceiver,
				Source: terminus(wire.DescSource, "h/ConsumerGroups/$Default/Partitions/0"), Target: terminus(wire.DescTarget, "x")}).Append(nil))
			m.count(wire.DescAttach, 1)
			b.StartTimer()
		}
		m.receive(handle, sent, all)
		sent, all = sent+events, all+events
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/event")
}
