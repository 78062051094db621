package blob

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzPath(f *testing.F) {
	for _, seed := range [][2]string{
		{"127.0.0.1:10000", "/devstoreaccount1/con/ns%2FHub%2F$Default%2Fownership%2F0"},
		{"devstoreaccount1.host:10000", "/con/a//b/../c"},
		{"devstoreaccount1-secondary.host", "/$root"},
		{"[::1]", "/devstoreaccount1-secondary"},
		{"localhost", `/devstoreaccount1/con/a\b%5C%zz`},
		{"", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	b := newBench(f)
	f.Fuzz(func(t *testing.T, host, path string) {
		a, err := b.parseAddress(host, path)
		if err != nil || a.check() != nil {
			return
		}
		if strings.ContainsAny(a.blob, "\\\x00") || !utf8.ValidString(a.blob) {
			t.Fatalf("name %q", a.blob)
		}
		if a.container == "" && a.blob != "" && b.accounts[a.account] != nil && !strings.Contains(path, "//") {
			t.Fatalf("%q: blob %q in no container", path, a.blob)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Host, r.RequestURI = host, path
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		if w.Code < 400 || w.Code >= 500 && w.Code != 501 {
			t.Fatalf("%d for a request that nobody signed", w.Code)
		}
	})
}

func FuzzRecords(f *testing.F) {
	full := blobRecord{
		Type: blockBlob, ETag: 1, Size: 3, Metadata: []pair{{"k", "v"}},
		Segments: []segment{{Block: "AAAA", File: newFileID(), Size: 3}}, Copy: &copyInfo{}, Lease: &lease{},
	}
	f.Add(full.encode())
	f.Add((&blobRecord{Size: 3, inline: []byte("abc")}).encode())
	f.Add((&blobRecord{Deleted: true, BlocksBefore: 9}).encode())
	f.Add(encodeJSON(&stagedRecord{File: newFileID()}))
	f.Add(encodeJSON(&containerRecord{ID: "x", Policies: []policy{{ID: "p"}}}))
	f.Add([]byte{recordVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s stagedRecord
		var c containerRecord
		_, _ = decodeJSON(b, &s), decodeJSON(b, &c)
		r, err := decodeBlob(b)
		if err != nil {
			return
		}
		again, err := decodeBlob(r.encode())
		if err != nil || again.Size != r.Size || len(again.Segments) != len(r.Segments) || string(again.inline) != string(r.inline) {
			t.Fatalf("%+v becomes %+v, %v", r, again, err)
		}
		total := int64(len(r.inline))
		for _, seg := range r.Segments {
			total += seg.Size
		}
		if total != r.Size {
			t.Fatalf("%d bytes in a blob of %d", total, r.Size)
		}
	})
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`<StorageServiceProperties><Cors><CorsRule><AllowedOrigins>*</AllowedOrigins><AllowedMethods>GET</AllowedMethods></CorsRule></Cors></StorageServiceProperties>`))
	f.Add([]byte(`<StorageServiceProperties><Logging><Version>1.0</Version><Delete>true</Delete></Logging></StorageServiceProperties>`))
	f.Add([]byte(`<SignedIdentifiers><SignedIdentifier><Id>a</Id><AccessPolicy><Start>2026-01-01</Start></AccessPolicy></SignedIdentifier></SignedIdentifiers>`))
	b := newBench(f)
	b.container("con")
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, target := range []string{"/?restype=service&comp=properties", "/con?restype=container&comp=acl"} {
			if a := b.do("PUT", target, string(doc)); a.status >= 500 {
				t.Fatalf("%s: %d %s", target, a.status, a.body)
			}
			if a := b.do("GET", target, ""); a.status != 200 {
				t.Fatalf("reading %s back: %d %s", target, a.status, a.body)
			}
		}
	})
}

func FuzzListRequest(f *testing.F) {
	f.Add("prefix=a%2F&delimiter=/&maxresults=1&include=metadata,,copy&marker=YS8")
	f.Add("delimiter=%00&marker=_w")
	b := newBench(f)
	c := b.container("con")
	for _, name := range []string{"a", "a/b", "a/b/c", "a/d", "b", "z%01"} {
		b.put(c+"/"+name, "").must(201)
	}
	f.Fuzz(func(t *testing.T, rawQuery string) {
		q, err := parseQuery(rawQuery)
		if err != nil {
			return
		}
		l, err := readListRequest(q)
		if err != nil {
			return
		}
		id := must2(b.getContainer(t.Context(), testAccount, "con")).ID
		for range 10 { // six blobs: any list ends
			items, next, err := b.listPage(t.Context(), id, l)
			if err != nil || len(items) > l.max {
				t.Fatal(len(items), err)
			}
			for _, item := range items {
				if !strings.HasPrefix(item.name, l.prefix) {
					t.Fatalf("%q is listed under %q", item.name, l.prefix)
				}
			}
			if next == "" {
				return
			}
			if next <= l.after {
				t.Fatalf("%q comes after %q", next, l.after)
			}
			l.after = next
		}
		t.Fatal("the list does not end")
	})
}

// FuzzRange asks for whatever comes as a range of a blob: what is given lies in
// it, and is what stands there.
func FuzzRange(f *testing.F) {
	for _, text := range []string{"bytes=0-", "bytes=2-3", "bytes=5-2", "bytes=9-", "bytes=-1", "bytes= 1-2", "bytes=0-99999999999999999999", "bytes=99999999999999999999-", "bytes=1-2,3-4", "items=0-1", ""} {
		f.Add(text, true, int64(5))
		f.Add(text, false, int64(0))
	}
	f.Fuzz(func(t *testing.T, text string, own bool, size int64) {
		if size < 0 {
			return
		}
		name := "Range"
		if own {
			name = "x-ms-range"
		}
		req := &request{Request: &http.Request{Header: http.Header{}}}
		req.Header.Set(name, text)
		p, err := req.readRange(size)
		if err != nil {
			return
		}
		if p.start < 0 || p.length < 0 || p.start > size || p.length > size-p.start || p.partial && p.length == 0 || !p.partial && p.length != size {
			t.Fatalf("%q of %d bytes is %+v", text, size, p)
		}
	})
}

// signedRequests are what FuzzSigned makes its requests of.
var signedRequests = []struct{ method, target, headers string }{
	{"PUT", "/con/x", "x-ms-blob-type BlockBlob"},
	{"PUT", "/con/x", "x-ms-blob-type AppendBlob"},
	{"PUT", "/con/x?comp=block&blockid=QUFB", ""},
	{"PUT", "/con/x?comp=blocklist", ""},
	{"PUT", "/con/log?comp=appendblock", ""},
	{"PUT", "/con/x?comp=metadata", ""},
	{"PUT", "/con/x?comp=properties", ""},
	{"PUT", "/con/x?comp=lease", "x-ms-lease-action acquire x-ms-lease-duration 15"},
	{"PUT", "/con/y", "x-ms-copy-source http://127.0.0.1:10000/devstoreaccount1/con/x"},
	{"GET", "/con/x", ""},
	{"HEAD", "/con/x", ""},
	{"DELETE", "/con/x", ""},
	{"GET", "/con/x?comp=blocklist", ""},
	{"PUT", "/con?restype=container", ""},
	{"PUT", "/con?restype=container&comp=lease", "x-ms-lease-action acquire x-ms-lease-duration -1"},
	{"GET", "/con?restype=container&comp=list", ""},
	{"GET", "/?comp=list", ""},
}

// FuzzSigned sends requests with a header, a parameter and a body of any kind,
// signed. None is the service's fault, each refusal has its code, what is given
// of a blob is what stands there, and afterwards the blob can be read as before.
func FuzzSigned(f *testing.F) {
	for i := range signedRequests {
		f.Add(uint8(i), "timeout=1", "x-ms-client-request-id", "a b", []byte("content"))
	}
	for _, h := range [][2]string{
		{"x-ms-range", "bytes=1-2"}, {"x-ms-meta-a", "v"}, {"If-None-Match", "*"}, {"If-Match", `"0x1",W/"2"`}, {"If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"},
		{"Content-MD5", "AAAA"}, {"x-ms-content-crc64", "AAAAAAAAAAA="}, {"x-ms-blob-condition-appendpos", "-1"}, {"x-ms-lease-id", "x"}, {"x-ms-version", "2009-09-19"},
		{"x-ms-proposed-lease-id", "01234567-89ab-cdef-0123-456789abcdef"}, {"x-ms-blob-content-length", "99999999999999999999"}, {"x-ms-date", "-"}, {"x-ms-copy-source", "http://x/%zz"},
		{"x-ms-lease-duration", "61"}, {"x-ms-lease-action", "break"}, {"x-ms-range-get-content-md5", "true"},
	} {
		for _, op := range []uint8{0, 4, 7, 8, 9} {
			f.Add(op, "", h[0], h[1], []byte(nil))
		}
	}
	f.Add(uint8(3), "", "", "", []byte(`<BlockList><Latest>QUFB</Latest></BlockList>`))
	f.Add(uint8(2), "blockid=%00", "", "", []byte("x"))
	f.Add(uint8(0), "comp=block&blockid=QUFB", "", "", []byte("x"))
	f.Add(uint8(15), "maxresults=1&marker=!&include=metadata,copy,x&delimiter=/", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, op uint8, query, name, value string, body []byte) {
		if len(body) > 1<<16 {
			return
		}
		b := newBench(t)
		b.container("con")
		const content = "what stands there"
		b.put("/con/x", content).must(201)
		b.do("PUT", "/con/log", "", "x-ms-blob-type", "AppendBlob").must(201)
		r := signedRequests[int(op)%len(signedRequests)]
		target := r.target
		if query != "" && !strings.ContainsAny(query, " \t\r\n#") {
			sep := "?"
			if strings.Contains(target, "?") {
				sep = "&"
			}
			target += sep + query
		}
		if _, err := http.NewRequest(r.method, "http://host"+target, nil); err != nil {
			return
		}
		headers := strings.Fields(r.headers)
		if name != "" && validHeader(name, value) {
			headers = append(headers, name, value)
		}
		a := b.do(r.method, target, string(body), headers...)
		if a.status >= 500 && a.status != 501 || a.status < 200 {
			t.Fatalf("%s %s: %d %s", r.method, target, a.status, a.body)
		}
		if a.status >= 400 && len(a.header["x-ms-error-code"]) != 1 {
			t.Fatalf("%s %s: %d without a code: %s", r.method, target, a.status, a.body)
		}
		if rng := a.header.Get("Content-Range"); r.method == "GET" && a.status == 206 {
			var start, end, size int64
			if _, err := fmt.Sscanf(rng, "bytes %d-%d/%d", &start, &end, &size); err != nil || size != int64(len(content)) || end < start || end >= size || a.body != content[start:end+1] {
				t.Fatalf("%s: %q", rng, a.body)
			}
		}
		if n := a.header.Get("Content-Length"); r.method == "GET" && n != "" && n != strconv.Itoa(len(a.body)) {
			t.Fatalf("%d bytes, and a length of %s", len(a.body), n)
		}
		if after := b.do("GET", "/con/x", ""); after.status != 200 && after.status != 404 || r.method == "GET" && after.body != content {
			t.Fatalf("%s %s: then the blob is %d %s", r.method, target, after.status, after.body)
		} else if r.method == "PUT" && a.status == 201 && r.target == "/con/x" && !asksFor(query, "comp") && !bytes.Equal([]byte(after.body), body) && a.header["x-ms-copy-id"] == nil {
			t.Fatalf("%q was put, and %q is there", body, after.body)
		}
	})
}

// asksFor tells whether a query has a parameter of the name: it may ask for something
// else than its path does, such as a block of a blob.
func asksFor(query, name string) bool {
	q, err := parseQuery(query)
	return err != nil || q.get(name) != ""
}

// validHeader tells whether HTTP can carry a header.
func validHeader(name, value string) bool {
	token := func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	return !strings.ContainsFunc(name, token) && !strings.ContainsFunc(value, control) && strings.TrimSpace(value) == value
}

func must2[A, B any](a A, _ B, err error) A {
	if err != nil {
		panic(err)
	}
	return a
}
