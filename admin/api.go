package admin

import (
	"time"
)

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

// Hub describes an event hub.
type Hub struct {
	Namespace  string    `json:"namespace"`
	Name       string    `json:"name"`
	Partitions int       `json:"partitions"`
	Retention  Retention `json:"retention"`
	Groups     []string  `json:"groups"` // $Default first
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
}

// NewHub asks for an event hub.
type NewHub struct {
	Name string `json:"name"`
	// Partitions is from 1 to hub.MaxPartitions; 0 means 4.
	Partitions int `json:"partitions,omitempty"`
	// Retention is hub.DefaultRetention unless set.
	Retention Retention `json:"retention,omitempty"`
	// Groups are the consumer groups beside $Default.
	Groups []string `json:"groups,omitempty"`
}

// DefaultPartitions is how many partitions a hub gets that asks for none.
const DefaultPartitions = 4

// HubChange says what becomes of an event hub; what is not set stays.
type HubChange struct {
	Retention Retention `json:"retention,omitempty"`
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
