package s3_test

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeStore is as much of S3 as a destination needs, in memory. It checks no
// signatures; with the real server in compat they are checked.
type fakeStore struct {
	mu      sync.Mutex
	buckets map[string]map[string]*object
	uploads map[string]*multipart
	aborted int

	// refuse, if set, is asked before each request: a status other than 0, and a code,
	// are the answer.
	refuse func(r *http.Request) (int, string)
	// lose, if set, tells whose answer is lost.
	lose func(r *http.Request) bool
	// heedless takes conditions and forgets them.
	heedless bool
}

type object struct {
	data     []byte
	header   http.Header
	modified time.Time
}

type multipart struct {
	header http.Header
	parts  map[int][]byte
}

// newStore starts one. Over TLS the client sends content as it is.
func newStore(t *testing.T) (*fakeStore, *httptest.Server) {
	t.Helper()
	f := &fakeStore{buckets: map[string]map[string]*object{}, uploads: map[string]*multipart{}}
	h := httptest.NewTLSServer(f)
	t.Cleanup(h.Close)
	return f, h
}

type storeError struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	xml.NewEncoder(w).Encode(v)
}

func deny(w http.ResponseWriter, status int, code string) {
	answer(w, status, storeError{Code: code, Message: "no, " + code})
}

// ServeHTTP implements http.Handler.
func (f *fakeStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if status, code := f.refuse(r); status != 0 {
			deny(w, status, code)
			return
		}
	}
	if f.lose != nil && f.lose(r) {
		f.serve(httptest.NewRecorder(), r, body)
		panic(http.ErrAbortHandler)
	}
	f.serve(w, r, body)
}

func (f *fakeStore) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	if sum := r.Header.Get("Content-MD5"); sum != "" {
		if want := md5.Sum(body); sum != base64.StdEncoding.EncodeToString(want[:]) {
			deny(w, 400, "BadDigest")
			return
		}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	objects, ok := f.buckets[bucket]
	switch {
	case key == "" && r.Method == http.MethodPut:
		if ok {
			deny(w, 409, "BucketAlreadyOwnedByYou")
			return
		}
		f.buckets[bucket] = map[string]*object{}
	case !ok:
		deny(w, 404, "NoSuchBucket")
	case key == "" && q.Has("location"):
		answer(w, 200, struct {
			XMLName xml.Name `xml:"LocationConstraint"`
		}{})
	case key == "":
		f.list(w, objects, q)
	case q.Has("uploads"):
		id := strconv.Itoa(len(f.uploads) + f.aborted + 1)
		f.uploads[id] = &multipart{r.Header, map[int][]byte{}}
		answer(w, 200, struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			UploadID string   `xml:"UploadId"`
		}{UploadID: id})
	case q.Has("uploadId"):
		f.multipart(w, r, objects, bucket, key, body)
	case r.Method == http.MethodPut:
		f.put(w, r, objects, key, &object{body, r.Header, time.Now()})
	default:
		f.get(w, r, objects[key])
	}
}

func etag(data []byte) string {
	sum := md5.Sum(data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (f *fakeStore) put(w http.ResponseWriter, r *http.Request, objects map[string]*object, key string, o *object) bool {
	if r.Header.Get("If-None-Match") == "*" && objects[key] != nil && !f.heedless {
		deny(w, 412, "PreconditionFailed")
		return false
	}
	objects[key] = o
	w.Header().Set("ETag", etag(o.data))
	return true
}

func (f *fakeStore) multipart(w http.ResponseWriter, r *http.Request, objects map[string]*object, bucket, key string, body []byte) {
	id := r.URL.Query().Get("uploadId")
	u := f.uploads[id]
	switch {
	case u == nil:
		deny(w, 404, "NoSuchUpload")
	case r.Method == http.MethodPut:
		n, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
		if err != nil {
			deny(w, 400, "InvalidArgument")
			return
		}
		u.parts[n] = body
		w.Header().Set("ETag", etag(body))
	case r.Method == http.MethodDelete:
		delete(f.uploads, id)
		f.aborted++
		w.WriteHeader(204)
	default:
		var data []byte
		for _, n := range slices.Sorted(maps.Keys(u.parts)) {
			data = append(data, u.parts[n]...)
		}
		if f.put(w, r, objects, key, &object{data, u.header, time.Now()}) {
			delete(f.uploads, id)
			answer(w, 200, struct {
				XMLName     xml.Name `xml:"CompleteMultipartUploadResult"`
				Bucket, Key string
				ETag        string
			}{Bucket: bucket, Key: key, ETag: etag(data)})
		}
	}
}

func (f *fakeStore) get(w http.ResponseWriter, r *http.Request, o *object) {
	if o == nil {
		deny(w, 404, "NoSuchKey")
		return
	}
	for name, values := range o.header {
		if strings.HasPrefix(name, "X-Amz-Meta-") || name == "Content-Type" {
			w.Header()[name] = values
		}
	}
	w.Header().Set("ETag", etag(o.data))
	w.Header().Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", fmt.Sprint(len(o.data)))
	if r.Method == http.MethodGet {
		w.Write(o.data)
	}
}

type listed struct {
	Key, ETag    string
	LastModified time.Time
	Size         int
}

func (f *fakeStore) list(w http.ResponseWriter, objects map[string]*object, q url.Values) {
	most, err := strconv.Atoi(q.Get("max-keys"))
	if err != nil || most <= 0 {
		most = 1000
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		EncodingType          string
		IsTruncated           bool
		NextContinuationToken string
		Contents              []listed
	}{EncodingType: q.Get("encoding-type")}
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == most {
			out.IsTruncated = true
			break
		}
		name := key
		if out.EncodingType == "url" {
			name = strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")
		}
		out.NextContinuationToken = key
		out.Contents = append(out.Contents, listed{name, etag(objects[key].data), objects[key].modified.UTC(), len(objects[key].data)})
	}
	answer(w, 200, out)
}
