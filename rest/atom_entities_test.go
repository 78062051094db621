package rest_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/rest"
)

// golden is a hub's entry, byte for byte: the order of the elements is what
// .NET's parser needs.
const golden = `<entry xmlns="http://www.w3.org/2005/Atom"><id>http://ns.example:5300/Orders?timeout=60&amp;api-version=2014-01</id>` +
	`<title type="text">Orders</title><published>2026-03-01T12:00:00Z</published><updated>2026-03-01T12:00:00Z</updated>` +
	`<author><name>localhost</name></author><link rel="self" href="http://ns.example:5300/Orders?timeout=60&amp;api-version=2014-01"/>` +
	`<content type="application/xml"><EventHubDescription xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">` +
	`<MessageRetentionInDays>3</MessageRetentionInDays><AuthorizationRules>` +
	`<AuthorizationRule i:type="SharedAccessAuthorizationRule"><ClaimType>SharedAccessKey</ClaimType><ClaimValue>None</ClaimValue><Rights>` +
	`<AccessRights>Manage</AccessRights><AccessRights>Send</AccessRights><AccessRights>Listen</AccessRights></Rights>` +
	`<CreatedTime>2026-03-01T12:00:00.25Z</CreatedTime><ModifiedTime>2026-03-01T12:00:00.25Z</ModifiedTime>` +
	`<KeyName>manage</KeyName><PrimaryKey>one&amp;&lt;</PrimaryKey><SecondaryKey>two</SecondaryKey></AuthorizationRule>` +
	`<AuthorizationRule i:type="SharedAccessAuthorizationRule"><ClaimType>SharedAccessKey</ClaimType><ClaimValue>None</ClaimValue><Rights>` +
	`<AccessRights>Listen</AccessRights></Rights>` +
	`<CreatedTime>2026-03-01T12:00:00.25Z</CreatedTime><ModifiedTime>2026-03-01T12:00:00.25Z</ModifiedTime>` +
	`<KeyName>listen</KeyName><PrimaryKey>three</PrimaryKey><SecondaryKey>four</SecondaryKey></AuthorizationRule>` +
	`</AuthorizationRules><Status>SendDisabled</Status><CreatedAt>2026-03-01T12:00:00.25Z</CreatedAt><UpdatedAt>2026-03-01T12:00:00.25Z</UpdatedAt>` +
	`<UserMetadata> a &lt;b&gt; &#xD;&#xA;ü</UserMetadata><PartitionCount>2</PartitionCount>` +
	`<PartitionIds xmlns:d2p1="http://schemas.microsoft.com/2003/10/Serialization/Arrays"><d2p1:string>0</d2p1:string><d2p1:string>1</d2p1:string></PartitionIds>` +
	`</EventHubDescription></content></entry>`

func TestHubEntry(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 250_400_000, time.UTC)
	w := newWorldAt(t, func() time.Time { return now })
	body := hubBody("\n<MessageRetentionInDays>3</MessageRetentionInDays>\n<AuthorizationRules>" +
		accessRule("manage", "Manage Send Listen", "<PrimaryKey>one&amp;&lt;</PrimaryKey><SecondaryKey>two</SecondaryKey>") +
		accessRule("listen", "Listen", "<PrimaryKey>three</PrimaryKey><SecondaryKey>four</SecondaryKey>") +
		"</AuthorizationRules><Status>SendDisabled</Status><UserMetadata> a <![CDATA[<b>]]> &#13;\nü</UserMetadata><PartitionCount>2</PartitionCount>")
	ask := func(method, body string, headers map[string]string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.url+"/Orders?timeout=60&api-version=2014-01", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "ns.example:5300"
		for k, v := range headers {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, c := range []struct {
		method, body string
		headers      map[string]string
		status       int
	}{
		{"PUT", "\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?>\n" + body, as("root"), 201},
		{"GET", "", as("root"), 200},
		{"PUT", golden, withMatch(as("root")), 200}, // what was read can be sent back
	} {
		if status, got := ask(c.method, c.body, c.headers); status != c.status || got != golden {
			t.Errorf("%s: %d\n%s\nwant %d\n%s", c.method, status, got, c.status, golden)
		}
	}
	if status, got := ask("HEAD", "", as("root")); status != 200 || got != "" {
		t.Errorf("HEAD: %d %q", status, got)
	}
	var e atomEntry
	if err := xml.Unmarshal([]byte(golden), &e); err != nil {
		t.Fatal(err)
	}
	if e.Hub.UserMetadata != " a <b> \r\nü" || len(e.Hub.Rules) != 2 || e.Hub.Rules[0].PrimaryKey != "one&<" || !slices.Equal(e.Hub.PartitionIDs, []string{"0", "1"}) {
		t.Errorf("%+v", e.Hub)
	}
	// Who may only listen sees no keys.
	if _, got := ask("GET", "", as("reader")); strings.Contains(got, "Key") || !strings.Contains(got, "<AuthorizationRules></AuthorizationRules>") {
		t.Errorf("a reader is shown %s", got)
	}
}

func TestRetentionInDays(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for _, c := range []struct {
		have  time.Duration
		shown int64
		send  string // the element, or ""
		then  time.Duration
	}{
		{36 * time.Hour, 2, "2", 36 * time.Hour},
		{36 * time.Hour, 2, "1", 24 * time.Hour},
		{90 * time.Minute, 1, "1", 90 * time.Minute},
		{48 * time.Hour, 2, "", hub.DefaultRetention},
		{48 * time.Hour, 2, "0", hub.DefaultRetention},
		{-1, -1, "-1", -1},
		{-5, -1, "-1", -5},
		{-1, -1, "7", 7 * 24 * time.Hour},
		{24 * time.Hour, 1, "-1", -1},
		{24 * time.Hour, 1, "36500", 36500 * 24 * time.Hour},
	} {
		if err := w.hub.Update(ctx, func(s *hub.Settings) error { s.Retention = c.have; return nil }); err != nil {
			t.Fatal(err)
		}
		if e := w.entry("GET", "/trial", "", as("reader"), 200); e.Hub.MessageRetentionInDays != c.shown {
			t.Errorf("%s is shown as %d days", c.have, e.Hub.MessageRetentionInDays)
		}
		inner := ""
		if c.send != "" {
			inner = "<MessageRetentionInDays>" + c.send + "</MessageRetentionInDays>"
		}
		w.entry("PUT", "/trial", hubBody(inner), withMatch(as("root")), 200)
		if got := w.hub.Settings().Retention; got != c.then {
			t.Errorf("%s and %q days make %s; want %s", c.have, c.send, got, c.then)
		}
	}
}

func TestHubs(t *testing.T) {
	w := newWorld(t)
	ns := w.all.Default()
	longest := "a" + strings.Repeat("-", 254) + "z"

	e := w.entry("PUT", "/plain", hubBody(""), as("root"), 201)
	if e.Hub.PartitionCount != rest.DefaultPartitions || e.Hub.MessageRetentionInDays != 7 || e.Hub.Status != "Active" || len(e.Hub.Rules) != 0 {
		t.Errorf("the defaults are %+v", e.Hub)
	}
	if e := w.entry("PUT", "/"+longest, hubBody("<PartitionCount> 1 </PartitionCount><PartitionIds><x/></PartitionIds>"), as("root"), 201); e.Title != longest {
		t.Errorf("%+v", e)
	}
	// A rule of the hub's own is good at once; keys that are not given are made.
	e = w.entry("PUT", "/keyed", hubBody("<AuthorizationRules>"+accessRule("Own", "Manage Send Listen", "")+"</AuthorizationRules><PartitionCount>2</PartitionCount>"), as("root"), 201)
	if len(e.Hub.Rules) != 1 || len(e.Hub.Rules[0].PrimaryKey) != 44 || e.Hub.Rules[0].Type != "SharedAccessAuthorizationRule" {
		t.Fatalf("%+v", e.Hub)
	}
	key := e.Hub.Rules[0].PrimaryKey
	own := map[string]string{"Authorization": token("http://localhost/keyed", "own", key)}
	// Without rules in the description they stay; an empty list removes them.
	if e = w.entry("PUT", "/KEYED", hubBody("<UserMetadata>m</UserMetadata><PartitionCount>3</PartitionCount>"), withMatch(own), 200); len(e.Hub.Rules) != 1 ||
		e.Title != "keyed" || e.Hub.UserMetadata != "m" || e.Hub.PartitionCount != 3 || !e.Hub.UpdatedAt.After(e.Hub.CreatedAt.Add(-time.Second)) {
		t.Errorf("%+v", e.Hub)
	}
	if e = w.entry("PUT", "/keyed", hubBody("<AuthorizationRules>"+accessRule("own", "Manage", "<SecondaryKey>s</SecondaryKey>")+"</AuthorizationRules>"), withMatch(own), 200); e.Hub.Rules[0].PrimaryKey != key || e.Hub.Rules[0].SecondaryKey != "s" || e.Hub.UserMetadata != "" {
		t.Errorf("%+v", e.Hub)
	}
	if e = w.entry("PUT", "/keyed", hubBody("<AuthorizationRules/>"), withMatch(as("root")), 200); len(e.Hub.Rules) != 0 {
		t.Errorf("%+v", e.Hub)
	}

	if got := w.feed("/$Resources/EventHubs?api-version=2014-01", as("reader")); got.Title != "EventHubs" || got.titles() != longest+" keyed plain trial" ||
		got.Entries[1].ID != w.url+"/keyed?api-version=2014-01" || got.Entries[1].Link.Href != "../keyed?api-version=2014-01" || got.Entries[1].Base != w.url+"/$Resources/EventHubs?api-version=2014-01" {
		t.Errorf("%+v", got)
	}
	for query, want := range map[string]string{"$skip=1&$top=2": "keyed plain", "%24skip=3": "trial", "$skip=9&$top=1": "", "$top=0": "", "$top=1": longest, "$skip=2147483647&$top=2147483647": ""} {
		if got := w.feed("/$resources/eventhubs?"+query, as("root")).titles(); got != want {
			t.Errorf("%s lists %q", query, got)
		}
	}

	if r := w.do("DELETE", "/keyed", nil, as("root")); r.status != 200 || r.body != "" {
		t.Errorf("%+v", r)
	}
	before := len(ns.EventHubs())
	for _, c := range []struct {
		name, method, path, body string
		headers                  map[string]string
		status                   int
		says                     string
	}{
		{"there already", "PUT", "/plain", hubBody(""), as("root"), 409, "already exists"},
		{"there already, in other case", "PUT", "/PLAIN", hubBody(""), as("root"), 409, "already exists"},
		{"deleted", "GET", "/keyed", "", as("root"), 404, "'sb://localhost/keyed' could not be found"},
		{"deleted", "DELETE", "/keyed", "", as("root"), 404, "could not be found"},
		{"deleted", "PUT", "/keyed", hubBody(""), withMatch(as("root")), 404, "could not be found"},
		{"by a tag", "PUT", "/plain", hubBody(""), map[string]string{"Authorization": as("root")["Authorization"], "If-Match": `"x"`}, 400, "If-Match"},
		{"too long", "PUT", "/" + longest + "z", hubBody(""), as("root"), 400, "256"},
		{"a name that can't be", "PUT", "/-a", hubBody(""), as("root"), 400, "can't be the name"},
		{"a name that can't be", "PUT", "/a%2Fb", hubBody(""), as("root"), 400, "can't be the name"},
		{"a name that can't be", "PUT", "/%ff", hubBody(""), as("root"), 400, "can't be the name"},
		{"a name that can't be", "PUT", "/$x", hubBody(""), as("root"), 400, "can't be the name"},
		{"no partitions", "PUT", "/n", hubBody("<PartitionCount>0</PartitionCount>"), as("root"), 400, "from 1 to 1024"},
		{"too many partitions", "PUT", "/n", hubBody("<PartitionCount>1025</PartitionCount>"), as("root"), 400, "from 0 to 1024"},
		{"fewer partitions", "PUT", "/plain", hubBody("<PartitionCount>3</PartitionCount>"), withMatch(as("root")), 400, "never fewer"},
		{"no partitions, changed", "PUT", "/plain", hubBody("<PartitionCount>0</PartitionCount>"), withMatch(as("root")), 400, "1 at least"},
		{"days", "PUT", "/n", hubBody("<MessageRetentionInDays>36501</MessageRetentionInDays>"), as("root"), 400, "from -1 to 36500"},
		{"days", "PUT", "/n", hubBody("<MessageRetentionInDays>-2</MessageRetentionInDays>"), as("root"), 400, "from -1 to 36500"},
		{"days", "PUT", "/n", hubBody("<MessageRetentionInDays>1.5</MessageRetentionInDays>"), as("root"), 400, "MessageRetentionInDays"},
		{"days", "PUT", "/n", hubBody("<MessageRetentionInDays>99999999999999999999</MessageRetentionInDays>"), as("root"), 400, "MessageRetentionInDays"},
		{"days", "PUT", "/n", hubBody("<MessageRetentionInDays/>"), as("root"), 400, "MessageRetentionInDays"},
		{"status", "PUT", "/n", hubBody("<Status>Restoring</Status>"), as("root"), 400, "'Restoring' is not one"},
		{"metadata", "PUT", "/n", hubBody("<UserMetadata>" + strings.Repeat("ü", hub.MaxMetadata+1) + "</UserMetadata>"), as("root"), 400, "1024"},
		{"a rule twice", "PUT", "/n", hubBody("<AuthorizationRules>" + accessRule("a", "Send", "") + accessRule("A", "Send", "") + "</AuthorizationRules>"), as("root"), 400, "named twice"},
		{"a rule without rights", "PUT", "/n", hubBody("<AuthorizationRules>" + accessRule("a", "", "") + "</AuthorizationRules>"), as("root"), 400, "has to give"},
		{"a rule without a name", "PUT", "/n", hubBody("<AuthorizationRules>" + accessRule("", "Send", "") + "</AuthorizationRules>"), as("root"), 400, "authorization rule"},
		{"an unknown right", "PUT", "/n", hubBody("<AuthorizationRules>" + accessRule("a", "Own", "") + "</AuthorizationRules>"), as("root"), 400, "'Own'"},
		{"a long key", "PUT", "/n", hubBody("<AuthorizationRules>" + accessRule("a", "Send", "<PrimaryKey>"+strings.Repeat("k", hub.MaxKey+1)+"</PrimaryKey>") + "</AuthorizationRules>"), as("root"), 400, "256 bytes"},
		{"too many rules", "PUT", "/n", hubBody("<AuthorizationRules>" + manyRules(hub.MaxRules+1) + "</AuthorizationRules>"), as("root"), 403, "12"},
		{"another type of rule", "PUT", "/n", hubBody("<AuthorizationRules>" + strings.Replace(accessRule("a", "Send", ""), "SharedAccessAuth", "AllowAuth", 1) + "</AuthorizationRules>"), as("root"), 400, "SharedAccessAuthorizationRule"},
		{"another claim", "PUT", "/n", hubBody("<AuthorizationRules>" + strings.Replace(accessRule("a", "Send", ""), "None", "nameid", 1) + "</AuthorizationRules>"), as("root"), 400, "ClaimValue None"},
		{"a query", "GET", "/plain?timeout=soon", "", as("root"), 400, "timeout"},
		{"a query", "GET", "/$Resources/EventHubs?$top=-1", "", as("root"), 400, "$top"},
		{"a query", "GET", "/$Resources/EventHubs?$skip=99999999999", "", as("root"), 400, "$skip"},
		{"a method", "PATCH", "/plain", "", as("root"), 405, "PATCH"},
		{"a method", "PUT", "/$Resources/EventHubs", "", as("root"), 405, "GET, HEAD"},
		{"a method", "PUT", "/$namespaceinfo", "", as("root"), 405, "GET, HEAD"},
		{"other resources", "GET", "/$Resources/Queues", "", as("root"), 404, "There is nothing"},
	} {
		w.refused(c.name, w.do(c.method, c.path, strings.NewReader(c.body), c.headers), c.status, c.says)
	}
	h, err := ns.EventHub("plain")
	if err != nil || h.Partitions() != rest.DefaultPartitions || len(ns.EventHubs()) != before {
		t.Errorf("something was changed: %v %d", err, len(ns.EventHubs()))
	}
}

func manyRules(n int) (s string) {
	for i := range n {
		s += accessRule(fmt.Sprintf("r%d", i), "Send", "")
	}
	return s
}

func TestGroups(t *testing.T) {
	w := newWorld(t)
	longest := strings.Repeat("g", hub.MaxGroupName)
	e := w.entry("PUT", "/trial/ConsumerGroups/Billing?api-version=2014-01", groupBody("<UserMetadata>m</UserMetadata>"), as("root"), 201)
	if e.Title != "Billing" || e.Group.UserMetadata != "m" || e.Group.CreatedAt.IsZero() || e.Group.UpdatedAt != e.Group.CreatedAt {
		t.Errorf("%+v %+v", e, e.Group)
	}
	w.entry("PUT", "/trial/consumergroups/"+longest, groupBody(""), as("root"), 201)
	e = w.entry("PUT", "/trial/consumergroups/billing", groupBody("<CreatedAt>2014-01-01T00:00:00</CreatedAt><EnableCheckpoint>false</EnableCheckpoint><UserMetadata>n</UserMetadata>"), withMatch(as("root")), 200)
	if e.Title != "Billing" || e.Group.UserMetadata != "n" || e.Group.UpdatedAt.Before(e.Group.CreatedAt) {
		t.Errorf("%+v %+v", e, e.Group)
	}
	if e = w.entry("GET", "/trial/consumergroups/$default", "", as("reader"), 200); e.Title != "$Default" || e.Group.CreatedAt.IsZero() {
		t.Errorf("%+v %+v", e, e.Group)
	}
	f := w.feed("/trial/consumergroups?api-version=2014-01", as("reader"))
	if f.Title != "ConsumerGroups" || f.titles() != "$Default Billing "+longest || f.Entries[1].Link.Href != "consumergroups/Billing?api-version=2014-01" ||
		f.Entries[0].ID != w.url+"/trial/consumergroups/$Default?api-version=2014-01" || f.Entries[1].Group.UserMetadata != "n" {
		t.Errorf("%+v", f)
	}
	if got := w.feed("/trial/consumergroups?$skip=1&$top=1", as("reader")).titles(); got != "Billing" {
		t.Error(got)
	}
	for _, c := range []struct {
		name, method, path, body string
		headers                  map[string]string
		status                   int
		says                     string
	}{
		{"there already", "PUT", "/trial/consumergroups/BILLING", groupBody(""), as("root"), 409, "already exists"},
		{"$Default made", "PUT", "/trial/consumergroups/$Default", groupBody(""), as("root"), 409, "always exists"},
		{"$Default changed", "PUT", "/trial/consumergroups/$Default", groupBody(""), withMatch(as("root")), 400, "neither"},
		{"$Default deleted", "DELETE", "/trial/consumergroups/$default", "", as("root"), 400, "neither"},
		{"too long", "PUT", "/trial/consumergroups/" + longest + "g", groupBody(""), as("root"), 400, "50"},
		{"a name that can't be", "PUT", "/trial/consumergroups/a%2Bb", groupBody(""), as("root"), 400, "can't be the name"},
		{"metadata", "PUT", "/trial/consumergroups/x", groupBody("<UserMetadata>" + strings.Repeat("ü", hub.MaxMetadata+1) + "</UserMetadata>"), as("root"), 400, "1024"},
		{"another description", "PUT", "/trial/consumergroups/x", hubBody(""), as("root"), 400, "ConsumerGroupDescription"},
		{"changed, none", "PUT", "/trial/consumergroups/x", groupBody(""), withMatch(as("root")), 404, "could not be found"},
		{"read, none", "GET", "/trial/consumergroups/x", "", as("root"), 404, "could not be found"},
		{"deleted, none", "DELETE", "/trial/consumergroups/x", "", as("root"), 404, "could not be found"},
		{"of no hub", "PUT", "/none/consumergroups/x", groupBody(""), as("root"), 404, "could not be found"},
		{"of no hub", "GET", "/none/consumergroups", "", as("root"), 404, "could not be found"},
		{"a method", "DELETE", "/trial/consumergroups", "", as("root"), 405, "GET"},
	} {
		w.refused(c.name, w.do(c.method, c.path, strings.NewReader(c.body), c.headers), c.status, c.says)
	}
	// One in use can be deleted: its receivers are told.
	g, err := w.hub.Group("billing")
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	if _, err := g.Join(w.hub.At(0), hub.ReceiverOptions{Lost: func(err error) { gone <- err }}); err != nil {
		t.Fatal(err)
	}
	if r := w.do("DELETE", "/trial/consumergroups/Billing", nil, as("root")); r.status != 200 || r.body != "" {
		t.Errorf("%+v", r)
	}
	if err := <-gone; err == nil || !strings.Contains(err.Error(), "billing") {
		t.Error(err)
	}
}

// TestPartitionRates: what comes and goes each second is that of its partition.
func TestPartitionRates(t *testing.T) {
	var passed atomic.Int64
	start := time.Now()
	w := newWorldAt(t, func() time.Time { return start.Add(time.Duration(passed.Load())) })
	w.accepted(w.post("/trial/partitions/1/messages", strings.Repeat("x", 50_000), nil))
	w.hub.At(1).Delivered(20_000)
	w.hub.Metrics.OutgoingBytes.Add(20_000)
	passed.Add(int64(5 * time.Second))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		p := w.entry("GET", "/trial/partitions/1", "", as("reader"), 200).Partition
		if p.IncomingBytesPerSecond > 0 {
			if in, out := p.IncomingBytesPerSecond, p.OutgoingBytesPerSecond; in < 10_000 || in > 10_100 || out != 4000 {
				t.Errorf("%d in, %d out", in, out)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no rate is ever shown")
		}
	}
	if p := w.entry("GET", "/trial/partitions/0", "", as("reader"), 200).Partition; p.IncomingBytesPerSecond != 0 || p.OutgoingBytesPerSecond != 0 {
		t.Errorf("the other partition: %+v", p)
	}
}

// TestConfiguredRulesInEntries: the rules that a configuration has for a hub are in
// its description, which can be sent back, but not without them.
func TestConfiguredRulesInEntries(t *testing.T) {
	w := newWorldAt(t, nil, hub.RulesOf{Hub: "trial", Rules: []hub.Rule{{Name: "fixed", Rights: auth.Listen, Primary: "f"}}},
		hub.RulesOf{Hub: "new", Rules: []hub.Rule{{Name: "fixed", Rights: auth.Listen, Primary: "n"}}})
	rule := func(rights, key string) string {
		return hubBody("<AuthorizationRules>" + accessRule("fixed", rights, "<PrimaryKey>"+key+"</PrimaryKey>") + accessRule("mine", "Send", "") + "</AuthorizationRules>")
	}
	if e := w.entry("GET", "/trial", "", as("root"), 200); len(e.Hub.Rules) != 1 || e.Hub.Rules[0].KeyName != "fixed" || e.Hub.Rules[0].PrimaryKey != "f" {
		t.Errorf("%+v", e.Hub.Rules)
	}
	if e := w.entry("PUT", "/trial", rule("Listen", "f"), withMatch(as("root")), 200); len(e.Hub.Rules) != 2 {
		t.Errorf("%+v", e.Hub.Rules)
	}
	if s := w.hub.Settings(); len(s.Rules) != 1 || s.Rules[0].Name != "mine" {
		t.Errorf("stored: %+v", s.Rules)
	}
	for what, body := range map[string]string{
		"other rights":  rule("Send", "f"),
		"another key":   rule("Listen", "g"),
		"without it":    hubBody("<AuthorizationRules>" + accessRule("mine", "Send", "") + "</AuthorizationRules>"),
		"without rules": hubBody("<AuthorizationRules></AuthorizationRules>"),
	} {
		if r := w.do("PUT", "/trial", strings.NewReader(body), withMatch(as("root"))); r.status != http.StatusForbidden || !strings.Contains(r.Detail, "configuration file") {
			t.Errorf("%s: %d %s", what, r.status, r.Detail)
		}
	}
	// Who says nothing of rules changes none; a new hub need not name them.
	w.entry("PUT", "/trial", hubBody("<MessageRetentionInDays>2</MessageRetentionInDays>"), withMatch(as("root")), 200)
	if e := w.entry("PUT", "/new", hubBody("<PartitionCount>1</PartitionCount>"), as("root"), 201); len(e.Hub.Rules) != 1 || e.Hub.Rules[0].PrimaryKey != "n" {
		t.Errorf("%+v", e.Hub.Rules)
	}
}

func TestPartitionDescriptions(t *testing.T) {
	w := newWorld(t)
	e := w.entry("GET", "/trial/partitions/1", "", as("reader"), 200)
	if p := e.Partition; e.Title != "1" || p.EndSequenceNumber != -1 || p.LastEnqueuedOffset != "-1" || !p.LastEnqueuedTimeUtc.IsZero() {
		t.Errorf("%+v %+v", e, p)
	}
	start := time.Now().Add(-time.Second)
	for range 3 {
		w.accepted(w.post("/trial/partitions/1/messages", "x", nil))
	}
	for _, path := range []string{"/trial/partitions/1", "/trial//consumergroups/$Default/partitions/1?timeout=60&api-version=2015-01"} {
		e = w.entry("GET", path, "", as("reader"), 200)
		if p := e.Partition; p.BeginSequenceNumber != 0 || p.EndSequenceNumber != 2 || p.LastEnqueuedOffset != "2" || p.SizeInBytes == 0 || p.LastEnqueuedTimeUtc.Before(start) {
			t.Errorf("%s: %+v", path, p)
		}
	}
	for _, path := range []string{"/trial/partitions?api-version=2015-01", "/trial/consumergroups/$Default/partitions?api-version=2015-01"} {
		f := w.feed(path, as("reader"))
		if f.Title != "Partitions" || f.titles() != "0 1 2 3" || f.Entries[1].Partition.EndSequenceNumber != 2 || f.Entries[3].Link.Href != "partitions/3?api-version=2015-01" ||
			f.Entries[3].ID != w.url+strings.Replace(path, "?", "/3?", 1) {
			t.Errorf("%s: %+v", path, f)
		}
	}
	for _, c := range []struct {
		path   string
		status int
	}{{"/trial/partitions/4", 404}, {"/trial/partitions/01", 404}, {"/trial/partitions/x", 404}, {"/none/partitions/0", 404}, {"/trial/consumergroups/x/partitions/0", 404},
		{"/trial/consumergroups/x/partitions", 404}} {
		w.refused(c.path, w.do("GET", c.path, nil, as("reader")), c.status, "could not be found")
	}
}

func TestRevokedPublishers(t *testing.T) {
	w := newWorld(t)
	body := func(name string) string { return describe("RevokedPublisherDescription", "<Name>"+name+"</Name>") }
	sends := func(status int) {
		t.Helper()
		if r := w.post("/trial/publishers/dev%2F1/messages", "x", nil); r.status != status {
			t.Errorf("a publisher gets %d; want %d", r.status, status)
		}
	}
	sends(201)
	if e := w.entry("PUT", "/trial/RevokedPublishers/dev%2F1?api-version=2014-05", body("dev/1"), as("root"), 201); e.Title != "dev/1" || e.Revoked.Name != "dev/1" {
		t.Errorf("%+v", e)
	}
	sends(401)
	w.entry("PUT", "/trial/revokedpublishers/"+strings.Repeat("p", hub.MaxPublisher), describe("RevokedPublisherDescription", ""), as("root"), 201)
	if e := w.entry("GET", "/trial/revokedpublishers/dev%2F1", "", as("reader"), 200); e.Revoked.Name != "dev/1" {
		t.Errorf("%+v", e)
	}
	if f := w.feed("/trial/revokedpublishers?$top=1&api-version=2014-01", as("reader")); f.Title != "RevokedPublishers" || f.titles() != "dev/1" || f.Entries[0].ID != w.url+"/trial/revokedpublishers/dev%2F1?api-version=2014-01" {
		t.Errorf("%+v", f)
	}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"again", "PUT", "/trial/revokedpublishers/dev%2F1", body("dev/1"), 409, "revoked already"},
		{"another name", "PUT", "/trial/revokedpublishers/a", body("b"), 400, "not that of the path"},
		{"no entry", "PUT", "/trial/revokedpublishers/a", "", 400, "no body"},
		{"too long", "PUT", "/trial/revokedpublishers/" + strings.Repeat("p", hub.MaxPublisher+1), describe("RevokedPublisherDescription", ""), 400, "512"},
		{"not UTF-8", "PUT", "/trial/revokedpublishers/%ff", describe("RevokedPublisherDescription", ""), 400, "XML can hold"},
		{"a control character", "PUT", "/trial/revokedpublishers/%01", describe("RevokedPublisherDescription", ""), 400, "XML can hold"},
		{"not revoked", "GET", "/trial/revokedpublishers/x", "", 404, "could not be found"},
		{"not revoked", "DELETE", "/trial/revokedpublishers/x", "", 404, "not revoked"},
		{"of no hub", "PUT", "/none/revokedpublishers/x", body("x"), 404, "could not be found"},
	} {
		w.refused(c.name, w.do(c.method, c.path, strings.NewReader(c.body), as("root")), c.status, c.says)
	}
	if r := w.do("DELETE", "/trial/revokedpublishers/dev%2F1", nil, as("root")); r.status != 200 || r.body != "" {
		t.Errorf("%+v", r)
	}
	sends(201)
}

func TestNamespaceInfo(t *testing.T) {
	w := newWorld(t)
	if err := w.hub.Update(t.Context(), func(s *hub.Settings) error { s.Retention = 24 * time.Hour; return nil }); err != nil {
		t.Fatal(err)
	}
	for tier, want := range map[hub.Tier]string{hub.Basic: "Basic 0", hub.Standard: "Standard 0", hub.Premium: "Premium 2", hub.Unlimited: "Premium 1"} {
		if err := w.all.Default().Update(t.Context(), func(s *hub.NamespaceSettings) error {
			s.Tier, s.Capacity = tier, 1
			if tier == hub.Premium {
				s.Capacity = 2
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		n := w.entry("GET", "/$namespaceinfo?api-version=2021-05", "", as("reader"), 200).Namespace
		if got := fmt.Sprint(n.MessagingSKU, " ", n.MessagingUnits); got != want || n.Name != "localhost" || n.NamespaceType != "EventHub" || n.CreatedTime.IsZero() {
			t.Errorf("%s: %+v", tier, n)
		}
	}
}
