package blob

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	sdkblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	sdkcontainer "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	sdklease "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

// sdkBench is a service on a socket, at the present time, with the official
// client in front of it.
func sdkBench(t *testing.T) (*bench, *azblob.Client) {
	t.Helper()
	b := newBench(t, func(o *Options) { o.Now = time.Now })
	client, err := azblob.NewClientFromConnectionString(ConnectionString(testAccount, DevelopmentKey, b.serve()), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, client
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSDKCheckpointStore(t *testing.T) {
	_, client := sdkBench(t)
	ctx := t.Context()
	cc := client.ServiceClient().NewContainerClient("checkpoints")
	store, err := checkpoints.NewBlobStore(cc, nil)
	check(t, err)

	_, err = store.ListOwnership(ctx, "NS.example.net", "Hub", "$Default", nil)
	if !bloberror.HasCode(err, bloberror.ContainerNotFound) {
		t.Errorf("without a container: %v", err)
	}
	_, err = cc.Create(ctx, nil)
	check(t, err)

	own := func(owner, partition string, etag *azcore.ETag) azeventhubs.Ownership {
		return azeventhubs.Ownership{
			FullyQualifiedNamespace: "NS.example.net", EventHubName: "Hub", ConsumerGroup: "$Default",
			PartitionID: partition, OwnerID: owner, ETag: etag,
		}
	}
	claimed, err := store.ClaimOwnership(ctx, []azeventhubs.Ownership{own("a", "0", nil), own("a", "1", nil)}, nil)
	check(t, err)
	if len(claimed) != 2 {
		t.Fatalf("claimed %d partitions", len(claimed))
	}
	lost, err := store.ClaimOwnership(ctx, []azeventhubs.Ownership{own("b", "0", nil)}, nil)
	if err != nil || len(lost) != 0 {
		t.Errorf("the second claim of one partition: %v, %v", lost, err)
	}
	stolen, err := store.ClaimOwnership(ctx, []azeventhubs.Ownership{own("b", "0", claimed[0].ETag)}, nil)
	if err != nil || len(stolen) != 1 {
		t.Errorf("stealing with the ETag: %v, %v", stolen, err)
	}
	renewed, err := store.ClaimOwnership(ctx, []azeventhubs.Ownership{own("a", "0", claimed[0].ETag)}, nil)
	if err != nil || len(renewed) != 0 {
		t.Errorf("renewing what was stolen: %v, %v", renewed, err)
	}
	// Relinquish: an empty owner is kept.
	_, err = store.ClaimOwnership(ctx, []azeventhubs.Ownership{own("", "1", claimed[1].ETag)}, nil)
	check(t, err)
	list, err := store.ListOwnership(ctx, "NS.example.net", "Hub", "$Default", nil)
	check(t, err)
	if len(list) != 2 || list[0].OwnerID != "b" || list[1].OwnerID != "" || *list[0].ETag != stripped(*stolen[0].ETag) {
		t.Errorf("listed %+v", list)
	}
	// What a list says is an ETag to claim with, too.
	again, err := store.ClaimOwnership(ctx, []azeventhubs.Ownership{own("c", "1", list[1].ETag)}, nil)
	if err != nil || len(again) != 1 || time.Since(again[0].LastModifiedTime) > time.Minute {
		t.Errorf("claiming what was given up: %+v, %v", again, err)
	}

	sequence, offset := int64(41), "41"
	cp := azeventhubs.Checkpoint{
		FullyQualifiedNamespace: "NS.example.net", EventHubName: "Hub", ConsumerGroup: "$Default",
		PartitionID: "7", SequenceNumber: &sequence, Offset: &offset,
	}
	check(t, store.SetCheckpoint(ctx, cp, nil)) // falls to Put Blob
	sequence++
	check(t, store.SetCheckpoint(ctx, cp, nil)) // Set Metadata
	cps, err := store.ListCheckpoints(ctx, "NS.example.net", "Hub", "$Default", nil)
	check(t, err)
	if len(cps) != 1 || *cps[0].SequenceNumber != 42 || cps[0].PartitionID != "7" {
		t.Errorf("checkpoints %+v", cps)
	}
	if other, err := store.ListCheckpoints(ctx, "ns.example.net", "hub", "$default", nil); err != nil || len(other) != 0 {
		t.Errorf("names don't keep their case: %v, %v", other, err)
	}
}

// stripped is an ETag without its quotes, as lists have it.
func stripped(e azcore.ETag) azcore.ETag { return azcore.ETag(strings.Trim(string(e), `"`)) }

func TestSDKUploadDownload(t *testing.T) {
	b, client := sdkBench(t)
	ctx := t.Context()
	_, err := client.CreateContainer(ctx, "data", nil)
	check(t, err)
	for _, size := range []int{0, 1, maxInline, maxInline + 1, 3<<20 + 17} {
		content := make([]byte, size)
		rand.Read(content)
		name := fmt.Sprintf("folder one/%d+ü%%.bin", size)
		_, err := client.UploadBuffer(ctx, "data", name, content, &azblob.UploadBufferOptions{
			BlockSize: 1 << 20, Concurrency: 3, Metadata: map[string]*string{"a_b": new("x"), "aa": new("y"), "_q": new("z")},
		})
		check(t, err)
		// Blocks of 1 MiB, in several requests.
		_, err = client.UploadStream(ctx, "data", name+" streamed", bytes.NewReader(content), &azblob.UploadStreamOptions{BlockSize: 1 << 20})
		check(t, err)
		for _, n := range []string{name, name + " streamed"} {
			got := make([]byte, size)
			_, err = client.DownloadBuffer(ctx, "data", n, got, &azblob.DownloadBufferOptions{BlockSize: 1 << 20, Concurrency: 3})
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: parallel download of %d bytes: %v", n, size, err)
			}
			r, err := client.DownloadStream(ctx, "data", n, nil)
			check(t, err)
			whole, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(whole, content) {
				t.Errorf("%s: plain download of %d bytes: %v", n, size, err)
			}
		}
	}
	var names []string
	pages := client.NewListBlobsFlatPager("data", &azblob.ListBlobsFlatOptions{MaxResults: new(int32(3)), Include: azblob.ListBlobsInclude{Metadata: true}})
	for pages.More() {
		page, err := pages.NextPage(ctx)
		check(t, err)
		for _, item := range page.Segment.BlobItems {
			names = append(names, *item.Name)
			if strings.HasSuffix(*item.Name, "bin") && *item.Metadata["a_b"] != "x" {
				t.Errorf("%s: metadata %v", *item.Name, item.Metadata)
			}
		}
	}
	if len(names) != 10 || !slices.IsSorted(names) {
		t.Errorf("listed %q", names)
	}
	for _, name := range names {
		_, err := client.DeleteBlob(ctx, "data", name, nil)
		check(t, err)
	}
	b.tidy()
	if n := b.files(); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

func TestSDKBlocksAndConditions(t *testing.T) {
	_, client := sdkBench(t)
	ctx := t.Context()
	_, err := client.CreateContainer(ctx, "data", nil)
	check(t, err)
	bb := client.ServiceClient().NewContainerClient("data").NewBlockBlobClient("x")
	body := func(s string) io.ReadSeekCloser { return streaming.NopCloser(strings.NewReader(s)) }
	ids := []string{"YWFh", "YmJi", "Y2Nj"}
	for i, id := range ids {
		_, err := bb.StageBlock(ctx, id, body(strings.Repeat(fmt.Sprint(i), 10)), &blockblob.StageBlockOptions{
			TransactionalValidation: sdkblob.TransferValidationTypeComputeCRC64(),
		})
		check(t, err)
	}
	lists, err := bb.GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
	check(t, err)
	if len(lists.UncommittedBlocks) != 3 || len(lists.CommittedBlocks) != 0 {
		t.Errorf("staged: %+v", lists)
	}
	_, err = bb.CommitBlockList(ctx, []string{ids[2], ids[0]}, &blockblob.CommitBlockListOptions{
		AccessConditions: &sdkblob.AccessConditions{ModifiedAccessConditions: &sdkblob.ModifiedAccessConditions{IfNoneMatch: new(azcore.ETagAny)}},
	})
	check(t, err)
	_, err = bb.CommitBlockList(ctx, []string{ids[0]}, &blockblob.CommitBlockListOptions{
		AccessConditions: &sdkblob.AccessConditions{ModifiedAccessConditions: &sdkblob.ModifiedAccessConditions{IfNoneMatch: new(azcore.ETagAny)}},
	})
	if !bloberror.HasCode(err, bloberror.BlobAlreadyExists) {
		t.Errorf("a second commit that must be the first: %v", err)
	}
	r, err := bb.DownloadStream(ctx, &sdkblob.DownloadStreamOptions{Range: sdkblob.HTTPRange{Offset: 8, Count: 4}})
	check(t, err)
	if got, _ := io.ReadAll(r.Body); string(got) != "2200" {
		t.Errorf("a range over two blocks is %q", got)
	}
	_, err = bb.CommitBlockList(ctx, []string{ids[1]}, nil)
	if !bloberror.HasCode(err, bloberror.InvalidBlockList) {
		t.Errorf("a block that the first commit dropped: %v", err)
	}
	_, err = bb.DownloadStream(ctx, &sdkblob.DownloadStreamOptions{Range: sdkblob.HTTPRange{Offset: 100}})
	if !bloberror.HasCode(err, bloberror.InvalidRange) {
		t.Errorf("a range past the end: %v", err)
	}
	props, err := bb.GetProperties(ctx, nil)
	check(t, err)
	_, err = bb.GetProperties(ctx, &sdkblob.GetPropertiesOptions{
		AccessConditions: &sdkblob.AccessConditions{ModifiedAccessConditions: &sdkblob.ModifiedAccessConditions{IfNoneMatch: props.ETag}},
	})
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.StatusCode != 304 {
		t.Errorf("unchanged: %v", err)
	}
	_, err = bb.SetHTTPHeaders(ctx, sdkblob.HTTPHeaders{BlobContentType: new("text/x"), BlobCacheControl: new("no-store")}, nil)
	check(t, err)
	props, err = bb.GetProperties(ctx, nil)
	if err != nil || *props.ContentType != "text/x" || *props.CacheControl != "no-store" || *props.ContentLength != 20 {
		t.Errorf("properties %+v, %v", props, err)
	}
}

func TestSDKHierarchyAndContainers(t *testing.T) {
	_, client := sdkBench(t)
	ctx := t.Context()
	for _, name := range []string{"alpha", "beta", "gamma"} {
		_, err := client.CreateContainer(ctx, name, &azblob.CreateContainerOptions{Metadata: map[string]*string{"k": &name}})
		check(t, err)
	}
	for _, name := range []string{"2026/a", "2026/b", "2027/c", "top", "2026/b/c/d"} {
		_, err := client.UploadBuffer(ctx, "beta", name, []byte("x"), nil)
		check(t, err)
	}
	cc := client.ServiceClient().NewContainerClient("beta")
	walk := func(prefix string, max int32) (found []string) {
		p := cc.NewListBlobsHierarchyPager("/", &sdkcontainer.ListBlobsHierarchyOptions{Prefix: &prefix, MaxResults: &max})
		for p.More() {
			page, err := p.NextPage(ctx)
			check(t, err)
			for _, i := range page.Segment.BlobPrefixes {
				found = append(found, *i.Name)
			}
			for _, i := range page.Segment.BlobItems {
				found = append(found, *i.Name)
			}
		}
		return found
	}
	for _, max := range []int32{1, 2, 5000} {
		if got := walk("", max); !slices.Equal(got, []string{"2026/", "2027/", "top"}) {
			t.Errorf("top level in pages of %d: %q", max, got)
		}
		if got := walk("2026/", max); len(got) != 3 {
			t.Errorf("2026/ in pages of %d: %q", max, got)
		}
	}
	var names []string
	p := client.NewListContainersPager(&service.ListContainersOptions{MaxResults: new(int32(2)), Include: service.ListContainersInclude{Metadata: true}})
	for p.More() {
		page, err := p.NextPage(ctx)
		check(t, err)
		for _, c := range page.ContainerItems {
			names = append(names, *c.Name+*c.Metadata["k"])
		}
	}
	if !slices.Equal(names, []string{"alphaalpha", "betabeta", "gammagamma"}) {
		t.Errorf("containers %q", names)
	}
	_, err := client.DeleteContainer(ctx, "beta", nil)
	check(t, err)
	_, err = client.DownloadStream(ctx, "beta", "top", nil)
	if !bloberror.HasCode(err, bloberror.ContainerNotFound) {
		t.Errorf("a blob of a deleted container: %v", err)
	}
	_, err = client.CreateContainer(ctx, "beta", nil)
	check(t, err)
	if got := walk("", 10); len(got) != 0 {
		t.Errorf("a container made anew holds %q", got)
	}
	info, err := client.ServiceClient().GetAccountInfo(ctx, nil)
	if err != nil || string(*info.AccountKind) != "StorageV2" {
		t.Errorf("account: %+v, %v", info, err)
	}
}

func TestSDKServiceProperties(t *testing.T) {
	b, client := sdkBench(t)
	ctx := t.Context()
	sc := client.ServiceClient()
	_, err := sc.SetProperties(ctx, &service.SetPropertiesOptions{CORS: []*service.CORSRule{{
		AllowedOrigins: new("http://page.example,https://*.example.net"), AllowedMethods: new("GET,PUT"), AllowedHeaders: new("x-ms-*,content-type"),
		ExposedHeaders: new("x-ms-*"), MaxAgeInSeconds: new(int32(60)),
	}}})
	check(t, err)
	b.restart()
	got, err := sc.GetProperties(ctx, nil)
	check(t, err)
	if len(got.CORS) != 1 || *got.CORS[0].AllowedMethods != "GET,PUT" || got.Logging == nil {
		t.Errorf("properties %+v", got)
	}
}

func TestSDKSharedAccessSignatures(t *testing.T) {
	_, client := sdkBench(t)
	ctx := t.Context()
	_, err := client.CreateContainer(ctx, "data", nil)
	check(t, err)
	_, err = client.UploadBuffer(ctx, "data", "dir/a b+c", []byte("hello"), nil)
	check(t, err)
	cc := client.ServiceClient().NewContainerClient("data")
	expiry := time.Now().Add(time.Hour)

	url, err := cc.NewBlobClient("dir/a b+c").GetSASURL(sas.BlobPermissions{Read: true}, expiry, nil)
	check(t, err)
	byBlob, err := blockblob.NewClientWithNoCredential(url, nil)
	check(t, err)
	r, err := byBlob.DownloadStream(ctx, nil)
	check(t, err)
	if got, _ := io.ReadAll(r.Body); string(got) != "hello" {
		t.Errorf("by the blob's signature: %q", got)
	}
	_, err = byBlob.Delete(ctx, nil)
	if !bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch) {
		t.Errorf("deleting with a signature for reading: %v", err)
	}

	url, err = cc.GetSASURL(sas.ContainerPermissions{List: true, Create: true}, expiry, nil)
	check(t, err)
	byContainer, err := sdkcontainer.NewClientWithNoCredential(url, nil)
	check(t, err)
	page, err := byContainer.NewListBlobsFlatPager(nil).NextPage(ctx)
	if err != nil || len(page.Segment.BlobItems) != 1 {
		t.Errorf("listing by the container's signature: %+v, %v", page, err)
	}
	body := func() io.ReadSeekCloser { return streaming.NopCloser(strings.NewReader("new")) }
	_, err = byContainer.NewBlockBlobClient("new").Upload(ctx, body(), nil)
	check(t, err)
	_, err = byContainer.NewBlockBlobClient("new").Upload(ctx, body(), nil)
	if !bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch) {
		t.Errorf("replacing with a signature for creating: %v", err)
	}

	url, err = client.ServiceClient().GetSASURL(sas.AccountResourceTypes{Service: true, Container: true, Object: true},
		sas.AccountPermissions{Read: true, List: true, Write: true, Delete: true, Create: true}, expiry, nil)
	check(t, err)
	byAccount, err := azblob.NewClientWithNoCredential(url, nil)
	check(t, err)
	_, err = byAccount.CreateContainer(ctx, "more", nil)
	check(t, err)
	_, err = byAccount.UploadBuffer(ctx, "more", "x", []byte("y"), nil)
	check(t, err)
	names := 0
	p := byAccount.NewListContainersPager(nil)
	for p.More() {
		page, err := p.NextPage(ctx)
		check(t, err)
		names += len(page.ContainerItems)
	}
	if names != 2 {
		t.Errorf("%d containers", names)
	}
}

func TestSDKCopyLeaseAppend(t *testing.T) {
	_, client := sdkBench(t)
	ctx := t.Context()
	_, err := client.CreateContainer(ctx, "data", nil)
	check(t, err)
	cc := client.ServiceClient().NewContainerClient("data")
	big := bytes.Repeat([]byte("0123456789"), 20_000)
	_, err = client.UploadBuffer(ctx, "data", "from here", big, &azblob.UploadBufferOptions{Metadata: map[string]*string{"k": new("v")}})
	check(t, err)
	copied, err := cc.NewBlobClient("to there").StartCopyFromURL(ctx, cc.NewBlobClient("from here").URL(), nil)
	if err != nil || *copied.CopyStatus != sdkblob.CopyStatusTypeSuccess {
		t.Fatalf("copy: %+v, %v", copied, err)
	}
	_, err = client.DeleteBlob(ctx, "data", "from here", nil)
	check(t, err)
	r, err := client.DownloadStream(ctx, "data", "to there", nil)
	check(t, err)
	if got, _ := io.ReadAll(r.Body); !bytes.Equal(got, big) || *r.Metadata["K"] != "v" && *r.Metadata["k"] != "v" {
		t.Errorf("the copy has %d bytes and metadata %v", len(got), r.Metadata)
	}

	lc, err := sdklease.NewBlobClient(cc.NewBlobClient("to there"), nil)
	check(t, err)
	held, err := lc.AcquireLease(ctx, 15, nil)
	check(t, err)
	_, err = client.DeleteBlob(ctx, "data", "to there", nil)
	if !bloberror.HasCode(err, bloberror.LeaseIDMissing) {
		t.Errorf("deleting what is leased: %v", err)
	}
	_, err = client.DeleteBlob(ctx, "data", "to there", &azblob.DeleteBlobOptions{
		AccessConditions: &sdkblob.AccessConditions{LeaseAccessConditions: &sdkblob.LeaseAccessConditions{LeaseID: held.LeaseID}},
	})
	check(t, err)

	ab := cc.NewAppendBlobClient("log")
	_, err = ab.Create(ctx, nil)
	check(t, err)
	var want bytes.Buffer
	for i := range 40 {
		line := bytes.Repeat([]byte{byte('a' + i%26)}, 1+i*700)
		want.Write(line)
		_, err = ab.AppendBlock(ctx, streaming.NopCloser(bytes.NewReader(line)), nil)
		check(t, err)
	}
	got := make([]byte, want.Len())
	if _, err := client.DownloadBuffer(ctx, "data", "log", got, nil); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("the log differs: %v", err)
	}
}
