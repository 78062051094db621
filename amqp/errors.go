package amqp

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// Error conditions (amqp.md 4.7, 4.8, 5.6).
const (
	condNotFound         = "amqp:not-found"
	condNotAllowed       = "amqp:not-allowed"
	condNotImplemented   = "amqp:not-implemented"
	condInternal         = "amqp:internal-error"
	condUnauthorized     = "amqp:unauthorized-access"
	condQuota            = "amqp:resource-limit-exceeded"
	condDecode           = "amqp:decode-error"
	condIllegalState     = "amqp:illegal-state"
	condStolen           = "amqp:link:stolen"
	condTooLarge         = "amqp:link:message-size-exceeded"
	condDetachForced     = "amqp:link:detach-forced"
	condForced           = "amqp:connection:forced"
	condFraming          = "amqp:connection:framing-error"
	condWindow           = "amqp:session:window-violation"
	condUnattached       = "amqp:session:unattached-handle"
	condHandleInUse      = "amqp:session:handle-in-use"
	condEpochStolen      = "com.microsoft:producer-epoch-stolen"
	condOutOfOrder       = "com.microsoft:out-of-order-sequence"
	condAuthFailed       = "com.microsoft:auth-failed"
	condArgument         = "com.microsoft:argument-error"
	condArgumentRange    = "com.microsoft:argument-out-of-range"
	condBusy             = "com.microsoft:server-busy"
	condTimeout          = "com.microsoft:timeout"
	condEntityDisabled   = "com.microsoft:entity-disabled"
	condPublisherRevoked = "com.microsoft:publisher-revoked"
	condOperationCancel  = "com.microsoft:operation-cancelled"
)

// outcome is what a kind of error becomes on this door.
type outcome struct {
	condition string
	status    int32 // in the reply to a request
}

// outcomes is the table from the hub's kinds to AMQP's conditions.
var outcomes = map[hub.Kind]outcome{
	hub.NotFound:            {condNotFound, 404},
	hub.AlreadyExists:       {condNotAllowed, 409},
	hub.InvalidArgument:     {condArgument, 400},
	hub.PartitionOutOfRange: {condArgumentRange, 400},
	hub.InvalidPosition:     {condArgument, 400},
	hub.TooLarge:            {condTooLarge, 413},
	hub.Unauthorized:        {condUnauthorized, 401},
	hub.Forbidden:           {condNotAllowed, 403},
	hub.QuotaExceeded:       {condQuota, 403},
	hub.Stolen:              {condStolen, 410},
	hub.ProducerFenced:      {condEpochStolen, 409},
	hub.OutOfSequence:       {condOutOfOrder, 409},
	hub.Revoked:             {condPublisherRevoked, 401},
	hub.Disabled:            {condEntityDisabled, 400},
	hub.Busy:                {condBusy, 503},
	hub.StorageFull:         {condBusy, 503},
	hub.Moved:               {condTimeout, 408},
	hub.Corrupt:             {condInternal, 500},
	hub.Closed:              {condForced, 503},
	hub.Internal:            {condInternal, 500},
}

// authStatus is the table from the kinds of refused tokens to the status of a
// reply; the condition is that of all failed authentications.
var authStatus = map[auth.Kind]int32{
	auth.Malformed: 401, auth.InvalidSignature: 401, auth.UnknownKey: 401, auth.Expired: 401, auth.NotYetValid: 401,
	auth.WrongAudience: 401, auth.WrongIssuer: 401, auth.EntraDisabled: 401, auth.Unavailable: 503, auth.Unauthorized: 401,
	auth.LocalAuthDisabled: 401,
}

// tracker numbers the tracking ids of a process.
type tracker struct {
	prefix string
	n      atomic.Uint64
}

func newTracker() *tracker {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return &tracker{prefix: hex.EncodeToString(b[:])}
}

// id is unlike any other.
func (t *tracker) id() string { return fmt.Sprintf("%s%08x", t.prefix, t.n.Add(1)) }

// trailer is what every text of the service ends in; log tools look for it, and
// Python's SDK for its parts.
func (c *conn) trailer(entity string) string {
	return fmt.Sprintf(" TrackingId:%s_%s, SystemTracker:%s:eventhub:%s, Timestamp:%s",
		c.srv.tracker.id(), c.id, c.ns.Name, entity, c.now.UTC().Format("2006-01-02T15:04:05"))
}

// amqpError translates an error of the hub or of auth. Text of other errors
// stays in our log.
func (c *conn) amqpError(err error, entity string) *wire.Error {
	var w *wire.Error
	var h *hub.Error
	var a *auth.Error
	switch {
	case errors.As(err, &w):
		return w
	case errors.As(err, &h):
		if h.Entity != "" {
			entity = h.Entity
		}
		return &wire.Error{Condition: outcomes[h.Kind].condition, Description: h.Text + c.trailer(entity)}
	case errors.As(err, &a):
		return &wire.Error{Condition: condUnauthorized, Description: a.Text + c.trailer(entity)}
	case errors.Is(err, wire.ErrDecode):
		return &wire.Error{Condition: condDecode, Description: err.Error() + "." + c.trailer(entity)}
	}
	return &wire.Error{Condition: condInternal, Description: "The broker was unable to process the request; please retry the operation." + c.trailer(entity)}
}

// fault makes an error of this door's own.
func (c *conn) fault(condition, entity, format string, args ...any) *wire.Error {
	return &wire.Error{Condition: condition, Description: fmt.Sprintf(format, args...) + c.trailer(entity)}
}

// status is the status code that a reply has for an error.
func status(err error) int32 {
	var h *hub.Error
	var a *auth.Error
	switch {
	case errors.As(err, &h):
		return outcomes[h.Kind].status
	case errors.As(err, &a):
		return authStatus[a.Kind]
	}
	return 500
}

// idleTimeout is what the broker announces, and after which it gives up a
// silent peer.
const idleTimeout = 120 * time.Second
