package compat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	goamqp "github.com/Azure/go-amqp"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
)

// memoryBound is what a broker's resident memory stays below, whatever its peers do.
const memoryBound = 150 << 20

// siege is a broker with hostile peers, and a client that behaves.
type siege struct {
	*Broker
	t     *testing.T
	trips atomic.Int64 // events that the client has sent and received
	more  chan struct{}

	mu    sync.Mutex
	peers []io.Closer       // of the case under way
	since int               // where the log was when that began
	stay  []io.Closer       // until the end
	later map[string]ending // how the broker is to close a peer in the end, by address
}

// ending is the reason that the log gives for closing a peer.
type ending struct {
	reason string
	since  int // where the log was before that
}

// TestHostilePeersStayCheap lets all kinds of peers misuse the real binary: its
// memory stays bounded, whom it closes it names in its log, and a client that
// behaves notices nothing.
func TestHostilePeersStayCheap(t *testing.T) {
	s := &siege{Broker: Start(t), t: t, more: make(chan struct{}, 1), later: map[string]ending{}}
	s.Hub("steady", 1)
	ctx, stop := context.WithCancel(t.Context())
	var client sync.WaitGroup
	client.Go(func() { s.behave(ctx) })
	defer client.Wait()
	defer stop()
	defer s.release(&s.stay)
	defer s.release(&s.peers)

	for _, c := range []struct {
		name string
		run  func(*siege)
	}{
		{"garbage", (*siege).garbage},
		{"1,000 idle connections", (*siege).idle},
		{"1,000 connections without a token", (*siege).unauthenticated},
		{"frames that are announced and never come", (*siege).announced},
		{"messages that are begun and never end", (*siege).begun},
		{"5,000 links on a connection", (*siege).links},
		{"requests whose answers nobody reads", (*siege).deaf},
		{"receivers that stop reading", (*siege).stalled},
		{"receivers that stop reading large events", (*siege).stalledLarge},
		{"receivers that take one event each", (*siege).sparing},
		{"huge HTTP headers", (*siege).headers},
		{"slow HTTP headers", (*siege).slowHeaders},
		{"slow HTTP bodies", (*siege).slowBodies},
	} {
		s.resetPeak()
		s.since = len(s.Log())
		c.run(s)
		if t.Failed() {
			t.Fatal(c.name)
		}
		s.awaitTrips(20) // while the peers are there
		rss, peak := s.memory()
		t.Logf("%-45s RSS %4d MB, peak %4d MB, with %d peers", c.name, rss>>20, peak>>20, len(s.peers))
		if peak > memoryBound {
			t.Errorf("%s: the broker took %d MB", c.name, peak>>20)
		}
		s.release(&s.peers)
		s.awaitTrips(20)
	}
	if testing.Short() {
		return // what follows are limits of two minutes
	}
	for addr, x := range s.later {
		s.awaitReason(addr, x.reason, x.since)
	}
	s.awaitTrips(20)
}

// behave sends an event and receives it, over and over.
func (s *siege) behave(ctx context.Context) {
	p, err := eventhubs.NewProducerClientFromConnectionString(s.ConnectionString, "steady", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer closeSoon(p)
	c, err := eventhubs.NewConsumerClientFromConnectionString(s.ConnectionString, "steady", eventhubs.DefaultConsumerGroup, &eventhubs.ConsumerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer closeSoon(c)
	r, err := c.NewPartitionClient("0", &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: new(true)}})
	if err != nil {
		s.t.Error(err)
		return
	}
	defer closeSoon(r)
	for ctx.Err() == nil {
		want := strconv.FormatInt(s.trips.Load(), 10)
		err := func() error {
			batch, err := p.NewEventDataBatch(ctx, nil)
			if err != nil {
				return err
			}
			if err := batch.AddEventData(&eventhubs.EventData{Body: []byte(want)}, nil); err != nil {
				return err
			}
			if err := p.SendEventDataBatch(ctx, batch, nil); err != nil {
				return err
			}
			events, err := r.ReceiveEvents(ctx, 1, nil)
			if err == nil && string(events[0].Body) != want {
				err = fmt.Errorf("received %q", events[0].Body)
			}
			return err
		}()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.t.Errorf("the client that behaves, event %s: %v", want, err)
			return
		}
		s.trips.Add(1)
		select {
		case s.more <- struct{}{}:
		default:
		}
	}
}

// awaitTrips waits until the client that behaves has made n more round trips.
func (s *siege) awaitTrips(n int64) {
	s.t.Helper()
	deadline := time.After(patience)
	for until := s.trips.Load() + n; s.trips.Load() < until; {
		select {
		case <-s.more:
		case <-deadline:
			s.t.Fatal("the client that behaves gets no further")
		}
	}
}

// awaitReason waits for a line in the log that says why a peer was closed. An
// address may have had other peers, at other doors or before: since is where in the
// log to look from.
func (s *siege) awaitReason(addr, reason string, since int) {
	s.t.Helper()
	mark := "peer=" + addr + " "
	var ends []string
	for deadline := time.Now().Add(2*time.Minute + patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ends = nil
		for line := range strings.Lines(s.Log()[since:]) {
			if strings.Contains(line, mark) && strings.Contains(line, "connection ended") {
				if strings.Contains(line, reason) {
					return
				}
				ends = append(ends, line)
			}
		}
	}
	s.t.Fatalf("the log does not say %q of %s, but %q", reason, addr, ends)
}

// memory is the broker's resident memory, and the most since resetPeak.
func (s *siege) memory() (rss, peak int64) {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		s.t.Skip("the memory of a process is read from /proc")
	}
	for line := range bytes.Lines(text) {
		fmt.Sscanf(string(line), "VmRSS: %d kB", &rss)  //nolint:errcheck // most lines are others
		fmt.Sscanf(string(line), "VmHWM: %d kB", &peak) //nolint:errcheck // most lines are others
	}
	return rss << 10, peak << 10
}

// resetPeak lets the peak begin anew; where that is not allowed it is that of
// all cases so far.
func (s *siege) resetPeak() {
	os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.PID()), []byte("5"), 0) //nolint:errcheck // see above
}

func (s *siege) release(peers *[]io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range *peers {
		p.Close()
	}
	*peers = nil
}

func (s *siege) dial(addr string) net.Conn {
	s.t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.peers = append(s.peers, nc)
	s.mu.Unlock()
	return nc
}

// keep lets the last peer stay to the end, when the broker must have closed it.
func (s *siege) keep(nc net.Conn, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = s.peers[:len(s.peers)-1]
	s.stay = append(s.stay, nc)
	s.later[nc.LocalAddr().String()] = ending{reason, s.since}
}

// write sends bytes to a broker that may close the connection at any time.
func write(nc net.Conn, b ...[]byte) { nc.Write(bytes.Join(b, nil)) } //nolint:errcheck // see above

// awaitClosed reads until the broker closes the connection.
func (s *siege) awaitClosed(nc net.Conn) {
	s.t.Helper()
	if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Errorf("%s was not closed", nc.LocalAddr())
	}
}

func frame(channel uint16, body []byte) []byte {
	b, at := wire.BeginFrame(nil, wire.FrameAMQP, channel)
	b = append(b, body...)
	wire.EndFrame(b, at)
	return b
}

// opened is what a peer sends that opens a connection.
var opened = append(append([]byte{}, wire.HeaderAMQP[:]...),
	frame(0, (&wire.Open{ContainerID: "hostile", MaxFrameSize: 65536}).Append(nil))...)

// garbage: a peer that talks nonsense is closed, with a reason in the log, at
// every door.
func (s *siege) garbage() {
	noise := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{1}).Read(noise) //nolint:errcheck // never fails
	var all sync.WaitGroup
	type peer struct{ addr, reason string } // an address may be in use at two doors
	var ends []peer
	send := func(addr string, b []byte, reason string) {
		nc := s.dial(addr)
		write(nc, b)
		all.Go(func() { s.awaitClosed(nc) }) // the broker gives each some time to answer
		if reason != "" {
			ends = append(ends, peer{nc.LocalAddr().String(), reason})
		}
	}
	huge := append(binary.BigEndian.AppendUint32(nil, 1<<31), 2, 0, 0, 0)
	for _, x := range []struct {
		send   []byte
		reason string
	}{
		{[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "too large"},
		{[]byte{0x16, 3, 1, 0, 200, 1, 0, 0}, "too large"},
		{noise, "amqp:"},
		{[]byte("AMQP\x00\x00\x09\x01"), "is not expected here"},
		{frame(0, (&wire.Begin{}).Append(nil)), "before the protocol header"},
		{append(bytes.Clone(opened), huge...), "too large"},
		{append(bytes.Clone(opened), noise...), "amqp:"},
		{append(bytes.Clone(opened), opened...), "is not expected here"},
		{append(bytes.Clone(opened), frame(0, []byte{0, 0x53, 0x11, 0xd0, 0xff, 0xff, 0xff, 0xff})...), "amqp:decode-error"},
	} {
		for range 20 {
			send(s.AMQP, x.send, x.reason)
		}
	}
	for range 20 {
		send(s.AMQPS, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "tls: ")
		for _, addr := range []string{s.HTTP, s.HTTPS, s.Blob} {
			send(addr, append(bytes.Clone(noise), "\r\n\r\n"...), "")
		}
	}
	all.Wait()
	for _, p := range ends {
		s.awaitReason(p.addr, p.reason, s.since)
	}
}

// idle: who connects and says nothing is closed after a while.
func (s *siege) idle() {
	for range 1000 {
		s.dial(s.AMQP)
	}
	s.keep(s.dial(s.AMQP), "did not open the connection")
}

// unauthenticated: who opens a connection, keeps it alive, and shows no token.
func (s *siege) unauthenticated() {
	for range 1000 {
		write(s.dial(s.AMQP), opened)
	}
	nc := s.dial(s.AMQP)
	write(nc, opened)
	s.keep(nc, "was not authorized within")
	go func() {
		for {
			if _, err := nc.Write(frame(0, nil)); err != nil {
				return
			}
			time.Sleep(10 * time.Second)
		}
	}()
}

// announced: a frame of 2 GiB is refused at once; for one that is as large as
// allowed the broker waits, and has not set its memory aside.
func (s *siege) announced() {
	var all sync.WaitGroup
	var refused []string
	for range 200 {
		nc := s.dial(s.AMQP)
		write(nc, opened, []byte{0x80, 0, 0, 0, 2, 0, 0, 0})
		all.Go(func() { s.awaitClosed(nc) })
		refused = append(refused, nc.LocalAddr().String())
	}
	all.Wait()
	for _, addr := range refused {
		s.awaitReason(addr, "too large", s.since)
	}
	for range 1000 {
		write(s.dial(s.AMQP), opened, []byte{0, 1, 0, 0, 2, 0, 0, 0}, make([]byte, 5000))
	}
}

// connect opens a connection as a client with all rights.
func (s *siege) connect(nc net.Conn) *goamqp.Conn {
	s.t.Helper()
	cs, err := auth.ParseConnectionString(s.ConnectionString)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	conn, err := goamqp.NewConn(ctx, nc, &goamqp.ConnOptions{HostName: "localhost", MaxFrameSize: 65536, MaxSessions: 100, SASLType: goamqp.SASLTypePlain(cs.KeyName, cs.Key)})
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

func (s *siege) session(conn *goamqp.Conn) *goamqp.Session {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	session, err := conn.NewSession(ctx, &goamqp.SessionOptions{MaxLinks: 4999})
	if err != nil {
		s.t.Fatal(err)
	}
	return session
}

func text(v string) wire.Value {
	x, _, err := wire.Read(wire.AppendString(nil, v))
	if err != nil {
		panic(err)
	}
	return x
}

func terminus(descriptor byte, address string) wire.Value {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, descriptor), 1)
	b = wire.AppendString(b, address)
	wire.EndCompound(b, at)
	x, _, err := wire.Read(b)
	if err != nil {
		panic(err)
	}
	return x
}

// begun: many large messages are begun and none is finished.
func (s *siege) begun() {
	s.Hub("begun", 4)
	cs, err := auth.ParseConnectionString(s.ConnectionString)
	if err != nil {
		s.t.Fatal(err)
	}
	plain, at := wire.BeginFrame(append([]byte{}, wire.HeaderSASL[:]...), wire.FrameSASL, 0)
	b, list := wire.BeginList(wire.AppendDescriptor(plain, wire.DescInit), 2)
	b = wire.AppendSymbol(b, "PLAIN")
	b = wire.AppendBinary(b, []byte("\x00"+cs.KeyName+"\x00"+cs.Key))
	wire.EndCompound(b, list)
	wire.EndFrame(b, at)
	login := append(b, opened...)
	login = append(login, frame(0, (&wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000}).Append(nil))...)
	part := make([]byte, 60_000)
	for range 40 {
		nc := s.dial(s.AMQP)
		go io.Copy(io.Discard, nc) //nolint:errcheck // until it is closed
		write(nc, login)
		for h := range uint32(14) {
			a := wire.Attach{Name: text("n"), Handle: h, Role: wire.RoleSender, Source: terminus(wire.DescSource, "x"), Target: terminus(wire.DescTarget, "begun")}
			out := frame(0, a.Append(nil))
			for range 16 { // 960,000 bytes
				t, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescTransfer), 6)
				t = wire.AppendUint(wire.AppendUint(t, h), h)
				t = wire.AppendUint(wire.AppendBinary(t, []byte{1}), 0)
				t = wire.AppendBool(wire.AppendBool(t, false), true)
				wire.EndCompound(t, at)
				out = append(out, frame(0, append(t, part...))...)
			}
			write(nc, out)
		}
	}
}

// links opens 5,000 links on each of several connections, and uses the last.
func (s *siege) links() {
	s.Hub("links", 1)
	for range 4 {
		session := s.session(s.connect(s.dial(s.AMQP)))
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		defer cancel()
		var last *goamqp.Sender
		for range 4999 { // the handles of a session
			var err error
			if last, err = session.NewSender(ctx, "links", nil); err != nil {
				s.t.Fatal(err)
			}
		}
		if err := last.Send(ctx, goamqp.NewMessage([]byte("x")), nil); err != nil {
			s.t.Error(err)
		}
	}
}

// deaf: peers that ask and ask, and read no answer.
func (s *siege) deaf() {
	echo := bytes.Repeat(frame(0, (&wire.Flow{IncomingWindow: 1000, OutgoingWindow: 1000, Echo: true}).Append(nil)), 1000)
	for i := range 100 {
		nc := s.dial(s.AMQP)
		write(nc, opened, frame(0, (&wire.Begin{IncomingWindow: 1000, OutgoingWindow: 1000}).Append(nil)))
		if err := nc.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
			s.t.Fatal(err)
		}
		flood := func() {
			for sent := 0; ; sent++ {
				if _, err := nc.Write(echo); err != nil {
					return // the broker has stopped reading
				}
				if sent*len(echo) > 1<<30 {
					s.t.Error("a gigabyte of requests was read, and no answer was")
					return
				}
			}
		}
		if i == 99 {
			flood()
			s.keep(nc, "2m0s")
		} else {
			go flood()
		}
	}
}

// fill makes a hub whose partitions have so many events each.
func (s *siege) fill(name string, partitions, events, size int) {
	s.t.Helper()
	s.Hub(name, partitions)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	p, err := eventhubs.NewProducerClientFromConnectionString(s.ConnectionString, name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer closeSoon(p)
	body := make([]byte, size)
	for partition := range partitions {
		for left := events; left > 0; {
			batch, err := p.NewEventDataBatch(ctx, &eventhubs.EventDataBatchOptions{PartitionID: new(strconv.Itoa(partition))})
			if err != nil {
				s.t.Fatal(err)
			}
			for ; left > 0; left-- {
				if err := batch.AddEventData(&eventhubs.EventData{Body: body}, nil); errors.Is(err, eventhubs.ErrEventDataTooLarge) {
					break
				} else if err != nil {
					s.t.Fatal(err)
				}
			}
			if err := p.SendEventDataBatch(ctx, batch, nil); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// stallable is a connection whose reader can be told to stop.
type stallable struct {
	net.Conn
	stalled, closed chan struct{}
	once            sync.Once
}

// Read implements io.Reader.
func (c *stallable) Read(b []byte) (int, error) {
	select {
	case <-c.stalled:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(b)
	}
}

// Close implements io.Closer.
func (c *stallable) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// stall attaches as many receivers as a hub allows to n consumer groups, each on
// a connection of its own, which stop reading with everything still to be sent.
func (s *siege) stall(hub string, groups int) {
	for g := range groups {
		group := fmt.Sprint("group", g)
		if _, err := s.Admin().CreateGroup(s.t.Context(), hub, group); err != nil {
			s.t.Fatal(err)
		}
		for i := range 20 { // five for each partition
			nc := s.dial(s.AMQP)
			if err := nc.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
				s.t.Fatal(err)
			}
			c := &stallable{Conn: nc, stalled: make(chan struct{}), closed: make(chan struct{})}
			s.mu.Lock()
			s.peers[len(s.peers)-1] = c
			s.mu.Unlock()
			session := s.session(s.connect(c))
			ctx, cancel := context.WithTimeout(s.t.Context(), patience)
			source := fmt.Sprintf("%s/ConsumerGroups/%s/Partitions/%d", hub, group, i%4)
			r, err := session.NewReceiver(ctx, source, &goamqp.ReceiverOptions{
				Credit: -1, Filters: []goamqp.LinkFilter{goamqp.NewSelectorFilter("amqp.annotation.x-opt-offset > '-1'")},
			})
			cancel()
			if err != nil {
				s.t.Fatal(err)
			}
			close(c.stalled)
			if err := r.IssueCredit(1_000_000); err != nil {
				s.t.Fatal(err)
			}
			if g == 0 && i == 19 {
				s.keep(c, "has not read what it was sent")
			}
		}
	}
}

func (s *siege) stalled() {
	s.fill("small", 4, 16_000, 1000)
	s.stall("small", 10)
}

func (s *siege) stalledLarge() {
	s.fill("large", 4, 16, 1_000_000)
	s.stall("large", 10)
}

// sparing: thousands of receivers on few connections, each of which takes one event
// of many that are read at once, and then gives no more credit.
func (s *siege) sparing() {
	const hub, partitions = "sparing", 32
	s.fill(hub, partitions, 2000, 1000)
	for g := range 19 { // beside the default group, as many as a hub may have
		group := fmt.Sprint("group", g)
		if _, err := s.Admin().CreateGroup(s.t.Context(), hub, group); err != nil {
			s.t.Fatal(err)
		}
		session := s.session(s.connect(s.dial(s.AMQP)))
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		defer cancel()
		for i := range 5 * partitions {
			r, err := session.NewReceiver(ctx, fmt.Sprintf("%s/ConsumerGroups/%s/Partitions/%d", hub, group, i%partitions), &goamqp.ReceiverOptions{
				Credit: -1, Filters: []goamqp.LinkFilter{goamqp.NewSelectorFilter("amqp.annotation.x-opt-offset > '-1'")},
			})
			if err == nil {
				err = r.IssueCredit(1)
			}
			if err == nil {
				_, err = r.Receive(ctx, nil)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// headers: a request whose headers are too large is refused, and those that are
// just not too large cost what they may.
func (s *siege) headers() {
	block := []byte("X-Header: " + strings.Repeat("x", 1000) + "\r\n")
	for _, addr := range []string{s.HTTP, s.Blob} {
		for range 100 {
			nc := s.dial(addr)
			write(nc, []byte("GET /health HTTP/1.1\r\nHost: x\r\n"))
			answer := make(chan error, 1)
			go func() {
				r, err := http.ReadResponse(bufio.NewReader(nc), nil)
				if err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
					err = errors.New(r.Status)
				}
				answer <- err
			}()
			for range 10_000 {
				if _, err := nc.Write(block); err != nil {
					break // it has been refused
				}
			}
			if err := <-answer; err != nil && !strings.Contains(err.Error(), "reset") {
				s.t.Errorf("huge headers: %v", err)
			}
		}
		for range 250 {
			write(s.dial(addr), []byte("GET /health HTTP/1.1\r\nHost: x\r\n"), bytes.Repeat(block, 60))
		}
	}
}

// slowHeaders: requests that come a byte at a time, and in the end are given up.
func (s *siege) slowHeaders() {
	s.trickle("GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", s.HTTP, s.Blob)
}

// slowBodies: the same for the body of a request that is not allowed.
func (s *siege) slowBodies() {
	s.trickle("PUT /devstoreaccount1/c/b HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n", s.HTTP, s.Blob)
}

// trickle sends a beginning and then a byte now and then, on 500 connections to
// each address, until the broker closes them.
func (s *siege) trickle(begin string, addrs ...string) {
	var all sync.WaitGroup
	for _, addr := range addrs {
		for range 500 {
			nc := s.dial(addr)
			write(nc, []byte(begin))
			all.Go(func() { s.awaitClosed(nc) })
			go func() {
				for {
					if _, err := nc.Write([]byte("x")); err != nil {
						return
					}
					time.Sleep(500 * time.Millisecond)
				}
			}()
		}
	}
	all.Wait()
}
