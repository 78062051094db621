package rest

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/millrace/millrace/hub"
)

// The capture of a hub as both management interfaces describe it: the resource
// manager in JSON, ATOM in XML (atomcapture.go). Source of the names: the models of
// armeventhub 1.3.0; features.md, section 6.

// captureDescription is what is said of a hub's capture. What is nil in a request
// stays.
type captureDescription struct {
	Enabled           *bool               `json:"enabled,omitempty"`
	Encoding          *string             `json:"encoding,omitempty"`
	IntervalInSeconds *int64              `json:"intervalInSeconds,omitempty"`
	SizeLimitInBytes  *int64              `json:"sizeLimitInBytes,omitempty"`
	SkipEmptyArchives *bool               `json:"skipEmptyArchives,omitempty"`
	Destination       *captureDestination `json:"destination,omitempty"`
}

// captureDestination says where files go. What is empty in a request stays.
type captureDestination struct {
	Name       string `json:"name,omitempty"`
	Properties struct {
		StorageAccountResourceID string `json:"storageAccountResourceId,omitempty"`
		BlobContainer            string `json:"blobContainer,omitempty"`
		ArchiveNameFormat        string `json:"archiveNameFormat,omitempty"`
		DataLakeAccountName      string `json:"dataLakeAccountName,omitempty"`
	} `json:"properties"`
}

// blobDestination is the one kind of destinations that a storage account is.
const blobDestination = "EventHubArchive.AzureBlockBlob"

// maxResourceID is far above what resource ids are.
const maxResourceID = 2048

// captureError refuses what a description of a hub's capture asks for. Each
// interface says it in its own way.
type captureError struct {
	property string // below captureDescription, as JSON has it
	code     string // the resource manager's
	text     string
}

// Error implements error.
func (e *captureError) Error() string { return e.text }

func badCapture(property, format string, args ...any) error {
	return &captureError{property, "BadRequest", fmt.Sprintf(format, args...)}
}

// describeCapture describes settings, and is nil for a hub that never was captured.
func describeCapture(c *hub.Capture) *captureDescription {
	if c == nil {
		return nil
	}
	encoding, seconds := string(c.Format), int64(c.Interval/time.Second)
	out := &captureDescription{Enabled: &c.Enabled, Encoding: &encoding, IntervalInSeconds: &seconds, SizeLimitInBytes: &c.Bytes, SkipEmptyArchives: &c.SkipEmpty, Destination: &captureDestination{Name: blobDestination}}
	p := &out.Destination.Properties
	p.BlobContainer, p.ArchiveNameFormat, p.StorageAccountResourceID = c.Container, c.NameFormat, c.Resource
	if !strings.EqualFold(accountOf(c.Resource), c.Destination) { // it was changed elsewhere
		p.StorageAccountResourceID = c.Destination
	}
	return out
}

// change puts what is asked for into the settings. The storage account's name says
// which of the destinations of the configuration is meant.
func (a *captureDescription) change(s *hub.Settings) error {
	if a == nil || s.Capture == nil && (a.Enabled == nil || !*a.Enabled) && a.Destination == nil {
		return nil
	}
	c := hub.Capture{}
	if s.Capture != nil {
		c = *s.Capture
	}
	if a.Enabled != nil {
		c.Enabled = *a.Enabled
	}
	if a.Encoding != nil {
		f, err := hub.ParseCaptureFormat(*a.Encoding)
		if err != nil {
			return badCapture("encoding", "'%s' is not an encoding; Avro and AvroDeflate are, and here also Parquet.", excerpt(*a.Encoding))
		}
		c.Format = f
	}
	if a.IntervalInSeconds != nil {
		if n := *a.IntervalInSeconds; n < 0 || n > math.MaxInt32 {
			return badCapture("intervalInSeconds", "A window of %d seconds can't be.", n)
		}
		c.Interval = time.Duration(*a.IntervalInSeconds) * time.Second
	}
	if a.SizeLimitInBytes != nil {
		c.Bytes = *a.SizeLimitInBytes
	}
	if a.SkipEmptyArchives != nil {
		c.SkipEmpty = *a.SkipEmptyArchives
	}
	if err := a.Destination.change(&c); err != nil {
		return err
	}
	s.Capture = &c
	return nil
}

// accountOf is the name of a storage account by its resource id.
func accountOf(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func (d *captureDestination) change(c *hub.Capture) error {
	if d == nil {
		return nil
	}
	p := &d.Properties
	switch {
	case strings.EqualFold(d.Name, "EventHubArchive.AzureDataLake"), p.DataLakeAccountName != "":
		return &captureError{"destination", "DataLakeNotSupported", "Azure Data Lake Storage Gen1 does not exist any more; Gen2 is a storage account."}
	case d.Name != "" && !strings.EqualFold(d.Name, blobDestination):
		return badCapture("destination.name", "'%s' is not a kind of destination; %s is.", excerpt(d.Name), blobDestination)
	case len(p.StorageAccountResourceID) > maxResourceID || len(p.BlobContainer) > maxResourceID || len(p.ArchiveNameFormat) > maxResourceID:
		return badCapture("destination.properties", "A property of the destination is longer than %d bytes.", maxResourceID)
	}
	if p.StorageAccountResourceID != "" {
		c.Resource = p.StorageAccountResourceID
		c.Destination = accountOf(c.Resource)
	}
	if p.BlobContainer != "" {
		c.Container = p.BlobContainer
	}
	if p.ArchiveNameFormat != "" {
		c.NameFormat = p.ArchiveNameFormat
	}
	return nil
}
