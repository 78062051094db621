package blob

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// Strings to sign written out by hand from the documentation, for requests as
// the SDKs send them (blob.md 1.2, 2.2).
func TestStringToSign(t *testing.T) {
	b := newBench(t)
	for name, test := range map[string]struct {
		method, target string
		headers        []string
		length         int64
		want           string
	}{
		"Go's claim": {
			"PUT", "/devstoreaccount1/con/NS%2FHub%2F$Default%2Fownership%2F0",
			[]string{
				"Content-Length", "0", "Content-Type", "application/octet-stream", "If-None-Match", "*", "x-ms-blob-type", "BlockBlob",
				"x-ms-date", "D", "x-ms-meta-ownerid", "a", "x-ms-version", "2026-12-06",
			}, 0,
			"PUT\n\n\n\n\napplication/octet-stream\n\n\n\n*\n\n\nx-ms-blob-type:BlockBlob\nx-ms-date:D\nx-ms-meta-ownerid:a\nx-ms-version:2026-12-06\n" +
				"/devstoreaccount1/devstoreaccount1/con/NS%2FHub%2F$Default%2Fownership%2F0",
		},
		"Python's list": {
			"GET", "/devstoreaccount1/con?restype=container&comp=list&prefix=ns%2Fhub%2F%24default%2Fownership%2F&include=metadata",
			[]string{"x-ms-date", "D", "x-ms-version", "2020-04-08"}, 0,
			"GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:D\nx-ms-version:2020-04-08\n/devstoreaccount1/devstoreaccount1/con" +
				"\ncomp:list\ninclude:metadata\nprefix:ns/hub/$default/ownership/\nrestype:container",
		},
		"relinquish, If-Match bare": {
			"PUT", "/devstoreaccount1/con/x?comp=metadata",
			[]string{"Content-Length", "0", "If-Match", "0x8DE0", "x-ms-date", "D", "x-ms-meta-ownerid", "", "x-ms-version", "2026-04-06"}, 0,
			"PUT\n\n\n\n\n\n\n\n0x8DE0\n\n\n\nx-ms-date:D\nx-ms-meta-ownerid:\nx-ms-version:2026-04-06\n/devstoreaccount1/devstoreaccount1/con/x\ncomp:metadata",
		},
		"underscores and dashes": {
			"PUT", "/devstoreaccount1/con/x",
			[]string{"Content-Length", "3", "x-ms-meta-aa", "1", "x-ms-meta-a_b", "2", "x-ms-meta-_q", "3", "x-ms-meta-a1", "4", "x-ms-metaz", "5", "x-ms-version", "V"}, 3,
			"PUT\n\n\n3\n\n\n\n\n\n\n\n\nx-ms-meta-_q:3\nx-ms-meta-a_b:2\nx-ms-meta-a1:4\nx-ms-meta-aa:1\nx-ms-metaz:5\nx-ms-version:V\n/devstoreaccount1/devstoreaccount1/con/x",
		},
		"every fixed header": {
			"GET", "/devstoreaccount1/con/x",
			[]string{
				"Content-Encoding", "e", "Content-Language", "l", "Content-MD5", "m", "Content-Type", "t", "Date", "D", "If-Modified-Since", "ims",
				"If-Match", `"im"`, "If-None-Match", "inm", "If-Unmodified-Since", "ius", "Range", "bytes=0-1", "x-ms-range", "bytes=2-3",
			}, 0,
			"GET\ne\nl\n\nm\nt\nD\nims\n\"im\"\ninm\nius\nbytes=0-1\nx-ms-range:bytes=2-3\n/devstoreaccount1/devstoreaccount1/con/x",
		},
		"repeats, empty path": {
			"GET", "/devstoreaccount1?B=2&a=%2C&b=1&comp=list", nil, 0,
			"GET\n\n\n\n\n\n\n\n\n\n\n\n/devstoreaccount1/devstoreaccount1\na:,\nb:1,2\ncomp:list",
		},
	} {
		r := httptest.NewRequest(test.method, test.target, nil)
		r.ContentLength = test.length
		for i := 0; i < len(test.headers); i += 2 {
			r.Header.Add(test.headers[i], test.headers[i+1])
		}
		req := b.newRequest(httptest.NewRecorder(), r)
		req.version = r.Header.Get("x-ms-version")
		if err := req.read(b.Service); err != nil && !strings.Contains(err.Error(), "x-ms-version") {
			t.Fatalf("%s: %v", name, err)
		} else if err != nil {
			req.version = "2024-08-04"
			if err := req.read(b.Service); err != nil {
				t.Fatal(err)
			}
		}
		if got := stringsToSign(req, false)[0]; got != test.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, test.want)
		}
	}
}

// Vectors computed with another implementation of HMAC-SHA256 (Python's hmac
// module) over the strings above.
func TestSignatureVectors(t *testing.T) {
	b := newBench(t)
	for text, mac := range map[string]string{
		"": "RNeMV4QhAsdhJ2sGUgufA/AfRsaKXZU2cEJdUsvj4NY=",
		"PUT\n\n\n\n\napplication/octet-stream\n\n\n\n*\n\n\nx-ms-blob-type:BlockBlob\nx-ms-date:D\nx-ms-meta-ownerid:a\nx-ms-version:2026-12-06\n/devstoreaccount1/devstoreaccount1/con/NS%2FHub%2F$Default%2Fownership%2F0": "BJa5xaQQqTzR/sEE041tA6B4bJ7goZSgFG2aQvRXJvo=",
	} {
		if got := macTest(DevelopmentKey, text); got != mac {
			t.Errorf("%.20q: %s, want %s", text, got, mac)
		}
		if !b.signedBy(testAccount, text, decodeTest(mac)) {
			t.Errorf("%.20q is not taken as signed", text)
		}
	}
}

func TestSharedKeyVariants(t *testing.T) {
	second := "c2Vjb25kIGtleQ=="
	b := newBench(t, func(o *Options) { o.Accounts[testAccount] = []string{DevelopmentKey, second} })
	c := b.container("con")
	b.put(c+"/x", "", "x-ms-meta-a_b", "1", "x-ms-meta-aa", "2").must(201) // collated order

	send := func(text string, headers ...string) *answer {
		req := b.request("PUT", c+"/x?comp=metadata", "", headers...)
		text = strings.ReplaceAll(text, "DATE", req.Header.Get("x-ms-date"))
		req.Header.Set("Authorization", "SharedKey devstoreaccount1:"+macTest(DevelopmentKey, text))
		return b.send(req)
	}
	const path = "/devstoreaccount1/devstoreaccount1/con/x\ncomp:metadata"
	// ASCII order: an underscore after capitals and digits, before letters in
	// lower case; so a_b comes before aa, but a1 before a_b.
	send("PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:DATE\nx-ms-meta-a1:1\nx-ms-meta-a_b:2\nx-ms-version:2024-08-04\n"+path,
		"x-ms-meta-a1", "1", "x-ms-meta-a_b", "2").want(200, "")
	// An old version signs the zero; a new one must not.
	send("PUT\n\n\n0\n\n\n\n\n\n\n\n\nx-ms-date:DATE\nx-ms-version:2014-02-14\n"+path, "x-ms-version", "-", "x-ms-version", "2014-02-14").want(200, "")
	send("PUT\n\n\n0\n\n\n\n\n\n\n\n\nx-ms-date:DATE\nx-ms-version:2024-08-04\n"+path).want(403, codeAuthFailed)
	// Without a version both do.
	send("PUT\n\n\n0\n\n\n\n\n\n\n\n\nx-ms-date:DATE\n"+path, "x-ms-version", "-").want(200, "")
	send("PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:DATE\n"+path, "x-ms-version", "-").want(200, "")

	// A name that holds a plus sign in the query, meant as itself.
	req := b.request("PUT", c+"/y?comp=block&blockid=++++", "x")
	req.Header.Set("Authorization", "SharedKey devstoreaccount1:"+macTest(DevelopmentKey,
		"PUT\n\n\n1\n\n\n\n\n\n\n\n\nx-ms-date:"+req.Header.Get("x-ms-date")+"\nx-ms-version:2024-08-04\n/devstoreaccount1/devstoreaccount1/con/y\nblockid:++++\ncomp:block"))
	b.send(req).want(201, "")

	req = b.request("GET", c+"/x", "")
	signTest(req, testAccount, second)
	b.send(req).want(200, "")

	// SharedKeyLite.
	req = b.request("PUT", c+"/x?comp=metadata&timeout=30", "", "Content-Type", "t")
	req.Header.Set("Authorization", "SharedKeyLite devstoreaccount1:"+macTest(DevelopmentKey,
		"PUT\n\nt\n\nx-ms-date:"+req.Header.Get("x-ms-date")+"\nx-ms-version:2024-08-04\n/devstoreaccount1/devstoreaccount1/con/x?comp=metadata"))
	b.send(req).want(200, "")
}

func TestDateSkew(t *testing.T) {
	for _, skip := range []bool{false, true} {
		b := newBench(t, func(o *Options) { o.SkipDateCheck = skip })
		for off, good := range map[time.Duration]bool{
			0: true, 15 * time.Minute: true, -15 * time.Minute: true,
			16 * time.Minute: skip, -16 * time.Minute: skip, 1000 * time.Hour: skip,
		} {
			date := b.clock.Now().Add(off).Format(http.TimeFormat)
			for _, header := range []string{"x-ms-date", "Date"} {
				a := b.do("GET", "/?comp=list", "", "x-ms-date", "-", header, date)
				if (a.status == 200) != good || !good && a.code() != string(codeAuthFailed) {
					t.Errorf("skip %v, %v off in %s: %d %s", skip, off, header, a.status, a.code())
				}
			}
		}
		b.do("GET", "/?comp=list", "", "x-ms-date", "-").want(403, codeAuthFailed)
		b.do("GET", "/?comp=list", "", "x-ms-date", "-", "x-ms-date", "now").want(403, codeAuthFailed)
	}
}

func TestCollate(t *testing.T) {
	names := []string{"x-ms-meta-ab", "x-ms-metaa", "x-ms-meta-a", "x-ms-meta_", "x-ms-meta-a_b", "x-ms-meta-a1"}
	slices.SortFunc(names, collate)
	want := []string{"x-ms-meta_", "x-ms-meta-a", "x-ms-metaa", "x-ms-meta-a_b", "x-ms-meta-a1", "x-ms-meta-ab"}
	if !slices.Equal(names, want) {
		t.Errorf("sorted %q", names)
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("SharedKey devstoreaccount1:AAAA", "/con/x?comp=metadata&a=+&a=%2b", "x-ms-meta-a_b", "v")
	f.Add("SharedKeyLite a:b:c", "/con?restype=container", "x-ms-range", "bytes=0-")
	f.Add("Bearer x", "?comp=list", "Content-Length", "00")
	f.Add("", "/con/x?sv=2020-12-06&sig=AAAA&sr=b", "", "")
	b := newBench(f)
	f.Fuzz(func(t *testing.T, authorization, target, name, value string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RequestURI = "/" + testAccount + target
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
		r.Header.Set("x-ms-date", b.clock.Now().Format(http.TimeFormat))
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		if w.Code < 400 || w.Code >= 500 && w.Code != 501 {
			t.Fatalf("%d for a request that nobody signed", w.Code)
		}
	})
}
