package compat

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/eventhub/armeventhub"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
)

// governed is a broker with a rule whose clients are the application group
// "fleet".
func governed(t *testing.T, policies ...admin.ThrottlingPolicy) (b *Broker, connection string) {
	t.Helper()
	b = Start(t)
	b.setTier("premium", 1)
	if _, err := b.Admin().PutRule(t.Context(), "", admin.Rule{Name: "fleet", Rights: "Listen,Send", Primary: "FleetKey1"}); err != nil {
		t.Fatal(err)
	}
	b.govern(policies...)
	return b, strings.NewReplacer("RootManageSharedAccessKey", "fleet", "SAS_KEY_VALUE", "FleetKey1").Replace(b.ConnectionString)
}

func (b *Broker) govern(policies ...admin.ThrottlingPolicy) {
	b.t.Helper()
	g := admin.ApplicationGroup{Name: "fleet", Client: "NamespaceSASKeyName=fleet", Policies: policies}
	if _, err := b.Admin().PutApplicationGroup(context.Background(), g); err != nil {
		b.t.Fatal(err)
	}
}

// TestApplicationGroupIsThrottled: beyond its policy a group's sender is told so on
// AMQP and on HTTP, with the service's numbers, and the SDK's retries bring the
// events in; another client sends on.
func TestApplicationGroupIsThrottled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	b, connection := governed(t, admin.ThrottlingPolicy{Name: "slow", Metric: "IncomingMessages", Limit: 10})
	fleet := func(retries int32) *eventhubs.ProducerClient {
		p, err := eventhubs.NewProducerClientFromConnectionString(connection, "events", &eventhubs.ProducerClientOptions{
			RetryOptions: eventhubs.RetryOptions{MaxRetries: retries, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeSoon(p) })
		return p
	}
	impatient := fleet(-1)
	if err := sendBatch(ctx, impatient, 150, 10); err != nil {
		t.Fatal(err)
	}
	err := sendBatch(ctx, impatient, 1, 10)
	for _, text := range []string{"com.microsoft:server-busy", "50004", "50013", "'fleet'", "'slow'"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("a sender beyond its policy is told %v, without %s", err, text)
		}
	}
	status, text := b.postAs(ctx, "fleet", "FleetKey1")
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "50013") {
		t.Errorf("over HTTP: %d %s", status, text)
	}
	if err := sendBatch(ctx, b.producer(-1), 1, 10); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := sendBatch(ctx, fleet(60), 1, 10); err != nil { // 5 seconds later it may
		t.Errorf("a patient sender: %v", err)
	}
	p, err := b.Admin().Partitions(ctx, "events")
	if err != nil || p[0].Last != 151 {
		t.Errorf("the last event is %+v, %v", p[0], err)
	}
}

// postAs sends an event over HTTP with a rule's key.
func (b *Broker) postAs(ctx context.Context, rule, key string) (int, string) {
	b.t.Helper()
	return b.post(ctx, "events", "x", rule, key)
}

// postTo sends an event to a hub over HTTP.
func (b *Broker) postTo(hub, body string) (int, string) {
	b.t.Helper()
	return b.post(context.Background(), hub, body, "RootManageSharedAccessKey", "SAS_KEY_VALUE")
}

func (b *Broker) post(ctx context.Context, hub, body, rule, key string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.HTTP+"/"+hub+"/messages", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", auth.SignSAS("http://localhost/"+hub, rule, key, time.Now().Add(time.Hour)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestApplicationGroupIsSlowed: a group's consumer gets every event, no faster than
// its policy allows.
func TestApplicationGroupIsSlowed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	b, connection := governed(t, admin.ThrottlingPolicy{Name: "slow", Metric: "OutgoingBytes", Limit: 100_000})
	p := b.producer(3)
	for range 15 {
		if err := sendBatch(ctx, p, 10, 10_000); err != nil {
			t.Fatal(err)
		}
	}
	r := receiverAs(t, connection)
	began, n := time.Now(), 0
	for n < 150 {
		events, err := r.ReceiveEvents(ctx, 150-n, nil)
		if err != nil {
			t.Fatalf("after %d events: %v", n, err)
		}
		n += len(events)
	}
	// 1.5 MB at 100 kB a second, of which ten seconds' may come at once, and the
	// prefetched 64 KiB: a lower bound, which a slow machine can't miss.
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("1.5 MB came within %s", took)
	}
}

func receiverAs(t *testing.T, connection string) *eventhubs.PartitionClient {
	t.Helper()
	c, err := eventhubs.NewConsumerClientFromConnectionString(connection, "events", eventhubs.DefaultConsumerGroup, &eventhubs.ConsumerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSoon(c) })
	earliest := true
	r, err := c.NewPartitionClient("0", &eventhubs.PartitionClientOptions{StartPosition: eventhubs.StartPosition{Earliest: &earliest}, Prefetch: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSoon(r) })
	return r
}

// TestApplicationGroupIsDisabled: a group that is disabled is cut off, sender and
// receiver alike, and let in again when it is enabled.
func TestApplicationGroupIsDisabled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), tierTimeout)
	defer cancel()
	b, connection := governed(t)
	p, err := eventhubs.NewProducerClientFromConnectionString(connection, "events", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(p)
	if err := sendBatch(ctx, p, 1, 10); err != nil {
		t.Fatal(err)
	}
	r := receiverAs(t, connection)
	if _, err := r.ReceiveEvents(ctx, 1, nil); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := r.ReceiveEvents(ctx, 1, nil)
		waiting <- err
	}()
	if _, err := b.Admin().PutApplicationGroup(ctx, admin.ApplicationGroup{Name: "fleet", Client: "NamespaceSASKeyName=fleet", Disabled: true}); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err == nil || ctx.Err() != nil {
		t.Errorf("a receiver that waits: %v", err)
	}
	out := func(what string, err error) {
		t.Helper()
		if err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	out("a sender with a link", sendBatch(ctx, p, 1, 10))
	late, err := eventhubs.NewProducerClientFromConnectionString(connection, "events", &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(late)
	err = sendBatch(ctx, late, 1, 10)
	out("a sender that connects", err)
	if status, text := b.postAs(ctx, "fleet", "FleetKey1"); status != http.StatusUnauthorized || !strings.Contains(text, "is disabled") {
		t.Errorf("over HTTP: %d %s", status, text)
	}
	if err := sendBatch(ctx, b.producer(-1), 1, 10); err != nil {
		t.Errorf("another client: %v", err)
	}
	if !strings.Contains(b.Log(), "The application group 'fleet' is disabled") {
		t.Error("the broker's log does not say why")
	}
	b.govern()
	again, err := eventhubs.NewProducerClientFromConnectionString(connection, "events", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSoon(again)
	if err := sendBatch(ctx, again, 1, 10); err != nil {
		t.Errorf("once it is enabled again: %v", err)
	}
}

func (m *manager) testApplicationGroups() {
	const identifier = "NamespaceSASKeyName=RootManageSharedAccessKey"
	put := func(name string, p armeventhub.ApplicationGroupProperties) (armeventhub.ApplicationGroupClientCreateOrUpdateApplicationGroupResponse, error) {
		return m.appGroups.CreateOrUpdateApplicationGroup(m.ctx, group, "localhost", name, armeventhub.ApplicationGroup{Properties: &p}, nil)
	}
	policies := []armeventhub.ApplicationGroupPolicyClassification{&armeventhub.ThrottlingPolicy{
		Name: new("p1"), Type: new(armeventhub.ApplicationGroupPolicyTypeThrottlingPolicy), MetricID: new(armeventhub.MetricIDIncomingMessages), RateLimitThreshold: new(int64(7912))}}
	must(put("fleet", armeventhub.ApplicationGroupProperties{ClientAppGroupIdentifier: new(identifier), Policies: policies}))(m)
	got := must(m.appGroups.Get(m.ctx, group, "localhost", "Fleet", nil))(m)
	same(m, "the type", got.Type, "Microsoft.EventHub/Namespaces/ApplicationGroups")
	same(m, "the identifier", got.Properties.ClientAppGroupIdentifier, identifier)
	same(m, "enabled", got.Properties.IsEnabled, true)
	if n := len(got.Properties.Policies); n != 1 {
		m.Fatalf("%d policies", n)
	}
	p, ok := got.Properties.Policies[0].(*armeventhub.ThrottlingPolicy)
	if !ok {
		m.Fatalf("the policy is a %T", got.Properties.Policies[0])
	}
	same(m, "the policy's name", p.Name, "p1")
	same(m, "its metric", p.MetricID, armeventhub.MetricIDIncomingMessages)
	same(m, "its limit", p.RateLimitThreshold, 7912)
	changed := must(put("fleet", armeventhub.ApplicationGroupProperties{IsEnabled: new(false)}))(m)
	same(m, "enabled", changed.Properties.IsEnabled, false)
	if n := len(changed.Properties.Policies); n != 1 {
		m.Errorf("after a change of something else there are %d policies", n)
	}
	_, err := put("other", armeventhub.ApplicationGroupProperties{ClientAppGroupIdentifier: new(identifier)})
	m.refused("a second group of one rule", err, 409, "Conflict")
	_, err = put("other", armeventhub.ApplicationGroupProperties{})
	m.refused("a group of nobody", err, 400, "BadRequest")
	list := every(m, m.appGroups.NewListByNamespacePager(group, "localhost", nil), func(r armeventhub.ApplicationGroupClientListByNamespaceResponse) []*armeventhub.ApplicationGroup {
		return r.Value
	})
	if names := apply(list, func(g *armeventhub.ApplicationGroup) string { return *g.Name }); !slices.Equal(names, []string{"fleet"}) {
		m.Errorf("the application groups are %v", names)
	}
	for range 2 {
		must(m.appGroups.Delete(m.ctx, group, "localhost", "fleet", nil))(m)
	}
	_, err = m.appGroups.Get(m.ctx, group, "localhost", "fleet", nil)
	m.refused("a group that is gone", err, 404, "NotFound")
}
