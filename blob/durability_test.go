package blob

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/store"
)

// fullDisk is a file on a disk that has room for so many bytes.
type fullDisk struct {
	writeFile
	room int
	sync error
}

func (f *fullDisk) Write(p []byte) (int, error) {
	if len(p) > f.room {
		n, _ := f.writeFile.Write(p[:f.room])
		f.room = 0
		return n, &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	f.room -= len(p)
	return f.writeFile.Write(p)
}

func (f *fullDisk) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.writeFile.Sync()
}

func TestDiskFull(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", "before").must(201)
	b.do("PUT", c+"/log", "", "x-ms-blob-type", "AppendBlob").must(201)
	big := strings.Repeat("x", 3*maxInline)
	real := b.Service.files.create
	for name, disk := range map[string]fullDisk{
		"no room":     {room: 0},
		"some room":   {room: maxInline + 5},
		"sync fails":  {room: 1 << 30, sync: errors.New("I/O error")},
		"sync, space": {room: 1 << 30, sync: &os.PathError{Op: "sync", Err: syscall.ENOSPC}},
	} {
		b.Service.files.create = func(path string) (writeFile, error) {
			f, err := real(path)
			d := disk
			d.writeFile = f
			return &d, err
		}
		for _, a := range []*answer{
			b.put(c+"/x", big), b.stage(c+"/x", 1, "small"), b.do("PUT", c+"/log?comp=appendblock", big),
		} {
			if name == "some room" && a.status == 201 {
				continue // the small one fits
			}
			if name == "sync fails" {
				a.want(500, codeInternal)
			} else if a.want(503, ServerBusy); a.get("Retry-After") != "1" {
				t.Errorf("%s: no Retry-After", name)
			}
		}
		if a := b.do("GET", c+"/x", ""); a.body != "before" {
			t.Errorf("%s: the blob has changed to %d bytes", name, len(a.body))
		}
		b.put(c+"/inline", "small blobs need no file").want(201, "")
	}
	b.Service.files.create = real
	if left, _ := os.ReadDir(filepath.Join(b.dir, "tmp")); len(left) != 0 {
		t.Errorf("%d half-written files are left", len(left))
	}
	b.put(c+"/x", big).want(201, "")
	b.meta.beforePut = func(string) error { return fmt.Errorf("bolt: %w", store.ErrFull) }
	b.put(c+"/x", "y").want(503, ServerBusy)
	b.put(c+"/new", big).want(503, ServerBusy)
	b.do("PUT", "/con2?restype=container", "").want(503, ServerBusy)
	b.meta.beforePut = nil
	if n := b.files(); n > 2 {
		t.Errorf("%d files", n)
	}
}

// A Put of a record that fails in an unknown way may have happened, so its file
// must outlive it until the next start finds out.
func TestUnknownOutcome(t *testing.T) {
	big := strings.Repeat("x", 3*maxInline)
	for _, stored := range []bool{false, true} {
		b := newBench(t)
		c := b.container("con")
		b.put(c+"/source", strings.Repeat("s", 2*maxInline)).must(201)
		b.stage(c+"/blocks", 1, "block").must(201)
		b.do("PUT", c+"/log", "", "x-ms-blob-type", "AppendBlob").must(201)
		files := b.files()
		if stored {
			b.meta.lie = store.ErrUnknown
		} else {
			b.meta.beforePut = func(string) error { return store.ErrUnknown }
		}
		for _, a := range []*answer{
			b.put(c+"/put", big),
			b.commit(c+"/blocks", []string{"L1"}),
			b.do("PUT", c+"/copy", "", "x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/source"),
			b.do("PUT", c+"/log?comp=appendblock", big),
			b.stage(c+"/more", 1, "m"),
		} {
			a.want(500, codeInternal)
		}
		b.tidy() // must not take what may be in use
		b.meta.lie, b.meta.beforePut = nil, nil
		b.restart()
		b.tidy()
		for path, want := range map[string]string{
			"/put": big, "/blocks": "block", "/copy": strings.Repeat("s", 2*maxInline), "/log": big,
		} {
			a := b.do("GET", c+path, "")
			if stored && a.body != want {
				t.Errorf("%s was stored and has %d %d bytes", path, a.status, len(a.body))
			}
			if !stored && a.status == 200 && a.body != "" {
				t.Errorf("%s was not stored and has %d bytes", path, len(a.body))
			}
		}
		if b.commit(c+"/more", []string{"L1"}); !stored && b.files() != files {
			t.Errorf("%d files, want %d", b.files(), files)
		}
	}
}

func TestSweepKeepsWhatIsComing(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	big := strings.Repeat("x", 2*maxInline)
	// A sweep in the moment between the file and its record, of each kind.
	sweeps := 0
	b.meta.beforePut = func(key string) error {
		if strings.HasPrefix(key, "blob/b/") || strings.HasPrefix(key, "blob/u/") {
			sweeps++
			return b.sweep(t.Context())
		}
		return nil
	}
	b.put(c+"/x", big).want(201, "")
	b.stage(c+"/y", 1, "one").want(201, "")
	b.commit(c+"/y", []string{"L1"}).want(201, "")
	b.do("PUT", c+"/z", "", "x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/x").want(202, "")
	// A block that expires while it is being committed is still whole.
	b.stage(c+"/w", 1, "late").want(201, "")
	b.meta.beforePut = func(key string) error {
		if strings.HasPrefix(key, "blob/b/") {
			b.clock.move(8 * 24 * time.Hour)
			return errors.Join(b.sweep(t.Context()), b.sweep(t.Context()))
		}
		return nil
	}
	b.commit(c+"/w", []string{"L1"}).want(201, "")
	b.meta.beforePut = nil
	b.tidy()
	for path, want := range map[string]string{"/x": big, "/y": "one", "/z": big, "/w": "late"} {
		if a := b.do("GET", c+path, ""); a.body != want {
			t.Errorf("%s: %d, %d bytes", path, a.status, len(a.body))
		}
	}
	if sweeps < 4 {
		t.Errorf("%d sweeps", sweeps)
	}
}

func TestSweepRemovesLeftovers(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", strings.Repeat("x", 2*maxInline)).must(201)
	// What a kill may leave behind: a file without a record, and half of one.
	orphan := newFileID()
	if err := os.MkdirAll(filepath.Join(b.dir, orphan[:2]), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(b.dir, orphan[:2], orphan), filepath.Join(b.dir, "tmp", newFileID())} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b.files() != 3 {
		t.Fatalf("%d files", b.files())
	}
	b.restart()
	b.tidy()
	if b.files() != 1 {
		t.Errorf("%d files are left", b.files())
	}
	// A record that can't be read may refer to anything: nothing is removed.
	if _, err := b.meta.Put(t.Context(), "blob/b/x/y", []byte{9}, 0); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(b.dir, orphan[:2], orphan), []byte("x"), 0o600)
	if err := b.sweep(t.Context()); !errors.Is(err, errBadRecord) || b.files() != 2 {
		t.Errorf("sweeping over a damaged record: %v, %d files", err, b.files())
	}
}

func TestReadersKeepTheirFiles(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	old := strings.Repeat("old", maxInline)
	b.put(c+"/x", old).must(201)
	r, item, err := b.Open(t.Context(), testAccount, "con", "x")
	if err != nil || item.Size != int64(len(old)) {
		t.Fatal(item, err)
	}
	b.put(c+"/x", strings.Repeat("new", maxInline)).must(201)
	b.tidy()
	if n := b.files(); n != 2 {
		t.Errorf("%d files while one is being read", n)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != old {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	r.Close()
	r.Close()
	if _, err := r.Read(nil); err == nil {
		t.Error("reading after Close")
	}
	if n := b.files(); n != 1 {
		t.Errorf("%d files afterwards", n)
	}
}

func TestDamage(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	b.put(c+"/x", strings.Repeat("x", 2*maxInline)).must(201)
	b.put(c+"/y", "y").must(201)
	for _, dir := range must(filepath.Glob(filepath.Join(b.dir, "??"))) {
		os.RemoveAll(dir)
	}
	b.do("GET", c+"/x", "").want(500, codeInternal)
	b.do("PUT", c+"/z", "", "x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/x").want(500, codeInternal)
	for _, key := range b.meta.keys("blob/b/") {
		if strings.HasSuffix(key, "/y") {
			b.meta.Put(t.Context(), key, []byte{recordVersion, 200, 1, '{'}, store.AnyVersion)
		}
	}
	b.do("GET", c+"/y", "").want(500, codeInternal)
	b.do("GET", c+"?restype=container&comp=list", "").want(500, codeInternal)
	b.meta.Put(t.Context(), containerKey(testAccount, "con"), []byte("x"), store.AnyVersion)
	b.do("GET", c+"/x", "").want(500, codeInternal)
	b.do("GET", "/?comp=list", "").want(500, codeInternal)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// pipes is a listener whose connections are in memory, so that a real server
// runs in a bubble of virtual time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestBodyThatNeverArrives(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, meta: newMemMeta(), dir: dir, clock: &testClock{}}
		b.Service = b.newService(func(o *Options) { o.Now = time.Now })
		b.clock.now = time.Now()
		c := b.container("con")
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: b.Service}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		client, far := net.Pipe()
		l.conns <- far

		req := b.request("PUT", c+"/x", "", "x-ms-blob-type", "BlockBlob", "Content-Length", "10")
		signTest(req, testAccount, DevelopmentKey)
		var head strings.Builder
		fmt.Fprintf(&head, "PUT %s HTTP/1.1\r\nHost: h\r\n", req.RequestURI)
		req.Header.Write(&head)
		began := time.Now()
		io.WriteString(client, head.String()+"\r\nabc")
		answer := make([]byte, 4096)
		n, err := client.Read(answer)
		if err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 500 ") || !strings.Contains(string(answer[:n]), "OperationTimedOut") {
			t.Errorf("answer %q, %v", answer[:n], err)
		}
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("gave up after %v", waited)
		}
		client.Close()
		server.Close()
		<-served
		b.Close()
	})
}

func TestCleanerRunsAndStops(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, meta: newMemMeta(), dir: dir, clock: &testClock{now: time.Now()}}
		b.Service = b.newService(func(o *Options) { o.Now, o.SweepEvery = time.Now, 0 })
		b.clock.now = time.Now()
		x := b.container("con") + "/x"
		b.stage(x, 1, "one").must(201)
		b.stage(x, 2, "two").must(201)
		b.commit(x, []string{"L1"}).must(201)
		synctest.Wait() // the cleaner is done
		if keys := b.meta.keys("blob/u/"); len(keys) != 0 || b.files() != 1 {
			t.Errorf("after the commit: %q, %d files", keys, b.files())
		}
		b.stage(x, 3, "three").must(201)
		time.Sleep(7*24*time.Hour + 2*time.Hour) // virtual
		synctest.Wait()
		if keys := b.meta.keys("blob/u/"); len(keys) != 0 || b.files() != 1 {
			t.Errorf("after a week: %q, %d files", keys, b.files())
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := func() Options {
		return Options{Meta: newMemMeta(), Dir: t.TempDir(), Accounts: map[string][]string{testAccount: {DevelopmentKey}}}
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	for name, change := range map[string]func(*Options){
		"no meta":     func(o *Options) { o.Meta = nil },
		"no folder":   func(o *Options) { o.Dir = "" },
		"no account":  func(o *Options) { o.Accounts = nil },
		"no key":      func(o *Options) { o.Accounts = map[string][]string{testAccount: nil} },
		"three keys":  func(o *Options) { o.Accounts = map[string][]string{testAccount: {"YQ==", "YQ==", "YQ=="}} },
		"no base64":   func(o *Options) { o.Accounts = map[string][]string{testAccount: {"?"}} },
		"odd account": func(o *Options) { o.Accounts = map[string][]string{"Dev-Store": {"YQ=="}} },
		"a file":      func(o *Options) { o.Dir = file },
	} {
		o := good()
		if change(&o); name == "" {
			continue
		}
		if s, err := New(o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	s, err := New(good())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	want := "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=k;BlobEndpoint=http://[::1]:10000/a;"
	if got := ConnectionString("a", "k", "[::1]:10000"); got != want {
		t.Errorf("connection string %q", got)
	}
}

// A blob that was deleted and made again, over a restart, with a clock that went
// back, must not meet its old ETag: a stale claim would win.
func TestETagsNeverRepeat(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	seen := map[string]bool{}
	for i := range 20 {
		etag := b.put(c+"/x", "").must(201).get("ETag")
		if seen[etag] {
			t.Fatalf("ETag %s came twice", etag)
		}
		seen[etag] = true
		b.do("DELETE", c+"/x", "").must(202)
		if i%3 == 0 {
			b.clock.move(-time.Hour)
		}
		b.restart()
	}
	b.meta.Put(t.Context(), tickKey, []byte("?"), store.AnyVersion)
	if _, err := New(Options{Meta: b.meta, Dir: b.dir, Accounts: b.o.Accounts}); !errors.Is(err, errBadRecord) {
		t.Errorf("with a damaged ceiling: %v", err)
	}
}
