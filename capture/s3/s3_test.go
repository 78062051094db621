package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/capturetest"
	"github.com/millrace/millrace/capture/s3"
)

const access, secret, token = "AKIDEXAMPLE", "c2VjcmV0c2VjcmV0", "dG9rZW50b2tlbg"

func open(t *testing.T, h *httptest.Server, o s3.Options) *s3.Storage {
	t.Helper()
	o.AccessKey, o.SecretKey, o.SessionToken = access, secret, token
	if o.Endpoint == "" {
		o.Endpoint, o.Transport = h.URL, h.Client().Transport
	}
	s, err := s3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func file(t *testing.T, size int) *capture.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "spool")
	if err := os.WriteFile(name, bytes.Repeat([]byte("x"), size), 0o640); err != nil {
		t.Fatal(err)
	}
	return &capture.File{Path: name, Size: int64(size), ContentType: "application/avro", Metadata: map[string]string{"firstseq": "7"}}
}

// Sizes of a file in one piece and in parts.
const small, large = 100, 11 << 20

const partSize = 5 << 20

// smallPart is what the suite has in its place: the store of the tests takes it.
const smallPart = 256 << 10

func TestConformance(t *testing.T) {
	_, h := newStore(t)
	for name, o := range map[string]s3.Options{
		"parts":          {PartSize: partSize, Region: "eu-central-1"},
		"check then put": {PartSize: partSize, CheckThenPut: true},
	} {
		if testing.Short() && o.CheckThenPut {
			continue
		}
		t.Run(name, func(t *testing.T) {
			o.CreateBucket = true
			capturetest.Run(t, capturetest.Destination{
				New: func(t *testing.T) capture.Destination {
					s := open(t, h, o)
					s.SetPageSize(7)
					s.SetPartSize(smallPart)
					return s
				},
				Metadata: true, Secrets: []string{access, secret, token}, Piece: smallPart,
				OneWriter: o.CheckThenPut,
			})
		})
	}
}

func TestOptions(t *testing.T) {
	for name, x := range map[string]struct {
		o    s3.Options
		want string // of the URL, or in the error if it begins with an exclamation mark
	}{
		"nothing":      {s3.Options{}, "https://my-bucket.s3.amazonaws.com/a/b.avro"},
		"region":       {s3.Options{Region: "eu-central-1"}, "https://my-bucket.s3.eu-central-1.amazonaws.com/a/b.avro"},
		"path style":   {s3.Options{Region: "eu-central-1", PathStyle: true}, "https://s3.eu-central-1.amazonaws.com/my-bucket/a/b.avro"},
		"of their own": {s3.Options{Endpoint: "http://127.0.0.1:9000/"}, "http://127.0.0.1:9000/my-bucket/a/b.avro"},
		"no scheme":    {s3.Options{Endpoint: "store.example:9000"}, "https://store.example:9000/my-bucket/a/b.avro"},
		"scheme":       {s3.Options{Endpoint: "ftp://store.example"}, "!not a host"},
		"path":         {s3.Options{Endpoint: "https://store.example/c2VjcmV0c2VjcmV0"}, "!not a host"},
		"password":     {s3.Options{Endpoint: "https://u:c2VjcmV0c2VjcmV0@store.example"}, "!not a host"},
		"query":        {s3.Options{Endpoint: "https://store.example?c2VjcmV0c2VjcmV0"}, "!not a host"},
		"bad":          {s3.Options{Endpoint: "https://store\x7f.example?c2VjcmV0c2VjcmV0"}, "!endpoint"},
		"small parts":  {s3.Options{PartSize: 1 << 20}, "!PartSize"},
		"large parts":  {s3.Options{PartSize: 6 << 30}, "!PartSize"},
	} {
		x.o.AccessKey, x.o.SecretKey = access, secret
		s, err := s3.New(x.o)
		if want, refused := strings.CutPrefix(x.want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if u := s.URL("my-bucket", "a/b.avro"); u != x.want {
			t.Errorf("%s: %s", name, u)
		}
	}
	for _, o := range []s3.Options{{AccessKey: access}, {SecretKey: secret}} {
		if _, err := s3.New(o); err == nil || !strings.Contains(err.Error(), "needed") {
			t.Error(err)
		}
	}
}

func TestURL(t *testing.T) {
	_, h := newStore(t)
	s := open(t, h, s3.Options{Endpoint: "https://s3.eu-central-1.amazonaws.com", Bucket: "default"})
	if u := s.URL("", "a b/%/ü?#.avro"); u != "https://default.s3.eu-central-1.amazonaws.com/a%20b/%25/%C3%BC%3F%23.avro" {
		t.Error(u)
	}
	if u := s.URL("with.dots", "a.avro"); u != "https://s3.eu-central-1.amazonaws.com/with.dots/a.avro" {
		t.Error(u)
	}
}

func TestBuckets(t *testing.T) {
	_, h := newStore(t)
	s := open(t, h, s3.Options{PartSize: partSize})
	if err := s.Put(t.Context(), "", "a.avro", file(t, 1)); err == nil || !strings.Contains(err.Error(), "bucket") {
		t.Errorf("without a bucket: %v", err)
	}
	for _, size := range []int{small, large} {
		err := s.Put(t.Context(), "missing", "a.avro", file(t, size))
		if e, ok := errors.AsType[*s3.Error](err); !ok || e.Status != 404 || e.Code != "NoSuchBucket" || errors.Is(err, capture.ErrMissing) {
			t.Errorf("in one that is missing: %v", err)
		}
	}
	s = open(t, h, s3.Options{PartSize: partSize, Bucket: "made", CreateBucket: true})
	for _, name := range []string{"a.avro", "b.avro"} {
		if err := s.Put(t.Context(), "", name, file(t, large)); err != nil {
			t.Error(err)
		}
	}
	if got, err := s.Stat(t.Context(), "made", "b.avro"); err != nil || got.Size != large {
		t.Errorf("the default bucket: %+v, %v", got, err)
	}
}

// TestConditions looks at which requests have the condition, and the content type.
func TestConditions(t *testing.T) {
	for _, check := range []bool{false, true} {
		f, h := newStore(t)
		var with, without []string
		f.refuse = func(r *http.Request) (int, string) {
			what := r.Method
			names := []string{"uploads", "partNumber", "uploadId", "location"}
			if i := slices.IndexFunc(names, r.URL.Query().Has); i >= 0 {
				what += " " + names[i]
			}
			if r.Header.Get("If-None-Match") == "*" {
				with = append(with, what)
			} else if strings.Count(r.URL.Path, "/") > 1 && r.URL.Path != "/data/" {
				without = append(without, what)
			}
			return 0, ""
		}
		s := open(t, h, s3.Options{PartSize: partSize, CreateBucket: true, Region: "us-east-1", CheckThenPut: check})
		if err := s.Put(t.Context(), "data", "first", file(t, small)); err != nil {
			t.Fatal(err)
		}
		with, without = nil, nil
		for _, size := range []int{small, large} {
			name := fmt.Sprint(size)
			if err := s.Put(t.Context(), "data", name, file(t, size)); err != nil {
				t.Fatal(err)
			}
			if got := f.buckets["data"][name].header.Get("Content-Type"); got != "application/avro" {
				t.Errorf("the content type is %q", got)
			}
		}
		wantWith, wantWithout := []string{"PUT", "POST uploadId"}, []string{"HEAD", "POST uploads", "PUT partNumber", "PUT partNumber", "PUT partNumber"}
		if check {
			wantWith, wantWithout = nil, []string{"HEAD", "PUT", "HEAD", "POST uploads", "PUT partNumber", "PUT partNumber", "PUT partNumber", "POST uploadId"}
		}
		if !slices.Equal(with, wantWith) || !slices.Equal(without, wantWithout) {
			t.Errorf("check: %v: with a condition %q, without %q", check, with, without)
		}
	}
}

// TestStoresWithoutConditions has one that says so, and one that doesn't.
func TestStoresWithoutConditions(t *testing.T) {
	f, h := newStore(t)
	f.heedless = true
	f.refuse = func(r *http.Request) (int, string) {
		if r.Header.Get("If-None-Match") != "" {
			return 501, "NotImplemented"
		}
		return 0, ""
	}
	plain := open(t, h, s3.Options{PartSize: partSize, CreateBucket: true, Region: "us-east-1"})
	check := open(t, h, s3.Options{PartSize: partSize, CreateBucket: true, CheckThenPut: true, Region: "us-east-1"})
	for _, size := range []int{small, large} {
		name := fmt.Sprint(size)
		err := plain.Put(t.Context(), "data", name, file(t, size))
		if e, ok := errors.AsType[*s3.Error](err); !ok || e.Status != 501 || !strings.Contains(err.Error(), "CheckThenPut") {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err := check.Put(t.Context(), "data", name, file(t, size)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err := check.Put(t.Context(), "data", name, file(t, size+1)); !errors.Is(err, capture.ErrExists) {
			t.Errorf("%d bytes again: %v", size, err)
		}
	}
	if len(f.uploads) > 0 {
		t.Errorf("%d uploads are left", len(f.uploads))
	}
}

// TestConflict has the store say that another is at it: there is an object then, or
// there is none.
func TestConflict(t *testing.T) {
	f, h := newStore(t)
	s := open(t, h, s3.Options{PartSize: partSize, CreateBucket: true, Region: "us-east-1"})
	if err := s.Put(t.Context(), "data", "first", file(t, small)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{small, large} {
		for _, there := range []bool{false, true} {
			name := fmt.Sprint(size, there)
			f.refuse = func(r *http.Request) (int, string) {
				if r.Header.Get("If-None-Match") == "" {
					return 0, ""
				}
				if there {
					f.buckets["data"][name] = &object{[]byte("other"), http.Header{}, time.Now()}
				}
				return 409, "ConditionalRequestConflict"
			}
			err := s.Put(t.Context(), "data", name, file(t, size))
			if e, ok := errors.AsType[*s3.Error](err); there != errors.Is(err, capture.ErrExists) || !there && (!ok || e.Status != 409) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(f.uploads) > 0 {
		t.Errorf("%d uploads are left", len(f.uploads))
	}
}

// TestLostAnswer has the answer to each request get lost, which the client repeats: the
// file is there, once, and that is what Put tells, in one way or the other.
func TestLostAnswer(t *testing.T) {
	f, h := newStore(t)
	for i, lose := range []func(*http.Request) bool{
		func(r *http.Request) bool { return r.Method == http.MethodPut && r.URL.RawQuery == "" },
		func(r *http.Request) bool { return r.URL.Query().Has("uploads") },
		func(r *http.Request) bool { return r.URL.Query().Has("partNumber") },
		func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") },
		func(r *http.Request) bool { return r.Method == http.MethodHead },
	} {
		for _, size := range []int{small, large} {
			f.mu.Lock()
			f.lose = nil
			f.mu.Unlock()
			s := open(t, h, s3.Options{PartSize: partSize, CreateBucket: true, Region: "us-east-1"})
			bucket := fmt.Sprintf("lost-%d-%d", i, size)
			if err := s.Put(t.Context(), bucket, "first", file(t, 1)); err != nil {
				t.Fatal(err)
			}
			lost := false
			f.mu.Lock()
			f.lose = func(r *http.Request) bool {
				if lost || !lose(r) {
					return false
				}
				lost = true
				return true
			}
			f.mu.Unlock()
			err := s.Put(t.Context(), bucket, "a.avro", file(t, size))
			if err != nil && !errors.Is(err, capture.ErrExists) {
				t.Errorf("%s: %v", bucket, err)
			}
			if o, err := s.Stat(t.Context(), bucket, "a.avro"); err != nil || o.Size != int64(size) || o.Metadata["firstseq"] != "7" {
				t.Errorf("%s: %+v, %v", bucket, o, err)
			}
			if err := s.Put(t.Context(), bucket, "a.avro", file(t, size)); !errors.Is(err, capture.ErrExists) {
				t.Errorf("%s again: %v", bucket, err)
			}
		}
	}
}

// TestAbort ends a Put between its parts, and has a part be refused: no upload is left.
func TestAbort(t *testing.T) {
	f, h := newStore(t)
	s := open(t, h, s3.Options{PartSize: partSize, CreateBucket: true, Region: "us-east-1"})
	if err := s.Put(t.Context(), "data", "first", file(t, small)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.refuse = func(r *http.Request) (int, string) {
		if r.URL.Query().Get("partNumber") == "2" {
			cancel()
		}
		return 0, ""
	}
	if err := s.Put(ctx, "data", "a.avro", file(t, large)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	f.refuse = func(r *http.Request) (int, string) {
		if r.URL.Query().Get("partNumber") == "2" {
			return 403, "AccessDenied"
		}
		return 0, ""
	}
	err := s.Put(t.Context(), "data", "a.avro", file(t, large))
	if e, ok := errors.AsType[*s3.Error](err); !ok || e.Code != "AccessDenied" {
		t.Error(err)
	}
	f.mu.Lock()
	if len(f.uploads) > 0 || f.aborted != 2 {
		t.Errorf("%d uploads are left, %d were aborted", len(f.uploads), f.aborted)
	}
	f.refuse = func(r *http.Request) (int, string) {
		if r.URL.Query().Has("uploadId") && !r.URL.Query().Has("uploads") {
			return 403, r.Method
		}
		return 0, ""
	}
	f.mu.Unlock()
	err = s.Put(t.Context(), "data", "a.avro", file(t, large))
	if e, ok := errors.AsType[*s3.Error](err); !ok || e.Code != "PUT" || !strings.Contains(err.Error(), "403 DELETE") {
		t.Errorf("with an upload that can't be aborted: %v", err)
	}
}

// TestErrorsInAnswers has a store that tells secrets.
func TestErrorsInAnswers(t *testing.T) {
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 403, storeError{Code: "InvalidAccessKeyId", Message: "there is no " + access + " with " + secret + " and " + token})
	}))
	defer h.Close()
	s := open(t, h, s3.Options{})
	err := s.Put(t.Context(), "data", "a.avro", file(t, 1))
	e, ok := errors.AsType[*s3.Error](err)
	if !ok || e.Code != "InvalidAccessKeyId" || e.Message != "there is no *** with *** and ***" {
		t.Error(err)
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
	for _, at := range []string{"http://127.0.0.1:1", h.URL} {
		s := open(t, h, s3.Options{Endpoint: at, Timeout: 200 * time.Millisecond})
		_, stat := s.Stat(t.Context(), "data", "x")
		_, open := s.Open(t.Context(), "data", "x")
		errs := []error{s.Put(t.Context(), "data", "x", file(t, 1)), s.Put(t.Context(), "data", "x", file(t, 17<<20)), stat, open}
		for _, err := range s.List(t.Context(), "data", "") {
			errs = append(errs, err)
		}
		for i, err := range errs {
			if err == nil || errors.Is(err, capture.ErrMissing) || errors.Is(err, capture.ErrExists) || errors.Is(err, context.Canceled) {
				t.Errorf("%d: %v", i, err)
			} else if text := fmt.Sprintf("%v %#v", err, err); strings.Contains(text, secret) || strings.Contains(text, access) || strings.Contains(text, token) {
				t.Errorf("a secret is told: %s", text)
			}
		}
		t.Log(errs[0])
	}
}

// TestMemory puts a large file, nothing of which is kept.
func TestMemory(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(404)
			return
		}
		io.Copy(io.Discard, r.Body)
		switch {
		case r.URL.Query().Has("uploads"):
			io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
		case r.Method == http.MethodPost:
			io.WriteString(w, "<CompleteMultipartUploadResult><Bucket>data</Bucket></CompleteMultipartUploadResult>")
		}
	})
	for name, h := range map[string]*httptest.Server{"plain": httptest.NewServer(handler), "TLS": httptest.NewTLSServer(handler)} {
		defer h.Close()
		s := open(t, h, s3.Options{Region: "us-east-1"})
		x := file(t, 64<<20)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := s.Put(t.Context(), "data", "a.avro", x); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 24<<20 {
			t.Errorf("%s: to put 64 MiB takes %d bytes of memory, the server's and those given back among them", name, n)
		} else {
			t.Logf("%s: %d bytes", name, n)
		}
	}
}
