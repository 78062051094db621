package blob

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The table of blob.md 1.3: answers that clients depend on.
func TestAnswersThatClientsDependOn(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/there", "content").must(201)
	b.put(c+"/empty", "").must(201)
	etag := b.do("HEAD", c+"/there", "").must(200).get("ETag")
	const other = `"0x8DEAAAAAAAAAAAA"`

	for _, test := range []struct {
		name, method, target string
		headers              []string
		status               int
		code                 Code
	}{
		{"list, container missing", "GET", "/none?restype=container&comp=list", nil, 404, ContainerNotFound},
		{"put, container missing", "PUT", "/none/x", []string{"x-ms-blob-type", "BlockBlob"}, 404, ContainerNotFound},
		{"set metadata, container missing", "PUT", "/none/x?comp=metadata", nil, 404, ContainerNotFound},
		{"get, container missing", "GET", "/none/x", nil, 404, ContainerNotFound},
		{"delete, container missing", "DELETE", "/none?restype=container", nil, 404, ContainerNotFound},
		{"set metadata, blob missing", "PUT", c + "/none?comp=metadata", nil, 404, BlobNotFound},
		{"… with If-None-Match", "PUT", c + "/none?comp=metadata", []string{"If-None-Match", "*"}, 404, BlobNotFound},
		{"… with If-Match", "PUT", c + "/none?comp=metadata", []string{"If-Match", etag}, 404, BlobNotFound},
		{"get, blob missing", "GET", c + "/none", nil, 404, BlobNotFound},
		{"… with If-Match", "GET", c + "/none", []string{"If-Match", etag}, 404, BlobNotFound},
		{"head, blob missing", "HEAD", c + "/none", nil, 404, BlobNotFound},
		{"delete, blob missing", "DELETE", c + "/none", nil, 404, BlobNotFound},
		{"set metadata, If-Match differs", "PUT", c + "/there?comp=metadata", []string{"If-Match", other}, 412, ConditionNotMet},
		{"set metadata, If-None-Match *", "PUT", c + "/there?comp=metadata", []string{"If-None-Match", "*"}, 412, ConditionNotMet},
		{"put, If-None-Match *, exists", "PUT", c + "/there", []string{"x-ms-blob-type", "BlockBlob", "If-None-Match", "*"}, 409, BlobAlreadyExists},
		{"block list, If-None-Match *, exists", "PUT", c + "/there?comp=blocklist", []string{"If-None-Match", "*"}, 409, BlobAlreadyExists},
		{"copy, If-None-Match *, exists", "PUT", c + "/there", []string{"x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/empty", "If-None-Match", "*"}, 409, BlobAlreadyExists},
		{"put, If-Match, missing", "PUT", c + "/none", []string{"x-ms-blob-type", "BlockBlob", "If-Match", etag}, 412, ConditionNotMet},
		{"put, If-Match differs", "PUT", c + "/there", []string{"x-ms-blob-type", "BlockBlob", "If-Match", other}, 412, ConditionNotMet},
		{"put, If-None-Match equals", "PUT", c + "/there", []string{"x-ms-blob-type", "BlockBlob", "If-None-Match", etag}, 412, ConditionNotMet},
		{"get, If-None-Match equals", "GET", c + "/there", []string{"If-None-Match", etag}, 304, ConditionNotMet},
		{"head, If-None-Match equals", "HEAD", c + "/there", []string{"If-None-Match", etag}, 304, ConditionNotMet},
		{"get, If-Match differs", "GET", c + "/there", []string{"If-Match", other}, 412, ConditionNotMet},
		{"delete, If-Match differs", "DELETE", c + "/there", []string{"If-Match", other}, 412, ConditionNotMet},
		{"range past the end", "GET", c + "/there", []string{"Range", "bytes=7-"}, 416, codeInvalidRange},
		{"any range of nothing", "GET", c + "/empty", []string{"x-ms-range", "bytes=0-33554431"}, 416, codeInvalidRange},
		{"bad header value", "PUT", c + "/x?comp=metadata", []string{"If-Modified-Since", "yesterday"}, 400, codeInvalidHeader},
		{"bad version", "GET", c + "/there", []string{"x-ms-version", "newest"}, 400, codeInvalidHeader},
	} {
		a := b.do(test.method, test.target, "", test.headers...)
		if a.want(test.status, test.code); t.Failed() {
			t.Fatalf("in %q", test.name)
		}
		body := "<Error><Code>" + string(test.code) + "</Code><Message>"
		if wantBody := test.method != "HEAD" && test.status != 304; strings.Contains(a.body, body) != wantBody || !wantBody && a.body != "" {
			t.Errorf("%s: body %q", test.name, a.body)
		}
	}
	b.do("GET", c+"/there", "").want(200, "")
}

func TestWhoAsks(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	for _, test := range []struct {
		name, authorization string
		status              int
		code                Code
	}{
		{"nobody", "-", 401, codeNoAuth},
		{"wrong key", "SharedKey devstoreaccount1:" + macTest(DevelopmentKey, "x"), 403, codeAuthFailed},
		{"other account", "SharedKey other:" + macTest(DevelopmentKey, "x"), 403, codeAuthFailed},
		{"no signature", "SharedKey devstoreaccount1", 400, codeInvalidAuth},
		{"not base64", "SharedKey devstoreaccount1:!", 400, codeInvalidAuth},
		{"one word", "SharedKey", 400, codeInvalidAuth},
		{"unknown scheme", "Digest x", 400, codeInvalidAuth},
		{"a token", "Bearer x", 401, codeInvalidAuth},
	} {
		req := b.request("GET", c+"/x", "", "Authorization", test.authorization)
		if b.send(req).want(test.status, test.code); t.Failed() {
			t.Fatalf("in %q", test.name)
		}
	}
	// The service says what it has signed, as the cloud does.
	req := b.request("GET", c+"/x", "", "Authorization", "SharedKey devstoreaccount1:AAAA")
	if a := b.send(req); !strings.Contains(a.body, "<AuthenticationErrorDetail>") || !strings.Contains(a.body, "/devstoreaccount1/devstoreaccount1/con/x") {
		t.Errorf("no detail: %s", a.body)
	}
	req = httptest.NewRequest("GET", "/unknown/con/x", nil)
	if a := b.send(req).want(403, codeAuthFailed); !strings.Contains(a.body, `no account &#34;unknown&#34;`) {
		t.Errorf("unknown account: %s", a.body)
	}
}

func TestEveryAnswerHas(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	a := b.put(c+"/x", "abc", "x-ms-client-request-id", "mine", "x-ms-version", "2099-12-31", "x-ms-encryption-algorithm", "AES256", "x-ms-meta-OwnerId", "me").must(201)
	if a.get("x-ms-version") != "2099-12-31" || a.get("x-ms-client-request-id") != "mine" || len(a.get("x-ms-request-id")) != 36 ||
		a.get("Date") == "" || a.get("Server") == "" || a.get("x-ms-request-server-encrypted") != "true" {
		t.Errorf("headers %v", a.header)
	}
	if a = b.do("GET", c+"/y", "", "x-ms-version", "-").want(404, BlobNotFound); a.get("x-ms-version") != newestVersion {
		t.Errorf("without a version: %v", a.header)
	}
	// No header may have been capitalised: the Python SDK would not find it.
	for _, a := range []*answer{
		b.do("GET", c+"/x", ""), b.do("HEAD", c+"/x", ""), b.do("GET", c+"/none", ""), b.do("GET", c+"?restype=container", ""),
		b.do("PUT", c+"/x?comp=metadata", "", "x-ms-meta-OwnerId", ""), b.do("GET", "/?restype=account&comp=properties", ""),
	} {
		for name := range a.header {
			if strings.HasPrefix(name, "X-") {
				t.Errorf("%s answers with %s", a.what, name)
			}
		}
	}
}

func TestSetMetadata(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	first := b.put(c+"/x", "", "x-ms-meta-ownerid", "a", "x-ms-meta-more", "1").must(201)
	if first.get("Content-MD5") != "1B2M2Y8AsgTpgAmY7PhCfg==" {
		t.Errorf("Content-MD5 %q", first.get("Content-MD5"))
	}
	b.clock.move(2 * time.Second)
	quoted := first.get("ETag")
	second := b.do("PUT", c+"/x?comp=metadata", "", "If-Match", strings.Trim(quoted, `"`), "x-ms-meta-ownerid", "b").want(200, "")
	if second.get("ETag") == quoted || second.get("Last-Modified") == first.get("Last-Modified") {
		t.Error("ETag and Last-Modified have not changed")
	}
	b.do("PUT", c+"/x?comp=metadata", "", "If-Match", quoted, "x-ms-meta-ownerid", "c").want(412, ConditionNotMet)
	third := b.do("PUT", c+"/x?comp=metadata", "", "If-Match", second.get("ETag"), "x-ms-meta-ownerid", "").want(200, "")

	head := b.do("HEAD", c+"/x", "").must(200)
	if v, ok := head.header["x-ms-meta-ownerid"]; !ok || v[0] != "" || head.get("x-ms-meta-more") != "" || head.get("ETag") != third.get("ETag") {
		t.Errorf("after relinquishing: %v", head.header)
	}
	list := b.do("GET", c+"?restype=container&comp=list&include=metadata", "").must(200)
	if !strings.Contains(list.body, "<Metadata><ownerid/></Metadata>") {
		t.Errorf("list: %s", list.body)
	}
	if !strings.Contains(list.body, "<Etag>"+strings.Trim(third.get("ETag"), `"`)+"</Etag>") {
		t.Errorf("list has another ETag: %s", list.body)
	}

	// The clock steps back; Last-Modified does not, and the ETag still changes.
	b.clock.move(-time.Hour)
	fourth := b.do("PUT", c+"/x?comp=metadata", "", "If-Match", third.get("ETag")).want(200, "")
	if fourth.get("Last-Modified") != third.get("Last-Modified") || fourth.get("ETag") <= third.get("ETag") {
		t.Errorf("clock stepped back: %v then %v", third.header, fourth.header)
	}
}

func TestMetadataRules(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	for _, test := range []struct {
		name, value string
		status      int
		code        Code
	}{
		{"ok", "v", 201, ""},
		{"_q9", "a, b", 201, ""},
		{"", "v", 400, codeEmptyMetadataKey},
		{"a-b", "v", 400, codeInvalidMetadata},
		{"9a", "v", 400, codeInvalidMetadata},
		{"a.b", "v", 400, codeInvalidMetadata},
		{"k", "na\u00efve", 400, codeInvalidMetadata},
		{"k", strings.Repeat("x", maxMetadata), 400, codeMetadataTooLarge},
	} {
		b.put(c+"/x", "", "x-ms-meta-"+test.name, test.value).want(test.status, test.code)
	}
	b.put(c+"/two", "", "x-ms-meta-k", "a", "x-ms-meta-k", "b").want(201, "")
	if a := b.do("GET", c+"/two?comp=metadata", "").must(200); a.get("x-ms-meta-k") != "a,b" {
		t.Errorf("a repeated name: %v", a.header)
	}
}

func TestPaths(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	// All spellings of one name.
	b.put(c+"/ns/hub/%24default/ownership/0", "1").must(201)
	for _, path := range []string{"/ns/hub/$default/ownership/0", "/ns%2Fhub%2F$default%2Fownership%2F0", `/ns\hub%5C%24default/ownership/0`, "/%6es/hub/$default/ownership/0"} {
		if a := b.do("GET", c+path, ""); a.status != 200 || a.body != "1" {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	// Names that a cleaner path would lose.
	for _, name := range []string{"a//b", "a/../b", "./x", "a/", "+", "a%2Bb", "a b?", "%25", "naïve:", "/lead", "%C3%BC", "NS/Hub"} {
		raw := strings.NewReplacer(" ", "%20", "?", "%3F", "ï", "%C3%AF").Replace(name)
		b.put(c+"/"+raw, name).must(201)
		if a := b.do("GET", c+"/"+raw, ""); a.body != name {
			t.Errorf("%q reads as %q", name, a.body)
		}
	}
	b.do("GET", c+"/a/b", "").want(404, BlobNotFound)
	b.do("GET", c+"/ns/hub", "").want(404, BlobNotFound)
	b.do("GET", c+"/NS/hub", "").want(404, BlobNotFound)
	b.do("GET", c+"/%FF", "").want(400, codeInvalidURI)
	b.do("GET", c+"/a%00b", "").want(400, codeInvalidURI)
	b.put(c+"/"+strings.Repeat("x", maxBlobName+1), "").want(400, codeInvalidName)
	b.put(c+"/"+strings.Repeat("x", maxBlobName), "").want(201, "")
	for _, name := range []string{"ab", "UPPER", "-ab", "ab-", "a--b", strings.Repeat("x", 64), "$other"} {
		b.do("PUT", "/"+name+"?restype=container", "").want(400, codeInvalidName)
	}
	// The container $root is also addressed by leaving it out.
	b.put("/file.txt", "r").want(404, ContainerNotFound)
	b.do("PUT", "/$root?restype=container", "").want(201, "")
	b.put("/file.txt", "r").want(201, "")
	if a := b.do("GET", "/$root/file.txt", ""); a.body != "r" {
		t.Errorf("in $root: %d %q", a.status, a.body)
	}
}

func TestHostStyleAndSecondary(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", "content").must(201)
	ask := func(method, host, target, account string) *answer {
		req := httptest.NewRequest(method, target, nil)
		req.Host = host
		req.Header.Set("x-ms-version", "2024-08-04")
		req.Header.Set("x-ms-date", b.clock.Now().Format(http.TimeFormat))
		req.Header.Set("x-ms-blob-type", "BlockBlob")
		req.Header.Set("Content-Length", "0")
		signTest(req, account, DevelopmentKey)
		return b.send(req)
	}
	const acct, second = testAccount, testAccount + "-secondary"
	for _, test := range []struct {
		method, host, target, account string
		status                        int
		code                          Code
	}{
		{"GET", "devstoreaccount1.blob.example:10000", "/con/x", acct, 200, ""},
		{"GET", "DevStoreAccount1.localhost:10000", "/con/x", acct, 200, ""},
		{"GET", "devstoreaccount1-secondary.blob.example", "/con/x", acct, 200, ""},
		{"GET", "devstoreaccount1-secondary.blob.example", "/con/x", second, 200, ""},
		{"PUT", "devstoreaccount1-secondary.blob.example", "/con/x", acct, 403, codeReadOnly},
		{"GET", "broker.example:10000", "/devstoreaccount1/con/x", acct, 200, ""},
		{"GET", "10.0.0.7:10000", "/devstoreaccount1/con/x", acct, 200, ""},
		{"GET", "[::1]:10000", "/devstoreaccount1/con/x", acct, 200, ""},
		{"GET", "localhost:10000", "/devstoreaccount1-secondary/con/x", second, 200, ""},
		{"PUT", "localhost:10000", "/devstoreaccount1-secondary/con/x", second, 403, codeReadOnly},
		{"GET", "localhost:10000", "/devstoreaccount1-secondary?restype=service&comp=stats", acct, 200, ""},
		{"GET", "devstoreaccount1.blob.example", "/con?restype=container&comp=list", acct, 200, ""},
		{"GET", "devstoreaccount1.blob.example", "/?comp=list", acct, 200, ""},
		{"GET", "localhost", "http://localhost/devstoreaccount1/con/x", acct, 0, ""},
	} {
		if test.status == 0 { // the absolute form, as through a proxy
			req := httptest.NewRequest("GET", "/devstoreaccount1/con/x", nil)
			req.RequestURI = test.target
			req.Header.Set("x-ms-date", b.clock.Now().Format(http.TimeFormat))
			req.Header.Set("Authorization", "SharedKey devstoreaccount1:"+macTest(DevelopmentKey,
				"GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:"+req.Header.Get("x-ms-date")+"\n/devstoreaccount1/devstoreaccount1/con/x"))
			b.send(req).want(200, "")
			continue
		}
		ask(test.method, test.host, test.target, test.account).want(test.status, test.code)
	}
	a := ask("GET", "devstoreaccount1.blob.example", "/con?restype=container&comp=list", acct)
	if !strings.Contains(a.body, `ServiceEndpoint="http://devstoreaccount1.blob.example/" ContainerName="con"`) {
		t.Errorf("host style list: %s", a.body)
	}
}

func TestWhatIsNotOffered(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", "").must(201)
	for _, test := range []struct {
		method, target string
		headers        []string
	}{
		{"PUT", c + "/x?comp=snapshot", nil},
		{"PUT", c + "/x?comp=tags", nil},
		{"GET", c + "/x?comp=tags", nil},
		{"PUT", c + "/x?comp=tier", nil},
		{"PUT", c + "/x?comp=page", nil},
		{"PUT", c + "/x?comp=undelete", nil},
		{"PUT", c + "/x?comp=" + strings.Repeat("y", 1000), nil},
		{"PUT", c + "/x", []string{"x-ms-blob-type", "PageBlob"}},
		{"PUT", c + "/x?comp=properties", []string{"x-ms-blob-content-length", "512"}},
		{"PUT", c + "/x?comp=block&blockid=AAAA", []string{"x-ms-copy-source", "http://h/x"}}, // another server
		{"PUT", c + "/x?comp=appendblock", []string{"x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/x"}},
		{"PUT", c + "/x", []string{"x-ms-blob-type", "BlockBlob", "x-ms-structured-body", "XSM/1.0"}},
		{"PUT", c + "/y", []string{"x-ms-copy-source", "http://elsewhere:10000/devstoreaccount1/con/x"}},
		{"PUT", c + "/y", []string{"x-ms-copy-source", "http://127.0.0.1:10000/other/con/x"}},
		{"PUT", c + "?restype=container&comp=undelete", nil},
		{"POST", "/?comp=batch", nil},
		{"POST", "/?restype=service&comp=userdelegationkey", nil},
		{"GET", "/?comp=blobs", nil},
	} {
		a := b.do(test.method, test.target, "", test.headers...).want(501, codeNotImplemented)
		if len(a.body) > 600 {
			t.Errorf("%s: an answer of %d bytes", test.method, len(a.body))
		}
	}
	b.do("PATCH", c+"/x", "").want(405, codeUnsupportedVerb)
	b.do("GET", c+"/x?snapshot=2026-01-01", "").want(404, BlobNotFound)
	b.do("DELETE", c+"/x?versionid=1", "").want(404, BlobNotFound)
	b.do("PUT", c+"/x", "").want(400, codeMissingHeader)
	b.do("PUT", c+"/x", "", "x-ms-blob-type", "Blob").want(400, codeInvalidHeader)
	b.do("GET", c+"/x?"+strings.Repeat("a=1&", maxParams+1), "").want(400, codeInvalidURI)
	b.do("GET", c+"/x?a=%zz", "").want(400, codeInvalidURI)
}

func TestListXML(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/a", "abc", "Content-Type", "text/plain", "x-ms-meta-b", "2", "x-ms-meta-a_", "<1>").must(201)
	a := b.do("GET", c+"?restype=container&comp=list&prefix=a&include=metadata,snapshots,deleted,,&maxresults=9", "").must(200)
	etag := strings.Trim(b.do("HEAD", c+"/a", "").get("ETag"), `"`)
	want := `<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://127.0.0.1:10000/devstoreaccount1" ContainerName="con">` +
		`<Prefix>a</Prefix><MaxResults>9</MaxResults><Blobs><Blob><Name>a</Name><Properties>` +
		`<Creation-Time>Sat, 14 Mar 2026 15:09:26 GMT</Creation-Time><Last-Modified>Sat, 14 Mar 2026 15:09:26 GMT</Last-Modified>` +
		`<Etag>` + etag + `</Etag><Content-Length>3</Content-Length><Content-Type>text/plain</Content-Type><Content-Encoding/>` +
		`<Content-Language/><Content-CRC64/><Content-MD5>kAFQmDzST7DWlj99KOF/cg==</Content-MD5><Cache-Control/><Content-Disposition/>` +
		`<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>` +
		`<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties>` +
		`<Metadata><a_>&lt;1&gt;</a_><b>2</b></Metadata></Blob></Blobs><NextMarker/></EnumerationResults>`
	if d := cmp.Diff(want, a.body); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if a.get("Content-Type") != "application/xml" {
		t.Errorf("Content-Type %q", a.get("Content-Type"))
	}
	if !strings.HasPrefix(etag, "0x") || len(etag) < 17 || strings.ToUpper(etag[2:]) != etag[2:] {
		t.Errorf("ETag %q", etag)
	}
	// Includes that are empty, or nothing but a name, list metadata only if asked.
	if a := b.do("GET", c+"?restype=container&comp=list&include=", "").must(200); strings.Contains(a.body, "<Metadata>") || !strings.Contains(a.body, "<Prefix/>") {
		t.Errorf("without include: %s", a.body)
	}
	for _, q := range []string{"maxresults=x", "marker=%21"} {
		b.do("GET", c+"?restype=container&comp=list&"+q, "").want(400, codeInvalidQuery)
	}
	b.do("GET", c+"?restype=container&comp=list&maxresults=0", "").want(400, codeOutOfRangeQuery)
	b.do("GET", c+"?restype=container&comp=list&maxresults=5001", "").want(200, "")

	b.put(c+"/z%01%EF%BF%BE", "").must(201)
	a = b.do("GET", c+"?restype=container&comp=list&prefix=z", "").must(200)
	if !strings.Contains(a.body, `<Name Encoded="true">z%01%EF%BF%BE</Name>`) {
		t.Errorf("a name that XML can't hold: %s", a.body)
	}
	a = b.do("GET", c+"?restype=container&comp=list&prefix=z", "", "x-ms-version", "2019-12-12").must(200)
	if strings.Contains(a.body, "Encoded") {
		t.Errorf("an old client gets %s", a.body)
	}
	containers := b.do("GET", "/?comp=list&prefix=c&include=metadata", "").must(200)
	if !strings.Contains(containers.body, "<Container><Name>con</Name><Properties><Last-Modified>Sat, 14 Mar 2026 15:09:26 GMT</Last-Modified><Etag>0x") {
		t.Errorf("containers: %s", containers.body)
	}
}
