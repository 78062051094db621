package auth

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseConnectionString(t *testing.T) {
	const token = "SharedAccessSignature sr=sb%3a%2f%2fns%2f&sig=a%3d&se=1&skn=n"
	plain := ConnectionString{Host: "ns.example.net", KeyName: "send", Key: "a+/b==", EntityPath: "Trial"}
	for name, test := range map[string]struct {
		in   string
		want ConnectionString
	}{
		"portal":         {"Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=a+/b==;EntityPath=Trial", plain},
		"no slash":       {"Endpoint=sb://ns.example.net;SharedAccessKeyName=send;SharedAccessKey=a+/b==;EntityPath=Trial", plain},
		"trailing":       {"Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=a+/b==;EntityPath=Trial;", plain},
		"order and case": {"ENTITYPATH=Trial;sharedaccesskey=a+/b==;sharedAccessKeyName=send;endpoint=sb://ns.example.net/", plain},
		"spaces":         {" Endpoint = sb://ns.example.net/ ; SharedAccessKeyName = send ; SharedAccessKey = a+/b== ; EntityPath = Trial ; ", plain},
		"amqps":          {"Endpoint=amqps://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=a+/b==;EntityPath=/Trial/", plain},
		"unknown part":   {"Endpoint=sb://ns.example.net/;TransportType=Amqp;SharedAccessKeyName=send;SharedAccessKey=a+/b==;EntityPath=Trial", plain},
		"empty hub":      {"Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=k;EntityPath=", ConnectionString{Host: "h", KeyName: "n", Key: "k"}},
		"emulator": {
			"Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;",
			ConnectionString{Host: "localhost", KeyName: "RootManageSharedAccessKey", Key: "SAS_KEY_VALUE", Emulator: true},
		},
		"emulator port": {
			"Endpoint=sb://localhost:6672;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=TRUE",
			ConnectionString{Host: "localhost", Port: 6672, KeyName: "n", Key: "k", Emulator: true},
		},
		"not emulator": {"Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=False", ConnectionString{Host: "h", KeyName: "n", Key: "k"}},
		"signature":    {"Endpoint=sb://ns;SharedAccessSignature=" + token + ";EntityPath=e", ConnectionString{Host: "ns", Signature: token, EntityPath: "e"}},
		"IPv6":         {"Endpoint=sb://[::1]:5672/;SharedAccessKeyName=n;SharedAccessKey=k", ConnectionString{Host: "::1", Port: 5672, KeyName: "n", Key: "k"}},
	} {
		got, err := ParseConnectionString(test.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
		again, err := ParseConnectionString(got.String())
		if err != nil || again != got {
			t.Errorf("%s: %q reads as %+v, %v", name, got.String(), again, err)
		}
	}
}

func TestParseConnectionStringNamesTheFault(t *testing.T) {
	const key = "TOPSECRET"
	with := func(s string) string { return strings.ReplaceAll(s, "KEY", key) }
	for in, part := range map[string]string{
		"":  "the whole",
		" ": "the whole",
		"SharedAccessKeyName=n;SharedAccessKey=KEY":                          partEndpoint,
		"Endpoint=;SharedAccessKeyName=n;SharedAccessKey=KEY":                partEndpoint,
		"Endpoint=localhost;SharedAccessKeyName=n;SharedAccessKey=KEY":       partEndpoint,
		"Endpoint=ftp://localhost;SharedAccessKeyName=n;SharedAccessKey=KEY": partEndpoint,
		"Endpoint=sb://h/hub;SharedAccessKeyName=n;SharedAccessKey=KEY":      partEndpoint,
		"Endpoint=sb://u:KEY@h;SharedAccessKeyName=n;SharedAccessKey=KEY":    partEndpoint,
		"Endpoint=sb://:5672;SharedAccessKeyName=n;SharedAccessKey=KEY":      partEndpoint,
		"Endpoint=sb://h:0;SharedAccessKeyName=n;SharedAccessKey=KEY":        partEndpoint,
		"Endpoint=sb://h:65536;SharedAccessKeyName=n;SharedAccessKey=KEY":    partEndpoint,
		"Endpoint=sb://h:x;SharedAccessKeyName=n;SharedAccessKey=KEY":        partEndpoint,
		"Endpoint=sb://::;SharedAccessKeyName=n;SharedAccessKey=KEY":         partEndpoint,
		"Endpoint=sb://h;SharedAccessKey=KEY":                                partKeyName,
		"Endpoint=sb://h;SharedAccessKeyName=n":                              partKey,
		"Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=":             partKey,
		"Endpoint=sb://h": partKeyName,
		"Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=KEY;SharedAccessKey=KEY":                   partKey,
		"Endpoint=sb://h;SharedAccessKeyName=n;KEY":                                                       "part 3",
		"Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=KEY;UseDevelopmentEmulator=yes":            partEmulator,
		"Endpoint=sb://h;SharedAccessSignature=KEY":                                                       partSignature,
		"Endpoint=sb://h;SharedAccessSignature=SharedAccessSignature sr=KEY;SharedAccessKeyName=n":        partSignature,
		"Endpoint=sb://h;SharedAccessSignature=SharedAccessSignature sr=KEY;SharedAccessKey=KEY;UseD=off": partSignature,
	} {
		_, err := ParseConnectionString(with(in))
		var e *ConnectionStringError
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v", in, err)
			continue
		}
		if e.Part != part {
			t.Errorf("%q: the fault is in %s, not %s", in, part, e.Part)
		}
		if strings.Contains(err.Error(), key) {
			t.Errorf("%q: the error prints the key: %v", in, err)
		}
	}
}

func TestConnectionStringForms(t *testing.T) {
	c := ConnectionString{Host: "localhost", Port: 5672, KeyName: "n", Key: "TOPSECRET", Emulator: true}
	if got, want := c.String(), "Endpoint=sb://localhost:5672;SharedAccessKeyName=n;SharedAccessKey=TOPSECRET;UseDevelopmentEmulator=true;"; got != want {
		t.Errorf("emulator's form is %q, want %q", got, want)
	}
	c.Emulator, c.EntityPath = false, "hub"
	if got, want := c.String(), "Endpoint=sb://localhost:5672/;SharedAccessKeyName=n;SharedAccessKey=TOPSECRET;EntityPath=hub"; got != want {
		t.Errorf("portal's form is %q, want %q", got, want)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("connecting", "to", c)
	c.Key, c.KeyName, c.Signature = "", "", "SharedAccessSignature TOPSECRET"
	slog.New(slog.NewTextHandler(&log, nil)).Info("connecting", "to", c)
	if strings.Contains(log.String(), "TOPSECRET") || !strings.Contains(log.String(), "EntityPath=hub") {
		t.Errorf("logged as %s", log.String())
	}
	if got := (ConnectionString{Host: "::1"}).Address(); got != "[::1]" {
		t.Errorf("address %q", got)
	}
}
