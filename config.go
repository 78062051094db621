package millrace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// maxConfig is the largest configuration file that is read, in bytes.
const maxConfig = 4 << 20

// ConfigError says what is wrong with a configuration file, and where.
type ConfigError struct {
	File    string
	Line    int // 0 if it concerns the whole file
	Problem string
}

// Error is "FILE:LINE: PROBLEM".
func (e *ConfigError) Error() string { return position{e.File, e.Line}.String() + e.Problem }

// configFile is what a configuration file says.
type configFile struct {
	path       string
	settings   map[string]configValue
	reserve    int64
	audiences  []string
	grants     []auth.EntraGrant
	accounts   map[string][]string
	namespaces []Namespace

	destinations []CaptureDestination
}

// configValue is a setting's text, and where it stands.
type configValue struct {
	text string
	at   position
}

// apply puts into o what only a file can say.
func (f *configFile) apply(o *Options) {
	o.Reserve = f.reserve
	o.Entra.Audiences, o.Entra.Grants = f.audiences, f.grants
	o.BlobAccounts = f.accounts
	o.Namespaces = f.namespaces
	o.CaptureDestinations = f.destinations
}

// parseConfig reads a configuration file: our own YAML, in which an unknown key
// is an error, or the emulator's Config.json, told by its key UserConfig. JSON
// is YAML, so one parser, with its line numbers, reads both.
func parseConfig(path string, b []byte) (*configFile, error) {
	if len(b) > maxConfig {
		return nil, &ConfigError{path, 0, fmt.Sprintf("the file is longer than %d bytes", maxConfig)}
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // a byte order mark, as editors on Windows leave it
	f := &configFile{path: path, settings: map[string]configValue{}}
	if len(bytes.TrimSpace(b)) == 0 {
		return f, nil
	}
	var doc yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(b))
	if err == nil {
		err = loader.Load(&doc)
	}
	if errors.Is(err, io.EOF) { // comments alone
		return f, nil
	}
	if err != nil {
		return nil, syntaxError(path, err)
	}
	var more yaml.Node
	if err := loader.Load(&more); err == nil {
		return nil, f.fail(&more, "a configuration file holds one document; a second begins here")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(path, err)
	}
	n := &doc
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" { // comments alone
		return f, nil
	}
	if isEmulatorConfig(n) {
		return f, f.readEmulator(n)
	}
	return f, f.readOwn(n)
}

func syntaxError(path string, err error) error {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		return &ConfigError{path, 0, "this is not YAML: " + err.Error()}
	}
	problem := "this is not YAML: " + le.Message
	if le.ContextMsg != "" {
		problem += " (" + le.ContextMsg + ")"
	}
	return &ConfigError{path, le.Mark.Line, problem}
}

func (f *configFile) at(n *yaml.Node) position { return position{f.path, n.Line} }

func (f *configFile) fail(n *yaml.Node, format string, args ...any) error {
	return &ConfigError{f.path, n.Line, fmt.Sprintf(format, args...)}
}

// fields reads a mapping: each key by its function, and no other key.
func (f *configFile) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return f.fail(n, "%s is to have keys and values, not %s", what, kindOf(n))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, ok := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !ok:
			return f.fail(key, "%s has no key %q%s", what, key.Value, nearest(key.Value, known))
		case seen[key.Value]:
			return f.fail(key, "%s has the key %q twice", what, key.Value)
		}
		seen[key.Value] = true
		if err := read(value); err != nil {
			return err
		}
	}
	return nil
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "keys and values"
	case yaml.AliasNode:
		return "an alias; write the value out"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

// items reads a list, or nothing, item by item.
func (f *configFile) items(n *yaml.Node, what string, each func(*yaml.Node) error) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return f.fail(n, "%s is to be a list, not %s", what, kindOf(n))
	}
	for _, item := range n.Content {
		if err := each(item); err != nil {
			return err
		}
	}
	return nil
}

// text returns a function that stores a scalar.
func (f *configFile) text(to *string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return f.fail(n, "%s is to be a single value, not %s", what, kindOf(n))
		}
		*to = n.Value
		return nil
	}
}

// texts returns a function that stores a list of scalars.
func (f *configFile) texts(to *[]string, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		return f.items(n, what, func(item *yaml.Node) error {
			var s string
			err := f.text(&s, "an item of "+what)(item)
			*to = append(*to, s)
			return err
		})
	}
}

// readOwn reads our own form: every setting but config is a key, and so are the
// things that are too large for a flag.
func (f *configFile) readOwn(n *yaml.Node) error {
	var first Namespace
	known := map[string]func(*yaml.Node) error{
		"reserve":         f.readReserve,
		"entra-audiences": f.texts(&f.audiences, "entra-audiences"),
		"entra-grants":    f.readGrants,
		"blob-accounts":   f.readAccounts,

		"capture-destinations": f.readDestinations,
		"namespaces": func(n *yaml.Node) error {
			return f.items(n, "namespaces", func(item *yaml.Node) error {
				ns := Namespace{at: f.at(item)}
				known := f.namespaceFields(&ns)
				known["name"] = f.text(&ns.Name, "the name of a namespace")
				err := f.fields(item, "a namespace", known)
				f.namespaces = append(f.namespaces, ns)
				return err
			})
		},
	}
	maps.Copy(known, f.namespaceFields(&first)) // the default namespace, without the ceremony
	for _, s := range Settings() {
		if s.Name == configSetting {
			continue
		}
		known[s.Name] = func(n *yaml.Node) error {
			v := configValue{at: f.at(n)}
			err := f.text(&v.text, s.Name)(n)
			f.settings[s.Name] = v
			return err
		}
	}
	if err := f.fields(n, "the configuration", known); err != nil {
		return err
	}
	if !reflect.DeepEqual(first, Namespace{}) {
		f.namespaces = append(f.namespaces, first)
	}
	return nil
}

// namespaceFields are the keys of a namespace, but for its name.
func (f *configFile) namespaceFields(ns *Namespace) map[string]func(*yaml.Node) error {
	return map[string]func(*yaml.Node) error{
		"rules":              f.readRules(&ns.Rules),
		"hubs":               f.readHubs(&ns.Hubs),
		"tier":               f.readTier(&ns.Tier),
		"capacity":           f.readUnits(&ns.Capacity, "the capacity"),
		"auto-inflate":       f.readSwitch(&ns.AutoInflate, "auto-inflate"),
		"maximum-capacity":   f.readUnits(&ns.MaximumCapacity, "the maximum capacity"),
		"disable-local-auth": f.readSwitch(&ns.DisableLocalAuth, "disable-local-auth"),
	}
}

func (f *configFile) readTier(to *hub.Tier) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var s string
		err := f.text(&s, "the tier")(n)
		if err != nil {
			return err
		}
		if *to, err = hub.ParseTier(s); err != nil {
			return f.fail(n, "%v", err)
		}
		return nil
	}
}

func (f *configFile) readUnits(to *int, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v < 1 || v > 1000 {
			return f.fail(n, "%s is a number of units, 1 or more, not %s", what, kindOf(n))
		}
		*to = v
		return nil
	}
}

func (f *configFile) readSwitch(to **bool, what string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		v, err := parseSwitch(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			return f.fail(n, "%s is on or off, not %s", what, kindOf(n))
		}
		*to = &v
		return nil
	}
}

func (f *configFile) readHubs(to *[]EventHub) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		return f.items(n, "hubs", func(item *yaml.Node) error {
			h := EventHub{at: f.at(item)}
			err := f.fields(item, "an event hub", map[string]func(*yaml.Node) error{
				"name":       f.text(&h.Name, "the name of an event hub"),
				"partitions": f.readPartitions(&h.Partitions),
				"retention":  f.readRetention(&h.Retention),
				"max-size":   f.readMaxSize(&h.MaxBytes),
				"groups":     f.texts(&h.Groups, "groups"),
				"rules":      f.readRules(&h.Rules),
				"capture":    f.readCapture(&h.Capture),
			})
			if err == nil && h.Name == "" {
				return f.fail(item, "an event hub needs a name")
			}
			*to = append(*to, h)
			return err
		})
	}
}

func (f *configFile) readPartitions(to *int) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v < 1 || v > hub.MaxPartitions {
			return f.fail(n, "the number of partitions is from 1 to %d, not %s", hub.MaxPartitions, kindOf(n))
		}
		*to = v
		return nil
	}
}

func (f *configFile) readRetention(to *time.Duration) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var s string
		if err := f.text(&s, "retention")(n); err != nil {
			return err
		}
		r, err := admin.ParseRetention(s)
		if err != nil {
			return f.fail(n, "%v", err)
		}
		*to = time.Duration(r)
		return nil
	}
}

func (f *configFile) readMaxSize(to *int64) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var s string
		if err := f.text(&s, "max-size")(n); err != nil {
			return err
		}
		v, err := admin.ParseSize(s)
		if err == nil && v < hub.MinMaxBytes {
			err = fmt.Errorf("%q is less than 1MiB", s)
		}
		if err != nil {
			return f.fail(n, "max-size: %v", err)
		}
		*to = v
		return nil
	}
}

func (f *configFile) readRules(to *[]hub.Rule) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		return f.items(n, "rules", func(item *yaml.Node) error {
			var r hub.Rule
			err := f.fields(item, "a rule", map[string]func(*yaml.Node) error{
				"name":      f.text(&r.Name, "the name of a rule"),
				"rights":    f.readRights(&r.Rights),
				"primary":   f.text(&r.Primary, "a key"),
				"secondary": f.text(&r.Secondary, "a key"),
			})
			if err == nil && (r.Name == "" || r.Rights == 0 || r.Primary == "") {
				return f.fail(item, "a rule needs a name, rights, and a primary key")
			}
			*to = append(*to, r)
			return err
		})
	}
}

func (f *configFile) readRights(to *auth.Rights) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		var list []string
		read := f.texts(&list, "rights")
		if n.Kind == yaml.ScalarNode {
			list = []string{""}
			read = f.text(&list[0], "rights")
		}
		if err := read(n); err != nil {
			return err
		}
		r, err := auth.ParseRights(strings.Join(list, ","))
		if err != nil {
			return f.fail(n, "%v", err)
		}
		*to = r
		return nil
	}
}

func (f *configFile) readGrants(n *yaml.Node) error {
	return f.items(n, "entra-grants", func(item *yaml.Node) error {
		var g auth.EntraGrant
		err := f.fields(item, "a grant", map[string]func(*yaml.Node) error{
			"subject":   f.text(&g.Subject, "subject"),
			"app":       f.text(&g.App, "app"),
			"role":      f.text(&g.Role, "role"),
			"rights":    f.readRights(&g.Rights),
			"namespace": f.text(&g.Namespace, "namespace"),
			"hub":       f.text(&g.Hub, "hub"),
		})
		named := 0
		for _, who := range []string{g.Subject, g.App, g.Role} {
			if who != "" {
				named++
			}
		}
		if err == nil && (named != 1 || g.Rights == 0) {
			return f.fail(item, "a grant needs rights, and exactly one of subject, app and role")
		}
		f.grants = append(f.grants, g)
		return err
	})
}

func (f *configFile) readAccounts(n *yaml.Node) error {
	f.accounts = map[string][]string{}
	return f.items(n, "blob-accounts", func(item *yaml.Node) error {
		var name string
		var keys []string
		err := f.fields(item, "a blob account", map[string]func(*yaml.Node) error{
			"name": f.text(&name, "the name of an account"),
			"keys": f.texts(&keys, "keys"),
		})
		if err != nil {
			return err
		}
		if _, twice := f.accounts[name]; twice {
			return f.fail(item, "the account %q is there twice", name)
		}
		if err := checkAccount(name, keys); err != nil {
			return f.fail(item, "%v", err)
		}
		f.accounts[name] = keys
		return nil
	})
}

// readReserve reads the free disk space to keep: a size, or off.
func (f *configFile) readReserve(n *yaml.Node) error {
	var s string
	if err := f.text(&s, "reserve")(n); err != nil {
		return err
	}
	if strings.EqualFold(s, "off") {
		f.reserve = -1
		return nil
	}
	v, err := admin.ParseSize(s)
	if err != nil {
		return f.fail(n, "reserve: %v, or off", err)
	}
	f.reserve = v
	return nil
}
