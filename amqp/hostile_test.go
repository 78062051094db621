package amqp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	eh "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	goamqp "github.com/Azure/go-amqp"

	"github.com/millrace/millrace/amqp"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/store/segment"
)

// TestGarbage: a peer that talks nonsense is closed, with a reason in the log.
func TestGarbage(t *testing.T) {
	var told lockedBuffer
	b := start(t, func(b *broker) {
		b.opts = func(o *amqp.Options) { o.Logger = slog.New(slog.NewTextHandler(&told, nil)) }
	})
	huge := binary.BigEndian.AppendUint32(nil, 1<<31)
	huge = append(huge, 2, 0, 0, 0)
	noise := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	open := (&wire.Open{ContainerID: "c", MaxFrameSize: 65536}).Append(nil)
	garbage := map[string][]byte{
		"HTTP":                     []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":                      {0x16, 3, 1, 0, 200, 1, 0, 0},
		"noise":                    noise,
		"AMQP 0.9":                 []byte("AMQP\x00\x00\x09\x01"),
		"a frame before a header":  framed(0, open),
		"a huge frame":             append(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, open)...), huge...),
		"noise after the open":     append(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, open)...), noise...),
		"a begin before the open":  append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, (&wire.Begin{}).Append(nil))...),
		"a second open":            append(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, open)...), framed(0, open)...),
		"a small max-frame-size":   append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, (&wire.Open{ContainerID: "c", MaxFrameSize: 100}).Append(nil))...),
		"a frame with a bad body":  append(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, open)...), framed(0, []byte{0, 0x53, 0x11, 0xd0, 0xff, 0xff, 0xff, 0xff})...),
		"a SASL frame after open":  append(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, open)...), 0, 0, 0, 9, 2, 1, 0, 0, 0x40),
		"the TLS upgrade's header": wire.HeaderTLS[:],
	}
	t.Run("peers", func(t *testing.T) {
		for name, x := range garbage {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // each waits for the broker to give up on its close
				p := b.dial()
				p.TB = t
				p.write(x)
				p.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := io.Copy(io.Discard, p.nc); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Errorf("the connection was not closed: %v", err)
				}
			})
		}
	})
	b.down()
	if n := strings.Count(told.String(), "connection ended"); n < 13 {
		t.Errorf("%d of 13 ends are in the log:\n%s", n, told.String())
	}
}

// TestGarbageForTLS: the log says why a peer got no further than TLS, and nothing
// of one that only looked whether somebody listens.
func TestGarbageForTLS(t *testing.T) {
	var told lockedBuffer
	b := start(t, func(b *broker) {
		b.opts = func(o *amqp.Options) { o.Logger = slog.New(slog.NewTextHandler(&told, nil)) }
	})
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.server.Serve(tls.NewListener(ln, &tls.Config{Certificates: web.TLS.Certificates})) }()
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	plain := dial()
	plain.Write(wire.HeaderAMQP[:]) //nolint:errcheck // the read meets the error
	io.Copy(io.Discard, plain)      //nolint:errcheck // until it is closed
	wary := dial()
	if err := tls.Client(wary, &tls.Config{ServerName: "example.com"}).HandshakeContext(t.Context()); err == nil {
		t.Error("a certificate that nobody signed was trusted")
	}
	io.Copy(io.Discard, wary) //nolint:errcheck // until it is closed
	dial().Close()
	if nc := dial().(*net.TCPConn); nc.SetLinger(0) == nil {
		nc.Close() // resets it
	}
	ln.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	b.down()
	log := told.String()
	if strings.Count(log, "connection ended") != 2 || !strings.Contains(log, "tls: first record does not look like a TLS handshake") || !strings.Contains(log, "tls: bad certificate") {
		t.Errorf("the log is\n%s", log)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestManyLinks opens 5,000 links on a connection, and uses the last.
func TestManyLinks(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	const n = 4000
	go func() {
		for h := range uint32(n) {
			a := wire.Attach{Name: str("same name"), Handle: 200 + h, Role: wire.RoleSender,
				Source: terminus(wire.DescSource, "x"), Target: terminus(wire.DescTarget, "h")}
			if _, err := p.nc.Write(framed(0, a.Append(nil))); err != nil {
				return
			}
		}
	}()
	for range n {
		p.want(wire.DescAttach)
	}
	p.send(0, append(transfer(200+n-1, 1, 0, false, false), data([]byte("x"))...))
	p.want(wire.DescDisposition)
}

// TestPartialFlood: a peer that begins many large messages and finishes none is
// closed before it has used much memory.
func TestPartialFlood(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	part := make([]byte, 60_000)
	go func() {
		for h := range uint32(100) {
			a := wire.Attach{Name: str("n"), Handle: h, Role: wire.RoleSender, Source: terminus(wire.DescSource, "x"), Target: terminus(wire.DescTarget, "h")}
			out := framed(0, a.Append(nil))
			for range 16 {
				out = append(out, framed(0, append(transfer(h, h, 0, false, true), part...))...)
			}
			if _, err := p.nc.Write(out); err != nil {
				return
			}
		}
	}()
	p.wantClose("amqp:resource-limit-exceeded")
}

// TestPartialFloodOfMany: when all peers together have begun too much, the one that
// has begun most is closed, and not the one that comes next.
func TestPartialFloodOfMany(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	part := make([]byte, 60_000)
	var greedy []*peer
	for i := range 5 {
		p := b.dial()
		p.open(&wire.Open{ContainerID: "greedy", MaxFrameSize: 65536})
		p.login(goodToken("h"), "h")
		links := uint32(14) // 13 MB, less than one may have
		if i == 4 {
			links-- // all together are just below the limit
		}
		for h := range links {
			p.attachSender(h, "h")
			for range 16 {
				p.send(0, append(transfer(h, h, 0, false, true), part...))
			}
		}
		p.attachSender(99, "h") // so that what came before is taken
		greedy = append(greedy, p)
	}
	polite := b.dial()
	polite.open(&wire.Open{ContainerID: "polite", MaxFrameSize: 65536})
	polite.login(goodToken("h"), "h")
	polite.attachSender(1, "h")
	message := data(make([]byte, 1_000_000))
	for len(message) > len(part) {
		polite.send(0, append(transfer(1, 1, 0, false, true), message[:len(part)]...))
		message = message[len(part):]
	}
	polite.send(0, append(transfer(1, 1, 0, false, false), message...))
	polite.want(wire.DescDisposition)
	closed := make(chan struct{}, len(greedy))
	for _, p := range greedy {
		go func() {
			for {
				f, err := p.read()
				if err != nil {
					return
				}
				if desc, list, _, err := wire.ReadPerformative(f.Body); err == nil && desc == wire.DescClose {
					if e := wire.DecodeEnding(list); e != nil && e.Condition == "amqp:resource-limit-exceeded" {
						closed <- struct{}{}
					}
					return
				}
			}
		}()
	}
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("none of those that began too much was closed")
	}
}

// TestLargeEventsPutAside: receivers of large events that take no more than a
// part of one hold little memory all together, and get the rest of it later. One
// that takes what comes is not kept from it.
func TestLargeEventsPutAside(t *testing.T) {
	b := start(t)
	b.hub("h", 4)
	body := func(partition, i int) string {
		noise := make([]byte, 1_000_000)
		rand.NewChaCha8([32]byte{byte(partition), byte(i)}).Read(noise)
		return string(noise)
	}
	const events = 3
	producer := b.producer("h")
	for partition := range 4 {
		for i := range events {
			b.send(producer, fmt.Sprint(partition), body(partition, i))
		}
	}
	flow := func(p *peer, window uint32, begin *wire.Begin) {
		opt := func(n uint32) wire.Optional { return wire.Optional{Value: n, Set: true} }
		p.send(1, (&wire.Flow{NextIncomingID: opt(begin.NextOutgoingID), IncomingWindow: window, OutgoingWindow: 1000,
			Handle: opt(1), DeliveryCount: opt(0), LinkCredit: opt(100)}).Append(nil))
	}
	var lazy []*peer
	var begun []*wire.Begin
	for i := range 16 { // with 3 MB each, this is more than all may hold
		p := b.dial()
		p.open(&wire.Open{ContainerID: "lazy", MaxFrameSize: 65536})
		p.login(goodToken("h"), "h")
		p.send(1, (&wire.Begin{IncomingWindow: 3, OutgoingWindow: 1000}).Append(nil))
		list, _ := p.want(wire.DescBegin)
		var begin wire.Begin
		if err := begin.Decode(list); err != nil {
			t.Fatal(err)
		}
		p.send(1, (&wire.Attach{Name: str("r"), Handle: 1, Role: wire.RoleReceiver,
			Source: terminus(wire.DescSource, fmt.Sprintf("h/ConsumerGroups/$Default/Partitions/%d", i%4)), Target: terminus(wire.DescTarget, "x")}).Append(nil))
		p.want(wire.DescAttach)
		flow(p, 3, &begin)
		lazy, begun = append(lazy, p), append(begun, &begin)
	}
	parts := make([][]byte, len(lazy))
	for i, p := range lazy {
		for range 3 {
			_, payload := p.want(wire.DescTransfer)
			parts[i] = append(parts[i], payload...)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := b.consumer("h").NewPartitionClient("0", &eh.PartitionClientOptions{StartPosition: eh.StartPosition{Earliest: new(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(ctx)
	got, err := r.ReceiveEvents(ctx, events, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range got {
		if string(e.Body) != body(0, i) {
			t.Errorf("event %d has come wrong", i)
		}
	}

	for i, p := range lazy {
		flow(p, 1000, begun[i])
		for n := range events {
			for {
				list, payload := p.want(wire.DescTransfer)
				parts[i] = append(parts[i], payload...)
				var x wire.Transfer
				if err := x.Decode(list); err != nil {
					t.Fatal(err)
				}
				if !x.More {
					break
				}
			}
			if want := data([]byte(body(i%4, n))); !bytes.HasSuffix(parts[i], want) || len(parts[i]) > len(want)+500 {
				t.Errorf("receiver %d: event %d has come wrong: %d bytes", i, n, len(parts[i]))
			}
			parts[i] = nil
		}
	}
}

// TestSparingReceivers: receivers that take one event of the many that were read
// with it, and then give no credit, hold little memory all together.
func TestSparingReceivers(t *testing.T) {
	b := start(t)
	b.hub("h", 4)
	producer := b.producer("h")
	for i := range 4 * 8 {
		b.send(producer, fmt.Sprint(i%4), slices.Repeat([]string{strings.Repeat("x", 1000)}, 100)...)
	}
	addr := b.addr
	b.down()
	b.up(addr) // so that nothing is in memory yet, which receivers could share
	h, err := b.ns.EventHub("h")
	if err != nil {
		t.Fatal(err)
	}
	live := func() uint64 {
		runtime.GC()
		runtime.GC() // what pools keep
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	const groups, each = 19, 20 // with 128 KiB each, this is twice what all may hold
	for g := range groups {
		name := fmt.Sprint("g", g)
		if err := h.CreateGroup(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		p := b.dial()
		p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
		p.login(goodToken("h"), "h")
		for i := range uint32(each) {
			p.attachReceiver(i, fmt.Sprintf("h/ConsumerGroups/%s/Partitions/%d", name, i%4))
			p.credit(i, 1)
			p.want(wire.DescTransfer)
		}
	}
	const want = 30 << 20
	var now uint64
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if now = live(); now < before+want { // what is being read ahead is given back soon
			return
		}
	}
	t.Errorf("%d receivers without credit hold %d MB", groups*each, (now-before)>>20)
}

// TestWithoutReading: a peer that sends requests and reads no reply is not read
// from for ever.
func TestWithoutReading(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.nc.SetWriteDeadline(time.Now().Add(2 * time.Second))
	echo := framed(0, (&wire.Flow{IncomingWindow: 1000, OutgoingWindow: 1000, Echo: true}).Append(nil))
	block := bytes.Repeat(echo, 1000)
	sent := 0
	for sent < 1<<30 {
		n, err := p.nc.Write(block)
		sent += n
		if err != nil {
			return // the broker has stopped to read
		}
	}
	t.Errorf("%d bytes of requests were read, and no answer was", sent)
}

// TestSmallFrames has a client that takes frames of 512 bytes.
func TestSmallFrames(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	big := bytes.Repeat([]byte("0123456789"), 90_000)
	b.send(b.producer("h"), "0", string(big))
	for _, size := range []uint32{512, 4096, 65536} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		conn, err := goamqp.Dial(ctx, "amqp://"+b.addr, &goamqp.ConnOptions{MaxFrameSize: size, SASLType: goamqp.SASLTypePlain(rootRule, rootKey)})
		if err != nil {
			t.Fatal(err)
		}
		s, err := conn.NewSession(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.NewReceiver(ctx, "h/ConsumerGroups/$Default/Partitions/0", &goamqp.ReceiverOptions{Credit: 1})
		if err != nil {
			t.Fatal(err)
		}
		m, err := r.Receive(ctx, nil)
		if err != nil || !bytes.Equal(m.GetData(), big) {
			t.Errorf("frames of %d: %v", size, err)
		}
		snd, err := s.NewSender(ctx, "h", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := snd.Send(ctx, &goamqp.Message{Data: [][]byte{big}}, nil); err != nil {
			t.Errorf("frames of %d: %v", size, err)
		}
		conn.Close()
		cancel()
	}
}

// TestDrain: unused credit is given back.
func TestDrain(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	b.send(b.producer("h"), "0", "one", "two")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := goamqp.Dial(ctx, "amqp://"+b.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain(rootRule, rootKey)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.NewReceiver(ctx, "h/ConsumerGroups/$Default/Partitions/0", &goamqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.IssueCredit(10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Receive(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.DrainCredit(ctx, nil); err != nil {
		t.Fatal(err)
	}
	b.send(b.producer("h"), "0", "three")
	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if m, err := r.Receive(short, nil); err == nil {
		t.Errorf("without credit came %q", m.GetData())
	}
	if err := r.IssueCredit(1); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Receive(ctx, nil); err != nil || string(m.GetData()) != "three" {
		t.Errorf("%v, %v", m, err)
	}
}

// TestPlainRefused: a wrong password is told at once.
func TestPlainRefused(t *testing.T) {
	b := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if conn, err := goamqp.Dial(ctx, "amqp://"+b.addr, &goamqp.ConnOptions{SASLType: goamqp.SASLTypePlain(rootRule, "wrong")}); err == nil {
		conn.Close()
		t.Error("a wrong password was accepted")
	}
}

// bubble is a server on pipes, in virtual time.
type bubble struct {
	t      *testing.T
	all    *hub.Namespaces
	store  *segment.Store
	server *amqp.Server
}

func newBubble(t *testing.T) *bubble {
	b := &bubble{t: t}
	var err error
	b.store, err = segment.Open(t.Context(), segment.Options{Disk: sim.NewDisk(), KV: segment.NewMemoryKV(), JournalBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	b.all, err = hub.Open(t.Context(), hub.Options{Store: b.store, Rules: []hub.Rule{{Name: rootRule, Rights: auth.Manage, Primary: rootKey}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.all.Default().CreateEventHub(t.Context(), "h", 1, hub.Settings{}); err != nil {
		t.Fatal(err)
	}
	v, err := auth.NewVerifier(auth.Options{Keys: b.all})
	if err != nil {
		t.Fatal(err)
	}
	b.server = amqp.NewServer(amqp.Options{Namespaces: b.all, Verifier: v})
	return b
}

func (b *bubble) dial() *peer {
	client, server := net.Pipe()
	go b.server.ServeConn(server)
	return &peer{TB: b.t, nc: client}
}

func (b *bubble) stop() {
	if err := b.server.Shutdown(context.Background()); err != nil {
		b.t.Error(err)
	}
	b.all.Close()
	b.store.Close()
}

// TestIdle: ten minutes in which nothing happens end no connection of a client
// that keeps its own side of the bargain.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		client, server := net.Pipe()
		go b.server.ServeConn(server)
		conn, err := goamqp.NewConn(t.Context(), client, &goamqp.ConnOptions{IdleTimeout: 30 * time.Second, SASLType: goamqp.SASLTypePlain(rootRule, rootKey)})
		if err != nil {
			t.Fatal(err)
		}
		s, err := conn.NewSession(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.NewReceiver(t.Context(), "h/ConsumerGroups/$Default/Partitions/0", &goamqp.ReceiverOptions{Credit: 10})
		if err != nil {
			t.Fatal(err)
		}
		snd, err := s.NewSender(t.Context(), "h", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if err := snd.Send(t.Context(), goamqp.NewMessage([]byte("x")), nil); err != nil {
			t.Fatal(err)
		}
		if m, err := r.Receive(t.Context(), nil); err != nil || string(m.GetData()) != "x" {
			t.Fatal(m, err)
		}
		conn.Close()
		b.stop()
	})
}

// TestSilence: who says nothing is given up: before the open after 20 seconds,
// then after the announced two minutes; and who shows no token after two.
func TestSilence(t *testing.T) {
	for name, x := range map[string]struct {
		open  bool
		beats bool
		after time.Duration
		cond  string
	}{
		"nothing at all":    {after: 20 * time.Second},
		"after the open":    {open: true, after: 2 * time.Minute, cond: "amqp:connection:forced"},
		"without any token": {open: true, beats: true, after: 2 * time.Minute, cond: "amqp:connection:forced"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				p := b.dial()
				p.TB = t
				begin := time.Now()
				if x.open {
					go p.nc.Write(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, (&wire.Open{ContainerID: "c", MaxFrameSize: 65536}).Append(nil))...)) //nolint:errcheck // the reader meets the error
					p.header(wire.HeaderAMQP)
					p.want(wire.DescOpen)
				}
				if x.beats {
					go func() {
						for {
							if _, err := p.nc.Write(framed(0, nil)); err != nil {
								return
							}
							time.Sleep(30 * time.Second)
						}
					}()
				}
				if x.cond != "" {
					list, _ := p.wantAny(wire.DescClose)
					if e := wire.DecodeEnding(list); e == nil || e.Condition != x.cond {
						t.Errorf("closed with %v", e)
					}
				}
				if x.cond != "" {
					if got := time.Since(begin); got < x.after || got > x.after+10*time.Second {
						t.Errorf("closed after %s, want %s", got, x.after)
					}
				}
				io.Copy(io.Discard, p.nc) //nolint:errcheck // until it is closed
				p.nc.Close()
				if got := time.Since(begin); got < x.after || got > x.after+20*time.Second {
					t.Errorf("the socket was closed after %s, want %s", got, x.after)
				}
				time.Sleep(time.Minute)
				b.stop()
			})
		})
	}
}

// TestTokenExpires: a link whose token has run out, and not been renewed, is
// detached; one whose token was renewed lives on.
func TestTokenExpires(t *testing.T) {
	for _, renew := range []bool{false, true} {
		t.Run(fmt.Sprint("renewed ", renew), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				p := b.dial()
				p.TB = t
				begin := time.Now()
				go p.nc.Write(append(append([]byte{}, wire.HeaderAMQP[:]...), framed(0, (&wire.Open{ContainerID: "c", MaxFrameSize: 65536}).Append(nil))...)) //nolint:errcheck // the reader meets the error
				p.header(wire.HeaderAMQP)
				p.want(wire.DescOpen)
				p.send(0, (&wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000}).Append(nil))
				p.want(wire.DescBegin)
				p.login(auth.SignSAS("h", rootRule, rootKey, begin.Add(10*time.Minute)), "h")
				p.attachSender(1, "h")
				p.attachReceiver(2, "h/ConsumerGroups/$Default/Partitions/0")
				stop := make(chan struct{})
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(30 * time.Second):
							p.nc.Write(framed(0, nil)) //nolint:errcheck // the reader meets the error
						}
					}
				}()
				if renew {
					p.credit(101, 10)
					p.send(0, append(transfer(100, 5, 0, true, false), request(uintValue(8), "",
						[]string{"operation", "put-token", "type", "jwt", "name", "sb://other/H"}, wire.AppendString(nil, auth.SignSAS("h", rootRule, rootKey, begin.Add(time.Hour))))...))
					p.want(wire.DescTransfer)
					time.Sleep(30 * time.Minute)
					p.send(0, append(transfer(1, 6, 0, false, false), data([]byte("x"))...))
					p.want(wire.DescDisposition)
				} else {
					for range 2 {
						list, _ := p.want(wire.DescDetach)
						var d wire.Detach
						if err := d.Decode(list); err != nil || !d.Closed || d.Error == nil || d.Error.Condition != "amqp:unauthorized-access" {
							t.Errorf("%+v, %v", d, err)
						}
					}
					if got := time.Since(begin); got < 11*time.Minute || got > 12*time.Minute {
						t.Errorf("detached after %s", got)
					}
				}
				close(stop)
				time.Sleep(31 * time.Second)
				p.nc.Close()
				b.stop()
			})
		})
	}
}

// TestShutdown: a close that makes every SDK reconnect, after what was sent has
// been acknowledged.
func TestShutdown(t *testing.T) {
	b := start(t)
	b.hub("h", 1)
	p := b.dial()
	p.open(&wire.Open{ContainerID: "c", MaxFrameSize: 65536})
	p.login(goodToken("h"), "h")
	p.attachSender(1, "h")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.down()
	}()
	p.wantClose("amqp:connection:forced")
	<-done
}
