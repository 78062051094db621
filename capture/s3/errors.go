package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/minio/minio-go/v7"

	"github.com/millrace/millrace/capture"
)

// Error is a request that the store refused.
type Error struct {
	Status  int    // of HTTP
	Code    string // the store's, as AccessDenied
	Message string // the store's, without what is secret
	ID      string // of the request; may be ""
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("the store answered %d %s: %s", e.Status, e.Code, e.Message)
	if e.ID != "" {
		s += " (request " + e.ID + ")"
	}
	return s
}

// clean makes an error of the client's one that can be shown, and kept in a log.
// What the client returns goes through it at once.
func (s *Storage) clean(err error) error {
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return &Error{Status: e.StatusCode, Code: e.Code, Message: s.secrets.Replace(e.Message), ID: e.RequestID}
	}
	return withoutURL(err)
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

// refused tells whether a request was refused with a status, or one of the codes,
// which come with status 200 in the answer to CompleteMultipartUpload.
func refused(err error, status int, codes ...string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == status || slices.Contains(codes, e.Code))
}

// exists tells whether a request was refused because there is such an object.
func exists(err error) bool {
	return errors.Is(err, capture.ErrExists) || refused(err, http.StatusPreconditionFailed, minio.PreconditionFailed)
}

// unclear tells whether a request may have failed because there is such an object, or
// is about to be one; also when there was no answer, since a store that refuses before
// it has read everything may end the connection.
func unclear(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return !ok || refused(err, http.StatusConflict, "ConditionalRequestConflict", "OperationAborted", minio.NoSuchUpload)
}

// unconditional tells whether the store says that it knows no condition.
func unconditional(err error) bool {
	return refused(err, http.StatusNotImplemented, minio.NotImplemented)
}

// missing tells whether the object, its upload or its bucket is not there.
func missing(err error) bool {
	return refused(err, http.StatusNotFound, minio.NoSuchKey, minio.NoSuchBucket, minio.NoSuchUpload)
}

// notFound says what was done when an error came, unless that is that there is no
// such file.
func notFound(what string, err error) error {
	if missing(err) {
		return capture.ErrMissing
	}
	return fmt.Errorf("%s: %w", what, err)
}

func noBucket(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == minio.NoSuchBucket
}

func bucketExists(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == minio.BucketAlreadyOwnedByYou || e.Code == minio.BucketAlreadyExists)
}
