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
		`{"properties":{"captureDescription":{"enabled":true}}}`, `{"properties":{"captureDescription":{"enabled":false,"encoding":"PARQUET","intervalInSeconds":7,"sizeLimitInBytes":-1,"skipEmptyArchives":true,
			"destination":{"name":"","properties":{"storageAccountResourceId":"a/\u0001b","blobContainer":"\ud800","archiveNameFormat":"<&"}}}}}`,
		`{"a":{"a":{"a":[[[[]]]]}}}`, "{\"a\":\"\xff\"}", `{"properties":null}`,
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
		if errs[1] == nil && h.Capture != nil {
			checkShown(t, h.Capture, func(c *hub.Capture) (hub.Settings, error) {
				_, again, errs := rest.DecodeARM(rest.ShowARMCapture(c), 0)
				return again, errs[1]
			})
		}
		// What was shown asks for nothing when it comes back.
		if now := time.Duration(retention); now != 0 {
			if _, h, errs := rest.DecodeARM(rest.ShowARM(now), now); errs[1] != nil || h.Retention != 0 {
				t.Errorf("%s: %v, %v", now, h.Retention, errs[1])
			}
		}
	})
}
