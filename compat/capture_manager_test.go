package compat

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/eventhub/armeventhub"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"github.com/millrace/millrace/admin"
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
	names, bodies := m.capturedIn("lake")
	if len(names) != 1 || !strings.HasPrefix(names[0], "localhost/captured/p0/20") || !strings.HasSuffix(names[0], ".avro") {
		t.Errorf("the files are %v", names)
	}
	if !slices.Equal(bodies, []string{"one", "two"}) {
		t.Errorf("the file has %q", bodies)
	}
}

// atomCapture is a hub's entry as far as capture goes.
type atomCapture struct {
	Destination struct {
		Name       string
		Properties struct{ ArchiveNameFormat, BlobContainer, StorageAccountResourceId string }
	}
	Enabled           bool
	Encoding          string
	IntervalInSeconds int32
	SizeLimitInBytes  int32
	SkipEmptyArchives bool
}

func fromARM(c *armeventhub.CaptureDescription) *atomCapture {
	x := &atomCapture{Enabled: *c.Enabled, Encoding: string(*c.Encoding), IntervalInSeconds: *c.IntervalInSeconds, SizeLimitInBytes: *c.SizeLimitInBytes, SkipEmptyArchives: *c.SkipEmptyArchives}
	p := &x.Destination.Properties
	p.ArchiveNameFormat, p.BlobContainer = value(c.Destination.Properties.ArchiveNameFormat), value(c.Destination.Properties.BlobContainer)
	p.StorageAccountResourceId = value(c.Destination.Properties.StorageAccountResourceID)
	return x
}

// plain is the same as the commands' interface has it.
func (x *atomCapture) plain() *admin.Capture {
	p := &x.Destination.Properties
	return &admin.Capture{
		Enabled: x.Enabled, Interval: admin.Duration(time.Duration(x.IntervalInSeconds) * time.Second), Bytes: int64(x.SizeLimitInBytes), SkipEmpty: x.SkipEmptyArchives, Format: x.Encoding,
		NameFormat: p.ArchiveNameFormat, Destination: p.StorageAccountResourceId[strings.LastIndexByte(p.StorageAccountResourceId, '/')+1:], Container: p.BlobContainer,
	}
}

// command runs millrace against the broker. An error is what it says.
func (m *manager) command(args ...string) (string, error) {
	cmd := exec.CommandContext(m.ctx, Binary(m.T), append(args, "--url", "http://"+m.HTTP, "--connection-string", m.ConnectionString)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return string(out), err
}

// TestCaptureByEveryManager changes the capture of a hub over ATOM, with the resource
// manager, the commands' interface and a command in turn. Each shows what all the
// others have made of it, and refuses what can't be in the same words.
func TestCaptureByEveryManager(t *testing.T) {
	m := newManager(t, policy.RetryOptions{})
	f := newAtomFace(m.Broker, "localhost")
	const account = "/subscriptions/" + subscription + "/resourceGroups/" + group + "/providers/Microsoft.Storage/storageAccounts/devstoreaccount1"
	atom := func(capture string, match http.Header) (int, string) {
		t.Helper()
		if capture != "" {
			capture = "<CaptureDescription>" + capture + "</CaptureDescription>"
		}
		status, text, err := f.ask(http.MethodPut, "/captured", fmt.Sprintf(atomEntry, "EventHubDescription", "<PartitionCount>1</PartitionCount>"+capture), match)
		if err != nil {
			t.Fatal(err)
		}
		return status, string(text)
	}
	arm := func(c *armeventhub.CaptureDescription) error {
		_, err := m.hubs.CreateOrUpdate(m.ctx, group, "localhost", "captured", armeventhub.Eventhub{Properties: &armeventhub.Properties{CaptureDescription: c}}, nil)
		return err
	}
	want := admin.Capture{
		Enabled: true, Interval: admin.Duration(2 * time.Minute), Bytes: 20 << 20, SkipEmpty: true, Format: "Avro",
		NameFormat: "{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}", Destination: "devstoreaccount1", Container: "lake",
	}
	agree := func(after string) {
		t.Helper()
		var byCommand admin.Hub
		if text, err := m.command("hub", "show", "captured", "-o", "json"); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal([]byte(text), &byCommand); err != nil {
			t.Fatal(err)
		}
		byAdmin := must(m.Admin().Hub(m.ctx, "captured"))(m)
		c := must(m.hubs.Get(m.ctx, group, "localhost", "captured", nil))(m).Properties.CaptureDescription
		status, text, err := f.ask(http.MethodGet, "/captured", "", nil)
		var e struct {
			Capture *atomCapture `xml:"content>EventHubDescription>CaptureDescription"`
		}
		if err == nil {
			err = xml.Unmarshal(text, &e)
		}
		if err != nil || status != http.StatusOK || e.Capture == nil || c == nil {
			t.Fatalf("%s: %d %s, %v; the resource manager has %v", after, status, text, err, c)
		}
		same(m, "the destination's name", c.Destination.Name, e.Capture.Destination.Name)
		same(m, "the account", c.Destination.Properties.StorageAccountResourceID, e.Capture.Destination.Properties.StorageAccountResourceId)
		for by, have := range map[string]*admin.Capture{
			"a command": byCommand.Capture, "the commands' interface": byAdmin.Capture, "ATOM": e.Capture.plain(), "the resource manager": fromARM(c).plain(),
		} {
			if diff := cmp.Diff(&want, have); diff != "" {
				t.Errorf("%s, %s shows %s", after, by, diff)
			}
		}
		// What was read can be sent back, and changes nothing.
		if status, again, err := f.ask(http.MethodPut, "/captured", string(text), http.Header{"If-Match": {"*"}}); status != http.StatusOK || err != nil {
			t.Errorf("%s: what was read is refused: %d %s %v", after, status, again, err)
		}
	}
	there := http.Header{"If-Match": {"*"}}
	took := func(status int, text string) {
		t.Helper()
		if status > http.StatusCreated {
			t.Fatalf("%d %s", status, text)
		}
	}
	took(atom("<SkipEmptyArchives>true</SkipEmptyArchives><Enabled>true</Enabled><IntervalInSeconds>120</IntervalInSeconds><SizeLimitInBytes>20971520</SizeLimitInBytes><Encoding>Avro</Encoding>"+
		"<Destination><Properties><ArchiveNameFormat>"+want.NameFormat+"</ArchiveNameFormat><BlobContainer>lake</BlobContainer><StorageAccountResourceId>"+account+"</StorageAccountResourceId></Properties></Destination>", nil))
	agree("made by ATOM")
	for _, body := range []string{"one", "two"} {
		if status, text := m.postTo("captured", body); status != http.StatusCreated {
			t.Fatalf("%d %s", status, text)
		}
	}
	took(atom("", there))
	agree("changed by ATOM without a word of it")
	if err := arm(&armeventhub.CaptureDescription{IntervalInSeconds: new(int32(180))}); err != nil {
		t.Fatal(err)
	}
	want.Interval = admin.Duration(3 * time.Minute)
	agree("changed by the resource manager")
	took(atom("<SizeLimitInBytes>10485760</SizeLimitInBytes>", there))
	want.Bytes = 10 << 20
	agree("changed by ATOM")
	if _, err := m.command("hub", "update", "captured", "--capture-skip-empty=false"); err != nil {
		t.Fatal(err)
	}
	want.SkipEmpty = false
	agree("changed by a command")
	must(m.Admin().UpdateHub(m.ctx, "captured", admin.HubChange{Capture: &admin.CaptureChange{HeaderOnly: new(true)}}))(m)
	took(atom("<SkipEmptyArchives>true</SkipEmptyArchives>", there)) // what it can't say stays
	if h := must(m.Admin().Hub(m.ctx, "captured"))(m); !h.Capture.HeaderOnly {
		t.Errorf("%+v", h.Capture)
	}
	must(m.Admin().UpdateHub(m.ctx, "captured", admin.HubChange{Capture: &admin.CaptureChange{HeaderOnly: new(false)}}))(m)
	want.SkipEmpty = true
	agree("changed by the commands' interface")
	m.Kill()
	m.Restart()
	agree("after a kill")

	const reason = "The time window of Capture is from 60 to 900 whole seconds, not 59s."
	status, text := atom("<IntervalInSeconds>59</IntervalInSeconds>", there)
	_, byAdmin := m.Admin().UpdateHub(m.ctx, "captured", admin.HubChange{Capture: &admin.CaptureChange{Interval: new(admin.Duration(59 * time.Second))}})
	_, byCommand := m.command("hub", "update", "captured", "--capture-interval", "59s")
	for by, said := range map[string]string{
		"ATOM": fmt.Sprint(status, text), "the resource manager": fmt.Sprint(arm(&armeventhub.CaptureDescription{IntervalInSeconds: new(int32(59))})),
		"the commands' interface": fmt.Sprint(byAdmin), "a command": fmt.Sprint(byCommand),
	} {
		if !strings.Contains(said, reason) || by == "ATOM" && status != http.StatusBadRequest {
			t.Errorf("%s says %s", by, said)
		}
	}
	agree("after refusals")

	took(atom("<Enabled>false</Enabled>", there)) // what is there is then written
	want.Enabled = false
	agree("turned off by ATOM")
	if _, bodies := m.capturedIn("lake"); !slices.Equal(bodies, []string{"one", "two"}) {
		t.Errorf("the files have %q", bodies)
	}
}

// capturedIn waits until every event of the hub "captured" is in a file, and reads
// those of a container with the storage SDK.
func (m *manager) capturedIn(container string) (names, bodies []string) {
	m.Helper()
	m.await0Backlog("captured")
	blobs, err := azblob.NewClientFromConnectionString(m.StorageConnectionString, nil)
	if err != nil {
		m.Fatal(err)
	}
	for p := blobs.NewListBlobsFlatPager(container, nil); p.More(); {
		page, err := p.NextPage(m.ctx)
		if err != nil {
			m.Fatal(err)
		}
		for _, b := range page.Segment.BlobItems {
			names = append(names, *b.Name)
		}
	}
	for _, name := range names {
		got, err := blobs.DownloadStream(m.ctx, container, name, nil)
		if err != nil {
			m.Fatal(err)
		}
		file, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil {
			m.Fatal(err)
		}
		before := len(bodies)
		r, err := avro.NewReader(bytes.NewReader(file))
		if err != nil {
			m.Fatal(err)
		}
		e, err := r.Next()
		for ; err == nil; e, err = r.Next() {
			bodies = append(bodies, string(e.Body))
		}
		if !errors.Is(err, io.EOF) {
			m.Fatal(err)
		}
		if n := got.Metadata["Count"]; n == nil || *n != fmt.Sprint(len(bodies)-before) {
			m.Errorf("%s: the metadata is %v, and %d events are in it", name, got.Metadata, len(bodies)-before)
		}
	}
	return names, bodies
}
