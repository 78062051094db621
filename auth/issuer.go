package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	// fetchTimeout bounds one question to the issuer.
	fetchTimeout = 10 * time.Second
	// retryAfter is how long a failed discovery is remembered, so that a storm
	// of clients doesn't become one at the issuer.
	retryAfter = 5 * time.Second
	// keysFor is how long the issuer's keys are taken as they are. A token with
	// an unknown key id makes go-oidc fetch them; anyone can send such tokens.
	keysFor = 30 * time.Second
	// maxDocument is how much of an issuer's document is read.
	maxDocument = 1 << 20
)

// algorithms are those that we take; the issuer's own list narrows them. None
// of them uses a shared secret.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512,
	oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// issuer checks the signatures of one issuer's tokens. It finds the issuer's
// keys when the first token comes, and tries again if that fails, so that a
// broker starts while its issuer is down.
type issuer struct {
	url    string
	client *http.Client
	now    func() time.Time

	turn     chan struct{} // held by whoever discovers; guards what follows
	verifier *oidc.IDTokenVerifier
	failed   time.Time
	failure  error
}

func newIssuer(url string, client *http.Client, now func() time.Time) *issuer {
	if client == nil {
		client = &http.Client{}
	}
	calm := *client
	if calm.Timeout == 0 {
		calm.Timeout = fetchTimeout // go-oidc fetches keys without the caller's context
	}
	calm.Transport = &keyCache{next: client.Transport, now: now}
	return &issuer{url: url, client: &calm, now: now, turn: make(chan struct{}, 1)}
}

// verify returns the claims of a token whose signature is good, as JSON.
func (i *issuer) verify(ctx context.Context, token string) ([]byte, error) {
	v, err := i.discover(ctx)
	if err != nil {
		return nil, err
	}
	var fetch error
	t, err := v.Verify(context.WithValue(ctx, fetchKey{}, &fetch), token)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case fetch != nil:
		return nil, unavailable(fetch)
	case err != nil && strings.Contains(err.Error(), "malformed"):
		return nil, malformed(err, "The token is not a JSON web token.")
	case err != nil:
		return nil, invalidSignature(err)
	}
	var payload rawJSON
	if err := t.Claims(&payload); err != nil {
		return nil, malformed(err, "The token's claims can't be read.")
	}
	return payload, nil
}

type rawJSON []byte

// UnmarshalJSON implements json.Unmarshaler.
func (r *rawJSON) UnmarshalJSON(b []byte) error { *r = bytes.Clone(b); return nil }

func unavailable(err error) *Error {
	return &Error{Kind: Unavailable, Text: "The token can't be verified now: its issuer does not answer.", Err: err}
}

// discover returns the verifier, asking the issuer for its configuration if
// nobody has yet. One caller asks; the others wait, each as long as it likes.
func (i *issuer) discover(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if i.verifier != nil {
		return i.verifier, nil
	}
	if i.failure != nil && i.now().Before(i.failed.Add(retryAfter)) {
		return nil, unavailable(i.failure)
	}
	v, err := i.ask(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err() // the caller went away; that says nothing of the issuer
	}
	if err != nil {
		i.failed, i.failure = i.now(), err
		return nil, unavailable(err)
	}
	i.verifier, i.failure = v, nil
	return v, nil
}

func (i *issuer) ask(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, i.client), fetchTimeout)
	defer cancel()
	p, err := oidc.NewProvider(ctx, i.url)
	if err != nil {
		return nil, fmt.Errorf("discovering the issuer: %w", err)
	}
	var c struct {
		JWKS       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := p.Claims(&c); err != nil {
		return nil, fmt.Errorf("reading the issuer's configuration: %w", err)
	}
	if c.JWKS == "" {
		return nil, errors.New("the issuer's configuration names no keys")
	}
	// Expiry, audience and issuer are checked by us, with errors of our own.
	config := &oidc.Config{SkipClientIDCheck: true, SkipExpiryCheck: true, SkipIssuerCheck: true}
	for _, a := range c.Algorithms {
		if slices.Contains(algorithms, a) {
			config.SupportedSigningAlgs = append(config.SupportedSigningAlgs, a)
		}
	}
	keys := keySet{oidc.NewRemoteKeySet(ctx, c.JWKS)}
	return oidc.NewVerifier(i.url, keys, config), nil
}

// fetchKey leads from a context to the place where keySet leaves its failure.
type fetchKey struct{}

// keySet tells a signature that is wrong from keys that could not be fetched,
// which go-oidc words alike.
type keySet struct{ oidc.KeySet }

// VerifySignature implements oidc.KeySet.
func (k keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := k.KeySet.VerifySignature(ctx, token)
	if cause := errors.Unwrap(err); cause != nil {
		if place, ok := ctx.Value(fetchKey{}).(*error); ok {
			*place = cause
		}
	}
	return payload, err
}

// keyCache is a transport that answers again what it answered a moment ago, and
// bounds what it reads.
type keyCache struct {
	next http.RoundTripper
	now  func() time.Time

	mu   sync.Mutex
	seen map[string]*cachedResponse // by URL; an issuer has two
}

type cachedResponse struct {
	at     time.Time
	header http.Header
	body   []byte
}

// RoundTrip implements http.RoundTripper.
func (k *keyCache) RoundTrip(r *http.Request) (*http.Response, error) {
	address := r.URL.String()
	k.mu.Lock()
	c := k.seen[address]
	k.mu.Unlock()
	if c == nil || !k.now().Before(c.at.Add(keysFor)) {
		next := k.next
		if next == nil {
			next = http.DefaultTransport
		}
		resp, err := next.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
		if err != nil {
			return nil, err
		}
		if len(body) > maxDocument {
			return nil, fmt.Errorf("the issuer's answer is larger than %d bytes", maxDocument)
		}
		c = &cachedResponse{at: k.now(), header: resp.Header, body: body}
		if resp.StatusCode != http.StatusOK {
			return c.response(r, resp.StatusCode), nil
		}
		k.mu.Lock()
		if k.seen == nil {
			k.seen = map[string]*cachedResponse{}
		}
		k.seen[address] = c
		k.mu.Unlock()
	}
	return c.response(r, http.StatusOK), nil
}

func (c *cachedResponse) response(r *http.Request, status int) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: c.header.Clone(), Body: io.NopCloser(bytes.NewReader(c.body)),
		ContentLength: int64(len(c.body)), Request: r,
	}
}
