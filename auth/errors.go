package auth

import (
	"fmt"
	"time"
)

// Kind sorts the reasons why a token or an operation is refused. Each server
// has a table from kind to its own condition, code or status.
type Kind int

// The kinds.
const (
	// Malformed: the token is not of any form that we know.
	Malformed Kind = iota + 1
	// InvalidSignature: the signature, or the key given in its place, is wrong.
	InvalidSignature
	// UnknownKey: there is no rule of that name for what the token names.
	UnknownKey
	// Expired: the token was good once.
	Expired
	// NotYetValid: a JWT whose time has not come.
	NotYetValid
	// WrongAudience: a JWT made for another service.
	WrongAudience
	// WrongIssuer: a JWT made by someone that we don't trust.
	WrongIssuer
	// EntraDisabled: a JWT where none are accepted.
	EntraDisabled
	// Unavailable: the issuer could not be asked for its keys. Worth a retry;
	// nothing is known of the token.
	Unavailable
	// Unauthorized: the claims don't include the right that is needed.
	Unauthorized
	// LocalAuthDisabled: a shared access signature or a key, for a namespace that
	// takes none.
	LocalAuthDisabled
)

// Kinds returns every kind, for tests that hold a server's table complete.
func Kinds() []Kind {
	var all []Kind
	for k := Malformed; k <= LocalAuthDisabled; k++ {
		all = append(all, k)
	}
	return all
}

var kindNames = [...]string{
	Malformed: "Malformed", InvalidSignature: "InvalidSignature", UnknownKey: "UnknownKey",
	Expired: "Expired", NotYetValid: "NotYetValid", WrongAudience: "WrongAudience",
	WrongIssuer: "WrongIssuer", EntraDisabled: "EntraDisabled", Unavailable: "Unavailable",
	Unauthorized: "Unauthorized", LocalAuthDisabled: "LocalAuthDisabled",
}

// String is the constant's own name.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Error refuses a token or an operation. Every error that a [Verifier] or
// [Claims] returns is one, save a context's own.
type Error struct {
	Kind Kind
	// Text is what a client may be told: a full sentence that starts as the
	// service's does, because clients match on it, without tracking id. It never
	// holds a key or a token. Source: amqp.md 2.4 and 4.7.
	Text string
	// Err is the cause, if there is one; for our own log.
	Err error
}

// Error is the text and the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return e.Text + " (" + e.Err.Error() + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// excerpt is the beginning of what a stranger wrote, short enough to repeat.
func excerpt(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func malformed(err error, format string, args ...any) *Error {
	return &Error{Kind: Malformed, Text: "MalformedToken: " + fmt.Sprintf(format, args...), Err: err}
}

func invalidSignature(err error) *Error {
	return &Error{Kind: InvalidSignature, Text: "InvalidSignature: The token has an invalid signature.", Err: err}
}

// unknownKey starts as a wrong signature does: the service tells them no
// further apart. What follows helps whoever mistyped a name.
func unknownKey(name string) *Error {
	name = excerpt(name)
	return &Error{
		Kind: UnknownKey,
		Text: fmt.Sprintf("InvalidSignature: The token has an invalid signature. No authorization rule named %q applies.", name),
	}
}

// expired words the time as the service does (Azure/azure-sdk-for-js issue 9601).
func expired(at time.Time) *Error {
	return &Error{
		Kind: Expired,
		Text: fmt.Sprintf("ExpiredToken: The token is expired. Expiration time: '%s'", at.UTC().Format("2006-01-02 15:04:05Z")),
	}
}

// ErrLocalAuthDisabled refuses a key, or what one has signed, where a namespace
// takes none. The words are the service's (Azure/azure-sdk-for-js issue 32923).
var ErrLocalAuthDisabled = &Error{
	Kind: LocalAuthDisabled,
	Text: "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace.",
}
