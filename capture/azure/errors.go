package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/millrace/millrace/capture"
)

// Error is a request that the service refused.
type Error struct {
	Status int    // of HTTP
	Code   string // the service's, as AuthenticationFailed
	ID     string // of the request, for the service's support; may be ""
}

// Error implements error. The service's own text is left out, since it may tell of
// signatures.
func (e *Error) Error() string {
	s := fmt.Sprintf("the storage service answered %d %s", e.Status, e.Code)
	if e.ID != "" {
		s += " (request " + e.ID + ")"
	}
	return s
}

// clean makes an error of the SDK's one that can be shown, and kept in a log: the
// SDK's have URLs with their signatures. What the SDK returns goes through it at once.
func clean(err error) error {
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return withoutURL(err)
	}
	x := &Error{Status: e.StatusCode, Code: e.ErrorCode}
	if e.RawResponse != nil {
		x.ID = e.RawResponse.Header.Get("x-ms-request-id")
	}
	return x
}

// withoutURL is an error without the URL that it is about.
func withoutURL(err error) error {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok {
			break
		}
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	}
	return err
}

// refused tells whether a request was refused with one of these codes.
func refused(err error, codes ...bloberror.Code) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains(codes, bloberror.Code(e.Code))
}

// exists tells whether a request was refused because there is such a blob.
func exists(err error) bool {
	return errors.Is(err, capture.ErrExists) || refused(err, bloberror.BlobAlreadyExists, bloberror.ConditionNotMet)
}

// unclear tells whether a request may have failed because there is such a blob: of one
// with a lease, a signature that may not replace, blocks that went when somebody else's
// list was put; and when there was no answer, since a service that refuses before it
// has read everything may end the connection.
func unclear(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return !ok || e.Status == http.StatusConflict || e.Status == http.StatusPreconditionFailed ||
		refused(err, bloberror.InvalidBlockList, bloberror.UnauthorizedBlobOverwrite)
}

// missing tells whether the blob or its container is not there.
func missing(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound
}

// notFound says what was done when an error came, unless that is that there is no
// such file.
func notFound(what string, err error) error {
	if missing(err) {
		return capture.ErrMissing
	}
	return fmt.Errorf("%s: %w", what, err)
}
