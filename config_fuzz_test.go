package millrace

import (
	"errors"
	"fmt"
	"github.com/millrace/millrace/admin"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/hub"
)

// FuzzConfig feeds files of any kind to the decoder. An error says where and
// what; of what it takes, each hub has a name and a number of partitions that
// the broker knows, the rest of the way is passed or refused without a panic, and
// a file that says the same in the plainest words reads the same.
func FuzzConfig(f *testing.F) {
	for _, file := range []string{
		"", "# x", "amqp: off", "data: x\nhubs:\n- {name: a, partitions: 2, retention: 7d, groups: [b], rules: [{name: r, rights: Send, primary: k}]}",
		"namespaces: [{name: n, hubs: [{name: h}]}]", "entra-grants: [{app: a, rights: [Listen]}]", "blob-accounts: [{name: team, keys: [a2V5]}]",
		"reserve: 1GiB", `{"UserConfig":{"NamespaceConfig":[{"Entities":[{"Name":"eh1","PartitionCount":"2","ConsumerGroups":[{"Name":"c"}]}]}]}}`,
		`{"userconfig":{"namespaceconfig":[{"Type":"eventhub","Name":"a","entities":[{"name":"e","partitioncount":32}]},{"Name":"b","Entities":[{"Name":"e","PartitionCount":1,"ConsumerGroups":null}]}],"LoggingConfig":{"Type":"File"}}}`,
		`{"UserConfig":null}`, `{"UserConfig":[]}`, `{"UserConfig":{"NamespaceConfig":[{"Type":null,"Entities":[null]}]}}`,
		`{"UserConfig":{"NamespaceConfig":[{"Type":"ServiceBus"}]}}`, `{"UserConfig":{"NamespaceConfig":[{"Entities":[{"Name":["x"],"PartitionCount":{}}]}]}}`,
		"a: &a [*a]", "? [x]\n: y", "<<: {data: x}", "hubs: !!map {a: b}", "\xff\xfe", "--- a\n--- b\n", "hubs: [{name: 1, groups: [null]}]",
		"\xef\xbb\xbfamqp: off", "a: &x {b: *x}", "hubs: *x", "x: &a [&b [&c [*a,*b,*c],*a,*b],*a]", "reserve: 1e400GiB", "reserve: off", "data: |\n  x\n y",
		"hubs: [{name: a, retention: -1d}, {name: a}]", "entra-audiences: [x, ~]", strings.Repeat("[", 2000), strings.Repeat("a: {", 500), "\"\\x", "%YAML 9\n---\n",
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig("m.yaml", b)
		if err != nil {
			e, ok := errors.AsType[*ConfigError](err)
			if !ok || e.Problem == "" || e.File == "" || e.Line < 0 || e.Line > len(b)+1 {
				t.Fatalf("an error that does not say where or what: %v", err)
			}
			return
		}
		hubs := 0
		for _, ns := range c.namespaces {
			for _, h := range ns.Hubs {
				hubs++
				if h.Name == "" || h.Partitions < 0 || h.Partitions > hub.MaxPartitions || h.Retention < 0 {
					t.Fatalf("%+v", h)
				}
			}
		}
		if hubs > len(b) || c.reserve < -1 {
			t.Fatalf("%d hubs and a reserve of %d, in %d bytes", hubs, c.reserve, len(b))
		}
		var o Options
		c.apply(&o)
		if hubs < 20 && len(c.namespaces) < 20 {
			rehearse(t.Context(), c.namespaces, nil) //nolint:errcheck // it is to return
		}
		plain := plainly(c)
		again, err := parseConfig("plain.yaml", []byte(plain))
		if err != nil {
			t.Fatalf("%q says %q, which can't be read: %v", b, plain, err)
		}
		if p := plainly(again); p != plain {
			t.Fatalf("%q says %q, and that %q", b, plain, p)
		}
	})
}

// plainly writes namespaces and hubs as a configuration file, everything quoted.
func plainly(c *configFile) string {
	var b strings.Builder
	list := func(names []string) string {
		var q []string
		for _, n := range names {
			q = append(q, quoted(n))
		}
		return "[" + strings.Join(q, ", ") + "]"
	}
	b.WriteString("namespaces:\n")
	for _, ns := range c.namespaces {
		fmt.Fprintf(&b, "- name: %s\n  hubs:\n", quoted(ns.Name))
		for _, h := range ns.Hubs {
			fmt.Fprintf(&b, "  - name: %s\n    groups: %s\n", quoted(h.Name), list(h.Groups))
			if h.Partitions > 0 {
				fmt.Fprintf(&b, "    partitions: %d\n", h.Partitions)
			}
		}
	}
	fmt.Fprintf(&b, "entra-audiences: %s\n", list(c.audiences))
	var names []string
	for name := range c.accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	b.WriteString("blob-accounts:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "- {name: %s, keys: %s}\n", quoted(name), list(c.accounts[name]))
	}
	return b.String()
}

// quoted is a YAML scalar that stands for itself.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r == 0x7f || r > 0x7e:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// FuzzSize reads whatever comes as a size: what is read is positive, and the same
// in bytes.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"1", "500MB", "2GiB", "1.5 kib", "0", "-1", "1e400", "NaN", "0x10", "inf", "9e18", "4e18", "", "B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := admin.ParseSize(s)
		if err != nil {
			return
		}
		if n < 1 {
			t.Fatalf("%q is %d", s, n)
		}
		if again, err := admin.ParseSize(fmt.Sprintf("%d B", n)); err != nil || again > n || n-again > n>>50 {
			t.Fatalf("%q is %d, and that is %d, %v", s, n, again, err)
		}
	})
}
