package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
	"time"
)

// Rule is an authorization rule: a name's rights and its two keys. An empty key
// is no key.
type Rule struct {
	Rights             Rights
	Primary, Secondary string
}

// Keys finds authorization rules; the hub implements it. It is called at each
// verification, so that a key that was rotated is refused at once, and may be
// called by many goroutines.
type Keys interface {
	// Rule returns the rule of a namespace (hub is "") or of one of its hubs;
	// false if there is none. A namespace's rule covers all its hubs, a hub's
	// rule that hub alone; the caller tries both. hub is lower case, namespace
	// and name are as the client gave them.
	Rule(namespace, hub, name string) (Rule, bool)
	// LocalAuthDisabled tells whether a namespace takes no key and nothing that
	// one has signed.
	LocalAuthDisabled(namespace string) bool
}

// Options configure a [Verifier].
type Options struct {
	// Keys finds the rules. Required.
	Keys Keys
	// Entra says what becomes of tokens that are not shared access signatures;
	// the zero value refuses them.
	Entra Entra
	// Skew is for how long a token is still taken after it expired. Default 0.
	Skew time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Verifier turns tokens and keys into claims. It may be used by many goroutines.
type Verifier struct {
	keys   Keys
	entra  *entra
	skew   time.Duration
	now    func() time.Time
	except func(*Claims) bool // from the refusal of keys; nil is nobody
}

// NewVerifier returns a verifier. The error says what is wrong with the
// options. An issuer is first contacted when a token of its comes in.
func NewVerifier(o Options) (*Verifier, error) {
	if o.Keys == nil {
		return nil, errors.New("auth: Options.Keys is missing")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e, err := newEntra(o.Entra, o.Skew, o.Now)
	if err != nil {
		return nil, err
	}
	return &Verifier{keys: o.Keys, entra: e, skew: o.Skew, now: o.Now}, nil
}

// Except returns a verifier that differs in taking a key even where local
// authentication is disabled, if allow says so of the claims that it would give:
// somebody has to be able to enable it again.
func (v *Verifier) Except(allow func(*Claims) bool) *Verifier {
	w := *v
	w.except = allow
	return &w
}

// refuses tells whether keys are refused for a namespace, and the claims that one
// would give are no exception; nil if they are not known yet.
func (v *Verifier) refuses(namespace string, c *Claims) bool {
	return v.keys.LocalAuthDisabled(namespace) && (v.except == nil || c != nil && !v.except(c))
}

// Verify checks a token that came for a namespace: a shared access signature or
// a JWT, told apart by the text alone, whatever type was declared; a leading
// "Bearer " is dropped. It checks who speaks and until when; what is allowed is
// for the claims to answer later (amqp.md 2.2). Errors are *Error, or the
// context's.
func (v *Verifier) Verify(ctx context.Context, namespace, token string) (*Claims, error) {
	const bearer = "Bearer "
	if len(token) > len(bearer) && strings.EqualFold(token[:len(bearer)], bearer) {
		token = token[len(bearer):]
	}
	token = strings.TrimSpace(token)
	if isSAS(token + " ") {
		return v.verifySAS(namespace, token)
	}
	return v.entra.verify(ctx, namespace, token)
}

func (v *Verifier) verifySAS(namespace, token string) (*Claims, error) {
	if v.refuses(namespace, nil) {
		return nil, ErrLocalAuthDisabled
	}
	t, err := parseSAS(token)
	if err != nil {
		var first *Error
		if errors.As(err, &first) {
			return nil, first
		}
		return nil, err
	}
	name, scope, rule, err := v.find(namespace, hubOf(t.path), t.names[:], t.signedBy)
	if err != nil {
		return nil, err
	}
	c := &Claims{
		Name:        name,
		Namespace:   namespace,
		Grants:      []Grant{{Path: t.path, Rights: rule.Rights}},
		OfNamespace: scope == "",
		Local:       true,
		Expires:     t.expires,
		skew:        v.skew,
	}
	// Only who could sign learns that the token has expired.
	if c.Expired(v.now()) {
		return nil, expired(t.expires)
	}
	if v.refuses(namespace, c) {
		return nil, ErrLocalAuthDisabled
	}
	return c, nil
}

// VerifyKey checks a rule's name and key text, as SASL PLAIN brings them. With
// a hub, its own rules are tried first and the claims cover that hub; with "",
// they cover the namespace. Errors are *Error.
func (v *Verifier) VerifyKey(namespace, hub, name, key string) (*Claims, error) {
	if v.refuses(namespace, nil) {
		return nil, ErrLocalAuthDisabled
	}
	hub = EntityPath(hub)
	_, scope, rule, err := v.find(namespace, hubOf(hub), []string{name}, func(r Rule) bool {
		a, b := equalKeys(r.Primary, key), equalKeys(r.Secondary, key)
		return a || b
	})
	if err != nil {
		return nil, err
	}
	c := &Claims{
		Name:        name,
		Namespace:   namespace,
		Grants:      []Grant{{Path: hub, Rights: rule.Rights}},
		OfNamespace: scope == "",
		Local:       true,
		skew:        v.skew,
	}
	if v.refuses(namespace, c) {
		return nil, ErrLocalAuthDisabled
	}
	return c, nil
}

// VerifyConnectionString checks the secret in a connection string, for the
// namespace that the caller took from its host. An EntityPath narrows the
// claims to that hub. Errors are *Error.
func (v *Verifier) VerifyConnectionString(ctx context.Context, namespace string, c ConnectionString) (*Claims, error) {
	if c.Signature == "" {
		return v.VerifyKey(namespace, c.EntityPath, c.KeyName, c.Key)
	}
	claims, err := v.Verify(ctx, namespace, c.Signature)
	if err != nil || c.EntityPath == "" {
		return claims, err
	}
	hub := EntityPath(c.EntityPath)
	for i, g := range claims.Grants {
		switch {
		case covers(g.Path, hub):
			claims.Grants[i].Path = hub
		case !covers(hub, g.Path):
			claims.Grants[i].Rights = 0 // signed for another hub
		}
	}
	return claims, nil
}

// find looks for a rule that accept takes: among the hub's, if there is one,
// then among the namespace's. A name may exist in both. scope is that hub, or ""
// for the namespace.
func (v *Verifier) find(namespace, hub string, names []string, accept func(Rule) bool) (found, scope string, r Rule, err error) {
	known := false
	for i, name := range names {
		if i > 0 && name == names[0] {
			continue
		}
		scopes := []string{hub, ""}
		if hub == "" {
			scopes = scopes[1:]
		}
		for _, scope := range scopes {
			rule, ok := v.keys.Rule(namespace, scope, name)
			if ok && accept(rule) {
				return name, scope, rule, nil
			}
			known = known || ok
		}
	}
	if !known {
		return "", "", Rule{}, unknownKey(names[0])
	}
	return "", "", Rule{}, invalidSignature(nil)
}

// equalKeys compares in a time that depends on neither. An empty key equals
// nothing.
func equalKeys(have, given string) bool {
	h, g := sha256.Sum256([]byte(have)), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(h[:], g[:]) == 1 && have != ""
}
