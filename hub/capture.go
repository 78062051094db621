package hub

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace/event"
)

// Capture says how a hub's events are kept as files, too. Sources: features.md,
// section 6; blob.md, section 4.
type Capture struct {
	// Enabled has events be captured from the moment that it is set. Once it is not
	// set any more, what has been enqueued by then is still written.
	Enabled bool `json:"enabled"`
	// Interval is how long a window is at most, and Bytes how much it takes in:
	// what is reached first closes a partition's file. 0 means the default.
	Interval time.Duration `json:"interval"`
	Bytes    int64         `json:"bytes"`
	// SkipEmpty leaves out the files of windows without events.
	SkipEmpty bool `json:"skipEmpty,omitempty"`
	// HeaderOnly has such files end after Avro's header. The service's have an
	// empty block more, which some readers refuse.
	HeaderOnly bool          `json:"headerOnly,omitempty"`
	Format     CaptureFormat `json:"format"`
	// NameFormat is the pattern of the files' names; "" means the service's own.
	NameFormat string `json:"nameFormat,omitempty"`
	// Destination is where files go, by a name that the broker's configuration
	// knows; "" means its own Blob endpoint.
	Destination string `json:"destination,omitempty"`
	// Container is the container or bucket, or the folder in a folder; "" means
	// the destination's own.
	Container string `json:"container,omitempty"`
	// Resource is what resource managers call the destination; it is kept for them.
	Resource string        `json:"resource,omitempty"`
	Notice   CaptureNotice `json:"notice,omitzero"`
}

// CaptureNotice says who is told of each file.
type CaptureNotice struct {
	// Webhook is the URL that a notice is posted to; "" means none. It may hold a
	// secret, and is not logged.
	Webhook string `json:"webhook,omitempty"`
	// Hub is an event hub of the namespace that a notice is sent to; "" means none.
	Hub string `json:"hub,omitempty"`
	// EventGrid has notices in the schema of Event Grid; else they are CloudEvents.
	EventGrid bool `json:"eventGrid,omitempty"`
}

// CaptureFormat is what captured files are.
type CaptureFormat string

// The formats. The first two are the service's.
const (
	CaptureAvro        CaptureFormat = "Avro"
	CaptureAvroDeflate CaptureFormat = "AvroDeflate"
	CaptureParquet     CaptureFormat = "Parquet"
)

// ParseCaptureFormat reads a format's name, in any case; "" is CaptureAvro.
func ParseCaptureFormat(s string) (CaptureFormat, error) {
	for _, f := range []CaptureFormat{CaptureAvro, CaptureAvroDeflate, CaptureParquet} {
		if strings.EqualFold(s, string(f)) {
			return f, nil
		}
	}
	if s == "" {
		return CaptureAvro, nil
	}
	return "", fail(InvalidArgument, "", "'%s' is not a format of captured files; Avro, AvroDeflate and Parquet are.", s)
}

// Limits and defaults of windows. Source: features.md, section 6.
const (
	MinCaptureInterval     = time.Minute
	MaxCaptureInterval     = 15 * time.Minute
	DefaultCaptureInterval = 5 * time.Minute
	MinCaptureBytes        = 10 << 20
	MaxCaptureBytes        = 500 << 20
	DefaultCaptureBytes    = 300 << 20
)

// Capturer captures the events of hubs. Package capture has one.
type Capturer interface {
	// CheckCapture says what is wrong with settings that the hub can't judge: the
	// pattern of names, the destination.
	CheckCapture(*Capture) error
	// CaptureChanged tells that a hub is there, or has other settings or more
	// partitions, or that it has been deleted. It must not block.
	CaptureChanged(*EventHub)
}

// captureSince is from where on a hub is captured, as it is stored.
type captureSince struct {
	Time time.Time `json:"time"`
	// From is the first event of each partition, by number; 0 of those that the
	// hub has got since.
	From []event.SequenceNumber `json:"from,omitempty"`
}

// checkCapture completes a hub's capture settings, and says what is wrong with
// them.
func (n *Namespaces) checkCapture(hub string, s *Settings, q *Quotas) error {
	if s.Capture == nil {
		return nil
	}
	c := *s.Capture
	s.Capture = &c
	if c.Interval == 0 {
		c.Interval = DefaultCaptureInterval
	}
	if c.Bytes == 0 {
		c.Bytes = DefaultCaptureBytes
	}
	var err error
	if c.Format, err = ParseCaptureFormat(string(c.Format)); err != nil {
		return err
	}
	switch {
	case c.Interval < MinCaptureInterval || c.Interval > MaxCaptureInterval || c.Interval%time.Second != 0:
		return fail(InvalidArgument, hub, "The time window of Capture is from %d to %d whole seconds, not %s.", int(MinCaptureInterval.Seconds()), int(MaxCaptureInterval.Seconds()), c.Interval)
	case c.Bytes < MinCaptureBytes || c.Bytes > MaxCaptureBytes:
		return fail(InvalidArgument, hub, "The size window of Capture is from %d to %d bytes, not %d.", MinCaptureBytes, MaxCaptureBytes, c.Bytes)
	case c.Notice.Webhook != "" && !isWebhook(c.Notice.Webhook):
		return fail(InvalidArgument, hub, "The webhook of Capture is an http or https URL of up to %d bytes.", maxWebhook)
	case strings.EqualFold(c.Notice.Hub, hub):
		return fail(InvalidArgument, hub, "The notices of the files of the event hub '%s' can't go to itself: each would make for another file.", hub)
	case !c.Enabled:
		return nil // what it names need not be there any more
	case !q.Capture:
		return fail(InvalidArgument, hub, "Event hubs of this tier have no Capture; those of standard, premium and dedicated have.")
	case n.o.Capturer == nil:
		return fail(InvalidArgument, hub, "This broker captures nothing.")
	}
	if err := n.o.Capturer.CheckCapture(&c); err != nil {
		return fail(InvalidArgument, hub, "%s.", strings.TrimSuffix(err.Error(), "."))
	}
	return nil
}

// maxWebhook is far above what webhooks have.
const maxWebhook = 8 << 10

// isWebhook tells whether notices can be posted to a URL. It is not told what is
// wrong with it: the URL may hold a secret.
func isWebhook(text string) bool {
	u, err := url.Parse(text)
	return err == nil && len(text) <= maxWebhook && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// captures tells whether the settings have events captured.
func (s *Settings) captures() bool { return s.Capture != nil && s.Capture.Enabled }

// sinceNow is where capture begins for a hub that it is turned on of.
func (h *EventHub) sinceNow(ctx context.Context) (captureSince, error) {
	since := captureSince{Time: h.ns.all.now()}
	for _, p := range h.partitions() {
		info, err := p.Info(ctx)
		if err != nil {
			return since, fmt.Errorf("begin to capture the partition %s: %w", p.Entity(), err)
		}
		since.From = append(since.From, info.Next)
	}
	return since, nil
}

// Captured is how a partition is captured, nil if it never was, and when and with
// which event that began: all of one moment, whoever changes the settings meanwhile.
func (h *EventHub) Captured(partition int) (c *Capture, since time.Time, from event.SequenceNumber) {
	r := &h.state.Load().record
	if partition < len(r.Since.From) {
		from = r.Since.From[partition]
	}
	return r.Capture, r.Since.Time, from
}

// ID is the hub's own number: a hub that is made anew has another.
func (h *EventHub) ID() uint64 { return h.id }

// captureChanged tells the capturer of a hub.
func (n *Namespaces) captureChanged(h *EventHub) {
	if n.o.Capturer != nil {
		n.o.Capturer.CaptureChanged(h)
	}
}
