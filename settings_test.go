package millrace

import (
	"bytes"
	"github.com/millrace/millrace/admin"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// load runs Load over given flags, environment and file.
func load(t *testing.T, flags, env map[string]string, file string) (Options, string, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "millrace.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		if flags == nil {
			flags = map[string]string{}
		}
		flags["config"] = path
	}
	var log bytes.Buffer
	o, err := Load(Sources{Flags: flags, Stderr: &log, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	return o, log.String(), err
}

func TestDefaults(t *testing.T) {
	o, _, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[Door]string{
		AMQP: "localhost:5672", AMQPS: "localhost:5671", Kafka: "off", Kafkas: "off",
		HTTP: "localhost:5300", HTTPS: "localhost:5443", Blob: "localhost:10000",
	}
	if d := cmp.Diff(want, o.Listen); d != "" {
		t.Error(d)
	}
	if o.Data != "millrace-data" || o.Sync != "always" || o.Ephemeral || o.InsecureDevKeys || o.Entra.AcceptAny || o.Entra.Issuer != "" || o.Logger == nil {
		t.Errorf("%+v", o)
	}
}

func TestPrecedence(t *testing.T) {
	file := "amqp: localhost:3\nblob: localhost:3\nhttp: localhost:3\ndata: from-file\nsync: never\n"
	env := map[string]string{"MILLRACE_AMQP": "localhost:2", "MILLRACE_BLOB": "localhost:2", "MILLRACE_HTTP": ""}
	o, _, err := load(t, map[string]string{"amqp": "localhost:1"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	for door, want := range map[Door]string{AMQP: "localhost:1", Blob: "localhost:2", HTTP: "localhost:3", HTTPS: "localhost:5443"} {
		if o.Listen[door] != want {
			t.Errorf("%s listens on %s, not %s", door, o.Listen[door], want)
		}
	}
	if o.Data != "from-file" || o.Sync != "never" {
		t.Errorf("%+v", o)
	}
}

func TestEnvironmentTwins(t *testing.T) {
	for _, s := range Settings() {
		if strings.ContainsAny(s.Env(), "- ") || s.Env() != strings.ToUpper(s.Env()) || !strings.HasPrefix(s.Env(), "MILLRACE_") {
			t.Errorf("--%s has the twin %s", s.Name, s.Env())
		}
	}
	if twin := setting("tls-cert").Env(); twin != "MILLRACE_TLS_CERT" {
		t.Error(twin)
	}
}

func TestEphemeralAndData(t *testing.T) {
	for _, c := range []struct {
		name       string
		flags, env map[string]string
		file       string
		ephemeral  bool
		data       string
		fails      string
	}{
		{"the flag alone", map[string]string{"ephemeral": "true"}, nil, "", true, "", ""},
		{"the flag over an image's folder", map[string]string{"ephemeral": "true"}, map[string]string{"MILLRACE_DATA": "/data"}, "", true, "", ""},
		{"the flag over a file's policy", map[string]string{"ephemeral": "true"}, nil, "sync: always\ndata: x", true, "", ""},
		{"a folder by flag over the environment", map[string]string{"data": "d"}, map[string]string{"MILLRACE_EPHEMERAL": "yes"}, "", false, "d", ""},
		{"both by flag", map[string]string{"data": "d", "ephemeral": "true"}, nil, "", false, "", "--ephemeral or --data"},
		{"a policy by flag", map[string]string{"sync": "always", "ephemeral": "true"}, nil, "", false, "", "--ephemeral or --sync"},
		{"never by flag", map[string]string{"sync": "never", "ephemeral": "true"}, nil, "", true, "", ""},
		{"off", nil, map[string]string{"MILLRACE_EPHEMERAL": "false"}, "", false, DefaultData, ""},
	} {
		o, _, err := load(t, c.flags, c.env, c.file)
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || o.Ephemeral != c.ephemeral || o.Data != c.data {
			t.Errorf("%s: %v %q, %v", c.name, o.Ephemeral, o.Data, err)
		}
	}
}

func TestRefusedSettings(t *testing.T) {
	for _, c := range []struct {
		name       string
		flags, env map[string]string
		file       string
		says       []string
	}{
		{"a flag", map[string]string{"amqp": "5672"}, nil, "", []string{"--amqp: ", `"5672" is not an address`}},
		{"a variable", nil, map[string]string{"MILLRACE_SYNC": "sometimes"}, "", []string{"MILLRACE_SYNC: ", "sometimes"}},
		{"a line", nil, nil, "data: x\n\nsync: sometimes\n", []string{"millrace.yaml:3: sync: ", "sometimes"}},
		{"a switch", nil, map[string]string{"MILLRACE_EPHEMERAL": "maybe"}, "", []string{"MILLRACE_EPHEMERAL", "maybe"}},
		{"Kafka", map[string]string{"kafka": "localhost:9092"}, nil, "", []string{"--kafka", "no Kafka door yet"}},
		{"no door", map[string]string{"amqp": "off", "amqps": "off", "http": "off", "https": "off", "blob": "off"}, nil, "", []string{"every door is off"}},
		{"half a certificate", map[string]string{"tls-cert": "x"}, nil, "", []string{"--tls-cert and --tls-key"}},
		{"a port to advertise", map[string]string{"advertise": "host:1"}, nil, "", []string{"--advertise", "host:1"}},
		{"a level", map[string]string{"log-level": "loud"}, nil, "", []string{"--log-level", "loud"}},
		{"a format", nil, nil, "log-format: xml", []string{"millrace.yaml:1: log-format", "xml"}},
		{"an issuer", map[string]string{"entra": "maybe"}, nil, "", []string{"--entra", "maybe"}},
		{"no such file", map[string]string{"config": "/nowhere/m.yaml"}, nil, "", []string{"configuration file", "/nowhere/m.yaml"}},
	} {
		_, _, err := load(t, c.flags, c.env, c.file)
		for _, want := range c.says {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q", c.name, err, want)
			}
		}
	}
}

func TestEmulatorEnvironment(t *testing.T) {
	env := map[string]string{"ACCEPT_EULA": "Y", "BLOB_SERVER": "azurite", "METADATA_SERVER": "azurite"}
	o, log, err := load(t, map[string]string{"blob": "127.0.0.1:0"}, env, "")
	if err != nil {
		t.Fatal(err)
	}
	if o.Listen[AMQP] != ":5672" || o.Listen[HTTP] != ":5300" || o.Listen[Kafka] != "off" || o.Listen[Blob] != "127.0.0.1:0" || !o.InsecureDevKeys {
		t.Errorf("%+v", o)
	}
	for _, want := range []string{"BLOB_SERVER", "METADATA_SERVER", "level=INFO"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}
	if o, _, err = load(t, nil, map[string]string{"ACCEPT_EULA": "N"}, ""); err != nil || o.InsecureDevKeys || o.Listen[AMQP] != "localhost:5672" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestConfigFile(t *testing.T) {
	o, _, err := load(t, nil, nil, `
# A broker for a team.
amqp: off
ephemeral: yes
log-format: json
reserve: 2GiB
entra: https://issuer.example/
entra-audiences: [api://streams]
entra-grants:
  - {role: Writers, rights: Send, namespace: second, hub: orders}
  - app: 1234
    rights: [Listen, Send]
blob-accounts:
  - name: team
    keys: [a2V5]
rules:
  - {name: app, rights: "Send,Listen", primary: secret}
hubs:
  - name: trial
    partitions: 2
    retention: 1d12h
    groups: [audit, $Default]
    rules:
      - {name: own, rights: Manage, primary: one, secondary: two}
namespaces:
  - name: second
    hubs:
      - name: orders
      - {name: kept, retention: forever}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Namespace{
		{Name: "second", Hubs: []EventHub{{Name: "orders"}, {Name: "kept", Retention: -1}}},
		{
			Rules: []hub.Rule{{Name: "app", Rights: auth.Send | auth.Listen, Primary: "secret"}},
			Hubs: []EventHub{{
				Name: "trial", Partitions: 2, Retention: 36 * time.Hour, Groups: []string{"audit", "$Default"},
				Rules: []hub.Rule{{Name: "own", Rights: auth.Manage, Primary: "one", Secondary: "two"}},
			}},
		},
	}
	if d := cmp.Diff(want, o.Namespaces, cmpopts.IgnoreUnexported(Namespace{}, EventHub{})); d != "" {
		t.Error(d)
	}
	entra := auth.Entra{Issuer: "https://issuer.example/", Audiences: []string{"api://streams"}, Grants: []auth.EntraGrant{
		{Role: "Writers", Rights: auth.Send, Namespace: "second", Hub: "orders"},
		{App: "1234", Rights: auth.Listen | auth.Send},
	}}
	if d := cmp.Diff(entra, o.Entra); d != "" {
		t.Error(d)
	}
	if !o.Ephemeral || o.Listen[AMQP] != "off" || o.Reserve != 2<<30 || len(o.BlobAccounts["team"]) != 1 {
		t.Errorf("%+v", o)
	}
	if o, _, err = load(t, map[string]string{"data": "x"}, nil, "# nothing\n"); err != nil || o.Data != "x" {
		t.Error(o, err)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "512": 512, "1KiB": 1024, "1.5 MiB": 3 << 19, "2g": 2 << 30, "500MB": 500_000_000, "1TB": 1e12} {
		if n, err := admin.ParseSize(in); err != nil || n != want {
			t.Errorf("%q: %d, %v; want %d", in, n, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-1", "x", "1XB", "5%", "1e300", "NaN", "inf"} {
		if n, err := admin.ParseSize(bad); err == nil {
			t.Errorf("%q is taken for %d", bad, n)
		}
	}
}
