package blob

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc64"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/store"
)

func TestPutAndGet(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	for _, size := range []int{0, 1, maxInline, maxInline + 1, 1 << 20} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		sum := md5.Sum([]byte(body))
		md5text := base64.StdEncoding.EncodeToString(sum[:])
		put := b.put(c+"/x", body, "Content-Type", "text/plain", "Cache-Control", "no-cache", "Content-Encoding", "identity",
			"Content-Language", "en", "x-ms-blob-content-disposition", "inline", "Content-MD5", md5text, "x-ms-meta-k", "v").want(201, "")
		if put.get("Content-MD5") != md5text {
			t.Errorf("%d bytes: Content-MD5 %q", size, put.get("Content-MD5"))
		}
		for _, method := range []string{"GET", "HEAD"} {
			a := b.do(method, c+"/x", "").want(200, "")
			for name, want := range map[string]string{
				"Content-Type": "text/plain", "Cache-Control": "no-cache", "Content-Encoding": "identity", "Content-Language": "en",
				"Content-Disposition": "inline", "Content-MD5": md5text, "x-ms-meta-k": "v", "x-ms-blob-type": "BlockBlob",
				"Content-Length": fmt.Sprint(size), "ETag": put.get("ETag"), "x-ms-lease-state": "available", "x-ms-lease-status": "unlocked",
				"x-ms-server-encrypted": "true", "Accept-Ranges": "bytes", "x-ms-creation-time": put.get("Last-Modified"),
			} {
				if a.get(name) != want {
					t.Errorf("%s of %d bytes: %s is %q, want %q", method, size, name, a.get(name), want)
				}
			}
			if method == "GET" && a.body != body {
				t.Errorf("%d bytes differ", size)
			}
		}
	}
	if n := b.files(); n != 1 {
		t.Errorf("replacing left %d files", n)
	}
	b.do("DELETE", c+"/x", "").want(202, "")
	if n := b.files(); n != 0 {
		t.Errorf("deleting left %d files", n)
	}
}

func TestRanges(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	whole := strings.Repeat("0123456789", 10_000)
	b.put(c+"/file", whole).must(201)
	b.put(c+"/small", whole[:100]).must(201)
	for _, path := range []string{"/file", "/small"} {
		size := 100
		if path == "/file" {
			size = len(whole)
		}
		for _, test := range []struct {
			headers    []string
			status     int
			start, end int // of what comes back
			code       Code
		}{
			{[]string{"Range", "bytes=0-"}, 206, 0, size, ""},
			{[]string{"Range", "bytes=10-19"}, 206, 10, 20, ""},
			{[]string{"Range", "bytes=99-33554431"}, 206, 99, size, ""},
			{[]string{"Range", "bytes=0-0"}, 206, 0, 1, ""},
			{[]string{"x-ms-range", "bytes=5-9", "Range", "bytes=0-1"}, 206, 5, 10, ""},
			{[]string{"Range", "bytes=-5"}, 200, 0, size, ""},
			{[]string{"Range", "bytes=1-2,4-5"}, 200, 0, size, ""},
			{[]string{"Range", "rows=1-2"}, 200, 0, size, ""},
			{[]string{"Range", "bytes=9-5"}, 200, 0, size, ""},
			{[]string{"Range", "bytes=0-99999999999999999999999"}, 206, 0, size, ""},
			{[]string{"x-ms-range", "bytes=-5"}, 400, 0, 0, codeInvalidHeader},
			{[]string{"x-ms-range", "bytes=9-5"}, 400, 0, 0, codeInvalidHeader},
			{[]string{"Range", "bytes=100000-"}, 416, 0, 0, codeInvalidRange},
			{[]string{"Range", "bytes=99999999999999999999999-"}, 416, 0, 0, codeInvalidRange},
		} {
			a := b.do("GET", c+path, "", test.headers...).want(test.status, test.code)
			if test.status >= 400 {
				continue
			}
			if a.body != whole[test.start:test.end] {
				t.Errorf("%s %v: %d bytes", path, test.headers, len(a.body))
			}
			if want := fmt.Sprintf("bytes %d-%d/%d", test.start, test.end-1, size); test.status == 206 && a.get("Content-Range") != want {
				t.Errorf("%s %v: Content-Range %q, want %q", path, test.headers, a.get("Content-Range"), want)
			}
			if (a.get("x-ms-blob-content-md5") != "") != (test.status == 206) || (a.get("Content-MD5") != "") != (test.status == 200) {
				t.Errorf("%s %v: MD5s in %v", path, test.headers, a.header)
			}
		}
	}
	a := b.do("GET", c+"/file", "", "Range", "bytes=3-7", "x-ms-range-get-content-md5", "true", "x-ms-range-get-content-crc64", "true").want(206, "")
	if sum := md5.Sum([]byte("34567")); a.get("Content-MD5") != md5Text(sum[:]) || a.get("x-ms-content-crc64") != crcText(crc64.Checksum([]byte("34567"), nvme)) {
		t.Errorf("checksums of a range: %v", a.header)
	}
	b.do("GET", c+"/file", "", "x-ms-range-get-content-md5", "true").want(400, codeInvalidHeader)
	b.put(c+"/big", strings.Repeat("x", maxIntoOne+1)).must(201)
	b.do("GET", c+"/big", "", "Range", "bytes=0-", "x-ms-range-get-content-md5", "true").want(400, codeOutOfRangeInput)
	b.do("HEAD", c+"/file", "", "Range", "bytes=3-7").want(200, "")
}

func TestChecksums(t *testing.T) {
	if got := crc64.Checksum([]byte("123456789"), nvme); got != 0xAE8B14860A799888 { // the catalogue's check value
		t.Errorf("CRC-64/NVME is %x", got)
	}
	b := newBench(t)
	c := b.container("con")
	good, bad := md5.Sum([]byte("abc")), md5.Sum([]byte("x"))
	goodCRC, badCRC := crcText(crc64.Checksum([]byte("abc"), nvme)), crcText(1)
	for _, target := range []string{c + "/x", c + "/x?comp=block&blockid=AAAA"} {
		for _, test := range []struct {
			header, value string
			code          Code
		}{
			{"Content-MD5", md5Text(good[:]), ""},
			{"Content-MD5", md5Text(bad[:]), codeMD5Mismatch},
			{"Content-MD5", "AAAA", codeInvalidMD5},
			{"Content-MD5", "?", codeInvalidMD5},
			{"x-ms-content-crc64", goodCRC, ""},
			{"x-ms-content-crc64", badCRC, codeCrcMismatch},
			{"x-ms-content-crc64", "AAAA", codeInvalidHeader},
		} {
			status := 400
			if test.code == "" {
				status = 201
			}
			a := b.do("PUT", target, "abc", "x-ms-blob-type", "BlockBlob", test.header, test.value).want(status, test.code)
			if status == 201 && a.get("x-ms-content-crc64") != goodCRC {
				t.Errorf("%s answers with CRC %q", target, a.get("x-ms-content-crc64"))
			}
		}
	}
	b.put(c+"/y", "abc", "x-ms-blob-content-md5", md5Text(bad[:])).want(400, codeMD5Mismatch)
	b.do("GET", c+"/y", "").want(404, BlobNotFound)
	b.tidy()
	if n := b.files(); n != 1 { // of the block
		t.Errorf("%d files", n)
	}
}

func TestBodies(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBodySize = 200_000 })
	c := b.container("con")
	raw := func(length int64, body string, headers ...string) *answer {
		req := b.request("PUT", c+"/x", body, append([]string{"x-ms-blob-type", "BlockBlob", "Content-Length", "-"}, headers...)...)
		if req.ContentLength = length; length > 0 {
			req.Header.Set("Content-Length", fmt.Sprint(length))
		}
		signTest(req, testAccount, DevelopmentKey)
		return b.send(req)
	}
	raw(0, "").want(411, codeMissingLength)
	raw(-1, "chunked").want(201, "") // accepted all the same
	raw(-1, strings.Repeat("x", 200_000)).want(201, "")
	raw(-1, strings.Repeat("x", 200_001)).want(413, codeTooLarge)
	raw(5, "abc").want(400, codeInvalidInput) // ends early
	raw(100_000, strings.Repeat("x", 99_999)).want(400, codeInvalidInput)
	b.put(c+"/x", strings.Repeat("x", 200_001)).want(413, codeTooLarge)
	if a := b.do("GET", c+"/x", ""); len(a.body) != 200_000 {
		t.Errorf("what was refused has changed the blob: %d bytes", len(a.body))
	}
	b.tidy()
	if n := b.files(); n != 1 {
		t.Errorf("%d files", n)
	}
}

func TestSetProperties(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	first := b.put(c+"/x", "abc", "Content-Type", "text/plain", "x-ms-meta-k", "v").must(201)
	b.do("PUT", c+"/x?comp=properties", "", "x-ms-blob-content-type", "text/css", "x-ms-blob-cache-control", "no-store").want(200, "")
	a := b.do("HEAD", c+"/x", "").must(200)
	if a.get("Content-Type") != "text/css" || a.get("Cache-Control") != "no-store" || a.get("x-ms-meta-k") != "v" ||
		a.get("Content-MD5") != "" || a.get("ETag") == first.get("ETag") {
		t.Errorf("after setting: %v", a.header)
	}
	b.do("PUT", c+"/x?comp=properties", "").want(200, "")
	if a = b.do("GET", c+"/x", "").must(200); a.get("Content-Type") != "application/octet-stream" || a.get("Cache-Control") != "" || a.body != "abc" {
		t.Errorf("after clearing: %v", a.header)
	}
	b.do("PUT", c+"/none?comp=properties", "").want(404, BlobNotFound)
}

func TestDates(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.clock.move(700 * time.Millisecond) // clients see whole seconds
	modified := b.put(c+"/x", "abc").must(201).get("Last-Modified")
	before := b.clock.Now().Add(-time.Minute).Format(http.TimeFormat)
	for _, test := range []struct {
		method, target, header, value string
		status                        int
	}{
		{"GET", "/x", "If-Modified-Since", modified, 304},
		{"GET", "/x", "If-Modified-Since", before, 200},
		{"GET", "/x", "If-Unmodified-Since", modified, 200},
		{"GET", "/x", "If-Unmodified-Since", before, 412},
		{"HEAD", "/x", "If-Modified-Since", modified, 304},
		{"PUT", "/x?comp=metadata", "If-Modified-Since", modified, 412},
		{"PUT", "/x?comp=metadata", "If-Unmodified-Since", before, 412},
		{"PUT", "/x?comp=metadata", "If-Unmodified-Since", modified, 200},
		{"DELETE", "/x", "If-Unmodified-Since", before, 412},
	} {
		if a := b.do(test.method, c+test.target, "", test.header, test.value); a.status != test.status {
			t.Errorf("%s %s, %s: %d, want %d", test.method, test.target, test.header, a.status, test.status)
		}
	}
	b.do("GET", c+"/x", "", "If-None-Match", `"0x0", *`).want(304, ConditionNotMet)
	b.do("GET", c+"/x", "", "If-Match", `*`).want(200, "")
	b.put(c+"/x", "d", "If-Match", "*").want(201, "")
}

func TestContainers(t *testing.T) {
	b := newBench(t)
	create := b.do("PUT", "/con?restype=container", "", "x-ms-meta-k", "v").want(201, "")
	b.do("PUT", "/con?restype=container", "").want(409, codeContainerExists)
	for _, method := range []string{"GET", "HEAD"} {
		a := b.do(method, "/con?restype=container", "").want(200, "")
		if a.get("ETag") != create.get("ETag") || a.get("Last-Modified") == "" || a.get("x-ms-lease-state") != "available" || a.get("x-ms-meta-k") != "v" {
			t.Errorf("%s: %v", method, a.header)
		}
	}
	b.do("GET", "/other?restype=container", "").want(404, ContainerNotFound)
	a := b.do("PUT", "/con?restype=container&comp=metadata", "", "x-ms-meta-z", "1").want(200, "")
	if a.get("ETag") == create.get("ETag") {
		t.Error("the ETag has not changed")
	}
	if a = b.do("GET", "/con?restype=container&comp=metadata", "").must(200); a.get("x-ms-meta-z") != "1" || a.get("x-ms-meta-k") != "" {
		t.Errorf("metadata: %v", a.header)
	}
	b.put("/con/x", strings.Repeat("x", maxInline+1)).must(201)
	b.do("PUT", "/con/y?comp=block&blockid=AAAA", "abc").must(201)
	b.do("DELETE", "/con?restype=container", "", "If-Unmodified-Since", b.clock.Now().Add(-time.Hour).Format(http.TimeFormat)).want(412, ConditionNotMet)
	b.do("DELETE", "/con?restype=container", "").want(202, "")
	b.do("GET", "/con/x", "").want(404, ContainerNotFound)
	b.do("PUT", "/con?restype=container", "").want(201, "")
	b.do("GET", "/con/x", "").want(404, BlobNotFound)
	b.do("GET", "/con/y?comp=blocklist&blocklisttype=all", "").want(404, BlobNotFound)
	b.tidy()
	b.tidy()
	if n := b.files(); n != 0 || len(b.meta.keys("blob/b/"))+len(b.meta.keys("blob/u/")) != 0 {
		t.Errorf("left over: %d files, %q", n, b.meta.keys("blob/"))
	}
}

func TestCopy(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	const here = "http://127.0.0.1:10000/devstoreaccount1/con/"
	body := strings.Repeat("x", maxInline+1)
	source := b.put(c+"/a%20b", body, "Content-Type", "text/plain", "x-ms-meta-k", "v").must(201)
	b.put(c+"/small", "abc", "x-ms-meta-k", "v").must(201)
	b.clock.move(time.Minute)
	a := b.do("PUT", c+"/to", "", "x-ms-copy-source", here+"a%20b").want(202, "")
	if a.get("x-ms-copy-status") != "success" || len(a.get("x-ms-copy-id")) != 36 || a.get("ETag") == source.get("ETag") {
		t.Errorf("copy answers %v", a.header)
	}
	b.do("DELETE", c+"/a%20b", "").must(202)
	got := b.do("GET", c+"/to", "").must(200)
	if got.body != body || got.get("Content-Type") != "text/plain" || got.get("x-ms-meta-k") != "v" || got.get("x-ms-copy-source") != here+"a%20b" ||
		got.get("x-ms-copy-progress") != "65537/65537" || got.get("Content-MD5") == "" {
		t.Errorf("the copy: %d bytes, %v", len(got.body), got.header)
	}
	list := b.do("GET", c+"?restype=container&comp=list&include=copy", "").must(200)
	if !strings.Contains(list.body, "<CopyStatus>success</CopyStatus>") {
		t.Errorf("list: %s", list.body)
	}
	b.do("PUT", c+"/small2", "", "x-ms-copy-source", "http://localhost:10000/devstoreaccount1/con/small", "x-ms-meta-other", "1").want(202, "")
	if a = b.do("GET", c+"/small2", "").must(200); a.body != "abc" || a.get("x-ms-meta-k") != "" || a.get("x-ms-meta-other") != "1" {
		t.Errorf("small copy: %v", a.header)
	}
	b.do("PUT", c+"/url", "", "x-ms-copy-source", here+"small", "x-ms-blob-type", "BlockBlob", "x-ms-blob-content-type", "a/b").want(201, "")
	if a = b.do("GET", c+"/url", "").must(200); a.body != "abc" || a.get("Content-Type") != "a/b" {
		t.Errorf("from URL: %v", a.header)
	}
	// Onto itself.
	b.do("PUT", c+"/to", "", "x-ms-copy-source", here+"to").want(202, "")
	if a = b.do("GET", c+"/to", "").must(200); a.body != body {
		t.Error("a copy onto itself")
	}
	for _, test := range []struct {
		headers []string
		status  int
		code    Code
	}{
		{[]string{"x-ms-copy-source", here + "none"}, 404, BlobNotFound},
		{[]string{"x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/none/x"}, 404, ContainerNotFound},
		{[]string{"x-ms-copy-source", here + "to?snapshot=1"}, 404, BlobNotFound},
		{[]string{"x-ms-copy-source", "not a url"}, 400, codeInvalidHeader},
		{[]string{"x-ms-copy-source", here + "to?%zz"}, 400, codeInvalidHeader},
		{[]string{"x-ms-copy-source", here + "to", "x-ms-source-if-match", `"0x0"`}, 412, codeSourceCondition},
		{[]string{"x-ms-copy-source", here + "to", "x-ms-source-if-none-match", "*"}, 412, codeSourceCondition},
		{[]string{"x-ms-copy-source", here + "to", "If-Match", `"0x0"`}, 412, ConditionNotMet},
		{[]string{"x-ms-copy-source", here + "to", "x-ms-blob-type", "PageBlob"}, 501, codeNotImplemented},
	} {
		a := b.do("PUT", c+"/new", "", test.headers...)
		if test.code == codeInvalidHeader && a.code() == string(codeInvalidURI) {
			continue // either is fine for what can't be decoded
		}
		a.want(test.status, test.code)
	}
	// Put Block From URL.
	fromURL := func(headers ...string) *answer {
		return b.do("PUT", c+"/blocks?comp=block&blockid=AAAA", "", append(headers, "x-ms-copy-source", here+"small")...)
	}
	for _, test := range []struct {
		headers []string
		status  int
		code    Code
	}{
		{[]string{"x-ms-source-range", "bytes=1-1", "x-ms-source-content-crc64", crcText(crc64.Checksum([]byte("b"), nvme))}, 201, ""},
		{[]string{"x-ms-source-range", "bytes=1-1", "x-ms-source-content-crc64", crcText(1)}, 400, codeCrcMismatch},
		{[]string{"x-ms-source-range", "bytes=3-"}, 416, codeInvalidRange},
		{[]string{"x-ms-source-range", "x"}, 400, codeInvalidHeader},
		{[]string{"x-ms-source-if-match", `"0x0"`}, 412, codeSourceCondition},
	} {
		fromURL(test.headers...).want(test.status, test.code)
	}
	b.do("PUT", c+"/blocks?comp=blocklist", "<BlockList><Latest>AAAA</Latest></BlockList>").want(201, "")
	fromURL().want(201, "")
	b.do("PUT", c+"/blocks?comp=blocklist", "<BlockList><Committed>AAAA</Committed><Uncommitted>AAAA</Uncommitted></BlockList>").want(201, "")
	if a = b.do("GET", c+"/blocks", "").must(200); a.body != "babc" {
		t.Errorf("blocks from a URL: %q", a.body)
	}
	b.do("DELETE", c+"/blocks", "").must(202)
	b.do("PUT", c+"/to?comp=copy&copyid=x", "").want(409, codeNoPendingCopy)
	b.do("PUT", c+"/none?comp=copy&copyid=x", "").want(404, BlobNotFound)
	b.tidy()
	if n := b.files(); n != 1 {
		t.Errorf("%d files", n)
	}
}

func TestAppend(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.do("PUT", c+"/log", "", "x-ms-blob-type", "AppendBlob", "x-ms-meta-k", "v").want(201, "")
	b.do("PUT", c+"/log2", "x", "x-ms-blob-type", "AppendBlob").want(400, codeInvalidHeader)
	var want bytes.Buffer
	for i, size := range []int{1, 100, maxInline - 101, 1, 10, 70_000, 5, maxInline, 3} {
		part := strings.Repeat(string(rune('a'+i)), size)
		a := b.do("PUT", c+"/log?comp=appendblock", part, "x-ms-blob-condition-appendpos", fmt.Sprint(want.Len())).want(201, "")
		if a.get("x-ms-blob-append-offset") != fmt.Sprint(want.Len()) || a.get("x-ms-blob-committed-block-count") != fmt.Sprint(i+1) {
			t.Errorf("append %d: %v", i, a.header)
		}
		want.WriteString(part)
		if got := b.do("GET", c+"/log", "").must(200); got.body != want.String() || got.get("x-ms-blob-type") != "AppendBlob" || got.get("x-ms-meta-k") != "v" {
			t.Fatalf("after append %d: %d bytes, want %d", i, len(got.body), want.Len())
		}
	}
	for _, test := range []struct {
		target, body string
		headers      []string
		status       int
		code         Code
	}{
		{"/log", "x", []string{"x-ms-blob-condition-appendpos", "1"}, 412, codeAppendPosition},
		{"/log", "x", []string{"x-ms-blob-condition-maxsize", "10"}, 412, codeMaxSizeCondition},
		{"/log", "x", []string{"x-ms-blob-condition-maxsize", "-1"}, 400, codeInvalidHeader},
		{"/log", "", nil, 400, codeInvalidHeader},
		{"/log", "x", []string{"If-Match", `"0x0"`}, 412, ConditionNotMet},
		{"/none", "x", nil, 404, BlobNotFound},
		{"/block", "x", nil, 409, codeInvalidBlobType},
	} {
		b.put(c+"/block", "abc")
		b.do("PUT", c+test.target+"?comp=appendblock", test.body, test.headers...).want(test.status, test.code)
	}
	b.do("PUT", c+"/log?comp=block&blockid=AAAA", "x").want(409, codeInvalidBlobType)
	b.do("PUT", c+"/log?comp=blocklist", "<BlockList/>").want(409, codeInvalidBlobType)
	b.do("GET", c+"/log?comp=blocklist", "").want(409, codeInvalidBlobType)
	b.restart()
	if got := b.do("GET", c+"/log", "").must(200); got.body != want.String() {
		t.Error("after a restart the log differs")
	}
	before := b.files()
	b.tidy()
	if after := b.files(); after != before || after > 4 {
		t.Errorf("%d files, then %d", before, after)
	}
}

func TestCORS(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", "abc").must(201)
	preflight := func(origin, method, headers string) *answer {
		req := b.request("OPTIONS", c+"/x", "", "Origin", origin, "Access-Control-Request-Method", method, "Access-Control-Request-Headers", headers)
		return b.send(req) // unsigned, as browsers do
	}
	preflight("http://page.example", "GET", "").want(403, codeCorsFailure)
	doc := `<StorageServiceProperties><Cors><CorsRule><AllowedOrigins>http://page.example,http://*.example.net</AllowedOrigins>` +
		`<AllowedMethods>GET,PUT</AllowedMethods><MaxAgeInSeconds>60</MaxAgeInSeconds><ExposedHeaders>x-ms-*</ExposedHeaders>` +
		`<AllowedHeaders>x-ms-*,range</AllowedHeaders></CorsRule></Cors></StorageServiceProperties>`
	b.do("PUT", "/?restype=service&comp=properties", doc).want(202, "")
	a := preflight("http://page.example", "GET", "x-ms-date, Range").want(200, "")
	if a.get("Access-Control-Allow-Origin") != "http://page.example" || a.get("Access-Control-Max-Age") != "60" || a.get("Access-Control-Allow-Headers") != "x-ms-date, Range" {
		t.Errorf("preflight: %v", a.header)
	}
	preflight("http://a.example.net", "PUT", "").want(200, "")
	preflight("http://a.example.com", "PUT", "").want(403, codeCorsFailure)
	preflight("http://page.example", "DELETE", "").want(403, codeCorsFailure)
	preflight("http://page.example", "GET", "authorization").want(403, codeCorsFailure)
	preflight("", "GET", "").want(400, codeMissingHeader)
	if a = b.do("GET", c+"/x", "", "Origin", "http://page.example").want(200, ""); a.get("Access-Control-Allow-Origin") == "" || a.get("Vary") != "Origin" {
		t.Errorf("a request from a page: %v", a.header)
	}
	if a = b.do("GET", c+"/x", "", "Origin", "http://other").want(200, ""); a.get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a request from elsewhere: %v", a.header)
	}
	// What is left out stays; what is empty is cleared.
	b.do("PUT", "/?restype=service&comp=properties", `<StorageServiceProperties><DefaultServiceVersion>2020-10-02</DefaultServiceVersion></StorageServiceProperties>`).want(202, "")
	preflight("http://page.example", "GET", "").want(200, "")
	b.do("PUT", "/?restype=service&comp=properties", `<StorageServiceProperties><Cors/></StorageServiceProperties>`).want(202, "")
	preflight("http://page.example", "GET", "").want(403, codeCorsFailure)
	if a = b.do("GET", "/?restype=service&comp=properties", "").must(200); !strings.Contains(a.body, "<DefaultServiceVersion>2020-10-02</DefaultServiceVersion>") {
		t.Errorf("properties: %s", a.body)
	}
	for _, bad := range []string{"", "<x/>", "<StorageServiceProperties><Cors><CorsRule/></Cors></StorageServiceProperties>",
		"<StorageServiceProperties><Cors>" + strings.Repeat("<CorsRule><AllowedOrigins>*</AllowedOrigins><AllowedMethods>GET</AllowedMethods></CorsRule>", 6) + "</Cors></StorageServiceProperties>"} {
		b.do("PUT", "/?restype=service&comp=properties", bad).want(400, codeInvalidXML)
	}
}

func TestAccountAndStats(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", "abc").must(201)
	for _, target := range []string{"/?", c + "?", c + "/x?"} {
		for _, method := range []string{"GET", "HEAD"} {
			if a := b.do(method, target+"restype=account&comp=properties", "").want(200, ""); a.get("x-ms-account-kind") != "StorageV2" || a.get("x-ms-is-hns-enabled") != "false" {
				t.Errorf("%s: %v", target, a.header)
			}
		}
	}
	if a := b.do("GET", "/?restype=service&comp=stats", "").want(200, ""); !strings.Contains(a.body, "<Status>live</Status>") {
		t.Errorf("stats: %s", a.body)
	}
}

func TestCopyWithoutHardLinks(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	body := strings.Repeat("x", 3*maxInline)
	b.put(c+"/x", body).must(201)
	b.Service.files.second = func(string, string) error { return errors.ErrUnsupported }
	b.do("PUT", c+"/y", "", "x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/x").want(202, "")
	b.do("DELETE", c+"/x", "").must(202)
	b.tidy()
	if a := b.do("GET", c+"/y", ""); a.body != body || b.files() != 1 {
		t.Errorf("the copy has %d bytes, in %d files", len(a.body), b.files())
	}
}

func TestSameServer(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"h:1", "H:1", true}, {"h:1", "h:2", false}, {"h", "h:80", false}, {"localhost:1", "127.0.0.1:1", true}, {"[::1]:1", "127.0.0.2:1", true},
		{"localhost:1", "h:1", false}, {"a.h.x:1", "b.h.x:1", true}, {"a.h.x", "a.g.x", false}, {"10.0.0.1:1", "11.0.0.1:1", false},
	} {
		if got := sameServer(test.a, test.b); got != test.want {
			t.Errorf("%s and %s: %v", test.a, test.b, got)
		}
	}
}

func TestContention(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", "").must(201)
	tries := 0
	b.meta.beforePut = func(key string) error { tries++; return &store.ConflictError{Key: key} }
	b.do("PUT", c+"/x?comp=metadata", "").want(503, ServerBusy)
	b.do("PUT", c+"?restype=container&comp=metadata", "").want(503, ServerBusy)
	b.do("PUT", "/?restype=service&comp=properties", "<StorageServiceProperties/>").want(503, ServerBusy)
	if tries != 3*maxAttempts {
		t.Errorf("tried %d times", tries)
	}
	// A writer that waits for its turn leaves when its client does.
	b.meta.beforePut = nil
	done, err := b.turns.take(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.turns.take(gone, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a turn: %v", err)
	}
	if done(); len(b.turns.keys) != 0 {
		t.Errorf("%d turns are left", len(b.turns.keys))
	}
}

func TestLog(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	c := b.container("con")
	b.do("GET", c+"/x?sig=SECRET", "")
	if log.Len() != 0 {
		t.Errorf("a client's error is logged as ours: %s", log.String())
	}
	b.meta.beforePut = func(string) error { return errors.New("disk on fire") }
	b.put(c+"/x?sig=SECRET", "")
	if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "disk on fire") || strings.Contains(text, "SECRET") {
		t.Errorf("a failure is logged as %s", text)
	}
}
