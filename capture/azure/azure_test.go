package azure_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	endpoint "github.com/millrace/millrace/blob"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/azure"
	"github.com/millrace/millrace/capture/capturetest"
	"github.com/millrace/millrace/store/segment"
)

const (
	account = endpoint.DevelopmentAccount
	key     = endpoint.DevelopmentKey
)

// serve starts our own Blob endpoint.
func serve(t *testing.T) (http.Handler, string) {
	t.Helper()
	dir := t.TempDir()
	st, err := segment.Open(context.Background(), segment.Options{Dir: filepath.Join(dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s, err := endpoint.New(endpoint.Options{
		Meta: st.Meta(), Dir: filepath.Join(dir, "blob"), Accounts: map[string][]string{account: {key}}, SweepEvery: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, h.URL + "/" + account
}

func open(t *testing.T, o azure.Options) *azure.Storage {
	t.Helper()
	s, err := azure.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inProcess answers requests without a network, as the broker does for its own
// endpoint.
type inProcess struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.Header = canonical(r.Header)
	in.RequestURI = r.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.Host = r.URL.Host
	in.Header.Set("Content-Length", fmt.Sprint(max(0, r.ContentLength)))
	w := httptest.NewRecorder()
	p.ServeHTTP(w, in)
	in.Body.Close()
	resp := w.Result()
	resp.Request, resp.Header = r, canonical(resp.Header)
	return resp, nil
}

// canonical is what a connection makes of headers: the SDK sets some in lower case.
func canonical(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		for _, v := range values {
			out.Add(name, v)
		}
	}
	return out
}

// sign makes a shared access signature of the account.
func sign(t *testing.T, at string, p sas.AccountPermissions) string {
	t.Helper()
	cred, err := service.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := service.NewClientWithSharedKeyCredential(at, cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := c.GetSASURL(sas.AccountResourceTypes{Service: true, Container: true, Object: true}, p, time.Now().Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, query, _ := strings.Cut(u, "?")
	return query
}

var allRights = sas.AccountPermissions{Read: true, Write: true, Create: true, List: true}

func TestConformance(t *testing.T) {
	handler, at := serve(t)
	_, host, _ := strings.Cut(at, "://")
	host, _, _ = strings.Cut(host, "/")
	query := sign(t, at, allRights)
	signed, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{key, signed.Get("sig")}
	ways := map[string]azure.Options{
		"key":        {ServiceURL: at, Account: account, Key: key},
		"signature":  {ServiceURL: at + "?" + query},
		"in process": {ServiceURL: "http://millrace.internal/" + account, Account: account, Key: key, Transport: inProcess{handler}},
	}
	if testing.Short() {
		delete(ways, "key")
		delete(ways, "signature")
	}
	for name, o := range ways {
		t.Run(name, func(t *testing.T) {
			o.CreateContainer, o.BlockSize = true, 256<<10
			capturetest.Run(t, capturetest.Destination{
				New: func(t *testing.T) capture.Destination {
					s := open(t, o)
					s.SetPageSize(7)
					return s
				},
				Metadata: true, ListsMetadata: true, Secrets: secrets, Piece: int(o.BlockSize),
			})
		})
	}
	for name, o := range map[string]azure.Options{
		"connection string":      {ConnectionString: endpoint.ConnectionString(account, key, host)},
		"signature":              {ServiceURL: at, SAS: "?" + query},
		"signature in a string":  {ConnectionString: "BlobEndpoint=" + at + ";SharedAccessSignature=" + query + ";"},
		"signature with a slash": {ServiceURL: at + "/?" + query},
	} {
		o.CreateContainer = true
		s := open(t, o)
		if err := s.Put(t.Context(), "data", name+"/a b.avro", file(t, 10)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := s.Stat(t.Context(), "data", name+"/a b.avro"); err != nil || got.Size != 10 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for name, x := range map[string]struct {
		o    azure.Options
		want string // of the URL, or in the error if it begins with an exclamation mark
	}{
		"nothing":         {azure.Options{}, "!is needed"},
		"account alone":   {azure.Options{Account: "acct"}, "!is needed"},
		"account":         {azure.Options{Account: "acct", Key: "c2VjcmV0"}, "https://acct.blob.core.windows.net/c/a/b.avro"},
		"account and SAS": {azure.Options{Account: "acct", SAS: "sv=1&sig=c2VjcmV0"}, "https://acct.blob.core.windows.net/c/a/b.avro"},
		"public":          {azure.Options{ServiceURL: "https://acct.blob.core.windows.net"}, "!is needed"},
		"two":             {azure.Options{ServiceURL: "https://h/?sig=c2VjcmV0", SAS: "sig=c2VjcmV0"}, "!one will do"},
		"two of others":   {azure.Options{ServiceURL: "https://h/?sig=c2VjcmV0", Account: "acct", Key: "c2VjcmV0"}, "!one will do"},
		"both ways":       {azure.Options{ConnectionString: "UseDevelopmentStorage=true", Account: "acct"}, "!one will do"},
		"key":             {azure.Options{Account: "acct", Key: "c2VjcmV0!"}, "!key"},
		"azurite":         {azure.Options{ConnectionString: "UseDevelopmentStorage=true;"}, "http://127.0.0.1:10000/devstoreaccount1/c/a/b.avro"},
		"string":          {azure.Options{ConnectionString: "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=c2VjcmV0;EndpointSuffix=core.example"}, "https://acct.blob.core.example/c/a/b.avro"},
		"SAS in a string": {azure.Options{ConnectionString: "BlobEndpoint=https://h:1/x;SharedAccessSignature=sv=1&sig=c2VjcmV0"}, "https://h:1/x/c/a/b.avro"},
		"no string":       {azure.Options{ConnectionString: "c2VjcmV0"}, "!connection string"},
		"half a string":   {azure.Options{ConnectionString: "AccountName=acct;Key=c2VjcmV0"}, "!AccountKey"},
		"no URL":          {azure.Options{ServiceURL: "c2VjcmV0", Account: "acct", Key: "c2VjcmV0"}, "!not one of HTTP"},
		"bad URL":         {azure.Options{ServiceURL: "https://h\x7f?sig=c2VjcmV0"}, "!azure: "},
		"block size":      {azure.Options{Account: "acct", Key: "c2VjcmV0", BlockSize: 5 << 30}, "!BlockSize"},
	} {
		s, err := azure.New(x.o)
		if want, refused := strings.CutPrefix(x.want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if u := s.URL("c", "a/b.avro"); u != x.want {
			t.Errorf("%s: %s", name, u)
		}
	}
}

func TestURL(t *testing.T) {
	s := open(t, azure.Options{Account: "acct", Key: "c2VjcmV0", Container: "default"})
	if u := s.URL("", "a b/%/ü?#.avro"); u != "https://acct.blob.core.windows.net/default/a%20b/%25/%C3%BC%3F%23.avro" {
		t.Error(u)
	}
}

func file(t *testing.T, size int) *capture.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "spool")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o640); err != nil {
		t.Fatal(err)
	}
	return &capture.File{Path: name, Size: int64(size), ContentType: "application/avro", Metadata: map[string]string{"firstseq": "7"}}
}

func TestContainers(t *testing.T) {
	_, at := serve(t)
	o := azure.Options{ServiceURL: at, Account: account, Key: key, BlockSize: 1000}
	s := open(t, o)
	if err := s.Put(t.Context(), "", "a.avro", file(t, 1)); err == nil || !strings.Contains(err.Error(), "container") {
		t.Errorf("without a container: %v", err)
	}
	for _, size := range []int{1, 3000} {
		err := s.Put(t.Context(), "missing", "a.avro", file(t, size))
		if e, ok := errors.AsType[*azure.Error](err); !ok || e.Status != 404 || e.Code != "ContainerNotFound" || e.ID == "" || errors.Is(err, capture.ErrMissing) {
			t.Errorf("in one that is missing: %v", err)
		}
	}
	o.Container, o.CreateContainer = "made", true
	s = open(t, o)
	for _, name := range []string{"a.avro", "b.avro"} {
		if err := s.Put(t.Context(), "", name, file(t, 3000)); err != nil {
			t.Error(err)
		}
	}
	if got, err := s.Stat(t.Context(), "made", "b.avro"); err != nil || got.Size != 3000 {
		t.Errorf("the default container: %+v, %v", got, err)
	}
}

// client is the SDK's, for what a destination does not do.
func client(t *testing.T, at string) *service.Client {
	t.Helper()
	cred, err := service.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := service.NewClientWithSharedKeyCredential(at, cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestForeign has blobs of other kinds in the container, and blocks that nobody put
// into one.
func TestForeign(t *testing.T) {
	_, at := serve(t)
	s := open(t, azure.Options{ServiceURL: at, Account: account, Key: key, CreateContainer: true, BlockSize: 1000})
	ctx := t.Context()
	if err := s.Put(ctx, "data", "large.avro", file(t, 2500)); err != nil {
		t.Fatal(err)
	}
	cc := client(t, at).NewContainerClient("data")
	p, err := cc.NewBlobClient("large.avro").GetProperties(ctx, nil)
	if err != nil || *p.ContentType != "application/avro" || *p.BlobType != blob.BlobTypeBlockBlob {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := cc.NewAppendBlobClient("append.avro").Create(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := cc.NewBlockBlobClient("staged.avro").StageBlock(ctx, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", streaming.NopCloser(strings.NewReader("x")), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := cc.NewBlockBlobClient("folder").Upload(ctx, streaming.NopCloser(strings.NewReader("")), &blockblob.UploadOptions{Metadata: map[string]*string{"hdi_isfolder": new("true")}}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for o, err := range s.List(ctx, "data", "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	if !slices.Equal(names, []string{"large.avro"}) {
		t.Errorf("listed %q", names)
	}
	if _, err := s.Stat(ctx, "data", "staged.avro"); !errors.Is(err, capture.ErrMissing) {
		t.Errorf("staged: %v", err)
	}
	for _, size := range []int{10, 2500} {
		if err := s.Put(ctx, "data", "append.avro", file(t, size)); !errors.Is(err, capture.ErrExists) {
			t.Errorf("over a blob of another type: %v", err)
		}
	}
	if err := s.Put(ctx, "data", "staged.avro", file(t, 2500)); err != nil {
		t.Errorf("where another staged: %v", err)
	}
	if o, err := s.Stat(ctx, "data", "staged.avro"); err != nil || o.Size != 2500 {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestSASThatMayNotReplace can make blobs and read them, but not write to one.
func TestSASThatMayNotReplace(t *testing.T) {
	_, at := serve(t)
	if _, err := client(t, at).CreateContainer(t.Context(), "data", nil); err != nil {
		t.Fatal(err)
	}
	s := open(t, azure.Options{ServiceURL: at, SAS: sign(t, at, sas.AccountPermissions{Create: true, Read: true}), BlockSize: 1000, CreateContainer: true})
	if err := s.Put(t.Context(), "data", "a.avro", file(t, 10)); err != nil {
		t.Error(err)
	}
	for _, size := range []int{10, 2500} {
		if err := s.Put(t.Context(), "data", "a.avro", file(t, size)); !errors.Is(err, capture.ErrExists) {
			t.Error(err)
		}
	}
	err := open(t, azure.Options{ServiceURL: at, SAS: sign(t, at, sas.AccountPermissions{Read: true})}).Put(t.Context(), "data", "x", file(t, 1))
	if e, ok := errors.AsType[*azure.Error](err); !ok || e.Status != 403 {
		t.Errorf("without the right: %v", err)
	}
}

// lossy loses the answer to a request, once.
type lossy struct {
	http.RoundTripper
	lose func(*http.Request) bool
	lost atomic.Int32
}

// RoundTrip implements http.RoundTripper.
func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil && l.lose(r) && l.lost.Add(1) == 1 {
		resp.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return resp, err
}

// TestLostAnswer has the answer to each request get lost, which the SDK repeats: the
// file is there, once, and that is what Put tells, in one way or the other.
func TestLostAnswer(t *testing.T) {
	_, at := serve(t)
	for i, lose := range []func(*http.Request) bool{
		func(r *http.Request) bool { return r.Method == http.MethodPut && r.URL.Query().Get("comp") == "" },
		func(r *http.Request) bool { return r.URL.Query().Get("comp") == "block" },
		func(r *http.Request) bool { return r.URL.Query().Get("comp") == "blocklist" },
		func(r *http.Request) bool { return r.URL.Query().Get("restype") == "container" },
		func(r *http.Request) bool { return r.Method == http.MethodHead },
	} {
		for _, size := range []int{10, 2500} {
			l := &lossy{RoundTripper: http.DefaultTransport, lose: lose}
			s := open(t, azure.Options{ServiceURL: at, Account: account, Key: key, CreateContainer: true, BlockSize: 1000, Transport: l})
			container := fmt.Sprintf("lost-%d-%d", i, size)
			if err := s.Put(t.Context(), container, "a.avro", file(t, size)); err != nil && !errors.Is(err, capture.ErrExists) {
				t.Errorf("%s: %v", container, err)
			}
			if o, err := s.Stat(t.Context(), container, "a.avro"); err != nil || o.Size != int64(size) || o.Metadata["firstseq"] != "7" {
				t.Errorf("%s: %+v, %v", container, o, err)
			}
		}
	}
}

// TestUnreachable has nobody, or somebody who says nothing, at the other end.
func TestUnreachable(t *testing.T) {
	silent := make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-silent:
		case <-r.Context().Done():
		}
	}))
	defer h.Close()
	defer close(silent)
	const secret = "sig=c2VjcmV0c2VjcmV0"
	for _, at := range []string{"http://127.0.0.1:1/acct", h.URL} {
		for _, o := range []azure.Options{{SAS: "sv=2020-01-01&" + secret}, {Account: "acct", Key: "c2VjcmV0c2VjcmV0"}} {
			o.ServiceURL, o.Timeout = at, 50*time.Millisecond
			s := open(t, o)
			_, stat := s.Stat(t.Context(), "c", "x")
			_, open := s.Open(t.Context(), "c", "x")
			errs := []error{s.Put(t.Context(), "c", "x", file(t, 1)), s.Put(t.Context(), "c", "x", file(t, 9<<20)), stat, open}
			for _, err := range s.List(t.Context(), "c", "") {
				errs = append(errs, err)
			}
			for i, err := range errs {
				if err == nil || errors.Is(err, capture.ErrMissing) || errors.Is(err, capture.ErrExists) || errors.Is(err, context.Canceled) {
					t.Errorf("%d: %v", i, err)
				} else if text := fmt.Sprintf("%v %#v", err, err); strings.Contains(text, "c2VjcmV0") || strings.Contains(text, "sig=") {
					t.Errorf("a secret is told: %s", text)
				}
			}
			t.Log(errs[0])
		}
	}
}

// TestOpenGoesOn breaks the connection while a file is read.
func TestOpenGoesOn(t *testing.T) {
	_, at := serve(t)
	s := open(t, azure.Options{ServiceURL: at, Account: account, Key: key, CreateContainer: true, Transport: &breaking{http.DefaultTransport, 0}})
	x := file(t, 5<<20)
	if err := s.Put(t.Context(), "data", "a.avro", x); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "data", "a.avro")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || len(got) != 5<<20 {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
}

// breaking breaks the first answer that is read, after a while.
type breaking struct {
	http.RoundTripper
	n int
}

// RoundTrip implements http.RoundTripper.
func (b *breaking) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil && r.Method == http.MethodGet {
		if b.n++; b.n == 1 {
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(resp.Body, 1<<20), errReader{}), resp.Body}
		}
	}
	return resp, err
}

type errReader struct{}

// Read implements io.Reader.
func (errReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestMemory puts a large file, nothing of which is kept.
func TestMemory(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(404)
			return
		}
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
	}))
	defer h.Close()
	s := open(t, azure.Options{ServiceURL: h.URL + "/acct", Account: "acct", Key: "c2VjcmV0"})
	x := file(t, 64<<20)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Put(t.Context(), "c", "a.avro", x); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
		t.Errorf("to put 64 MiB takes %d bytes of memory, the server's and those given back among them", n)
	} else {
		t.Logf("%d bytes", n)
	}
}
