package processor

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// PoisonError is what a handler returns of an event that no attempt can help: it is put
// aside at once, and the rest of its batch given again. Without DeadLetters it is an
// error like any other.
type PoisonError struct {
	// Index is the event's in the batch. A negative one says that the batch has such an
	// event, and not which: then its events are given again one by one.
	Index int
	Err   error
}

func (e *PoisonError) Error() string {
	if e.Index < 0 {
		return fmt.Sprintf("an event can't be processed: %v", e.Err)
	}
	return fmt.Sprintf("event %d of the batch can't be processed: %v", e.Index, e.Err)
}

// Unwrap returns why.
func (e *PoisonError) Unwrap() error { return e.Err }

// Unavailable wraps the error of a handler that is not the events' fault: something that
// it needs is away. The attempt does not count, so that an outage puts nothing aside.
func Unavailable(err error) error {
	if err == nil {
		return nil
	}
	return &unavailableError{err}
}

type unavailableError struct{ err error }

func (e *unavailableError) Error() string { return e.err.Error() }
func (e *unavailableError) Unwrap() error { return e.err }

// handlerError is what a handler returned, to be told from what the ledger did.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

// PanicError is a panic of a handler, as an error.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("the handler panicked: %v", e.Value) }

// guarded calls a handler and makes its panics errors.
func guarded(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn()
}

// unavailable tells whether a handler said so.
func unavailable(err error) bool {
	_, ok := errors.AsType[*unavailableError](err)
	return ok
}

// fatalError is one that ends everything.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// disconnected tells whether the hub may be back in a moment.
func disconnected(err error) bool {
	sdk, ok := errors.AsType[*azeventhubs.Error](err)
	return ok && sdk.Code == azeventhubs.ErrorCodeConnectionLost && !stolen(err)
}

// final tells whether trying again can't help to share or to open partitions.
func final(err error) bool {
	if _, fatal := errors.AsType[*fatalError](err); fatal {
		return true
	}
	if sdk, ok := errors.AsType[*azeventhubs.Error](err); ok && sdk.Code == azeventhubs.ErrorCodeUnauthorizedAccess {
		return true
	}
	var answer interface{ RPCCode() int } // of $cbs, which knows consumer groups
	if errors.As(err, &answer) && (answer.RPCCode() == http.StatusNotFound || answer.RPCCode() == http.StatusUnauthorized) {
		return true
	}
	remote, ok := errors.AsType[*amqp.Error](err)
	return ok && (remote.Condition == amqp.ErrCondNotFound || remote.Condition == amqp.ErrCondUnauthorizedAccess)
}

// errLost is the cause of the end of a partition that somebody else owns now.
var errLost = errors.New("processor: another process owns the partition")

// stolen tells whether somebody else reads the partition now.
func stolen(err error) bool {
	if errors.Is(err, errLost) {
		return true
	}
	sdk, ok := errors.AsType[*azeventhubs.Error](err)
	if !ok {
		return false
	}
	// The SDK takes the refusal of a receiver beside one with an owner level for a lost
	// connection, and unwraps to nothing: only its text says more.
	return sdk.Code == azeventhubs.ErrorCodeOwnershipLost || strings.Contains(sdk.Error(), string(amqp.ErrCondStolen))
}
