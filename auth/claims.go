package auth

import (
	"fmt"
	"strings"
	"time"
)

// Grant is a set of rights on everything at or below a path.
type Grant struct {
	// Path is lower case, without slashes at its ends, as [EntityPath] returns
	// it; "" is the whole namespace.
	Path   string
	Rights Rights
}

// Claims is what a verified token or key allows in one namespace. A nil *Claims
// allows nothing. Claims are not changed once made.
type Claims struct {
	// Name is the authorization rule's name, or the principal's for a JWT.
	Name string
	// App is the application, by its client id, that a bearer token is of; "" for
	// all others.
	App string
	// Namespace is the one that the caller named; the claims hold there alone.
	Namespace string
	// Grants is what is allowed: one grant for a shared access signature or a
	// key, any number (also none) for a JWT.
	Grants []Grant
	// OfNamespace says that a rule of the namespace signed, and not one of a
	// hub, even if the signature is for a path below: who may change the
	// namespace can sign for a hub that is still to be made.
	OfNamespace bool
	// Local says that a rule's key, or what one has signed, brought the claims:
	// local authentication, which a namespace may disable.
	Local bool
	// Expires is when the claims end; zero for never.
	Expires time.Time

	skew time.Duration
}

// Rights returns the rights that the claims give on an entity, whether expired
// or not. path is as for [Claims.Allows].
func (c *Claims) Rights(path string) Rights {
	if c == nil {
		return 0
	}
	path = EntityPath(path)
	var r Rights
	for _, g := range c.Grants {
		if covers(g.Path, path) {
			r |= g.Rights
		}
	}
	return r
}

// Expired tells whether the claims have ended at the given moment.
func (c *Claims) Expired(now time.Time) bool {
	return c != nil && !c.Expires.IsZero() && !now.Before(c.Expires.Add(c.skew))
}

// Allows tells whether the claims give a right (or all of several) on an entity
// at the given moment. path is an entity's path, such as
// "hub/ConsumerGroups/$Default/Partitions/0", or its address with scheme and
// host, in any case; "" asks for the whole namespace.
func (c *Claims) Allows(want Rights, path string, now time.Time) bool {
	return !c.Expired(now) && c.Rights(path).Has(want)
}

// Check is Allows with a reason: nil, or an *Error of kind Expired or
// Unauthorized whose text is the service's (amqp.md 4.7).
func (c *Claims) Check(want Rights, path string, now time.Time) error {
	if c.Expired(now) {
		return expired(c.Expires)
	}
	if c.Rights(path).Has(want) {
		return nil
	}
	resource := strings.Trim(path, "/")
	if !strings.Contains(path, "://") && c != nil {
		resource = "sb://" + c.Namespace + "/" + resource
	}
	return &Error{
		Kind: Unauthorized,
		Text: fmt.Sprintf("Unauthorized access. '%s' claim(s) are required to perform this operation. Resource: '%s'.", leastName(want), resource),
	}
}

// leastName names what is missing: Manage alone, although its set has three.
func leastName(want Rights) string {
	if want.Has(Manage) {
		return "Manage"
	}
	return want.String()
}

// EntityPath reduces an entity's address to the form that grants are compared
// in: scheme, host, port, query and the slashes at both ends are dropped, the
// rest is lower-cased. What has no scheme is taken as a path already.
func EntityPath(address string) string {
	for { // of what is left, too: the form is final
		_, rest, ok := strings.Cut(address, "://")
		if !ok {
			break
		}
		_, address, _ = strings.Cut(rest, "/")
	}
	if i := strings.IndexAny(address, "?#"); i >= 0 {
		address = address[:i]
	}
	return strings.ToLower(strings.Trim(address, "/"))
}

// covers tells whether path is scope or lies below it. Both are as EntityPath
// returns them.
func covers(scope, path string) bool {
	rest, ok := strings.CutPrefix(path, scope)
	return ok && (scope == "" || rest == "" || rest[0] == '/')
}

// hubOf is the first step of a path: the hub.
func hubOf(path string) string {
	hub, _, _ := strings.Cut(path, "/")
	return hub
}
