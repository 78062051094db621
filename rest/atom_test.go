package rest_test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/internal/sim"
	"github.com/millrace/millrace/rest"
	"github.com/millrace/millrace/store/segment"
)

// atomEntry is an entry as clients read it.
type atomEntry struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom entry"`
	Base    string   `xml:"http://www.w3.org/XML/1998/namespace base,attr"`
	ID      string   `xml:"http://www.w3.org/2005/Atom id"`
	Title   string   `xml:"http://www.w3.org/2005/Atom title"`
	Link    struct {
		Href string `xml:"href,attr"`
	} `xml:"http://www.w3.org/2005/Atom link"`
	Hub       *hubXML       `xml:"content>EventHubDescription"`
	Group     *groupXML     `xml:"content>ConsumerGroupDescription"`
	Partition *partitionXML `xml:"content>PartitionDescription"`
	Revoked   *struct {
		Name string
	} `xml:"content>RevokedPublisherDescription"`
	Namespace *struct {
		CreatedTime    time.Time
		MessagingSKU   string
		MessagingUnits int
		Name           string
		NamespaceType  string
	} `xml:"content>NamespaceInfo"`
}

type hubXML struct {
	XMLName                xml.Name `xml:"http://schemas.microsoft.com/netservices/2010/10/servicebus/connect EventHubDescription"`
	MessageRetentionInDays int64
	Rules                  []ruleXML `xml:"AuthorizationRules>AuthorizationRule"`
	Status                 string
	CreatedAt, UpdatedAt   time.Time
	UserMetadata           string
	PartitionCount         int
	PartitionIDs           []string `xml:"PartitionIds>string"`
}

type ruleXML struct {
	Type                              string   `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
	Rights                            []string `xml:"Rights>AccessRights"`
	KeyName, PrimaryKey, SecondaryKey string
}

type groupXML struct {
	CreatedAt, UpdatedAt time.Time
	UserMetadata         string
}

type partitionXML struct {
	SizeInBytes, BeginSequenceNumber, EndSequenceNumber int64
	IncomingBytesPerSecond, OutgoingBytesPerSecond      int64
	LastEnqueuedOffset                                  string
	LastEnqueuedTimeUtc                                 time.Time
}

type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	Title   string      `xml:"http://www.w3.org/2005/Atom title"`
	Entries []atomEntry `xml:"http://www.w3.org/2005/Atom entry"`
}

const connect = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"

// describe is an entry around a description.
func describe(kind, inner string) string {
	return `<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><` + kind + ` xmlns:i="http://www.w3.org/2001/XMLSchema-instance" xmlns="` + connect + `">` + inner + `</` + kind + `></content></entry>`
}

func hubBody(inner string) string   { return describe("EventHubDescription", inner) }
func groupBody(inner string) string { return describe("ConsumerGroupDescription", inner) }

func accessRule(name, rights, keys string) string {
	var s strings.Builder
	s.WriteString(`<AuthorizationRule i:type="SharedAccessAuthorizationRule"><ClaimType>SharedAccessKey</ClaimType><ClaimValue>None</ClaimValue><Rights>`)
	for r := range strings.FieldsSeq(rights) {
		s.WriteString("<AccessRights>" + r + "</AccessRights>")
	}
	return s.String() + "</Rights><KeyName>" + name + "</KeyName>" + keys + "</AuthorizationRule>"
}

// as are the headers of a request by a rule, for the namespace.
func as(rule string) map[string]string {
	return map[string]string{"Authorization": token("http://localhost/", rule, rule+" key")}
}

func withMatch(h map[string]string) map[string]string {
	h["If-Match"] = "*"
	return h
}

// entry makes a request that is to be answered with an entry.
func (w *world) entry(method, path, body string, headers map[string]string, status int) *atomEntry {
	w.t.Helper()
	r := w.do(method, path, strings.NewReader(body), headers)
	e := &atomEntry{}
	if r.status != status || r.header.Get("Content-Type") != "application/atom+xml;type=entry;charset=utf-8" {
		w.t.Fatalf("%s %s: %d %s %s; want %d", method, path, r.status, r.header.Get("Content-Type"), r.body, status)
	}
	if err := xml.Unmarshal([]byte(r.body), e); err != nil {
		w.t.Fatalf("%s: %v", r.body, err)
	}
	return e
}

func (w *world) feed(path string, headers map[string]string) *atomFeed {
	w.t.Helper()
	r := w.do("GET", path, nil, headers)
	f := &atomFeed{}
	if r.status != 200 || r.header.Get("Content-Type") != "application/atom+xml;type=feed;charset=utf-8" {
		w.t.Fatalf("%s: %d %s", path, r.status, r.body)
	}
	if err := xml.Unmarshal([]byte(r.body), f); err != nil {
		w.t.Fatalf("%s: %v", r.body, err)
	}
	return f
}

func (f *atomFeed) titles() string {
	var all []string
	for _, e := range f.Entries {
		all = append(all, e.Title)
	}
	return strings.Join(all, " ")
}

// TestManyClients lets 50 make, change and delete one hub at a time. Whatever
// comes of it is one state, the same for every reader and after a restart.
func TestManyClients(t *testing.T) {
	ctx := t.Context()
	disk, kv := sim.NewDisk(), segment.NewMemoryKV()
	open := func() (*hub.Namespaces, func()) {
		st, err := segment.Open(ctx, segment.Options{Disk: disk, KV: kv, JournalBytes: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		all, err := hub.Open(ctx, hub.Options{Store: st, Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		return all, func() { all.Close(); st.Close() }
	}
	all, stop := open()
	v, err := auth.NewVerifier(auth.Options{Keys: all})
	if err != nil {
		t.Fatal(err)
	}
	s := rest.NewServer(rest.Options{Namespaces: all, Verifier: v})
	do := func(method, path, body string, match bool) (int, string) {
		r := &answer{header: http.Header{}}
		req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		req.Header.Set("Authorization", token("http://localhost/", "root", "root key"))
		if match {
			req.Header.Set("If-Match", "*")
		}
		s.ServeHTTP(r, req)
		return r.status, r.body.String()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[string]int{}
	for client := range 50 {
		wg.Go(func() {
			for round := range 8 {
				var status int
				var what string
				name := fmt.Sprintf("c%d-%d", client, round)
				inner := "<AuthorizationRules>" + accessRule(name, "Send", "") + "</AuthorizationRules><UserMetadata>" + name + "</UserMetadata><PartitionCount>2</PartitionCount>"
				switch (client + round) % 4 {
				case 0:
					what = "make"
					status, _ = do("PUT", "/shared", hubBody(inner), false)
				case 1:
					what = "change"
					var body string
					status, body = do("PUT", "/shared", hubBody(inner), true)
					if status == 200 && !strings.Contains(body, "</EventHubDescription>") {
						t.Error(body)
					}
				case 2:
					what = "group"
					status, _ = do("PUT", "/shared/consumergroups/g", groupBody(""), false)
				case 3:
					what = "delete"
					status, _ = do("DELETE", "/shared", "", false)
				}
				mu.Lock()
				counts[fmt.Sprint(what, " ", status)]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for k := range counts {
		if !slices.Contains([]string{"make 201", "make 409", "change 200", "change 404", "group 201", "group 404", "group 409", "delete 200", "delete 404"}, k) {
			t.Errorf("an answer is %s", k)
		}
	}
	if made, gone := counts["make 201"], counts["delete 200"]; made-gone != len(all.Default().EventHubs()) {
		t.Errorf("%d were made and %d deleted; there are %d", made, gone, len(all.Default().EventHubs()))
	}
	if counts["make 201"] == 0 || counts["delete 200"] == 0 {
		t.Errorf("%v", counts)
	}
	do("PUT", "/shared", hubBody("<PartitionCount>2</PartitionCount>"), false)
	status, before := do("PUT", "/shared", hubBody("<MessageRetentionInDays>2</MessageRetentionInDays><AuthorizationRules>"+accessRule("last", "Send", "")+"</AuthorizationRules><UserMetadata>last</UserMetadata>"), true)
	if status != 200 {
		t.Fatal(status, before)
	}
	if status, body := do("PUT", "/shared/consumergroups/g", groupBody(""), true); status != 200 && status != 404 {
		t.Fatal(status, body)
	}
	do("PUT", "/shared/consumergroups/last", groupBody("<UserMetadata>m</UserMetadata>"), false)
	_, before = do("GET", "/shared", "", false)
	_, groups := do("GET", "/shared/consumergroups/last", "", false)
	stop()
	all, stop = open()
	defer stop()
	if v, err = auth.NewVerifier(auth.Options{Keys: all}); err != nil {
		t.Fatal(err)
	}
	s = rest.NewServer(rest.Options{Namespaces: all, Verifier: v})
	if _, after := do("GET", "/shared", "", false); after != before {
		t.Errorf("after a restart\n%s\nwas\n%s", after, before)
	}
	if _, after := do("GET", "/shared/consumergroups/last", "", false); after != groups || !strings.Contains(after, "<UserMetadata>m<") {
		t.Errorf("after a restart\n%s\nwas\n%s", after, groups)
	}
}

// answer is a response in memory.
type answer struct {
	header http.Header
	status int
	body   strings.Builder
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func TestAddressesAreEscaped(t *testing.T) {
	w := newWorld(t)
	query := "?api-version=" + url.QueryEscape(`"><x>&`) + `&a="<`
	r := w.do("GET", "/$Resources/EventHubs"+strings.ReplaceAll(query, `"<`, "%22%3C"), nil, as("root"))
	if r.status != 200 || strings.Contains(r.body, "<x>") {
		t.Errorf("%+v", r)
	}
}

func FuzzEntry(f *testing.F) {
	for _, s := range []string{
		"", golden, hubBody(""), groupBody("<UserMetadata>m</UserMetadata>"), describe("RevokedPublisherDescription", "<Name>p</Name>"),
		hubBody("<MessageRetentionInDays>-1</MessageRetentionInDays><AuthorizationRules>" + accessRule("a", "Send Listen", "") + "</AuthorizationRules><PartitionCount>4</PartitionCount>"),
		hubBody(captured), hubBody("<CaptureDescription><Enabled>0</Enabled><Destination><Properties><StorageAccountResourceId>/</StorageAccountResourceId></Properties></Destination></CaptureDescription>"),
		hubBody("<CaptureDescription><SizeLimitInBytes>-1</SizeLimitInBytes><Destination><Name>EventHubArchive.AzureDataLake</Name></Destination></CaptureDescription>"),
		"<!DOCTYPE x><x/>", "<x>&y;</x>", "<?xml version='1.0' encoding='latin1'?><x/>", "<a:b xmlns:a=''/>", "<x xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:nil='true'/>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, partitions, errs := rest.ParseEntry(doc)
		read := 0
		for _, err := range errs {
			if err == nil {
				read++
				continue
			}
			if status, _, kind := rest.StatusOf(err); status != http.StatusBadRequest || kind != hub.InvalidArgument {
				t.Errorf("%#v", err)
			}
		}
		if read > 1 {
			t.Error("it is read as two kinds of description")
		}
		if partitions != nil && (*partitions < 0 || *partitions > hub.MaxPartitions) || s.Retention < -1 || s.Retention > 36500*24*time.Hour {
			t.Errorf("%v %+v", partitions, s)
		}
		if s.Capture != nil && errs[0] == nil {
			checkShown(t, s.Capture, func(c *hub.Capture) (hub.Settings, error) {
				again, _, errs := rest.ParseEntry(rest.ShowCapture(c))
				return again, errs[0]
			})
		}
	})
}
