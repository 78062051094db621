package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// armError is a refusal in the resource manager's own words. SDKs show the code,
// and programs decide by it.
type armError struct {
	status             int
	code, target, text string
	retryAfter         string
}

// Error implements error.
func (e *armError) Error() string { return e.text }

func badRequest(target, format string, args ...any) error {
	return &armError{status: http.StatusBadRequest, code: "BadRequest", target: target, text: fmt.Sprintf(format, args...)}
}

// unsupported refuses what a property asks for and the broker doesn't do. The
// code says what that is: "CompactionNotSupported".
func unsupported(what, target, text string) error {
	return &armError{status: http.StatusBadRequest, code: what + "NotSupported", target: target, text: text}
}

// hubCodes is what each kind of the hub's errors is to the resource manager.
// What may not be done to an entity at all is a bad request, as the service says
// of the deletion of $Default.
var hubCodes = map[hub.Kind]armError{
	hub.NotFound:            {status: http.StatusNotFound, code: "NotFound"},
	hub.AlreadyExists:       {status: http.StatusConflict, code: "Conflict"},
	hub.InvalidArgument:     {status: http.StatusBadRequest, code: "BadRequest"},
	hub.PartitionOutOfRange: {status: http.StatusBadRequest, code: "BadRequest"},
	hub.InvalidPosition:     {status: http.StatusBadRequest, code: "BadRequest"},
	hub.TooLarge:            {status: http.StatusRequestEntityTooLarge, code: "RequestEntityTooLarge"},
	hub.Unauthorized:        {status: http.StatusForbidden, code: "AuthorizationFailed"},
	hub.Forbidden:           {status: http.StatusBadRequest, code: "BadRequest"},
	hub.QuotaExceeded:       {status: http.StatusForbidden, code: "QuotaExceeded"},
	hub.Stolen:              {status: http.StatusConflict, code: "Conflict"},
	hub.ProducerFenced:      {status: http.StatusConflict, code: "Conflict"},
	hub.OutOfSequence:       {status: http.StatusConflict, code: "Conflict"},
	hub.Revoked:             {status: http.StatusForbidden, code: "AuthorizationFailed"},
	hub.Disabled:            {status: http.StatusConflict, code: "Conflict"},
	hub.Busy:                {status: http.StatusServiceUnavailable, code: "ServerBusy"},
	hub.StorageFull:         {status: http.StatusServiceUnavailable, code: "ServiceUnavailable"},
	hub.Moved:               {status: http.StatusServiceUnavailable, code: "ServiceUnavailable"},
	hub.Corrupt:             {status: http.StatusInternalServerError, code: "InternalServerError"},
	hub.Closed:              {status: http.StatusServiceUnavailable, code: "ServiceUnavailable"},
	hub.Internal:            {status: http.StatusInternalServerError, code: "InternalServerError"},
}

// authCodes is the same for refused tokens and missing rights.
var authCodes = map[auth.Kind]armError{
	auth.Malformed:         {status: http.StatusUnauthorized, code: "InvalidAuthenticationToken"},
	auth.InvalidSignature:  {status: http.StatusUnauthorized, code: "InvalidAuthenticationToken"},
	auth.UnknownKey:        {status: http.StatusUnauthorized, code: "InvalidAuthenticationToken"},
	auth.Expired:           {status: http.StatusUnauthorized, code: "ExpiredAuthenticationToken"},
	auth.NotYetValid:       {status: http.StatusUnauthorized, code: "InvalidAuthenticationToken"},
	auth.WrongAudience:     {status: http.StatusUnauthorized, code: "InvalidAuthenticationTokenAudience"},
	auth.WrongIssuer:       {status: http.StatusUnauthorized, code: "InvalidAuthenticationTokenTenant"},
	auth.EntraDisabled:     {status: http.StatusUnauthorized, code: "InvalidAuthenticationToken"},
	auth.Unavailable:       {status: http.StatusServiceUnavailable, code: "ServiceUnavailable"},
	auth.Unauthorized:      {status: http.StatusForbidden, code: "AuthorizationFailed"},
	auth.LocalAuthDisabled: {status: http.StatusUnauthorized, code: "InvalidAuthenticationToken"},
}

// armAnswerFor translates any error. What is our own failure is not explained to
// the client.
func armAnswerFor(err error) armError {
	var own *armError
	var ce *captureError
	var he *hub.Error
	var ae *auth.Error
	var a armError
	switch {
	case errors.As(err, &own):
		return *own
	case errors.As(err, &ce):
		return armError{status: http.StatusBadRequest, code: ce.code, target: "properties.captureDescription." + ce.property, text: ce.text}
	case errors.As(err, &he):
		a = hubCodes[he.Kind]
		a.text = he.Text
		if he.RetryAfter > 0 {
			a.retryAfter = strconv.Itoa(int(math.Ceil(he.RetryAfter.Seconds())))
		}
	case errors.As(err, &ae):
		a = authCodes[ae.Kind]
		a.text = ae.Text
	default:
		plain := answerFor(err)
		a = armError{status: plain.status, code: "InternalServerError", text: plain.text}
		if plain.status != http.StatusInternalServerError {
			a.status, a.code, a.text = http.StatusServiceUnavailable, "ServiceUnavailable", "The request was given up; whether it was carried out is unknown."
		}
	}
	return a
}

// isMissing tells whether an error says that something isn't there.
func isMissing(err error) bool { return err != nil && armAnswerFor(err).status == http.StatusNotFound }

// fail answers with an error. It is logged only if it is ours, here at the edge.
func (c *armCall) fail(err error) {
	a := armAnswerFor(err)
	if a.status == http.StatusInternalServerError {
		c.s.log.Error("a management request failed", "method", c.Method, "path", c.URL.Path, "tracking", c.tracking, "error", err)
	}
	if a.retryAfter != "" {
		c.w.Header().Set("Retry-After", a.retryAfter)
	}
	if a.status == http.StatusUnauthorized {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="millrace", error="invalid_token"`)
	}
	c.w.Header().Set("X-Ms-Error-Code", a.code)
	type detail struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Target  string `json:"target,omitempty"`
	}
	c.reply(a.status, map[string]detail{"error": {a.code, a.text, a.target}}) //nolint:errcheck // always nil
}

// reply sends v as JSON.
func (c *armCall) reply(status int, v any) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	c.w.WriteHeader(status)
	e := json.NewEncoder(c.w)
	e.SetEscapeHTML(false)
	e.Encode(v) //nolint:errcheck,errchkjson // the client is gone
	return nil
}

// maxARM is the largest request that is read: several times what fifty of the
// longest tags take.
const maxARM = 256 << 10

// read decodes the request's body.
func (c *armCall) read(v any) error {
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, maxARM))
	if err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return &armError{status: http.StatusRequestEntityTooLarge, code: "RequestEntityTooLarge", text: fmt.Sprintf("The request is longer than %d bytes.", maxARM)}
		}
		return badRequest("", "The request did not arrive as a whole.")
	}
	return decodeARM(text, v)
}

// decodeARM reads one JSON object. Names of properties are in any case, as the
// service has them; those that v lacks are passed over, since a resource that was
// read is often sent back whole, with all that is read-only.
func decodeARM(text []byte, v any) error {
	invalid := func(format string, args ...any) error {
		return &armError{status: http.StatusBadRequest, code: "InvalidRequestContent", text: "The request content was invalid and could not be deserialized: " + fmt.Sprintf(format, args...)}
	}
	if !utf8.Valid(text) {
		return invalid("it is not UTF-8 text.")
	}
	first := bytes.TrimLeft(text, " \t\r\n")
	if len(first) == 0 {
		return invalid("it is empty, and has to be a JSON object.")
	}
	if first[0] != '{' {
		return invalid("it is not a JSON object.")
	}
	r, err := newReader(text)
	if err == nil {
		err = r.skip() // its depth is bounded
	}
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return invalid("%s", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return &armError{status: http.StatusBadRequest, code: "InvalidRequestContent", target: wrong.Field,
				text: fmt.Sprintf("The request content was invalid and could not be deserialized: '%s' can't be a %s.", wrong.Field, wrong.Value)}
		}
		return invalid("%s.", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// asked tells whether a property of an object or a list asks for anything.
func asked(raw json.RawMessage) bool {
	switch strings.Join(strings.Fields(string(raw)), "") {
	case "", "null", "{}", "[]":
		return false
	}
	return true
}
