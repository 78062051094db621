package blob

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func wantCode(t *testing.T, err error, code Code) {
	t.Helper()
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

func TestDirect(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBodySize = 10 })
	ctx := t.Context()
	_, err := b.Upload(ctx, testAccount, "con", "x", strings.NewReader(""), UploadOptions{})
	wantCode(t, err, ContainerNotFound)
	for range 2 { // the second changes nothing
		if err := b.CreateContainer(ctx, testAccount, "con"); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, b.CreateContainer(ctx, testAccount, "X"), codeInvalidName)
	wantCode(t, b.CreateContainer(ctx, "other", "con"), codeInvalidName)

	big := strings.Repeat("0123456789", 20_000) // more than a request may bring
	for name, body := range map[string]string{"ns/hub/0/2026.avro": big, "empty": "", "small": "abc"} {
		item, err := b.Upload(ctx, testAccount, "con", name, iotest.HalfReader(strings.NewReader(body)), UploadOptions{
			ContentType: "avro/binary", Metadata: map[string]string{"firstseq": "1"}, IfAbsent: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		want := Item{
			Name: name, Size: int64(len(body)), ETag: item.ETag, Modified: b.clock.Now(), ContentType: "avro/binary",
			Metadata: map[string]string{"firstseq": "1"},
		}
		if d := cmp.Diff(want, item); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
		got, err := b.Stat(ctx, testAccount, "con", name)
		if err != nil || !cmp.Equal(got, item) {
			t.Errorf("%s: Stat %+v, %v", name, got, err)
		}
		r, _, err := b.Open(ctx, testAccount, "con", name)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, []byte(body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.Close()
		if a := b.do("GET", "/con/"+name, ""); a.body != body || a.get("ETag") != `"`+item.ETag+`"` {
			t.Errorf("%s: over HTTP %d bytes, %v", name, len(a.body), a.header)
		}
	}
	_, err = b.Upload(ctx, testAccount, "con", "small", strings.NewReader("x"), UploadOptions{IfAbsent: true})
	wantCode(t, err, BlobAlreadyExists)
	_, err = b.Upload(ctx, testAccount, "con", "small", strings.NewReader("x"), UploadOptions{IfMatch: "0x1"})
	wantCode(t, err, ConditionNotMet)
	_, err = b.Upload(ctx, testAccount, "con", "small", iotest.ErrReader(errors.New("cut")), UploadOptions{})
	wantCode(t, err, codeInvalidInput)
	_, err = b.Upload(ctx, testAccount, "con", "small", strings.NewReader("x"), UploadOptions{Metadata: map[string]string{"a-b": ""}})
	wantCode(t, err, codeInvalidMetadata)
	item, _ := b.Stat(ctx, testAccount, "con", "small")
	if next, err := b.Upload(ctx, testAccount, "con", "small", strings.NewReader("x"), UploadOptions{IfMatch: item.ETag}); err != nil || next.ETag <= item.ETag {
		t.Errorf("with the right ETag: %+v, %v", next, err)
	}

	var names []string
	for item, err := range b.Items(ctx, testAccount, "con", "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, item.Name)
		if item.Name == "empty" {
			if err := b.Remove(ctx, testAccount, "con", item.Name); err != nil { // the loop may
				t.Error(err)
			}
		}
	}
	if d := cmp.Diff([]string{"empty", "ns/hub/0/2026.avro", "small"}, names); d != "" {
		t.Error(d)
	}
	for _, err := range b.Items(ctx, testAccount, "none", "") {
		wantCode(t, err, ContainerNotFound)
	}
	for range b.Items(ctx, testAccount, "con", "ns/") {
		break
	}
	wantCode(t, b.Remove(ctx, testAccount, "con", "empty"), BlobNotFound)
	_, err = b.Stat(ctx, testAccount, "con", "empty")
	wantCode(t, err, BlobNotFound)
	_, _, err = b.Open(ctx, testAccount, "con", "empty")
	wantCode(t, err, BlobNotFound)
	for _, bad := range []string{"", "\xff", `a\b`, "a\x00b", strings.Repeat("x", 1025)} {
		_, err = b.Stat(ctx, testAccount, "con", bad)
		wantCode(t, err, codeInvalidName)
		_, err = b.Upload(ctx, testAccount, "con", bad, strings.NewReader(""), UploadOptions{})
		wantCode(t, err, codeInvalidName)
		_, _, err = b.Open(ctx, testAccount, "con", bad)
		wantCode(t, err, codeInvalidName)
		wantCode(t, b.Remove(ctx, testAccount, "con", bad), codeInvalidName)
	}
	if item, err := b.Upload(ctx, testAccount, "con", "100%25 +ü", io.LimitReader(strings.NewReader("x"), 1), UploadOptions{}); err != nil || item.Name != "100%25 +ü" {
		t.Errorf("an odd name: %+v, %v", item, err)
	}
}

// Pages of a direct list go on where they ended.
func TestDirectManyItems(t *testing.T) {
	b := newBench(t)
	if err := b.CreateContainer(t.Context(), testAccount, "con"); err != nil {
		t.Fatal(err)
	}
	c, _, err := b.getContainer(t.Context(), testAccount, "con")
	if err != nil {
		t.Fatal(err)
	}
	record := (&blobRecord{Type: blockBlob}).encode()
	for i := range maxResults + 10 {
		key := blobKey{c.ID, strings.Repeat("n", 1+i%3) + string(rune('a'+i%26)) + strings.Repeat("x", i/26)}
		b.meta.Put(t.Context(), key.meta(), record, 0)
	}
	n, last := 0, ""
	for item, err := range b.Items(t.Context(), testAccount, "con", "n") {
		if err != nil || item.Name <= last {
			t.Fatal(item, err)
		}
		n, last = n+1, item.Name
	}
	if want := len(b.meta.keys(blobsPrefix(c.ID))); n != want {
		t.Errorf("%d items of %d", n, want)
	}
}
