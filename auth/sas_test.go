package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// digest computes a signature's text on its own, not with the code under test.
func digest(sr, se, key string) string {
	m := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(m, "%s\n%s", sr, se)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// encodeURIComponent is JavaScript's.
func encodeURIComponent(s string) string {
	return strings.NewReplacer("+", "%20", "%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(url.QueryEscape(s))
}

// lowerEscapes is .NET's WebUtility.UrlEncode of old: hexadecimal in lower case.
func lowerEscapes(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			b.WriteString(strings.ToLower(s[i : i+3]))
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// The spellings of the SDKs, as amqp.md 2.2 and 2.3 describe them.
var spellings = map[string]func(host, path, name, key, se string) string{
	"Go": func(host, path, name, key, se string) string {
		sr := strings.ToLower(url.QueryEscape("amqps://" + host + "/" + path))
		return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(digest(sr, se, key)) + "&se=" + se + "&skn=" + name
	},
	"JS": func(host, path, name, key, se string) string {
		sr := encodeURIComponent("sb://" + host + "/" + path)
		return "SharedAccessSignature sr=" + sr + "&sig=" + encodeURIComponent(digest(sr, se, key)) + "&se=" + se + "&skn=" + encodeURIComponent(name)
	},
	"Python": func(host, path, name, key, se string) string {
		sr := url.QueryEscape("sb://" + host + "/" + path)
		return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(digest(sr, se, key)) + "&se=" + se + "&skn=" + url.QueryEscape(name)
	},
	"Java": func(host, path, name, key, se string) string {
		sr := url.QueryEscape("amqp://" + host + "/" + path)
		return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(digest(sr, se, key)) + "&se=" + se + "&skn=" + name
	},
	".NET": func(host, path, name, key, se string) string {
		sr := lowerEscapes(url.QueryEscape(strings.ToLower("amqps://" + host + "/" + path)))
		return "SharedAccessSignature sr=" + sr + "&sig=" + lowerEscapes(url.QueryEscape(digest(sr, se, key))) + "&se=" + se + "&skn=" + lowerEscapes(url.QueryEscape(name))
	},
	"bare": func(host, path, name, key, se string) string {
		sr := host + "/" + path
		return "sharedaccesssignature skn=" + name + "&se=" + se + "&sig=" + digest(sr, se, key) + "&sr=" + sr
	},
	"proxied": func(host, path, name, key, se string) string { // plus signs became spaces
		sr := "https://" + host + "/" + path + "/"
		return "SharedAccessSignature se=" + se + "&sr=" + sr + "&sig=" + strings.ReplaceAll(digest(sr, se, key), "+", " ") + "&skn=" + name
	},
	"ours": func(host, path, name, key, se string) string {
		var at int64
		fmt.Sscan(se, &at)
		return SignSAS("sb://"+host+"/"+path, name, key, time.Unix(at, 0))
	},
}

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// rules is a Keys made of a map from "namespace/hub/name".
type rules map[string]Rule

func (r rules) Rule(namespace, hub, name string) (Rule, bool) {
	rule, ok := r[namespace+"/"+hub+"/"+name]
	return rule, ok
}

// disabled is what a namespace's name is followed by in a map that has it take no
// keys.
const disabled = " disabled"

func (r rules) LocalAuthDisabled(namespace string) bool {
	_, ok := r[namespace+disabled]
	return ok
}

func newTestVerifier(t *testing.T, keys Keys, change func(*Options)) *Verifier {
	t.Helper()
	o := Options{Keys: keys, Now: func() time.Time { return noon }}
	if change != nil {
		change(&o)
	}
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantKind(t *testing.T, err error, kind Kind, prefix string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Kind != kind || !strings.HasPrefix(e.Text, prefix) {
		t.Helper()
		t.Errorf("error %v, want kind %v with text %q…", err, kind, prefix)
	}
}

func TestVerifySpellings(t *testing.T) {
	// Enough keys that their signatures hold plus signs, slashes and padding.
	for i := range 20 {
		key := fmt.Sprintf("key %d+/=", i)
		v := newTestVerifier(t, rules{
			"ns//root key+": {Manage, "other", key},
			"ns/trial/send": {Send, key, ""},
		}, nil)
		se := fmt.Sprint(noon.Unix() + 3600)
		for name, spell := range spellings {
			for _, host := range []string{"ns.servicebus.windows.net", "localhost:5672"} {
				c, err := v.Verify(t.Context(), "ns", spell(host, "Trial/Partitions/0", "send", key, se))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if c.Name != "send" || c.Grants[0] != (Grant{"trial/partitions/0", Send}) || !c.Expires.Equal(noon.Add(time.Hour)) {
					t.Errorf("%s: claims %+v", name, c)
				}
				_, err = v.Verify(t.Context(), "ns", spell(host, "Trial/Partitions/0", "send", key+"x", se))
				wantKind(t, err, InvalidSignature, "InvalidSignature: The token has an invalid signature.")
			}
			// A name with a space and a plus sign, in either encoding, and the second key.
			c, err := v.Verify(t.Context(), "ns", spell("localhost:5672", "", "root key+", key, se))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if c.Name != "root key+" || c.Grants[0] != (Grant{"", Manage}) {
				t.Errorf("%s: claims %+v", name, c)
			}
		}
	}
}

func TestVerifyScopes(t *testing.T) {
	keys := rules{
		"ns//both":         {Listen, "namespace-key", "namespace-second"},
		"ns/trial/both":    {Send, "hub-key", ""},
		"ns/trial/hubonly": {Manage, "hub-key", ""},
		"ns2//both":        {Manage, "other-key", ""},
	}
	v := newTestVerifier(t, keys, nil)
	in := noon.Add(time.Minute)
	for name, test := range map[string]struct {
		token, namespace string
		want             Rights
		path             string
		kind             Kind
	}{
		"hub's rule":                     {SignSAS("sb://h/trial", "both", "hub-key", in), "ns", Send, "trial", 0},
		"namespace's rule for a hub":     {SignSAS("sb://h/trial", "both", "namespace-key", in), "ns", Listen, "trial", 0},
		"namespace's second key":         {SignSAS("sb://h/", "both", "namespace-second", in), "ns", Listen, "", 0},
		"hub's rule for the namespace":   {SignSAS("sb://h/", "hubonly", "hub-key", in), "ns", 0, "", UnknownKey},
		"hub's key for the namespace":    {SignSAS("sb://h/", "both", "hub-key", in), "ns", 0, "", InvalidSignature},
		"hub's rule for another hub":     {SignSAS("sb://h/other", "hubonly", "hub-key", in), "ns", 0, "", UnknownKey},
		"hub's rule for a similar hub":   {SignSAS("sb://h/trial2", "hubonly", "hub-key", in), "ns", 0, "", UnknownKey},
		"another namespace":              {SignSAS("sb://h/", "both", "namespace-key", in), "ns2", 0, "", InvalidSignature},
		"no such namespace":              {SignSAS("sb://h/", "both", "namespace-key", in), "ns3", 0, "", UnknownKey},
		"an absent second key is no key": {SignSAS("sb://h/trial", "hubonly", "", in), "ns", 0, "", InvalidSignature},
	} {
		c, err := v.Verify(t.Context(), test.namespace, test.token)
		if test.kind != 0 {
			wantKind(t, err, test.kind, "InvalidSignature: ")
			continue
		}
		if err != nil || c.Grants[0] != (Grant{test.path, test.want}) || c.Namespace != test.namespace || c.OfNamespace != (name != "hub's rule") {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestVerifyExpiry(t *testing.T) {
	keys := rules{"ns//n": {Send, "k", ""}}
	v := newTestVerifier(t, keys, nil)
	token := func(at time.Time) string { return SignSAS("sb://h/hub", "n", "k", at) }

	_, err := v.Verify(t.Context(), "ns", token(noon))
	wantKind(t, err, Expired, "ExpiredToken: The token is expired. Expiration time: '2026-03-14 12:00:00Z'")
	_, err = v.Verify(t.Context(), "ns", SignSAS("sb://h/hub", "n", "wrong", noon))
	wantKind(t, err, InvalidSignature, "InvalidSignature: ")

	c, err := v.Verify(t.Context(), "ns", token(noon.Add(time.Second)))
	if err != nil || !c.Allows(Send, "hub", noon) || c.Allows(Send, "hub", noon.Add(time.Second)) {
		t.Errorf("a token with a second left: %+v, %v", c, err)
	}
	wantKind(t, c.Check(Send, "hub", noon.Add(time.Hour)), Expired, "ExpiredToken: The token is expired. Expiration time: ")

	lax := newTestVerifier(t, keys, func(o *Options) { o.Skew = 5 * time.Minute })
	c, err = lax.Verify(t.Context(), "ns", token(noon.Add(-4*time.Minute)))
	if err != nil || !c.Allows(Send, "hub", noon) || c.Allows(Send, "hub", noon.Add(time.Minute)) {
		t.Errorf("with a skew of five minutes: %+v, %v", c, err)
	}

	for se, want := range map[string]time.Time{
		"99999999999999999999999": time.Unix(maxExpiry, 0),
		"999999999999999":         time.Unix(maxExpiry, 0),
	} {
		c, err := v.Verify(t.Context(), "ns", "SharedAccessSignature sr=sb://h/&se="+se+"&skn=n&sig="+digest("sb://h/", se, "k"))
		if err != nil || !c.Expires.Equal(want) {
			t.Errorf("se=%s: %+v, %v", se, c, err)
		}
	}
	for _, se := range []string{"0", "-5"} {
		_, err := v.Verify(t.Context(), "ns", "SharedAccessSignature sr=sb://h/&se="+se+"&skn=n&sig="+digest("sb://h/", se, "k"))
		wantKind(t, err, Expired, "ExpiredToken: The token is expired. Expiration time: '1970-01-01 00:00:00Z'")
	}
}

func TestVerifyMalformed(t *testing.T) {
	v := newTestVerifier(t, rules{}, nil)
	for _, token := range []string{
		"",
		"SharedAccessSignature",
		"SharedAccessSignature ",
		"SharedAccessSignature sr",
		"SharedAccessSignature sr=a&sig=YQ==&se=1",
		"SharedAccessSignature sr=a&sig=YQ==&skn=1",
		"SharedAccessSignature sr=a&se=1&skn=1",
		"SharedAccessSignature sig=YQ==&se=1&skn=1",
		"SharedAccessSignature sr=%zz&sig=YQ==&se=1&skn=n",
		"SharedAccessSignature sr=a&sig=%zz&se=1&skn=n",
		"SharedAccessSignature sr=a&sig=!!&se=1&skn=n",
		"SharedAccessSignature sr=a&sig=YQ==&se=soon&skn=n",
		"SharedAccessSignature sr=a&sig=YQ==&se=1.5&skn=n",
		"SharedAccessSignature sr=a&sig=YQ==&se=1&skn=%q",
		"SharedAccessSignature sr=a&sr=b&sig=YQ==&se=1&skn=n",
		"SharedAccessSignature sr=" + strings.Repeat("a", MaxTokenSize) + "&sig=YQ==&se=1&skn=n",
		"not a token",
		strings.Repeat("x", MaxTokenSize+1),
	} {
		_, err := v.Verify(t.Context(), "ns", token)
		wantKind(t, err, Malformed, "MalformedToken: ")
	}
}

func TestVerifyKey(t *testing.T) {
	v := newTestVerifier(t, rules{
		"ns//n":      {Listen, "one", "two"},
		"ns/hub/n":   {Send, "three", ""},
		"ns/hub/sub": {Manage, "four", ""},
	}, nil)
	for _, test := range []struct {
		hub, name, key string
		want           Grant
		kind           Kind
	}{
		{"", "n", "one", Grant{"", Listen}, 0},
		{"", "n", "two", Grant{"", Listen}, 0},
		{"Hub", "n", "two", Grant{"hub", Listen}, 0},
		{"hub", "n", "three", Grant{"hub", Send}, 0},
		{"", "n", "three", Grant{}, InvalidSignature},
		{"", "n", "", Grant{}, InvalidSignature},
		{"hub", "sub", "", Grant{}, InvalidSignature},
		{"", "sub", "four", Grant{}, UnknownKey},
		{"", "N2", "one", Grant{}, UnknownKey},
	} {
		c, err := v.VerifyKey("ns", test.hub, test.name, test.key)
		if test.kind != 0 {
			wantKind(t, err, test.kind, "InvalidSignature: ")
		} else if err != nil || c.Grants[0] != test.want || !c.Expires.IsZero() || c.Expired(noon.AddDate(100, 0, 0)) {
			t.Errorf("%+v: %+v, %v", test, c, err)
		}
	}
}

func TestVerifyConnectionString(t *testing.T) {
	v := newTestVerifier(t, rules{"ns//n": {Manage, "k", ""}, "ns/hub/h": {Send, "k2", ""}}, nil)
	in := noon.Add(time.Minute)
	for name, test := range map[string]struct {
		c            ConnectionString
		path         string
		allows, must bool
	}{
		"namespace":         {ConnectionString{KeyName: "n", Key: "k"}, "any", true, true},
		"narrowed":          {ConnectionString{KeyName: "n", Key: "k", EntityPath: "Hub"}, "hub/x", true, true},
		"narrowed, outside": {ConnectionString{KeyName: "n", Key: "k", EntityPath: "hub"}, "other", false, true},
		"hub's rule":        {ConnectionString{KeyName: "h", Key: "k2", EntityPath: "hub"}, "hub", true, true},
		"hub's, no path":    {ConnectionString{KeyName: "h", Key: "k2"}, "hub", false, false},
		"token":             {ConnectionString{Signature: SignSAS("sb://x/hub", "h", "k2", in)}, "hub", true, true},
		"token, narrowed":   {ConnectionString{Signature: SignSAS("sb://x/", "n", "k", in), EntityPath: "hub"}, "other", false, true},
		"token, within":     {ConnectionString{Signature: SignSAS("sb://x/", "n", "k", in), EntityPath: "hub"}, "hub", true, true},
		"token, narrower":   {ConnectionString{Signature: SignSAS("sb://x/hub/partitions/1", "n", "k", in), EntityPath: "hub"}, "hub/partitions/1", true, true},
		"token, elsewhere":  {ConnectionString{Signature: SignSAS("sb://x/other", "n", "k", in), EntityPath: "hub"}, "other", false, true},
		"token, wrong":      {ConnectionString{Signature: SignSAS("sb://x/", "n", "no", in)}, "hub", false, false},
	} {
		c, err := v.VerifyConnectionString(t.Context(), "ns", test.c)
		if (err == nil) != test.must || c.Allows(Send, test.path, noon) != test.allows {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestLocalAuthDisabled(t *testing.T) {
	keys := rules{"ns//root": {Manage, "key", ""}, "ns//own": {Manage, "key", ""}, "other//root": {Manage, "key", ""}}
	v := newTestVerifier(t, keys, func(o *Options) { o.Entra.AcceptAny = true })
	own := v.Except(func(c *Claims) bool { return c.Local && c.OfNamespace && c.Name == "own" })
	sas := func(name string) string { return SignSAS("sb://ns/", name, "key", noon.Add(time.Hour)) }
	good := func(v *Verifier, rule string) {
		t.Helper()
		if c, err := v.Verify(t.Context(), "ns", sas(rule)); err != nil || !c.Local {
			t.Errorf("%+v, %v", c, err)
		}
		if c, err := v.VerifyKey("ns", "", rule, "key"); err != nil || !c.Local {
			t.Errorf("%+v, %v", c, err)
		}
	}
	refused := func(v *Verifier, rule string) {
		t.Helper()
		const text = "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace."
		_, err := v.Verify(t.Context(), "ns", sas(rule))
		wantKind(t, err, LocalAuthDisabled, text)
		_, err = v.VerifyKey("ns", "", rule, "key")
		wantKind(t, err, LocalAuthDisabled, text)
		_, err = v.VerifyConnectionString(t.Context(), "ns", ConnectionString{Host: "ns", KeyName: rule, Key: "key"})
		wantKind(t, err, LocalAuthDisabled, text)
	}
	good(v, "root")
	good(own, "root")
	keys["ns"+disabled] = Rule{} // at once, without a new verifier
	refused(v, "root")
	refused(v, "own")
	refused(v, "nobody") // whether a key is good is not said
	refused(own, "root")
	good(own, "own")
	_, err := own.VerifyKey("ns", "", "own", "another key")
	wantKind(t, err, InvalidSignature, "")
	if _, err := v.VerifyKey("other", "", "root", "key"); err != nil {
		t.Error(err)
	}
	if c, err := v.Verify(t.Context(), "ns", "a.b.c"); err != nil || c.Local {
		t.Errorf("%+v, %v", c, err)
	}
}
