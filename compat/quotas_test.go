package compat

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/eventhub/armeventhub"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
)

// limited is a namespace of its own with a tier, managed by the official SDK for
// Go, and over ATOM.
type limited struct {
	*testing.T
	m    *manager
	name string
	atom *atomFace
}

var namespaces atomic.Int64

// newLimited makes a namespace of a tier.
func newLimited(t *testing.T, m *manager, tier string, capacity int) *limited {
	t.Helper()
	q := &limited{t, m, fmt.Sprintf("%s-%d", tier, namespaces.Add(1)), nil}
	q.atom = newAtomFace(m.Broker, q.name)
	p := must(m.namespaces.BeginCreateOrUpdate(m.ctx, group, q.name, namespaceOf(tier, capacity), nil))(t)
	must(p.PollUntilDone(m.ctx, nil))(t)
	return q
}

func namespaceOf(tier string, capacity int) armeventhub.EHNamespace {
	title := strings.ToUpper(tier[:1]) + tier[1:]
	return armeventhub.EHNamespace{SKU: &armeventhub.SKU{
		Name: new(armeventhub.SKUName(title)), Tier: new(armeventhub.SKUTier(title)), Capacity: new(int32(capacity)),
	}}
}

// allowed wants that something can be done.
func (q *limited) allowed(what string, err error) {
	q.Helper()
	if err != nil {
		q.Errorf("%s: %v", what, err)
	}
}

// refused wants that the SDK is told that a value can't be, 400, or that the quota
// is used up, 403.
func (q *limited) refused(what string, err error, status int) {
	q.Helper()
	m := *q.m
	m.T = q.T
	m.refused(what, err, status, map[int]string{http.StatusBadRequest: "BadRequest", http.StatusForbidden: "QuotaExceeded"}[status])
}

// atomRefused wants the same over ATOM: of a PUT of what the service calls kind.
func (q *limited) atomRefused(what, path, kind, content string, header http.Header, status int) {
	q.Helper()
	got, text, err := q.atom.ask(http.MethodPut, path, fmt.Sprintf(atomEntry, kind, content), header)
	if want := fmt.Sprintf("<Code>%d</Code>", status); err != nil || got != status || !strings.Contains(string(text), want) {
		q.Errorf("%s over ATOM: %d, %s, %v; wanted %d", what, got, text, err, status)
	}
}

// hub makes a hub, or changes it.
func (q *limited) hub(name string, p armeventhub.Properties) error {
	_, err := q.m.hubs.CreateOrUpdate(q.m.ctx, group, q.name, name, armeventhub.Eventhub{Properties: &p}, nil)
	return err
}

// with makes a hub with so many partitions.
func (q *limited) with(name string, partitions int) error {
	return q.hub(name, armeventhub.Properties{PartitionCount: new(int64(partitions))})
}

func (q *limited) group(hub, name string, metadata *string) error {
	_, err := q.m.groups.CreateOrUpdate(q.m.ctx, group, q.name, hub, name, armeventhub.ConsumerGroup{Properties: &armeventhub.ConsumerGroupProperties{UserMetadata: metadata}}, nil)
	return err
}

// rule makes an authorization rule of a hub, or of the namespace.
func (q *limited) rule(hub, name string) (err error) {
	r := armeventhub.AuthorizationRule{Properties: &armeventhub.AuthorizationRuleProperties{Rights: []*armeventhub.AccessRights{new(armeventhub.AccessRightsSend)}}}
	if hub == "" {
		_, err = q.m.namespaces.CreateOrUpdateAuthorizationRule(q.m.ctx, group, q.name, name, r, nil)
	} else {
		_, err = q.m.hubs.CreateOrUpdateAuthorizationRule(q.m.ctx, group, q.name, hub, name, r, nil)
	}
	return err
}

// change changes the namespace.
func (q *limited) change(ns armeventhub.EHNamespace) error {
	_, err := q.m.namespaces.Update(q.m.ctx, group, q.name, ns, nil)
	return err
}

func (q *limited) admin() *admin.Client {
	q.Helper()
	return must(admin.NewClient("http://"+q.m.HTTP, auth.ConnectionString{Host: q.name, KeyName: "RootManageSharedAccessKey", Key: "SAS_KEY_VALUE"}, nil))(q)
}

// tierLimits is the service's matrix, as far as it is numbers: features.md,
// section 0.
type tierLimits struct {
	tier                       string
	partitions, allPartitions  int // of a hub, and of the namespace at one unit
	hubs, groups               int // groups with $Default
	hours, publication         int
	units                      []int // the most, and then some that can't be
	grows, inflates, addresses bool
}

var theTiers = []tierLimits{
	{tier: "basic", partitions: 32, hubs: 10, groups: 1, hours: 24, publication: 256 << 10, units: []int{40, 41}},
	{tier: "standard", partitions: 32, hubs: 10, groups: 20, hours: 7 * 24, publication: 1 << 20, units: []int{40, 41}, inflates: true, addresses: true},
	{tier: "premium", partitions: 100, allPartitions: 200, hubs: 100, groups: 100, hours: 90 * 24, publication: 1 << 20, units: []int{16, 17, 3}, grows: true, addresses: true},
	{tier: "dedicated", partitions: 1024, allPartitions: 2000, hubs: 1000, groups: 1000, hours: 90 * 24, publication: 20 << 20, units: []int{20, 21}, grows: true, addresses: true},
}

const (
	wrong   = http.StatusBadRequest // a value that the tier doesn't have
	tooMany = http.StatusForbidden  // one more than there may be
)

// TestQuotas goes to each limit of each tier, and one further, with the official
// SDK for management and over ATOM, and over HTTP where that is not management.
func TestQuotas(t *testing.T) {
	m := newManager(t, policy.RetryOptions{})
	for name, test := range map[string]func(*limited, *tierLimits){
		"partitions of a hub": (*limited).testPartitions, "partitions of the namespace": (*limited).testAllPartitions,
		"event hubs": (*limited).testHubs, "consumer groups": (*limited).testGroups, "retention": (*limited).testRetention,
		"adding partitions": (*limited).testGrowth, "units": (*limited).testUnits, "auto-inflate": (*limited).testInflate,
		"IP rules": (*limited).testAddresses, "publication over HTTP": (*limited).testPublication,
	} {
		for _, tier := range theTiers {
			if name == "partitions of the namespace" && tier.allPartitions == 0 {
				continue // its hubs, and their partitions, are limited
			}
			t.Run(name+" "+tier.tier, func(t *testing.T) {
				t.Parallel()
				test(newLimited(t, m, tier.tier, 1), &tier)
			})
		}
	}
	for name, test := range map[string]func(*limited){
		"authorization rules": (*limited).testRules, "names": (*limited).testNames, "user metadata": (*limited).testMetadata,
		"partition keys and publishers": (*limited).testKeys,
	} {
		t.Run(name, func(t *testing.T) { // these are the same in every tier
			t.Parallel()
			test(newLimited(t, m, "standard", 1))
		})
	}
}

const count = "<PartitionCount>%d</PartitionCount>"

func (q *limited) testPartitions(l *tierLimits) {
	q.allowed("all partitions", q.with("most", l.partitions))
	q.refused("one more", q.with("more", l.partitions+1), wrong)
	q.atomRefused("one more", "/more", "EventHubDescription", fmt.Sprintf(count, l.partitions+1), nil, wrong)
}

func (q *limited) testAllPartitions(l *tierLimits) {
	q.allowed("one less than a hub may have", q.with("one", l.partitions-1))
	q.allowed("nearly the rest", q.with("two", l.allPartitions-l.partitions))
	q.allowed("the last", q.with("three", 1))
	q.refused("one more", q.with("four", 1), tooMany)
	q.atomRefused("one more", "/four", "EventHubDescription", fmt.Sprintf(count, 1), nil, tooMany)
	q.refused("a hub that grows by one", q.with("one", l.partitions), tooMany)
	if l.tier == "premium" { // another unit has as many again
		q.allowed("a second unit", q.change(namespaceOf(l.tier, 2)))
		q.allowed("one more", q.with("one", l.partitions))
	}
}

func (q *limited) testHubs(l *tierLimits) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < l.hubs; i += 8 {
				q.allowed("a hub", q.with(fmt.Sprintf("hub-%d", i), 1))
			}
		})
	}
	wg.Wait()
	q.refused("one more", q.with("more", 1), tooMany)
	q.atomRefused("one more", "/more", "EventHubDescription", fmt.Sprintf(count, 1), nil, tooMany)
}

func (q *limited) testGroups(l *tierLimits) {
	want := admin.NewHub{Name: "orders", Partitions: 1}
	for i := 2; i < l.groups; i++ { // beside $Default, and the last
		want.Groups = append(want.Groups, fmt.Sprintf("group-%d", i))
	}
	must(q.admin().CreateHub(q.m.ctx, want))(q)
	if l.groups > 1 {
		q.allowed("the last group", q.group("orders", "last", nil))
	}
	q.refused("one more", q.group("orders", "more", nil), tooMany)
	q.atomRefused("one more", "/orders/consumergroups/more", "ConsumerGroupDescription", "", nil, tooMany)
}

func (q *limited) testRetention(l *tierLimits) {
	hours := func(name string, n int) error {
		return q.hub(name, armeventhub.Properties{RetentionDescription: &armeventhub.RetentionDescription{RetentionTimeInHours: new(int64(n))}})
	}
	q.allowed("an hour", hours("short", 1))
	q.allowed("the longest", hours("long", l.hours))
	q.refused("an hour more", hours("longer", l.hours+1), wrong)
	q.refused("an hour more, of what there is", hours("short", l.hours+1), wrong)
	q.refused("for ever", hours("longer", -1), wrong)
	const days = "<MessageRetentionInDays>%d</MessageRetentionInDays>"
	q.atomRefused("a day more", "/longer", "EventHubDescription", fmt.Sprintf(days, l.hours/24+1), nil, wrong)
	q.atomRefused("a day more, of what there is", "/short", "EventHubDescription", fmt.Sprintf(days, l.hours/24+1), http.Header{"If-Match": {"*"}}, wrong)
}

func (q *limited) testGrowth(l *tierLimits) {
	q.allowed("two partitions", q.with("orders", 2))
	const there = "If-Match"
	if l.grows {
		q.allowed("three", q.with("orders", 3))
	} else {
		q.refused("three", q.with("orders", 3), wrong)
		q.atomRefused("three", "/orders", "EventHubDescription", fmt.Sprintf(count, 3), http.Header{there: {"*"}}, wrong)
	}
	q.refused("one", q.with("orders", 1), wrong)
	q.atomRefused("one", "/orders", "EventHubDescription", fmt.Sprintf(count, 1), http.Header{there: {"*"}}, wrong)
}

func (q *limited) testUnits(l *tierLimits) {
	q.allowed("all units", q.change(namespaceOf(l.tier, l.units[0])))
	for _, n := range l.units[1:] {
		q.refused(fmt.Sprintf("%d units", n), q.change(namespaceOf(l.tier, n)), wrong)
	}
}

func (q *limited) testInflate(l *tierLimits) {
	up := func(to int32) error {
		return q.change(armeventhub.EHNamespace{Properties: &armeventhub.EHNamespaceProperties{IsAutoInflateEnabled: new(true), MaximumThroughputUnits: &to}})
	}
	if !l.inflates {
		q.refused("auto-inflate", up(10), wrong)
		return
	}
	q.refused("beyond the tier", up(41), wrong)
	q.allowed("two units", q.change(namespaceOf(l.tier, 2)))
	q.refused("to below what there is", up(1), wrong)
	q.allowed("to all", up(40))
}

func (q *limited) testAddresses(l *tierLimits) {
	set := func(n int) error {
		p := &armeventhub.NetworkRuleSetProperties{DefaultAction: new(armeventhub.DefaultActionDeny)}
		for i := range n {
			p.IPRules = append(p.IPRules, &armeventhub.NWRuleSetIPRules{IPMask: new(fmt.Sprintf("10.0.%d.0/24", i)), Action: new(armeventhub.NetworkRuleIPActionAllow)})
		}
		_, err := q.m.namespaces.CreateOrUpdateNetworkRuleSet(q.m.ctx, group, q.name, armeventhub.NetworkRuleSet{Properties: p}, nil)
		return err
	}
	if !l.addresses {
		q.refused("an IP rule", set(1), wrong)
		return
	}
	q.allowed("128 IP rules", set(128))
	q.refused("one more", set(129), tooMany)
}

// post sends an event over HTTP.
func (q *limited) post(path, body string, header http.Header) (int, string) {
	q.Helper()
	status, text, err := q.atom.ask(http.MethodPost, path, body, header)
	if err != nil {
		q.Fatal(err)
	}
	return status, string(text)
}

func (q *limited) testPublication(l *tierLimits) {
	q.allowed("a hub", q.with("orders", 1))
	if status, text := q.post("/orders/messages", strings.Repeat("x", l.publication-1000), nil); status != http.StatusCreated {
		q.Errorf("nearly %d bytes: %d, %s", l.publication, status, text)
	}
	if status, text := q.post("/orders/messages", strings.Repeat("x", l.publication+1), nil); status != http.StatusRequestEntityTooLarge || !strings.Contains(text, "exceeds the limit") {
		q.Errorf("more than %d bytes: %d, %s", l.publication, status, text)
	}
}

func (q *limited) testRules() {
	q.allowed("a hub", q.with("orders", 1))
	for _, hub := range []string{"", "orders"} {
		for i := range 12 {
			q.allowed("a rule", q.rule(hub, fmt.Sprintf("rule-%d", i)))
		}
		q.refused("one more", q.rule(hub, "more"), tooMany)
		q.allowed("to change one", q.rule(hub, "rule-0"))
	}
}

func (q *limited) testNames() {
	name := func(n int) string { return strings.Repeat("n", n) }
	q.allowed("a hub of 256 characters", q.with(name(256), 1))
	q.refused("a hub of 257 characters", q.with(name(257), 1), wrong)
	q.atomRefused("a hub of 257 characters", "/"+name(257), "EventHubDescription", "", nil, wrong)
	q.allowed("a hub", q.with("orders", 1))
	q.allowed("a group of 50 characters", q.group("orders", name(50), nil))
	q.refused("a group of 51 characters", q.group("orders", name(51), nil), wrong)
	q.atomRefused("a group of 51 characters", "/orders/consumergroups/"+name(51), "ConsumerGroupDescription", "", nil, wrong)
	for _, hub := range []string{"", "orders"} {
		q.allowed("a rule of 256 characters", q.rule(hub, name(256)))
		q.refused("a rule of 257 characters", q.rule(hub, name(257)), wrong)
	}
}

func (q *limited) testMetadata() {
	of := func(n int) *string { return new(strings.Repeat("ü", n)) } // characters, not bytes
	q.allowed("1,024 characters on a hub", q.hub("orders", armeventhub.Properties{UserMetadata: of(1024)}))
	q.refused("1,025 characters on a hub", q.hub("orders", armeventhub.Properties{UserMetadata: of(1025)}), wrong)
	q.allowed("1,024 characters on a group", q.group("orders", "billing", of(1024)))
	q.refused("1,025 characters on a group", q.group("orders", "billing", of(1025)), wrong)
	metadata := "<UserMetadata>" + *of(1025) + "</UserMetadata>"
	q.atomRefused("1,025 characters on a hub", "/new", "EventHubDescription", metadata, nil, wrong)
	q.atomRefused("1,025 characters on a group", "/orders/consumergroups/new", "ConsumerGroupDescription", metadata, nil, wrong)
}

// testKeys: 128 characters are allowed, of whatever length in UTF-8, which is
// where the broker draws the line.
func (q *limited) testKeys() {
	q.allowed("a hub", q.with("orders", 1))
	key := func(k string) http.Header { return http.Header{"Brokerproperties": {`{"PartitionKey":"` + k + `"}`}} }
	const widest = "%F0%9F%9A%9A" // a lorry: four bytes
	long := strings.Repeat("k", 512)
	for _, c := range []struct {
		what, path string
		header     http.Header
		status     int
	}{
		{"a key of 128 characters", "/orders/messages", key(strings.Repeat(`\ud83d\ude9a`, 128)), http.StatusCreated},
		{"a key of 512 bytes", "/orders/messages", key(long), http.StatusCreated},
		{"a key of 513 bytes", "/orders/messages", key(long + "k"), wrong},
		{"a publisher of 128 characters", "/orders/publishers/" + strings.Repeat(widest, 128) + "/messages", nil, http.StatusCreated},
		{"a publisher of 513 bytes", "/orders/publishers/" + long + "k/messages", nil, wrong},
	} {
		if status, text := q.post(c.path, "x", c.header); status != c.status {
			q.Errorf("%s: %d, %s", c.what, status, text)
		}
	}
	q.atomRefused("a revoked publisher of 513 bytes", "/orders/revokedpublishers/"+long+"k", "RevokedPublisherDescription", "", nil, wrong)
}

// TestRuntimeInfo: a namespace of a tier can be asked fifty times a second what its
// hubs and partitions are. Who asks more often is told to wait, by the service's
// condition and number, and the SDK's retries get an answer.
func TestRuntimeInfo(t *testing.T) {
	b := tiered(t, "standard", 40)
	ctx, cancel := context.WithTimeout(t.Context(), 2*tierTimeout)
	defer cancel()
	impatient := b.producer(-1)
	patient := b.producer(30)
	if _, err := patient.GetPartitionProperties(ctx, "0", nil); err != nil {
		t.Fatal(err)
	}
	asking, enough := context.WithCancel(ctx)
	defer enough()
	var answered atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for i := range 8 {
		wg.Go(func() {
			for asking.Err() == nil {
				var err error
				if i%2 == 0 {
					_, err = impatient.GetEventHubProperties(asking, nil)
				} else {
					_, err = impatient.GetPartitionProperties(asking, "0", nil)
				}
				switch {
				case err == nil:
					answered.Add(1)
				case asking.Err() != nil:
				case !strings.Contains(err.Error(), "Error code : 50001. Please wait 10 seconds"):
					t.Errorf("who asks too often is told: %v", err)
				case time.Since(began) > 2*time.Second:
					enough()
				}
			}
		})
	}
	<-asking.Done()
	most := 50 * (int64(time.Since(began)/time.Second) + 2)
	wg.Wait()
	if ctx.Err() != nil {
		t.Fatal("nobody was told to wait")
	}
	if n := answered.Load(); n > most || n == 0 {
		t.Errorf("%d times there was an answer, of %d", n, most)
	}
	if _, err := patient.GetEventHubProperties(ctx, nil); err != nil {
		t.Errorf("a patient client: %v", err)
	}
}
