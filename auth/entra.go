package auth

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// DefaultAudiences are the audiences that the SDKs ask Microsoft Entra for.
var DefaultAudiences = []string{"https://eventhubs.azure.net", "https://eventhubs.azure.net/"}

// Entra says what becomes of bearer tokens. Its zero value refuses them all.
type Entra struct {
	// AcceptAny takes any token, signed or not, with all rights, until the
	// moment that it says itself. For testing code that uses a token credential,
	// behind loopback only.
	AcceptAny bool
	// Issuer is the URL of an OpenID Connect issuer, exactly as its tokens spell
	// it in "iss", such as https://sts.windows.net/TENANT/.
	Issuer string
	// Audiences are those that a token may have. Default [DefaultAudiences].
	Audiences []string
	// Grants give rights to principals. The role claims "Azure Event Hubs Data
	// Owner", "… Sender" and "… Receiver" give Manage, Send and Listen on every
	// namespace without a grant.
	Grants []EntraGrant
	// Client fetches the issuer's documents. Default: one with a timeout of 10 s.
	Client *http.Client
}

// EntraGrant gives rights to whoever a token is about. Exactly one of Subject,
// App and Role is set.
type EntraGrant struct {
	Subject string // the claim sub or oid
	App     string // the claim appid or azp
	Role    string // one of the claim roles
	Rights  Rights
	// Namespace and Hub narrow the grant; "" is every one.
	Namespace, Hub string
}

// ParseEntra reads "off" (or nothing), "accept-any", or an issuer's URL.
func ParseEntra(s string) (Entra, error) {
	switch strings.ToLower(s) {
	case "", "off":
		return Entra{}, nil
	case "accept-any":
		return Entra{AcceptAny: true}, nil
	}
	e := Entra{Issuer: s}
	return e, e.check()
}

func (e Entra) check() error {
	if e.AcceptAny && e.Issuer != "" {
		return errors.New("entra: accept-any and an issuer exclude each other")
	}
	if u, err := url.Parse(e.Issuer); e.Issuer != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("entra: %q is neither off, accept-any nor the URL of an issuer", e.Issuer)
	}
	for i, g := range e.Grants {
		named := 0
		for _, who := range []string{g.Subject, g.App, g.Role} {
			if who != "" {
				named++
			}
		}
		if named != 1 {
			return fmt.Errorf("entra: grant %d needs exactly one of subject, app and role", i+1)
		}
		if g.Rights == 0 {
			return fmt.Errorf("entra: grant %d gives no right", i+1)
		}
	}
	return nil
}

// entra verifies bearer tokens.
type entra struct {
	options Entra
	skew    time.Duration
	now     func() time.Time
	issuer  *issuer // nil unless an issuer is configured
}

func newEntra(o Entra, skew time.Duration, now func() time.Time) (*entra, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if len(o.Audiences) == 0 {
		o.Audiences = DefaultAudiences
	}
	e := &entra{options: o, skew: skew, now: now}
	if o.Issuer != "" {
		e.issuer = newIssuer(o.Issuer, o.Client, now)
	}
	return e, nil
}

func (e *entra) verify(ctx context.Context, namespace, token string) (*Claims, error) {
	switch {
	case token == "":
		return nil, malformed(nil, "The token is empty.")
	case len(token) > MaxTokenSize:
		return nil, malformed(nil, "The token is longer than %d bytes.", MaxTokenSize)
	case e.options.AcceptAny:
		return e.acceptAny(namespace, token)
	case strings.Count(token, ".") != 2:
		return nil, malformed(nil, "The token is neither a shared access signature nor a JSON web token.")
	case e.issuer == nil:
		return nil, &Error{
			Kind: EntraDisabled,
			Text: "InvalidSignature: The token has an invalid signature. This broker takes no Microsoft Entra tokens; start it with --entra, or use a connection string.",
		}
	}
	payload, err := e.issuer.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	t, err := readJWT(payload)
	if err != nil {
		return nil, err
	}
	if err := e.checkJWT(t); err != nil {
		return nil, err
	}
	return &Claims{
		Name:      t.principal(),
		App:       t.app(),
		Namespace: namespace,
		Grants:    e.grants(namespace, t),
		Expires:   t.expires(),
		skew:      e.skew,
	}, nil
}

// acceptAny takes the token for what it says, if it says anything.
func (e *entra) acceptAny(namespace, token string) (*Claims, error) {
	c := &Claims{Name: "any", Namespace: namespace, Grants: []Grant{{Rights: Manage}}, skew: e.skew}
	if pieces := strings.Split(token, "."); len(pieces) == 3 {
		payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(pieces[1], "="))
		if err != nil {
			return c, nil
		}
		if t, err := readJWT(payload); err == nil {
			c.Name, c.App, c.Expires = t.principal(), t.app(), t.expires()
		}
	}
	if c.Expired(e.now()) {
		return nil, expired(c.Expires)
	}
	return c, nil
}

func (e *entra) checkJWT(t *jwt) error {
	if t.Issuer != e.options.Issuer {
		return &Error{Kind: WrongIssuer, Text: fmt.Sprintf("InvalidSignature: The token was issued by %q, and this broker trusts %q.", excerpt(t.Issuer), e.options.Issuer)}
	}
	if !t.Audience.any(e.options.Audiences) {
		return &Error{Kind: WrongAudience, Text: fmt.Sprintf("InvalidSignature: The token's audience is %q, and this broker takes %q.", excerpt(strings.Join(t.Audience, ", ")), e.options.Audiences)}
	}
	now := e.now()
	if t.Expiry == nil {
		return malformed(nil, "The token does not say when it expires.")
	}
	if at := t.expires(); !now.Before(at.Add(e.skew)) {
		return expired(at)
	}
	if t.NotBefore != nil && now.Add(max(e.skew, notBeforeLeeway)).Before(t.NotBefore.time()) {
		return &Error{Kind: NotYetValid, Text: fmt.Sprintf("InvalidSignature: The token is not valid before '%s'.", t.NotBefore.time().Format("2006-01-02 15:04:05Z"))}
	}
	return nil
}

// notBeforeLeeway is what verifiers of JWTs commonly allow, go-oidc too, since
// an issuer's clock may be ahead of ours.
const notBeforeLeeway = 5 * time.Minute

// dataRoles are the service's built-in roles.
var dataRoles = map[string]Rights{
	"azure event hubs data owner":    Manage,
	"azure event hubs data sender":   Send,
	"azure event hubs data receiver": Listen,
}

func (e *entra) grants(namespace string, t *jwt) []Grant {
	var grants []Grant
	for _, role := range t.Roles {
		if r, ok := dataRoles[strings.ToLower(role)]; ok {
			grants = append(grants, Grant{Rights: r})
		}
	}
	for _, g := range e.options.Grants {
		if g.Namespace != "" && !strings.EqualFold(g.Namespace, namespace) {
			continue
		}
		if g.Subject != "" && (g.Subject == t.Subject || g.Subject == t.ObjectID) ||
			g.App != "" && (g.App == t.AppID || g.App == t.AuthorizedParty) ||
			g.Role != "" && t.Roles.any([]string{g.Role}) {
			grants = append(grants, Grant{Path: EntityPath(g.Hub), Rights: g.Rights})
		}
	}
	return grants
}

// jwt is what we read of a token's claims.
type jwt struct {
	Issuer          string   `json:"iss"`
	Audience        oneOrAll `json:"aud"`
	Subject         string   `json:"sub"`
	ObjectID        string   `json:"oid"`
	AppID           string   `json:"appid"`
	AuthorizedParty string   `json:"azp"`
	UserName        string   `json:"preferred_username"`
	UPN             string   `json:"upn"`
	Roles           oneOrAll `json:"roles"`
	Expiry          *seconds `json:"exp"`
	NotBefore       *seconds `json:"nbf"`
}

func readJWT(payload []byte) (*jwt, error) {
	var t jwt
	if err := json.Unmarshal(payload, &t); err != nil {
		return nil, malformed(err, "The token's claims are not what they should be.")
	}
	return &t, nil
}

func (t *jwt) expires() time.Time {
	if t.Expiry == nil {
		return time.Time{}
	}
	return t.Expiry.time()
}

// app is the client id, as tokens of either version of Entra's endpoint have it.
func (t *jwt) app() string { return cmp.Or(t.AppID, t.AuthorizedParty) }

// principal is the name for logs: a person's, else a program's.
func (t *jwt) principal() string {
	for _, name := range []string{t.UserName, t.UPN, t.AppID, t.AuthorizedParty, t.Subject} {
		if name != "" {
			return name
		}
	}
	return "any"
}

// oneOrAll is a claim that is a string or a list of them.
type oneOrAll []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrAll) UnmarshalJSON(b []byte) error {
	var one *string // nil for null, which is no claim
	if json.Unmarshal(b, &one) == nil {
		if *o = nil; one != nil {
			*o = oneOrAll{*one}
		}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

func (o oneOrAll) any(of []string) bool {
	for _, have := range o {
		if slices.Contains(of, have) {
			return true
		}
	}
	return false
}

// seconds is a NumericDate of RFC 7519: seconds since 1970, maybe with a
// fraction.
type seconds float64

func (s seconds) time() time.Time {
	return time.Unix(int64(math.Min(math.Max(float64(s), 0), maxExpiry)), 0).UTC()
}
