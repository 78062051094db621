package rest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

func TestARMNamespaces(t *testing.T) {
	m := newManager(t)
	m.must("PUT", "namespaces/first-one", `{}`)
	m.must("PUT", "namespaces/second-one", `{"location":"westus","sku":{"name":"standard"},"properties":{"isAutoInflateEnabled":true,"maximumThroughputUnits":4,"zoneRedundant":true,"minimumTlsVersion":"1.1","kafkaEnabled":true,"unheardOf":{"a":[1]}}}`)
	m.shows(m.must("GET", "namespaces/FIRST-one", ""), map[string]any{"name": "first-one", "sku.name": "Standard", "sku.capacity": 1.0, "location": "local"})
	m.shows(m.must("GET", "namespaces/second-one", ""), map[string]any{"properties.isAutoInflateEnabled": true, "properties.maximumThroughputUnits": 4.0, "properties.zoneRedundant": true, "properties.minimumTlsVersion": "1.1"})
	m.shows(m.must("GET", "namespaces/localhost", ""), map[string]any{"sku.name": "Unlimited", "sku.tier": "Unlimited"})
	for _, path := range []string{"namespaces", "/subscriptions/s1/providers/Microsoft.EventHub/namespaces", "/SUBSCRIPTIONS/s1/resourcegroups/g1/PROVIDERS/microsoft.eventhub/NAMESPACES/"} {
		if got := m.must("GET", path, "").names(); got != "first-one localhost second-one" {
			t.Errorf("%s: %s", path, got)
		}
	}

	// PATCH leaves what it doesn't name; PUT replaces the tags.
	m.shows(m.must("PATCH", "namespaces/second-one", `{"tags":{"a":"b"}}`), map[string]any{"tags": map[string]any{"a": "b"}, "location": "westus", "properties.isAutoInflateEnabled": true})
	m.shows(m.must("PATCH", "namespaces/second-one", `{"sku":{"name":"Standard","capacity":3}}`), map[string]any{"tags.a": "b", "sku.capacity": 3.0})
	m.shows(m.must("PUT", "namespaces/second-one", `{"properties":{"isAutoInflateEnabled":false}}`), map[string]any{"tags": map[string]any{}, "sku.capacity": 3.0, "properties.maximumThroughputUnits": 0.0, "location": "westus"})
	m.shows(m.must("PUT", "namespaces/second-one", `{"sku":{"name":"Premium"}}`), map[string]any{"sku.name": "Premium", "sku.capacity": 1.0})

	// What was read can be sent back.
	whole, _ := json.Marshal(m.must("GET", "namespaces/second-one", ""))
	m.must("PUT", "namespaces/second-one", string(whole))
	whole, _ = json.Marshal(m.must("GET", "namespaces/localhost", ""))
	m.must("PUT", "namespaces/localhost", string(whole))

	m.must("DELETE", "namespaces/second-one", "")
	if status, _, _ := m.ask("DELETE", "namespaces/second-one", ""); status != http.StatusNoContent {
		t.Errorf("deleting it again is answered with %d", status)
	}
	for name, reason := range map[string]string{"first-one": "NameInUse", "second-one": "None", "a": "InvalidName", "-abcdefg": "InvalidName", "LOCALHOST": "NameInUse"} {
		got := m.must("POST", "/subscriptions/s/providers/Microsoft.EventHub/checkNameAvailability", `{"name":"`+name+`"}`)
		m.shows(got, map[string]any{"reason": reason, "nameAvailable": reason == "None"})
	}
}

func TestARMHubs(t *testing.T) {
	m := newManager(t)
	const on = "namespaces/localhost/eventhubs"
	if got := m.must("GET", on, "").names(); got != "trial" {
		t.Error(got)
	}
	d := m.must("PUT", on+"/plain", `{}`)
	m.shows(d, map[string]any{"properties.partitionCount": 4.0, "properties.messageRetentionInDays": 7.0, "properties.status": "Active"})
	m.shows(m.must("PUT", on+"/plain", `{"properties":{"status":"senddisabled","userMetadata":"mine","partitionCount":5}}`),
		map[string]any{"properties.status": "SendDisabled", "properties.userMetadata": "mine", "properties.partitionCount": 5.0, "properties.messageRetentionInDays": 7.0})
	h, err := m.all.Default().EventHub("plain")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		asks string
		want time.Duration
	}{
		{`"messageRetentionInDays":2`, 48 * time.Hour},
		{`"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":36}`, 36 * time.Hour},
		{`"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":36},"messageRetentionInDays":2`, 36 * time.Hour},
		{`"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":36},"messageRetentionInDays":5`, 120 * time.Hour},
		{`"retentionDescription":{"retentionTimeInHours":-1}`, -1},
		{`"retentionDescription":{"retentionTimeInHours":-1},"messageRetentionInDays":-1`, -1},
		{`"retentionDescription":null,"captureDescription":null,"messageTimestampDescription":{"timestampType":"LogAppend"}`, -1},
		{`"messageRetentionInDays":1,"captureDescription":{"enabled":false,"encoding":"Avro"}`, 24 * time.Hour},
	} {
		m.must("PUT", on+"/plain", `{"properties":{`+c.asks+`}}`)
		if got := h.Settings().Retention; got != c.want && (got >= 0 || c.want >= 0) {
			t.Errorf("%s: %s", c.asks, got)
		}
	}
	// Ninety minutes are shown as two hours, and stay ninety minutes.
	h.Update(t.Context(), func(s *hub.Settings) error { s.Retention = 90 * time.Minute; return nil })
	whole, _ := json.Marshal(m.must("GET", on+"/plain", ""))
	m.must("PUT", on+"/plain", string(whole))
	if got := h.Settings().Retention; got != 90*time.Minute {
		t.Error(got)
	}
	m.must("DELETE", on+"/plain", "")
	for _, path := range []string{on + "/plain", "namespaces/nowhere/eventhubs/plain", "namespaces/nowhere", on + "/trial/consumergroups/none", on + "/none/consumergroups/none", on + "/trial/authorizationRules/none"} {
		if status, d, _ := m.ask("DELETE", path, ""); status != http.StatusNoContent || len(d) > 0 {
			t.Errorf("DELETE %s: %d %v", path, status, d)
		}
	}
}

func TestARMGroups(t *testing.T) {
	m := newManager(t)
	const on = "namespaces/localhost/eventhubs/trial/consumergroups"
	m.must("PUT", on+"/billing", `{"properties":{"userMetadata":"one"}}`)
	m.must("PUT", on+"/audit", `{}`)
	m.shows(m.must("PUT", on+"/BILLING", `{"properties":{}}`), map[string]any{"name": "billing", "properties.userMetadata": "one"})
	m.shows(m.must("PUT", on+"/billing", `{"properties":{"userMetadata":"two"}}`), map[string]any{"properties.userMetadata": "two"})
	m.shows(m.must("PUT", on+"/$Default", `{}`), map[string]any{"name": "$Default"})
	m.shows(m.must("GET", on+"/%24default", ""), map[string]any{"name": "$Default"})
	if got := m.must("GET", on, "").names(); got != "$Default billing audit" {
		t.Error(got)
	}
	m.must("DELETE", on+"/billing", "")
	if got := m.must("GET", on, "").names(); got != "$Default audit" {
		t.Error(got)
	}
}

func TestARMRules(t *testing.T) {
	m := newManager(t)
	for on, entity := range map[string]string{"namespaces/localhost": "", "namespaces/localhost/eventhubs/trial": ";EntityPath=trial"} {
		rule := on + "/authorizationRules/r1"
		m.must("PUT", rule, `{"properties":{"rights":["Send"]}}`)
		keys := m.must("POST", rule+"/listKeys", "")
		primary, secondary := fmt.Sprint(keys["primaryKey"]), fmt.Sprint(keys["secondaryKey"])
		const sends = "Endpoint=sb://localhost.example:5672;SharedAccessKeyName=r1;SharedAccessKey="
		m.shows(keys, map[string]any{"keyName": "r1",
			"primaryConnectionString":   sends + primary + entity + ";UseDevelopmentEmulator=true;",
			"secondaryConnectionString": sends + secondary + entity + ";UseDevelopmentEmulator=true;"})
		// Changing rights keeps the keys.
		m.must("PUT", rule, `{"properties":{"rights":["Listen","Send"]}}`)
		m.shows(m.must("POST", rule+"/listkeys", ""), map[string]any{"primaryKey": primary})
		after := m.must("POST", rule+"/regenerateKeys", `{"keyType":"PrimaryKey"}`)
		if after["primaryKey"] == primary || after["secondaryKey"] != secondary {
			t.Errorf("%v, before %v", after, keys)
		}
		m.shows(m.must("POST", rule+"/regenerateKeys", `{"keyType":"SecondaryKey","key":"given"}`), map[string]any{"secondaryKey": "given", "primaryKey": after["primaryKey"]})
		if got := m.must("GET", on+"/authorizationRules", "").names(); !strings.Contains(got, "r1") {
			t.Error(got)
		}
		m.must("DELETE", rule, "")
	}
	// A rule of the broker's own has one key.
	m.shows(m.must("POST", "namespaces/localhost/authorizationRules/root/listKeys", ""), map[string]any{"primaryKey": "root key", "secondaryKey": nil, "secondaryConnectionString": nil})

	// Over TLS the connection string is for the door with TLS.
	srv := httptest.NewTLSServer(m.anyToken())
	defer srv.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL+inGroup+"namespaces/localhost/authorizationRules/root/listKeys?api-version=2024-01-01", nil)
	req.Header.Set("Authorization", "bearer any")
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if want := `"primaryConnectionString":"Endpoint=sb://localhost.example:5671/;SharedAccessKeyName=root;SharedAccessKey=root key"`; !strings.Contains(string(b), want) {
		t.Errorf("%s", b)
	}
}

// TestARMConfiguredRules: the rules of a configuration are listed, and are its to
// change.
func TestARMConfiguredRules(t *testing.T) {
	m := newManager(t, hub.RulesOf{Rules: []hub.Rule{{Name: "fixed", Rights: auth.Send, Primary: "f"}}},
		hub.RulesOf{Hub: "trial", Rules: []hub.Rule{{Name: "fixed", Rights: auth.Listen, Primary: "t"}}})
	for on, right := range map[string]string{"namespaces/localhost": "Send", "namespaces/localhost/eventhubs/trial": "Listen"} {
		rule := on + "/authorizationRules/fixed"
		if got := m.must("GET", on+"/authorizationRules", "").names(); !strings.Contains(got, "fixed") {
			t.Errorf("%s: %s", on, got)
		}
		m.shows(m.must("GET", rule, ""), map[string]any{"properties.rights": []any{right}})
		m.shows(m.must("PUT", rule, `{"properties":{"rights":["`+right+`"]}}`), map[string]any{"properties.rights": []any{right}})
		if m.must("POST", rule+"/listKeys", "")["primaryKey"] == nil {
			t.Errorf("%s has no key", rule)
		}
		for _, c := range [][3]string{
			{"PUT", rule, `{"properties":{"rights":["Listen","Send"]}}`},
			{"DELETE", rule, ""},
			{"POST", rule + "/regenerateKeys", `{"keyType":"SecondaryKey"}`},
		} {
			status, d, _ := m.ask(c[0], c[1], c[2])
			if text := fmt.Sprint(d.at("error.message")); status != http.StatusBadRequest || d.at("error.code") != "BadRequest" || !strings.Contains(text, "configuration file, which alone can change it") {
				t.Errorf("%s %s: %d %v", c[0], c[1], status, d)
			}
		}
	}
}

// TestARMLocalAuth turns keys off and on, as every door sees it.
func TestARMLocalAuth(t *testing.T) {
	m := newManager(t)
	const ns = "namespaces/localhost"
	root := map[string]string{"Authorization": token("http://localhost/", "root", "root key")}
	m.shows(m.must("PUT", ns, `{"properties":{"disableLocalAuth":true}}`), map[string]any{"properties.disableLocalAuth": true})
	m.shows(m.must("PATCH", ns, `{"tags":{"a":"b"}}`), map[string]any{"properties.disableLocalAuth": true})
	m.shows(m.must("GET", ns, ""), map[string]any{"properties.disableLocalAuth": true})
	for what, r := range map[string]reply{
		"sending":  m.post("/trial/messages", "x", nil),
		"a batch":  m.post("/trial/messages", `[{"Body":"x"}]`, map[string]string{"Content-Type": "application/vnd.microsoft.servicebus.json"}),
		"the list": m.do("GET", "/$Resources/EventHubs", nil, root),
		"a change": m.do("DELETE", "/trial", nil, root),
	} {
		if r.status != http.StatusUnauthorized || !strings.HasPrefix(r.Detail, "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace. TrackingId:") {
			t.Errorf("%s: %d %s", what, r.status, r.Detail)
		}
	}
	// Web tokens go on.
	web := &world{t: t, url: m.url}
	bearer := map[string]string{"Authorization": "Bearer a.e30.b"}
	web.accepted(web.post("/trial/messages", "x", bearer))
	if r := web.do("GET", "/$Resources/EventHubs", nil, bearer); r.status != http.StatusOK {
		t.Errorf("%+v", r)
	}
	m.shows(m.must("PATCH", ns, `{"properties":{"disableLocalAuth":false}}`), map[string]any{"properties.disableLocalAuth": false})
	m.accepted(m.post("/trial/messages", "x", nil))
}

func TestARMNetworkRules(t *testing.T) {
	m := newManager(t)
	const path = "namespaces/localhost/networkRuleSets/default"
	m.must("PUT", path, `{"properties":{"defaultAction":"Allow","virtualNetworkRules":[],"ipRules":[],"publicNetworkAccess":"Enabled","trustedServiceAccessEnabled":false}}`)
	d := m.must("PUT", path, `{"properties":{"defaultAction":"Deny","ipRules":[{"ipMask":"10.0.0.0/8","action":"Allow"},{"ipMask":"192.0.2.1"}]}}`)
	m.shows(d, map[string]any{"properties.defaultAction": "Deny", "properties.ipRules": []any{
		map[string]any{"ipMask": "10.0.0.0/8", "action": "Allow"}, map[string]any{"ipMask": "192.0.2.1", "action": "Allow"}}})
	if m.all.Default().Admits("127.0.0.1:1") == nil || m.all.Default().Admits("10.1.1.1:1") != nil {
		t.Error("the rules don't hold")
	}
	// Management is not held to them.
	if got := m.must("GET", "namespaces/localhost/networkRuleSets", "").names(); got != "default" {
		t.Error(got)
	}
	m.shows(m.must("PUT", path, `{"properties":{"defaultAction":"Allow"}}`), map[string]any{"properties.ipRules": []any{}})
}

// TestARMCapture turns the capture of a hub on, changes it and turns it off.
func TestARMCapture(t *testing.T) {
	m := newManager(t)
	props := func(s string) string { return `{"properties":{` + s + `}}` }
	const account = "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.Storage/storageAccounts/lake"
	const h = "namespaces/localhost/eventhubs/captured"
	on := m.must("PUT", h, props(`"captureDescription":{"enabled":true,"encoding":"AvroDeflate","intervalInSeconds":120,"sizeLimitInBytes":10485760,"skipEmptyArchives":true,
		"destination":{"name":"EventHubArchive.AzureBlockBlob","properties":{"storageAccountResourceId":"`+account+`","blobContainer":"c","archiveNameFormat":"pattern"}}}`))
	want := map[string]any{
		"properties.captureDescription.enabled": true, "properties.captureDescription.encoding": "AvroDeflate", "properties.captureDescription.intervalInSeconds": 120.0,
		"properties.captureDescription.sizeLimitInBytes": 10485760.0, "properties.captureDescription.skipEmptyArchives": true,
		"properties.captureDescription.destination.name":                                "EventHubArchive.AzureBlockBlob",
		"properties.captureDescription.destination.properties.storageAccountResourceId": account,
		"properties.captureDescription.destination.properties.blobContainer":            "c",
		"properties.captureDescription.destination.properties.archiveNameFormat":        "pattern",
	}
	m.shows(on, want)
	m.shows(m.must("PUT", h, props(`"messageRetentionInDays":2`)), want) // what is left out stays
	want["properties.captureDescription.enabled"] = false
	m.shows(m.must("PUT", h, props(`"captureDescription":{"enabled":false}`)), want)
	kept, err := m.all.Default().EventHub("captured")
	if err != nil {
		t.Fatal(err)
	}
	if c := kept.Settings().Capture; c == nil || c.Enabled || c.Destination != "lake" || c.Interval != 2*time.Minute {
		t.Errorf("%+v", c)
	}
	// Where files go is changed by a command: the id of the account before says that no
	// more, nor may it come back with the next change.
	if err := kept.Update(t.Context(), func(s *hub.Settings) error {
		c := *s.Capture
		c.Destination = "pond"
		s.Capture = &c
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want["properties.captureDescription.destination.properties.storageAccountResourceId"] = "pond"
	m.shows(m.must("GET", h, ""), want)
}
