package admin

import (
	"net/url"
	"time"

	"github.com/millrace/millrace/hub"
)

// describeCapture leaves out what a webhook's URL may keep secret.
func describeCapture(c *hub.Capture) *Capture {
	if c == nil {
		return nil
	}
	out := &Capture{
		Enabled: c.Enabled, Interval: Duration(c.Interval), Bytes: c.Bytes, SkipEmpty: c.SkipEmpty, HeaderOnly: c.HeaderOnly, Format: string(c.Format),
		NameFormat: c.NameFormat, Destination: c.Destination, Container: c.Container, NoticeHub: c.Notice.Hub, EventGrid: c.Notice.EventGrid,
	}
	if u, err := url.Parse(c.Notice.Webhook); err == nil && u.Host != "" {
		out.Webhook = u.Scheme + "://" + u.Host
	}
	return out
}

// change puts what is set into the hub's settings.
func (n *CaptureChange) change(s *hub.Settings) error {
	if n == nil {
		return nil
	}
	c := hub.Capture{}
	if s.Capture != nil {
		c = *s.Capture
	}
	put(&c.Enabled, n.Enabled)
	put(&c.Bytes, n.Bytes)
	put(&c.SkipEmpty, n.SkipEmpty)
	put(&c.HeaderOnly, n.HeaderOnly)
	put(&c.NameFormat, n.NameFormat)
	put(&c.Destination, n.Destination)
	put(&c.Container, n.Container)
	put(&c.Notice.Webhook, n.Webhook)
	put(&c.Notice.Hub, n.NoticeHub)
	put(&c.Notice.EventGrid, n.EventGrid)
	if n.Interval != nil {
		c.Interval = time.Duration(*n.Interval)
	}
	if n.Format != nil {
		f, err := hub.ParseCaptureFormat(*n.Format)
		if err != nil {
			return err
		}
		c.Format = f
	}
	s.Capture = &c
	return nil
}

func put[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
