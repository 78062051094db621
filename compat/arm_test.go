package compat

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/eventhub/armeventhub"

	"github.com/millrace/millrace/auth"
)

const (
	subscription = "00000000-0000-0000-0000-000000000001"
	group        = "test-group"
)

// anyToken is a credential whose token says nothing.
type anyToken struct{}

// GetToken implements azcore.TokenCredential.
func (anyToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "any", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// manager is the Go management SDK, asking a broker.
type manager struct {
	*testing.T
	*Broker
	ctx        context.Context
	trust      *tls.Config
	namespaces *armeventhub.NamespacesClient
	hubs       *armeventhub.EventHubsClient
	groups     *armeventhub.ConsumerGroupsClient
	operations *armeventhub.OperationsClient
	appGroups  *armeventhub.ApplicationGroupClient
}

func newManager(t *testing.T, retry policy.RetryOptions) *manager {
	b := Start(t, "--entra", "accept-any", "--advertise", "localhost")
	ca, err := os.ReadFile(b.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	trust := &tls.Config{RootCAs: roots}
	here := cloud.Configuration{Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
		cloud.ResourceManager: {Endpoint: "https://" + localhost(b.HTTPS), Audience: "https://eventhubs.azure.net"},
	}}
	transport := &http.Transport{TLSClientConfig: trust, MaxIdleConnsPerHost: raceClients}
	t.Cleanup(transport.CloseIdleConnections)
	f, err := armeventhub.NewClientFactory(subscription, anyToken{}, &arm.ClientOptions{ClientOptions: policy.ClientOptions{
		Cloud: here, Retry: retry, Transport: &http.Client{Transport: transport},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &manager{t, b, t.Context(), trust, f.NewNamespacesClient(), f.NewEventHubsClient(), f.NewConsumerGroupsClient(), f.NewOperationsClient(), f.NewApplicationGroupClient()}
}

type fataler interface {
	Helper()
	Fatal(...any)
}

// must fails the test if a call did.
func must[R any](r R, err error) func(t fataler) R {
	return func(t fataler) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// refused wants a code, as the SDK reads it.
func (m *manager) refused(what string, err error, status int, code string) {
	m.Helper()
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != status || re.ErrorCode != code {
		m.Errorf("%s: %v; wanted %d %s", what, err, status, code)
	}
}

// every reads a list to its end.
func every[R, V any](m *manager, p *runtime.Pager[R], values func(R) []V) []V {
	m.Helper()
	var out []V
	for p.More() {
		page, err := p.NextPage(m.ctx)
		if err != nil {
			m.Fatal(err)
		}
		out = append(out, values(page)...)
	}
	return out
}

// same compares two values that may be pointers to nothing.
func same[V comparable](m *manager, what string, have *V, want V) {
	m.Helper()
	if have == nil || *have != want {
		m.Errorf("%s is %v, not %v", what, show(have), want)
	}
}

func show[V any](v *V) string {
	if v == nil {
		return "missing"
	}
	return fmt.Sprint(*v)
}

// TestARMGo manages a broker with the official SDK for Go.
func TestARMGo(t *testing.T) {
	m := newManager(t, policy.RetryOptions{})
	m.testNamespaces()
	m.testHubs()
	m.testGroups()
	m.testRules()
	m.testNetwork()
	m.testApplicationGroups()
	m.testRefusals()

	m.Kill()
	m.Restart()
	kept := must(m.namespaces.Get(m.ctx, group, "orders-dev", nil))(m)
	same(m, "the tag after a kill", kept.Tags["team"], "b")
	same(m, "the location", kept.Location, "westus")
	same(m, "the capacity", kept.SKU.Capacity, 3)
}

func (m *manager) testNamespaces() {
	poller := must(m.namespaces.BeginCreateOrUpdate(m.ctx, group, "orders-dev", armeventhub.EHNamespace{
		Location: new("westus"), Tags: map[string]*string{"team": new("a")},
		SKU: &armeventhub.SKU{Name: new(armeventhub.SKUNameStandard), Tier: new(armeventhub.SKUTierStandard), Capacity: new(int32(2))},
		Properties: &armeventhub.EHNamespaceProperties{
			IsAutoInflateEnabled: new(true), MaximumThroughputUnits: new(int32(5)), KafkaEnabled: new(true),
			ZoneRedundant: new(false), DisableLocalAuth: new(false), MinimumTLSVersion: new(armeventhub.TLSVersionOne2),
		},
	}, nil))(m)
	if !poller.Done() {
		m.Error("the poller has to wait")
	}
	made := must(poller.PollUntilDone(m.ctx, nil))(m)
	same(m, "the id", made.ID, "/subscriptions/"+subscription+"/resourceGroups/"+group+"/providers/Microsoft.EventHub/namespaces/orders-dev")
	got := must(m.namespaces.Get(m.ctx, group, "orders-dev", nil))(m)
	same(m, "the sku", got.SKU.Name, armeventhub.SKUNameStandard)
	same(m, "the capacity", got.SKU.Capacity, 2)
	same(m, "the location", got.Location, "westus")
	same(m, "a tag", got.Tags["team"], "a")
	same(m, "auto-inflate", got.Properties.IsAutoInflateEnabled, true)
	same(m, "its maximum", got.Properties.MaximumThroughputUnits, 5)
	same(m, "the state", got.Properties.ProvisioningState, "Succeeded")
	if time.Since(*got.Properties.CreatedAt).Abs() > time.Minute {
		m.Errorf("created at %s", got.Properties.CreatedAt)
	}

	// What was read is sent back, changed.
	got.SKU.Capacity = new(int32(3))
	again := must(must(m.namespaces.BeginCreateOrUpdate(m.ctx, group, "orders-dev", got.EHNamespace, nil))(m).PollUntilDone(m.ctx, nil))(m)
	same(m, "the capacity", again.SKU.Capacity, 3)
	patched := must(m.namespaces.Update(m.ctx, group, "orders-dev", armeventhub.EHNamespace{Tags: map[string]*string{"team": new("b")}}, nil))(m)
	same(m, "the tag", patched.Tags["team"], "b")
	same(m, "the capacity", patched.SKU.Capacity, 3)

	// The tier unlimited has a name that the SDK doesn't know, and takes.
	unlimited := must(m.namespaces.Get(m.ctx, group, "localhost", nil))(m)
	same(m, "the default namespace's tier", unlimited.SKU.Name, "Unlimited")
	must(must(m.namespaces.BeginCreateOrUpdate(m.ctx, group, "localhost", unlimited.EHNamespace, nil))(m).PollUntilDone(m.ctx, nil))(m)
	name := func(n *armeventhub.EHNamespace) string { return *n.Name }
	for what, names := range map[string][]*armeventhub.EHNamespace{
		"of the subscription": every(m, m.namespaces.NewListPager(nil), func(r armeventhub.NamespacesClientListResponse) []*armeventhub.EHNamespace { return r.Value }),
		"of the group": every(m, m.namespaces.NewListByResourceGroupPager(group, nil), func(r armeventhub.NamespacesClientListByResourceGroupResponse) []*armeventhub.EHNamespace {
			return r.Value
		}),
	} {
		if have := apply(names, name); !slices.Equal(have, []string{"localhost", "orders-dev"}) {
			m.Errorf("the namespaces %s are %v", what, have)
		}
	}
	check := must(m.namespaces.CheckNameAvailability(m.ctx, armeventhub.CheckNameAvailabilityParameter{Name: new("orders-dev")}, nil))(m)
	same(m, "the name's availability", check.NameAvailable, false)
	same(m, "its reason", check.Reason, armeventhub.UnavailableReasonNameInUse)
	if ops := every(m, m.operations.NewListPager(nil), func(r armeventhub.OperationsClientListResponse) []*armeventhub.Operation { return r.Value }); len(ops) < 10 {
		m.Errorf("there are %d operations", len(ops))
	}

	must(must(m.namespaces.BeginCreateOrUpdate(m.ctx, group, "short-lived", armeventhub.EHNamespace{Location: new("westus")}, nil))(m).PollUntilDone(m.ctx, nil))(m)
	for range 2 { // the second finds nothing
		must(must(m.namespaces.BeginDelete(m.ctx, group, "short-lived", nil))(m).PollUntilDone(m.ctx, nil))(m)
	}
	_, err := m.namespaces.Get(m.ctx, group, "short-lived", nil)
	m.refused("a namespace that is gone", err, 404, "ResourceNotFound")
}

func apply[V, R any](all []V, f func(V) R) []R {
	var out []R
	for _, v := range all {
		out = append(out, f(v))
	}
	return out
}

func (m *manager) testHubs() {
	made := must(m.hubs.CreateOrUpdate(m.ctx, group, "localhost", "orders", armeventhub.Eventhub{Properties: &armeventhub.Properties{
		PartitionCount: new(int64(3)), Status: new(armeventhub.EntityStatusActive), UserMetadata: new("mine"),
		RetentionDescription: &armeventhub.RetentionDescription{CleanupPolicy: new(armeventhub.CleanupPolicyRetentionDescriptionDelete), RetentionTimeInHours: new(int64(36))},
	}}, nil))(m)
	p := made.Properties
	same(m, "the partitions", p.PartitionCount, 3)
	same(m, "the last partition", p.PartitionIDs[2], "2")
	same(m, "the retention", p.RetentionDescription.RetentionTimeInHours, 36)
	same(m, "the retention in days", p.MessageRetentionInDays, 2)
	same(m, "the metadata", p.UserMetadata, "mine")

	got := must(m.hubs.Get(m.ctx, group, "localhost", "orders", nil))(m)
	got.Properties.Status = new(armeventhub.EntityStatusSendDisabled)
	changed := must(m.hubs.CreateOrUpdate(m.ctx, group, "localhost", "orders", got.Eventhub, nil))(m)
	same(m, "the status", changed.Properties.Status, armeventhub.EntityStatusSendDisabled)
	same(m, "the retention", changed.Properties.RetentionDescription.RetentionTimeInHours, 36)
	must(m.hubs.CreateOrUpdate(m.ctx, group, "localhost", "orders", armeventhub.Eventhub{Properties: &armeventhub.Properties{Status: new(armeventhub.EntityStatusActive)}}, nil))(m)

	must(m.hubs.CreateOrUpdate(m.ctx, group, "localhost", "gone", armeventhub.Eventhub{Properties: &armeventhub.Properties{}}, nil))(m)
	list := every(m, m.hubs.NewListByNamespacePager(group, "localhost", &armeventhub.EventHubsClientListByNamespaceOptions{Top: new(int32(1))}),
		func(r armeventhub.EventHubsClientListByNamespaceResponse) []*armeventhub.Eventhub { return r.Value })
	if names := apply(list, func(h *armeventhub.Eventhub) string { return *h.Name }); !slices.Equal(names, []string{"events", "gone", "orders"}) {
		m.Errorf("the event hubs are %v", names)
	}
	for range 2 {
		must(m.hubs.Delete(m.ctx, group, "localhost", "gone", nil))(m)
	}
}

func (m *manager) testGroups() {
	made := must(m.groups.CreateOrUpdate(m.ctx, group, "localhost", "orders", "billing", armeventhub.ConsumerGroup{Properties: &armeventhub.ConsumerGroupProperties{UserMetadata: new("mine")}}, nil))(m)
	same(m, "the metadata", made.Properties.UserMetadata, "mine")
	same(m, "the name", must(m.groups.Get(m.ctx, group, "localhost", "orders", "billing", nil))(m).Name, "billing")
	list := every(m, m.groups.NewListByEventHubPager(group, "localhost", "orders", nil), func(r armeventhub.ConsumerGroupsClientListByEventHubResponse) []*armeventhub.ConsumerGroup {
		return r.Value
	})
	if names := apply(list, func(g *armeventhub.ConsumerGroup) string { return *g.Name }); !slices.Equal(names, []string{"$Default", "billing"}) {
		m.Errorf("the groups are %v", names)
	}
	for range 2 {
		must(m.groups.Delete(m.ctx, group, "localhost", "orders", "billing", nil))(m)
	}
}

func (m *manager) testRules() {
	sends := armeventhub.AuthorizationRule{Properties: &armeventhub.AuthorizationRuleProperties{Rights: []*armeventhub.AccessRights{new(armeventhub.AccessRightsSend)}}}
	must(m.namespaces.CreateOrUpdateAuthorizationRule(m.ctx, group, "localhost", "all", sends, nil))(m)
	must(m.hubs.CreateOrUpdateAuthorizationRule(m.ctx, group, "localhost", "orders", "one", sends, nil))(m)
	same(m, "the right", must(m.hubs.GetAuthorizationRule(m.ctx, group, "localhost", "orders", "one", nil))(m).Properties.Rights[0], armeventhub.AccessRightsSend)
	list := every(m, m.namespaces.NewListAuthorizationRulesPager(group, "localhost", nil), func(r armeventhub.NamespacesClientListAuthorizationRulesResponse) []*armeventhub.AuthorizationRule {
		return r.Value
	})
	if names := apply(list, func(r *armeventhub.AuthorizationRule) string { return *r.Name }); !slices.Contains(names, "all") || !slices.Contains(names, "RootManageSharedAccessKey") {
		m.Errorf("the rules are %v", names)
	}
	before := must(m.hubs.ListKeys(m.ctx, group, "localhost", "orders", "one", nil))(m)
	m.send("the connection string of a hub's rule", *before.PrimaryConnectionString, "", true)
	after := must(m.hubs.RegenerateKeys(m.ctx, group, "localhost", "orders", "one", armeventhub.RegenerateAccessKeyParameters{KeyType: new(armeventhub.KeyTypePrimaryKey)}, nil))(m)
	m.send("the key that was replaced", *before.PrimaryConnectionString, "", false)
	m.send("the key that replaced it", *after.PrimaryConnectionString, "", true)
	m.send("the other key", *after.SecondaryConnectionString, "", true)
	whole := must(m.namespaces.ListKeys(m.ctx, group, "localhost", "all", nil))(m)
	m.send("the connection string of a namespace's rule", *whole.PrimaryConnectionString, "orders", true)
	same(m, "the given key", must(m.namespaces.RegenerateKeys(m.ctx, group, "localhost", "all", armeventhub.RegenerateAccessKeyParameters{KeyType: new(armeventhub.KeyTypeSecondaryKey), Key: new("given")}, nil))(m).SecondaryKey, "given")
	for range 2 {
		must(m.hubs.DeleteAuthorizationRule(m.ctx, group, "localhost", "orders", "one", nil))(m)
		must(m.namespaces.DeleteAuthorizationRule(m.ctx, group, "localhost", "all", nil))(m)
	}
}

// send uses a connection string, over TLS. The SDK wants a certificate for the
// whole of what follows sb://, port and all, unless the address is told apart.
func (m *manager) send(what, connection, hub string, works bool) {
	m.Helper()
	address := "localhost:" + must(portOf(connection))(m)
	connection = strings.Replace(connection, "sb://"+address, "sb://localhost", 1)
	p := must(azeventhubs.NewProducerClientFromConnectionString(connection, hub, &azeventhubs.ProducerClientOptions{
		TLSConfig: m.trust, CustomEndpoint: address, RetryOptions: azeventhubs.RetryOptions{MaxRetries: -1},
	}))(m)
	defer p.Close(m.ctx)
	batch, err := p.NewEventDataBatch(m.ctx, nil)
	if err == nil {
		err = batch.AddEventData(&azeventhubs.EventData{Body: []byte("x")}, nil)
	}
	if err == nil {
		err = p.SendEventDataBatch(m.ctx, batch, nil)
	}
	if (err == nil) != works {
		m.Errorf("%s: %v", what, err)
	}
}

func portOf(connection string) (string, error) {
	cs, err := auth.ParseConnectionString(connection)
	return strconv.Itoa(cs.Port), err
}

func (m *manager) testNetwork() {
	set := must(m.namespaces.CreateOrUpdateNetworkRuleSet(m.ctx, group, "orders-dev", armeventhub.NetworkRuleSet{Properties: &armeventhub.NetworkRuleSetProperties{
		DefaultAction: new(armeventhub.DefaultActionDeny), IPRules: []*armeventhub.NWRuleSetIPRules{{IPMask: new("10.0.0.0/8"), Action: new(armeventhub.NetworkRuleIPActionAllow)}},
	}}, nil))(m)
	same(m, "the default action", set.Properties.DefaultAction, armeventhub.DefaultActionDeny)
	got := must(m.namespaces.GetNetworkRuleSet(m.ctx, group, "orders-dev", nil))(m)
	same(m, "the address", got.Properties.IPRules[0].IPMask, "10.0.0.0/8")
}

func (m *manager) testRefusals() {
	hub := func(namespace, name string, p armeventhub.Properties) error {
		_, err := m.hubs.CreateOrUpdate(m.ctx, group, namespace, name, armeventhub.Eventhub{Properties: &p}, nil)
		return err
	}
	_, err := m.hubs.Get(m.ctx, group, "localhost", "none", nil)
	m.refused("no such hub", err, 404, "NotFound")
	_, err = m.hubs.Get(m.ctx, group, "nowhere", "none", nil)
	m.refused("no such namespace", err, 404, "ParentResourceNotFound")
	_, err = m.groups.Delete(m.ctx, group, "localhost", "orders", "$Default", nil)
	m.refused("deleting $Default", err, 400, "BadRequest")
	m.refused("too many partitions", hub("orders-dev", "new", armeventhub.Properties{PartitionCount: new(int64(33))}), 400, "BadRequest")
	m.refused("too long a retention", hub("orders-dev", "new", armeventhub.Properties{MessageRetentionInDays: new(int64(8))}), 400, "BadRequest")
	_, err = m.namespaces.BeginCreateOrUpdate(m.ctx, group, "new-one", armeventhub.EHNamespace{Properties: &armeventhub.EHNamespaceProperties{Encryption: &armeventhub.Encryption{KeySource: new("Microsoft.KeyVault")}}}, nil)
	m.refused("encryption", err, 400, "EncryptionNotSupported")
}

// TestARMClients manages a broker with the official SDKs for other languages.
func TestARMClients(t *testing.T) {
	b := Start(t, "--entra", "accept-any", "--advertise", "localhost")
	env := []string{"MILLRACE_HTTPS=" + localhost(b.HTTPS), "MILLRACE_CA_FILE=" + b.CA()}
	names := []string{"namespaces", "hubs", "groups", "rules", "others", "errors"}
	for _, dir := range []string{"arm-js", "arm-python"} {
		t.Run(dir, func(t *testing.T) {
			c := loadClient(t, dir+"/client.json")
			c.install(t)
			got := c.run(t, env, names)
			for _, name := range names {
				if r := got[name]; !r.OK {
					t.Errorf("%s: %s", name, r.Detail)
				}
			}
			for _, hub := range must(b.Admin().Hubs(t.Context()))(t) {
				if hub.Name == "events" {
					continue
				}
				if err := b.Admin().DeleteHub(t.Context(), hub.Name); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
