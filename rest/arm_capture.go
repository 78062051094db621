package rest

import (
	"math"
	"strings"
	"time"

	"github.com/millrace/millrace/hub"
)

// Source of the shapes: the models of armeventhub 1.3.0; features.md, section 6.

// armCapture is captureDescription. What is nil in a request stays.
type armCapture struct {
	Enabled           *bool           `json:"enabled,omitempty"`
	Encoding          *string         `json:"encoding,omitempty"`
	IntervalInSeconds *int64          `json:"intervalInSeconds,omitempty"`
	SizeLimitInBytes  *int64          `json:"sizeLimitInBytes,omitempty"`
	SkipEmptyArchives *bool           `json:"skipEmptyArchives,omitempty"`
	Destination       *armDestination `json:"destination,omitempty"`
}

type armDestination struct {
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

func describeCapture(c *hub.Capture) *armCapture {
	if c == nil {
		return nil
	}
	encoding, seconds := string(c.Format), int64(c.Interval/time.Second)
	out := &armCapture{Enabled: &c.Enabled, Encoding: &encoding, IntervalInSeconds: &seconds, SizeLimitInBytes: &c.Bytes, SkipEmptyArchives: &c.SkipEmpty, Destination: &armDestination{Name: blobDestination}}
	p := &out.Destination.Properties
	p.BlobContainer, p.ArchiveNameFormat, p.StorageAccountResourceID = c.Container, c.NameFormat, c.Resource
	if !strings.EqualFold(accountOf(c.Resource), c.Destination) { // it was changed elsewhere
		p.StorageAccountResourceID = c.Destination
	}
	return out
}

// change puts what is asked for into the settings. The storage account's name says
// which of the destinations of the configuration is meant.
func (a *armCapture) change(s *hub.Settings) error {
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
			return badRequest("properties.captureDescription.encoding", "'%s' is not an encoding; Avro and AvroDeflate are, and here also Parquet.", excerpt(*a.Encoding))
		}
		c.Format = f
	}
	if a.IntervalInSeconds != nil {
		if n := *a.IntervalInSeconds; n < 0 || n > math.MaxInt32 {
			return badRequest("properties.captureDescription.intervalInSeconds", "A window of %d seconds can't be.", n)
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

func (d *armDestination) change(c *hub.Capture) error {
	if d == nil {
		return nil
	}
	p := &d.Properties
	switch {
	case strings.EqualFold(d.Name, "EventHubArchive.AzureDataLake"), p.DataLakeAccountName != "":
		return unsupported("DataLake", "properties.captureDescription.destination", "Azure Data Lake Storage Gen1 does not exist any more; Gen2 is a storage account.")
	case d.Name != "" && !strings.EqualFold(d.Name, blobDestination):
		return badRequest("properties.captureDescription.destination.name", "'%s' is not a kind of destination; %s is.", excerpt(d.Name), blobDestination)
	case len(p.StorageAccountResourceID) > maxResourceID || len(p.BlobContainer) > maxResourceID || len(p.ArchiveNameFormat) > maxResourceID:
		return badRequest("properties.captureDescription.destination.properties", "A property of the destination is longer than %d bytes.", maxResourceID)
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
