package admin

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// hubStatus is what each kind of the hub's errors is in HTTP; the statuses are
// those of the service's own management interface.
var hubStatus = map[hub.Kind]int{
	hub.NotFound:            http.StatusNotFound,
	hub.AlreadyExists:       http.StatusConflict,
	hub.InvalidArgument:     http.StatusBadRequest,
	hub.PartitionOutOfRange: http.StatusBadRequest,
	hub.InvalidPosition:     http.StatusBadRequest,
	hub.TooLarge:            http.StatusRequestEntityTooLarge,
	hub.Unauthorized:        http.StatusForbidden,
	hub.Forbidden:           http.StatusForbidden,
	hub.QuotaExceeded:       http.StatusForbidden,
	hub.Stolen:              http.StatusConflict,
	hub.ProducerFenced:      http.StatusConflict,
	hub.OutOfSequence:       http.StatusConflict,
	hub.Revoked:             http.StatusForbidden,
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
	auth.Unauthorized:      http.StatusForbidden,
	auth.LocalAuthDisabled: http.StatusUnauthorized,
}

func badRequest(message string) *Error {
	return &Error{Status: http.StatusBadRequest, Kind: "BadRequest", Message: message}
}

// answerFor translates any error. What is our own failure is not explained to
// the client; internal reports it.
func answerFor(err error) (answer *Error, retryAfter string, internal bool) {
	var own *Error
	if errors.As(err, &own) {
		return own, "", false
	}
	var he *hub.Error
	if errors.As(err, &he) {
		if he.RetryAfter > 0 {
			retryAfter = strconv.Itoa(int(math.Ceil(he.RetryAfter.Seconds())))
		}
		status := hubStatus[he.Kind]
		return &Error{Status: status, Kind: he.Kind.String(), Message: he.Text}, retryAfter, status == http.StatusInternalServerError
	}
	var ae *auth.Error
	if errors.As(err, &ae) {
		return &Error{Status: authStatus[ae.Kind], Kind: ae.Kind.String(), Message: ae.Text}, "", false
	}
	return &Error{Status: http.StatusInternalServerError, Kind: hub.Internal.String(), Message: "The broker was unable to process the request; its log says why."}, "", true
}

// fail answers with an error. It is logged only if it is ours, here at the edge.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	answer, retryAfter, internal := answerFor(err)
	if internal {
		s.log.Error("a management request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	if answer.Status == http.StatusUnauthorized {
		// Not Basic: a browser would ask its user for a password.
		w.Header().Set("WWW-Authenticate", `SharedAccessSignature realm="millrace"`)
	}
	reply(w, answer.Status, problem{answer})
}

// reply sends v as JSON.
func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(v) //nolint:errcheck,errchkjson // the client is gone
}
