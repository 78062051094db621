package rest_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/hub"
)

const lakeAccount = "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.Storage/storageAccounts/lake"

// captured is a hub's capture, byte for byte.
const captured = `<CaptureDescription><Destination><Name>EventHubArchive.AzureBlockBlob</Name><Properties>` +
	`<ArchiveNameFormat>a &lt;pattern&gt;</ArchiveNameFormat><BlobContainer>c</BlobContainer><StorageAccountResourceId>` + lakeAccount + `</StorageAccountResourceId>` +
	`</Properties></Destination><Enabled>true</Enabled><Encoding>AvroDeflate</Encoding><IntervalInSeconds>120</IntervalInSeconds>` +
	`<SizeLimitInBytes>10485760</SizeLimitInBytes><SkipEmptyArchives>true</SkipEmptyArchives></CaptureDescription>`

// capture is the part of an entry that describes capture, and what stands before it.
func (r reply) capture() (description, before string) {
	before, after, _ := strings.Cut(r.body, "<CaptureDescription>")
	inner, _, ok := strings.Cut(after, "</CaptureDescription>")
	if !ok {
		return "", before
	}
	return "<CaptureDescription>" + inner + "</CaptureDescription>", before
}

func (w *world) settings(name string) *hub.Capture {
	w.t.Helper()
	h, err := w.all.Default().EventHub(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return h.Settings().Capture
}

// TestCaptureInEntries turns the capture of a hub on, changes it and turns it off.
func TestCaptureInEntries(t *testing.T) {
	w := newWorld(t)
	root := func() map[string]string { return as("root") }
	put := func(inner string, headers map[string]string, status int) reply {
		t.Helper()
		r := w.do("PUT", "/captured", strings.NewReader(hubBody(inner)), headers)
		if r.status != status {
			t.Fatalf("%s: %d %s", inner, r.status, r.body)
		}
		return r
	}
	check := func(r reply, want string) {
		t.Helper()
		if got, before := r.capture(); got != want || want != "" && !strings.HasSuffix(before, "</PartitionIds>") {
			t.Errorf("%s\nshows %s\nwant  %s", r.body, got, want)
		}
	}
	// In any order, anywhere in the description.
	check(put(`<CaptureDescription><SkipEmptyArchives>1</SkipEmptyArchives><SizeLimitInBytes> 10485760 </SizeLimitInBytes><Encoding>avrodeflate</Encoding><Enabled> true </Enabled>
		<Destination><Properties><StorageAccountResourceId>`+lakeAccount+`</StorageAccountResourceId><BlobContainer>c</BlobContainer><ArchiveNameFormat>a &lt;pattern></ArchiveNameFormat></Properties>
		<Name>eventhubarchive.azureblockblob</Name></Destination><IntervalInSeconds>120</IntervalInSeconds></CaptureDescription><MessageRetentionInDays>1</MessageRetentionInDays><PartitionCount>1</PartitionCount>`,
		root(), 201), captured)
	want := &hub.Capture{Enabled: true, Interval: 2 * time.Minute, Bytes: 10 << 20, SkipEmpty: true, Format: hub.CaptureAvroDeflate, NameFormat: "a <pattern>", Destination: "lake", Container: "c", Resource: lakeAccount}
	stored := func() {
		t.Helper()
		if diff := cmp.Diff(want, w.settings("captured")); diff != "" {
			t.Error(diff)
		}
	}
	stored()
	read := w.do("GET", "/captured", nil, root())
	check(read, captured)
	feed := w.do("GET", "/$Resources/EventHubs", nil, root())
	check(feed, captured)
	if strings.Count(feed.body, "CaptureDescription>") != 2 {
		t.Errorf("a hub that never was captured is shown so: %s", feed.body)
	}
	// What was read can be sent back; what is left out, or null, stays.
	for _, inner := range []string{
		"", "<CaptureDescription/>", `<CaptureDescription i:nil="true"/>`, "<CaptureDescription><Destination/></CaptureDescription>",
		`<CaptureDescription><Enabled i:nil="true"/><Destination><Properties i:nil="1"/></Destination></CaptureDescription>`,
		"<UserMetadata>m</UserMetadata>" + captured,
	} {
		check(put(inner, withMatch(root()), 200), captured)
		stored()
	}
	if again := w.do("PUT", "/captured", strings.NewReader(read.body), withMatch(root())); again.status != 200 {
		t.Errorf("what was read is refused: %+v", again)
	}
	stored()
	// The webhook's secret is in nothing that is shown, and stays.
	h, err := w.all.Default().EventHub("captured")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Update(t.Context(), func(s *hub.Settings) error {
		c := *s.Capture
		c.Notice.Webhook, c.HeaderOnly = "https://example.com/?code=secret", true
		s.Capture = &c
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	off := put("<CaptureDescription><Enabled>false</Enabled><Encoding>Parquet</Encoding></CaptureDescription>", withMatch(root()), 200)
	check(off, strings.NewReplacer("<Enabled>true<", "<Enabled>false<", "AvroDeflate", "Parquet").Replace(captured))
	want.Enabled, want.Format, want.Notice.Webhook, want.HeaderOnly = false, hub.CaptureParquet, "https://example.com/?code=secret", true
	stored()
	// Who may only listen is shown where files go by the destination's name.
	r := w.do("GET", "/captured", nil, as("reader"))
	check(r, strings.NewReplacer("<Enabled>true<", "<Enabled>false<", "AvroDeflate", "Parquet", lakeAccount, "lake").Replace(captured))
	if all := off.body + r.body; strings.Contains(all, "secret") || strings.Contains(all, "example.com") {
		t.Errorf("the webhook is shown: %s", all)
	}
	// Without a word of capture a new hub has none, nor if it is said to be off.
	for name, inner := range map[string]string{"n1": "", "n2": "<CaptureDescription/>", "n3": "<CaptureDescription><Enabled>false</Enabled></CaptureDescription>"} {
		r := w.do("PUT", "/"+name, strings.NewReader(hubBody(inner)), root())
		check(r, "")
		if r.status != 201 || w.settings(name) != nil {
			t.Errorf("%s: %+v", inner, r)
		}
	}
}

// TestCaptureOfEitherInterface asks for the same by ATOM and by the resource
// manager: both have to do the same, or refuse it in the same words.
func TestCaptureOfEitherInterface(t *testing.T) {
	m := newManager(t)
	destination := func(name, property, value string) (xml, json string) {
		p, j := "", ""
		if property != "" {
			p = "<Properties><" + property + ">" + value + "</" + property + "></Properties>"
			j = `"properties":{"` + strings.ToLower(property[:1]) + property[1:] + `":"` + value + `"}`
		}
		if name != "" {
			p = "<Name>" + name + "</Name>" + p
			j = strings.TrimSuffix(`"name":"`+name+`",`+j, ",")
		}
		return "<Enabled>true</Enabled><Destination>" + p + "</Destination>", `"enabled":true,"destination":{` + j + "}"
	}
	type pair struct{ xml, json string }
	asks := []pair{
		{"<Enabled>true</Enabled>", `"enabled":true`},
		{"<Enabled>false</Enabled>", `"enabled":false`},
		{"<IntervalInSeconds>60</IntervalInSeconds>", `"intervalInSeconds":60`},
		{"", ""},
	}
	for _, e := range []string{"Avro", "AVRODEFLATE", "parquet", "CSV", " Avro", strings.Repeat("x", 300)} {
		asks = append(asks, pair{"<Enabled>true</Enabled><Encoding>" + e + "</Encoding>", `"enabled":true,"encoding":"` + e + `"`})
	}
	for _, n := range []string{"0", "59", "60", "900", "901", "-1", "9999999999", "-9223372036854775808"} {
		asks = append(asks, pair{"<Enabled>true</Enabled><IntervalInSeconds>" + n + "</IntervalInSeconds>", `"enabled":true,"intervalInSeconds":` + n})
	}
	for _, n := range []string{"0", "1", "10485759", "10485760", "524288000", "524288001", "-1", "9223372036854775807"} {
		asks = append(asks, pair{"<Enabled>true</Enabled><SizeLimitInBytes>" + n + "</SizeLimitInBytes>", `"enabled":true,"sizeLimitInBytes":` + n})
	}
	for _, d := range [][3]string{
		{"EventHubArchive.AzureBlockBlob"}, {"Tape"}, {"EventHubArchive.AzureDataLake"}, {"", "DataLakeAccountName", "old"}, {"", "BlobContainer", "c"}, {"", "ArchiveNameFormat", "f"},
		{"", "StorageAccountResourceId", lakeAccount}, {"", "StorageAccountResourceId", "LAKE"}, {"", "StorageAccountResourceId", "/x/storageAccounts/nowhere"},
		{"", "StorageAccountResourceId", "lake/"}, {"", "BlobContainer", strings.Repeat("c", 2049)},
	} {
		xml, json := destination(d[0], d[1], d[2])
		asks = append(asks, pair{xml, json})
	}
	taken, refused := 0, 0
	both := func(what string, x reply, status int, doc document) {
		t.Helper()
		text, _, _ := strings.Cut(x.Detail, " TrackingId:")
		said, _ := doc.at("error.message").(string)
		if (x.status < 300) != (status < 300) || x.status >= 300 && (x.status != status || text != said) {
			t.Errorf("%s: ATOM says %d %q, the resource manager %d %q", what, x.status, text, status, said)
		}
		if x.status < 300 {
			taken++
		} else {
			refused++
		}
	}
	ns := m.all.Default()
	// Each asks for a hub of its own: one that is not there, and one that is captured
	// or not.
	for what, before := range map[string]*hub.Settings{
		"made": nil, "changed": {}, "changed from Parquet": {Capture: &hub.Capture{Enabled: true, Container: "before", Format: hub.CaptureParquet, Interval: 3 * time.Minute, Destination: "lake", Resource: lakeAccount}},
	} {
		for _, ask := range asks {
			headers := as("root")
			for _, name := range []string{"by-atom", "by-arm"} {
				ns.DeleteEventHub(t.Context(), name) // or it is not there
				if before != nil {
					headers = withMatch(headers)
					if _, err := ns.CreateEventHub(t.Context(), name, 1, *before); err != nil {
						t.Fatal(err)
					}
				}
			}
			x := m.do("PUT", "/by-atom", strings.NewReader(hubBody("<PartitionCount>1</PartitionCount><CaptureDescription>"+ask.xml+"</CaptureDescription>")), headers)
			status, doc, _ := m.ask("PUT", "namespaces/localhost/eventhubs/by-arm", `{"properties":{"partitionCount":1,"captureDescription":{`+ask.json+`}}}`)
			both(what+": "+ask.json, x, status, doc)
			if x.status < 300 && status < 300 || before != nil {
				if diff := cmp.Diff(m.settings("by-atom"), m.settings("by-arm")); diff != "" {
					t.Errorf("%s, by ATOM and by the resource manager: %s: %s", what, ask.json, diff)
				}
			}
		}
	}
	if taken < 30 || refused < 30 {
		t.Errorf("%d were taken and %d refused", taken, refused)
	}
	// And a tier without Capture has none by either.
	m.must("PUT", "namespaces/basic-one", `{"sku":{"name":"Basic"}}`)
	status, doc, _ := m.ask("PUT", "namespaces/basic-one/eventhubs/h", `{"properties":{"messageRetentionInDays":1,"captureDescription":{"enabled":true}}}`)
	req, _ := http.NewRequestWithContext(t.Context(), "PUT", m.world.url+"/h", strings.NewReader(hubBody("<MessageRetentionInDays>1</MessageRetentionInDays><CaptureDescription><Enabled>true</Enabled></CaptureDescription>")))
	req.Host = "basic-one.servicebus.windows.net"
	req.Header.Set("Authorization", token("https://basic-one.servicebus.windows.net/", "root", "root key"))
	both("basic", m.send(req), status, doc)
}

// TestMalformedCapture holds that what can't be read of a description changes
// nothing.
func TestMalformedCapture(t *testing.T) {
	w := newWorld(t)
	ways := map[string]string{ // what it says of what is inside of a CaptureDescription
		"x":                                "holds text",
		"<a/>":                             "'a' of the namespace",
		"<enabled>true</enabled>":          "'enabled' of the namespace",
		"<BlobContainer>c</BlobContainer>": "'BlobContainer' of the namespace",
		"<Enabled>yes</Enabled>":           "Enabled is true or false, not 'yes'",
		"<Enabled/>":                       "Enabled is true or false, not ''",
		"<Enabled>True</Enabled>":          "Enabled is true or false",
		"<Enabled><x/></Enabled>":          "holds elements",
		"<SkipEmptyArchives>2</SkipEmptyArchives>":                                                           "SkipEmptyArchives is true or false",
		"<Enabled>true</Enabled><Enabled>true</Enabled>":                                                     "there twice",
		"<IntervalInSeconds/>":                                                                               "IntervalInSeconds is a whole number",
		"<IntervalInSeconds>1.5</IntervalInSeconds>":                                                         "not '1.5'",
		"<SizeLimitInBytes>9223372036854775808</SizeLimitInBytes>":                                           "SizeLimitInBytes is a whole number",
		"<SizeLimitInBytes><x/></SizeLimitInBytes>":                                                          "holds elements",
		"<Encoding><x/></Encoding>":                                                                          "holds elements",
		"<Destination>lake</Destination>":                                                                    "'Destination' holds text",
		"<Destination><BlobContainer>c</BlobContainer></Destination>":                                        "'BlobContainer' of the namespace",
		"<Destination><Name/><Name/></Destination>":                                                          "there twice",
		"<Destination><Properties>x</Properties></Destination>":                                              "'Properties' holds text",
		"<Destination><Properties><Name/></Properties></Destination>":                                        "'Name' of the namespace",
		"<Destination><Properties><BlobContainer><x/></BlobContainer></Properties></Destination>":            "holds elements",
		"<Destination xmlns='urn:x'/>":                                                                       "'Destination' of the namespace 'urn:x'",
		"</CaptureDescription><CaptureDescription>":                                                          "there twice",
		"</CaptureDescription><PartitionCount>1</PartitionCount><Status>Active</Status><CaptureDescription>": "", // twice, or before
	}
	for _, inner := range slices.Sorted(maps.Keys(ways)) {
		body := hubBody("<CaptureDescription>" + inner + "</CaptureDescription>")
		w.refused(inner, w.do("PUT", "/n", strings.NewReader(body), as("root")), 400, ways[inner])
		w.refused(inner, w.do("PUT", "/trial", strings.NewReader(body), withMatch(as("root"))), 400, ways[inner])
	}
	if c := w.settings("trial"); c != nil || len(w.all.Default().EventHubs()) != 1 {
		t.Errorf("something was changed: %+v", c)
	}
	// The element's own place is free, that of the others is not.
	w.refused("order", w.do("PUT", "/n", strings.NewReader(hubBody("<PartitionCount>1</PartitionCount>"+captured+"<Status>Active</Status>")), as("root")), 400, "before 'PartitionCount'")
}

// checkShown holds that a capture which was asked for is shown so that whoever sends
// back what is shown asks for the same.
func checkShown(t *testing.T, c *hub.Capture, sendBack func(*hub.Capture) (hub.Settings, error)) {
	t.Helper()
	want := *c
	var err error
	if want.Format, err = hub.ParseCaptureFormat(string(c.Format)); err != nil { // as the hub completes it
		t.Fatal(err)
	}
	got, err := sendBack(&want)
	if err != nil {
		t.Fatalf("%+v is shown, and refused when it is sent back: %v", want, err)
	}
	if diff := cmp.Diff(&want, got.Capture); diff != "" {
		t.Errorf("sent back: %s", diff)
	}
}
