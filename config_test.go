package millrace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestRefusedConfig(t *testing.T) {
	for _, c := range []struct {
		name, file string
		line       int
		says       string
	}{
		{"an unknown key", "data: x\nsink: never\n", 2, `no key "sink"; did you mean "sync"?`},
		{"swapped letters", "ampq: off\n", 1, `did you mean "amqp"?`},
		{"a key of another place", "hubs:\n  - name: a\n    partition: 2\n", 3, `an event hub has no key "partition"; did you mean "partitions"?`},
		{"nothing near", "hubs:\n  - zzzzzzzzz: a\n", 2, "it can have capture, groups, max-size, name, partitions, retention, rules"},
		{"a key twice", "data: x\ndata: y\n", 2, "data"},
		{"the file in the file", "config: x\n", 1, `no key "config"`},
		{"no YAML", "data: [\n", 2, ""},
		{"a list", "- data\n", 1, "not a list"},
		{"a scalar", "data\n", 1, `not "data"`},
		{"a list for a value", "data: [x]\n", 1, "data is to be a single value, not a list"},
		{"nothing for a value", "data:\n", 1, "data is to be a single value, not nothing"},
		{"a value for a list", "hubs: trial\n", 1, "hubs is to be a list"},
		{"no name", "hubs:\n  - partitions: 2\n", 2, "an event hub needs a name"},
		{"no partitions", "hubs:\n  - name: a\n    partitions: 0\n", 3, "from 1 to 1024, not \"0\""},
		{"many partitions", "hubs:\n  - name: a\n    partitions: 1025\n", 3, "1025"},
		{"half a partition", "hubs:\n  - name: a\n    partitions: 1.5\n", 3, "1.5"},
		{"a bad retention", "hubs:\n  - name: a\n    retention: soon\n", 3, "soon"},
		{"a short retention", "hubs:\n  - name: a\n    retention: 5s\n", 3, "5s"},
		{"a small size", "hubs:\n  - name: a\n    max-size: 5kB\n", 3, "less than 1MiB"},
		{"a right that is none", "rules:\n  - name: a\n    rights: Read\n    primary: x\n", 3, "Read"},
		{"a rule without a key", "rules:\n  - name: a\n    rights: Send\n", 2, "primary key"},
		{"a grant to two", "entra-grants:\n  - {app: a, role: b, rights: Send}\n", 2, "exactly one"},
		{"a grant of nothing", "entra-grants:\n  - app: a\n", 2, "needs rights"},
		{"an account's name", "blob-accounts:\n  - name: Team\n    keys: [a2V5]\n", 2, "lower-case"},
		{"an account's key", "blob-accounts:\n  - name: team\n    keys: ['?']\n", 2, "not base64"},
		{"an account without key", "blob-accounts:\n  - name: team\n", 2, "one or two keys, not 0"},
		{"a reserve", "reserve: much\n", 1, "much"},
		{"a tier that is none", "tier: gold\n", 1, "not one of the tiers"},
		{"no units", "capacity: 0\n", 1, "1 or more"},
		{"neither on nor off", "auto-inflate: perhaps\n", 1, "on or off"},
		{"keys neither on nor off", "namespaces: [{name: a, disable-local-auth: [on]}]\n", 1, "disable-local-auth is on or off"},
		{"an anchor's alias", "data: &x y\nsync: *x\n", 2, "an alias"},
		{"an anchor that holds itself", "hubs: &x [*x]\n", 1, "alias"},
		{"too long", "data: " + strings.Repeat("x", maxConfig), 0, "longer than"},
	} {
		_, err := parseConfig("m.yaml", []byte(c.file))
		var e *ConfigError
		if !errors.As(err, &e) || e.File != "m.yaml" || e.Line != c.line || !strings.Contains(e.Problem, c.says) {
			t.Errorf("%s: %v; want line %d, %q", c.name, err, c.line, c.says)
		}
	}
}

func TestEmulatorConfig(t *testing.T) {
	read := func(file string) ([]Namespace, error) {
		f, err := parseConfig("Config.json", []byte(file))
		if err != nil {
			return nil, err
		}
		return f.namespaces, nil
	}
	want := []Namespace{{Hubs: []EventHub{
		{Name: "eh1", Partitions: 2, Groups: []string{"cg1", "$default"}},
		{Name: "eh2", Partitions: 32},
	}}}
	ignore := cmpopts.IgnoreUnexported(Namespace{}, EventHub{})
	for name, file := range map[string]string{
		"as documented": `{
  "UserConfig": {
    "NamespaceConfig": [
      {
        "Type": "EventHub",
        "Name": "emulatorNs1",
        "Entities": [
          { "Name": "eh1", "PartitionCount": 2, "ConsumerGroups": [ { "Name": "cg1" }, { "Name": "$default" } ] },
          { "Name": "eh2", "PartitionCount": "32", "ConsumerGroups": [] }
        ]
      }
    ],
    "LoggingConfig": { "Type": "File" }
  }
}`,
		"with tabs, a byte order mark, escapes and no type": "\xef\xbb\xbf{\r\n\t\"UserConfig\": {\r\n\t\t\"NamespaceConfig\": [{\"Entities\": [\r\n\t\t\t{\"Name\": \"\\u0065h1\", \"PartitionCount\": \" 2 \", \"ConsumerGroups\": [{\"Name\": \"cg1\"}, {\"Name\": \"$default\"}]},\r\n\t\t\t{\"Name\": \"eh2\", \"PartitionCount\": 32, \"ConsumerGroups\": null}]}],\r\n\t\t\"LoggingConfig\": {\"Type\": \"Console\\/File\"}}}",
		"in another case, with unknown keys":                `{"$schema": "x", "userconfig": {"namespaceconfig": [{"name": "any", "entities": [{"name": "eh1", "partitioncount": 2, "consumergroups": [{"name": "cg1", "Comment": 1}, {"name": "$default"}]}, {"name": "eh2", "partitionCount": 32}]}]}}`,
	} {
		got, err := read(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(want, got, ignore); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for _, c := range []struct {
		name, file string
		line       int
		says       string
	}{
		{"null entities", "{\"UserConfig\":{\"NamespaceConfig\":[{\n\"Entities\": null}]}}", 2, "not nothing"},
		{"empty entities", "{\"UserConfig\":{\"NamespaceConfig\":[{\n\"Entities\": []}]}}", 2, "not an empty one"},
		{"no entities", "{\"UserConfig\":{\"NamespaceConfig\":[\n{}]}}", 2, "no Entities"},
		{"no namespace", "{\"UserConfig\":{\"NamespaceConfig\":[]}}", 1, "NamespaceConfig"},
		{"null", "{\"UserConfig\":null}", 1, "NamespaceConfig"},
		{"a service bus", "{\"UserConfig\":{\"NamespaceConfig\":[{\"Type\":\"ServiceBus\"}]}}", 1, "ServiceBus"},
		{"no count", "{\"UserConfig\":{\"NamespaceConfig\":[{\"Entities\":[\n{\"Name\":\"eh1\"}]}]}}", 2, "PartitionCount"},
		{"no number", "{\"UserConfig\":{\"NamespaceConfig\":[{\"Entities\":[\n{\"Name\":\"eh1\",\n\"PartitionCount\":\"two\"}]}]}}", 3, `not "two"`},
		{"no name", "{\"UserConfig\":{\"NamespaceConfig\":[{\"Entities\":[\n{\"PartitionCount\":\"2\"}]}]}}", 2, "Name"},
		{"a group without name", "{\"UserConfig\":{\"NamespaceConfig\":[{\"Entities\":[\n{\"Name\":\"eh1\",\"PartitionCount\":2,\"ConsumerGroups\":[{}]}]}]}}", 2, "consumer group"},
	} {
		_, err := read(c.file)
		var e *ConfigError
		if !errors.As(err, &e) || e.Line != c.line || !strings.Contains(e.Problem, c.says) {
			t.Errorf("%s: %v; want line %d, %q", c.name, err, c.line, c.says)
		}
	}
	two, err := read(`{"UserConfig":{"NamespaceConfig":[{"Name":"a","Entities":[{"Name":"x","PartitionCount":1}]},{"Name":"b","Entities":[{"Name":"x","PartitionCount":1}]}]}}`)
	if err != nil || len(two) != 2 || two[0].Name != "a" || two[1].Name != "b" {
		t.Errorf("%+v, %v", two, err)
	}
}

func TestRehearsal(t *testing.T) {
	for _, c := range []struct {
		file, says string
	}{
		{"hubs:\n  - {name: a b}\n", "m.yaml:2: 'a b' can't be the name"},
		{"hubs:\n  - {name: a, groups: [x y]}\n", "m.yaml:2: 'x y' can't be the name"},
		{"hubs:\n  - {name: a, groups: [x]}\n  - {name: A, partitions: 7}\n", "m.yaml:3: "},
		{"namespaces:\n  - hubs: []\n  - name: '?'\n", "m.yaml:3: "},
	} {
		f, err := parseConfig("m.yaml", []byte(c.file))
		if err != nil {
			t.Fatal(err)
		}
		if err := rehearse(t.Context(), f.namespaces, nil); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v; want %q", c.file, err, c.says)
		}
	}
}

func TestNearest(t *testing.T) {
	known := map[string]int{"sync": 0, "data": 0, "partitions": 0, "tls-cert": 0}
	for in, want := range map[string]string{"snyc": "sync", "Data": "data", "partition-count": "", "tls_cert": "tls-cert", "tlscert": "tls-cert", "x": "", "": ""} {
		hint := nearest(in, known)
		if want == "" && !strings.HasPrefix(hint, "; it can have data, ") || want != "" && hint != `; did you mean "`+want+`"?` {
			t.Errorf("%q: %s; want %q", in, hint, want)
		}
	}
}

func TestConfigFileIsReadWhole(t *testing.T) {
	// A file that can't be read is an error, not an empty configuration.
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Sources{Flags: map[string]string{"config": path}, Env: func(string) (string, bool) { return "", false }}); err == nil {
		t.Error("a folder is taken for a file")
	}
}
