package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// received is an event as receive prints it: the fields of its JSON, and of the
// template that --format takes.
type received struct {
	Partition     string         `json:"partition"`
	Sequence      int64          `json:"sequenceNumber"`
	Offset        string         `json:"offset"`
	Enqueued      time.Time      `json:"enqueuedTime"`
	PartitionKey  string         `json:"partitionKey,omitempty"`
	MessageID     string         `json:"messageId,omitempty"`
	CorrelationID any            `json:"correlationId,omitempty"`
	ContentType   string         `json:"contentType,omitempty"`
	Properties    map[string]any `json:"properties,omitempty"`
	// SystemProperties has what captured files have beside, by AMQP's names.
	SystemProperties map[string]any `json:"systemProperties,omitempty"`
	// Body is text; what is not UTF-8 is in Base64 instead. Value is a body that
	// is no bytes at all: AMQP's value and sequence.
	Body   string `json:"body,omitempty"`
	Base64 string `json:"bodyBase64,omitempty"`
	Value  any    `json:"bodyValue,omitempty"`
}

func readEvent(partition string, e *azeventhubs.ReceivedEventData) *received {
	r := &received{
		Partition: partition, Sequence: e.SequenceNumber, Offset: e.Offset,
		CorrelationID: e.CorrelationID, Properties: e.Properties,
	}
	if e.EnqueuedTime != nil {
		r.Enqueued = e.EnqueuedTime.UTC()
	}
	for from, to := range map[*string]*string{e.PartitionKey: &r.PartitionKey, e.MessageID: &r.MessageID, e.ContentType: &r.ContentType} {
		if from != nil {
			*to = *from
		}
	}
	body := e.Body
	if raw := e.RawAMQPMessage; raw != nil {
		switch {
		case len(raw.Body.Data) > 0:
			body = nil
			for _, d := range raw.Body.Data { // several data sections are one body
				body = append(body, d...)
			}
		case raw.Body.Value != nil:
			r.Value = plain(raw.Body.Value)
		case raw.Body.Sequence != nil:
			r.Value = plain(raw.Body.Sequence)
		}
	}
	if utf8.Valid(body) {
		r.Body = string(body)
	} else {
		r.Base64 = base64.StdEncoding.EncodeToString(body)
	}
	return r
}

// plain turns what AMQP can say and JSON can't into something that it can.
func plain(v any) any {
	switch v := v.(type) {
	case map[any]any:
		m := map[string]any{}
		for k, x := range v {
			m[fmt.Sprint(k)] = plain(x)
		}
		return m
	case map[string]any:
		m := map[string]any{}
		for k, x := range v {
			m[k] = plain(x)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, x := range v {
			l[i] = plain(x)
		}
		return l
	case [][]any:
		l := make([]any, len(v))
		for i, x := range v {
			l[i] = plain(x)
		}
		return l
	}
	if _, err := json.Marshal(v); err != nil { // NaN, for one
		return fmt.Sprint(v)
	}
	return v
}

// printer prints an event.
type printer func(w io.Writer, r *received) error

// newPrinter returns the printer for -o and --format.
func newPrinter(out output, format string) (printer, error) {
	switch {
	case format != "" && out == asJSON:
		return nil, misused("--format and -o json exclude each other")
	case out == asJSON:
		return printEventJSON, nil
	case format == "":
		return printEvent, nil
	}
	t, err := template.New("format").Funcs(template.FuncMap{"json": toJSON}).Parse(format)
	if err != nil {
		return nil, misused("--format: %w", err)
	}
	if err := t.Execute(io.Discard, &received{}); err != nil {
		return nil, misused("--format: %w", err)
	}
	return func(w io.Writer, r *received) error {
		var b strings.Builder
		if err := t.Execute(&b, r); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, b.String())
		return err
	}, nil
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(plain(v))
	return string(b), err
}

// printEventJSON prints a line of JSON.
func printEventJSON(w io.Writer, r *received) error {
	x := *r
	if x.Properties != nil {
		x.Properties, _ = plain(x.Properties).(map[string]any)
	}
	if x.SystemProperties != nil {
		x.SystemProperties, _ = plain(x.SystemProperties).(map[string]any)
	}
	x.CorrelationID = plain(x.CorrelationID)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(&x)
}

func printEvent(w io.Writer, r *received) error {
	var b strings.Builder
	fmt.Fprintf(&b, "partition %s  #%d  %s", r.Partition, r.Sequence, r.Enqueued.Format("2006-01-02T15:04:05.000Z07:00"))
	if r.PartitionKey != "" {
		fmt.Fprintf(&b, "  key=%s", r.PartitionKey)
	}
	if len(r.Properties) > 0 {
		if p, err := toJSON(r.Properties); err == nil {
			fmt.Fprintf(&b, "  %s", p)
		}
	}
	if len(r.SystemProperties) > 0 {
		if p, err := toJSON(r.SystemProperties); err == nil {
			fmt.Fprintf(&b, "  system=%s", p)
		}
	}
	switch {
	case r.Value != nil:
		v, err := toJSON(r.Value)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "  %s", v)
	case r.Base64 != "":
		fmt.Fprintf(&b, "  base64:%s", r.Base64)
	default:
		fmt.Fprintf(&b, "  %s", r.Body)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}
