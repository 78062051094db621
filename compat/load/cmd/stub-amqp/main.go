// stub-amqp is the cheapest AMQP 1.0 server that the Event Hubs SDK accepts:
// it answers CBS and $management, acknowledges every transfer without storing
// it, and sends prebuilt events to receivers as fast as credit allows. What a
// client costs against it is that client's own floor.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	w "github.com/millrace/millrace/compat/load/internal/amqpwire"
	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/Azure/go-amqp"
)

var (
	size      = flag.Int("size", 1024, "payload of the events sent to receivers")
	parts     = flag.Int("partitions", 8, "partition count told to clients")
	credit    = flag.Uint("credit", 1000, "credit granted to senders")
	frameMax  = flag.Uint("max-frame", 65536, "max-frame-size")
	settled   = flag.Bool("settled", true, "send events to receivers settled")
	transfers atomic.Int64
	bytesIn   atomic.Int64
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5680", "listen address")
	verbose := flag.Bool("v", false, "print counters every second")
	flag.Parse()
	ln, err := net.Listen("tcp", *addr)
	lg.Die(err)
	fmt.Println("ready", ln.Addr())
	if *verbose {
		go func() {
			for range time.Tick(time.Second) {
				fmt.Println("deliveries", transfers.Load(), "bytes", bytesIn.Load())
			}
		}()
	}
	for {
		c, err := ln.Accept()
		lg.Die(err)
		go func() {
			if err := serve(c); err != nil && err != io.EOF {
				fmt.Println("conn:", err)
			}
			c.Close()
		}()
	}
}

type link struct {
	handle      uint32
	addr        string
	out         bool // we send
	count       uint32
	credit      uint32 // out: credit left; in: credit left at the sender
	first, last uint32
	pend        bool
	cur         uint32 // delivery-id of the delivery in progress
	buf         []byte // only for $cbs and $management
	tmpl        []byte
	seqAt       int
}

type session struct {
	ch              uint16
	links           map[uint32]*link
	nextIn, nextOut uint32
	did             uint32
}

type conn struct {
	r        *bufio.Reader
	c        net.Conn
	w        w.Writer
	sessions map[uint16]*session
	peerMax  uint32
}

func serve(c net.Conn) error {
	s := &conn{r: bufio.NewReaderSize(c, 256<<10), c: c, sessions: map[uint16]*session{}, peerMax: 65536}
	var hdr [8]byte
	if _, err := io.ReadFull(s.r, hdr[:]); err != nil {
		return err
	}
	if hdr[4] == 3 {
		s.w.B = append(s.w.B, hdr[:]...)
		s.w.Frame(1, 0, func() {
			s.w.Desc(0x40)
			s.w.List(1, func() { // array of symbol: ANONYMOUS, PLAIN, EXTERNAL
				body := []byte{3, 0xa3}
				for _, m := range []string{"ANONYMOUS", "PLAIN", "EXTERNAL"} {
					body = append(append(body, byte(len(m))), m...)
				}
				s.w.B = append(append(s.w.B, 0xe0, byte(len(body))), body...)
			})
		})
		if err := s.flush(); err != nil {
			return err
		}
		if _, _, err := s.frame(); err != nil {
			return err
		}
		s.w.Frame(1, 0, func() { s.w.Desc(0x44); s.w.List(1, func() { s.w.UB(0) }) })
		if err := s.flush(); err != nil {
			return err
		}
		if _, err := io.ReadFull(s.r, hdr[:]); err != nil {
			return err
		}
	}
	s.w.B = append(s.w.B, hdr[:]...)
	for {
		if s.r.Buffered() < 8 {
			s.acks()
			if err := s.flush(); err != nil {
				return err
			}
		}
		ch, body, err := s.frame()
		if err != nil {
			return err
		}
		if len(body) == 0 {
			continue
		}
		if err := s.handle(ch, body); err != nil {
			return err
		}
		if len(s.w.B) > 128<<10 {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
}

func (s *conn) flush() error {
	if len(s.w.B) == 0 {
		return nil
	}
	_, err := s.c.Write(s.w.B)
	s.w.B = s.w.B[:0]
	return err
}

var frameBuf = 256 << 10

func (s *conn) frame() (uint16, []byte, error) {
	h, err := s.r.Peek(8)
	if err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(h))
	ch := binary.BigEndian.Uint16(h[6:])
	doff := int(h[4]) * 4
	if n < 8 || n > frameBuf {
		return 0, nil, fmt.Errorf("frame of %d bytes", n)
	}
	b, err := s.r.Peek(n)
	if err != nil {
		return 0, nil, err
	}
	s.r.Discard(n) // b stays valid until the next read
	return ch, b[doff:], nil
}

// acks sends one disposition per link that has unacknowledged deliveries, and
// tops up credit.
func (s *conn) acks() {
	for _, ss := range s.sessions {
		for _, l := range ss.links {
			if l.out {
				continue
			}
			if l.pend {
				s.w.Frame(0, ss.ch, func() {
					s.w.Desc(0x15)
					s.w.List(5, func() {
						s.w.Bool(true)
						s.w.U(l.first)
						s.w.U(l.last)
						s.w.Bool(true)
						s.w.Desc(0x24)
						s.w.B = append(s.w.B, 0x45)
					})
				})
				l.pend = false
			}
			if l.credit < uint32(*credit)/2 {
				s.grant(ss, l)
			}
		}
	}
}

func (s *conn) grant(ss *session, l *link) {
	l.credit = uint32(*credit)
	s.w.Frame(0, ss.ch, func() {
		s.w.Desc(0x13)
		s.w.List(7, func() {
			s.w.U(ss.nextIn)
			s.w.U(1 << 30)
			s.w.U(ss.nextOut)
			s.w.U(1 << 30)
			s.w.U(l.handle)
			s.w.U(l.count)
			s.w.U(l.credit)
		})
	})
}

func (s *conn) handle(ch uint16, body []byte) error {
	v, desc, n, err := w.Read(body)
	if err != nil {
		return err
	}
	var f w.Fields
	if err := f.List(v); err != nil {
		return err
	}
	ss := s.sessions[ch]
	switch desc {
	case 0x10: // open
		if x := f.V[2]; !x.Null() {
			s.peerMax = uint32(x.Uint())
		}
		s.w.Frame(0, 0, func() {
			s.w.Desc(0x10)
			s.w.List(4, func() { s.w.Str("stub"); s.w.Null(); s.w.U(uint32(*frameMax)); s.w.US(4095) })
		})
	case 0x11: // begin
		s.sessions[ch] = &session{ch: ch, links: map[uint32]*link{}, nextIn: uint32(f.V[1].Uint())}
		s.w.Frame(0, ch, func() {
			s.w.Desc(0x11)
			s.w.List(5, func() { s.w.US(ch); s.w.U(0); s.w.U(1 << 30); s.w.U(1 << 30); s.w.U(4095) })
		})
	case 0x12: // attach
		l := &link{handle: uint32(f.V[1].Uint()), out: f.V[2].Bool()}
		addr := f.V[6]
		if l.out {
			addr = f.V[5]
		}
		var af w.Fields
		if in, _, _, err := w.Read(addr.Full); err == nil {
			_ = af.List(in)
			l.addr = af.V[0].Str()
		}
		ss.links[l.handle] = l
		if l.out && !strings.HasPrefix(l.addr, "$") && !strings.Contains(l.addr, "$management") && !strings.Contains(l.addr, "$cbs") {
			l.tmpl, l.seqAt = template(*size)
		}
		s.w.Frame(0, ch, func() {
			s.w.Desc(0x12)
			s.w.List(11, func() {
				s.w.Raw(f.V[0].Full)
				s.w.U(l.handle)
				s.w.Bool(!l.out)
				s.w.Raw(f.V[3].Full)
				s.w.UB(0)
				s.w.Raw(f.V[5].Full)
				s.w.Raw(f.V[6].Full)
				s.w.Null()
				s.w.Null()
				if l.out {
					s.w.U(0)
				} else {
					s.w.Null()
				}
				s.w.UL(1 << 20)
			})
		})
		if !l.out {
			s.grant(ss, l)
		}
	case 0x13: // flow
		if f.V[4].Null() {
			return nil
		}
		l := ss.links[uint32(f.V[4].Uint())]
		if l == nil || !l.out {
			return nil
		}
		l.credit = uint32(f.V[5].Uint()) + uint32(f.V[6].Uint()) - l.count
		if l.tmpl != nil {
			return s.pump(ss, l)
		}
	case 0x14: // transfer
		l := ss.links[uint32(f.V[0].Uint())]
		if l == nil {
			return fmt.Errorf("transfer on unknown handle")
		}
		ss.nextIn++
		if !f.V[1].Null() {
			l.cur = uint32(f.V[1].Uint())
		}
		bytesIn.Add(int64(len(body) - n))
		rpc := strings.Contains(l.addr, "$cbs") || strings.Contains(l.addr, "$management")
		if rpc {
			l.buf = append(l.buf, body[n:]...)
		}
		if f.V[5].Bool() { // more
			return nil
		}
		l.count++
		l.credit--
		transfers.Add(1)
		if !f.V[4].Bool() {
			if l.pend && l.last+1 != l.cur {
				s.acks()
			}
			if !l.pend {
				l.first = l.cur
			}
			l.last, l.pend = l.cur, true
		}
		if rpc {
			s.acks()
			err := s.rpc(ss, l)
			l.buf = l.buf[:0]
			return err
		}
	case 0x15: // disposition
	case 0x16: // detach
		s.w.Frame(0, ch, func() { s.w.Desc(0x16); s.w.List(2, func() { s.w.U(uint32(f.V[0].Uint())); s.w.Bool(true) }) })
		delete(ss.links, uint32(f.V[0].Uint()))
	case 0x17: // end
		s.acks()
		s.w.Frame(0, ch, func() { s.w.Desc(0x17); s.w.List(0, func() {}) })
		delete(s.sessions, ch)
	case 0x18: // close
		s.w.Frame(0, 0, func() { s.w.Desc(0x18); s.w.List(0, func() {}) })
		_ = s.flush()
		return io.EOF
	}
	return nil
}

// template is an encoded Event Hubs event and where its sequence number lies.
func template(size int) ([]byte, int) {
	var b w.Writer
	at := 0
	b.Desc(0x72)
	b.Map(6, func() {
		b.Sym("x-opt-sequence-number")
		b.L(0)
		at = len(b.B) - 8
		b.Sym("x-opt-offset")
		b.Str("123456789012")
		b.Sym("x-opt-enqueued-time")
		b.TS(time.Now().UnixMilli())
	})
	b.Desc(0x75)
	b.Bin(make([]byte, size))
	return b.B, at
}

func (s *conn) pump(ss *session, l *link) error {
	for l.credit > 0 {
		binary.BigEndian.PutUint64(l.tmpl[l.seqAt:], uint64(l.count))
		s.transfer(ss, l, l.tmpl, *settled)
		if len(s.w.B) > 128<<10 {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *conn) transfer(ss *session, l *link, msg []byte, settled bool) {
	first := true
	for first || len(msg) > 0 {
		n := min(len(msg), int(min(s.peerMax, 65536))-64)
		more := n < len(msg)
		s.w.Frame(0, ss.ch, func() {
			s.w.Desc(0x14)
			s.w.List(6, func() {
				s.w.U(l.handle)
				if first {
					s.w.U(ss.did)
					var tag [4]byte
					binary.BigEndian.PutUint32(tag[:], ss.did)
					s.w.Bin(tag[:])
					s.w.U(0)
				} else {
					s.w.Null()
					s.w.Null()
					s.w.Null()
				}
				s.w.Bool(settled)
				s.w.Bool(more)
			})
			s.w.B = append(s.w.B, msg[:n]...)
		})
		ss.nextOut++
		msg = msg[n:]
		first = false
	}
	ss.did++
	l.count++
	l.credit--
	transfers.Add(1)
}

// rpc answers a CBS or management request on the paired receiving link.
func (s *conn) rpc(ss *session, in *link) error {
	var m amqp.Message
	if err := m.UnmarshalBinary(append([]byte(nil), in.buf...)); err != nil {
		return err
	}
	resp := &amqp.Message{
		Properties:            &amqp.MessageProperties{CorrelationID: m.Properties.MessageID},
		ApplicationProperties: map[string]any{"status-code": int32(202), "status-description": "Accepted"},
	}
	if m.ApplicationProperties["operation"] == "READ" {
		resp.ApplicationProperties["status-code"] = int32(200)
		switch m.ApplicationProperties["type"] {
		case "com.microsoft:eventhub":
			ids := make([]string, *parts)
			for i := range ids {
				ids[i] = fmt.Sprint(i)
			}
			resp.Value = map[string]any{"name": m.ApplicationProperties["name"], "type": "com.microsoft:eventhub", "created_at": time.Now(),
				"partition_count": int32(*parts), "partition_ids": ids, "georeplication_factor": int32(1)}
		default:
			resp.Value = map[string]any{"name": m.ApplicationProperties["name"], "partition": m.ApplicationProperties["partition"],
				"begin_sequence_number": int64(0), "last_enqueued_sequence_number": int64(0), "last_enqueued_offset": "0",
				"last_enqueued_time_utc": time.Now(), "is_partition_empty": false}
		}
	}
	b, err := resp.MarshalBinary()
	if err != nil {
		return err
	}
	for _, l := range ss.links {
		if l.out && l.addr == in.addr {
			s.transfer(ss, l, b, true)
			return nil
		}
	}
	return fmt.Errorf("no reply link for %s", in.addr)
}
