package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

// A notice is stored before its file is done with, and deleted when it has been
// delivered: it arrives at least once.

// noticeKeys is what the keys of notices begin with that are to be delivered.
const noticeKeys = "capture-notice/"

// Notices are tried for a day, as those of Event Grid are.
const (
	noticeRetry = 10 * time.Second
	noticeLife  = 24 * time.Hour
)

// notice is one that is to be delivered.
type notice struct {
	Made time.Time `json:"made"`
	// Webhook is a URL that may hold a secret; or Namespace and Hub say where to.
	Webhook   string `json:"webhook,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Hub       string `json:"hub,omitempty"`

	ContentType string          `json:"contentType"`
	Text        json.RawMessage `json:"text"`
}

// fileCreated is the data of Microsoft.EventHub.CaptureFileCreated.
// Source: features.md, section 6.
type fileCreated struct {
	FileURL             string    `json:"fileUrl"`
	FileType            string    `json:"fileType"`
	PartitionID         string    `json:"partitionId"`
	SizeInBytes         int64     `json:"sizeInBytes"`
	EventCount          int64     `json:"eventCount"`
	FirstSequenceNumber int64     `json:"firstSequenceNumber"`
	LastSequenceNumber  int64     `json:"lastSequenceNumber"`
	FirstEnqueueTime    time.Time `json:"firstEnqueueTime"`
	LastEnqueueTime     time.Time `json:"lastEnqueueTime"`
}

const typeFileCreated = "Microsoft.EventHub.CaptureFileCreated"

// gridEvent is an event in Event Grid's own schema.
type gridEvent struct {
	Topic           string      `json:"topic"`
	Subject         string      `json:"subject"`
	EventType       string      `json:"eventType"`
	EventTime       time.Time   `json:"eventTime"`
	ID              string      `json:"id"`
	Data            fileCreated `json:"data"`
	DataVersion     string      `json:"dataVersion"`
	MetadataVersion string      `json:"metadataVersion"`
}

// cloudEvent is one of version 1.0 of CloudEvents, in JSON.
type cloudEvent struct {
	SpecVersion     string      `json:"specversion"`
	ID              string      `json:"id"`
	Source          string      `json:"source"`
	Type            string      `json:"type"`
	Subject         string      `json:"subject"`
	Time            time.Time   `json:"time"`
	DataContentType string      `json:"datacontenttype"`
	Data            fileCreated `json:"data"`
}

// Content types of notices.
const (
	typeGrid  = "application/json; charset=utf-8"
	typeCloud = "application/cloudevents+json; charset=utf-8"
)

// announce stores the notices of a file.
func (p *partition) announce(ctx context.Context, to *hub.CaptureNotice, in *intent, d Destination) error {
	if to.Webhook == "" && to.Hub == "" {
		return nil
	}
	data := fileCreated{
		FileURL: d.URL(in.Container, in.Name), FileType: "AzureBlockBlob", PartitionID: strconv.Itoa(p.index), SizeInBytes: in.Size,
		EventCount: in.Events, FirstSequenceNumber: int64(in.First), LastSequenceNumber: int64(in.End) - 1,
		FirstEnqueueTime: time.UnixMilli(in.FirstEnqueued).UTC(), LastEnqueueTime: time.UnixMilli(in.LastEnqueued).UTC(),
	}
	n := notice{Made: p.e.o.Now().UTC(), ContentType: typeCloud}
	// The same file has the same id: who is told twice can tell.
	id := fmt.Sprintf("%x-%d-%d-%d", p.h.ID(), p.index, in.First, in.Start.Unix())
	source, subject := "/namespaces/"+p.h.Namespace().Name, "eventhubs/"+p.h.Name
	var v any = cloudEvent{"1.0", id, source, typeFileCreated, subject, n.Made, "application/json", data}
	if to.EventGrid {
		n.ContentType = typeGrid
		v = []gridEvent{{source, subject, typeFileCreated, n.Made, id, data, "", "1"}}
	}
	var err error
	if n.Text, err = json.Marshal(v); err != nil {
		return fmt.Errorf("write the notice of a captured file: %w", err)
	}
	for way, set := range map[string]func(*notice) bool{
		"webhook": func(n *notice) bool { n.Webhook = to.Webhook; return to.Webhook != "" },
		"hub":     func(n *notice) bool { n.Namespace, n.Hub = p.h.Namespace().Name, to.Hub; return to.Hub != "" },
	} {
		one := n
		if !set(&one) {
			continue
		}
		b, err := json.Marshal(one)
		if err != nil {
			return fmt.Errorf("write the notice of a captured file: %w", err)
		}
		if _, err := p.e.o.Meta.Put(ctx, noticeKeys+id+"/"+way, b, store.AnyVersion); err != nil {
			return fmt.Errorf("store the notice of a captured file: %w", err)
		}
	}
	select {
	case p.e.mail <- struct{}{}:
	default:
	}
	return nil
}

// deliver delivers notices until the engine is closed.
func (e *Engine) deliver(all *hub.Namespaces) {
	failing, said := false, time.Duration(0)
	for e.ctx.Err() == nil {
		left, err := e.deliverAll(e.ctx, all)
		if now := e.o.Elapsed(); err != nil && e.ctx.Err() == nil && (!failing || now-said >= sayAgain) {
			e.log.Warn("notices of captured files can't be delivered now; it is tried again", "error", err)
			said = now
		}
		failing = err != nil
		e.awaitMail(left)
	}
}

// awaitMail waits for notices, and not for long if some are left.
func (e *Engine) awaitMail(left bool) {
	var again <-chan time.Time
	if left {
		t := time.NewTimer(noticeRetry)
		defer t.Stop()
		again = t.C
	}
	select {
	case <-e.ctx.Done():
	case <-e.mail:
	case <-again:
	}
}

// noticePage is how many notices are in memory at a time: for a receiver that is
// down there may be a day's.
const noticePage = 256

// storedNotice is a notice with its key and version.
type storedNotice struct {
	store.Entry
	notice
}

// notices reads those that come after a key, up to a page of them.
func (e *Engine) notices(ctx context.Context, after string) (page []storedNotice, err error) {
	for en, err := range e.o.Meta.List(ctx, noticeKeys, after) {
		if err != nil {
			return nil, fmt.Errorf("read the notices of captured files: %w", err)
		}
		n := storedNotice{Entry: en}
		if err := json.Unmarshal(en.Value, &n.notice); err != nil {
			return nil, fmt.Errorf("the record %s: %w", en.Key, err)
		}
		if page = append(page, n); len(page) == noticePage {
			break
		}
	}
	return page, nil
}

// deliverAll tries each notice once, but no receiver again that has failed, and
// tells whether some are left.
func (e *Engine) deliverAll(ctx context.Context, all *hub.Namespaces) (left bool, err error) {
	failed := map[string]bool{}
	after, old := "", 0
	for {
		page, perr := e.notices(ctx, after)
		if perr != nil {
			return true, errors.Join(err, perr)
		}
		for i := range page {
			n := &page[i]
			tooOld := e.o.Now().Sub(n.Made) >= noticeLife
			to := n.Webhook + n.Namespace + "/" + n.Hub
			if !failed[to] {
				derr := e.deliverOne(ctx, all, &n.notice)
				if ctx.Err() != nil {
					return true, ctx.Err()
				}
				if failed[to] = derr != nil; derr != nil {
					err = errors.Join(err, derr)
				}
			}
			if failed[to] {
				if !tooOld {
					left = true
					continue
				}
				old++
			}
			if derr := e.o.Meta.Delete(ctx, n.Key, n.Version); derr != nil {
				return true, errors.Join(err, derr)
			}
		}
		if len(page) < noticePage {
			break
		}
		after = page[len(page)-1].Key
	}
	if old > 0 {
		e.log.Error("notices of captured files are given up after a day", "notices", old, "error", err)
	}
	return left, err
}

func (e *Engine) deliverOne(ctx context.Context, all *hub.Namespaces, n *notice) error {
	if n.Webhook != "" {
		return e.post(ctx, n)
	}
	ns, err := all.Named(n.Namespace)
	if err != nil {
		return err
	}
	h, err := ns.EventHub(n.Hub)
	if err != nil {
		return err
	}
	var d message.Draft
	d.ContentType, d.Body = n.ContentType, n.Text
	var parsed message.Parsed
	if err := parsed.Parse(d.Append(nil)); err != nil {
		return fmt.Errorf("encode a notice: %w", err)
	}
	var b message.Builder
	b.Add(&parsed, message.Marks{}, 0)
	batch := b.Batch()
	done := make(chan error, 1)
	h.Next().Append(batch, func(err error) {
		batch.Release()
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post sends a notice to its webhook. The URL is in no error: it may hold a secret.
func (e *Engine) post(ctx context.Context, n *notice) error {
	host := "a webhook"
	if u, err := url.Parse(n.Webhook); err == nil {
		host = "the webhook at " + u.Host
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.Webhook, bytes.NewReader(n.Text))
	if err != nil {
		return fmt.Errorf("%s can't be asked", host)
	}
	req.Header.Set("Content-Type", n.ContentType)
	req.Header.Set("Aeg-Event-Type", "Notification")
	resp, err := e.o.Client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("%s: %w", host, err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) //nolint:errcheck // what it says does not matter
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", host, strings.TrimSpace(resp.Status))
	}
	return nil
}
