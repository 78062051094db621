package hub

import (
	"errors"
	"sync/atomic"

	"github.com/millrace/millrace/auth"
)

// Result is how a request ended, as the service's metrics tell them apart.
type Result int

// The results.
const (
	Success Result = iota
	ClientError
	ServerBusy
	QuotaExceededResult
	ServerError
	results
)

// String is the value of the service's dimension OperationResult.
func (r Result) String() string {
	return [...]string{"success", "clienterror", "serverbusy", "quotaexceeded", "servererror"}[r]
}

// Results returns every result.
func Results() []Result {
	return []Result{Success, ClientError, ServerBusy, QuotaExceededResult, ServerError}
}

// resultOf sorts an error.
func resultOf(err error) Result {
	var e *Error
	if a := (*auth.Error)(nil); errors.As(err, &a) && a.Kind != auth.Unavailable {
		return ClientError
	}
	if !errors.As(err, &e) {
		return ServerError
	}
	switch e.Kind {
	case Busy, StorageFull, Moved, Closed:
		return ServerBusy
	case QuotaExceeded:
		return QuotaExceededResult
	case Corrupt, Internal:
		return ServerError
	default:
		return ClientError
	}
}

// Metrics counts what happens to one hub, under the service's names. Everyone
// may add; a batch counts as one request and as many messages as it holds.
type Metrics struct {
	IncomingRequests atomic.Int64
	Requests         [results]atomic.Int64 // ended, by Result
	IncomingMessages atomic.Int64
	IncomingBytes    atomic.Int64
	OutgoingRequests atomic.Int64
	OutgoingMessages atomic.Int64
	OutgoingBytes    atomic.Int64
	// CapturedMessages, CapturedBytes and CapturedFiles are of files that are
	// written; the bytes are those of the files.
	CapturedMessages atomic.Int64
	CapturedBytes    atomic.Int64
	CapturedFiles    atomic.Int64
	// CaptureErrors counts the attempts to write a file that failed, and
	// CaptureLost the events that retention removed before they were captured.
	CaptureErrors atomic.Int64
	CaptureLost   atomic.Int64
}

// Failed counts a request that never became an append, such as a refused link.
func (m *Metrics) Failed(err error) {
	m.IncomingRequests.Add(1)
	m.Requests[resultOf(err)].Add(1)
}

// NamespaceMetrics counts what belongs to no hub.
type NamespaceMetrics struct {
	ActiveConnections atomic.Int64
	ConnectionsOpened atomic.Int64
	ConnectionsClosed atomic.Int64
	// Inflations counts the steps of auto-inflate.
	Inflations atomic.Int64
}
