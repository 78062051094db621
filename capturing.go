package millrace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/blob"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/azure"
	"github.com/millrace/millrace/capture/folder"
	"github.com/millrace/millrace/capture/s3"
)

// captureContainer is where files go in a destination that is told of no container.
const captureContainer = "capture"

// captureDestinations makes the destinations of the configuration, and those that
// are the broker's own storage accounts: the first is where files go unless they are
// told otherwise. b is nil while there is no broker yet, and only names count.
func captureDestinations(o *Options, b *Broker) (map[string]capture.Destination, error) {
	out := map[string]capture.Destination{}
	accounts := (&keys{BlobKeys: []string{blob.DevelopmentKey}}).accounts(o.BlobAccounts)
	if b != nil {
		accounts = b.keys.accounts(o.BlobAccounts)
	}
	for name, keys := range accounts {
		to, err := ownAccount(b, name, keys[0])
		if err != nil {
			return nil, fmt.Errorf("the storage account %s as a destination of captured files: %w", name, err)
		}
		out[name] = to
	}
	out[""] = out[blob.DevelopmentAccount]
	for _, d := range o.CaptureDestinations {
		if problem := d.check(); problem != "" {
			return nil, fmt.Errorf("%s%s", d.at, problem)
		}
		for name := range out { // they are found in any case
			if strings.EqualFold(name, d.Name) {
				return nil, fmt.Errorf("%sthe name %s of a capture destination is taken, by another one or by a storage account of the broker's own; give it another", d.at, d.Name)
			}
		}
		to, err := d.open()
		if err != nil {
			return nil, fmt.Errorf("%sthe capture destination %s: %w", d.at, d.Name, err)
		}
		if b != nil && d.Kind == "folder" {
			to = roomy{to, b.hasRoom} // it may well be on the same disk
		}
		out[d.Name] = to
	}
	return out, nil
}

// open makes the destination. Nothing is asked of it yet.
func (d *CaptureDestination) open() (capture.Destination, error) {
	container := d.Container
	if container == "" {
		container = captureContainer
	}
	switch d.Kind {
	case "folder":
		return folder.New(d.Folder)
	case "azure":
		return azure.New(azure.Options{ConnectionString: d.ConnectionString, Container: container, CreateContainer: true})
	case "s3":
		return s3.New(s3.Options{
			Endpoint: d.Endpoint, Region: d.Region, AccessKey: d.AccessKey, SecretKey: d.SecretKey, Bucket: container,
			CreateBucket: true, PathStyle: d.PathStyle, CheckThenPut: d.CheckThenPut,
		})
	}
	return nil, fmt.Errorf("there is no kind %q", d.Kind)
}

// ownAccount is a storage account of the broker's own, which is asked without a
// network.
func ownAccount(b *Broker, name, key string) (capture.Destination, error) {
	at, way := "localhost", inside{}
	if b != nil {
		way.Handler = b.blobs
		if a := b.Address(Blob); a != "" {
			at = a
		}
	}
	to, err := azure.New(azure.Options{
		ServiceURL: "http://" + at + "/" + name, Account: name, Key: key, Container: captureContainer, CreateContainer: true, Transport: way,
	})
	if err != nil || b == nil {
		return to, err
	}
	return roomy{to, b.hasRoom}, nil
}

// inside makes requests to the broker's own Blob service without a network.
type inside struct{ http.Handler }

// RoundTrip implements http.RoundTripper. The answer's body is to be closed, which
// waits until nobody is at the request any more.
func (i inside) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	in.RequestURI, in.RemoteAddr = req.URL.RequestURI(), "127.0.0.1:0"
	in.Header = http.Header{}
	for key, values := range req.Header { // the SDK's are as it likes them; on a wire they would lose that
		in.Header[http.CanonicalHeaderKey(key)] = values
	}
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if in.ContentLength > 0 && in.Header.Get("Content-Length") == "" {
		in.Header.Set("Content-Length", fmt.Sprint(in.ContentLength))
	}
	body, pipe := io.Pipe()
	w := &insideWriter{header: http.Header{}, body: pipe, ready: make(chan struct{})}
	ended := make(chan struct{})
	go func() { // whoever closes the answer waits for it
		defer close(ended)
		defer in.Body.Close()
		defer func() { // as a server does
			if failed := recover(); failed != nil {
				w.WriteHeader(http.StatusInternalServerError)
				pipe.CloseWithError(fmt.Errorf("the Blob service has failed: %v", failed))
			}
		}()
		i.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK)
		pipe.Close()
	}()
	select {
	case <-w.ready:
	case <-req.Context().Done():
		body.CloseWithError(req.Context().Err())
		<-w.ready
	}
	resp := &http.Response{
		StatusCode: w.status, Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: &insideBody{body, ended}, ContentLength: -1, Request: req,
	}
	return resp, nil
}

// insideBody is the body of an answer.
type insideBody struct {
	*io.PipeReader
	ended <-chan struct{}
}

// Close implements io.Closer.
func (b *insideBody) Close() error {
	b.PipeReader.Close()
	<-b.ended
	return nil
}

// insideWriter is an answer in the making.
type insideWriter struct {
	header, sent http.Header
	body         *io.PipeWriter
	once         sync.Once
	ready        chan struct{} // closed once status and sent are there
	status       int
}

// Header implements http.ResponseWriter.
func (w *insideWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *insideWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, http.Header{}
		for key, values := range w.header {
			w.sent[http.CanonicalHeaderKey(key)] = slices.Clone(values)
		}
		close(w.ready)
	})
}

// Write implements http.ResponseWriter.
func (w *insideWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// roomy is a destination on the data folder's own disk: events come first.
type roomy struct {
	capture.Destination
	room func() bool
}

// errNoRoom has a file be put again later.
var errNoRoom = errors.New("the disk of the data folder has too little room for captured files")

// Put implements capture.Destination.
func (r roomy) Put(ctx context.Context, container, name string, f *capture.File) error {
	if !r.room() {
		return errNoRoom
	}
	return r.Destination.Put(ctx, container, name, f)
}

// hasRoom tells whether files of Capture may take up space of the data folder's
// disk: events come first, which are refused below the reserve.
func (b *Broker) hasRoom() bool {
	free, total := freeSpace(b.dir)
	if total == 0 {
		return true
	}
	reserve := uint64(math.Max(0, float64(b.o.Reserve)))
	if b.o.Reserve == 0 {
		reserve = min(1<<30, total/20)
	}
	return free > 2*reserve
}
