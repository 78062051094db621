package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2/checkpoints"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/hub"
)

// shelf is a broker with a hub, and a container of its Blob service.
type shelf struct {
	*millrace.Broker
	t         *testing.T
	namespace string
	blobs     *container.Client
}

// newShelf makes the event hub Orders of 2 partitions with 10 events each. The
// container is not there yet.
func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{t: t}
	var err error
	if s.Broker, err = millrace.Start(t.Context(), millrace.Options{Ephemeral: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.Namespaces().Default().CreateEventHub(t.Context(), "Orders", 2, hub.Settings{Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.fill("Orders", 2, 10)
	if s.blobs, err = container.NewClientFromConnectionString(s.StorageConnectionString(), "checkpoints", nil); err != nil {
		t.Fatal(err)
	}
	p, err := azeventhubs.ParseConnectionString(s.ConnectionString())
	if err != nil {
		t.Fatal(err)
	}
	s.namespace = p.FullyQualifiedNamespace
	return s
}

// fill sends n events to each of a hub's partitions: their bodies are "0", "1", …
func (s *shelf) fill(hub string, partitions, n int) {
	s.t.Helper()
	client, err := azeventhubs.NewProducerClientFromConnectionString(s.ConnectionString(), hub, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close(context.WithoutCancel(s.t.Context()))
	for p := range partitions {
		b, err := client.NewEventDataBatch(s.t.Context(), &azeventhubs.EventDataBatchOptions{PartitionID: new(fmt.Sprint(p))})
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range n {
			if err := b.AddEventData(&azeventhubs.EventData{Body: fmt.Append(nil, i)}, nil); err != nil {
				s.t.Fatal(err)
			}
		}
		if err := client.SendEventDataBatch(s.t.Context(), b, nil); err != nil {
			s.t.Fatal(err)
		}
	}
}

// seek runs the command, and returns the plan that it prints.
func (s *shelf) seek(args ...string) (plan seekPlan, errs string, status int) {
	s.t.Helper()
	var out, e bytes.Buffer
	all := append([]string{"seek", "--hub", "orders", "-o", "json", "--connection-string", s.ConnectionString(), "--storage-connection-string", s.StorageConnectionString()}, args...)
	status = run(s.t.Context(), all, strings.NewReader(""), &out, &e)
	if status == 0 {
		if err := json.Unmarshal(out.Bytes(), &plan); err != nil {
			s.t.Fatalf("%s: %v", out.String(), err)
		}
	}
	return plan, e.String(), status
}

// put writes a blob, or its metadata if it is there.
func (s *shelf) put(name string, metadata map[string]*string) {
	s.t.Helper()
	if _, err := s.blobs.NewBlockBlobClient(name).Upload(s.t.Context(), streaming.NopCloser(bytes.NewReader(nil)), &blockblob.UploadOptions{Metadata: metadata}); err != nil {
		s.t.Fatal(err)
	}
}

// list describes every blob: its name and metadata, and with versions its ETag.
func (s *shelf) list(versions bool) []string {
	s.t.Helper()
	var all []string
	pages := s.blobs.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Include: container.ListBlobsInclude{Metadata: true}})
	for pages.More() {
		page, err := pages.NextPage(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		for _, b := range page.Segment.BlobItems {
			line := strings.TrimPrefix(*b.Name, s.namespace+"/")
			var values []string
			for k, v := range b.Metadata {
				values = append(values, k+"="+*v)
			}
			slices.Sort(values)
			line += " " + strings.Join(values, " ")
			if versions {
				line += " " + string(*b.Properties.ETag)
			}
			all = append(all, line)
		}
	}
	return all
}

// TestSeekWrites checks the blobs, one by one: their names in the spellings that the
// group has, their metadata, and that a dry run leaves even the container alone.
func TestSeekWrites(t *testing.T) {
	s := newShelf(t)
	plan, errs, status := s.seek("--to", "#4", "--dry-run")
	if status != 0 || len(plan.Partitions) != 2 || len(plan.Partitions[0].Moves) != 4 || plan.Partitions[1].Moves[0].Old != nil {
		t.Fatalf("%d %s %+v", status, errs, plan)
	}
	if _, err := s.blobs.GetProperties(t.Context(), nil); err == nil {
		t.Fatal("a dry run has made the container")
	}
	// Nothing tells which SDK reads them: as they are given, in lower case, and so without the port.
	if _, errs, status = s.seek("--to", "#4"); status != 0 {
		t.Fatal(errs)
	}
	host, _, _ := strings.Cut(s.namespace, ":")
	want := []string{
		host + "/orders/$default/checkpoint/0 offset=3 sequencenumber=3", host + "/orders/$default/checkpoint/1 offset=3 sequencenumber=3",
		"Orders/$Default/checkpoint/0 offset=3 sequencenumber=3", "Orders/$Default/checkpoint/1 offset=3 sequencenumber=3",
		"orders/$Default/checkpoint/0 offset=3 sequencenumber=3", "orders/$Default/checkpoint/1 offset=3 sequencenumber=3",
		"orders/$default/checkpoint/0 offset=3 sequencenumber=3", "orders/$default/checkpoint/1 offset=3 sequencenumber=3",
	}
	if d := cmp.Diff(want, s.list(false)); d != "" {
		t.Fatal(d)
	}
	before := s.list(true)
	for _, to := range []string{"earliest", "latest", "#0", "#10", "@7", "-1h"} {
		if _, errs, status := s.seek("--to", to, "--dry-run"); status != 0 {
			t.Fatal(to, errs)
		}
	}
	for _, refused := range []string{"#11", "@70"} {
		if _, _, status := s.seek("--to", refused); status == 0 {
			t.Fatal(refused)
		}
	}
	if d := cmp.Diff(before, s.list(true)); d != "" {
		t.Fatal(d)
	}
}

// TestSeekSpellings moves the checkpoints that a group has, and no others: those of
// Go's SDK have the names as they are given, the other SDKs' are in lower case.
func TestSeekSpellings(t *testing.T) {
	for group, has := range map[string]string{"go": "Orders/$Default", "python": "orders/$default"} {
		t.Run(group, func(t *testing.T) {
			s := newShelf(t)
			if _, err := s.blobs.Create(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			s.put(s.namespace+"/"+has+"/ownership/0", map[string]*string{"ownerid": new("")})
			plan, errs, status := s.seek("--to", "earliest", "--partition", "1")
			if status != 0 || len(plan.Partitions) != 1 || len(plan.Partitions[0].Moves) != 1 {
				t.Fatalf("%+v %s", plan, errs)
			}
			want := []string{has + "/checkpoint/1 offset=-1 sequencenumber=-1", has + "/ownership/0 ownerid="}
			if d := cmp.Diff(want, s.list(false)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestSeekRepairs reads checkpoints that SDKs stop at, and makes them whole.
func TestSeekRepairs(t *testing.T) {
	s := newShelf(t)
	if _, err := s.blobs.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	folder := s.namespace + "/orders/$default/checkpoint/"
	s.put(folder+"0", map[string]*string{"offset": new("6"), "sequencenumber": new("")})
	s.put(folder+"1", map[string]*string{"Offset": new("6"), "SequenceNumber": new("6")})
	plan, errs, status := s.seek("--to", "#9")
	if status != 0 {
		t.Fatal(errs)
	}
	first, second := plan.Partitions[0].Moves[0], plan.Partitions[1].Moves[0]
	if first.Old == nil || first.Old.Sequence != nil || first.Old.Offset != "6" || first.Skipped != nil {
		t.Errorf("%+v", first)
	}
	if second.Old == nil || *second.Old.Sequence != 6 || *second.Skipped != 2 || *second.Again != 0 {
		t.Errorf("%+v", second)
	}
	store, err := checkpoints.NewBlobStore(s.blobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := store.ListCheckpoints(t.Context(), s.namespace, "orders", "$default", nil)
	if err != nil || len(all) != 2 || *all[0].SequenceNumber != 8 || *all[1].Offset != "8" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestSeekNoticesWhoComes: a consumer that claims a partition while its checkpoint
// is moved may have read the old one.
func TestSeekNoticesWhoComes(t *testing.T) {
	s := newShelf(t)
	if _, err := s.blobs.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	o := &seekOptions{group: "$Default", expiry: time.Minute}
	o.storage.container = "checkpoints"
	x := &seeker{seekOptions: o, store: s.blobs, names: spellings(s.namespace, []string{"Orders"}, "$Default"), plan: seekPlan{Hub: "Orders"}}
	for _, id := range []string{"0", "1"} {
		x.plan.Partitions = append(x.plan.Partitions, &seekPartition{ID: id})
	}
	if err := x.recheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.put(s.namespace+"/Orders/$Default/ownership/1", map[string]*string{"ownerid": new("newcomer")})
	if err := x.recheck(t.Context()); err == nil || !strings.Contains(err.Error(), "partition 1 is owned by newcomer") {
		t.Fatal(err)
	}
	x.plan.Partitions[1].Moves = []*seekMove{{Blob: s.namespace + "/Orders/$Default/checkpoint/1", Owner: &owner{Name: "newcomer"}}}
	if err := x.recheck(t.Context()); err != nil {
		t.Fatal(err) // it was there before, and --force was given
	}
}

func TestSeekCounts(t *testing.T) {
	at := func(n int64) *checkpoint { return &checkpoint{Sequence: &n, Offset: fmt.Sprint(n)} }
	for _, c := range []struct {
		first, end     int64
		old            *checkpoint
		next           int64
		again, skipped int64
	}{
		{0, 10, at(9), 4, 6, 0},
		{0, 10, at(3), 4, 0, 0},
		{0, 10, at(-1), 4, 0, 4},
		{5, 10, at(1), 8, 0, 3},   // what retention took is not skipped
		{5, 10, at(7), 5, 3, 0},   // nor delivered again
		{0, 10, at(99), 10, 0, 0}, // of a hub that was made again
		{0, 0, at(-1), 0, 0, 0},
	} {
		m := &seekMove{Old: c.old}
		if m.count(extent{first: c.first, end: c.end}, c.next); *m.Again != c.again || *m.Skipped != c.skipped {
			t.Errorf("%+v: %d again, %d skipped", c, *m.Again, *m.Skipped)
		}
	}
}

// TestSeekBefore: where no event is before the next one, the checkpoint is the
// beginning; at the end it is the last event, though it may be gone.
func TestSeekBefore(t *testing.T) {
	for _, c := range []struct {
		first, end, next int64
		lastOffset       string
		want             checkpoint
	}{
		{0, 0, 0, "-1", checkpoint{new(int64(-1)), "-1"}},
		{0, 0, 0, "", checkpoint{new(int64(-1)), "-1"}},
		{7, 12, 7, "6:7:8", checkpoint{new(int64(-1)), "-1"}},
		{7, 12, 12, "6:7:8", checkpoint{new(int64(11)), "6:7:8"}},
		{12, 12, 12, "6:7:8", checkpoint{new(int64(11)), "6:7:8"}}, // nothing is left
	} {
		p := &seekPartition{extent: extent{first: c.first, end: c.end}}
		p.extent.last.LastEnqueuedSequenceNumber, p.extent.last.LastEnqueuedOffset = c.end-1, c.lastOffset
		got, err := new(seeker).before(t.Context(), p, c.next)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%+v: %v %s", c, err, d)
		}
	}
}
