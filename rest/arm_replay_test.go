package rest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What az and Terraform ask, call by call, and what they read of the answers:
// methods, paths, api-versions and the fields of the bodies are theirs, all names
// and values are ours.
//
// Sources: azure-cli, command_modules/eventhubs (aaz/latest and Operation, 2023 to
// 2026); terraform-provider-azurerm, internal/services/eventhub, and the
// hashicorp/go-azure-sdk that it vendors with its pollers (August 2026).

// step is one call of a client.
type step struct {
	method, path string
	version      string // of the api; that of the client if ""
	// body is what is sent. With edit it is laid over what was read last, less what
	// az takes for read-only: so its updates work.
	body string
	edit bool
	// status is what the client takes; 200 if 0.
	status int
	// shows are fields of the answer that the client reads, or shows its user.
	shows map[string]any
	// names are those of the list that is answered with.
	names string
}

// session is what a client does for somebody, from the beginning to the end.
type session struct {
	name, version string
	steps         []step
}

const (
	replayed = "namespaces/millrace-replay"
	inSub    = "/subscriptions/s1/providers/Microsoft.EventHub/"
	groupID  = "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/"
)

var sessions = []session{
	{"az eventhubs namespace", "2026-01-01", []step{
		// exists, and create without --location: the group's is asked for first.
		{method: "POST", path: inSub + "checkNameAvailability", body: `{"name":"millrace-replay"}`, shows: map[string]any{"nameAvailable": true, "reason": "None"}},
		{method: "GET", path: "/subscriptions/s1/resourcegroups/g1", version: "2022-09-01", shows: map[string]any{"location": "local"}},
		{method: "PUT", path: replayed,
			body: `{"identity":{"type":"None"},"location":"local","properties":{"disableLocalAuth":false,"isAutoInflateEnabled":true,"maximumThroughputUnits":8,"minimumTlsVersion":"1.2","publicNetworkAccess":"Enabled","zoneRedundant":true},"sku":{"capacity":2,"name":"Standard","tier":"Standard"},"tags":{"stage":"trial","team":"streams"}}`,
			shows: map[string]any{"id": groupID + replayed, "name": "millrace-replay", "location": "local", "sku.name": "Standard", "sku.tier": "Standard", "sku.capacity": 2.0,
				"tags": map[string]any{"stage": "trial", "team": "streams"}, "properties.provisioningState": "Succeeded", "properties.isAutoInflateEnabled": true,
				"properties.maximumThroughputUnits": 8.0, "properties.zoneRedundant": true, "properties.disableLocalAuth": false}},
		{method: "POST", path: inSub + "checkNameAvailability", body: `{"name":"millrace-replay"}`, shows: map[string]any{"nameAvailable": false, "reason": "NameInUse"}},
		{method: "GET", path: replayed, shows: map[string]any{"properties.status": "Active", "properties.publicNetworkAccess": "Enabled", "properties.minimumTlsVersion": "1.2"}},
		{method: "GET", path: "namespaces", names: "localhost millrace-replay"},
		{method: "GET", path: inSub + "namespaces", names: "localhost millrace-replay"},
		// update --tags, --capacity, --disable-local-auth: each reads and sends it back.
		{method: "GET", path: replayed},
		{method: "PUT", path: replayed, edit: true, body: `{"tags":{"stage":"live"}}`,
			shows: map[string]any{"tags": map[string]any{"stage": "live", "team": "streams"}, "sku.capacity": 2.0, "properties.isAutoInflateEnabled": true, "properties.maximumThroughputUnits": 8.0, "properties.zoneRedundant": true}},
		{method: "GET", path: replayed},
		{method: "PUT", path: replayed, edit: true, body: `{"sku":{"capacity":4},"properties":{"disableLocalAuth":true}}`,
			shows: map[string]any{"sku.capacity": 4.0, "properties.disableLocalAuth": true, "properties.provisioningState": "Succeeded", "tags.stage": "live"}},
		// update --sku alone leaves the tier as it was read; so does --tier the sku.
		{method: "PUT", path: replayed, edit: true, body: `{"sku":{"name":"Premium"},"properties":{"isAutoInflateEnabled":false,"maximumThroughputUnits":0}}`,
			shows: map[string]any{"sku.name": "Premium", "sku.tier": "Premium", "sku.capacity": 4.0, "properties.disableLocalAuth": true}},
		{method: "PUT", path: replayed, edit: true, body: `{"sku":{"tier":"Standard"}}`, shows: map[string]any{"sku.name": "Standard", "sku.tier": "Standard"}},
		{method: "DELETE", path: replayed},
		{method: "DELETE", path: replayed, status: http.StatusNoContent},
		{method: "GET", path: replayed, status: http.StatusNotFound, shows: map[string]any{"error.code": "ResourceNotFound"}},
		{method: "GET", path: "namespaces", names: "localhost"},
	}},
	{"az eventhubs eventhub and consumer-group", "2024-01-01", []step{
		{method: "PUT", path: replayed, version: "2026-01-01", body: `{"location":"local","sku":{"name":"Premium","tier":"Premium"}}`, shows: map[string]any{"sku.capacity": 1.0}},
		{method: "PUT", path: replayed + "/eventhubs/orders", body: `{"properties":{"partitionCount":3,"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":36},"status":"Active"}}`,
			shows: map[string]any{"id": groupID + replayed + "/eventhubs/orders", "properties.partitionCount": 3.0, "properties.partitionIds": []any{"0", "1", "2"}, "properties.status": "Active",
				"properties.retentionDescription.cleanupPolicy": "Delete", "properties.retentionDescription.retentionTimeInHours": 36.0, "properties.messageRetentionInDays": 2.0}},
		{method: "PUT", path: replayed + "/eventhubs/plain", body: `{"properties":{"retentionDescription":{"cleanupPolicy":"Delete"}}}`, shows: map[string]any{"properties.partitionCount": 4.0}},
		{method: "GET", path: replayed + "/eventhubs", names: "orders plain"},
		// update --retention-time, --partition-count, --status.
		{method: "GET", path: replayed + "/eventhubs/orders"},
		{method: "PUT", path: replayed + "/eventhubs/orders", edit: true, body: `{"properties":{"retentionDescription":{"retentionTimeInHours":72}}}`,
			shows: map[string]any{"properties.messageRetentionInDays": 3.0, "properties.retentionDescription.retentionTimeInHours": 72.0, "properties.partitionCount": 3.0}},
		{method: "PUT", path: replayed + "/eventhubs/orders", edit: true, body: `{"properties":{"partitionCount":5,"status":"SendDisabled"}}`,
			shows: map[string]any{"properties.partitionCount": 5.0, "properties.status": "SendDisabled", "properties.retentionDescription.retentionTimeInHours": 72.0}},
		{method: "PUT", path: replayed + "/eventhubs/orders/consumergroups/billing", body: `{"properties":{"userMetadata":"invoices"}}`, shows: map[string]any{"name": "billing", "properties.userMetadata": "invoices"}},
		{method: "PUT", path: replayed + "/eventhubs/orders/consumergroups/audit", body: `{"properties":{}}`},
		{method: "GET", path: replayed + "/eventhubs/orders/consumergroups", names: "$Default billing audit"},
		{method: "GET", path: replayed + "/eventhubs/orders/consumergroups/billing"},
		{method: "PUT", path: replayed + "/eventhubs/orders/consumergroups/billing", edit: true, body: `{"properties":{"userMetadata":"bills"}}`, shows: map[string]any{"properties.userMetadata": "bills"}},
		{method: "DELETE", path: replayed + "/eventhubs/orders/consumergroups/billing"},
		{method: "GET", path: replayed + "/eventhubs/orders/consumergroups/billing", status: http.StatusNotFound, shows: map[string]any{"error.code": "NotFound"}},
		{method: "DELETE", path: replayed + "/eventhubs/orders/consumergroups/$Default", status: http.StatusBadRequest, shows: map[string]any{"error.code": "BadRequest"}},
		{method: "DELETE", path: replayed + "/eventhubs/orders"},
		{method: "DELETE", path: replayed + "/eventhubs/orders", status: http.StatusNoContent},
		{method: "GET", path: replayed + "/eventhubs", names: "plain"},
		{method: "DELETE", path: replayed, version: "2026-07-01-preview"},
	}},
	{"az eventhubs authorization-rule", "2023-01-01-preview", append(append([]step{
		{method: "PUT", path: replayed, version: "2026-01-01", body: `{"location":"local","sku":{"name":"Standard","tier":"Standard"}}`},
		{method: "PUT", path: replayed + "/eventhubs/orders", body: `{"properties":{"partitionCount":1}}`},
	}, append(azRules(replayed), azRules(replayed+"/eventhubs/orders")...)...), step{method: "DELETE", path: replayed})},
	{"az eventhubs namespace network-rule-set", "2026-07-01-preview", []step{
		{method: "PUT", path: replayed, version: "2026-01-01", body: `{"location":"local","sku":{"name":"Standard","tier":"Standard"}}`},
		{method: "GET", path: replayed + "/networkRuleSets", names: "default"},
		// create, then ip-rule add, update, ip-rule remove.
		{method: "PUT", path: replayed + "/networkRuleSets/default", body: `{"properties":{"defaultAction":"Deny","publicNetworkAccess":"Enabled","trustedServiceAccessEnabled":true}}`,
			shows: map[string]any{"name": "default", "properties.defaultAction": "Deny", "properties.trustedServiceAccessEnabled": true, "properties.ipRules": []any{}, "properties.virtualNetworkRules": []any{}}},
		{method: "GET", path: replayed + "/networkRuleSets/default"},
		{method: "PUT", path: replayed + "/networkRuleSets/default", edit: true, body: `{"properties":{"ipRules":[{"action":"Allow","ipMask":"10.1.0.0/16"},{"action":"Allow","ipMask":"192.0.2.9"}]}}`,
			shows: map[string]any{"properties.defaultAction": "Deny", "properties.trustedServiceAccessEnabled": true,
				"properties.ipRules": []any{map[string]any{"action": "Allow", "ipMask": "10.1.0.0/16"}, map[string]any{"action": "Allow", "ipMask": "192.0.2.9"}}}},
		{method: "PUT", path: replayed + "/networkRuleSets/default", edit: true, body: `{"properties":{"defaultAction":"Allow","trustedServiceAccessEnabled":false}}`,
			shows: map[string]any{"properties.defaultAction": "Allow", "properties.trustedServiceAccessEnabled": false}},
		{method: "PUT", path: replayed + "/networkRuleSets/default", edit: true, body: `{"properties":{"ipRules":[{"action":"Allow","ipMask":"192.0.2.9"}]}}`,
			shows: map[string]any{"properties.ipRules": []any{map[string]any{"action": "Allow", "ipMask": "192.0.2.9"}}}},
		{method: "DELETE", path: replayed},
	}},
	{"azurerm_eventhub_namespace", "2024-01-01", []step{
		{method: "GET", path: replayed, status: http.StatusNotFound}, // nothing to import
		{method: "PUT", path: replayed,
			body:  `{"identity":{"type":"None","userAssignedIdentities":null},"location":"westeurope","properties":{"disableLocalAuth":true,"isAutoInflateEnabled":true,"maximumThroughputUnits":7,"minimumTlsVersion":"1.2","publicNetworkAccess":"Enabled"},"sku":{"capacity":1,"name":"Standard","tier":"Standard"},"tags":{"owner":"streams"}}`,
			shows: map[string]any{"properties.provisioningState": "Succeeded"}},
		{method: "GET", path: replayed, shows: map[string]any{"properties.provisioningState": "Succeeded"}}, // its poller
		{method: "PUT", path: replayed + "/networkRuleSets/default", body: `{"properties":{"defaultAction":"Deny","ipRules":[{"action":"Allow","ipMask":"198.51.100.0/24"}],"publicNetworkAccess":"Enabled","trustedServiceAccessEnabled":true}}`},
		{method: "GET", path: replayed, shows: map[string]any{"location": "westeurope", "sku.name": "Standard", "sku.capacity": 1.0, "tags": map[string]any{"owner": "streams"}, "identity": nil, "properties.clusterArmId": nil,
			"properties.isAutoInflateEnabled": true, "properties.maximumThroughputUnits": 7.0, "properties.disableLocalAuth": true, "properties.publicNetworkAccess": "Enabled", "properties.minimumTlsVersion": "1.2"}},
		{method: "GET", path: replayed + "/networkRuleSets/default", shows: map[string]any{"properties.defaultAction": "Deny", "properties.publicNetworkAccess": "Enabled", "properties.trustedServiceAccessEnabled": true,
			"properties.virtualNetworkRules": []any{}, "properties.ipRules": []any{map[string]any{"action": "Allow", "ipMask": "198.51.100.0/24"}}}},
		{method: "POST", path: replayed + "/authorizationRules/RootManageSharedAccessKey/listKeys", shows: map[string]any{"primaryKey": "the broker's", "aliasPrimaryConnectionString": nil,
			"primaryConnectionString": "Endpoint=sb://millrace-replay.example:5672;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=the broker's;UseDevelopmentEmulator=true;"}},
		// An update leaves out what has not changed: maximumThroughputUnits stays.
		{method: "PATCH", path: replayed,
			body:  `{"identity":{"type":"None","userAssignedIdentities":null},"location":"westeurope","properties":{"disableLocalAuth":false,"isAutoInflateEnabled":true,"minimumTlsVersion":"1.2","publicNetworkAccess":"Enabled"},"sku":{"capacity":3,"name":"Standard","tier":"Standard"},"tags":{}}`,
			shows: map[string]any{"properties.provisioningState": "Succeeded"}},
		{method: "GET", path: replayed, shows: map[string]any{"sku.capacity": 3.0, "tags": map[string]any{}, "properties.disableLocalAuth": false, "properties.maximumThroughputUnits": 7.0, "properties.provisioningState": "Succeeded"}},
		{method: "PUT", path: replayed + "/networkRuleSets/default", body: `{"properties":{"defaultAction":"Allow","publicNetworkAccess":"Enabled","trustedServiceAccessEnabled":false}}`},
		{method: "GET", path: replayed + "/networkRuleSets/default", shows: map[string]any{"properties.defaultAction": "Allow", "properties.ipRules": []any{}, "properties.trustedServiceAccessEnabled": false}},
		// To the tier Basic, auto-inflate goes with its limit.
		{method: "PATCH", path: replayed, body: `{"location":"westeurope","properties":{"isAutoInflateEnabled":false,"maximumThroughputUnits":0,"disableLocalAuth":false,"publicNetworkAccess":"Enabled"},"sku":{"capacity":1,"name":"Basic","tier":"Basic"},"tags":{}}`,
			shows: map[string]any{"sku.name": "Basic", "properties.isAutoInflateEnabled": false, "properties.maximumThroughputUnits": 0.0}},
		{method: "DELETE", path: replayed},
		{method: "GET", path: replayed, status: http.StatusNotFound}, // its poller
	}},
	{"azurerm_eventhub and azurerm_eventhub_consumer_group", "2024-01-01", []step{
		{method: "PUT", path: replayed, body: `{"location":"westeurope","properties":{},"sku":{"capacity":1,"name":"Premium","tier":"Premium"}}`},
		{method: "GET", path: replayed + "/eventhubs/orders", status: http.StatusNotFound},
		{method: "PUT", path: replayed + "/eventhubs/orders", body: `{"properties":{"messageRetentionInDays":7,"partitionCount":2,"status":"Active"}}`},
		{method: "GET", path: replayed + "/eventhubs/orders", shows: map[string]any{"properties.partitionCount": 2.0, "properties.partitionIds": []any{"0", "1"}, "properties.status": "Active", "properties.messageRetentionInDays": 7.0,
			"properties.captureDescription": nil, "properties.retentionDescription": map[string]any{"cleanupPolicy": "Delete", "retentionTimeInHours": 168.0}}},
		// Whether partitions can be added is read off the namespace.
		{method: "GET", path: replayed, shows: map[string]any{"sku.name": "Premium"}},
		{method: "PUT", path: replayed + "/eventhubs/orders", body: `{"properties":{"messageRetentionInDays":7,"partitionCount":4,"status":"Disabled"}}`},
		{method: "GET", path: replayed + "/eventhubs/orders", shows: map[string]any{"properties.partitionCount": 4.0, "properties.status": "Disabled"}},
		// retention_description changes, and message_retention is sent as it was.
		{method: "PUT", path: replayed + "/eventhubs/orders", body: `{"properties":{"messageRetentionInDays":7,"partitionCount":4,"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":30},"status":"Active"}}`},
		{method: "GET", path: replayed + "/eventhubs/orders", shows: map[string]any{"properties.status": "Active", "properties.messageRetentionInDays": 2.0, "properties.retentionDescription.retentionTimeInHours": 30.0}},
		{method: "GET", path: replayed + "/eventhubs/orders/consumerGroups/billing", status: http.StatusNotFound},
		{method: "PUT", path: replayed + "/eventhubs/orders/consumerGroups/billing", body: `{"name":"billing","properties":{"userMetadata":"invoices"}}`},
		{method: "GET", path: replayed + "/eventhubs/orders/consumerGroups/billing", shows: map[string]any{"properties.userMetadata": "invoices"}},
		{method: "PUT", path: replayed + "/eventhubs/orders/consumerGroups/billing", body: `{"name":"billing","properties":{"userMetadata":""}}`},
		{method: "GET", path: replayed + "/eventhubs/orders/consumerGroups/billing", shows: map[string]any{"properties.userMetadata": nil}},
		{method: "DELETE", path: replayed + "/eventhubs/orders/consumerGroups/billing"},
		{method: "DELETE", path: replayed + "/eventhubs/orders"},
		{method: "GET", path: replayed + "/eventhubs/orders", status: http.StatusNotFound},
		{method: "DELETE", path: replayed},
	}},
	{"azurerm_eventhub_authorization_rule, and of a namespace", "2024-01-01", append(append([]step{
		{method: "PUT", path: replayed, body: `{"location":"westeurope","properties":{},"sku":{"capacity":1,"name":"Standard","tier":"Standard"}}`},
		{method: "PUT", path: replayed + "/eventhubs/orders", body: `{"properties":{"messageRetentionInDays":1,"partitionCount":1,"status":"Active"}}`},
	}, append(terraformRules(replayed), terraformRules(replayed+"/eventhubs/orders")...)...), step{method: "DELETE", path: replayed})},
	// Releases from 2022 to 2024 asked for these versions.
	{"older azurerm", "2022-01-01-preview", []step{
		{method: "PUT", path: replayed, body: `{"location":"westeurope","properties":{"disableLocalAuth":false,"isAutoInflateEnabled":false,"publicNetworkAccess":"Enabled","zoneRedundant":true},"sku":{"capacity":1,"name":"Standard","tier":"Standard"},"tags":{}}`},
		{method: "GET", path: replayed, shows: map[string]any{"properties.zoneRedundant": true, "properties.provisioningState": "Succeeded"}},
		{method: "PUT", path: replayed + "/eventhubs/orders", version: "2021-11-01", body: `{"properties":{"messageRetentionInDays":3,"partitionCount":1,"status":"Active"}}`, shows: map[string]any{"properties.messageRetentionInDays": 3.0}},
		{method: "DELETE", path: replayed},
		{method: "GET", path: replayed, status: http.StatusNotFound},
	}},
}

// azRules is "authorization-rule", and its keys list and renew.
func azRules(on string) []step {
	rule := on + "/authorizationRules/ingest"
	return []step{
		{method: "PUT", path: rule, body: `{"properties":{"rights":["Send"]}}`, shows: map[string]any{"id": groupID + rule, "name": "ingest", "properties.rights": []any{"Send"}}},
		{method: "GET", path: rule},
		{method: "PUT", path: rule, edit: true, body: `{"properties":{"rights":["Send","Listen"]}}`, shows: map[string]any{"properties.rights": []any{"Listen", "Send"}}},
		{method: "POST", path: rule + "/listKeys", shows: map[string]any{"keyName": "ingest"}},
		{method: "POST", path: rule + "/regenerateKeys", body: `{"keyType":"SecondaryKey"}`, shows: map[string]any{"keyName": "ingest"}},
		{method: "POST", path: rule + "/regenerateKeys", body: `{"key":"one of our own","keyType":"PrimaryKey"}`, shows: map[string]any{"primaryKey": "one of our own"}},
		{method: "DELETE", path: rule},
		{method: "DELETE", path: rule, status: http.StatusNoContent},
	}
}

// terraformRules is a rule's resource.
func terraformRules(on string) []step {
	rule := on + "/authorizationRules/ingest"
	return []step{
		{method: "GET", path: rule, status: http.StatusNotFound},
		{method: "PUT", path: rule, body: `{"name":"ingest","properties":{"rights":["Listen"]}}`},
		{method: "GET", path: rule, shows: map[string]any{"properties.rights": []any{"Listen"}}},
		{method: "POST", path: rule + "/listKeys", shows: map[string]any{"keyName": "ingest", "aliasPrimaryConnectionString": nil}},
		{method: "PUT", path: rule, body: `{"name":"ingest","properties":{"rights":["Listen","Send","Manage"]}}`},
		{method: "GET", path: rule, shows: map[string]any{"properties.rights": []any{"Listen", "Send", "Manage"}}},
		{method: "POST", path: rule + "/listKeys"},
		{method: "DELETE", path: rule},
	}
}

// readOnly are the fields that az reads and does not send.
var readOnly = map[string][]string{
	"":           {"id", "name", "type", "systemData"},
	"properties": {"createdAt", "updatedAt", "metricId", "provisioningState", "serviceBusEndpoint", "partitionIds"},
}

// edited is what an update of az sends: what was read, with a change laid over it.
func edited(t *testing.T, read document, change string) string {
	t.Helper()
	var over map[string]any
	if err := json.Unmarshal([]byte(change), &over); err != nil {
		t.Fatal(err)
	}
	for at, names := range readOnly {
		in, _ := read.at(at).(map[string]any)
		if at == "" {
			in = read
		}
		for _, name := range names {
			delete(in, name)
		}
	}
	lay(read, over)
	b, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func lay(under, over map[string]any) {
	for name, v := range over {
		from, ok := v.(map[string]any)
		if to, both := under[name].(map[string]any); ok && both {
			lay(to, from)
			continue
		}
		under[name] = v
	}
}

// TestReplays has each client go through its sessions.
func TestReplays(t *testing.T) {
	for _, s := range sessions {
		t.Run(s.name, func(t *testing.T) {
			m := newManager(t)
			var read document
			for _, c := range s.steps {
				version, body, want := s.version, c.body, c.status
				if c.version != "" {
					version = c.version
				}
				if c.edit {
					body = edited(t, read, c.body)
				}
				if want == 0 {
					want = http.StatusOK
				}
				status, doc, header := m.ask(c.method, c.path+"?api-version="+version, body)
				what := c.method + " " + c.path
				if status != want {
					t.Fatalf("%s %s: %d %v", what, body, status, doc)
				}
				read = doc
				for path, v := range c.shows {
					if diff := cmp.Diff(v, doc.at(path)); diff != "" {
						t.Errorf("%s: %s: %s", what, path, diff)
					}
				}
				if c.names != "" && doc.names() != c.names {
					t.Errorf("%s: %s; want %s", what, doc.names(), c.names)
				}
				settled(t, what, c.method, status, doc, header)
			}
		})
	}
}

// settled checks what pollers look at: no address to ask again, so that they go by
// the status and the provisioningState; and bodies where they read one.
func settled(t *testing.T, what, method string, status int, doc document, h http.Header) {
	t.Helper()
	for _, name := range []string{"Location", "Azure-AsyncOperation", "Operation-Location", "Retry-After"} {
		if h.Get(name) != "" {
			t.Errorf("%s: the header %s says %s", what, name, h.Get(name))
		}
	}
	if h.Get("X-Ms-Request-Id") == "" || h.Get("X-Ms-Correlation-Request-Id") == "" {
		t.Errorf("%s: nothing to trace it by: %v", what, h)
	}
	if method == http.MethodDelete && status < 300 {
		if len(doc) > 0 {
			t.Errorf("%s: %v", what, doc)
		}
		return
	}
	if !strings.HasPrefix(h.Get("Content-Type"), "application/json") || len(doc) == 0 {
		t.Errorf("%s: %s %v", what, h.Get("Content-Type"), doc)
	}
}
