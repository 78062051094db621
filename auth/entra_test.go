package auth

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testIssuer is an OpenID Connect issuer with one RSA key.
type testIssuer struct {
	*httptest.Server
	key      *rsa.PrivateKey
	down     atomic.Bool // answers 503
	keysDown atomic.Bool
	asked    atomic.Int64 // for its configuration
	keys     atomic.Int64 // for its keys
}

func newTestIssuer(t *testing.T) *testIssuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &testIssuer{key: key}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *testIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case i.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/.well-known/openid-configuration":
		i.asked.Add(1)
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "none", "HS256"},
		})
	case r.URL.Path == "/keys" && !i.keysDown.Load():
		i.keys.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one",
			"n": b64(i.key.N.Bytes()), "e": b64(big.NewInt(int64(i.key.E)).Bytes()),
		}}})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (i *testIssuer) sign(t *testing.T, kid string, claims map[string]any) string {
	t.Helper()
	header, _ := json.Marshal(map[string]any{"alg": "RS256", "typ": "JWT", "kid": kid})
	payload, _ := json.Marshal(claims)
	text := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// claims are good ones, changed by the pairs given; nil takes a claim away.
func (i *testIssuer) claims(pairs ...any) map[string]any {
	c := map[string]any{
		"iss": i.URL, "aud": "https://eventhubs.azure.net", "sub": "someone",
		"exp": noon.Add(time.Hour).Unix(), "nbf": noon.Add(-time.Minute).Unix(),
	}
	for j := 0; j < len(pairs); j += 2 {
		if c[pairs[j].(string)] = pairs[j+1]; pairs[j+1] == nil {
			delete(c, pairs[j].(string))
		}
	}
	return c
}

func TestEntraOff(t *testing.T) {
	v := newTestVerifier(t, rules{}, nil)
	for _, token := range []string{"a.b.c", "Bearer eyJh.eyJh.x"} {
		_, err := v.Verify(t.Context(), "ns", token)
		wantKind(t, err, EntraDisabled, "InvalidSignature: The token has an invalid signature.")
	}
}

func TestEntraAcceptAny(t *testing.T) {
	v := newTestVerifier(t, rules{"ns//n": {Send, "k", ""}}, func(o *Options) { o.Entra.AcceptAny = true })
	payload := func(claims string) string { return "x." + b64([]byte(claims)) + ".y" }
	for token, want := range map[string]Claims{
		"opaque": {Name: "any"},
		"a.b.c":  {Name: "any"},
		payload(`{"exp":` + fmt.Sprint(noon.Unix()+60) + `,"appid":"app"}`): {Name: "app", Expires: noon.Add(time.Minute)},
		payload(`{"upn":"ann@example.net"}`):                                {Name: "ann@example.net"},
		payload(`[]`):                                                       {Name: "any"},
	} {
		c, err := v.Verify(t.Context(), "ns", token)
		if err != nil || c.Name != want.Name || !c.Expires.Equal(want.Expires) || !c.Allows(Manage, "any/where", noon) {
			t.Errorf("%q: %+v, %v", token, c, err)
		}
	}
	_, err := v.Verify(t.Context(), "ns", payload(`{"exp":1700000000.5}`))
	wantKind(t, err, Expired, "ExpiredToken: The token is expired. Expiration time: '2023-11-14 22:13:20Z'")
	_, err = v.Verify(t.Context(), "ns", "")
	wantKind(t, err, Malformed, "MalformedToken: ")
	// Shared access signatures are verified all the same.
	_, err = v.Verify(t.Context(), "ns", SignSAS("sb://h/", "n", "wrong", noon.Add(time.Minute)))
	wantKind(t, err, InvalidSignature, "InvalidSignature: ")
}

func TestEntraIssuer(t *testing.T) {
	i, stranger := newTestIssuer(t), newTestIssuer(t)
	v := newTestVerifier(t, rules{}, func(o *Options) {
		o.Entra = Entra{Issuer: i.URL, Grants: []EntraGrant{
			{Subject: "ann", Rights: Send, Namespace: "NS", Hub: "Trial"},
			{Subject: "ann", Rights: Listen, Namespace: "other"},
			{App: "app-1", Rights: Listen},
			{Role: "operators", Rights: Manage},
		}}
	})
	for name, test := range map[string]struct {
		token     string
		principal string
		want      []Grant
		kind      Kind
	}{
		"nobody":           {i.sign(t, "one", i.claims()), "someone", nil, 0},
		"slash audience":   {i.sign(t, "one", i.claims("aud", []string{"x", "https://eventhubs.azure.net/"})), "someone", nil, 0},
		"subject":          {i.sign(t, "one", i.claims("sub", "ann")), "ann", []Grant{{"trial", Send}}, 0},
		"object id":        {i.sign(t, "one", i.claims("oid", "ann", "upn", "ann@x")), "ann@x", []Grant{{"trial", Send}}, 0},
		"app":              {i.sign(t, "one", i.claims("azp", "app-1")), "app-1", []Grant{{"", Listen}}, 0},
		"app v1":           {i.sign(t, "one", i.claims("appid", "app-1")), "app-1", []Grant{{"", Listen}}, 0},
		"role":             {i.sign(t, "one", i.claims("roles", []string{"x", "operators"})), "someone", []Grant{{"", Manage}}, 0},
		"data owner":       {i.sign(t, "one", i.claims("roles", "Azure Event Hubs Data Owner")), "someone", []Grant{{"", Manage}}, 0},
		"sender, receiver": {i.sign(t, "one", i.claims("roles", []string{"Azure Event Hubs Data Sender", "azure event hubs data receiver"})), "someone", []Grant{{"", Send}, {"", Listen}}, 0},
		"no nbf":           {i.sign(t, "one", i.claims("nbf", nil)), "someone", nil, 0},
		"expired":          {i.sign(t, "one", i.claims("exp", noon.Unix())), "", nil, Expired},
		"no expiry":        {i.sign(t, "one", i.claims("exp", nil)), "", nil, Malformed},
		"not yet":          {i.sign(t, "one", i.claims("nbf", noon.Add(6*time.Minute).Unix())), "", nil, NotYetValid},
		"other audience":   {i.sign(t, "one", i.claims("aud", "https://storage.azure.com")), "", nil, WrongAudience},
		"other issuer":     {i.sign(t, "one", i.claims("iss", stranger.URL)), "", nil, WrongIssuer},
		"other's key":      {stranger.sign(t, "one", i.claims()), "", nil, InvalidSignature},
		"unknown key":      {stranger.sign(t, "two", i.claims()), "", nil, InvalidSignature},
		"unsigned":         {b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(`{}`)) + ".", "", nil, Malformed},
		"shared secret":    {b64([]byte(`{"alg":"HS256"}`)) + "." + b64([]byte(`{}`)) + ".AAAA", "", nil, Malformed},
		"garbage":          {"a.b.c", "", nil, Malformed},
		"opaque":           {"opaque", "", nil, Malformed},
		"odd claims":       {i.sign(t, "one", map[string]any{"iss": i.URL, "roles": 1}), "", nil, Malformed},
	} {
		c, err := v.Verify(t.Context(), "ns", test.token)
		if test.kind != 0 {
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != test.kind {
				t.Errorf("%s: error %v, want %v", name, err, test.kind)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Name != test.principal || !c.Expires.Equal(noon.Add(time.Hour)) {
			t.Errorf("%s: claims %+v", name, c)
		}
		if d := cmp.Diff(test.want, c.Grants); d != "" {
			t.Errorf("%s: grants (-want +got)\n%s", name, d)
		}
	}
	if n := i.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked for its configuration %d times", n)
	}
	if n := i.keys.Load(); n != 1 {
		t.Errorf("tokens with unknown keys made us ask for the keys %d times within a moment", n)
	}
}

func TestEntraIssuerDown(t *testing.T) {
	i := newTestIssuer(t)
	i.down.Store(true)
	now := noon
	v := newTestVerifier(t, rules{}, func(o *Options) {
		o.Entra.Issuer = i.URL
		o.Now = func() time.Time { return now }
	})
	token := i.sign(t, "one", i.claims())
	_, err := v.Verify(t.Context(), "ns", token)
	wantKind(t, err, Unavailable, "The token can't be verified now")

	i.down.Store(false)
	_, err = v.Verify(t.Context(), "ns", token)
	wantKind(t, err, Unavailable, "The token can't be verified now") // remembered for a while
	if i.asked.Load() != 0 {
		t.Error("the issuer was asked again at once")
	}

	now = now.Add(retryAfter)
	i.keysDown.Store(true)
	_, err = v.Verify(t.Context(), "ns", token)
	wantKind(t, err, Unavailable, "The token can't be verified now")
	i.keysDown.Store(false)
	// go-oidc answers with a fetch that has failed until its goroutine has put it
	// away, which may be a moment after it told of the failure.
	_, err = v.Verify(t.Context(), "ns", token)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Unavailable {
			break
		}
		_, err = v.Verify(t.Context(), "ns", token)
	}
	if err != nil {
		t.Errorf("the issuer is back: %v", err)
	}

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	fresh := newTestVerifier(t, rules{}, func(o *Options) { o.Entra.Issuer = i.URL })
	if _, err := fresh.Verify(cancelled, "ns", token); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled caller gets %v", err)
	}
	if _, err := fresh.Verify(t.Context(), "ns", token); err != nil {
		t.Errorf("a cancelled caller spoiled it for the next: %v", err)
	}
}

func TestEntraOptions(t *testing.T) {
	for in, want := range map[string]Entra{
		"": {}, "off": {}, "OFF": {},
		"accept-any":             {AcceptAny: true},
		"https://sts.example/t/": {Issuer: "https://sts.example/t/"},
	} {
		got, err := ParseEntra(in)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("ParseEntra(%q) = %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"on", "sts.example", "ftp://x", "https://"} {
		if _, err := ParseEntra(in); err == nil {
			t.Errorf("ParseEntra(%q) succeeded", in)
		}
	}
	for name, o := range map[string]Options{
		"no keys":     {},
		"both":        {Keys: rules{}, Entra: Entra{AcceptAny: true, Issuer: "https://x"}},
		"nobody":      {Keys: rules{}, Entra: Entra{Grants: []EntraGrant{{Rights: Send}}}},
		"two of them": {Keys: rules{}, Entra: Entra{Grants: []EntraGrant{{Rights: Send, App: "a", Role: "b"}}}},
		"no rights":   {Keys: rules{}, Entra: Entra{Grants: []EntraGrant{{App: "a"}}}},
	} {
		if _, err := NewVerifier(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
