package admin

import (
	"time"

	"github.com/millrace/millrace/hub"
)

// Tiers returns the names of all tiers.
func Tiers() []string {
	var names []string
	for _, t := range hub.Tiers() {
		names = append(names, string(t))
	}
	return names
}

// Root is the path below which everything lies.
const Root = "/admin/v1/"

// MaxBody is the largest request body that is read, in bytes.
const MaxBody = 64 << 10

// Status is what a broker says of itself.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Uptime   float64   `json:"uptimeSeconds"`
	Data     string    `json:"data"` // the data folder
	Disposed bool      `json:"ephemeral"`
	Sync     string    `json:"sync"` // the durability policy, as --sync takes it
	// Full says that appends are refused, because the disk has less than its
	// reserve.
	Full bool `json:"full"`
	// DiskFree and DiskSize are in bytes; 0 when the system doesn't say.
	DiskFree uint64 `json:"diskFreeBytes"`
	DiskSize uint64 `json:"diskSizeBytes"`
	// Doors has the address of each open door.
	Doors       map[string]string `json:"doors"`
	Namespaces  int               `json:"namespaces"`
	Hubs        int               `json:"hubs"`
	Partitions  int               `json:"partitions"`
	Connections int64             `json:"connections"`
}

// Namespace describes a namespace.
type Namespace struct {
	Name string `json:"name"`
	// Default says that hosts which name no namespace mean this one.
	Default bool   `json:"default"`
	Tier    string `json:"tier"`
	// Capacity is in the tier's units, one of which is a Unit, such as
	// "throughput unit"; that is "" if the tier has none.
	Capacity        int    `json:"capacity"`
	Unit            string `json:"unit,omitempty"`
	AutoInflate     bool   `json:"autoInflate"`
	MaximumCapacity int    `json:"maximumCapacity,omitempty"` // of auto-inflate
	// AllowedIPs are the addresses and ranges from which alone peers may connect;
	// none means that all may.
	AllowedIPs []string `json:"allowedIPs,omitempty"`
	// DisableLocalAuth says that keys, and what they have signed, are refused.
	DisableLocalAuth bool  `json:"disableLocalAuth"`
	Hubs             int   `json:"hubs"`
	Partitions       int   `json:"partitions"`
	Connections      int64 `json:"connections"`
	// Throttled is how many requests were told to come again since the start.
	Throttled int64     `json:"throttledRequests"`
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
}

// NewNamespace asks for a namespace.
type NewNamespace struct {
	Name string `json:"name"`
	NamespaceChange
}

// NamespaceChange says what becomes of a namespace; what is nil stays. A change
// of the tier makes the capacity 1 unless it is set, too.
type NamespaceChange struct {
	Tier            *string `json:"tier,omitempty"`
	Capacity        *int    `json:"capacity,omitempty"`
	AutoInflate     *bool   `json:"autoInflate,omitempty"`
	MaximumCapacity *int    `json:"maximumCapacity,omitempty"`
	// AllowedIPs replaces the list; an empty one lets all in. Management is not
	// held to it.
	AllowedIPs *[]string `json:"allowedIPs,omitempty"`
	// DisableLocalAuth has keys, and what they have signed, be refused, and ends the
	// links that they have opened. Management with the broker's own rule goes on.
	DisableLocalAuth *bool `json:"disableLocalAuth,omitempty"`
}

// Plan says what a namespace would have needed of the service, by its recorded
// load and what is in it.
type Plan struct {
	Since time.Time `json:"since"`
	// Tier and Capacity are the smallest that would have held it without being
	// throttled; Reasons say what rules smaller ones out.
	Tier     string   `json:"tier"`
	Capacity int      `json:"capacity"`
	Unit     string   `json:"unit,omitempty"`
	Reasons  []string `json:"reasons,omitempty"`
	// Units are the throughput units of its busiest second.
	Units int `json:"throughputUnits"`
	// Minutes are those that had any traffic. Those in which Units is more than
	// AtCapacity would have been throttled.
	AtCapacity int    `json:"atCapacity"`
	Minutes    []Load `json:"minutes"`
}

// Load is a minute's traffic: all of it, and its busiest second.
type Load struct {
	Minute            time.Time `json:"minute"`
	IncomingBytes     int64     `json:"incomingBytes"`
	IncomingEvents    int64     `json:"incomingMessages"`
	OutgoingBytes     int64     `json:"outgoingBytes"`
	OutgoingEvents    int64     `json:"outgoingMessages"`
	PeakIncomingBytes int64     `json:"peakIncomingBytes"`
	PeakIncoming      int64     `json:"peakIncomingMessages"`
	PeakOutgoingBytes int64     `json:"peakOutgoingBytes"`
	PeakOutgoing      int64     `json:"peakOutgoingMessages"`
	Throttled         int64     `json:"throttledRequests"`
	Units             int       `json:"throughputUnits"` // that the busiest second needed
}

// Hub describes an event hub.
type Hub struct {
	Namespace  string    `json:"namespace"`
	Name       string    `json:"name"`
	Partitions int       `json:"partitions"`
	Retention  Retention `json:"retention"`
	// MaxBytes is how much is kept; 0 means no limit.
	MaxBytes int64 `json:"maxBytes,omitempty"`
	// Status is Active, Disabled, SendDisabled or ReceiveDisabled.
	Status   string    `json:"status"`
	Metadata string    `json:"metadata,omitempty"`
	Groups   []string  `json:"groups"` // $Default first
	Capture  *Capture  `json:"capture,omitempty"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
}

// NewHub asks for an event hub.
type NewHub struct {
	Name string `json:"name"`
	// Partitions is from 1 to hub.MaxPartitions; 0 means 4.
	Partitions int `json:"partitions,omitempty"`
	// Retention is hub.DefaultRetention, or the tier's longest, unless set.
	Retention Retention `json:"retention,omitempty"`
	// MaxBytes is how much is kept; 0 means no limit.
	MaxBytes int64 `json:"maxBytes,omitempty"`
	// Groups are the consumer groups beside $Default.
	Groups []string `json:"groups,omitempty"`
	// Metadata is the users' own text, up to hub.MaxMetadata characters.
	Metadata string `json:"metadata,omitempty"`
	// Capture says how events are kept as files; nil means not at all.
	Capture *CaptureChange `json:"capture,omitempty"`
}

// Capture says how an event hub's events are kept as files. See hub.Capture.
type Capture struct {
	Enabled bool `json:"enabled"`
	// Interval and Bytes close a window, whichever is reached first.
	Interval   Duration `json:"interval"`
	Bytes      int64    `json:"bytes"`
	SkipEmpty  bool     `json:"skipEmpty"`
	HeaderOnly bool     `json:"headerOnly,omitempty"`
	// Format is Avro, AvroDeflate or Parquet.
	Format      string `json:"format"`
	NameFormat  string `json:"nameFormat,omitempty"`
	Destination string `json:"destination,omitempty"`
	Container   string `json:"container,omitempty"`
	// Webhook is the host alone of where notices are posted to.
	Webhook   string `json:"webhook,omitempty"`
	NoticeHub string `json:"noticeHub,omitempty"`
	EventGrid bool   `json:"eventGrid,omitempty"`
}

// CaptureChange says what becomes of the capture of an event hub; what is nil
// stays, or is the default.
type CaptureChange struct {
	Enabled     *bool     `json:"enabled,omitempty"`
	Interval    *Duration `json:"interval,omitempty"`
	Bytes       *int64    `json:"bytes,omitempty"`
	SkipEmpty   *bool     `json:"skipEmpty,omitempty"`
	HeaderOnly  *bool     `json:"headerOnly,omitempty"`
	Format      *string   `json:"format,omitempty"`
	NameFormat  *string   `json:"nameFormat,omitempty"`
	Destination *string   `json:"destination,omitempty"`
	Container   *string   `json:"container,omitempty"`
	Webhook     *string   `json:"webhook,omitempty"` // a whole URL; "" for none
	NoticeHub   *string   `json:"noticeHub,omitempty"`
	EventGrid   *bool     `json:"eventGrid,omitempty"`
}

// DefaultPartitions is how many partitions a hub gets that asks for none.
const DefaultPartitions = 4

// HubChange says what becomes of an event hub; what is not set stays.
type HubChange struct {
	// Partitions can be more than there are, where the tier allows it; events
	// stay in their partitions, and keys may mean others afterwards.
	Partitions int `json:"partitions,omitempty"`
	// MaxBytes limits what is kept; 0 takes the limit away.
	MaxBytes  *int64    `json:"maxBytes,omitempty"`
	Retention Retention `json:"retention,omitempty"`
	Status    string    `json:"status,omitempty"`
	Metadata  *string   `json:"metadata,omitempty"`
	// Capture changes how events are kept as files.
	Capture *CaptureChange `json:"capture,omitempty"`
}

// Rule describes an authorization rule, or asks for one: then keys that are not
// given stay as they are, or are made.
type Rule struct {
	Name string `json:"name"`
	// Rights are of Listen, Send and Manage, separated by commas.
	Rights    string `json:"rights"`
	Primary   string `json:"primary,omitempty"`
	Secondary string `json:"secondary,omitempty"`
	// Configured says that the rule stands in the broker's configuration file, which
	// alone can change it. In a request it means nothing.
	Configured bool `json:"configured,omitempty"`
}

// The keys of a rule.
const (
	PrimaryKey   = "primary"
	SecondaryKey = "secondary"
)

// KeyChange asks for a new key of a rule: the given one, or a random one.
type KeyChange struct {
	Which string `json:"which"` // PrimaryKey or SecondaryKey
	Key   string `json:"key,omitempty"`
}

// ApplicationGroup describes a group of clients and what they may do, or asks for
// one in place of what there is.
type ApplicationGroup struct {
	Name string `json:"name"`
	// Client is who is meant: NamespaceSASKeyName=RULE, EntitySASKeyName=RULE for
	// an event hub's rule, or AADAppID=ID.
	Client   string             `json:"client"`
	Disabled bool               `json:"disabled"`
	Policies []ThrottlingPolicy `json:"policies"`
}

// ThrottlingPolicy bounds what a group's clients send and receive in a second.
type ThrottlingPolicy struct {
	Name string `json:"name"`
	// Metric is IncomingBytes, OutgoingBytes, IncomingMessages or
	// OutgoingMessages; Limit counts it.
	Metric string `json:"metric"`
	Limit  int64  `json:"limit"`
}

// Group describes a consumer group.
type Group struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// NewGroup asks for a consumer group.
type NewGroup struct {
	Name string `json:"name"`
}

// Partition describes what a partition holds.
type Partition struct {
	ID string `json:"id"`
	// First and Last are sequence numbers: of the oldest event retained, and of
	// the newest event, -1 if there never was one.
	First        int64      `json:"firstSequenceNumber"`
	Last         int64      `json:"lastSequenceNumber"`
	Empty        bool       `json:"empty"`
	LastEnqueued *time.Time `json:"lastEnqueued,omitempty"`
	Bytes        int64      `json:"bytes"` // on disk
	// Error says why the partition can't be read; the other fields are then 0.
	Error string `json:"error,omitempty"`
}

// Receiver describes who reads a partition.
type Receiver struct {
	Group     string `json:"group"`
	Partition string `json:"partition"`
	Name      string `json:"name,omitempty"`
	// Epoch is the owner level, of a receiver that has one.
	Epoch *int64 `json:"epoch,omitempty"`
}

// Error is an answer that is not what was asked for.
type Error struct {
	Status  int    `json:"-"` // of HTTP
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// problem is an Error's envelope.
type problem struct {
	Error *Error `json:"error"`
}
