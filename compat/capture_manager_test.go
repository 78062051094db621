package compat

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/eventhub/armeventhub"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"github.com/millrace/millrace/capture/avro"
)

// TestCaptureByResourceManager turns the capture of a hub on with the official SDK,
// as it is done in Azure, and reads the file with the storage SDK.
func TestCaptureByResourceManager(t *testing.T) {
	m := newManager(t, policy.RetryOptions{})
	account := "/subscriptions/" + subscription + "/resourceGroups/" + group + "/providers/Microsoft.Storage/storageAccounts/devstoreaccount1"
	put := func(c armeventhub.CaptureDescription) armeventhub.EventHubsClientCreateOrUpdateResponse {
		t.Helper()
		return must(m.hubs.CreateOrUpdate(m.ctx, group, "localhost", "captured", armeventhub.Eventhub{Properties: &armeventhub.Properties{
			PartitionCount: new(int64(1)), CaptureDescription: &c}}, nil))(m)
	}
	put(armeventhub.CaptureDescription{
		Enabled: new(true), Encoding: new(armeventhub.EncodingCaptureDescriptionAvro), IntervalInSeconds: new(int32(60)), SizeLimitInBytes: new(int32(10 << 20)), SkipEmptyArchives: new(true),
		Destination: &armeventhub.Destination{Name: new("EventHubArchive.AzureBlockBlob"), Properties: &armeventhub.DestinationProperties{
			StorageAccountResourceID: &account, BlobContainer: new("lake"), ArchiveNameFormat: new("{Namespace}/{EventHub}/p{PartitionId}/{Year}-{Month}-{Day}/{Hour}-{Minute}-{Second}")}},
	})
	c := must(m.hubs.Get(m.ctx, group, "localhost", "captured", nil))(m).Properties.CaptureDescription
	if c == nil {
		t.Fatal("there is no capture description")
	}
	same(m, "enabled", c.Enabled, true)
	same(m, "the interval", c.IntervalInSeconds, 60)
	same(m, "the size", c.SizeLimitInBytes, 10<<20)
	same(m, "the account", c.Destination.Properties.StorageAccountResourceID, account)
	same(m, "the container", c.Destination.Properties.BlobContainer, "lake")
	for _, body := range []string{"one", "two"} {
		if status, text := m.postTo("captured", body); status != 201 {
			t.Fatalf("%d %s", status, text)
		}
	}
	off := put(armeventhub.CaptureDescription{Enabled: new(false)}) // what is there is then written
	same(m, "enabled", off.Properties.CaptureDescription.Enabled, false)
	same(m, "the container", off.Properties.CaptureDescription.Destination.Properties.BlobContainer, "lake")
	m.await0Backlog("captured")

	blobs, err := azblob.NewClientFromConnectionString(m.StorageConnectionString, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for p := blobs.NewListBlobsFlatPager("lake", nil); p.More(); {
		page, err := p.NextPage(m.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range page.Segment.BlobItems {
			names = append(names, *b.Name)
		}
	}
	if len(names) != 1 || !strings.HasPrefix(names[0], "localhost/captured/p0/20") || !strings.HasSuffix(names[0], ".avro") {
		t.Fatalf("the files are %v", names)
	}
	got, err := blobs.DownloadStream(m.ctx, "lake", names[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if n := got.Metadata["Count"]; n == nil || *n != "2" {
		t.Errorf("the metadata is %v", got.Metadata)
	}
	file, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := avro.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for range 2 {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(e.Body))
	}
	if !slices.Equal(bodies, []string{"one", "two"}) {
		t.Errorf("the file has %q", bodies)
	}
}
