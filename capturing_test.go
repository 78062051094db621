package millrace

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/blob"
)

// TestInsideIsWaitedFor: whoever closes the answer of the broker's own Blob service
// knows that nobody is at the request any more, however much of it was read.
func TestInsideIsWaitedFor(t *testing.T) {
	for _, read := range []int{0, 1, 1 << 20} {
		var ended atomic.Bool
		way := inside{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer ended.Store(true)
			w.Header().Set("x-ms-name", "value")
			w.WriteHeader(http.StatusPartialContent)
			for range 16 {
				if _, err := w.Write(bytes.Repeat([]byte{1}, 1<<16)); err != nil {
					return
				}
			}
		})}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/devstoreaccount1/c/b", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := way.RoundTrip(req)
		if err != nil || resp.StatusCode != http.StatusPartialContent || resp.Header.Get("X-Ms-Name") != "value" {
			t.Fatalf("%+v, %v", resp, err)
		}
		if n, err := io.CopyN(io.Discard, resp.Body, int64(read)); err != nil {
			t.Errorf("%d bytes of %d are read, %v", n, read, err)
		}
		if err := resp.Body.Close(); err != nil || !ended.Load() {
			t.Errorf("after %d bytes the handler has not ended, %v", read, err)
		}
	}
}

// TestDestinationNames: a destination that can't be told from another is refused,
// whatever it keeps secret is not said.
func TestDestinationNames(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0"
	lake := CaptureDestination{Name: "lake", Kind: "folder", Folder: t.TempDir()}
	for _, c := range []struct {
		want string
		d    []CaptureDestination
	}{
		{"", []CaptureDestination{lake}},
		{"taken", []CaptureDestination{lake, {Name: "Lake", Kind: "folder", Folder: lake.Folder}}},
		{"taken", []CaptureDestination{{Name: "DevStoreAccount1", Kind: "s3", Endpoint: "http://localhost", AccessKey: "a", SecretKey: secret}}},
		{"taken", []CaptureDestination{{Name: "More", Kind: "azure", ConnectionString: "AccountName=x;AccountKey=" + secret}}},
		{"container", []CaptureDestination{{Name: "x", Kind: "folder", Folder: lake.Folder, Container: "c"}}},
		{"kind", []CaptureDestination{{Name: "x", Kind: "ftp"}}},
		{"azure", []CaptureDestination{{Name: "x", Kind: "azure", ConnectionString: "AccountName=x;AccountKey=!" + secret}}},
	} {
		o := &Options{CaptureDestinations: c.d, BlobAccounts: map[string][]string{"more": {blob.DevelopmentKey}}}
		_, err := captureDestinations(o, nil)
		if text := fmt.Sprintf("%v %+v", err, c.d); (err == nil) != (c.want == "") || !strings.Contains(text, c.want) || strings.Contains(text, secret) {
			t.Errorf("%+v: %v", c.d, err)
		}
	}
}
