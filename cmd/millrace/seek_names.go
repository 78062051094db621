package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// spelling is how the blobs of a group are named. The SDKs for .NET, Java,
// JavaScript and Python fold namespace, hub and group to lower case. Go's takes them
// as they are given, so that even the group $Default has two spellings. And Java's
// leaves out the port of a namespace that has one.
type spelling struct {
	namespace, hub, group string
}

// spellings are the ways in which a group's blobs may be named, each once. The
// hub's name comes as it is given and as the broker has it.
func spellings(namespace string, hubs []string, group string) []spelling {
	var all []spelling
	add := func(s spelling) {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	for _, hub := range hubs {
		add(spelling{namespace, hub, group})
	}
	folded := spelling{strings.ToLower(namespace), strings.ToLower(hubs[0]), strings.ToLower(group)}
	add(folded)
	if host, _, err := net.SplitHostPort(folded.namespace); err == nil {
		add(spelling{host, folded.hub, folded.group})
	}
	return all
}

func (s spelling) folder() string { return s.namespace + "/" + s.hub + "/" + s.group + "/" }

func (s spelling) checkpoint(partition string) string { return s.folder() + "checkpoint/" + partition }

// groupBlobs are a group's blobs of one spelling, by partition.
type groupBlobs struct {
	spelling
	checkpoints map[string]checkpoint
	owners      map[string]owner
}

// checkpoint is the last event that a group has processed in a partition.
type checkpoint struct {
	// Sequence is nil where the writer left it out.
	Sequence *int64 `json:"sequenceNumber,omitempty"`
	Offset   string `json:"offset,omitempty"`
}

// owner is who has a partition.
type owner struct {
	Name    string    `json:"name"`
	Renewed time.Time `json:"renewed"`
	Age     float64   `json:"ageSeconds"`
}

// readGroup lists a group's blobs of one spelling. It is more lenient than the SDKs,
// which stop at a checkpoint that isn't whole: one may be here to be repaired.
func readGroup(ctx context.Context, c *container.Client, s spelling, now time.Time) (*groupBlobs, error) {
	g := &groupBlobs{spelling: s, checkpoints: map[string]checkpoint{}, owners: map[string]owner{}}
	prefix := s.folder()
	pages := c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix, Include: container.ListBlobsInclude{Metadata: true}})
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if bloberror.HasCode(err, bloberror.ContainerNotFound) {
			return g, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the checkpoints can't be read: %w", explain(err))
		}
		for _, b := range page.Segment.BlobItems {
			if b.Name != nil && b.Properties != nil && b.Properties.LastModified != nil {
				g.take(strings.TrimPrefix(*b.Name, prefix), b.Metadata, *b.Properties.LastModified, now)
			}
		}
	}
	return g, nil
}

// take adds a blob, by its name after the group's folder.
func (g *groupBlobs) take(name string, metadata map[string]*string, modified, now time.Time) {
	value := func(key string) string {
		for k, v := range metadata { // older writers had capitals in them
			if strings.EqualFold(k, key) && v != nil {
				return *v
			}
		}
		return ""
	}
	switch kind, partition, _ := strings.Cut(name, "/"); kind {
	case "checkpoint":
		p := checkpoint{Offset: value("offset")}
		if n, err := strconv.ParseInt(value("sequencenumber"), 10, 64); err == nil {
			p.Sequence = &n
		}
		g.checkpoints[partition] = p
	case "ownership":
		g.owners[partition] = owner{Name: value("ownerid"), Renewed: modified.UTC(), Age: max(0, now.Sub(modified).Seconds())}
	}
}

// used tells whether the group has been at work under this spelling.
func (g *groupBlobs) used() bool { return len(g.checkpoints)+len(g.owners) > 0 }

// live is who has a partition and has said so within an expiry; nil if nobody has.
func (g *groupBlobs) live(partition string, expiry time.Duration) *owner {
	o, ok := g.owners[partition]
	if !ok || o.Name == "" || o.Age >= expiry.Seconds() {
		return nil
	}
	return &o
}
