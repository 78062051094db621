package amqp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	eh "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"

	"github.com/millrace/millrace/amqp"
	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/segment"
)

const (
	rootRule = "RootManageSharedAccessKey"
	rootKey  = "SAS_KEY_VALUE"
)

// broker is an AMQP server on a loopback port, with hubs on a real disk.
type broker struct {
	testing.TB
	dir    string
	store  *segment.Store
	all    *hub.Namespaces
	ns     *hub.Namespace
	server *amqp.Server
	addr   string

	listener net.Listener
	served   chan error

	opts func(*amqp.Options)
	seg  segment.Options
}

func start(t testing.TB, configure ...func(*broker)) *broker {
	t.Helper()
	b := &broker{TB: t, dir: t.TempDir()}
	for _, f := range configure {
		f(b)
	}
	b.up("127.0.0.1:0")
	t.Cleanup(func() { b.down() })
	return b
}

func (b *broker) up(addr string) {
	b.Helper()
	logger := slog.New(slog.NewTextHandler(b.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	o := b.seg
	o.Dir, o.Reserve, o.Logger, o.JournalBytes = b.dir, -1, logger, 1<<20
	var err error
	if b.store, err = segment.Open(context.Background(), o); err != nil {
		b.Fatal(err)
	}
	b.all, err = hub.Open(context.Background(), hub.Options{
		Store: b.store, Logger: logger, Codecs: map[event.Encoding]event.Codec{event.EncodingAMQP: message.Codec{}},
		Rules: []hub.Rule{{Name: rootRule, Rights: auth.Manage, Primary: rootKey},
			{Name: "listen", Rights: auth.Listen, Primary: "l"}, {Name: "send", Rights: auth.Send, Primary: "s"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ns = b.all.Default()
	v, err := auth.NewVerifier(auth.Options{Keys: b.all})
	if err != nil {
		b.Fatal(err)
	}
	so := amqp.Options{Namespaces: b.all, Verifier: v, Logger: logger}
	if b.opts != nil {
		b.opts(&so)
	}
	b.server = amqp.NewServer(so)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.addr = ln.Addr().String()
	b.listener, b.served = ln, make(chan error, 1)
	go func() { b.served <- b.server.Serve(ln) }()
}

func (b *broker) down() {
	b.Helper()
	if b.store == nil {
		return
	}
	b.listener.Close()
	if err := <-b.served; err != nil {
		b.Errorf("serve: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := b.server.Shutdown(ctx); err != nil {
		b.Errorf("shutdown: %v", err)
	}
	b.all.Close()
	if err := b.store.Close(); err != nil {
		b.Errorf("close: %v", err)
	}
	b.store = nil
}

func (b *broker) hub(name string, partitions int) *hub.EventHub {
	b.Helper()
	h, err := b.ns.CreateEventHub(context.Background(), name, partitions, hub.Settings{})
	if err != nil {
		b.Fatal(err)
	}
	return h
}

func (b *broker) connectionString() string { return b.connectionStringOf(rootRule, rootKey) }

func (b *broker) connectionStringOf(rule, key string) string {
	return fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true", b.addr, rule, key)
}

func (b *broker) producer(hubName string) *eh.ProducerClient {
	b.Helper()
	p, err := eh.NewProducerClientFromConnectionString(b.connectionString(), hubName, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close(context.Background()) })
	return p
}

func (b *broker) consumer(hubName string) *eh.ConsumerClient {
	b.Helper()
	c, err := eh.NewConsumerClientFromConnectionString(b.connectionString(), hubName, "$Default", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// send sends bodies as one batch.
func (b *broker) send(p *eh.ProducerClient, partition string, bodies ...string) {
	b.Helper()
	o := &eh.EventDataBatchOptions{}
	if partition != "" {
		o.PartitionID = &partition
	}
	batch, err := p.NewEventDataBatch(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	for _, body := range bodies {
		if err := batch.AddEventData(&eh.EventData{Body: []byte(body)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.SendEventDataBatch(b.Context(), batch, nil); err != nil {
		b.Fatal(err)
	}
}

// receive receives n events from a partition.
func (b *broker) receive(c *eh.ConsumerClient, partition string, o *eh.PartitionClientOptions, n int) []*eh.ReceivedEventData {
	b.Helper()
	pc, err := c.NewPartitionClient(partition, o)
	if err != nil {
		b.Fatal(err)
	}
	defer pc.Close(context.Background())
	var out []*eh.ReceivedEventData
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	for len(out) < n {
		evs, err := pc.ReceiveEvents(ctx, n-len(out), nil)
		out = append(out, evs...)
		if err != nil {
			b.Fatalf("after %d of %d events: %v", len(out), n, err)
		}
	}
	return out
}

func earliest() *eh.PartitionClientOptions {
	yes := true
	return &eh.PartitionClientOptions{StartPosition: eh.StartPosition{Earliest: &yes}}
}
