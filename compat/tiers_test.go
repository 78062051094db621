package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
)

// tierTimeout is what a client may take for one operation before it counts as
// hanging.
const tierTimeout = time.Minute

// tiered is a broker whose default namespace has a tier, with a hub "events".
func tiered(t *testing.T, tier string, capacity int) *Broker {
	t.Helper()
	b := Start(t)
	b.setTier(tier, capacity)
	return b
}

func (b *Broker) setTier(tier string, capacity int) {
	b.t.Helper()
	ctx := context.Background()
	if _, err := b.Admin().UpdateHub(ctx, "events", admin.HubChange{Retention: admin.Retention(24 * time.Hour)}); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Admin().UpdateNamespace(ctx, "localhost", admin.NamespaceChange{Tier: &tier, Capacity: &capacity}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *Broker) producer(retries int32) *eventhubs.ProducerClient {
	b.t.Helper()
	o := &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: retries, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second}}
	p, err := eventhubs.NewProducerClientFromConnectionString(b.ConnectionString, "events", o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { closeSoon(p) })
	return p
}

// send sends n events of a size as one batch to partition 0.
func sendBatch(ctx context.Context, p *eventhubs.ProducerClient, n, size int) error {
	partition := "0"
	batch, err := p.NewEventDataBatch(ctx, &eventhubs.EventDataBatchOptions{PartitionID: &partition})
	if err != nil {
		return err
	}
	for range n {
		if err := batch.AddEventData(&eventhubs.EventData{Body: bytes.Repeat([]byte("x"), size)}, nil); err != nil {
			return err
		}
	}
	return p.SendEventDataBatch(ctx, batch, nil)
}

// TestTierPublication: what a batch may have is what the tier allows, to the
// SDK's own reckoning, which learns it when the link is attached.
func TestTierPublication(t *testing.T) {
	for _, c := range []struct {
		tier  string
		limit int
	}{{"basic", 256 << 10}, {"standard", 1 << 20}, {"premium", 1 << 20}, {"dedicated", 20 << 20}} {
		t.Run(c.tier, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
			defer cancel()
			p := tiered(t, c.tier, 1).producer(3)
			if err := sendBatch(ctx, p, 1, c.limit-1000); err != nil {
				t.Errorf("an event of %d bytes: %v", c.limit-1000, err)
			}
			if err := sendBatch(ctx, p, 1, c.limit+1); !errors.Is(err, eventhubs.ErrEventDataTooLarge) {
				t.Errorf("an event of %d bytes: %v", c.limit+1, err)
			}
		})
	}
}

// TestTierGroups: a hub has as many consumer groups as its tier allows, $Default
// among them, and the next is refused.
func TestTierGroups(t *testing.T) {
	for tier, limit := range map[string]int{"basic": 1, "standard": 20, "premium": 100} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			b := tiered(t, tier, 1)
			for i := 1; i <= limit; i++ {
				_, err := b.Admin().CreateGroup(t.Context(), "events", fmt.Sprintf("g%d", i))
				var refused *admin.Error
				switch {
				case i < limit && err != nil:
					t.Fatal(err)
				case i == limit && (!errors.As(err, &refused) || refused.Kind != "QuotaExceeded"):
					t.Errorf("group %d: %v", i+1, err)
				}
			}
		})
	}
}

// TestTierConnections: the hundred and first connection to a basic namespace is
// refused with the service's condition; when one ends, another may come.
func TestTierConnections(t *testing.T) {
	b := tiered(t, "basic", 1)
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	dial := func() (*amqp.Conn, error) {
		return amqp.Dial(ctx, "amqp://"+b.AMQP, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
	}
	var open []*amqp.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 100 {
		c, err := dial()
		if err != nil {
			t.Fatalf("connection %d: %v", len(open)+1, err)
		}
		open = append(open, c)
	}
	c, err := dial()
	if err == nil { // it is told once the connection is open
		<-c.Done()
		err = c.Err()
	}
	if err == nil || !strings.Contains(err.Error(), "amqp:resource-limit-exceeded") {
		t.Errorf("one connection more: %v", err)
	}
	open[0].Close()
	for {
		if c, err = dial(); err == nil {
			open[0] = c
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("after one has ended: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestThrottled: beyond its units a namespace's senders are told to wait, by the
// service's condition and number, and the SDK's retries bring every event in,
// once each.
func TestThrottled(t *testing.T) {
	b := tiered(t, "standard", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*tierTimeout)
	defer cancel()
	impatient := b.producer(-1)
	refused := 0
	for range 10 {
		err := sendBatch(ctx, impatient, 10, 90_000)
		if err == nil {
			continue
		}
		refused++
		if text := err.Error(); !strings.Contains(text, "com.microsoft:server-busy") || !strings.Contains(text, "50002") {
			t.Fatalf("a sender that is throttled is told: %v", err)
		}
	}
	if refused == 0 {
		t.Error("ten batches of 900 kB at once were not too much for one throughput unit")
	}
	patient := b.producer(30)
	const batches, perBatch = 20, 200
	for range batches {
		if err := sendBatch(ctx, patient, perBatch, 100); err != nil {
			t.Fatalf("a patient sender: %v", err)
		}
	}
	p, err := b.Admin().Partitions(ctx, "events")
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(10*(10-refused) + batches*perBatch); p[0].Last+1 != want {
		t.Errorf("%d events are stored, not %d", p[0].Last+1, want)
	}
	ns, err := b.Admin().Namespace(ctx, "localhost")
	if err != nil || ns.Throttled == 0 {
		t.Errorf("%+v, %v", ns, err)
	}
}

// TestEgressIsSlowed: a consumer of a throttled namespace gets every event, and
// no faster than its units allow.
func TestEgressIsSlowed(t *testing.T) {
	b := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*tierTimeout)
	defer cancel()
	p := b.producer(3)
	const batches, perBatch = 10, 9
	for range batches {
		if err := sendBatch(ctx, p, perBatch, 100_000); err != nil {
			t.Fatal(err)
		}
	}
	b.setTier("standard", 1)
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "events", eventhubs.DefaultConsumerGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	earliest := true
	r, err := c.NewPartitionClient("0", &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: &earliest}, Prefetch: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(r)
	began := time.Now()
	n := 0
	for n < batches*perBatch {
		events, err := r.ReceiveEvents(ctx, batches*perBatch-n, nil)
		if err != nil {
			t.Fatalf("after %d events: %v", n, err)
		}
		n += len(events)
	}
	// 9 MB at 2 MB a second: a lower bound, which a slow machine can't miss.
	if took := time.Since(began); took < 3500*time.Millisecond {
		t.Errorf("9 MB came within %s", took)
	}
}

// TestAutoInflate: a load of three units raises them, one by one, each with a
// line in the log, and then no sender is refused any more.
func TestAutoInflate(t *testing.T) {
	b := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*tierTimeout)
	defer cancel()
	b.setTier("standard", 1)
	on, most := true, 10
	if _, err := b.Admin().UpdateNamespace(ctx, "localhost", admin.NamespaceChange{AutoInflate: &on, MaximumCapacity: &most}); err != nil {
		t.Fatal(err)
	}
	p := b.producer(-1)
	calm := 0
	for tick := time.NewTicker(100 * time.Millisecond); calm < 50; <-tick.C {
		if ctx.Err() != nil {
			t.Fatal("senders are still being refused")
		}
		switch err := sendBatch(ctx, p, 250, 100); { // 2,500 events a second
		case err == nil:
			calm++
		case strings.Contains(err.Error(), "50002"):
			calm = 0
		default:
			t.Fatal(err)
		}
	}
	ns, err := b.Admin().Namespace(ctx, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if ns.Capacity < 2 || ns.Capacity > 4 {
		t.Errorf("2,500 events a second led to %d throughput units", ns.Capacity)
	}
	if steps := strings.Count(b.Log(), "auto-inflate raised the throughput units"); steps != ns.Capacity-1 {
		t.Errorf("the log has %d steps to %d units", steps, ns.Capacity)
	}
}

// TestDisabled: the status of a hub closes it to senders, to receivers or both.
func TestDisabled(t *testing.T) {
	b := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	p := b.producer(-1)
	if err := sendBatch(ctx, p, 1, 10); err != nil {
		t.Fatal(err)
	}
	set := func(status string) {
		t.Helper()
		if _, err := b.Admin().UpdateHub(ctx, "events", admin.HubChange{Status: status}); err != nil {
			t.Fatal(err)
		}
	}
	disabled := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "com.microsoft:entity-disabled") {
			t.Errorf("%s: %v", what, err)
		}
	}
	set("SendDisabled")
	disabled("sending on a link that is open", sendBatch(ctx, p, 1, 10))
	disabled("sending on a new one", sendBatch(ctx, b.producer(-1), 1, 10))
	set("ReceiveDisabled")
	if err := sendBatch(ctx, b.producer(3), 1, 10); err != nil {
		t.Errorf("sending while receiving is disabled: %v", err)
	}
	c, err := eventhubs.NewConsumerClientFromConnectionString(b.ConnectionString, "events", eventhubs.DefaultConsumerGroup, &eventhubs.ConsumerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(c)
	earliest := true
	o := &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: &earliest}}
	r, err := c.NewPartitionClient("0", o)
	if err == nil {
		defer closeSoon(r)
		_, err = r.ReceiveEvents(ctx, 1, nil)
	}
	disabled("receiving", err)
	set("Active")
	again, err := c.NewPartitionClient("0", o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(again)
	if events, err := again.ReceiveEvents(ctx, 2, nil); err != nil || len(events) == 0 {
		t.Errorf("once it is active again: %d events, %v", len(events), err)
	}
}

// TestPartitionsAreAdded: a producer goes on through a change of the number of
// partitions, nothing is lost or doubled, and what the SDKs ask for says so.
func TestPartitionsAreAdded(t *testing.T) {
	b := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	p := b.producer(3)
	sent := int64(0)
	send := func(n int) {
		t.Helper()
		for range n {
			batch, err := p.NewEventDataBatch(ctx, nil)
			if err == nil {
				err = batch.AddEventData(&eventhubs.EventData{Body: []byte("x")}, nil)
			}
			if err == nil {
				err = p.SendEventDataBatch(ctx, batch, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	send(20)
	if _, err := b.Admin().UpdateHub(ctx, "events", admin.HubChange{Partitions: 7}); err != nil {
		t.Fatal(err)
	}
	send(70)
	if log := b.Log(); strings.Contains(log, "panic") {
		t.Error(log)
	}
	props, err := p.GetEventHubProperties(ctx, nil)
	if err != nil || len(props.PartitionIDs) != 7 {
		t.Fatalf("%+v, %v", props, err)
	}
	stored := int64(0)
	for _, id := range props.PartitionIDs {
		part, err := p.GetPartitionProperties(ctx, id, nil)
		if err != nil {
			t.Fatal(err)
		}
		if part.IsEmpty {
			t.Errorf("partition %s is empty", id)
		}
		stored += part.LastEnqueuedSequenceNumber + 1
	}
	if stored != sent {
		t.Errorf("%d events are stored, and %d were sent", stored, sent)
	}
}

// TestRevokedPublisher: a publisher's link is cut when it is revoked, and it may
// attach again once it is restored. Others go on.
func TestRevokedPublisher(t *testing.T) {
	b := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	conn, err := amqp.Dial(ctx, "amqp://"+b.AMQP, &amqp.ConnOptions{SASLType: amqp.SASLTypePlain("RootManageSharedAccessKey", "SAS_KEY_VALUE")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	attach := func(publisher string) (*amqp.Sender, error) {
		s, err := session.NewSender(ctx, "events/Publishers/"+publisher, nil)
		if err == nil {
			err = s.Send(ctx, amqp.NewMessage([]byte("x")), nil)
		}
		return s, err
	}
	one, err := attach("truck-1")
	if err != nil {
		t.Fatal(err)
	}
	seven, err := attach("truck-7")
	if err != nil {
		t.Fatal(err)
	}
	revoked := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "com.microsoft:publisher-revoked") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := b.Admin().RevokePublisher(ctx, "events", "truck-7"); err != nil {
		t.Fatal(err)
	}
	revoked("its next event", seven.Send(ctx, amqp.NewMessage([]byte("x")), nil))
	_, err = attach("truck-7")
	revoked("a new link", err)
	if err := one.Send(ctx, amqp.NewMessage([]byte("x")), nil); err != nil {
		t.Errorf("another publisher: %v", err)
	}
	b.Kill()
	b.Restart()
	if names, err := b.Admin().RevokedPublishers(ctx, "events"); err != nil || len(names) != 1 {
		t.Errorf("after a kill: %v, %v", names, err)
	}
	if err := b.Admin().RestorePublisher(ctx, "events", "truck-7"); err != nil {
		t.Fatal(err)
	}
	if conn, err = amqp.Dial(ctx, "amqp://"+b.AMQP, &amqp.ConnOptions{SASLType: amqp.SASLTypePlain("RootManageSharedAccessKey", "SAS_KEY_VALUE")}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if session, err = conn.NewSession(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := attach("truck-7"); err != nil {
		t.Errorf("restored: %v", err)
	}
}

// TestIPRules: who does not come from an address that is listed is told so on
// every door.
func TestIPRules(t *testing.T) {
	b := Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	allow := func(from ...string) {
		t.Helper()
		from = append([]string{}, from...) // none, and not nothing
		if _, err := b.Admin().UpdateNamespace(ctx, "localhost", admin.NamespaceChange{AllowedIPs: &from}); err != nil {
			t.Fatal(err)
		}
	}
	post := func() (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.HTTP+"/events/messages", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", auth.SignSAS("http://localhost/events", "RootManageSharedAccessKey", "SAS_KEY_VALUE", time.Now().Add(time.Hour)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	allow("10.0.0.0/8")
	if err := sendBatch(ctx, b.producer(-1), 1, 10); err == nil || !strings.Contains(err.Error(), "Ip has been prevented to connect") {
		t.Errorf("over AMQP: %v", err)
	}
	if status, text := post(); status != http.StatusUnauthorized || !strings.Contains(text, "Ip has been prevented to connect") {
		t.Errorf("over HTTP: %d, %s", status, text)
	}
	allow("127.0.0.0/8", "::1")
	if err := sendBatch(ctx, b.producer(3), 1, 10); err != nil {
		t.Error(err)
	}
	if status, text := post(); status != http.StatusCreated {
		t.Errorf("over HTTP: %d, %s", status, text)
	}
	allow()
}
