package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// FuzzToken shows whatever comes to a verifier as a token. Nothing that was not
// signed is taken, the error is one of ours, and what can be read can be signed:
// then it gives rights where it says, until it says, and with another key none.
func FuzzToken(f *testing.F) {
	for _, spell := range spellings {
		f.Add(spell("localhost:5672", "hub/Partitions/0", "n", "k", "1800000000"))
	}
	for _, s := range []string{
		SignSAS("sb://localhost/hub", "root key+", "k", time.Unix(1800000000, 0)),
		"SharedAccessSignature sr=%25&sig=%2B+==&se=-1&skn=+%2b",
		"sharedaccesssignature sr=a://b://c/d&sig=AA&se=99999999999999999999&skn=n",
		"SharedAccessSignature sr=hub&sig=AA&se=1&skn=n&sr=hub",
		"SharedAccessSignature sr=hub%3fx&sig=%&se=1&skn=n",
		"SharedAccessSignature sr&sig",
		"SharedAccessSignature ",
		"Bearer SharedAccessSignature sr=",
		"Bearer a.b.c", "a.b.c", "",
		"SharedAccessSignature sr=hub&sig=AA&se=1&skn=" + strings.Repeat("\xce", 2000),
	} {
		f.Add(s)
	}
	keys := rules{}
	v, err := NewVerifier(Options{Keys: keys, Now: func() time.Time { return noon }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		clear(keys)
		keys["ns//n"] = Rule{Primary: "a key that nobody knows", Rights: Manage}
		c, err := v.Verify(t.Context(), "ns", token)
		if e, ok := errors.AsType[*Error](err); !ok || c != nil || e.Kind == 0 || len(e.Text) > 2*len(token)+1000 {
			t.Fatalf("%+v, %v", c, err)
		}
		p, err := parseSAS(token)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Malformed {
				t.Fatalf("error %v", err)
			}
			return
		}
		if p.path != EntityPath(p.path) {
			t.Fatalf("path %q is not in its final form", p.path)
		}
		if p.signedBy(Rule{}) {
			t.Fatal("signed by an empty key")
		}
		checkSigned(t, v, keys, p)
	})
}

// checkSigned signs what a token says.
func checkSigned(t *testing.T, v *Verifier, keys rules, p *sas) {
	sig := base64.StdEncoding.EncodeToString(sasDigest(p.sr, p.se, "k"))
	signed := "SharedAccessSignature sr=" + p.sr + "&sig=" + url.QueryEscape(sig) + "&se=" + p.se + "&skn=" + url.QueryEscape(p.names[0])
	clear(keys)
	keys["ns//"+p.names[0]] = Rule{Secondary: "k", Rights: Listen}
	c, err := v.Verify(t.Context(), "ns", strings.TrimSpace(signed))
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == Expired && !noon.Before(p.expires) {
		return
	}
	if len(signed) > MaxTokenSize || strings.TrimSpace(p.sr) != p.sr {
		return
	}
	if err != nil || len(c.Grants) != 1 || !c.Expires.Equal(p.expires) {
		t.Fatalf("%q: %+v, %v", signed, c, err)
	}
	if !c.Allows(Listen, p.path, noon) || !c.Allows(Listen, p.path+"/partitions/0", noon) || c.Allows(Send, p.path, noon) {
		t.Fatalf("%q gives %+v", signed, c)
	}
	if p.path != "" && (c.Rights("") != 0 || c.Rights(p.path+"2") != 0) {
		t.Fatalf("%q gives %+v", signed, c)
	}
	keys["ns//"+p.names[0]] = Rule{Primary: "k2", Rights: Listen}
	if _, err := v.Verify(t.Context(), "ns", signed); err == nil {
		t.Fatal("taken with another key")
	}
}

// FuzzEntityPath: the form that paths are compared in is final, and does not
// depend on how they are spelled.
func FuzzEntityPath(f *testing.F) {
	for _, s := range []string{"sb://host:5671/Hub/Partitions/0/", "/a/?b#c", "a://b://c/d", "://", "//", "İ/K", "\xff/\xc3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := EntityPath(s)
		if again := EntityPath(p); again != p {
			t.Fatalf("%q becomes %q, and that %q", s, p, again)
		}
		if strings.ContainsAny(p, "?#") || strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") {
			t.Fatalf("%q becomes %q", s, p)
		}
		if !strings.ContainsAny(p, "?#") && p != "" {
			if q := EntityPath("amqps://host.name:1/" + p + "/?x"); q != p {
				t.Fatalf("%q with a host becomes %q", p, q)
			}
		}
	})
}

// FuzzReadJWT reads whatever comes as the claims of a JSON web token: what is
// read is the same when it is written again, and an end is a time that can be
// printed. A verifier that takes any token takes it, or says that it has expired.
func FuzzReadJWT(f *testing.F) {
	for _, s := range []string{
		`{"iss":"x","aud":["a"],"exp":1e300,"nbf":-1,"roles":"r"}`, `{"aud":1}`, `null`, `{"aud":null,"exp":null,"roles":[null]}`,
		`{"exp":-1e300}`, `{"exp":1800000000.5,"sub":"s","oid":"o","appid":"a","azp":"z","upn":"u@x"}`, `{"exp":"1"}`, `{`, ``, `[]`,
		`{"preferred_username":"\ud800","roles":["Azure Event Hubs Data Owner"]}`,
	} {
		f.Add([]byte(s))
	}
	v, err := NewVerifier(Options{Keys: rules{}, Entra: Entra{AcceptAny: true}, Now: func() time.Time { return noon }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		token := "e30." + base64.RawURLEncoding.EncodeToString(b) + "."
		c, err := v.Verify(t.Context(), "ns", token)
		if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Kind != Expired && e.Kind != Malformed) || err == nil && !c.Allows(Manage, "hub", noon) {
			t.Fatalf("%+v, %v", c, err)
		}
		j, err := readJWT(b)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Malformed {
				t.Fatalf("error %v", err)
			}
			return
		}
		if y := j.expires().Year(); y > 9999 || j.Expiry != nil && y < 1970 {
			t.Fatalf("expires in the year %d", y)
		}
		if j.principal() == "" {
			t.Fatal("nobody")
		}
		written, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readJWT(written)
		if err != nil || !cmp.Equal(again, j) {
			t.Fatalf("%s is %+v, and %s is %+v, %v", b, j, written, again, err)
		}
	})
}

// FuzzConnectionString reads whatever comes as a connection string: what can be
// read prints as what reads the same, and no secret is in the log or in an error.
func FuzzConnectionString(f *testing.F) {
	for _, seed := range []string{
		"Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;",
		"Endpoint=sb://ns.example.net:5671/;SharedAccessKeyName=n;SharedAccessKey=k==;EntityPath=hub",
		"endpoint=sb://[::1]/;SharedAccessSignature=SharedAccessSignature sr=a&sig=b&se=1&skn=c",
		"Endpoint=sb://[fe80::1%25eth0]:1;SharedAccessKeyName=n;SharedAccessKey=k",
		"Endpoint=sb://h:99999;;=;SharedAccessKey", "Endpoint=sb://::;SharedAccessKeyName=n;SharedAccessKey=k", "Endpoint=sb://h%2f;SharedAccessKeyName=n;SharedAccessKey=k",
		"Endpoint=sb://u:p@h;SharedAccessKeyName=n;SharedAccessKey=k", " ; ; ", "Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=k;SharedAccessKey=k",
		"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=AAAA;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;",
		"Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=k;EntityPath=/a//b/ /;OperationTimeout=x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConnectionString(s)
		if err != nil {
			e, ok := errors.AsType[*ConnectionStringError](err)
			if !ok || e.Part == "" || e.Problem == "" || len(err.Error()) > 200 {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := ParseConnectionString(c.String())
		if err != nil || again != c {
			t.Fatalf("%q: %+v prints as %q, which reads as %+v, %v", s, c, c.String(), again, err)
		}
		other := c
		if c.Key != "" {
			other.Key = "another"
		} else {
			other.Signature = "SharedAccessSignature another"
		}
		if was, is := slog.AnyValue(c).Resolve(), slog.AnyValue(other).Resolve(); !was.Equal(is) || c.Port < 0 || c.Port > 65535 || c.Host == "" {
			t.Fatalf("%q is logged as %s, and with another secret as %s", s, was, is)
		}
	})
}
