package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// batchType is the content type of a batch. It has no parameters: the service's
// pages say so ("Send Message Batch").
const batchType = "application/vnd.microsoft.servicebus.json"

const (
	// maxWait is how long a request may wait for the disk, as the service's own
	// default (timeout=60).
	maxWait = time.Minute
	// answerTime is how long a client may take to read its answer.
	answerTime = 10 * time.Second
	// maxHeld bounds the bytes of the bodies of all requests together.
	maxHeld = 64 << 20
	// busyFor is what a client is told to wait when maxHeld is reached.
	busyFor = time.Second
	// maxDrain is how much of a body that is too large is read nevertheless.
	maxDrain = 8 << 20
	// firstRead is how much room a body gets at first, if its length is not known
	// or larger.
	firstRead = 32 << 10
)

// target is what a path names: a hub, or a partition or publisher of it.
type target struct {
	hub, partition, publisher string
}

// parseTarget reads the steps of a path.
func parseTarget(seg []string) (t target, ok bool) {
	last := len(seg) - 1
	if last < 1 || seg[0] == "" || !strings.EqualFold(seg[last], "messages") {
		return t, false
	}
	t.hub = seg[0]
	switch {
	case last == 1:
		return t, true
	case last != 3 || seg[2] == "":
		return t, false
	case strings.EqualFold(seg[1], "partitions"):
		t.partition = seg[2]
	// The example on the page "Send event with publisher ID" has the singular.
	case strings.EqualFold(seg[1], "publishers"), strings.EqualFold(seg[1], "publisher"):
		t.publisher = seg[2]
	default:
		return t, false
	}
	return t, true
}

// path is the target as claims are compared with it, the same as for an AMQP
// link.
func (t *target) path() string {
	switch {
	case t.partition != "":
		return t.hub + "/Partitions/" + t.partition
	case t.publisher != "":
		return t.hub + "/Publishers/" + t.publisher
	}
	return t.hub
}

// send stores what the request brings, and answers when it is durable.
func (c *call) send() error {
	client, denied := c.maySend()
	h, err := c.ns.EventHub(c.target.hub)
	if denied != nil { // who may not send does not learn what there is
		if err == nil && errors.As(denied, new(*auth.Error)) {
			h.Metrics.Failed(counted(denied))
		}
		return denied
	}
	if err != nil {
		return err
	}
	in := &intake{hub: h, client: client, limit: c.ns.Quotas().Publication}
	defer func() { c.s.held.Add(-in.held) }()
	if err := c.prepare(in); err != nil {
		in.b.Reset()
		h.Metrics.Failed(counted(err))
		return err
	}
	// The server's own deadline began with the request, whose body may have taken
	// most of it.
	http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(in.wait + answerTime)) //nolint:errcheck // not every writer has one
	if err := in.store(c.Context()); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", contentXML)
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// maySend checks the request's token. It may be signed for the address itself:
// azure-servicebus 0.21, the Python client with send_event, does so.
func (c *call) maySend() (hub.Client, error) {
	claims, err := c.verify()
	client := c.ns.Client(claims)
	if err != nil {
		return client, err
	}
	now := c.s.o.Now()
	err = claims.Check(auth.Send, c.target.path(), now)
	if err != nil && claims.Allows(auth.Send, c.target.path()+"/messages", now) {
		err = nil
	}
	if err == nil {
		err = client.MayConnect()
	}
	return client, err
}

// intake is what one request brings: an append in the making.
type intake struct {
	hub       *hub.EventHub
	client    hub.Client
	partition *hub.Partition // nil when the broker chooses
	publisher []byte
	limit     int // of the request and of its events, in bytes
	wait      time.Duration
	held      int64 // counted in Server.held

	b       message.Builder
	parsed  message.Parsed
	draft   message.Draft
	encoded []byte
	key     *string // the partition key of the events, once one has one
}

// prepare reads the request up to the append.
func (c *call) prepare(in *intake) (err error) {
	if c.target.partition != "" {
		if in.partition, err = in.hub.Partition(c.target.partition); err != nil {
			return err
		}
	}
	if c.target.publisher != "" {
		in.publisher = []byte(c.target.publisher)
	}
	if len(in.publisher) > hub.MaxPublisher {
		return invalid("The publisher's name is too long.")
	}
	if !utf8.Valid(in.publisher) {
		return invalid("The publisher's name is not UTF-8 text.")
	}
	if err = in.allowed(); err != nil {
		return err
	}
	if in.wait, err = timeout(c.URL.Query().Get("timeout")); err != nil {
		return err
	}
	batch, err := isBatch(c.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	body, err := c.readBody(in)
	if err != nil {
		return err
	}
	if err = in.allowed(); err != nil { // still: a body may take a minute
		return err
	}
	if batch {
		return in.addBatch(body)
	}
	return in.addSingle(c.Request, body)
}

// allowed tells why the hub takes nothing from the publisher, or from anybody.
func (in *intake) allowed() error {
	if err := in.hub.MaySend(); err != nil || in.publisher == nil {
		return err
	}
	return in.hub.MayPublish(string(in.publisher))
}

// timeout reads the parameter of that name: whole seconds, maxWait at most.
func timeout(s string) (time.Duration, error) {
	if s == "" {
		return maxWait, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, invalid("The timeout '%s' is not a number of seconds.", s)
	}
	return min(time.Duration(n)*time.Second, maxWait), nil
}

// isBatch tells a batch by its content type. One with parameters is refused: the
// service does not take it for a batch, and a list of events stored as one event
// is what nobody wants.
func isBatch(contentType string) (bool, error) {
	media, parameters, found := strings.Cut(contentType, ";")
	if !strings.EqualFold(strings.TrimSpace(media), batchType) {
		return false, nil
	}
	if found && strings.TrimSpace(parameters) != "" {
		return false, invalid("The Content-Type of a batch is '%s', without parameters such as a charset.", batchType)
	}
	return true, nil
}

// readBody reads the whole body, within the limits. It makes room as the bytes
// come, so that a length that is only announced costs nothing.
func (c *call) readBody(in *intake) ([]byte, error) {
	if c.ContentLength > int64(in.limit) {
		return nil, c.tooLarge(in)
	}
	r := http.MaxBytesReader(c.w, c.Body, int64(in.limit))
	size := firstRead
	if c.ContentLength >= 0 {
		size = min(int(c.ContentLength), firstRead)
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			grown := make([]byte, len(body), max(size, min(2*cap(body), in.limit))+1) // and one, to see the end
			more := int64(cap(grown) - cap(body))
			in.held += more
			if c.s.held.Add(more) > maxHeld {
				return nil, busy(busyFor, "The server is busy. Please wait and retry the operation.")
			}
			body = grown[:copy(grown, body)]
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case errors.As(err, new(*http.MaxBytesError)):
			return nil, c.tooLarge(in)
		case err != nil:
			return nil, &refusal{http.StatusBadRequest, "The body of the request ends before it is complete, or came too slowly."}
		}
	}
}

// tooLarge is the error of that name. What follows of the body is read, within
// bounds: a client that is still sending would find the connection reset, and no
// answer. One that asks first, by Expect, sends nothing.
func (c *call) tooLarge(in *intake) error {
	if c.Header.Get("Expect") == "" {
		io.CopyN(io.Discard, c.Body, maxDrain) //nolint:errcheck // the error is known
	}
	return in.tooLarge()
}

// addSingle adds the one event that a request is.
func (in *intake) addSingle(r *http.Request, body []byte) error {
	var broker brokerProperties
	if values := r.Header.Values("BrokerProperties"); len(values) > 1 {
		return invalid("There are several headers BrokerProperties; there may be one.")
	} else if len(values) == 1 {
		if err := broker.parseHeader(values[0]); err != nil {
			return err
		}
	}
	in.draft.Body = body
	if err := headerProperties(&in.draft, r); err != nil {
		return err
	}
	return in.add(&broker, len(body))
}

// add adds the event that in.draft is. hint is how many bytes are likely to
// follow, this event included.
func (in *intake) add(broker *brokerProperties, hint int) error {
	broker.apply(&in.draft)
	if err := in.checkKey(broker.PartitionKey); err != nil {
		return err
	}
	in.encoded = in.draft.Append(in.encoded[:0])
	if len(in.encoded) > in.limit { // as AMQP counts it: with its properties
		return in.tooLarge()
	}
	if err := in.parsed.Parse(in.encoded); err != nil {
		return err
	}
	marks := message.Marks{PartitionKey: in.publisher, Publisher: in.publisher}
	if broker.PartitionKey != nil {
		marks.PartitionKey = []byte(*broker.PartitionKey)
	}
	in.b.Add(&in.parsed, marks, hint)
	return nil
}

func (in *intake) tooLarge() error {
	return &hub.Error{Kind: hub.TooLarge, Text: fmt.Sprintf("The request exceeds the limit of %d bytes currently allowed.", in.limit)}
}

// checkKey looks at the partition key of an event; nil is none.
func (in *intake) checkKey(key *string) error {
	switch {
	case key == nil:
		return nil
	case len(*key) > hub.MaxPartitionKey:
		return invalid("The partition key is too long.")
	case in.publisher != nil && *key != string(in.publisher):
		return invalid("The partition key must be the publisher's name, '%s'.", in.publisher)
	case in.partition == nil && in.key != nil && *key != *in.key:
		// A batch goes to one partition, whole ("If more than one event in a
		// batch has a different partition, the batch will fail", a maintainer in
		// azure-event-hubs-go issue 127).
		return invalid("The events of a batch have different partition keys, '%s' and '%s'. A batch is stored in one partition, so it has one partition key.", *in.key, *key)
	}
	in.key = key
	return nil
}

// route returns the partition that the events go to.
func (in *intake) route() *hub.Partition {
	switch {
	case in.partition != nil:
		return in.partition
	case in.publisher != nil:
		return in.hub.ForKey(string(in.publisher))
	case in.key != nil:
		return in.hub.ForKey(*in.key)
	}
	return in.hub.Next()
}

// store appends the events and waits until they are durable. When ctx ends first
// it is unknown whether they will be.
func (in *intake) store(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, in.wait)
	defer cancel()
	b := in.b.Batch()
	done := make(chan error, 1)
	in.client.Append(in.route(), b, func(err error) {
		b.Release()
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
