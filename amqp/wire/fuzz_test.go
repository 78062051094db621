package wire_test

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/amqp/wire"
)

// refused fails the test unless err is one of the package's own.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, wire.ErrDecode) {
		t.Fatalf("%s: %v is no error of this package", what, err)
	}
}

// same tells whether two values are encoded alike; a field that is not there
// and a null are the same.
func same(a, b wire.Value) bool {
	return a.IsNull() && b.IsNull() || bytes.Equal(a.Full, b.Full)
}

// FuzzFrame splits whatever comes into frames, as a connection does, and reads
// the performative at the head of each. A frame is within what came, and is the
// same when it is put together again.
func FuzzFrame(f *testing.F) {
	frame := func(typ byte, channel uint16, body []byte) []byte {
		b, at := wire.BeginFrame(nil, typ, channel)
		b = append(b, body...)
		wire.EndFrame(b, at)
		return b
	}
	transfer := append(wire.AppendDescriptor(nil, wire.DescTransfer), wire.CodeList8, 8, 4, wire.CodeUint0, wire.CodeUint0, wire.CodeBinary8, 1, 7, wire.CodeUint0)
	extended := frame(wire.FrameAMQP, 0, append([]byte{1, 2, 3, 4}, wire.AppendEnd(nil, nil)...))
	extended[4] = 3
	for _, b := range [][]byte{
		frame(wire.FrameAMQP, 0, nil),
		frame(wire.FrameAMQP, 3, wire.AppendEnd(nil, nil)),
		frame(wire.FrameSASL, 0, wire.AppendMechanisms(nil, "MSSBCBS", "PLAIN")),
		frame(wire.FrameSASL, 0, wire.AppendOutcome(nil, 0, "Welcome!")),
		append(frame(wire.FrameAMQP, 1, append(transfer, 0, 0x53, 0x75, 0xa0, 1, 'x')), frame(wire.FrameAMQP, 1, wire.AppendClose(nil, nil))...),
		extended,
		wire.HeaderSASL[:],
		{0, 0, 0, 7, 2, 0, 0, 0},
		{0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0},
		{0, 0, 0, 8, 3, 0, 0, 0},
		{0, 0, 0, 8, 1, 0, 0, 0},
	} {
		f.Add(b, 65536)
		f.Add(b, wire.MinMaxFrameSize)
	}
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		for len(b) >= wire.FrameHeaderSize {
			n, err := wire.FrameSize(b, max(limit, 0))
			if err != nil {
				refused(t, "size", err)
				return
			}
			if n < wire.FrameHeaderSize || n > limit {
				t.Fatalf("a frame of %d bytes where %d are allowed", n, limit)
			}
			if n > len(b) {
				return
			}
			x, err := wire.ReadFrame(b[:n])
			if err != nil {
				refused(t, "frame", err)
			} else {
				if !bytes.HasSuffix(b[wire.FrameHeaderSize:n], x.Body) {
					t.Fatalf("the body % x is not the end of the frame % x", x.Body, b[:n])
				}
				again, err := wire.ReadFrame(frame(x.Type, x.Channel, x.Body))
				if err != nil || !reflect.DeepEqual(x, again) {
					t.Fatalf("%+v becomes %+v, %v", x, again, err)
				}
				if _, list, size, err := wire.ReadPerformative(x.Body); err != nil {
					refused(t, "performative", err)
				} else if size > len(x.Body) || list.Len() > size {
					t.Fatalf("a list of %d in %d bytes of %d", list.Len(), size, len(x.Body))
				}
			}
			b = b[n:]
		}
	})
}

// FuzzValue reads whatever comes as a value, through every accessor. A value is
// within what came, ends where it says, holds no more items than bytes, and what
// an accessor returns reads the same when it is encoded again.
func FuzzValue(f *testing.F) {
	list, at := wire.BeginList(nil, 3)
	list = wire.AppendInt(wire.AppendSymbol(wire.AppendUlong(list, 7), "s"), -1)
	wire.EndCompound(list, at)
	dict, at := wire.BeginMap(nil, 2)
	dict = append(wire.AppendString(dict, "key"), list...)
	wire.EndCompound(dict, at)
	for _, b := range [][]byte{
		wire.AppendNull(nil), wire.AppendBool(nil, true), {wire.CodeBool, 1}, wire.AppendUbyte(nil, 9), wire.AppendUshort(nil, 300),
		wire.AppendUint(nil, math.MaxUint32), wire.AppendUlong(nil, math.MaxUint64), {wire.CodeSmallLong, 0xff}, {wire.CodeShort, 0x80, 0},
		wire.AppendLong(nil, math.MinInt64), wire.AppendTimestamp(nil, -1), wire.AppendString(nil, "text"),
		wire.AppendString(nil, strings.Repeat("long", 100)), wire.AppendBinary(nil, []byte{0, 1}), list, dict,
		append(wire.AppendDescriptor(nil, 0x70), list...), {wire.CodeDescribed, wire.CodeSymbol8, 1, 'x', wire.CodeNull},
		wire.AppendSymbols(nil, "a", "bc"), wire.AppendSymbols(nil, make([]string, 300)...), wire.AppendStrings(nil, "a"),
		{wire.CodeArray8, 3, 255, wire.CodeSymbol8, 0}, {wire.CodeList8, 1, 255}, {wire.CodeMap8, 2, 1, wire.CodeNull},
		{wire.CodeList32, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff}, {wire.CodeBinary32, 0xff, 0xff, 0xff, 0xff, 0}, bytes.Repeat([]byte{0}, 40),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n, err := wire.Read(b)
		if err != nil {
			refused(t, "read", err)
			return
		}
		if size, err := wire.Size(b); err != nil || size != n || n < 1 || n > len(b) || !bytes.Equal(v.Full, b[:n]) || !bytes.HasSuffix(v.Full, v.Body) {
			t.Fatalf("%d bytes of %d read, and a size of %d, %v", n, len(b), size, err)
		}
		for i := range min(n, 64) { // cut short, it is no value
			if _, _, err := wire.Read(b[:i]); err == nil {
				t.Fatalf("% x is a value, and so are its first %d bytes", v.Full, i)
			}
		}
		checkScalars(t, v)
		checkItems(t, v)
		if code, sym, inner, err := v.Described(); err != nil {
			refused(t, "described", err)
		} else if (code != 0 && sym != nil) || !bytes.HasSuffix(v.Full, inner.Full) {
			t.Fatalf("descriptor 0x%x %q of % x", code, sym, v.Full)
		}
		symbols := 0
		if err := v.Symbols(func([]byte) { symbols++ }); err != nil {
			refused(t, "symbols", err)
		}
		if symbols > n {
			t.Fatalf("%d symbols in %d bytes", symbols, n)
		}
		var x wire.Terminus
		if err := x.Decode(v); err != nil {
			refused(t, "terminus", err)
		}
		if e := wire.DecodeError(v); e != nil {
			again, _, err := wire.Read(e.Append(nil))
			if got := wire.DecodeError(again); err != nil || got == nil || *got != *e {
				t.Fatalf("%+v becomes %+v, %v", e, got, err)
			}
		}
	})
}

func checkScalars(t *testing.T, v wire.Value) {
	again := func(b []byte) wire.Value {
		t.Helper()
		x, n, err := wire.Read(b)
		if err != nil || n != len(b) {
			t.Fatalf("% x was written, and can't be read: %v", b, err)
		}
		return x
	}
	if n, ok := v.Uint(); ok {
		if m, ok := again(wire.AppendUlong(nil, n)).Uint(); !ok || m != n {
			t.Fatalf("%d becomes %d", n, m)
		}
	}
	if n, ok := v.Int(); ok {
		if m, ok := again(wire.AppendLong(nil, n)).Int(); !ok || m != n {
			t.Fatalf("%d becomes %d", n, m)
		}
	}
	if n, ok := v.Integer(); ok {
		if u, unsigned := v.Uint(); unsigned && u != uint64(n) {
			t.Fatalf("%d is taken for %d", u, n)
		}
	}
	if x, ok := v.Bool(); ok {
		if y, ok := again(wire.AppendBool(nil, x)).Bool(); !ok || y != x {
			t.Fatalf("%v becomes %v", x, y)
		}
	}
	if x, ok := v.Time(); ok {
		if y, ok := again(wire.AppendTimestamp(nil, x.UnixMilli())).Time(); !ok || !y.Equal(x) {
			t.Fatalf("%v becomes %v", x, y)
		}
	}
	if x, ok := v.Text(); ok {
		if y, ok := again(wire.AppendText(nil, x)).Str(); !ok || !bytes.Equal(y, x) {
			t.Fatalf("%q becomes %q", x, y)
		}
		if y, ok := again(wire.AppendSymbol(nil, string(x))).Symbol(); !ok || !bytes.Equal(y, x) {
			t.Fatalf("%q becomes %q", x, y)
		}
		if y, ok := again(wire.AppendBinary(nil, x)).Binary(); !ok || !bytes.Equal(y, x) {
			t.Fatalf("%q becomes %q", x, y)
		}
	}
}

// checkItems writes a list or map anew, from its items.
func checkItems(t *testing.T, v wire.Value) {
	for _, c := range []struct {
		items func(wire.Value) (wire.Items, error)
		begin func([]byte, int) ([]byte, int)
	}{{wire.Value.List, wire.BeginList}, {wire.Value.Map, wire.BeginMap}} {
		it, err := c.items(v)
		if err != nil {
			refused(t, "items", err)
			continue
		}
		n := it.Len()
		if n > len(v.Body) {
			t.Fatalf("%d items in %d bytes", n, len(v.Body))
		}
		b, at := c.begin(nil, n)
		var items []wire.Value
		for it.Len() > 0 {
			x := it.Next()
			items = append(items, x)
			b = wire.AppendValue(b, x)
		}
		wire.EndCompound(b, at)
		if err := it.Err(); err != nil {
			refused(t, "item", err)
			continue
		}
		again, _, err := wire.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if it, err = c.items(again); err != nil || it.Len() != n || len(items) != n {
			t.Fatalf("%d items become %d, %v", n, it.Len(), err)
		}
		for i, x := range items {
			if y := it.Next(); !same(x, y) {
				t.Fatalf("item %d, % x, becomes % x", i, x.Full, y.Full)
			}
		}
	}
}

// FuzzPerformative reads whatever comes as the performative that it says it is,
// writes what it has read, and reads that: the same.
func FuzzPerformative(f *testing.F) {
	text := func(s string) wire.Value { v, _, _ := wire.Read(wire.AppendString(nil, s)); return v }
	source := terminus(wire.DescSource, []byte("hub/ConsumerGroups/$Default/Partitions/0"), true, wire.Value{})
	from, _, _ := wire.Read(source)
	for _, b := range [][]byte{
		(&wire.Open{ContainerID: "c", Hostname: "h", MaxFrameSize: 65536, ChannelMax: 4999, IdleTimeout: 120000, Properties: text("p")}).Append(nil),
		(&wire.Begin{RemoteChannel: wire.Optional{Value: 3, Set: true}, IncomingWindow: 5000, HandleMax: 255}).Append(nil),
		append(wire.AppendDescriptor(nil, wire.DescBegin), wire.CodeList8, 9, 4, wire.CodeUint, 0, 1, 0, 0, wire.CodeUint0, wire.CodeUint0, wire.CodeUint0),
		(&wire.Attach{Name: text("n"), Role: true, Source: from, Target: from, MaxMessageSize: 1 << 20}).Append(nil),
		(&wire.Flow{Handle: wire.Optional{Set: true}, LinkCredit: wire.Optional{Value: 300, Set: true}, Available: 2, Drain: true}).Append(nil),
		(&wire.Flow{Available: 7}).Append(nil),
		transfer(&wire.Transfer{Handle: 1, DeliveryID: wire.Optional{Value: 9, Set: true}, MessageFormat: wire.Optional{Value: 0x80013700, Set: true}, Settled: true, More: true}),
		wire.AppendDisposition(nil, true, 1, 2, wire.Accepted),
		wire.AppendDisposition(nil, false, 7, 7, wire.AppendRejected(nil, &wire.Error{Condition: "amqp:not-found"})),
		(&wire.Detach{Handle: 7, Closed: true, Error: &wire.Error{Condition: "amqp:not-found", Description: "gone"}}).Append(nil),
		wire.AppendEnd(nil, nil),
		wire.AppendClose(nil, &wire.Error{Description: strings.Repeat("long", 100)}),
		saslInit(&wire.Init{Mechanism: "PLAIN", Response: []byte("\x00user\x00key"), Hostname: "h"}),
		wire.AppendMechanisms(nil, "PLAIN"),
		append([]byte("\x00\xa3\x0famqp:begin:list"), wire.CodeList8, 7, 4, wire.CodeNull, wire.CodeUint0, wire.CodeSmallUint, 5, wire.CodeSmallUint, 6),
		source,
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		desc, list, n, err := wire.ReadPerformative(b)
		if err != nil {
			refused(t, "performative", err)
			return
		}
		if n > len(b) || list.Len() > n {
			t.Fatalf("a list of %d, in %d bytes of %d", list.Len(), n, len(b))
		}
		x := newPerformative(desc)
		if x == nil {
			return
		}
		if err := x.Decode(list); err != nil {
			refused(t, "decode", err)
			return
		}
		written := encode(x)
		if written == nil {
			return
		}
		desc2, list, n, err := wire.ReadPerformative(written)
		if err != nil || desc2 != desc || n != len(written) {
			t.Fatalf("%+v is written as % x: descriptor 0x%x, %d bytes, %v", x, written, desc2, n, err)
		}
		y := newPerformative(desc)
		if err := y.Decode(list); err != nil || !equal(x, y) {
			t.Fatalf("% x\n is %+v,\n becomes %+v, %v", b, x, y, err)
		}
	})
}

type performative interface{ Decode(wire.Items) error }

// ending is an end or a close.
type ending struct {
	desc byte
	err  *wire.Error
}

func (e *ending) Decode(list wire.Items) error {
	e.err = wire.DecodeEnding(list)
	return nil
}

func newPerformative(desc byte) performative {
	switch desc {
	case wire.DescOpen:
		return &wire.Open{}
	case wire.DescBegin:
		return &wire.Begin{}
	case wire.DescAttach:
		return &wire.Attach{}
	case wire.DescFlow:
		return &wire.Flow{}
	case wire.DescTransfer:
		return &wire.Transfer{}
	case wire.DescDisposition:
		return &wire.Disposition{}
	case wire.DescDetach:
		return &wire.Detach{}
	case wire.DescEnd, wire.DescClose:
		return &ending{desc: desc}
	case wire.DescInit:
		return &wire.Init{}
	}
	return nil
}

// encode writes a performative, with the package's function if it has one; nil
// for one that it never writes so.
func encode(p performative) []byte {
	switch x := p.(type) {
	case *wire.Open:
		return x.Append(nil)
	case *wire.Begin:
		return x.Append(nil)
	case *wire.Attach:
		return x.Append(nil)
	case *wire.Flow:
		return x.Append(nil)
	case *wire.Detach:
		return x.Append(nil)
	case *wire.Transfer:
		return transfer(x)
	case *wire.Init:
		return saslInit(x)
	case *wire.Disposition:
		if !x.Settled {
			return nil
		}
		return wire.AppendDisposition(nil, x.Role, x.First, x.Last, x.State.Full)
	case *ending:
		if x.desc == wire.DescEnd {
			return wire.AppendEnd(nil, x.err)
		}
		return wire.AppendClose(nil, x.err)
	}
	return nil
}

func transfer(x *wire.Transfer) []byte {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescTransfer), 10)
	optional := func(o wire.Optional) {
		if o.Set {
			b = wire.AppendUint(b, o.Value)
		} else {
			b = wire.AppendNull(b)
		}
	}
	b = wire.AppendUint(b, x.Handle)
	optional(x.DeliveryID)
	b = wire.AppendBinary(b, []byte{1})
	optional(x.MessageFormat)
	b = wire.AppendBool(wire.AppendBool(b, x.Settled), x.More)
	b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull)
	b = wire.AppendBool(b, x.Aborted)
	wire.EndCompound(b, at)
	return b
}

func saslInit(x *wire.Init) []byte {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescInit), 3)
	b = wire.AppendSymbol(b, x.Mechanism)
	b = wire.AppendBinary(b, x.Response)
	b = wire.AppendString(b, x.Hostname)
	wire.EndCompound(b, at)
	return b
}

func terminus(desc byte, address []byte, dynamic bool, filter wire.Value) []byte {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, desc), 8)
	b = wire.AppendText(b, address)
	b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull)
	b = wire.AppendBool(b, dynamic)
	b = append(b, wire.CodeNull, wire.CodeNull)
	b = wire.AppendValue(b, filter)
	wire.EndCompound(b, at)
	return b
}

// equal compares two performatives of a kind.
func equal(a, b performative) bool {
	if x, ok := a.(*wire.Flow); ok && !x.Handle.Set {
		x.Available = 0 // says nothing without a link
	}
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range x.NumField() {
		if !x.Type().Field(i).IsExported() { // an ending's
			p, q := a.(*ending), b.(*ending)
			return p.desc == q.desc && reflect.DeepEqual(p.err, q.err)
		}
		switch v := x.Field(i).Interface().(type) {
		case wire.Value:
			if !same(v, y.Field(i).Interface().(wire.Value)) {
				return false
			}
		case []byte:
			if !bytes.Equal(v, y.Field(i).Bytes()) {
				return false
			}
		default:
			if !reflect.DeepEqual(v, y.Field(i).Interface()) {
				return false
			}
		}
	}
	return true
}
