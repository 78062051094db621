package blob

import (
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// sasTest signs the fields of a shared access signature in the given order of
// lines, "=X" standing for the literal X, and returns the query.
func sasTest(fields url.Values, end string, lines ...string) string {
	values := make([]string, len(lines))
	for i, l := range lines {
		if text, ok := strings.CutPrefix(l, "="); ok {
			values[i] = text
		} else {
			values[i] = fields.Get(l)
		}
	}
	fields = cloneValues(fields)
	fields.Set("sig", macTest(DevelopmentKey, strings.Join(values, "\n")+end))
	return fields.Encode()
}

func cloneValues(v url.Values) url.Values {
	c := url.Values{}
	for name, values := range v {
		c[name] = slices.Clone(values)
	}
	return c
}

// The forms of both kinds through the versions, as blob.md 2.3 writes them out.
var sasForms = map[string]func(fields url.Values, name string) string{
	"2015-04-05": func(f url.Values, name string) string {
		return sasTest(f, "", "sp", "st", "se", "="+name, "si", "sip", "spr", "sv", "rscc", "rscd", "rsce", "rscl", "rsct")
	},
	"2018-03-28": func(f url.Values, name string) string {
		return sasTest(f, "", "sp", "st", "se", "="+name, "si", "sip", "spr", "sv", "rscc", "rscd", "rsce", "rscl", "rsct")
	},
	"2018-11-09": func(f url.Values, name string) string {
		return sasTest(f, "", "sp", "st", "se", "="+name, "si", "sip", "spr", "sv", "sr", "=", "rscc", "rscd", "rsce", "rscl", "rsct")
	},
	"2020-08-04": func(f url.Values, name string) string {
		return sasTest(f, "", "sp", "st", "se", "="+name, "si", "sip", "spr", "sv", "sr", "=", "rscc", "rscd", "rsce", "rscl", "rsct")
	},
	"2020-12-06": serviceForm,
	"2026-12-06": serviceForm,
	"2099-01-01": serviceForm,
}

func serviceForm(f url.Values, name string) string {
	return sasTest(f, "", "sp", "st", "se", "="+name, "si", "sip", "spr", "sv", "sr", "=", "ses", "rscc", "rscd", "rsce", "rscl", "rsct")
}

func accountForm(f url.Values) string {
	lines := []string{"=" + testAccount, "sp", "ss", "srt", "st", "se", "sip", "spr", "sv"}
	if f.Get("sv") >= "2020-12-06" {
		lines = append(lines, "ses")
	}
	return sasTest(f, "\n", lines...)
}

// with returns fields, changed by the pairs; "-" takes one away.
func with(f url.Values, pairs ...string) url.Values {
	f = cloneValues(f)
	for i := 0; i < len(pairs); i += 2 {
		if f.Set(pairs[i], pairs[i+1]); pairs[i+1] == "-" {
			f.Del(pairs[i])
		}
	}
	return f
}

func (b *bench) bySAS(method, target, sas string, headers ...string) *answer {
	b.t.Helper()
	sep := "?"
	if strings.Contains(target, "?") {
		sep = "&"
	}
	return b.send(b.request(method, target+sep+sas, "", headers...))
}

func TestServiceSASForms(t *testing.T) {
	b := newBench(t)
	b.container("con")
	b.put("/con/d%2B/a%20b", "content", "Content-Type", "text/plain").must(201)
	for version, form := range sasForms {
		f := url.Values{"sv": {version}, "sp": {"r"}, "se": {"2026-03-15"}, "st": {"2026-03-14T00:00Z"}, "sr": {"b"}, "spr": {"https,http"}, "rsct": {"a/b"}, "rscd": {"inline; x=+1"}}
		q := form(f, "/blob/devstoreaccount1/con/d+/a b")
		a := b.bySAS("GET", "/con/d%2B/a%20b", q).want(200, "")
		if a.body != "content" || a.get("Content-Type") != "a/b" || a.get("Content-Disposition") != "inline; x=+1" {
			t.Errorf("%s: %q, headers %v", version, a.body, a.header)
		}
		b.bySAS("GET", "/con/other", q).want(403, codeAuthFailed)
		b.bySAS("GET", "/con/d%2B/a%20b", strings.Replace(q, "sp=r", "sp=rw", 1)).want(403, codeAuthFailed)
		b.bySAS("GET", "/con?restype=container&comp=list", q).want(403, codeAuthFailed)

		q = form(with(f, "sr", "c", "sp", "rl", "rsct", "-", "rscd", "-"), "/blob/devstoreaccount1/con")
		b.bySAS("GET", "/con/d%2B/a%20b", q).want(200, "")
		b.bySAS("GET", "/con?restype=container&comp=list", q).want(200, "")
		b.bySAS("GET", "/con?restype=container", q).want(403, codePermission)
		b.bySAS("GET", "/?comp=list", q).want(403, codeAuthFailed)
	}
	f := url.Values{"sv": {"2014-02-14"}, "sp": {"r"}, "se": {"2026-03-15"}, "sr": {"b"}}
	b.bySAS("GET", "/con/x", serviceForm(f, "/blob/devstoreaccount1/con/x")).want(403, codeAuthFailed)
}

func TestAccountSASForms(t *testing.T) {
	b := newBench(t)
	b.container("con")
	b.put("/con/x", "content").must(201)
	f := url.Values{"sv": {"2015-04-05"}, "ss": {"bqt"}, "srt": {"sco"}, "sp": {"rwdlac"}, "se": {"2026-03-15T00:00:00Z"}}
	for _, version := range []string{"2015-04-05", "2019-12-12", "2020-12-06", "2026-12-06"} {
		q := accountForm(with(f, "sv", version))
		b.bySAS("GET", "/con/x", q).want(200, "")
		b.bySAS("GET", "/?comp=list", q).want(200, "")
		b.bySAS("PUT", "/new?restype=container", q).want(201, "")
		b.bySAS("DELETE", "/new?restype=container", q).want(202, "")
		b.bySAS("PUT", "/con/x?comp=metadata", q, "x-ms-meta-k", "v").want(200, "")
		b.bySAS("GET", "/con/x", q+"&timeout=30").want(200, "")
	}
	for _, test := range []struct {
		name   string
		change []string
		method string
		target string
		status int
		code   Code
	}{
		{"no object", []string{"srt", "sc"}, "GET", "/con/x", 403, codeResourceType},
		{"no service", []string{"srt", "co"}, "GET", "/?comp=list", 403, codeResourceType},
		{"other services", []string{"ss", "qt"}, "GET", "/con/x", 403, codeSAService},
		{"no read", []string{"sp", "wl"}, "GET", "/con/x", 403, codePermission},
		{"no list", []string{"sp", "r"}, "GET", "/con?restype=container&comp=list", 403, codePermission},
		{"no delete", []string{"sp", "rwl"}, "DELETE", "/con/x", 403, codePermission},
		{"create is not write", []string{"sp", "c"}, "PUT", "/con/x?comp=metadata", 403, codePermission},
		{"a policy is not for everyone", []string{"sp", "rwdlac"}, "GET", "/con?restype=container&comp=acl", 403, codePermission},
		{"expired", []string{"se", "2026-03-14T15:09:25Z"}, "GET", "/con/x", 403, codeAuthFailed},
		{"expired, date alone", []string{"se", "2026-03-14"}, "GET", "/con/x", 403, codeAuthFailed},
		{"no expiry", []string{"se", "-"}, "GET", "/con/x", 403, codeAuthFailed},
		{"odd expiry", []string{"se", "tomorrow"}, "GET", "/con/x", 403, codeAuthFailed},
		{"not yet", []string{"st", "2026-03-14T15:09:27Z"}, "GET", "/con/x", 403, codeAuthFailed},
		{"just begun", []string{"st", "2026-03-14T15:09:26.0000000Z"}, "GET", "/con/x", 200, ""},
		{"odd start", []string{"st", "x"}, "GET", "/con/x", 403, codeAuthFailed},
		{"https alone", []string{"spr", "https"}, "GET", "/con/x", 403, codeProtocol},
		{"our address", []string{"sip", "192.0.2.1"}, "GET", "/con/x", 200, ""},
		{"our range", []string{"sip", "192.0.2.0-192.0.2.255"}, "GET", "/con/x", 200, ""},
		{"another address", []string{"sip", "192.0.2.2"}, "GET", "/con/x", 403, codeSourceIP},
		{"odd address", []string{"sip", "here"}, "GET", "/con/x", 403, codeSourceIP},
		{"delegation", []string{"skoid", "x"}, "GET", "/con/x", 403, codeAuthFailed},
		{"no version", []string{"sv", "-"}, "GET", "/con/x", 403, codeAuthFailed},
		{"other resource", []string{"srt", "-", "ss", "-", "sr", "d"}, "GET", "/con/x", 403, codeAuthFailed},
	} {
		a := b.bySAS(test.method, test.target, accountForm(with(f, append([]string{"sv", "2020-12-06"}, test.change...)...)))
		if a.want(test.status, test.code); t.Failed() {
			t.Fatalf("in %q", test.name)
		}
	}
	q := accountForm(f)
	b.bySAS("GET", "/con/x", q+"&sig=AAAA").want(403, codeAuthFailed)
	b.bySAS("GET", "/con/x", q+"&sp=r").want(403, codeAuthFailed)
	b.bySAS("GET", "/con/x", strings.Replace(q, "sig=", "sig=A", 1)).want(403, codeAuthFailed)
	// Over TLS, https alone is fine.
	req := b.request("GET", "/con/x?"+accountForm(with(f, "spr", "https")), "")
	req.TLS = httptest.NewRequest("GET", "https://x/", nil).TLS
	b.send(req).want(200, "")
}

func TestCreateOnlySAS(t *testing.T) {
	b := newBench(t)
	b.container("con")
	b.put("/con/source", "s").must(201)
	f := url.Values{"sv": {"2020-12-06"}, "ss": {"b"}, "srt": {"o"}, "sp": {"c"}, "se": {"2026-03-15"}}
	q := accountForm(f)
	b.bySAS("PUT", "/con/x", q, "x-ms-blob-type", "BlockBlob").want(201, "")
	b.bySAS("PUT", "/con/x", q, "x-ms-blob-type", "BlockBlob").want(403, codePermission)
	b.bySAS("PUT", "/con/x", accountForm(with(f, "sp", "w")), "x-ms-blob-type", "BlockBlob").want(201, "")
	source := "http://127.0.0.1:10000/devstoreaccount1/con/source"
	b.bySAS("PUT", "/con/copy", q, "x-ms-copy-source", source).want(403, codeSourceUnverified)
	b.bySAS("PUT", "/con/copy", q, "x-ms-copy-source", source+"?"+q).want(403, codeSourceUnverified)
	b.bySAS("PUT", "/con/copy", q, "x-ms-copy-source", source+"?"+accountForm(with(f, "sp", "r"))).want(202, "")
	if a := b.do("GET", "/con/copy", "").must(200); strings.Contains(a.get("x-ms-copy-source"), "sig") {
		t.Errorf("the source's signature is shown: %s", a.get("x-ms-copy-source"))
	}
}

func TestStoredPolicies(t *testing.T) {
	b := newBench(t)
	b.container("con")
	b.put("/con/x", "content").must(201)
	doc := `<?xml version="1.0"?><SignedIdentifiers><SignedIdentifier><Id>reader</Id><AccessPolicy>` +
		`<Expiry>2026-03-15T00:00:00Z</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>`
	b.do("PUT", "/con?restype=container&comp=acl", doc).want(200, "")
	if a := b.do("GET", "/con?restype=container&comp=acl", "").must(200); !strings.Contains(a.body, "<Id>reader</Id><AccessPolicy><Expiry>2026-03-15T00:00:00Z</Expiry><Permission>r</Permission>") {
		t.Errorf("policies: %s", a.body)
	}
	f := url.Values{"sv": {"2020-12-06"}, "sr": {"c"}, "si": {"reader"}}
	ask := func(status int, code Code, change ...string) {
		t.Helper()
		b.bySAS("GET", "/con/x", serviceForm(with(f, change...), "/blob/devstoreaccount1/con")).want(status, code)
	}
	ask(200, "")
	ask(403, codeAuthFailed, "sp", "r") // said twice
	ask(403, codeAuthFailed, "si", "writer")
	b.clock.move(24 * time.Hour)
	ask(403, codeAuthFailed)
	b.clock.move(-24 * time.Hour)
	b.do("PUT", "/con?restype=container&comp=acl", "").want(200, "")
	ask(403, codeAuthFailed)
	for _, bad := range []string{
		"<x/>", "<SignedIdentifiers>", "not xml",
		"<SignedIdentifiers>" + strings.Repeat("<SignedIdentifier><Id>a</Id></SignedIdentifier>", 2) + "</SignedIdentifiers>",
		"<SignedIdentifiers>" + strings.Repeat("<SignedIdentifier><Id>a</Id></SignedIdentifier>", 6) + "</SignedIdentifiers>",
		"<SignedIdentifiers><SignedIdentifier><Id>a</Id><AccessPolicy><Start>x</Start></AccessPolicy></SignedIdentifier></SignedIdentifiers>",
	} {
		b.do("PUT", "/con?restype=container&comp=acl", bad).want(400, codeInvalidXML)
	}
	b.do("PUT", "/con?restype=container&comp=acl", "<SignedIdentifiers>"+strings.Repeat(" ", maxSmallDocument)).want(413, codeTooLarge)
	b.do("PUT", "/con?restype=container&comp=acl", "", "x-ms-blob-public-access", "blob").want(409, codeNotPublic)
	b.do("PUT", "/con2?restype=container", "", "x-ms-blob-public-access", "container").want(409, codeNotPublic)
}

func FuzzSAS(f *testing.F) {
	for version, form := range sasForms {
		f.Add(form(url.Values{"sv": {version}, "sp": {"r"}, "se": {"2026-03-15"}, "sr": {"b"}}, "/blob/devstoreaccount1/con/x"), "192.0.2.1:1")
	}
	f.Add("sv=2020-12-06&ss=b&srt=sco&sp=r&se=2027&sip=1-2&spr=x&sig=AA%3D%3D", "x")
	b := newBench(f)
	f.Fuzz(func(t *testing.T, rawQuery, remote string) {
		q, err := parseQuery(rawQuery)
		if err != nil {
			return
		}
		req := b.newRequest(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		req.RemoteAddr = remote
		a := address{account: testAccount, container: "con", blob: "x"}
		if _, err := b.checkSAS(req, q, a, &opGetBlob); err == nil && !strings.Contains(q.get("sp"), "r") {
			t.Fatal("allowed without permission")
		}
		// The terms, which a fuzzer does not get to behind the signature.
		if _, err := b.checkSASTerms(req, q, a, &opGetBlob, q.get("ss") != ""); err == nil && q.get("sp") == "" {
			t.Fatal("allowed without permission")
		}
	})
}
