package amqp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
)

// peer is a client that speaks frames, for what no library will say.
type peer struct {
	testing.TB
	nc net.Conn
}

func (b *broker) dial() *peer {
	b.Helper()
	nc, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &peer{TB: b.TB, nc: nc}
}

func (p *peer) write(b []byte) {
	p.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.Fatal(err)
	}
}

func framed(channel uint16, body []byte) []byte {
	b, at := wire.BeginFrame(nil, wire.FrameAMQP, channel)
	b = append(b, body...)
	wire.EndFrame(b, at)
	return b
}

func (p *peer) send(channel uint16, body []byte) { p.Helper(); p.write(framed(channel, body)) }

// read returns the next frame that is no heartbeat.
func (p *peer) read() (wire.Frame, error) {
	for {
		var h [8]byte
		if _, err := io.ReadFull(p.nc, h[:]); err != nil {
			return wire.Frame{}, err
		}
		n := binary.BigEndian.Uint32(h[:])
		b := make([]byte, n)
		copy(b, h[:])
		if _, err := io.ReadFull(p.nc, b[8:]); err != nil {
			return wire.Frame{}, err
		}
		f, err := wire.ReadFrame(b)
		if err != nil || len(f.Body) > 0 {
			return f, err
		}
	}
}

// want reads frames until one of the given performative, and returns its fields
// and payload.
func (p *peer) want(desc byte) (wire.Items, []byte) {
	p.Helper()
	for {
		f, err := p.read()
		if err != nil {
			p.Fatalf("waiting for performative 0x%02x: %v", desc, err)
		}
		got, list, n, err := wire.ReadPerformative(f.Body)
		if err != nil {
			p.Fatal(err)
		}
		if got == desc {
			return list, f.Body[n:]
		}
		if got == wire.DescClose {
			p.Fatalf("waiting for performative 0x%02x: closed: %v", desc, wire.DecodeEnding(list))
		}
	}
}

func (p *peer) header(h [8]byte) {
	p.Helper()
	var got [8]byte
	if _, err := io.ReadFull(p.nc, got[:]); err != nil || got != h {
		p.Fatalf("the header is % x, %v; want % x", got, err, h)
	}
}

// open goes as far as an open connection with a session, without SASL.
func (p *peer) open(o *wire.Open) {
	p.Helper()
	p.write(wire.HeaderAMQP[:])
	p.header(wire.HeaderAMQP)
	p.send(0, o.Append(nil))
	p.want(wire.DescOpen)
	p.send(0, (&wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000}).Append(nil))
	p.want(wire.DescBegin)
}

func str(s string) wire.Value {
	v, _, _ := wire.Read(wire.AppendString(nil, s))
	return v
}

func terminus(desc byte, address string) wire.Value {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, desc), 1)
	b = wire.AppendString(b, address)
	wire.EndCompound(b, at)
	v, _, _ := wire.Read(b)
	return v
}

func uintValue(n uint32) wire.Value {
	v, _, _ := wire.Read(wire.AppendUint(nil, n))
	return v
}

func (p *peer) attachSender(handle uint32, address string) wire.Attach {
	p.Helper()
	p.send(0, (&wire.Attach{Name: str(fmt.Sprint("s", handle)), Handle: handle, Role: wire.RoleSender,
		Source: terminus(wire.DescSource, "x"), Target: terminus(wire.DescTarget, address), InitialDeliveryCount: uintValue(0)}).Append(nil))
	list, _ := p.want(wire.DescAttach)
	var a wire.Attach
	if err := a.Decode(list); err != nil {
		p.Fatal(err)
	}
	return a
}

func (p *peer) attachReceiver(handle uint32, address string) wire.Attach {
	p.Helper()
	p.send(0, (&wire.Attach{Name: str(fmt.Sprint("r", handle)), Handle: handle, Role: wire.RoleReceiver,
		Source: terminus(wire.DescSource, address), Target: terminus(wire.DescTarget, "x")}).Append(nil))
	list, _ := p.want(wire.DescAttach)
	var a wire.Attach
	if err := a.Decode(list); err != nil {
		p.Fatal(err)
	}
	return a
}

func (p *peer) credit(handle, credit uint32) {
	p.Helper()
	opt := func(n uint32) wire.Optional { return wire.Optional{Value: n, Set: true} }
	p.send(0, (&wire.Flow{NextIncomingID: opt(1), IncomingWindow: 1000, OutgoingWindow: 1000,
		Handle: opt(handle), DeliveryCount: opt(0), LinkCredit: opt(credit)}).Append(nil))
}

// transfer is a transfer performative.
func transfer(handle, id uint32, format uint32, settled, more bool) []byte {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescTransfer), 6)
	b = wire.AppendUint(b, handle)
	b = wire.AppendUint(b, id)
	b = wire.AppendBinary(b, []byte{byte(id)})
	b = wire.AppendUint(b, format)
	b = wire.AppendBool(b, settled)
	b = wire.AppendBool(b, more)
	wire.EndCompound(b, at)
	return b
}

func data(b []byte) []byte { return wire.AppendBinary(wire.AppendDescriptor(nil, wire.DescData), b) }

// request is an encoded request to a node.
func request(id wire.Value, replyTo string, props []string, body []byte) []byte {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescProperties), 5)
	b = wire.AppendValue(b, id)
	b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull)
	if replyTo == "" {
		b = wire.AppendNull(b)
	} else {
		b = wire.AppendString(b, replyTo)
	}
	wire.EndCompound(b, at)
	b, at = wire.BeginMap(wire.AppendDescriptor(b, wire.DescAppProperties), len(props))
	for _, s := range props {
		b = wire.AppendString(b, s)
	}
	wire.EndCompound(b, at)
	if body != nil {
		b = append(wire.AppendDescriptor(b, wire.DescValue), body...)
	}
	return b
}

// login puts a token, over links 100 and 101, and returns the reply's bytes.
func (p *peer) login(token, name string) []byte {
	p.Helper()
	p.attachSender(100, "$cbs")
	p.attachReceiver(101, "$cbs")
	p.credit(101, 10)
	p.send(0, append(transfer(100, 0, 0, false, false), request(uintValue(7), "",
		[]string{"operation", "put-token", "type", "jwt", "name", name}, wire.AppendString(nil, token))...))
	_, reply := p.want(wire.DescTransfer)
	return reply
}

func goodToken(hub string) string {
	return auth.SignSAS("sb://localhost/"+hub, rootRule, rootKey, time.Now().Add(time.Hour))
}

// wantClose reads until the broker's close, and the end of the socket.
func (p *peer) wantClose(condition string) {
	p.Helper()
	list, _ := p.wantAny(wire.DescClose)
	e := wire.DecodeEnding(list)
	if e == nil || e.Condition != condition {
		p.Fatalf("closed with %v, want %s", e, condition)
	}
	p.send(0, wire.AppendClose(nil, nil))
	if _, err := io.Copy(io.Discard, p.nc); err != nil {
		p.Logf("after the close: %v", err)
	}
}

func (p *peer) wantAny(desc byte) (wire.Items, []byte) {
	p.Helper()
	for {
		f, err := p.read()
		if err != nil {
			p.Fatalf("waiting for performative 0x%02x: %v", desc, err)
		}
		got, list, n, err := wire.ReadPerformative(f.Body)
		if err != nil {
			p.Fatal(err)
		}
		if got == desc {
			return list, f.Body[n:]
		}
	}
}

// TestPipelined has pyamqp's beginning: everything is sent before anything is
// read, channels begin at 1, handles at 1, and after the end come detaches.
func TestPipelined(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	var out []byte
	out = append(out, wire.HeaderSASL[:]...)
	init, at := wire.BeginFrame(nil, wire.FrameSASL, 0)
	list, lat := wire.BeginList(wire.AppendDescriptor(nil, wire.DescInit), 3)
	list = wire.AppendSymbol(list, "ANONYMOUS")
	list = wire.AppendBinary(list, nil)
	list = wire.AppendString(list, "localhost")
	wire.EndCompound(list, lat)
	init = append(init, list...)
	wire.EndFrame(init, at)
	out = append(out, init...)
	out = append(out, wire.HeaderAMQP[:]...)
	out = append(out, framed(0, (&wire.Open{ContainerID: "c", Hostname: "localhost", MaxFrameSize: 1 << 20, ChannelMax: 65535}).Append(nil))...)
	out = append(out, framed(1, (&wire.Begin{IncomingWindow: 65536, OutgoingWindow: 65536}).Append(nil))...)
	for h := uint32(1); h <= 2; h++ {
		a := wire.Attach{Name: str(fmt.Sprint(h)), Handle: h, Role: h == 2, Source: terminus(wire.DescSource, "$cbs"), Target: terminus(wire.DescTarget, "$cbs")}
		out = append(out, framed(1, a.Append(nil))...)
	}
	p.write(out)
	p.header(wire.HeaderSASL)
	f, err := p.read()
	if err != nil || f.Type != wire.FrameSASL {
		t.Fatal(f, err)
	}
	desc, items, _, err := wire.ReadPerformative(f.Body)
	if err != nil || desc != wire.DescMechanisms {
		t.Fatal(desc, err)
	}
	var mechs []string
	first := items.Next()
	if first.Code != wire.CodeArray8 {
		t.Errorf("the mechanisms are of format code 0x%02x", first.Code)
	}
	if err := first.Symbols(func(s []byte) { mechs = append(mechs, string(s)) }); err != nil || strings.Join(mechs, " ") != "MSSBCBS PLAIN ANONYMOUS EXTERNAL" {
		t.Errorf("mechanisms %v, %v", mechs, err)
	}
	if f, err = p.read(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(f.Body, []byte("Welcome!")) {
		t.Errorf("the outcome is % x", f.Body)
	}
	p.header(wire.HeaderAMQP)
	open, _ := p.want(wire.DescOpen)
	if open.Len() != 10 {
		t.Errorf("the open has %d fields", open.Len())
	}
	begin, _ := p.want(wire.DescBegin)
	if begin.Len() != 8 {
		t.Errorf("the begin has %d fields", begin.Len())
	}
	for range 2 {
		attach, _ := p.want(wire.DescAttach)
		if attach.Len() != 14 {
			t.Errorf("an attach has %d fields", attach.Len())
		}
	}
	p.send(1, wire.AppendEnd(nil, nil))
	p.want(wire.DescEnd)
	p.send(1, (&wire.Detach{Handle: 1, Closed: true}).Append(nil))
	p.send(1, (&wire.Detach{Handle: 2, Closed: true}).Append(nil))
	p.send(0, wire.AppendClose(nil, nil))
	p.want(wire.DescClose)
}

// TestReplies: the correlation id keeps its type, the status is an int, and a
// reply waits for credit (amqp.md 2.4, 3.1).
func TestReplies(t *testing.T) {
	b := start(t)
	b.hub("h", 3)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	reply := p.login(goodToken("h"), "sb://localhost/h")
	want := "005373" // properties, with a uint 7 as correlation id
	if got := fmt.Sprintf("%x", reply); !strings.HasPrefix(got, want) || !strings.Contains(got, "40404040405207") ||
		!strings.Contains(got, fmt.Sprintf("%x", wire.AppendInt(wire.AppendString(nil, "status-code"), 202))) {
		t.Errorf("reply %s", got)
	}
	p.attachSender(1, "$management")
	p.attachReceiver(2, "$management")
	uuid := append([]byte{wire.CodeUUID}, bytes.Repeat([]byte{9}, 16)...)
	id, _, _ := wire.Read(uuid)
	p.send(0, append(transfer(1, 1, 0, false, false), request(id, "", []string{"operation", "READ", "type", "com.microsoft:eventhub", "name", "H"}, nil)...))
	p.want(wire.DescDisposition) // the request is settled; the reply waits
	p.credit(2, 1)
	_, reply = p.want(wire.DescTransfer)
	for _, part := range [][]byte{uuid, wire.AppendInt(wire.AppendString(nil, "status-code"), 200),
		wire.AppendStrings(wire.AppendString(nil, "partition_ids"), "0", "1", "2"), wire.AppendString(wire.AppendString(nil, "name"), "h")} {
		if !bytes.Contains(reply, part) {
			t.Errorf("the reply % x lacks % x", reply, part)
		}
	}
	for _, x := range []struct {
		props []string
		code  int32
		cond  string
	}{
		{[]string{"operation", "READ", "type", "com.microsoft:eventhub", "name", "nope"}, 401, "amqp:unauthorized-access"},
		{[]string{"operation", "READ", "type", "com.microsoft:partition", "name", "h", "partition", "3"}, 400, "com.microsoft:argument-out-of-range"},
		{[]string{"operation", "READ", "type", "com.microsoft:consumergroup", "name", "h"}, 501, "amqp:not-implemented"},
		{[]string{"operation", "WRITE", "type", "com.microsoft:eventhub", "name", "h"}, 501, "amqp:not-implemented"},
		{[]string{"operation", "READ", "type", "com.microsoft:eventhub", "name", "h", "security_token", "1700000000"}, 200, ""},
	} {
		p.send(0, append(transfer(1, 2, 0, true, false), request(str("id"), "", x.props, nil)...))
		p.credit(2, 10)
		_, reply := p.want(wire.DescTransfer)
		if !bytes.Contains(reply, wire.AppendInt(wire.AppendString(nil, "status-code"), x.code)) ||
			x.cond != "" && !bytes.Contains(reply, wire.AppendSymbol(wire.AppendString(nil, "error-condition"), x.cond)) {
			t.Errorf("%v: % x", x.props, reply)
		}
	}
}

// TestSecurityToken: a request to $management brings its only token with it.
func TestSecurityToken(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.attachSender(1, "h/$management")
	p.attachReceiver(2, "$management")
	p.credit(2, 10)
	for _, x := range []struct {
		token string
		code  int32
		text  string
	}{
		{goodToken("h"), 200, ""},
		{goodToken(""), 200, ""},
		{goodToken("other"), 401, "claim(s) are required"},
		{auth.SignSAS("sb://localhost/h", rootRule, "x", time.Now().Add(time.Hour)), 401, "InvalidSignature: The token has an invalid signature. TrackingId:"},
		{"nonsense", 401, "TrackingId:"},
	} {
		p.send(0, append(transfer(1, 1, 0, true, false), request(str("id"), "x", []string{"operation", "READ", "type", "com.microsoft:eventhub", "name", "h", "security_token", x.token}, nil)...))
		_, reply := p.want(wire.DescTransfer)
		if !bytes.Contains(reply, wire.AppendInt(wire.AppendString(nil, "status-code"), x.code)) || !bytes.Contains(reply, []byte(x.text)) {
			t.Errorf("token %.60s: %q", x.token, reply)
		}
	}
}

// TestTokens: what put-token answers to tokens that are no good.
func TestTokens(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	for _, x := range []struct {
		name, token, audience string
		code                  int32
		text                  string
	}{
		{"good", goodToken("h"), "sb://localhost/h", 202, "Accepted"},
		{"for the namespace", goodToken(""), "amqps://whatever:5671/H/Partitions/0", 202, "Accepted"},
		{"another key", auth.SignSAS("sb://localhost/h", rootRule, "x", time.Now().Add(time.Hour)), "h", 401, "InvalidSignature: The token has an invalid signature. TrackingId:"},
		{"expired", auth.SignSAS("sb://localhost/h", rootRule, rootKey, time.Now().Add(-time.Hour)), "h", 401, "ExpiredToken: The token is expired. Expiration time:"},
		{"no token", "hello", "h", 401, "TrackingId:"},
		{"empty", "", "h", 401, "TrackingId:"},
		{"another hub", goodToken("nope"), "sb://localhost/nope", 404, "The messaging entity 'sb://localhost/nope' could not be found."},
	} {
		p := b.dial()
		p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
		reply := p.login(x.token, x.audience)
		if !bytes.Contains(reply, wire.AppendInt(wire.AppendString(nil, "status-code"), x.code)) || !bytes.Contains(reply, []byte(x.text)) {
			t.Errorf("%s: %q", x.name, reply)
		}
		p.nc.Close()
	}
}

// TestOversize: a delivery over the limit is refused, whole or in parts, and the
// link goes on.
func TestOversize(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	if a := p.attachSender(1, "h/Partitions/0"); a.MaxMessageSize != 1<<20 {
		t.Errorf("max-message-size %d", a.MaxMessageSize)
	}
	part := make([]byte, 60_000)
	p.send(0, append(transfer(1, 1, 0, false, true), wire.AppendDescriptor(nil, wire.DescData)...))
	for range 20 {
		p.send(0, append(transfer(1, 1, 0, false, true), part...))
	}
	p.send(0, transfer(1, 1, 0, false, false))
	var d wire.Disposition
	list, _ := p.want(wire.DescDisposition)
	if err := d.Decode(list); err != nil || !bytes.Contains(d.State.Full, []byte("amqp:link:message-size-exceeded")) || d.First != 1 || !d.Settled {
		t.Errorf("%+v, %v", d, err)
	}
	p.send(0, append(transfer(1, 2, 0, false, false), data([]byte("small"))...))
	list, _ = p.want(wire.DescDisposition)
	if err := d.Decode(list); err != nil || !bytes.Equal(d.State.Full, wire.Accepted) || d.First != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestMalformedEvents: each is refused on its own, and the link goes on.
func TestMalformedEvents(t *testing.T) {
	b := start(t)
	h := b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	p.attachSender(1, "h")
	longKey := wire.AppendString(wire.AppendSymbol(nil, "x-opt-partition-key"), strings.Repeat("k", 2000))
	ann, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescMessageAnn), 2)
	ann = append(ann, longKey...)
	wire.EndCompound(ann, at)
	const batch = 0x80013700
	id := uint32(10)
	for name, x := range map[string]struct {
		format uint32
		body   []byte
	}{
		"an empty message":              {0, nil},
		"no section":                    {0, []byte{0x40}},
		"a cut section":                 {0, data([]byte("hello"))[:5]},
		"another format":                {5, data([]byte("x"))},
		"an empty batch":                {batch, nil},
		"a batch with an empty section": {batch, data(nil)},
		"a batch of nonsense":           {batch, data([]byte("nonsense"))},
		"a batch with a value":          {batch, append(wire.AppendDescriptor(nil, wire.DescValue), wire.CodeNull)},
		"a batch cut short":             {batch, append(data(data([]byte("x"))), 0, 0x53, 0x75, 0xb0, 0, 1)},
		"a long key":                    {0, append(ann, data([]byte("x"))...)},
	} {
		id++
		p.send(0, append(transfer(1, id, x.format, false, false), x.body...))
		var d wire.Disposition
		list, _ := p.want(wire.DescDisposition)
		if err := d.Decode(list); err != nil || d.First != id || !bytes.Contains(d.State.Full, []byte("com.microsoft:argument-error")) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	p.send(0, append(transfer(1, 99, batch, false, false), data(data([]byte("good")))...))
	var d wire.Disposition
	list, _ := p.want(wire.DescDisposition)
	if err := d.Decode(list); err != nil || d.First != 99 || !bytes.Equal(d.State.Full, wire.Accepted) {
		t.Errorf("%+v, %v", d, err)
	}
	if i, err := h.At(0).Info(context.Background()); err != nil || i.Next != 1 {
		t.Errorf("%d events are stored, %v", i.Next, err)
	}
}

// TestBatchesInPieces sends one batch cut into frames at every possible place.
func TestBatchesInPieces(t *testing.T) {
	b := start(t)
	h := b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	p.attachSender(1, "h")
	key, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescMessageAnn), 2)
	key = wire.AppendString(wire.AppendSymbol(key, "x-opt-partition-key"), "k")
	wire.EndCompound(key, at)
	body := append(key, data(data([]byte("first")))...)
	body = append(body, data(data(bytes.Repeat([]byte("s"), 300)))...)
	sym := append([]byte{wire.CodeDescribed}, wire.AppendSymbol(nil, "amqp:data:binary")...)
	body = append(body, append(sym, wire.AppendBinary(nil, data([]byte("third")))...)...)
	id := uint32(0)
	for cut := 1; cut < len(body); cut++ {
		id++
		p.send(0, append(transfer(1, id, 0x80013700, false, true), body[:cut]...))
		p.send(0, append(transfer(1, id, 0x80013700, false, false), body[cut:]...))
		var d wire.Disposition
		list, _ := p.want(wire.DescDisposition)
		if err := d.Decode(list); err != nil || d.First != id || !bytes.Equal(d.State.Full, wire.Accepted) {
			t.Fatalf("cut at %d: %+v, %v", cut, d, err)
		}
	}
	r, err := h.At(0).OpenReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for next := int64(0); ; {
		c, err := r.Read(t.Context(), event.SequenceNumber(next), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if c.Empty() {
			break
		}
		for i := range c.Records {
			for e, err := range b.all.Codec(c.Records[i].Encoding).Events(&c.Records[i]) {
				want := []string{"first", strings.Repeat("s", 300), "third"}[n%3]
				if err != nil || string(e.Body) != want || e.PartitionKey != "k" {
					t.Fatalf("event %d: %q with key %q, %v", n, e.Body, e.PartitionKey, err)
				}
				n++
			}
		}
		next = int64(c.Next())
		c.Close()
	}
	if n != 3*(len(body)-1) {
		t.Errorf("%d events", n)
	}
}

// TestAborted: an aborted delivery is neither stored nor answered.
func TestAborted(t *testing.T) {
	b := start(t)
	h := b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	p.attachSender(1, "h/Partitions/0")
	p.send(0, append(transfer(1, 1, 0, false, true), data([]byte("gone"))...))
	abort, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescTransfer), 10)
	abort = append(abort, 0x52, 1, 0x52, 1, 0x40, 0x40, 0x40, 0x41, 0x40, 0x40, 0x40, 0x41)
	wire.EndCompound(abort, at)
	p.send(0, abort)
	// Begun and left: the link is detached in the middle of a delivery.
	p.send(0, append(transfer(1, 2, 0, false, true), data([]byte("gone too"))...))
	p.send(0, (&wire.Detach{Handle: 1, Closed: true}).Append(nil))
	p.want(wire.DescDetach)
	p.attachSender(1, "h/Partitions/0")
	p.send(0, append(transfer(1, 3, 0, false, false), data([]byte("kept"))...))
	var d wire.Disposition
	list, _ := p.want(wire.DescDisposition)
	if err := d.Decode(list); err != nil || d.First != 3 {
		t.Errorf("%+v, %v", d, err)
	}
	if i, err := h.At(0).Info(context.Background()); err != nil || i.Next != 1 {
		t.Errorf("%d events are stored, %v", i.Next, err)
	}
}

// TestSettledThenGone: what was sent settled is stored, though the peer detaches
// or goes away at once.
func TestSettledThenGone(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	for i := range 3 {
		p := b.dial()
		p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
		p.login(goodToken("h"), "h")
		p.attachSender(1, "h/Partitions/0")
		out := framed(0, append(transfer(1, 1, 0, true, false), data([]byte("x"))...))
		switch i {
		case 0:
			out = append(out, framed(0, (&wire.Detach{Handle: 1, Closed: true}).Append(nil))...)
		case 1:
			out = append(out, framed(0, wire.AppendClose(nil, nil))...)
		}
		p.write(out)
		if i == 0 {
			p.want(wire.DescDetach)
			p.nc.Close()
			continue
		}
		if i == 2 {
			p.nc.(*net.TCPConn).CloseWrite()
		}
		io.Copy(io.Discard, p.nc) //nolint:errcheck // until the broker has closed too
	}
	b.down()
	b.up("127.0.0.1:0")
	h, err := b.ns.EventHub("h")
	if err != nil {
		t.Fatal(err)
	}
	if i, err := h.At(0).Info(context.Background()); err != nil || i.Next != 3 {
		t.Errorf("%d events are stored, %v", i.Next, err)
	}
}
