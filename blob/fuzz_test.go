package blob

import (
	"net/http/httptest"
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

func must2[A, B any](a A, _ B, err error) A {
	if err != nil {
		panic(err)
	}
	return a
}
