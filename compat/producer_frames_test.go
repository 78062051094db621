package compat

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
)

// The idempotent producers of two SDKs, frame by frame, since they can't be driven
// here: .NET's needs its runtime, and of Java's, 5.21.3 has only a flag that is not
// public, with nothing behind it. What they share, the way to an open session, is as
// short as the broker allows.

const (
	producerID       = "com.microsoft:producer-id"
	producerEpoch    = "com.microsoft:producer-epoch"
	producerSequence = "com.microsoft:producer-sequence-number"
	idempotent       = "com.microsoft:idempotent-producer"
	batchFormat      = 0x80013700
)

// claim is what a producer says of itself, and what it is told. What is nil is the
// broker's to say.
type claim struct {
	id    *int64
	epoch *int16
	last  *int32
}

// dialect is how an SDK's idempotent producer speaks. Sources: for .NET
// Azure/azure-sdk-for-net Amqp/AmqpConnectionScope.cs and AmqpMessageConverter.cs,
// for Java Azure/azure-sdk-for-java pull 14389 (amqp.md 6).
type dialect struct {
	name         string
	capabilities []string
	// properties are a link's.
	properties func(claim) []byte
	// batch encodes events, the first with the given number.
	batch func(id int64, epoch int16, first int32, bodies []string) (format uint32, message []byte)
}

var dialects = []dialect{
	{
		name:         ".NET",
		capabilities: []string{"com.microsoft:georeplication", idempotent},
		properties: func(c claim) []byte {
			kv := []any{"com.microsoft:timeout", uint32(60_000), "com.microsoft:entity-type", int32(7)}
			if c.id != nil || c.epoch != nil || c.last != nil { // then all, with nulls
				kv = append(kv, producerID, c.id, producerEpoch, c.epoch, producerSequence, c.last)
			}
			return symbolMap(kv...)
		},
		// A single event goes as it is; the envelope of several has no number.
		batch: func(id int64, epoch int16, first int32, bodies []string) (uint32, []byte) {
			if len(bodies) == 1 {
				return 0, numberedEvent(id, epoch, first, bodies[0])
			}
			return batchFormat, enveloped(annotated(producerID, &id, producerEpoch, &epoch), id, epoch, first, bodies)
		},
	},
	{
		name:         "Java",
		capabilities: []string{idempotent},
		properties: func(c claim) []byte {
			kv := []any{"com.microsoft:timeout", uint32(60_000)}
			if c.id != nil {
				kv = append(kv, producerID, c.id)
			}
			if c.epoch != nil {
				kv = append(kv, producerEpoch, c.epoch)
			}
			if c.last != nil {
				kv = append(kv, producerSequence, c.last)
			}
			return symbolMap(kv...)
		},
		// The envelope has the annotations of the first event.
		batch: func(id int64, epoch int16, first int32, bodies []string) (uint32, []byte) {
			return batchFormat, enveloped(stamped(id, epoch, first), id, epoch, first, bodies)
		},
	},
}

// symbolMap is an encoded map of keys, as symbols, and values.
func symbolMap(kv ...any) []byte {
	b, at := wire.BeginMap(nil, len(kv))
	for i := 0; i < len(kv); i += 2 {
		b = wire.AppendSymbol(b, kv[i].(string))
		switch v := kv[i+1].(type) {
		case int32:
			b = wire.AppendInt(b, v)
		case uint32:
			b = wire.AppendUint(b, v)
		case *int64:
			b = orNull(b, v, wire.AppendLong)
		case *int32:
			b = orNull(b, v, wire.AppendInt)
		case *int16:
			b = orNull(b, v, wire.AppendShort)
		}
	}
	wire.EndCompound(b, at)
	return b
}

func orNull[T any](b []byte, v *T, add func([]byte, T) []byte) []byte {
	if v == nil {
		return wire.AppendNull(b)
	}
	return add(b, *v)
}

func annotated(kv ...any) []byte {
	return append(wire.AppendDescriptor(nil, wire.DescMessageAnn), symbolMap(kv...)...)
}

func stamped(id int64, epoch int16, sequence int32) []byte {
	return annotated(producerSequence, sequence, producerID, &id, producerEpoch, &epoch)
}

func dataSection(b, of []byte) []byte {
	return wire.AppendBinary(wire.AppendDescriptor(b, wire.DescData), of)
}

func numberedEvent(id int64, epoch int16, sequence int32, body string) []byte {
	return dataSection(stamped(id, epoch, sequence), []byte(body))
}

func enveloped(b []byte, id int64, epoch int16, first int32, bodies []string) []byte {
	for i, body := range bodies {
		b = dataSection(b, numberedEvent(id, epoch, event.NextSequence(first, i), body))
	}
	return b
}

// instance is one connection of a producer, with a link to its partition. One
// goroutine uses it.
type instance struct {
	dialect
	nc       net.Conn
	r        *bufio.Reader
	delivery uint32
	// What the broker has said.
	id    int64
	epoch int16
	last  int32
}

// answerTimeout bounds what a broker that is killed leaves unanswered.
const answerTimeout = 20 * time.Second

// attach connects, and attaches to a partition. A *wire.Error says why the broker
// refused it.
func (d dialect) attach(addr string, cs auth.ConnectionString, path string, c claim) (*instance, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	i := &instance{dialect: d, nc: nc, r: bufio.NewReader(nc)}
	if err := i.open(cs); err != nil {
		nc.Close()
		return nil, err
	}
	if err := i.link(path, c); err != nil {
		nc.Close()
		return nil, err
	}
	return i, nil
}

func (i *instance) close() { i.nc.Close() }

// open goes as far as an open session.
func (i *instance) open(cs auth.ConnectionString) error {
	i.nc.SetDeadline(time.Now().Add(answerTimeout)) //nolint:errcheck // the next write says it
	out, at := wire.BeginFrame(append([]byte{}, wire.HeaderSASL[:]...), wire.FrameSASL, 0)
	out, list := wire.BeginList(wire.AppendDescriptor(out, wire.DescInit), 2)
	out = wire.AppendSymbol(out, "PLAIN")
	out = wire.AppendBinary(out, []byte("\x00"+cs.KeyName+"\x00"+cs.Key))
	wire.EndCompound(out, list)
	wire.EndFrame(out, at)
	out = append(out, wire.HeaderAMQP[:]...)
	out = append(out, frame(0, (&wire.Open{ContainerID: i.name, MaxFrameSize: 65536}).Append(nil))...)
	out = append(out, frame(0, (&wire.Begin{IncomingWindow: 5000, OutgoingWindow: 5000}).Append(nil))...)
	if _, err := i.nc.Write(out); err != nil {
		return err
	}
	_, err := i.want(wire.DescBegin)
	return err
}

// link attaches, and waits for credit.
func (i *instance) link(path string, c claim) error {
	x := wire.Attach{Name: text(fmt.Sprintf("producer;%d", time.Now().UnixNano())), Role: wire.RoleSender,
		Source: terminus(wire.DescSource, "s"), Target: terminus(wire.DescTarget, path), InitialDeliveryCount: encoded(wire.AppendUint(nil, 0)),
		DesiredCapabilities: encoded(wire.AppendSymbols(nil, i.capabilities...)), Properties: encoded(i.properties(c))}
	if _, err := i.nc.Write(frame(0, x.Append(nil))); err != nil {
		return err
	}
	list, err := i.want(wire.DescAttach)
	if err != nil {
		return err
	}
	var a wire.Attach
	if err := a.Decode(list); err != nil {
		return err
	}
	if a.Target.IsNull() { // a detach with the reason follows, which want returns
		_, err := i.want(wire.DescFlow)
		return err
	}
	if err := i.told(a.Properties); err != nil {
		return err
	}
	_, err = i.want(wire.DescFlow)
	return err
}

// told reads what the broker says in the link's properties.
func (i *instance) told(properties wire.Value) error {
	it, err := properties.Map()
	if err != nil {
		return err
	}
	found := 0
	for it.Len() > 0 {
		k, v := it.Next(), it.Next()
		key, _ := k.Symbol()
		n, _ := v.Int()
		switch string(key) {
		case producerID:
			i.id = n
		case producerEpoch:
			i.epoch = int16(n)
		case producerSequence:
			i.last = int32(n)
		default:
			continue
		}
		found++
	}
	if err := it.Err(); err != nil || found != 3 {
		return fmt.Errorf("the broker's properties of the link are %q: %w", properties.Full, err)
	}
	return nil
}

func encoded(b []byte) wire.Value {
	v, _, err := wire.Read(b)
	if err != nil {
		panic(err)
	}
	return v
}

// send sends a batch and returns when it is acknowledged, or a *wire.Error when it
// is refused. After other errors the instance is lost.
func (i *instance) send(first int32, bodies []string) error {
	format, message := i.batch(i.id, i.epoch, first, bodies)
	i.nc.SetDeadline(time.Now().Add(answerTimeout)) //nolint:errcheck // the next write says it
	id := i.delivery
	i.delivery++
	for more := true; more; {
		part := message
		const room = 65_000 // in a frame
		if more = len(part) > room; more {
			part = part[:room]
		}
		message = message[len(part):]
		t, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescTransfer), 6)
		t = wire.AppendUint(wire.AppendUint(t, 0), id)
		t = wire.AppendBinary(t, binary.BigEndian.AppendUint32(nil, id))
		t = wire.AppendUint(t, format)
		t = wire.AppendBool(wire.AppendBool(t, false), more)
		wire.EndCompound(t, at)
		if _, err := i.nc.Write(frame(0, append(t, part...))); err != nil {
			return err
		}
	}
	list, err := i.want(wire.DescDisposition)
	if err != nil {
		return err
	}
	var d wire.Disposition
	if err := d.Decode(list); err != nil {
		return err
	}
	code, _, state, err := d.State.Described()
	switch {
	case err != nil:
		return err
	case d.First != id:
		return fmt.Errorf("delivery %d is settled, and %d was sent", d.First, id)
	case code == wire.DescAccepted:
		return nil
	}
	it, err := state.List()
	if err != nil || code != wire.DescRejected {
		return fmt.Errorf("the outcome is %q: %w", d.State.Full, err)
	}
	if e := wire.DecodeError(it.Next()); e != nil {
		return e
	}
	return errors.New("rejected without a reason")
}

// want reads frames until one of the given performative. A detach or a close
// before it is an error, which the broker's reason is in.
func (i *instance) want(desc byte) (wire.Items, error) {
	for {
		var head [8]byte
		if _, err := io.ReadFull(i.r, head[:]); err != nil {
			return wire.Items{}, err
		}
		if string(head[:4]) == "AMQP" {
			continue
		}
		b := make([]byte, binary.BigEndian.Uint32(head[:]))
		copy(b, head[:])
		if _, err := io.ReadFull(i.r, b[8:]); err != nil {
			return wire.Items{}, err
		}
		f, err := wire.ReadFrame(b)
		if err != nil {
			return wire.Items{}, err
		}
		if len(f.Body) == 0 { // a sign of life
			continue
		}
		got, list, _, err := wire.ReadPerformative(f.Body)
		if err != nil || got == desc {
			return list, err
		}
		if err := endedBy(got, list); err != nil {
			return wire.Items{}, err
		}
	}
}

// endedBy is the error in a performative that ends a link or more, io.EOF if it has
// none, and nil for any other.
func endedBy(desc byte, list wire.Items) error {
	var e *wire.Error
	switch desc {
	case wire.DescDetach:
		var d wire.Detach
		if err := d.Decode(list); err != nil {
			return err
		}
		e = d.Error
	case wire.DescEnd, wire.DescClose:
		e = wire.DecodeEnding(list)
	default:
		return nil
	}
	if e == nil {
		return io.EOF
	}
	return e
}
