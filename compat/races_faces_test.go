package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/eventhub/armeventhub"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
)

// face is one of the interfaces by which event hubs are managed. It may be used
// by many goroutines.
type face interface {
	name() string
	// verbs are what it can do.
	verbs() []verb
	// do does an operation. An error goes with the status 0, and with one that
	// nobody expects.
	do(op *raceOp) (raceAnswer, error)
	// all returns the hubs of the race, without their events.
	all() (map[string]raceHub, error)
}

// raceTimeout is what a client may take for one operation before it counts as
// hanging.
const raceTimeout = time.Minute

func raceContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), raceTimeout)
}

// put adds a hub with its groups, which are the race's own and $Default.
func put(to map[string]raceHub, name string, h raceHub, groups map[string]string) error {
	if !strings.HasPrefix(name, "race-") {
		return nil
	}
	if _, ok := to[name]; ok {
		return fmt.Errorf("%s is listed twice", name)
	}
	if _, ok := groups["$Default"]; !ok {
		return fmt.Errorf("%s has no group $Default: %v", name, groups)
	}
	n := 1
	for i := range h.Groups {
		metadata, ok := groups[groupName(i)]
		if !ok {
			continue
		}
		n++
		if h.Groups[i] = metadata; metadata == "" {
			h.Groups[i] = noMetadata
		}
	}
	if n != len(groups) {
		return fmt.Errorf("%s has groups that nobody made: %v", name, groups)
	}
	to[name] = h
	return nil
}

// raceCapture is how a race's hubs are captured: not at all, and to a container whose
// name is the metadata. So whoever sees half of a change sees two that differ.
func raceCapture(metadata string) *admin.CaptureChange {
	return &admin.CaptureChange{Enabled: new(false), Container: &metadata}
}

// torn tells whether a hub's metadata and its container are of two changes.
func torn(name, metadata, container string) error {
	if metadata != container {
		return fmt.Errorf("%s has the metadata %q, and is captured to %q: half of a change", name, metadata, container)
	}
	return nil
}

// partitionsOf counts partition ids, which are 0, 1, 2 and so on.
func partitionsOf(ids []string) (int, error) {
	for i, id := range ids {
		if id != strconv.Itoa(i) {
			return 0, fmt.Errorf("the partitions are %v", ids)
		}
	}
	return len(ids), nil
}

// atomFace is ATOM over HTTP, as the service's REST pages have it.
type atomFace struct {
	base, namespace, token string
	http                   *http.Client
}

func newAtomFace(b *Broker, namespace string) *atomFace {
	return &atomFace{
		base: "http://" + b.HTTP, namespace: namespace, token: auth.SignSAS("http://"+namespace+"/", "RootManageSharedAccessKey", "SAS_KEY_VALUE", time.Now().Add(24*time.Hour)),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * raceClients}},
	}
}

func (*atomFace) name() string { return "atom" }

func (*atomFace) verbs() []verb {
	return []verb{createHub, createHub, changeHub, changeHub, deleteHub, createGroup, changeGroup, deleteGroup, sendEvent, sendEvent, sendEvent, sendEvent, look}
}

const atomEntry = `<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml">` +
	`<%[1]s xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect">%[2]s</%[1]s></content></entry>`

// ask does a request. The status is 0 if there was no answer.
func (f *atomFace) ask(method, path, body string, header http.Header) (int, []byte, error) {
	ctx, cancel := raceContext()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, f.base+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	maps.Copy(req.Header, header)
	req.Host = f.namespace
	req.Header.Set("Authorization", f.token)
	resp, err := f.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

func (f *atomFace) do(op *raceOp) (raceAnswer, error) {
	hub := fmt.Sprintf(atomEntry, "EventHubDescription", fmt.Sprintf("<UserMetadata>%s</UserMetadata><PartitionCount>%d</PartitionCount>"+
		"<CaptureDescription><Enabled>false</Enabled><Destination><Properties><BlobContainer>%[1]s</BlobContainer></Properties></Destination></CaptureDescription>", op.metadata, op.partitions))
	group := fmt.Sprintf(atomEntry, "ConsumerGroupDescription", "<UserMetadata>"+op.metadata+"</UserMetadata>")
	groupPath := "/" + op.hub + "/consumergroups/" + groupName(op.group)
	there := http.Header{"If-Match": {"*"}}
	var status int
	var text []byte
	var err error
	switch op.verb {
	case createHub:
		status, text, err = f.ask(http.MethodPut, "/"+op.hub, hub, nil)
	case changeHub:
		status, text, err = f.ask(http.MethodPut, "/"+op.hub, hub, there)
	case deleteHub:
		status, text, err = f.ask(http.MethodDelete, "/"+op.hub, "", nil)
	case createGroup:
		status, text, err = f.ask(http.MethodPut, groupPath, group, nil)
	case changeGroup:
		status, text, err = f.ask(http.MethodPut, groupPath, group, there)
	case deleteGroup:
		status, text, err = f.ask(http.MethodDelete, groupPath, "", nil)
	case sendEvent:
		status, text, err = f.ask(http.MethodPost, "/"+op.hub+"/partitions/0/messages", "x", nil)
	case look:
		if status, text, err = f.ask(http.MethodGet, "/"+op.hub, "", nil); status == http.StatusOK {
			var e atomHub
			if err = xml.Unmarshal(text, &e); err != nil {
				return raceAnswer{}, err // it died while it was answering
			}
			if err = torn(op.hub, e.Description.Metadata, e.Description.Container); err != nil {
				return raceAnswer{}, err
			}
			return raceAnswer{status: status, seen: raceHub{Metadata: e.Description.Metadata}}, nil
		}
	}
	if status == http.StatusCreated {
		status = http.StatusOK
	}
	if err == nil && status != http.StatusOK {
		err = errors.New(string(text))
	}
	return raceAnswer{status: status}, err
}

// atomHub is an entry for a hub or a group.
type atomHub struct {
	Title       string `xml:"title"`
	Description struct {
		Metadata   string   `xml:"UserMetadata"`
		Partitions int      `xml:"PartitionCount"`
		Container  string   `xml:"CaptureDescription>Destination>Properties>BlobContainer"`
		IDs        []string `xml:"PartitionIds>string"`
	} `xml:"content>EventHubDescription"`
	Group struct {
		Metadata string `xml:"UserMetadata"`
	} `xml:"content>ConsumerGroupDescription"`
	Partition struct {
		Size  int64 `xml:"SizeInBytes"`
		Begin int64 `xml:"BeginSequenceNumber"`
		End   int64 `xml:"EndSequenceNumber"`
	} `xml:"content>PartitionDescription"`
}

// list reads a feed.
func (f *atomFace) list(path string) ([]atomHub, error) {
	status, text, err := f.ask(http.MethodGet, path, "", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d: %s", status, text)
	}
	var feed struct {
		Entries []atomHub `xml:"entry"`
	}
	if err == nil {
		err = xml.Unmarshal(text, &feed)
	}
	return feed.Entries, err
}

func (f *atomFace) all() (map[string]raceHub, error) {
	hubs, err := f.list("/$Resources/EventHubs")
	if err != nil {
		return nil, err
	}
	out := map[string]raceHub{}
	for _, e := range hubs {
		n, err := partitionsOf(e.Description.IDs)
		if err != nil || n != e.Description.Partitions {
			return nil, fmt.Errorf("%s: %d partitions, %v", e.Title, e.Description.Partitions, err)
		}
		if err := torn(e.Title, e.Description.Metadata, e.Description.Container); err != nil {
			return nil, err
		}
		list, err := f.list("/" + e.Title + "/consumergroups")
		if err != nil {
			return nil, err
		}
		groups := map[string]string{}
		for _, g := range list {
			groups[g.Title] = g.Group.Metadata
		}
		if err := put(out, e.Title, raceHub{Partitions: n, Metadata: e.Description.Metadata}, groups); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// armFace is the resource manager's, by its SDK for Go.
type armFace struct{ m *manager }

func (*armFace) name() string { return "arm" }

func (*armFace) verbs() []verb {
	return []verb{putHub, putHub, putHub, deleteHub, putGroup, deleteGroup, look}
}

func (f *armFace) do(op *raceOp) (raceAnswer, error) {
	ctx, cancel := raceContext()
	defer cancel()
	var resp *http.Response
	ctx = policy.WithCaptureResponse(ctx, &resp)
	var got raceAnswer
	var err error
	switch op.verb {
	case putHub:
		_, err = f.m.hubs.CreateOrUpdate(ctx, group, "localhost", op.hub, armeventhub.Eventhub{Properties: &armeventhub.Properties{
			PartitionCount: new(int64(op.partitions)), UserMetadata: &op.metadata, CaptureDescription: &armeventhub.CaptureDescription{
				Enabled: new(false), Destination: &armeventhub.Destination{Properties: &armeventhub.DestinationProperties{BlobContainer: &op.metadata}}},
		}}, nil)
	case deleteHub:
		_, err = f.m.hubs.Delete(ctx, group, "localhost", op.hub, nil)
	case putGroup:
		_, err = f.m.groups.CreateOrUpdate(ctx, group, "localhost", op.hub, groupName(op.group), armeventhub.ConsumerGroup{Properties: &armeventhub.ConsumerGroupProperties{UserMetadata: &op.metadata}}, nil)
	case deleteGroup:
		_, err = f.m.groups.Delete(ctx, group, "localhost", op.hub, groupName(op.group), nil)
	case look:
		var h armeventhub.EventHubsClientGetResponse
		if h, err = f.m.hubs.Get(ctx, group, "localhost", op.hub, nil); err == nil {
			got.seen.Metadata = *h.Properties.UserMetadata
			err = torn(op.hub, got.seen.Metadata, containerOf(h.Properties))
		}
	}
	var refused *azcore.ResponseError
	switch {
	case resp == nil, err != nil && !errors.As(err, &refused): // no answer, or half of one
		return raceAnswer{}, err
	case resp.StatusCode == http.StatusNoContent: // of what there was not
		got.status = http.StatusNotFound
	default:
		got.status = resp.StatusCode
	}
	return got, err
}

func (f *armFace) all() (map[string]raceHub, error) {
	out := map[string]raceHub{}
	for _, h := range every(f.m, f.m.hubs.NewListByNamespacePager(group, "localhost", nil), func(r armeventhub.EventHubsClientListByNamespaceResponse) []*armeventhub.Eventhub {
		return r.Value
	}) {
		groups := map[string]string{}
		for _, g := range every(f.m, f.m.groups.NewListByEventHubPager(group, "localhost", *h.Name, nil), func(r armeventhub.ConsumerGroupsClientListByEventHubResponse) []*armeventhub.ConsumerGroup {
			return r.Value
		}) {
			groups[*g.Name] = value(g.Properties.UserMetadata)
		}
		n, err := partitionsOf(apply(h.Properties.PartitionIDs, func(id *string) string { return *id }))
		if err != nil || int64(n) != *h.Properties.PartitionCount {
			return nil, fmt.Errorf("%s: %d partitions, %v", *h.Name, *h.Properties.PartitionCount, err)
		}
		if err := torn(*h.Name, value(h.Properties.UserMetadata), containerOf(h.Properties)); err != nil {
			return nil, err
		}
		if err := put(out, *h.Name, raceHub{Partitions: n, Metadata: value(h.Properties.UserMetadata)}, groups); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func containerOf(p *armeventhub.Properties) string {
	if c := p.CaptureDescription; c != nil && c.Destination != nil && c.Destination.Properties != nil {
		return value(c.Destination.Properties.BlobContainer)
	}
	return ""
}

func value[V any](p *V) (v V) {
	if p != nil {
		v = *p
	}
	return v
}

// adminFace is what the commands use.
type adminFace struct{ c *admin.Client }

func newAdminFace(b *Broker) *adminFace {
	return &adminFace{b.adminWith(&http.Client{Timeout: raceTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: raceClients}})}
}

func (*adminFace) name() string { return "admin" }

func (*adminFace) verbs() []verb {
	return []verb{createHub, createHub, changeHub, deleteHub, createGroup, deleteGroup, look}
}

func (f *adminFace) do(op *raceOp) (raceAnswer, error) {
	ctx, cancel := raceContext()
	defer cancel()
	got := raceAnswer{status: http.StatusOK}
	var err error
	switch op.verb {
	case createHub:
		_, err = f.c.CreateHub(ctx, admin.NewHub{Name: op.hub, Partitions: op.partitions, Metadata: op.metadata, Capture: raceCapture(op.metadata)})
	case changeHub:
		_, err = f.c.UpdateHub(ctx, op.hub, admin.HubChange{Partitions: op.partitions, Metadata: &op.metadata, Capture: raceCapture(op.metadata)})
	case deleteHub:
		err = f.c.DeleteHub(ctx, op.hub)
	case createGroup:
		_, err = f.c.CreateGroup(ctx, op.hub, groupName(op.group))
	case deleteGroup:
		err = f.c.DeleteGroup(ctx, op.hub, groupName(op.group))
	case look:
		var h admin.Hub
		h, err = f.c.Hub(ctx, op.hub)
		got.seen.Metadata = h.Metadata
		if err == nil {
			err = torn(op.hub, h.Metadata, containerIn(h.Capture))
		}
	}
	if err == nil {
		return got, nil
	}
	var refused *admin.Error
	if errors.As(err, &refused) {
		return raceAnswer{status: refused.Status}, err
	}
	return raceAnswer{}, err
}

func (f *adminFace) all() (map[string]raceHub, error) {
	ctx, cancel := raceContext()
	defer cancel()
	hubs, err := f.c.Hubs(ctx)
	if err != nil {
		return nil, err
	}
	return fromAdmin(hubs)
}

func containerIn(c *admin.Capture) string {
	if c == nil {
		return ""
	}
	return c.Container
}

// fromAdmin is what the commands' interface shows, which of groups has the names.
func fromAdmin(hubs []admin.Hub) (map[string]raceHub, error) {
	out := map[string]raceHub{}
	for _, h := range hubs {
		groups := map[string]string{}
		for _, g := range h.Groups {
			groups[g] = ""
		}
		if len(groups) != len(h.Groups) {
			return nil, fmt.Errorf("%s has a group twice: %v", h.Name, h.Groups)
		}
		if err := torn(h.Name, h.Metadata, containerIn(h.Capture)); err != nil {
			return nil, err
		}
		if err := put(out, h.Name, raceHub{Partitions: h.Partitions, Metadata: h.Metadata}, groups); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// command is what `millrace hub list` prints.
func (r *race) command() (map[string]raceHub, error) {
	cmd := exec.Command(Binary(r.T), "hub", "list", "-o", "json", "--url", "http://"+r.HTTP, "--connection-string", r.ConnectionString)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("millrace hub list: %w: %s", err, errs.String())
	}
	var hubs []admin.Hub
	if err := json.Unmarshal(text, &hubs); err != nil {
		return nil, err
	}
	return fromAdmin(hubs)
}

// overAMQP asks for a hub as the SDK for Go does, and adds how many events it has:
// its partitions are there, all of them, and number their events from 0 on. One
// that is not there can't be described.
func (r *race) overAMQP(name string, h *raceHub) {
	r.Helper()
	ctx, cancel := raceContext()
	defer cancel()
	p, err := eventhubs.NewProducerClientFromConnectionString(r.ConnectionString, name, &eventhubs.ProducerClientOptions{RetryOptions: eventhubs.RetryOptions{MaxRetries: -1}})
	if err != nil {
		r.Fatal(err)
	}
	defer closeSoon(p)
	props, err := p.GetEventHubProperties(ctx, nil)
	if !h.there() {
		if err == nil || !strings.Contains(err.Error(), "could not be found") {
			r.Errorf("%s is not there, and over AMQP it is %+v, %v", name, props, err)
		}
		return
	}
	if err != nil || props.Name != name || len(props.PartitionIDs) != h.Partitions {
		r.Errorf("%s has %d partitions, and over AMQP it is %+v, %v", name, h.Partitions, props, err)
		return
	}
	entries, err := r.faces[0].(*atomFace).list("/" + name + "/partitions")
	if err != nil || len(entries) != h.Partitions {
		r.Errorf("%s: the partitions are %+v, %v", name, entries, err)
		return
	}
	for i, e := range entries {
		x, err := p.GetPartitionProperties(ctx, strconv.Itoa(i), nil)
		first := int64(0)
		if err == nil && x.IsEmpty {
			first = -1
		}
		switch {
		case err != nil || !slices.Contains(props.PartitionIDs, x.PartitionID):
			r.Errorf("%s, partition %d: %+v, %v", name, i, x, err)
		case x.BeginningSequenceNumber != first, x.IsEmpty != (x.LastEnqueuedSequenceNumber == -1), i > 0 && !x.IsEmpty:
			r.Errorf("%s, partition %d: %+v; it begins at 0, and only partition 0 was sent to", name, i, x)
		case e.Partition.Begin != 0 || e.Partition.End != x.LastEnqueuedSequenceNumber:
			r.Errorf("%s, partition %d: over AMQP %+v, over ATOM %+v", name, i, x, e.Partition)
		}
		if i == 0 {
			h.Events = int(x.LastEnqueuedSequenceNumber) + 1
		}
	}
}
