package rest

import (
	"errors"
	"net/http"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/hub"
)

// StatusOf lets tests see how an error is answered, and how it is counted.
func StatusOf(err error) (status int, retryAfter string, kind hub.Kind) {
	a := answerFor(err)
	var he *hub.Error
	if errors.As(counted(err), &he) {
		kind = he.Kind
	}
	return a.status, a.retryAfter, kind
}

// MaxHeld is the limit of all bodies together.
const MaxHeld = maxHeld

// Hold takes up n bytes of it.
func (s *Server) Hold(n int64) { s.held.Add(n) }

// Held is what is taken up of it.
func (s *Server) Held() int64 { return s.held.Load() }

// DecodeBatch lets tests and fuzzing see what a batch is taken for.
func DecodeBatch(body []byte) (count, size int, err error) {
	in := &intake{limit: hub.MaxPublication}
	defer in.b.Reset()
	err = in.addBatch(body)
	return in.b.Count(), in.b.Size(), err
}

// DecodeHeaders is the same for the headers of a single event.
func DecodeHeaders(h http.Header) (message.Draft, *string, error) {
	in := &intake{limit: hub.MaxPublication}
	defer in.b.Reset()
	err := in.addSingle(&http.Request{Header: h}, nil)
	return in.draft, in.key, err
}

// ParseEntry lets fuzzing read an entry as each kind of description, and see what
// a hub's would become. What a capture can't be is an error of the first.
func ParseEntry(doc []byte) (h hub.Settings, partitions *int, errs [3]error) {
	var d *hubDescription
	if d, errs[0] = parseHub(doc); errs[0] == nil {
		h = hub.Settings{Retention: d.retention(0), Status: hub.Status(d.status), Metadata: d.metadata, Rules: d.rules}
		partitions = d.partitions
		errs[0] = d.capture.change(&h)
	}
	_, errs[1] = parseGroup(doc)
	_, errs[2] = parseRevoked(doc)
	return h, partitions, errs
}

// ShowCapture is an entry of a hub that is captured so, as it is shown to who may
// change that.
func ShowCapture(c *hub.Capture) []byte {
	var w writer
	e := entry{kind: "EventHubDescription", content: func(w *writer) { w.capture(c, true) }}
	e.write(&w, "")
	return w.Bytes()
}

// The bounds of an entry.
const (
	MaxEntry    = maxEntry
	MaxNested   = maxNested
	MaxElements = maxElements
)
