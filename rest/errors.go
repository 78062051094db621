package rest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// hubStatus is what each kind of the hub's errors is in HTTP. That a missing
// right is 401 and not 403 is the service's way: its pages know no 403 for it.
var hubStatus = map[hub.Kind]int{
	hub.NotFound:            http.StatusNotFound,
	hub.AlreadyExists:       http.StatusConflict,
	hub.InvalidArgument:     http.StatusBadRequest,
	hub.PartitionOutOfRange: http.StatusBadRequest,
	hub.InvalidPosition:     http.StatusBadRequest,
	hub.TooLarge:            http.StatusRequestEntityTooLarge,
	hub.Unauthorized:        http.StatusUnauthorized,
	hub.Forbidden:           http.StatusForbidden,
	hub.QuotaExceeded:       http.StatusForbidden,
	hub.Stolen:              http.StatusConflict,
	hub.ProducerFenced:      http.StatusConflict,
	hub.OutOfSequence:       http.StatusConflict,
	hub.Revoked:             http.StatusUnauthorized,
	hub.Disabled:            http.StatusForbidden,
	hub.Busy:                http.StatusServiceUnavailable,
	hub.StorageFull:         http.StatusServiceUnavailable,
	hub.Moved:               http.StatusServiceUnavailable,
	hub.Corrupt:             http.StatusInternalServerError,
	hub.Closed:              http.StatusServiceUnavailable,
	hub.Internal:            http.StatusInternalServerError,
}

// authStatus is the same for refused tokens and missing rights.
var authStatus = map[auth.Kind]int{
	auth.Malformed:         http.StatusUnauthorized,
	auth.InvalidSignature:  http.StatusUnauthorized,
	auth.UnknownKey:        http.StatusUnauthorized,
	auth.Expired:           http.StatusUnauthorized,
	auth.NotYetValid:       http.StatusUnauthorized,
	auth.WrongAudience:     http.StatusUnauthorized,
	auth.WrongIssuer:       http.StatusUnauthorized,
	auth.EntraDisabled:     http.StatusUnauthorized,
	auth.Unavailable:       http.StatusServiceUnavailable,
	auth.Unauthorized:      http.StatusUnauthorized,
	auth.LocalAuthDisabled: http.StatusUnauthorized,
}

// refusal is an error of HTTP's own, which the hub has no kind for.
type refusal struct {
	status int
	text   string
}

// Error implements error.
func (e *refusal) Error() string { return e.text }

// invalid refuses what a request says: 400, and in the metrics the client's
// fault.
func invalid(format string, args ...any) error {
	return &hub.Error{Kind: hub.InvalidArgument, Text: fmt.Sprintf(format, args...)}
}

// answer is what an error looks like to a client.
type answer struct {
	status     int
	text       string
	retryAfter string // whole seconds, or ""
}

// answerFor translates any error. What is our own failure is not explained to
// the client.
func answerFor(err error) answer {
	var own *refusal
	var ce *captureError
	var he *hub.Error
	var ae *auth.Error
	switch {
	case errors.As(err, &own):
		return answer{status: own.status, text: own.text}
	case errors.As(err, &ce):
		return answer{status: http.StatusBadRequest, text: ce.text}
	case errors.As(err, &he):
		a := answer{status: hubStatus[he.Kind], text: he.Text}
		if he.RetryAfter > 0 {
			a.retryAfter = strconv.Itoa(int(math.Ceil(he.RetryAfter.Seconds())))
		}
		return a
	case errors.As(err, &ae):
		return answer{status: authStatus[ae.Kind], text: ae.Text}
	case errors.Is(err, context.DeadlineExceeded):
		return answer{status: http.StatusGatewayTimeout, text: "The operation did not end within the allotted time. It is unknown whether the events were stored; please retry."}
	case errors.Is(err, context.Canceled): // the client is gone, and reads no answer
		return answer{status: http.StatusServiceUnavailable, text: "The request was given up."}
	}
	return answer{status: http.StatusInternalServerError, text: "The broker was unable to process the request; please retry the operation."}
}

// fail answers with an error. It is logged only if it is ours, here at the edge.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	a := answerFor(err)
	id := trackingID()
	if a.status == http.StatusInternalServerError {
		s.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "tracking", id, "error", err)
	}
	h := w.Header()
	if a.retryAfter != "" {
		h.Set("Retry-After", a.retryAfter)
	}
	if a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `SharedAccessSignature realm="millrace"`)
	}
	h.Set("Content-Type", contentXML)
	h.Set("Cache-Control", "no-store")
	// As recordings of the service have it, host and path are the system tracker
	// (azure-sdk-for-js, recordings of schema-registry-avro, 2020).
	detail := fmt.Sprintf("%s TrackingId:%s, SystemTracker:%s:%s, Timestamp:%s", a.text, id,
		s.o.Namespaces.Lookup(r.Host).Name, r.URL.Path[min(1, len(r.URL.Path)):], s.o.Now().UTC().Format("2006-01-02T15:04:05"))
	var b bytes.Buffer
	fmt.Fprintf(&b, "<Error><Code>%d</Code><Detail>", a.status)
	xml.EscapeText(&b, []byte(detail)) //nolint:errcheck // a Buffer takes all
	b.WriteString("</Detail></Error>")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(a.status)
	w.Write(b.Bytes()) //nolint:errcheck // the client is gone
}

// contentXML is the content type of every answer of the service, empty ones too.
const contentXML = "application/xml; charset=utf-8"

// trackingID is unlike any other, in the form of a GUID.
func trackingID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// counted is an error as the hub's metrics sort it.
func counted(err error) error {
	switch a := answerFor(err); {
	case errors.As(err, new(*hub.Error)):
		return err
	case a.status < http.StatusInternalServerError:
		return &hub.Error{Kind: hub.InvalidArgument}
	case a.status != http.StatusInternalServerError:
		return &hub.Error{Kind: hub.Busy}
	}
	return err
}

// busy refuses for now.
func busy(after time.Duration, text string) error {
	return &hub.Error{Kind: hub.Busy, Text: text, RetryAfter: after}
}
