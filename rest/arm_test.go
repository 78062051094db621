package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/rest"
)

// manager is a resource manager over the namespaces of a world, which takes any
// bearer token.
type manager struct {
	*world
	url string
}

// inGroup is where the resources of the tests are.
const inGroup = "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/"

func newManager(t testing.TB, configured ...hub.RulesOf) *manager {
	w := newWorldAt(t, nil, configured...)
	srv := httptest.NewServer(w.anyToken())
	t.Cleanup(srv.Close)
	return &manager{w, srv.URL}
}

// anyToken is a server over the world's namespaces that takes any token.
func (w *world) anyToken() *rest.Server {
	v, err := auth.NewVerifier(auth.Options{Keys: w.all, Entra: auth.Entra{AcceptAny: true}})
	if err != nil {
		w.t.Fatal(err)
	}
	return rest.NewServer(rest.Options{Namespaces: w.all, Verifier: v, Endpoint: func(ns *hub.Namespace, secure bool) auth.ConnectionString {
		if secure {
			return auth.ConnectionString{Host: ns.Name + ".example", Port: 5671}
		}
		return auth.ConnectionString{Host: ns.Name + ".example", Port: 5672, Emulator: true}
	}})
}

// document is JSON, a value of which is found by a path of keys.
type document map[string]any

func (d document) at(path string) any {
	var v any = map[string]any(d)
	for key := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// names are those of a list.
func (d document) names() string {
	var names []string
	list, _ := d["value"].([]any)
	for _, x := range list {
		names = append(names, fmt.Sprint(x.(map[string]any)["name"]))
	}
	return strings.Join(names, " ")
}

// ask makes a request. A path that begins with no slash is below the group's
// provider; api-version is added to one without a query.
func (m *manager) ask(method, path, body string, headers ...string) (int, document, http.Header) {
	m.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = inGroup + path
	}
	if !strings.Contains(path, "?") {
		path += "?api-version=2024-01-01"
	}
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.url+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer any")
	for i := 0; i+1 < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	doc := document{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &doc); err != nil {
			m.t.Fatalf("%s %s: %v\n%s", method, path, err, b)
		}
	}
	return resp.StatusCode, doc, resp.Header
}

// must is ask where the answer is 200, or 204 for a deletion of nothing.
func (m *manager) must(method, path, body string) document {
	m.t.Helper()
	status, doc, _ := m.ask(method, path, body)
	if status != http.StatusOK {
		m.t.Fatalf("%s %s: %d %v", method, path, status, doc)
	}
	return doc
}

// shows checks values of a document.
func (m *manager) shows(d document, want map[string]any) {
	m.t.Helper()
	for path, v := range want {
		if diff := cmp.Diff(v, d.at(path)); diff != "" {
			m.t.Errorf("%s: %s", path, diff)
		}
	}
}

// times of documents, which no test knows beforehand.
var times = regexp.MustCompile(`"20\d\d-[0-9T:.-]+Z"`)

// TestARMShapes holds the documents to the service's, as it was recorded.
func TestARMShapes(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct{ method, path, body, want string }{
		{"PUT", "namespaces/orders-dev", `{"location":"West US","sku":{"name":"Premium","tier":"Premium"},"tags":{"a":"b"}}`,
			`{"sku":{"name":"Premium","tier":"Premium","capacity":1},"id":"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/namespaces/orders-dev","name":"orders-dev","type":"Microsoft.EventHub/Namespaces","location":"West US","tags":{"a":"b"},"properties":{"minimumTlsVersion":"1.2","publicNetworkAccess":"Enabled","disableLocalAuth":false,"zoneRedundant":false,"isAutoInflateEnabled":false,"maximumThroughputUnits":0,"kafkaEnabled":false,"provisioningState":"Succeeded","metricId":"s1:orders-dev","createdAt":"T","updatedAt":"T","serviceBusEndpoint":"HOST/","status":"Active"}}`},
		{"PUT", "namespaces/orders-dev/eventhubs/h1", `{"properties":{"partitionCount":2,"messageRetentionInDays":4,"status":"Active"}}`,
			`{"id":"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/namespaces/orders-dev/eventhubs/h1","name":"h1","type":"Microsoft.EventHub/namespaces/eventhubs","location":"West US","properties":{"messageRetentionInDays":4,"partitionCount":2,"status":"Active","createdAt":"T","updatedAt":"T","partitionIds":["0","1"],"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":96}}}`},
		{"PUT", "namespaces/orders-dev/eventhubs/h1/consumergroups/c1", `{"properties":{"userMetadata":"New consumergroup"}}`,
			`{"id":"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/namespaces/orders-dev/eventhubs/h1/consumergroups/c1","name":"c1","type":"Microsoft.EventHub/namespaces/eventhubs/consumergroups","location":"West US","properties":{"createdAt":"T","updatedAt":"T","userMetadata":"New consumergroup"}}`},
		{"PUT", "namespaces/orders-dev/authorizationRules/r1", `{"properties":{"rights":["Listen","Send"]}}`,
			`{"id":"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/namespaces/orders-dev/authorizationRules/r1","name":"r1","type":"Microsoft.EventHub/Namespaces/AuthorizationRules","location":"West US","properties":{"rights":["Listen","Send"]}}`},
		{"PUT", "namespaces/orders-dev/eventhubs/h1/authorizationRules/r2", `{"properties":{"rights":["Send","Listen","Manage"]}}`,
			`{"id":"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/namespaces/orders-dev/eventhubs/h1/authorizationRules/r2","name":"r2","type":"Microsoft.EventHub/namespaces/eventhubs/authorizationrules","location":"West US","properties":{"rights":["Listen","Send","Manage"]}}`},
		{"GET", "namespaces/orders-dev/networkRuleSets/default", ``,
			`{"id":"/subscriptions/s1/resourceGroups/g1/providers/Microsoft.EventHub/namespaces/orders-dev/networkRuleSets/default","name":"default","type":"Microsoft.EventHub/Namespaces/NetworkRuleSets","location":"West US","properties":{"publicNetworkAccess":"Enabled","defaultAction":"Allow","virtualNetworkRules":[],"ipRules":[],"trustedServiceAccessEnabled":false}}`},
		{"POST", "/subscriptions/s1/providers/Microsoft.EventHub/checkNameAvailability", `{"name":"not-there-yet"}`, `{"nameAvailable":true,"reason":"None","message":null}`},
		{"GET", "/subscriptions/s1/resourcegroups/g1", ``, `{"id":"/subscriptions/s1/resourceGroups/g1","name":"g1","type":"Microsoft.Resources/resourceGroups","location":"local","properties":{"provisioningState":"Succeeded"}}`},
	} {
		got := m.must(c.method, c.path, c.body)
		text, _ := json.Marshal(got)
		text = times.ReplaceAll(text, []byte(`"T"`))
		have := document{}
		json.Unmarshal(text, &have)
		want := document{}
		if err := json.Unmarshal([]byte(strings.ReplaceAll(c.want, "HOST", m.url)), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s %s: %s", c.method, c.path, diff)
		}
		if c.method == "PUT" {
			if diff := cmp.Diff(got, m.must("GET", c.path, "")); diff != "" {
				t.Errorf("GET %s: %s", c.path, diff)
			}
		}
	}
}

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

// TestARMRefusals has what each refusal is called.
func TestARMRefusals(t *testing.T) {
	m := newManager(t)
	m.must("PUT", "namespaces/basic-one", `{"sku":{"name":"Basic"}}`)
	m.must("PUT", "namespaces/basic-one/eventhubs/h", `{"properties":{"messageRetentionInDays":1}}`)
	properties := func(s string) string { return `{"properties":{` + s + `}}` }
	const ns, h = "namespaces/localhost", "namespaces/localhost/eventhubs/trial"
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "namespaces/nowhere", "", 404, "ResourceNotFound"},
		{"PATCH", "namespaces/nowhere", "{}", 404, "ResourceNotFound"},
		{"GET", "namespaces/nowhere/eventhubs", "", 404, "ParentResourceNotFound"},
		{"PUT", "namespaces/nowhere/eventhubs/h", "{}", 404, "ParentResourceNotFound"},
		{"POST", "namespaces/nowhere/authorizationRules/r/listKeys", "", 404, "ParentResourceNotFound"},
		{"GET", ns + "/eventhubs/none", "", 404, "NotFound"},
		{"PUT", ns + "/eventhubs/none/consumergroups/g", "{}", 404, "NotFound"},
		{"GET", h + "/consumergroups/none", "", 404, "NotFound"},
		{"GET", h + "/authorizationRules/none", "", 404, "NotFound"},
		{"POST", h + "/authorizationRules/none/listKeys", "", 404, "NotFound"},
		{"DELETE", h + "/consumergroups/$Default", "", 400, "BadRequest"},
		{"DELETE", h + "/consumergroups/$default", "", 400, "BadRequest"},
		{"PUT", h + "/consumergroups/$Default", properties(`"userMetadata":"x"`), 400, "BadRequest"},
		{"PUT", h + "/consumergroups/-x", "{}", 400, "BadRequest"},
		{"DELETE", ns, "", 400, "BadRequest"},
		{"DELETE", ns + "/authorizationRules/root", "", 400, "BadRequest"},

		{"PUT", "namespaces/short", "{}", 400, "BadRequest"},
		{"PUT", "namespaces/under_score", "{}", 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Huge"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Standard","tier":"Basic"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Standard","capacity":41}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Basic"},"properties":{"isAutoInflateEnabled":true,"maximumThroughputUnits":2}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"tags":{"":"x"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"tags":{"a":"` + strings.Repeat("x", 257) + `"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"location":"` + strings.Repeat("x", 65) + `"}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"identity":{"type":"SystemAssigned"}}`, 400, "IdentityNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"minimumTlsVersion":"1.3"`), 400, "BadRequest"},
		{"PUT", "namespaces/new-one", properties(`"disableLocalAuth":"yes"`), 400, "InvalidRequestContent"},
		{"PUT", "namespaces/new-one", properties(`"publicNetworkAccess":"Disabled"`), 400, "PublicNetworkAccessNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"alternateName":"x"`), 400, "AlternateNameNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"clusterArmId":"x"`), 400, "ClusterNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"encryption":{"keySource":"Microsoft.KeyVault"}`), 400, "EncryptionNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"geoDataReplication":{"locations":[{}]}`), 400, "GeoDataReplicationNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"privateEndpointConnections":[{}]`), 400, "PrivateEndpointNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"platformCapabilities":{"confidentialCompute":{"mode":"Enabled"}}`), 400, "ConfidentialComputeNotSupported"},
		{"GET", "namespaces/new-one", "", 404, "ResourceNotFound"},

		{"PUT", ns + "/eventhubs/new", properties(`"partitionCount":0`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"partitionCount":1025`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"partitionCount":9999999999`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageRetentionInDays":0`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageRetentionInDays":9223372036854775807`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageRetentionInDays":2,"retentionDescription":{"retentionTimeInHours":24}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"retentionDescription":{"cleanupPolicy":"Shred"}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"retentionDescription":{"cleanupPolicy":"Compact"}`), 400, "CompactionNotSupported"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"intervalInSeconds":59}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"intervalInSeconds":9999999999}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"sizeLimitInBytes":1}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"encoding":"CSV"}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"destination":{"name":"EventHubArchive.AzureDataLake"}}`), 400, "DataLakeNotSupported"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"destination":{"name":"Tape"}}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"destination":{"properties":{"storageAccountResourceId":"/x/storageAccounts/nowhere"}}}`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/new", properties(`"messageRetentionInDays":1,"captureDescription":{"enabled":true}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageTimestampDescription":{"timestampType":"Create"}`), 400, "MessageTimestampNotSupported"},
		{"PUT", ns + "/eventhubs/new", properties(`"status":"Renaming"`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"userMetadata":"` + strings.Repeat("x", 1025) + `"`), 400, "BadRequest"},
		{"GET", ns + "/eventhubs/new", "", 404, "NotFound"},
		{"PUT", h, properties(`"partitionCount":3`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/h", properties(`"partitionCount":5`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/h", properties(`"messageRetentionInDays":2`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/new", properties(`"partitionCount":33,"messageRetentionInDays":1`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/h/consumergroups/g", "{}", 403, "QuotaExceeded"},
		{"PUT", "namespaces/basic-one/networkRuleSets/default", properties(`"defaultAction":"Deny"`), 400, "BadRequest"},

		{"PUT", ns + "/authorizationRules/new", properties(`"rights":[]`), 400, "BadRequest"},
		{"PUT", ns + "/authorizationRules/new", properties(`"rights":["Rule"]`), 400, "BadRequest"},
		{"PUT", ns + "/authorizationRules/new", properties(`"rights":["Manage"]`), 400, "BadRequest"},
		{"POST", ns + "/authorizationRules/root/regenerateKeys", `{"keyType":"Tertiary"}`, 400, "BadRequest"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"virtualNetworkRules":[{"subnet":{"id":"x"}}]`), 400, "VirtualNetworkRulesNotSupported"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"publicNetworkAccess":"Disabled"`), 400, "PublicNetworkAccessNotSupported"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"defaultAction":"Maybe"`), 400, "BadRequest"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"ipRules":[{"ipMask":"everywhere"}],"defaultAction":"Deny"`), 400, "BadRequest"},
		{"GET", ns + "/networkRuleSets/other", "", 404, "NotFound"},
		{"PUT", ns + "/applicationGroups/g", "{}", 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"me"`), 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1","policies":[{"type":"Other"}]`), 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1","policies":[{"type":"ThrottlingPolicy","name":"p","metricId":"Bytes"}]`), 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1","policies":[{"type":"ThrottlingPolicy","name":"p","metricId":"IncomingBytes","rateLimitThreshold":1}]`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1"`), 400, "BadRequest"},
		{"GET", ns + "/applicationGroups/g", "", 404, "NotFound"},
		{"PUT", ns + "/disasterRecoveryConfigs/a", "{}", 400, "DisasterRecoveryNotSupported"},
		{"PUT", "clusters/c", "{}", 400, "ClusterNotSupported"},
		{"GET", "namespaces/nowhere/applicationGroups", "", 404, "ParentResourceNotFound"},

		{"PUT", h, "", 400, "InvalidRequestContent"},
		{"PUT", h, " [] ", 400, "InvalidRequestContent"},
		{"PUT", h, "{", 400, "InvalidRequestContent"},
		{"PUT", h, "{} {}", 400, "InvalidRequestContent"},
		{"PUT", h, "{\"a\":\"\xff\"}", 400, "InvalidRequestContent"},
		{"PUT", h, properties(`"partitionCount":"four"`), 400, "InvalidRequestContent"},
		{"PUT", h, properties(`"partitionCount":1.5`), 400, "InvalidRequestContent"},
		{"PUT", h, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), 400, "InvalidRequestContent"},
		{"PUT", h, `{"a":"` + strings.Repeat("x", rest.MaxARM) + `"}`, 413, "RequestEntityTooLarge"},

		{"POST", "namespaces", "{}", 405, "MethodNotAllowed"},
		{"PATCH", h, "{}", 405, "MethodNotAllowed"},
		{"PUT", "/subscriptions/s1/resourceGroups/g1", "{}", 405, "MethodNotAllowed"},
		{"GET", "queues", "", 404, "InvalidResourceType"},
		{"GET", "", "", 404, "InvalidResourceType"},
		{"GET", "namespaces//eventhubs", "", 404, "InvalidResourceType"},
		{"GET", "/subscriptions/s1/providers/Microsoft.EventHub/namespaces/localhost", "", 404, "InvalidResourceType"},
		{"GET", "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.ServiceBus/namespaces", "", 404, "InvalidResourceNamespace"},
		{"GET", "namespaces?x=1", "", 400, "MissingApiVersionParameter"},
		{"GET", "namespaces?api-version=", "", 400, "MissingApiVersionParameter"},
		{"GET", "namespaces?api-version=latest", "", 400, "InvalidApiVersionParameter"},
		{"GET", "namespaces?api-version=2024-13-01", "", 400, "InvalidApiVersionParameter"},
		{"GET", "namespaces?api-version=2024-01-01-alpha", "", 400, "InvalidApiVersionParameter"},
		{"GET", "namespaces?api-version=2024-01-01&$top=x", "", 400, "BadRequest"},
		{"GET", "namespaces?api-version=2024-01-01&$skip=-1", "", 400, "BadRequest"},
	} {
		status, doc, header := m.ask(c.method, c.path, c.body)
		if status != c.status || doc.at("error.code") != c.code || doc.at("error.message") == nil || header.Get("X-Ms-Request-Id") == "" {
			t.Errorf("%s %s %.80s: %d %v; wanted %d %s", c.method, c.path, c.body, status, doc, c.status, c.code)
		}
		if status == 405 && header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
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

// TestARMAnswers has what is answered beside the entities.
func TestARMAnswers(t *testing.T) {
	m := newManager(t)
	for _, path := range []string{
		"/subscriptions/s1", "/subscriptions/s1/resourceGroups", "/subscriptions/s1/providers", "/subscriptions/s1/providers/Microsoft.EventHub",
		"/providers/Microsoft.EventHub/operations", "/subscriptions/s1/providers/Microsoft.EventHub/clusters",
		"namespaces?api-version=2017-04-01", "namespaces?Api-Version=2026-01-01-preview", "namespaces?api%2Dversion=2099-12-31",
		"namespaces/localhost/applicationGroups", "namespaces/localhost/disasterRecoveryConfigs", "namespaces/localhost/schemagroups",
		"namespaces/localhost/privateEndpointConnections", "namespaces/localhost/privateLinkResources", "clusters",
	} {
		m.must("GET", path, "")
	}
	m.shows(m.must("POST", "/subscriptions/s1/providers/Microsoft.EventHub/register", ""), map[string]any{"registrationState": "Registered"})
	if status, doc, _ := m.ask("HEAD", "/subscriptions/s1/resourceGroups/g1", ""); status != 200 || len(doc) > 0 {
		t.Errorf("HEAD: %d %v", status, doc)
	}
}

func TestARMAuthorization(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		token, code string
		status      int
	}{
		{"", "AuthenticationFailed", 401},
		{token("http://localhost/", "root", "root key"), "AuthenticationFailedInvalidHeader", 401},
		{"Bearer " + token("http://localhost/", "root", "root key"), "AuthenticationFailedInvalidHeader", 401},
		{"Basic abc", "AuthenticationFailedInvalidHeader", 401},
		{"Bearer", "InvalidAuthenticationToken", 401},
		{"Bearer a.eyJleHAiOjF9.b", "ExpiredAuthenticationToken", 401}, // exp: 1
	} {
		status, doc, header := m.ask("GET", "namespaces", "", "Authorization", c.token)
		if status != c.status || doc.at("error.code") != c.code || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%q: %d %v %v", c.token, status, doc, header)
		}
	}

	// Where no tokens of Entra's are taken, none is.
	srv := httptest.NewServer(m.server)
	defer srv.Close()
	closed := &manager{m.world, srv.URL}
	status, doc, _ := closed.ask("DELETE", "namespaces/localhost/eventhubs/trial", "", "Authorization", "Bearer a.b.c")
	if status != 401 || doc.at("error.code") != "InvalidAuthenticationToken" || !strings.Contains(fmt.Sprint(doc.at("error.message")), "--entra") {
		t.Errorf("%d %v", status, doc)
	}
	if _, err := m.all.Default().EventHub("trial"); err != nil {
		t.Error(err)
	}
}

// TestARMBesideHubs holds the resource manager off hubs that have its words as
// names.
func TestARMBesideHubs(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"subscriptions", "providers"} {
		if _, err := w.all.Default().CreateEventHub(t.Context(), name, 1, hub.Settings{}); err != nil {
			t.Fatal(err)
		}
		w.accepted(w.post("/"+name+"/messages", "x", nil))
		w.accepted(w.post("/"+name+"/partitions/0/messages", "x", nil))
		w.accepted(w.post("/"+name+"/publishers/providers/messages", "x", nil))
	}
	for path, arm := range map[string]bool{
		"subscriptions": false, "subscriptions/consumergroups": false, "subscriptions/consumergroups/g": false,
		"subscriptions/consumergroups/g/partitions/0": false, "subscriptions/revokedpublishers/p": false, "subscriptions/partitions/0": false,
		"providers/consumergroups": false, "trial/providers/Microsoft.EventHub": false,
		"subscriptions/s": true, "subscriptions/s/resourceGroups": true, "subscriptions/s/resourceGroups/g/anything": true, "subscriptions/s/providers": true,
		"providers/Microsoft.EventHub/operations": true,
	} {
		if _, _, ok := rest.ParseARM(strings.Split(path, "/")); ok != arm {
			t.Errorf("%s: %t", path, ok)
		}
	}
}

func TestARMPages(t *testing.T) {
	m := newManager(t)
	for i := range 5 {
		m.must("PUT", fmt.Sprintf("namespaces/localhost/eventhubs/h%d", i), `{"properties":{"partitionCount":1}}`)
	}
	var got []string
	path := "namespaces/localhost/eventhubs?api-version=2024-01-01&$top=2"
	for range 5 {
		page := m.must("GET", path, "")
		got = append(got, page.names())
		next, ok := page["nextLink"].(string)
		if !ok {
			break
		}
		path = strings.TrimPrefix(next, m.url)
	}
	if diff := cmp.Diff([]string{"h0 h1", "h2 h3", "h4 trial"}, got); diff != "" {
		t.Error(diff)
	}
	if got := m.must("GET", "namespaces/localhost/eventhubs?api-version=2024-01-01&$skip=99", "").names(); got != "" {
		t.Error(got)
	}
}

// TestEveryKindHasACode holds the resource manager's tables complete.
func TestEveryKindHasACode(t *testing.T) {
	known := []int{400, 401, 403, 404, 409, 413, 500, 503}
	check := func(err error) {
		if status, code, _ := rest.CodeOf(fmt.Errorf("wrapped: %w", err)); !slices.Contains(known, status) || code == "" {
			t.Errorf("%#v has the status %d and the code %q", err, status, code)
		}
	}
	for _, k := range hub.Kinds() {
		check(&hub.Error{Kind: k, Text: "text"})
	}
	for _, k := range auth.Kinds() {
		check(&auth.Error{Kind: k, Text: "text"})
	}
	check(errors.New("anything"))
	if _, _, retry := rest.CodeOf(&hub.Error{Kind: hub.Busy, RetryAfter: 1500 * time.Millisecond}); retry != "2" {
		t.Errorf("Retry-After is %q", retry)
	}
}

// FuzzARM reads any body, as whatever it may ask for.
func FuzzARM(f *testing.F) {
	for _, s := range []string{
		"", "{}", "[]", `{"sku":{"name":"Standard","tier":"Standard","capacity":2},"tags":{"a":"b"},"location":"x"}`,
		`{"properties":{"isAutoInflateEnabled":true,"maximumThroughputUnits":4,"encryption":null}}`,
		`{"PROPERTIES":{"messageRetentionInDays":7,"retentionDescription":{"cleanupPolicy":"Delete","retentionTimeInHours":-1}}}`,
		`{"properties":{"captureDescription":{"enabled":true}}}`, `{"a":{"a":{"a":[[[[]]]]}}}`, "{\"a\":\"\xff\"}", `{"properties":null}`,
	} {
		f.Add([]byte(s), int64(time.Hour))
	}
	f.Fuzz(func(t *testing.T, body []byte, retention int64) {
		ns, h, errs := rest.DecodeARM(body, time.Duration(retention))
		if errs[0] == nil {
			if _, err := hub.ParseTier(string(ns.Tier)); err != nil || len(ns.Resource.Tags) > 50 || !ns.AutoInflate && ns.MaximumCapacity != 0 {
				t.Errorf("%+v", ns)
			}
		}
		if errs[1] == nil && (h.Retention < -1 || h.Retention > 36_500*24*time.Hour) {
			t.Errorf("%+v", h)
		}
		for _, err := range errs {
			if err == nil {
				continue
			}
			if status, code, _ := rest.CodeOf(err); status != 400 || code == "" {
				t.Errorf("%d %s: %v", status, code, err)
			}
		}
		// What was shown asks for nothing when it comes back.
		if now := time.Duration(retention); now != 0 {
			if _, h, errs := rest.DecodeARM(rest.ShowARM(now), now); errs[1] != nil || h.Retention != 0 {
				t.Errorf("%s: %v, %v", now, h.Retention, errs[1])
			}
		}
	})
}
