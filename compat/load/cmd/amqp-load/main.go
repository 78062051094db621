// amqp-load drives any AMQP 1.0 broker with Azure/go-amqp, including the Event
// Hubs batch message format (0x80013700).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/compat/load/internal/lg"

	"github.com/Azure/go-amqp"
)

const batchFormat = 0x80013700

var (
	target  = flag.String("target", "{topic}/Partitions/{p}", "sender address; {topic} and {p} are replaced")
	source  = flag.String("source", "{topic}/ConsumerGroups/$Default/Partitions/{p}", "receiver address")
	user    = flag.String("user", "", "SASL PLAIN user (empty: ANONYMOUS)")
	pass    = flag.String("pass", "", "SASL PLAIN password")
	cbsTok  = flag.String("cbs-token", "", "token to put to $cbs for every address before attaching")
	cbsAud  = flag.String("cbs-audience", "amqp://localhost/{addr}", "audience of the token")
	format  = flag.String("format", "single", "single | batch: one message a transfer, or Event Hubs batches")
	batchB  = flag.Int("batch-bytes", 1_000_000, "target encoded size of an Event Hubs batch")
	batchN  = flag.Int("batch-max", 0, "max events in a batch (0: only -batch-bytes)")
	window  = flag.Int("window", 1000, "unsettled transfers in flight per link")
	credit  = flag.Int("credit", 1000, "receiver credit")
	durable = flag.Bool("durable", true, "set header.durable")
	accept  = flag.String("accept", "settled", "settled: ask for settled deliveries | accept: accept each | none")
	filter  = flag.String("filter", "", "selector filter, e.g. \"amqp.annotation.x-opt-offset > '-1'\"")
	connsPP = flag.Bool("conn-per-partition", false, "a connection per partition instead of one shared")
	spread  = flag.Bool("spread", false, "produce: one sender goes round the partitions, with one -window for all")
	ackOnly = flag.Bool("ack-only", false, "latency: measure acknowledgements alone, without receivers")
	rabbit  = flag.Bool("rabbit-stream-first", false, "add rabbitmq:stream-offset-spec=first")
)

func addr(t string, c *lg.Config, p int) string {
	return strings.NewReplacer("{topic}", c.Topic, "{p}", strconv.Itoa(p)).Replace(t)
}

type dialer struct {
	c    *lg.Config
	conn *amqp.Conn
}

func (d *dialer) session(ctx context.Context) *amqp.Session {
	if d.conn == nil || *connsPP {
		o := &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous(), ContainerID: "amqp-load"}
		if *user != "" {
			o.SASLType = amqp.SASLTypePlain(*user, *pass)
		}
		conn, err := amqp.Dial(ctx, "amqp://"+d.c.Addr, o)
		lg.Die(err)
		d.conn = conn
	}
	s, err := d.conn.NewSession(ctx, nil)
	lg.Die(err)
	return s
}

// putToken authorizes addr as Event Hubs clients do.
func putToken(ctx context.Context, s *amqp.Session, addr string) error {
	if *cbsTok == "" {
		return nil
	}
	snd, err := s.NewSender(ctx, "$cbs", nil)
	if err != nil {
		return err
	}
	defer snd.Close(ctx)
	reply := "cbs-reply"
	rcv, err := s.NewReceiver(ctx, "$cbs", &amqp.ReceiverOptions{TargetAddress: reply, Credit: 10, RequestedSenderSettleMode: amqp.SenderSettleModeSettled.Ptr()})
	if err != nil {
		return err
	}
	defer rcv.Close(ctx)
	err = snd.Send(ctx, &amqp.Message{
		Properties: &amqp.MessageProperties{MessageID: "1", ReplyTo: &reply},
		ApplicationProperties: map[string]any{"operation": "put-token", "type": "servicebus.windows.net:sastoken",
			"name": strings.ReplaceAll(*cbsAud, "{addr}", addr)},
		Value: *cbsTok,
	}, nil)
	if err != nil {
		return err
	}
	m, err := rcv.Receive(ctx, nil)
	if err != nil {
		return err
	}
	if code, _ := m.ApplicationProperties["status-code"].(int32); code >= 300 {
		return fmt.Errorf("put-token: %v", m.ApplicationProperties)
	}
	return nil
}

func (d *dialer) sender(ctx context.Context, p int) *amqp.Sender {
	s := d.session(ctx)
	a := addr(*target, d.c, p)
	lg.Die(putToken(ctx, s, a))
	snd, err := s.NewSender(ctx, a, nil)
	lg.Die(err)
	return snd
}

func (d *dialer) receiver(ctx context.Context, p int) *amqp.Receiver {
	s := d.session(ctx)
	a := addr(*source, d.c, p)
	lg.Die(putToken(ctx, s, a))
	o := &amqp.ReceiverOptions{Credit: int32(*credit)}
	if *accept == "settled" {
		o.RequestedSenderSettleMode = amqp.SenderSettleModeSettled.Ptr()
	}
	if *filter != "" {
		o.Filters = append(o.Filters, amqp.NewSelectorFilter(*filter))
	}
	if *rabbit {
		o.Filters = append(o.Filters, amqp.NewLinkFilter("rabbitmq:stream-offset-spec", 0, "first"))
	}
	r, err := s.NewReceiver(ctx, a, o)
	lg.Die(err)
	return r
}

func event(b []byte) *amqp.Message {
	m := &amqp.Message{Data: [][]byte{b}}
	if *durable {
		m.Header = &amqp.MessageHeader{Durable: true}
	}
	return m
}

// pending settles receipts in order, so that at most -window are outstanding.
type pending struct {
	ch   chan amqp.SendReceipt
	done chan error
}

func newPending(ctx context.Context, ack func(i int)) *pending {
	p := &pending{ch: make(chan amqp.SendReceipt, *window), done: make(chan error, 1)}
	go func() {
		i := 0
		for r := range p.ch {
			st, err := r.Wait(ctx)
			if err == nil {
				if rj, ok := st.(*amqp.StateRejected); ok {
					err = errors.New("rejected")
					if rj.Error != nil {
						err = rj.Error
					}
				}
			}
			if err != nil {
				p.done <- err
				return
			}
			if ack != nil {
				ack(i)
			}
			i++
		}
		p.done <- nil
	}()
	return p
}

// produce sends n events, each transfer to the next of the senders.
func produce(ctx context.Context, c *lg.Config, snds []*amqp.Sender, n int) error {
	pay := lg.NewPayloads(c.Size)
	pd := newPending(ctx, nil)
	for i, turn := 0, 0; i < n; turn++ {
		var m *amqp.Message
		if *format == "batch" {
			m = &amqp.Message{Format: batchFormat}
			for sz := 0; i < n && sz < *batchB && (*batchN == 0 || len(m.Data) < *batchN); i++ {
				b, err := (&amqp.Message{Data: [][]byte{pay.Next()}}).MarshalBinary()
				if err != nil {
					return err
				}
				if sz += len(b) + 8; sz > *batchB && len(m.Data) > 0 {
					break
				}
				m.Data = append(m.Data, b)
			}
		} else {
			m = event(pay.Next())
			i++
		}
		r, err := snds[turn%len(snds)].SendWithReceipt(ctx, m, nil)
		if err != nil {
			return err
		}
		select {
		case pd.ch <- r:
		case err := <-pd.done:
			return err
		}
	}
	close(pd.ch)
	return <-pd.done
}

func main() {
	c := lg.Flags("127.0.0.1:5672")
	c.Parse()
	ctx := context.Background()
	d := &dialer{c: c}

	switch c.Mode {
	case "produce":
		var ss []*amqp.Sender
		for p := range c.Parts {
			ss = append(ss, d.sender(ctx, p))
		}
		r := c.Begin("amqp-load")
		r.Note = *format
		var wg sync.WaitGroup
		if *spread {
			lg.Die(produce(ctx, c, ss, c.N/c.Parts*c.Parts))
		} else {
			for i := range ss {
				wg.Go(func() { lg.Die(produce(ctx, c, ss[i:i+1], c.N/c.Parts)) })
			}
			wg.Wait()
		}
		r.End(int64(c.N/c.Parts*c.Parts), nil)

	case "consume":
		var rs []*amqp.Receiver
		r := c.Begin("amqp-load")
		for p := range c.Parts {
			rs = append(rs, d.receiver(ctx, p))
		}
		var got atomic.Int64
		cctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for _, rc := range rs {
			wg.Go(func() {
				for {
					m, err := rc.Receive(cctx, nil)
					if err != nil {
						if cctx.Err() == nil {
							lg.Die(err)
						}
						return
					}
					if *accept == "accept" {
						lg.Die(rc.AcceptMessage(ctx, m))
					}
					if got.Add(1) >= int64(c.N) {
						cancel()
						return
					}
				}
			})
		}
		wg.Wait()
		r.End(got.Load(), nil)

	case "latency":
		var e2e, ackr lg.Recorder
		var ss []*amqp.Sender
		for p := range c.Parts {
			if *ackOnly {
				break
			}
			rc := d.receiver(ctx, p)
			go func() {
				for {
					m, err := rc.Receive(ctx, nil)
					if err != nil {
						return
					}
					now := time.Now()
					if *accept == "accept" {
						lg.Die(rc.AcceptMessage(ctx, m))
					}
					if t, ok := lg.Stamp(m.GetData()); ok && len(m.GetData()) == max(8, c.Size) {
						e2e.Add(now.Sub(t))
					}
				}
			}()
		}
		for p := range c.Parts {
			ss = append(ss, d.sender(ctx, p))
		}
		time.Sleep(500 * time.Millisecond)
		pay := lg.NewPayloads(c.Size)
		pds := make([]*pending, c.Parts)
		dues := make([]chan time.Time, c.Parts)
		for p := range pds {
			dues[p] = make(chan time.Time, *window+16)
			pds[p] = newPending(ctx, func(int) { ackr.Add(time.Since(<-dues[p])) })
		}
		r := c.Begin("amqp-load")
		r.Note = fmt.Sprintf("%s rate=%d", *format, c.Rate)
		n := lg.Pace(c.Rate, c.Duration, func(i int, due time.Time) {
			p := i % c.Parts
			m := event(pay.Stamped(due))
			if *format == "batch" {
				b, err := (&amqp.Message{Data: m.Data}).MarshalBinary()
				lg.Die(err)
				m = &amqp.Message{Format: batchFormat, Data: [][]byte{b}}
			}
			rc, err := ss[p].SendWithReceipt(ctx, m, nil)
			lg.Die(err)
			dues[p] <- due
			pds[p].ch <- rc
		})
		for _, p := range pds {
			close(p.ch)
			lg.Die(<-p.done)
		}
		for i := 0; !*ackOnly && e2e.Len() < n && i < 200; i++ {
			time.Sleep(10 * time.Millisecond)
		}
		r.End(int64(n), map[string]lg.Pct{"e2e": e2e.Pct(.1), "ack": ackr.Pct(.1)})
	default:
		lg.Die(fmt.Errorf("unknown mode %q", c.Mode))
	}
}
