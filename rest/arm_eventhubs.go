package rest

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/hub"
)

// armChild is what is below a namespace, as the resource manager shows it.
type armChild struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Location   string `json:"location"`
	Properties any    `json:"properties"`
}

// The types of what is below a namespace, cased as the service has them.
const (
	typeHub           = provider + "/namespaces/eventhubs"
	typeGroup         = provider + "/namespaces/eventhubs/consumergroups"
	typeHubRule       = provider + "/namespaces/eventhubs/authorizationrules"
	typeNamespaceRule = provider + "/Namespaces/AuthorizationRules"
	typeNetworkRules  = provider + "/Namespaces/NetworkRuleSets"

	typeApplicationGroup = provider + "/Namespaces/ApplicationGroups"
)

type armHubProperties struct {
	MessageRetentionInDays int64               `json:"messageRetentionInDays"`
	PartitionCount         int                 `json:"partitionCount"`
	Status                 string              `json:"status"`
	UserMetadata           string              `json:"userMetadata,omitempty"`
	CreatedAt              string              `json:"createdAt"`
	UpdatedAt              string              `json:"updatedAt"`
	PartitionIDs           []string            `json:"partitionIds"`
	RetentionDescription   armRetention        `json:"retentionDescription"`
	CaptureDescription     *captureDescription `json:"captureDescription,omitempty"`
}

type armRetention struct {
	CleanupPolicy        string `json:"cleanupPolicy"`
	RetentionTimeInHours *int64 `json:"retentionTimeInHours,omitempty"`
}

// whole is a retention in whole units, as many as hold it.
func whole(retention, unit time.Duration) int64 {
	if retention < 0 {
		return forEver
	}
	n := int64(retention / unit)
	if retention%unit > 0 {
		n++
	}
	return n
}

func (c *armCall) describeHub(h *hub.EventHub) armChild {
	s := h.Settings()
	hours := whole(s.Retention, time.Hour)
	p := armHubProperties{
		MessageRetentionInDays: whole(s.Retention, day), PartitionCount: h.Partitions(), Status: string(h.Status()), UserMetadata: s.Metadata,
		CreatedAt: stamp(h.Created), UpdatedAt: stamp(h.Updated()), PartitionIDs: []string{},
		RetentionDescription: armRetention{CleanupPolicy: "Delete", RetentionTimeInHours: &hours},
		CaptureDescription:   describeCapture(s.Capture),
	}
	for i := range p.PartitionCount {
		p.PartitionIDs = append(p.PartitionIDs, strconv.Itoa(i))
	}
	return armChild{c.id(h.Namespace(), "eventhubs", h.Name), h.Name, typeHub, location(h.Namespace()), p}
}

func (c *armCall) listHubs() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	var all []any
	for _, h := range ns.EventHubs() {
		all = append(all, c.describeHub(h))
	}
	return c.list(all)
}

func (c *armCall) showHub() error {
	h, err := c.hub()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeHub(h))
}

func (c *armCall) deleteHub() error {
	ns, err := c.namespace()
	if err == nil {
		err = ns.DeleteEventHub(c.Context(), c.names[1])
	}
	return c.gone(err)
}

// defaultPartitions is how many a hub gets that is asked for without a number.
// Source: hashicorp/terraform-provider-azurerm issue 13096.
const defaultPartitions = 4

// putHub makes a hub or changes it. What the request leaves out stays.
func (c *armCall) putHub() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	var want hubBody
	if err := c.read(&want); err != nil {
		return err
	}
	if err := want.check(); err != nil {
		return err
	}
	h, err := ns.EventHub(c.names[1])
	if err == nil {
		err = want.update(c, h)
	} else {
		h, err = want.create(c, ns)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeHub(h))
}

// hubBody asks for a hub, or for a change of one. What is nil stays.
type hubBody struct {
	Properties struct {
		PartitionCount         *int64  `json:"partitionCount"`
		MessageRetentionInDays *int64  `json:"messageRetentionInDays"`
		Status                 *string `json:"status"`
		UserMetadata           *string `json:"userMetadata"`
		RetentionDescription   struct {
			CleanupPolicy        string `json:"cleanupPolicy"`
			RetentionTimeInHours *int64 `json:"retentionTimeInHours"`
		} `json:"retentionDescription"`
		CaptureDescription          *captureDescription `json:"captureDescription"`
		MessageTimestampDescription struct {
			TimestampType string `json:"timestampType"`
		} `json:"messageTimestampDescription"`
	} `json:"properties"`
}

func (b *hubBody) check() error {
	p := &b.Properties
	policy, stampedBy := p.RetentionDescription.CleanupPolicy, p.MessageTimestampDescription.TimestampType
	switch {
	case strings.EqualFold(policy, "Compact"), strings.EqualFold(policy, "DeleteOrCompact"):
		return unsupported("Compaction", "properties.retentionDescription.cleanupPolicy", "Event hubs are not compacted yet; the cleanup policy is Delete.")
	case policy != "" && !strings.EqualFold(policy, "Delete"):
		return badRequest("properties.retentionDescription.cleanupPolicy", "'%s' is not a cleanup policy.", excerpt(policy))
	case strings.EqualFold(stampedBy, "Create"):
		return unsupported("MessageTimestamp", "properties.messageTimestampDescription.timestampType", "An event's time is when it was stored: LogAppend.")
	case stampedBy != "" && !strings.EqualFold(stampedBy, "LogAppend"):
		return badRequest("properties.messageTimestampDescription.timestampType", "'%s' is not a type of timestamps.", excerpt(stampedBy))
	case p.PartitionCount != nil && (*p.PartitionCount < 1 || *p.PartitionCount > math.MaxInt32):
		return badRequest("properties.partitionCount", "An event hub can't have %d partitions.", *p.PartitionCount)
	}
	return nil
}

// status is the one that is asked for, "" for none.
func (b *hubBody) status() hub.Status {
	if b.Properties.Status == nil {
		return ""
	}
	for _, s := range []hub.Status{hub.StatusActive, hub.StatusDisabled, hub.StatusSendDisabled, hub.StatusReceiveDisabled} {
		if strings.EqualFold(string(s), *b.Properties.Status) {
			return s
		}
	}
	return hub.Status(excerpt(*b.Properties.Status))
}

// retention is what is asked for in hours and in days, where that is not what
// there is: a resource that was read, changed in one of the two and sent back has
// the old value in the other. Zero says that nothing is asked for.
func (b *hubBody) retention(now time.Duration) (time.Duration, error) {
	var out time.Duration
	p := &b.Properties
	for _, x := range []struct {
		value  *int64
		unit   time.Duration
		target string
	}{
		{p.RetentionDescription.RetentionTimeInHours, time.Hour, "properties.retentionDescription.retentionTimeInHours"},
		{p.MessageRetentionInDays, day, "properties.messageRetentionInDays"},
	} {
		if x.value == nil || now != 0 && *x.value == whole(now, x.unit) {
			continue
		}
		if v := *x.value; v != forEver && (v < 1 || v > maxDays*int64(day/x.unit)) {
			return 0, badRequest(x.target, "The retention of an event hub can't be %d.", v)
		}
		asked := time.Duration(*x.value) * x.unit
		if *x.value == forEver {
			asked = forEver
		}
		if out != 0 && whole(out, x.unit) != *x.value {
			return 0, badRequest(x.target, "retentionTimeInHours and messageRetentionInDays say different things; one of them is enough.")
		}
		if out == 0 {
			out = asked
		}
	}
	return out, nil
}

func (b *hubBody) create(c *armCall, ns *hub.Namespace) (*hub.EventHub, error) {
	p := &b.Properties
	retention, err := b.retention(0)
	if err != nil {
		return nil, err
	}
	s := hub.Settings{Retention: retention, Status: b.status()}
	if p.UserMetadata != nil {
		s.Metadata = *p.UserMetadata
	}
	if err := p.CaptureDescription.change(&s); err != nil {
		return nil, err
	}
	partitions := defaultPartitions
	if p.PartitionCount != nil {
		partitions = int(*p.PartitionCount)
	}
	return ns.CreateEventHub(c.Context(), c.names[1], partitions, s)
}

func (b *hubBody) update(c *armCall, h *hub.EventHub) error {
	p := &b.Properties
	partitions := 0
	if p.PartitionCount != nil {
		partitions = int(*p.PartitionCount)
	}
	return h.Change(c.Context(), partitions, func(s *hub.Settings) error {
		retention, err := b.retention(s.Retention)
		if err != nil {
			return err
		}
		if retention != 0 {
			s.Retention = retention
		}
		if status := b.status(); status != "" {
			s.Status = status
		}
		if p.UserMetadata != nil {
			s.Metadata = *p.UserMetadata
		}
		return p.CaptureDescription.change(s)
	})
}
