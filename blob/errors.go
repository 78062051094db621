package blob

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/millrace/millrace/store"
)

// Code is an error code of the Blob service, as it stands in the header
// x-ms-error-code. Source: blob.md 1.3; the service's own list of codes.
type Code string

// The codes that a caller of the direct methods meets.
const (
	ContainerNotFound Code = "ContainerNotFound"
	BlobNotFound      Code = "BlobNotFound"
	BlobAlreadyExists Code = "BlobAlreadyExists"
	ConditionNotMet   Code = "ConditionNotMet"
	ServerBusy        Code = "ServerBusy" // worth a retry: the disk is full, or too many write the same blob
)

const (
	codeAppendPosition      Code = "AppendPositionConditionNotMet"
	codeAuthFailed          Code = "AuthenticationFailed"
	codeBlockCount          Code = "BlockCountExceedsLimit"
	codeBlockListTooLong    Code = "BlockListTooLong"
	codeContainerExists     Code = "ContainerAlreadyExists"
	codeCorsFailure         Code = "CorsPreflightFailure"
	codeCrcMismatch         Code = "Crc64Mismatch"
	codeEmptyMetadataKey    Code = "EmptyMetadataKey"
	codeInternal            Code = "InternalError"
	codeInvalidAuth         Code = "InvalidAuthenticationInfo"
	codeInvalidBlobOrBlock  Code = "InvalidBlobOrBlock"
	codeInvalidBlobType     Code = "InvalidBlobType"
	codeInvalidBlockList    Code = "InvalidBlockList"
	codeInvalidHeader       Code = "InvalidHeaderValue"
	codeInvalidInput        Code = "InvalidInput"
	codeInvalidMD5          Code = "InvalidMd5"
	codeInvalidMetadata     Code = "InvalidMetadata"
	codeInvalidName         Code = "InvalidResourceName"
	codeInvalidQuery        Code = "InvalidQueryParameterValue"
	codeInvalidRange        Code = "InvalidRange"
	codeInvalidURI          Code = "InvalidUri"
	codeInvalidXML          Code = "InvalidXmlDocument"
	codeLeaseAlreadyPresent Code = "LeaseAlreadyPresent"
	codeLeaseAlreadyBroken  Code = "LeaseAlreadyBroken"
	codeLeaseBreaking       Code = "LeaseIsBreakingAndCannotBeAcquired"
	codeLeaseBreakingChange Code = "LeaseIsBreakingAndCannotBeChanged"
	codeLeaseBroken         Code = "LeaseIsBrokenAndCannotBeRenewed"
	codeLeaseIDMissing      Code = "LeaseIdMissing"
	codeLeaseLost           Code = "LeaseLost"
	codeLeaseMismatchBlob   Code = "LeaseIdMismatchWithBlobOperation"
	codeLeaseMismatchCont   Code = "LeaseIdMismatchWithContainerOperation"
	codeLeaseMismatchLease  Code = "LeaseIdMismatchWithLeaseOperation"
	codeLeaseNotPresentBlob Code = "LeaseNotPresentWithBlobOperation"
	codeLeaseNotPresentCont Code = "LeaseNotPresentWithContainerOperation"
	codeLeaseNotPresent     Code = "LeaseNotPresentWithLeaseOperation"
	codeMaxSizeCondition    Code = "MaxBlobSizeConditionNotMet"
	codeMD5Mismatch         Code = "Md5Mismatch"
	codeMetadataTooLarge    Code = "MetadataTooLarge"
	codeMissingHeader       Code = "MissingRequiredHeader"
	codeMissingLength       Code = "MissingContentLengthHeader"
	codeMissingQuery        Code = "MissingRequiredQueryParameter"
	codeNoAuth              Code = "NoAuthenticationInformation"
	codeNoPendingCopy       Code = "NoPendingCopyOperation"
	codeNotImplemented      Code = "NotImplemented"
	codeNotPublic           Code = "PublicAccessNotPermitted"
	codeOutOfRangeInput     Code = "OutOfRangeInput"
	codeOutOfRangeQuery     Code = "OutOfRangeQueryParameterValue"
	codePermission          Code = "AuthorizationPermissionMismatch"
	codeProtocol            Code = "AuthorizationProtocolMismatch"
	codeReadOnly            Code = "InsufficientAccountPermissions"
	codeResourceType        Code = "AuthorizationResourceTypeMismatch"
	codeSAService           Code = "AuthorizationServiceMismatch"
	codeSourceCondition     Code = "SourceConditionNotMet"
	codeSourceIP            Code = "AuthorizationSourceIPMismatch"
	codeSourceUnverified    Code = "CannotVerifyCopySource"
	codeTimedOut            Code = "OperationTimedOut"
	codeTooLarge            Code = "RequestBodyTooLarge"
	codeUnsupportedVerb     Code = "UnsupportedHttpVerb"
)

// statuses has the HTTP status of every code that is not 400.
var statuses = map[Code]int{
	BlobAlreadyExists: 409, BlobNotFound: 404, ConditionNotMet: 412, ContainerNotFound: 404, ServerBusy: 503,

	codeAppendPosition: 412, codeAuthFailed: 403, codeBlockCount: 409, codeContainerExists: 409,
	codeCorsFailure: 403, codeInternal: 500, codeInvalidBlobType: 409, codeInvalidRange: 416,
	codeLeaseAlreadyPresent: 409, codeLeaseAlreadyBroken: 409, codeLeaseBreaking: 409, codeLeaseBreakingChange: 409,
	codeLeaseBroken: 409, codeLeaseIDMissing: 412, codeLeaseLost: 412, codeLeaseMismatchBlob: 412,
	codeLeaseMismatchCont: 412, codeLeaseMismatchLease: 409, codeLeaseNotPresentBlob: 412,
	codeLeaseNotPresentCont: 412, codeLeaseNotPresent: 409, codeMaxSizeCondition: 412, codeMissingLength: 411,
	codeNoAuth: 401, codeNoPendingCopy: 409, codeNotImplemented: 501, codeNotPublic: 409, codePermission: 403,
	codeProtocol: 403, codeReadOnly: 403, codeResourceType: 403, codeSAService: 403, codeSourceCondition: 412,
	codeSourceIP: 403, codeSourceUnverified: 404, codeTimedOut: 500, codeTooLarge: 413, codeUnsupportedVerb: 405,
}

// Error is how the service answers what it can't do. The direct methods return
// it too.
type Error struct {
	Status  int // of HTTP
	Code    Code
	Message string // a sentence for the client
	Err     error  // the cause, for our own log; nil mostly

	detail string // AuthenticationErrorDetail
}

// Error implements error.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: %s", e.Code, e.Message)
	if e.Err != nil {
		text += " (" + e.Err.Error() + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func newError(code Code, format string, args ...any) *Error {
	status := statuses[code]
	if status == 0 {
		status = http.StatusBadRequest
	}
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// The errors that many operations share, in the service's words.
func errContainerNotFound() *Error {
	return newError(ContainerNotFound, "The specified container does not exist.")
}

func errBlobNotFound() *Error { return newError(BlobNotFound, "The specified blob does not exist.") }

func errCondition() *Error {
	return newError(ConditionNotMet, "The condition specified using HTTP conditional header(s) is not met.")
}

func errNotImplemented(what string) *Error {
	return newError(codeNotImplemented, "This Blob endpoint does not offer %s.", what)
}

// storageError words a failure of Meta or of the disk. All are worth a retry to
// the SDKs: a status of 500 or more, save 501.
func storageError(what string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, store.ErrFull) || isDiskFull(err) {
		e := newError(ServerBusy, "The data disk is full; nothing was stored.")
		e.Err = err
		return e
	}
	e := newError(codeInternal, "The server failed while %s.", what)
	e.Err = err
	return e
}

// writeError answers with an error: code in header and body, since each client
// reads but one of them (blob.md 1.3). It returns what it answered.
func (s *Service) writeError(req *request, err error) *Error {
	e := storageError("serving the request", err)
	req.set("x-ms-error-code", string(e.Code))
	if e.Status == http.StatusNotModified {
		req.w.WriteHeader(e.Status)
		return e
	}
	if e.Code == ServerBusy {
		req.set("Retry-After", "1")
	}
	if e.Code == codeInvalidRange && req.size >= 0 {
		req.set("Content-Range", "bytes */"+strconv.FormatInt(req.size, 10))
	}
	if req.Method == http.MethodHead {
		req.w.WriteHeader(e.Status)
		return e
	}
	var x xmlWriter
	x.open("Error")
	x.element("Code", string(e.Code))
	x.element("Message", fmt.Sprintf("%s\nRequestId:%s\nTime:%s", e.Message, req.id, req.now.UTC().Format("2006-01-02T15:04:05.0000000Z")))
	if e.detail != "" {
		x.element("AuthenticationErrorDetail", e.detail)
	}
	x.close("Error")
	req.writeXML(e.Status, &x)
	return e
}
