package rest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/rest"
)

func TestTierHoldsHubs(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if _, err := w.all.Create(ctx, "small", hub.NamespaceSettings{Tier: hub.Basic}); err != nil {
		t.Fatal(err)
	}
	put := func(path, body string) (int, string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(ctx, "PUT", w.url+path, strings.NewReader(body))
		req.Host = "small.servicebus.windows.net"
		req.Header.Set("Authorization", token("https://small.servicebus.windows.net/", "root", "root key"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, c := range []struct {
		inner  string
		status int
		says   string
	}{
		{"<MessageRetentionInDays>2</MessageRetentionInDays>", 400, "from 1 to 24 hours"},
		{"<MessageRetentionInDays>-1</MessageRetentionInDays>", 400, "from 1 to 24 hours"},
		{"<PartitionCount>33</PartitionCount>", 400, "from 1 to 32"},
		{"<MessageRetentionInDays>1</MessageRetentionInDays>", 201, "<PartitionCount>16<"},
	} {
		if status, body := put("/h", hubBody(c.inner)); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s", c.inner, status, body)
		}
	}
	if status, body := put("/h/consumergroups/g", groupBody("")); status != 403 || !strings.Contains(body, "1 consumer groups") {
		t.Errorf("a second group: %d %s", status, body)
	}
	for i := range 9 {
		put(fmt.Sprintf("/h%d", i), hubBody("<PartitionCount>1</PartitionCount>"))
	}
	if status, body := put("/last", hubBody("<PartitionCount>1</PartitionCount>")); status != 403 || !strings.Contains(body, "quota") {
		t.Errorf("an eleventh hub: %d %s", status, body)
	}
}

// TestMalformedEntries holds that what can't be read changes nothing.
func TestMalformedEntries(t *testing.T) {
	w := newWorld(t)
	good := hubBody("<PartitionCount>1</PartitionCount>")
	in := func(s string) string { return hubBody(s) }
	for _, c := range []struct{ name, body, says string }{
		{"nothing", "", "no body"},
		{"blanks", " \n", "no body"},
		{"no XML", "hello", "not one element"},
		{"JSON", `{"a":1}`, "not one element"},
		{"half", good[:len(good)-20], "can't be read"},
		{"two", good + good, "not one element"},
		{"text after it", good + "x", "not one element"},
		{"crossed", "<a><b></a></b>", "can't be read"},
		{"a document type", `<!DOCTYPE entry [<!ENTITY x "y">]>` + good, "document type"},
		{"an entity", in("<UserMetadata>&nbsp;</UserMetadata>"), "can't be read"},
		{"another encoding", `<?xml version="1.0" encoding="utf-16"?>` + good, "not UTF-8"},
		{"bytes that are not UTF-8", in("<UserMetadata>\xff</UserMetadata>"), "can't be read"},
		{"a control character", in("<UserMetadata>&#1;</UserMetadata>"), "can't be read"},
		{"no Atom", "<entry><content>" + in("") + "</content></entry>", "'entry' without a namespace"},
		{"a feed", strings.Replace(strings.Replace(good, "<entry", "<feed", 1), "</entry", "</feed", 1), "'feed' of the namespace"},
		{"no content", `<entry xmlns="http://www.w3.org/2005/Atom"><title>x</title></entry>`, "no content"},
		{"an empty content", `<entry xmlns="http://www.w3.org/2005/Atom"><content/></entry>`, "one content"},
		{"content twice", `<entry xmlns="http://www.w3.org/2005/Atom"><content><a/></content><content><a/></content></entry>`, "one content"},
		{"escaped content", `<entry xmlns="http://www.w3.org/2005/Atom"><content>&lt;a/></content></entry>`, "holds text"},
		{"an unknown part of an entry", `<entry xmlns="http://www.w3.org/2005/Atom"><x/></entry>`, "'x' of the namespace"},
		{"another description", groupBody(""), "'ConsumerGroupDescription'"},
		{"another namespace", strings.ReplaceAll(good, connect, "urn:x"), "urn:x"},
		{"no namespace", strings.ReplaceAll(good, connect, ""), "without a namespace"},
		{"an undeclared prefix", in("<x:Status>Active</x:Status>"), "'Status' of the namespace 'x'"},
		{"an unknown element", in("<ArchiveDescription/>"), "'ArchiveDescription' of the namespace"},
		{"another case", in("<status>Active</status>"), "'status'"},
		{"an element twice", in("<Status>Active</Status><Status>Active</Status>"), "there twice"},
		{"another order", in("<PartitionCount>1</PartitionCount><MessageRetentionInDays>1</MessageRetentionInDays>"), "before 'PartitionCount'"},
		{"elements for text", in("<Status><b/></Status>"), "holds elements"},
		{"text for rules", in("<AuthorizationRules>x</AuthorizationRules>"), "holds text"},
		{"something for a rule", in("<AuthorizationRules><Rule/></AuthorizationRules>"), "'Rule'"},
		{"something for a right", in("<AuthorizationRules><AuthorizationRule><Rights><x/></Rights></AuthorizationRule></AuthorizationRules>"), "'x'"},
		{"deep", in(strings.Repeat("<PartitionIds>", rest.MaxNested) + strings.Repeat("</PartitionIds>", rest.MaxNested)), "nested deeper"},
		{"many", in(strings.Repeat("<a/>", rest.MaxElements)), "more than"},
	} {
		w.refused(c.name, w.do("PUT", "/n", strings.NewReader(c.body), as("root")), 400, c.says)
	}
	w.refused("too large", w.do("PUT", "/n", strings.NewReader(good+strings.Repeat(" ", rest.MaxEntry)), as("root")), 413, "limit")
	w.server.Hold(rest.MaxHeld)
	w.refused("too much at once", w.do("PUT", "/n", strings.NewReader(good), as("root")), 503, "busy")
	w.server.Hold(-rest.MaxHeld)
	if w.server.Held() != 0 || len(w.all.Default().EventHubs()) != 1 {
		t.Errorf("%d bytes are held, there are %d hubs", w.server.Held(), len(w.all.Default().EventHubs()))
	}
	// What says nothing may be there, and null is nothing.
	w.entry("PUT", "/n", `<?xml version="1.0"?><!-- c --><a:entry xmlns:a="http://www.w3.org/2005/Atom"><a:id>x</a:id><a:title/><a:author><a:name>b</a:name></a:author>`+
		`<a:content type="application/xml"><s:EventHubDescription xmlns:s="`+connect+`" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><s:MessageRetentionInDays i:nil="true"/>`+
		`<s:UserMetadata i:nil="1"/><s:CreatedAt>2014-01-01T00:00:00Z</s:CreatedAt><s:PartitionCount>1<!-- one --></s:PartitionCount></s:EventHubDescription></a:content></a:entry>`, as("root"), 201)
}

// TestManagementClaims says who may do what. Clients sign for the namespace, for
// the hub, or for the address that they ask.
func TestManagementClaims(t *testing.T) {
	w := newWorld(t)
	if err := w.hub.Update(t.Context(), func(s *hub.Settings) error {
		s.Rules = []hub.Rule{{Name: "own", Rights: auth.Manage, Primary: "own key"}, {Name: "ear", Rights: auth.Listen, Primary: "ear key"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sign := func(rule, resource string) string { return token("http://localhost/"+resource, rule, rule+" key") }
	const missing = "claim(s) are required"
	for _, c := range []struct {
		token, method, path, body string
		match                     bool
		status                    int
	}{
		// Hubs come and go with Manage of the namespace.
		{sign("root", ""), "PUT", "/a", hubBody(""), false, 201},
		{sign("root", "b"), "PUT", "/b", hubBody(""), false, 201},
		{sign("root", "b?timeout=60&api-version=2014-01"), "DELETE", "/b", "", false, 200},
		{sign("root", "b"), "PUT", "/c", hubBody(""), false, 401},
		{sign("own", "trial"), "PUT", "/c", hubBody(""), false, 401},
		{sign("own", "trial"), "PUT", "/trial", hubBody(""), false, 401},
		{sign("own", "trial"), "DELETE", "/trial", "", false, 401},
		{sign("sender", ""), "PUT", "/c", hubBody(""), false, 401},
		{sign("reader", ""), "PUT", "/c", hubBody(""), false, 401},
		{sign("reader", ""), "DELETE", "/trial", "", false, 401},
		{"", "PUT", "/c", hubBody(""), false, 401},
		{sign("root", "") + "x", "PUT", "/c", hubBody(""), false, 401},
		{"Bearer a.b.c", "PUT", "/c", hubBody(""), false, 401},
		// What is below one changes with Manage of it.
		{sign("own", "trial"), "PUT", "/trial", hubBody(""), true, 200},
		{sign("own", "trial"), "PUT", "/trial/consumergroups/g", groupBody(""), false, 201},
		{sign("own", "trial"), "PUT", "/a/consumergroups/g", groupBody(""), false, 401},
		{sign("ear", "trial"), "PUT", "/trial/consumergroups/h", groupBody(""), false, 401},
		{sign("ear", "trial"), "PUT", "/trial", hubBody(""), true, 401},
		{sign("sender", ""), "DELETE", "/trial/consumergroups/g", "", false, 401},
		{sign("reader", ""), "PUT", "/trial/revokedpublishers/p", describe("RevokedPublisherDescription", ""), false, 401},
		{sign("own", "trial"), "PUT", "/trial/revokedpublishers/p", describe("RevokedPublisherDescription", ""), false, 201},
		{sign("own", "trial"), "DELETE", "/trial/revokedpublishers/p", "", false, 200},
		{sign("own", "trial"), "DELETE", "/trial/consumergroups/g", "", false, 200},
		// Reading takes Listen.
		{sign("ear", "trial"), "GET", "/trial", "", false, 200},
		{sign("ear", "trial"), "GET", "/a", "", false, 401},
		{sign("ear", "trial"), "GET", "/$Resources/EventHubs", "", false, 401},
		{sign("ear", "trial"), "GET", "/$namespaceinfo", "", false, 401},
		{sign("reader", "$Resources/EventHubs"), "GET", "/$Resources/EventHubs", "", false, 200},
		{sign("reader", "$namespaceinfo"), "GET", "/$namespaceinfo", "", false, 200},
		{sign("reader", "a"), "GET", "/$Resources/EventHubs", "", false, 401},
		{sign("reader", "trial/consumergroups/$Default"), "GET", "/trial/consumergroups/$Default/partitions/0", "", false, 200},
		{sign("reader", "trial/consumergroups/$Default"), "GET", "/trial/consumergroups", "", false, 401},
		{sign("sender", ""), "GET", "/trial", "", false, 401},
		{sign("sender", ""), "GET", "/none", "", false, 401}, // who may not read does not learn what there is
		{sign("sender", ""), "GET", "/trial/partitions", "", false, 401},
		{sign("sender", ""), "GET", "/trial/revokedpublishers", "", false, 401},
	} {
		h := map[string]string{"Authorization": c.token}
		if c.match {
			h["If-Match"] = "*"
		}
		r := w.do(c.method, c.path, strings.NewReader(c.body), h)
		if c.status == 401 {
			says := ""
			if strings.HasPrefix(c.token, "Shared") && !strings.HasSuffix(c.token, "x") {
				says = missing
			}
			w.refused(c.method+" "+c.path, r, 401, says)
		} else if r.status != c.status {
			t.Errorf("%s %s: %d %s; want %d", c.method, c.path, r.status, r.body, c.status)
		}
	}
	// The keys are for who may manage, in the feed, too.
	for rule, want := range map[string]int{"root": 2, "reader": 0} {
		n := 0
		for _, e := range w.feed("/$Resources/EventHubs", map[string]string{"Authorization": sign(rule, "$Resources/EventHubs")}).Entries {
			n += len(e.Hub.Rules)
		}
		if n != want {
			t.Errorf("%s is shown %d rules", rule, n)
		}
	}
}

// TestAddressesKeptOut holds that a namespace's addresses hold here, too.
func TestAddressesKeptOut(t *testing.T) {
	w := newWorld(t)
	if err := w.all.Default().Update(t.Context(), func(s *hub.NamespaceSettings) error { s.DenyByDefault = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		w.refused(method, w.do(method, "/trial", strings.NewReader(hubBody("")), as("root")), 401, "Ip has been prevented")
	}
	w.refused("POST", w.post("/trial/messages", "x", nil), 401, "Ip has been prevented")
}
