package blob

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// testClock is a clock that stands still until it is moved.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const testAccount = DevelopmentAccount

// bench is a service under test, with a client that signs.
type bench struct {
	*Service
	t     testing.TB
	meta  *memMeta
	dir   string
	clock *testClock
	http  *httptest.Server // started by serve
}

// newBench makes a service that sweeps only when told to.
func newBench(t testing.TB, change ...func(*Options)) *bench {
	t.Helper()
	b := &bench{t: t, meta: newMemMeta(), dir: t.TempDir(), clock: &testClock{now: time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)}}
	b.Service = b.newService(change...)
	t.Cleanup(func() { b.Close() })
	return b
}

func (b *bench) newService(change ...func(*Options)) *Service {
	b.t.Helper()
	o := Options{
		Meta: b.meta, Dir: b.dir, Now: b.clock.Now, SweepEvery: -1,
		Accounts: map[string][]string{testAccount: {DevelopmentKey}},
		Logger:   slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// restart closes the service and opens another one over the same state.
func (b *bench) restart() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.Service = b.newService()
}

// serve starts a server on a free port of loopback, for clients that need one.
func (b *bench) serve() string {
	b.t.Helper()
	b.http = httptest.NewServer(b.Service)
	b.t.Cleanup(b.http.Close)
	return strings.TrimPrefix(b.http.URL, "http://")
}

// answer is what a request got.
type answer struct {
	t      testing.TB
	what   string
	status int
	header http.Header
	body   string
}

// get returns a header under exactly this name, without canonicalising it.
func (a *answer) get(name string) string {
	if v := a.header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (a *answer) code() string { return a.get("x-ms-error-code") }

// want checks status and error code ("" for none).
func (a *answer) want(status int, code Code) *answer {
	a.t.Helper()
	if a.status != status || a.code() != string(code) {
		a.t.Errorf("%s: %d %s, want %d %s\n%s", a.what, a.status, a.code(), status, code, a.body)
	}
	return a
}

// must is want that ends the test.
func (a *answer) must(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: %d %s, want %d\n%s", a.what, a.status, a.code(), status, a.body)
	}
	return a
}

// request makes an unsigned request; headers come in pairs and
// replace the usual ones ("-" takes one away), target is the path
// and query after the account.
func (b *bench) request(method, target, body string, headers ...string) *http.Request {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, "/"+testAccount+target, r)
	req.Host = "127.0.0.1:10000"
	req.Header.Set("Content-Length", fmt.Sprint(len(body)))
	req.Header.Set("x-ms-version", "2024-08-04")
	req.Header.Set("x-ms-date", b.clock.Now().Format(http.TimeFormat))
	for i := 0; i < len(headers); i += 2 {
		if !slices.Contains(headers[:i], headers[i]) {
			req.Header.Del(headers[i]) // ours
		}
		if headers[i+1] != "-" {
			req.Header.Add(headers[i], headers[i+1])
		}
	}
	return req
}

// do signs and sends a request straight to the handler.
func (b *bench) do(method, target, body string, headers ...string) *answer {
	req := b.request(method, target, body, headers...)
	signTest(req, testAccount, DevelopmentKey)
	return b.send(req)
}

func (b *bench) send(req *http.Request) *answer {
	w := httptest.NewRecorder()
	b.ServeHTTP(w, req)
	return &answer{b.t, req.Method + " " + req.RequestURI, w.Code, w.Result().Header, w.Body.String()}
}

// signTest signs as the documentation of Shared Key says, written apart from the
// code under test.
func signTest(req *http.Request, account, key string) {
	req.Header.Set("Authorization", "SharedKey "+account+":"+macTest(key, stringToSignTest(req, account)))
}

func macTest(key, text string) string {
	k, _ := base64.StdEncoding.DecodeString(key)
	m := hmac.New(sha256.New, k)
	m.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

func stringToSignTest(req *http.Request, account string) string {
	var b bytes.Buffer
	b.WriteString(req.Method + "\n")
	for _, name := range []string{
		"Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date",
		"If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
	} {
		value := req.Header.Get(name)
		if name == "Content-Length" && value == "0" || name == "Date" && req.Header.Get("x-ms-date") != "" {
			value = ""
		}
		b.WriteString(value + "\n")
	}
	var names []string
	for name := range req.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-ms-") {
			names = append(names, lower)
		}
	}
	// en-US order: dashes weigh nothing, an underscore less than any letter.
	weight := func(s string) (w []int) {
		for _, c := range s {
			if at := strings.IndexRune("_0123456789abcdefghijklmnopqrstuvwxyz", c); at >= 0 {
				w = append(w, at)
			}
		}
		return w
	}
	sort.Slice(names, func(i, j int) bool {
		if c := slices.Compare(weight(names[i]), weight(names[j])); c != 0 {
			return c < 0
		}
		return names[i] < names[j]
	})
	for _, name := range names {
		fmt.Fprintf(&b, "%s:%s\n", name, strings.Join(req.Header.Values(name), ","))
	}
	path, query, _ := strings.Cut(req.RequestURI, "?")
	if req.RequestURI == "" {
		path, query = req.URL.EscapedPath(), req.URL.RawQuery
	}
	b.WriteString("/" + account + path)
	values, _ := url.ParseQuery(query)
	var params []string
	for name, v := range values {
		slices.Sort(v)
		params = append(params, "\n"+strings.ToLower(name)+":"+strings.Join(v, ","))
	}
	slices.Sort(params)
	b.WriteString(strings.Join(params, ""))
	return b.String()
}

// container makes a container and returns its path.
func (b *bench) container(name string) string {
	b.t.Helper()
	b.do("PUT", "/"+name+"?restype=container", "").must(201)
	return "/" + name
}

// put stores a block blob.
func (b *bench) put(target, body string, headers ...string) *answer {
	b.t.Helper()
	return b.do("PUT", target, body, append([]string{"x-ms-blob-type", "BlockBlob"}, headers...)...)
}

// files counts the files of content.
func (b *bench) files() int {
	b.t.Helper()
	n := 0
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// tidy runs what waits for the cleaner, and a sweep.
func (b *bench) tidy() {
	b.t.Helper()
	if err := b.sweep(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func decodeTest(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
