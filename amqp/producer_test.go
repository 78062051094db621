package amqp_test

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

const (
	producerID       = "com.microsoft:producer-id"
	producerEpoch    = "com.microsoft:producer-epoch"
	producerSequence = "com.microsoft:producer-sequence-number"
	idempotent       = "com.microsoft:idempotent-producer"
)

// items is an encoded map of keys, as symbols, and values.
func items(kv ...any) []byte {
	b, at := wire.BeginMap(nil, len(kv))
	for i := 0; i < len(kv); i += 2 {
		b = wire.AppendSymbol(b, kv[i].(string))
		switch v := kv[i+1].(type) {
		case nil:
			b = wire.AppendNull(b)
		case int64:
			b = wire.AppendLong(b, v)
		case int32:
			b = wire.AppendInt(b, v)
		case int16:
			b = wire.AppendShort(b, v)
		case uint32:
			b = wire.AppendUint(b, v)
		case string:
			b = wire.AppendString(b, v)
		}
	}
	wire.EndCompound(b, at)
	return b
}

func value(b []byte) wire.Value {
	v, _, err := wire.Read(b)
	if err != nil {
		panic(err)
	}
	return v
}

// attachProducer attaches a sender that wants to be idempotent. It returns what
// the broker said, or why it refused.
func (p *peer) attachProducer(handle uint32, address string, properties []byte, capabilities ...string) (wire.Attach, *wire.Error) {
	p.Helper()
	if capabilities == nil {
		capabilities = []string{"com.microsoft:georeplication", idempotent}
	}
	x := wire.Attach{Name: str("producer"), Handle: handle, Role: wire.RoleSender, Source: terminus(wire.DescSource, "x"),
		Target: terminus(wire.DescTarget, address), InitialDeliveryCount: uintValue(0),
		DesiredCapabilities: value(wire.AppendSymbols(nil, capabilities...))}
	if properties != nil {
		x.Properties = value(properties)
	}
	p.send(0, x.Append(nil))
	list, _ := p.want(wire.DescAttach)
	var a wire.Attach
	if err := a.Decode(list); err != nil {
		p.Fatal(err)
	}
	if !a.Target.IsNull() {
		return a, nil
	}
	list, _ = p.want(wire.DescDetach)
	var d wire.Detach
	if err := d.Decode(list); err != nil || d.Error == nil {
		p.Fatalf("refused without a reason: %+v, %v", d, err)
	}
	return a, d.Error
}

// identity is the producer in a link's properties, whose types it checks.
func (p *peer) identity(a *wire.Attach) (id int64, epoch, sequence int64) {
	p.Helper()
	it, err := a.Properties.Map()
	if err != nil {
		p.Fatal(err)
	}
	found := 0
	for it.Len() > 0 {
		k, v := it.Next(), it.Next()
		sym, isSymbol := k.Symbol()
		n, _ := v.Int()
		switch {
		case !isSymbol:
			p.Errorf("the key %q is no symbol", k.Full)
		case string(sym) == producerID && v.Code == wire.CodeLong:
			id = n
			found++
		case string(sym) == producerEpoch && v.Code == wire.CodeShort:
			epoch = n
			found++
		case string(sym) == producerSequence && v.Code == wire.CodeInt:
			sequence = n
			found++
		}
	}
	if found != 3 {
		p.Fatalf("the properties are %q", a.Properties.Full)
	}
	return id, epoch, sequence
}

func annotations(b []byte) []byte {
	return append(wire.AppendDescriptor(nil, wire.DescMessageAnn), b...)
}

// stamp is a producer's annotations.
func stamp(id int64, epoch int16, sequence int32) []byte {
	return annotations(items(producerSequence, sequence, producerID, id, producerEpoch, epoch))
}

// numberedBatch is a batch as the JavaScript SDK encodes it: the envelope has the
// first event's annotations, and each event its own.
func numberedBatch(id int64, epoch int16, sequence int32, bodies ...string) []byte {
	b := stamp(id, epoch, sequence)
	for i, body := range bodies {
		b = append(b, data(append(stamp(id, epoch, event.NextSequence(sequence, i)), data([]byte(body))...))...)
	}
	return b
}

const batchFormat = 0x80013700

// deliver sends a delivery and returns the error it is refused with, if it is.
func (p *peer) deliver(handle, id, format uint32, body []byte) string {
	p.Helper()
	p.send(0, append(transfer(handle, id, format, false, false), body...))
	list, _ := p.want(wire.DescDisposition)
	var d wire.Disposition
	if err := d.Decode(list); err != nil || d.First != id || !d.Settled {
		p.Fatalf("the disposition of %d is %+v, %v", id, d, err)
	}
	if bytes.Equal(d.State.Full, wire.Accepted) {
		return ""
	}
	return string(d.State.Full)
}

// producerPeer is a peer that may send to h.
func (b *broker) producerPeer() *peer {
	b.Helper()
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	return p
}

func (b *broker) stored(name string) int64 {
	b.Helper()
	h, err := b.ns.EventHub(name)
	if err != nil {
		b.Fatal(err)
	}
	i, err := h.At(0).Info(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return int64(i.Next)
}

// TestIdempotentProducer: a producer as the JavaScript SDK's, on one connection
// after the other; its repeats are acknowledged and not stored.
func TestIdempotentProducer(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producerPeer()
	a, refused := p.attachProducer(1, "h/Partitions/0", items())
	if refused != nil {
		t.Fatal(refused)
	}
	id, epoch, sequence := p.identity(&a)
	if id <= 0 || epoch != 0 || sequence != 0 || a.MaxMessageSize != 1<<20 {
		t.Errorf("a new producer is %d, epoch %d, at %d; max-message-size %d", id, epoch, sequence, a.MaxMessageSize)
	}
	first := numberedBatch(id, 0, 1, "one", "two", "three", "four", "five")
	for i := range uint32(3) {
		if e := p.deliver(1, 10+i, batchFormat, first); e != "" {
			t.Errorf("time %d: %q", i, e)
		}
	}
	// A single event as .NET sends it: no batch.
	single := append(stamp(id, 0, 6), data([]byte("six"))...)
	for i := range uint32(2) {
		if e := p.deliver(1, 20+i, 0, single); e != "" {
			t.Errorf("the single event: %q", e)
		}
	}
	if n := b.stored("h"); n != 6 {
		t.Errorf("%d events are stored", n)
	}
	p.nc.Close()
	b.down()
	b.up("127.0.0.1:0")
	// The acknowledgement was lost: it says that it is at 5, and sends 6 again.
	p = b.producerPeer()
	a, refused = p.attachProducer(3, "h/Partitions/0", items(producerEpoch, int16(0), producerID, id, producerSequence, int32(5)))
	if refused != nil {
		t.Fatal(refused)
	}
	if got, _, sequence := p.identity(&a); got != id || sequence != 5 {
		t.Errorf("it is told %d, at %d", got, sequence)
	}
	if e := p.deliver(3, 1, 0, single); e != "" {
		t.Errorf("the single event again: %q", e)
	}
	if e := p.deliver(3, 2, batchFormat, numberedBatch(id, 0, 7, "seven")); e != "" {
		t.Error(e)
	}
	if n := b.stored("h"); n != 7 {
		t.Errorf("%d events are stored", n)
	}
	c := b.consumer("h")
	for i, e := range b.receive(c, "0", earliest(), 7) {
		for k := range e.RawAMQPMessage.MessageAnnotations {
			if name, ok := k.(string); ok && strings.Contains(name, "producer") {
				t.Errorf("event %d has the annotation %s", i, name)
			}
		}
	}
}

// TestProducerClaims: what an attach may say, and what it is told.
func TestProducerClaims(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producerPeer()
	handle := uint32(0)
	attach := func(address string, kv ...any) (wire.Attach, *wire.Error) {
		handle++
		return p.attachProducer(handle, address, items(kv...))
	}
	for name, kv := range map[string][]any{
		"nothing":    {},
		"nulls":      {producerEpoch, nil, producerID, nil, producerSequence, nil},
		"an epoch":   {producerEpoch, int16(1)},
		"a number":   {producerSequence, int32(7)},
		"other keys": {"com.microsoft:timeout", uint32(60000), "com.microsoft:entity-type", int32(7)},
		"as Java":    {"com.microsoft:timeout", uint32(60000), producerID, int64(77), producerEpoch, int16(4), producerSequence, int32(9)},
	} {
		a, refused := attach("/h/Partitions/0", kv...)
		if refused != nil {
			t.Errorf("%s: %v", name, refused)
			continue
		}
		id, epoch, sequence := p.identity(&a)
		for i := 0; i < len(kv); i += 2 {
			switch v := kv[i+1].(type) {
			case int64:
				if v != id {
					t.Errorf("%s: the id is %d", name, id)
				}
			case int16:
				if int64(v) != epoch {
					t.Errorf("%s: the epoch is %d", name, epoch)
				}
			case int32:
				if kv[i] == producerSequence && int64(v) != sequence {
					t.Errorf("%s: the number is %d", name, sequence)
				}
			case uint32:
				if !bytes.Contains(a.Properties.Full, []byte("com.microsoft:timeout")) {
					t.Errorf("%s: the properties are %q", name, a.Properties.Full)
				}
			}
		}
	}
	const invalid = "Invalid range for idempotent producer state. Producer Id, Epoch, and Sequence Number must be zero or positive."
	for _, x := range []struct {
		name, address string
		kv            []any
		condition     string
		text          string
	}{
		{"a negative epoch", "h/Partitions/0", []any{producerEpoch, int16(-1)}, "com.microsoft:argument-out-of-range", invalid},
		{"a negative id", "h/Partitions/0", []any{producerID, int64(math.MinInt64)}, "com.microsoft:argument-out-of-range", invalid},
		{"a negative number", "h/Partitions/0", []any{producerSequence, int32(-1)}, "com.microsoft:argument-out-of-range", invalid},
		{"a text", "h/Partitions/0", []any{producerID, "7"}, "com.microsoft:argument-error", producerID},
		{"no partition", "h", []any{producerID, int64(7)}, "com.microsoft:argument-error", "to a partition"},
		{"an older epoch", "h/Partitions/0", []any{producerID, int64(77), producerEpoch, int16(3)}, "com.microsoft:producer-epoch-stolen", "Received:3 Current:4"},
	} {
		_, refused := attach(x.address, x.kv...)
		if refused == nil || refused.Condition != x.condition || !strings.Contains(refused.Description, x.text) {
			t.Errorf("%s: %v", x.name, refused)
		}
	}
	// Who is not at a partition is an ordinary sender: nothing was offered.
	a, refused := attach("h")
	if refused != nil || bytes.Contains(a.Properties.Full, []byte("producer")) || !a.OfferedCapabilities.IsNull() {
		t.Errorf("%+v, %v", a, refused)
	}
	// Who does not ask for it is one too, whatever its annotations say.
	handle++
	if _, refused := p.attachProducer(handle, "h/Partitions/0", nil, "com.microsoft:georeplication"); refused != nil {
		t.Fatal(refused)
	}
	for i := range uint32(2) {
		if e := p.deliver(handle, 50+i, batchFormat, numberedBatch(1, 0, 1, "x")); e != "" {
			t.Error(e)
		}
	}
	if n := b.stored("h"); n != 2 {
		t.Errorf("%d events are stored", n)
	}
}

// TestProducerRefusals: what a producer sends that is not its next batch.
func TestProducerRefusals(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producerPeer()
	id := int64(7)
	old, refused := p.attachProducer(1, "h/Partitions/0", items(producerID, id))
	if refused != nil {
		t.Fatal(refused)
	}
	p.identity(&old)
	if e := p.deliver(1, 1, batchFormat, numberedBatch(id, 0, 1, "1", "2", "3", "4", "5")); e != "" {
		t.Fatal(e)
	}
	wrong := numberedBatch(id, 0, 6, "6", "7")
	wrong = append(wrong, data(append(stamp(id, 0, 9), data([]byte("9"))...))...)
	next := uint32(1)
	for _, x := range []struct {
		name      string
		format    uint32
		body      []byte
		condition string
		text      string
	}{
		{"an old number", batchFormat, numberedBatch(id, 0, 2, "six as two"), "com.microsoft:out-of-order-sequence", "old sequence"},
		{"other events", batchFormat, numberedBatch(id, 0, 1, "1", "2", "3", "4", "6"), "com.microsoft:out-of-order-sequence", "old sequence"},
		{"a gap", batchFormat, numberedBatch(id, 0, 7, "7"), "com.microsoft:out-of-order-sequence", "out of order"},
		{"the first and more", batchFormat, numberedBatch(id, 0, 1, "1", "2", "3", "4", "5", "6"), "com.microsoft:out-of-order-sequence", "old sequence"},
		{"a gap inside", batchFormat, wrong, "com.microsoft:argument-error", "follow each other"},
		{"another's id", batchFormat, numberedBatch(8, 0, 6, "6"), "com.microsoft:argument-error", "producer id"},
		{"another epoch", batchFormat, numberedBatch(id, 1, 6, "6"), "com.microsoft:argument-error", "epoch"},
		{"no number", batchFormat, data(data([]byte("6"))), "com.microsoft:argument-error", "no sequence number"},
		{"no number, single", 0, data([]byte("6")), "com.microsoft:argument-error", "no sequence number"},
		{"a negative number", 0, append(stamp(id, 0, -6), data([]byte("6"))...), "com.microsoft:argument-error", "sequence number"},
	} {
		next++
		if e := p.deliver(1, next, x.format, x.body); !strings.Contains(e, x.condition) || !strings.Contains(e, x.text) {
			t.Errorf("%s: %q", x.name, e)
		}
	}
	// The link goes on; the envelope alone may have the number.
	if e := p.deliver(1, 50, batchFormat, append(annotations(items(producerSequence, int32(6))), data(data([]byte("6")))...)); e != "" {
		t.Error(e)
	}
	q := b.producerPeer()
	if _, refused := q.attachProducer(1, "h/Partitions/0", items(producerID, id, producerEpoch, int16(1), producerSequence, int32(6))); refused != nil {
		t.Fatal(refused)
	}
	if e := p.deliver(1, 51, batchFormat, numberedBatch(id, 0, 7, "7")); !strings.Contains(e, "com.microsoft:producer-epoch-stolen") || !strings.Contains(e, "Received:0 Current:1") {
		t.Errorf("the one before: %q", e)
	}
	if e := q.deliver(1, 1, batchFormat, numberedBatch(id, 1, 7, "7")); e != "" {
		t.Error(e)
	}
	if n := b.stored("h"); n != 7 {
		t.Errorf("%d events are stored", n)
	}
}

// TestLargeRepeats: a batch of several records is a repeat however it is cut into
// frames.
func TestLargeRepeats(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producerPeer()
	if _, refused := p.attachProducer(1, "h/Partitions/0", items(producerID, int64(7))); refused != nil {
		t.Fatal(refused)
	}
	var bodies []string
	for i := range 300 {
		bodies = append(bodies, strings.Repeat(string(rune('a'+i%26)), 10*i))
	}
	batch := numberedBatch(7, 0, 1, bodies...)
	for i, size := range []int{60_000, 10_000, 777, 33_333, 4096} {
		id := uint32(1 + i)
		rest := batch
		for len(rest) > size {
			p.send(0, append(transfer(1, id, batchFormat, false, true), rest[:size]...))
			rest = rest[size:]
		}
		if e := p.deliver(1, id, batchFormat, rest); e != "" {
			t.Errorf("in frames of %d: %q", size, e)
		}
	}
	if n := b.stored("h"); n != int64(len(bodies)) {
		t.Errorf("%d events are stored", n)
	}
}

// TestProducerDetaches: a link that is detached before its attach is answered,
// and a transfer on one, end what they are about and nothing else.
func TestProducerDetaches(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	for range 20 {
		p := b.producerPeer()
		x := wire.Attach{Name: str("producer"), Handle: 1, Role: wire.RoleSender, Source: terminus(wire.DescSource, "x"),
			Target: terminus(wire.DescTarget, "h/Partitions/0"), InitialDeliveryCount: uintValue(0),
			DesiredCapabilities: value(wire.AppendSymbol(nil, idempotent))}
		out := framed(0, x.Append(nil))
		p.write(append(out, framed(0, (&wire.Detach{Handle: 1, Closed: true}).Append(nil))...))
		p.wantAny(wire.DescDetach)
		p.attachSender(2, "h/Partitions/0")
		p.nc.Close()
	}
	p := b.producerPeer()
	if _, refused := p.attachProducer(1, "h/Partitions/0", nil, idempotent); refused != nil {
		t.Errorf("without properties: %v", refused)
	}
}
