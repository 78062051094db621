package rest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/amqp/message"
)

// brokerProperties are the BrokerProperties of an event: what the service calls
// the properties of a BrokeredMessage, and AMQP its properties. nil is one that
// is not set.
//
//	Label, Subject → subject          SessionId        → group-id
//	MessageId      → message-id       ReplyToSessionId → reply-to-group-id
//	CorrelationId  → correlation-id   ContentType      → content-type
//	To             → to               PartitionKey     → the annotation
//	ReplyTo        → reply-to                            x-opt-partition-key
//
// All others are ignored, as the service's pages say. So is TimeToLive, which is
// a queue's and would end in a header that hubs don't keep: retention is the
// hub's.
type brokerProperties struct {
	MessageID, CorrelationID, Subject, To, ReplyTo *string
	SessionID, ReplyToSessionID, ContentType       *string
	PartitionKey                                   *string
}

// field is where a property of that name goes; nil if it is ignored. key is
// lower case: serialisers differ.
func (b *brokerProperties) field(key string) **string {
	switch key {
	case "messageid":
		return &b.MessageID
	case "correlationid":
		return &b.CorrelationID
	case "label", "subject":
		return &b.Subject
	case "to":
		return &b.To
	case "replyto":
		return &b.ReplyTo
	case "sessionid":
		return &b.SessionID
	case "replytosessionid":
		return &b.ReplyToSessionID
	case "contenttype":
		return &b.ContentType
	case "partitionkey":
		return &b.PartitionKey
	}
	return nil
}

// parseHeader reads the header of that name.
func (b *brokerProperties) parseHeader(value string) error {
	r, err := newReader([]byte(value))
	if err == nil {
		if err = b.parse(r, "The value"); err == nil {
			err = r.end()
		}
	}
	if err != nil {
		return invalid("The header BrokerProperties can't be read. %s", err)
	}
	return nil
}

// parse reads the object.
func (b *brokerProperties) parse(r *reader, what string) error {
	err := r.object(what, foldBroker, func(key string) error {
		to := b.field(strings.ToLower(key))
		if to == nil {
			return r.skip()
		}
		v, err := r.scalar(key)
		if err != nil {
			return err
		}
		switch v := v.(type) {
		case nil:
		case string:
			if v != "" { // the service's default: none
				*to = &v
			}
		default:
			return fmt.Errorf("%s is not a string.", key)
		}
		return nil
	})
	if err == nil && b.SessionID != nil && b.PartitionKey != nil && *b.SessionID != *b.PartitionKey {
		err = fmt.Errorf("SessionId and PartitionKey are both set; they must be the same, not '%s' and '%s'.", *b.SessionID, *b.PartitionKey)
	}
	return err
}

// foldBroker is equal for names of the same property.
func foldBroker(key string) string {
	if key = strings.ToLower(key); key == "label" {
		return "subject"
	}
	return key
}

// apply sets the draft's fields.
func (b *brokerProperties) apply(d *message.Draft) {
	for _, f := range []struct {
		from *string
		to   *string
	}{
		{b.MessageID, &d.MessageID},
		{b.CorrelationID, &d.CorrelationID},
		{b.Subject, &d.Subject},
		{b.To, &d.To},
		{b.ReplyTo, &d.ReplyTo},
		{b.SessionID, &d.GroupID},
		{b.ReplyToSessionID, &d.ReplyToGroupID},
		{b.ContentType, &d.ContentType},
	} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
}

// userProperties reads the UserProperties of an event in a batch.
func userProperties(d *message.Draft, r *reader) error {
	return r.object("UserProperties", exact, func(key string) error {
		v, err := r.scalar(fmt.Sprintf("The user property %q", key))
		if err != nil {
			return err
		}
		if n, ok := v.(json.Number); ok {
			if v, ok = number(n); !ok {
				return fmt.Errorf("The user property %q is a number beyond 64 bits.", key)
			}
		}
		d.Properties = append(d.Properties, message.Property{Name: key, Value: v})
		return nil
	})
}

// httpHeaders are those that are HTTP's own, a proxy's, a browser's, or this
// interface's: no application properties. Priority is not among them, although
// browsers have one: it is the example of a property in the service's pages.
// Nor is traceparent, by which consumers find the trace.
var httpHeaders = headerSet(
	"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Accept-Datetime", "Allow", "Authorization",
	"BrokerProperties", "Cache-Control", "Connection", "Content-Encoding", "Content-Language", "Content-Length", "Content-Location",
	"Content-Md5", "Content-Range", "Content-Type", "Cookie", "Date", "Dnt", "Expect", "Expires", "Forwarded", "From", "Host",
	"If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive", "Last-Modified",
	"Max-Forwards", "Origin", "Pragma", "Proxy-Authorization", "Proxy-Connection", "Range", "Referer", "ServiceBusAuthorization",
	"Te", "Trailer", "Transfer-Encoding", "Translate", "Upgrade", "Upgrade-Insecure-Requests", "User-Agent", "Via", "Warning",
	"X-Real-Ip",
)

// httpPrefixes are the same for families of headers.
var httpPrefixes = []string{"Access-Control-", "Sec-", "X-Forwarded-", "X-Ms-"}

func headerSet(names ...string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[textproto.CanonicalMIMEHeaderKey(n)] = true
	}
	return set
}

func httpHeader(name string) bool {
	return httpHeaders[name] || slices.ContainsFunc(httpPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// headerProperties reads what a single event has of its headers: content type
// and encoding, and the application properties, in the order of their names.
func headerProperties(d *message.Draft, r *http.Request) error {
	h := r.Header
	d.ContentType, d.ContentEncoding = h.Get("Content-Type"), h.Get("Content-Encoding")
	for _, x := range []string{d.ContentType, d.ContentEncoding} {
		if !utf8.ValidString(x) {
			return invalid("The content type or encoding is not UTF-8 text.")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if httpHeader(name) {
			continue
		}
		value := strings.Join(h[name], ",") // what several lines of one name mean
		if !utf8.ValidString(value) {
			return invalid("The value of the header %s is not UTF-8 text.", name)
		}
		d.Properties = append(d.Properties, message.Property{Name: headerName(r, name), Value: headerValue(value)})
	}
	return nil
}

// headerValue gives a header's value its type. The SDKs that spoke HTTP wrote
// JSON: strings in quotes, numbers and booleans without; and dates in quotes, as
// HTTP writes them (Azure's servicebus for Python before 0.50; for PHP and Java
// the same). Whatever is none of these is text as it stands, as the "Strong
// Wind" of the service's own page.
func headerValue(s string) any {
	switch {
	case s == "true":
		return true
	case s == "false":
		return false
	case s == "":
		return s
	case s[0] == '"':
		var text string
		if json.Unmarshal([]byte(s), &text) != nil {
			return s
		}
		if t, err := time.Parse(http.TimeFormat, text); err == nil {
			return t.UTC()
		}
		return text
	case s[0] == '-' || s[0] >= '0' && s[0] <= '9':
		var n json.Number
		if json.Unmarshal([]byte(s), &n) != nil {
			return s
		}
		if v, ok := number(n); ok {
			return v
		}
	}
	return s
}
