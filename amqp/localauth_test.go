package amqp_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	eh "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/amqp"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// plain goes through SASL PLAIN with a rule and its key, and tells whether they
// were taken.
func (p *peer) plain(rule, key string) bool {
	p.Helper()
	init, frame := wire.BeginFrame(append([]byte{}, wire.HeaderSASL[:]...), wire.FrameSASL, 0)
	init, list := wire.BeginList(wire.AppendDescriptor(init, wire.DescInit), 2)
	init = wire.AppendSymbol(init, "PLAIN")
	init = wire.AppendBinary(init, []byte("\x00"+rule+"\x00"+key))
	wire.EndCompound(init, list)
	wire.EndFrame(init, frame)
	p.write(init)
	p.header(wire.HeaderSASL)
	_, _ = p.want(wire.DescMechanisms)
	f, err := p.read()
	if err != nil {
		p.Fatal(err)
	}
	return bytes.Contains(f.Body, []byte("Welcome!"))
}

const localAuthDisabled = "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace. TrackingId:"

// wantDetached reads the detaches of links that keys have opened.
func (p *peer) wantDetached(handles ...uint32) {
	p.Helper()
	gone := map[uint32]bool{}
	for range handles {
		list, _ := p.want(wire.DescDetach)
		var d wire.Detach
		if err := d.Decode(list); err != nil {
			p.Fatal(err)
		}
		if d.Error == nil || d.Error.Condition != "amqp:unauthorized-access" || !strings.HasPrefix(d.Error.Description, localAuthDisabled) {
			p.Errorf("link %d is detached with %v", d.Handle, d.Error)
		}
		gone[d.Handle] = true
	}
	for _, h := range handles {
		if !gone[h] {
			p.Errorf("link %d is not detached", h)
		}
	}
}

// TestLocalAuthDisabled: what keys have opened ends at once, idle or not, and no
// key is taken any more. Web tokens go on.
func TestLocalAuthDisabled(t *testing.T) {
	b := start(t, func(b *broker) {
		b.opts = func(o *amqp.Options) {
			v, err := auth.NewVerifier(auth.Options{Keys: o.Namespaces, Entra: auth.Entra{AcceptAny: true}})
			if err != nil {
				t.Fatal(err)
			}
			o.Verifier = v
		}
	})
	h := b.hub("h", 1)
	const webToken = "a.e30.b"
	links := func(p *peer) {
		t.Helper()
		p.attachSender(1, "h/Partitions/0")
		p.attachReceiver(2, "h/ConsumerGroups/$Default/Partitions/0")
		p.credit(2, 10)
	}
	open := func(token string) *peer {
		t.Helper()
		p := b.dial()
		p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
		if reply := p.login(token, "h"); !bytes.Contains(reply, []byte("Accepted")) {
			t.Fatalf("%q", reply)
		}
		links(p)
		return p
	}
	idle, sender, web := open(goodToken("h")), open(goodToken("h")), open(webToken)
	plain := b.dial()
	if !plain.plain(rootRule, rootKey) {
		t.Fatal("the key is refused")
	}
	plain.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	links(plain)
	both := open(goodToken("h")) // of a key first, and of a web token since
	if reply := both.login2(webToken, "h"); !bytes.Contains(reply, []byte("Accepted")) {
		t.Fatalf("%q", reply)
	}

	set := func(to bool) {
		t.Helper()
		if err := b.ns.Update(t.Context(), func(s *hub.NamespaceSettings) error { s.DisableLocalAuth = to; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	idle.wantDetached(1, 2)
	plain.wantDetached(1, 2)
	sender.send(0, append(transfer(1, 1, 0, false, false), data([]byte("late"))...))
	sender.wantDetached(1, 2)
	if i, err := h.At(0).Info(t.Context()); err != nil || !i.Empty {
		t.Errorf("an event is stored that came too late: %+v, %v", i, err)
	}
	for _, p := range []*peer{web, both} {
		p.send(0, append(transfer(1, 5, 0, false, false), data([]byte("of a web token"))...))
		if _, payload := p.want(wire.DescTransfer); !bytes.Contains(payload, []byte("of a web token")) {
			t.Errorf("%q", payload)
		}
	}

	// On the connections that are still there, and on new ones.
	if reply := idle.login2(goodToken("h"), "h"); !bytes.Contains(reply, wire.AppendInt(wire.AppendString(nil, "status-code"), 401)) || !bytes.Contains(reply, []byte(localAuthDisabled)) {
		t.Errorf("%q", reply)
	}
	fresh := b.dial()
	fresh.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	if reply := fresh.login(goodToken(""), "h"); !bytes.Contains(reply, []byte(localAuthDisabled)) {
		t.Errorf("%q", reply)
	}
	if b.dial().plain(rootRule, rootKey) {
		t.Error("SASL PLAIN still works")
	}
	open(webToken)

	set(false)
	open(goodToken("h"))
	if !b.dial().plain(rootRule, rootKey) {
		t.Error("SASL PLAIN does not work again")
	}
}

// login2 is login over the links that it has attached before.
func (p *peer) login2(token, name string) []byte {
	p.Helper()
	p.send(0, append(transfer(100, 9, 0, true, false), request(uintValue(8), "",
		[]string{"operation", "put-token", "type", "jwt", "name", name}, wire.AppendString(nil, token))...))
	_, reply := p.want(wire.DescTransfer)
	return reply
}

// TestLocalAuthDisabledMeanwhile: a link that was being opened is refused, and a
// token that was being looked at.
func TestLocalAuthDisabledMeanwhile(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	for range 50 {
		if err := b.ns.Update(t.Context(), func(s *hub.NamespaceSettings) error { s.DisableLocalAuth = false; return nil }); err != nil {
			t.Fatal(err)
		}
		p := b.dial()
		p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
		p.login(goodToken("h"), "h")
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(time.Duration(time.Now().UnixNano() % 200_000))
			b.ns.Update(t.Context(), func(s *hub.NamespaceSettings) error { s.DisableLocalAuth = true; return nil })
		}()
		p.attachReceiver(2, "h/ConsumerGroups/$Default/Partitions/0")
		list, _ := p.want(wire.DescDetach)
		var d wire.Detach
		if err := d.Decode(list); err != nil || d.Error == nil || d.Error.Condition != "amqp:unauthorized-access" {
			t.Fatalf("%+v, %v", d, err)
		}
		<-done
		p.nc.Close()
	}
}

// TestLocalAuthDisabledSDK: a client that sends and one that waits for events are
// told why they may not go on.
func TestLocalAuthDisabledSDK(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.producer("h")
	b.send(p, "0", "before")
	pc, err := b.consumer("h").NewPartitionClient("0", earliest())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if evs, err := pc.ReceiveEvents(ctx, 1, nil); err != nil || len(evs) != 1 {
		t.Fatalf("%v, %v", evs, err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := pc.ReceiveEvents(ctx, 1, nil)
		waiting <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := b.ns.Update(t.Context(), func(s *hub.NamespaceSettings) error { s.DisableLocalAuth = true; return nil }); err != nil {
		t.Fatal(err)
	}
	batch, err := p.NewEventDataBatch(ctx, nil)
	if err == nil {
		batch.AddEventData(&eh.EventData{Body: []byte("after")}, nil)
		err = p.SendEventDataBatch(ctx, batch, nil)
	}
	for what, err := range map[string]error{"sending": err, "receiving": <-waiting} {
		if err == nil || !strings.Contains(err.Error(), "LocalAuthDisabled") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
