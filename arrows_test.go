package millrace_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/millrace/millrace"

// arrows is the whole list of who may import whom of ours (docs/architecture.md);
// "." is the root. A package that is not in it does not exist yet: add it here
// with its arrows, and why it has earned a name.
var arrows = map[string][]string{
	".": {
		"event", "store", "store/segment", "hub", "auth", "amqp", "amqp/message", "kafka",
		"rest", "schema", "blob", "capture", "capture/azure", "capture/folder", "capture/s3", "admin",
		"admin/ui",
	},
	"cmd/millrace": {
		".", "admin", "auth", "capture", "capture/archive", "capture/azure", "capture/folder", "capture/row",
		"capture/s3", "once", "once/fileledger", "once/processor", "once/redisledger", "once/sqlledger",
	},
	"amqp":                {"hub", "auth", "amqp/message", "amqp/wire", "event"},
	"kafka":               {"hub", "auth", "amqp/message", "event"},
	"rest":                {"hub", "auth", "schema", "amqp/message", "event"},
	"admin":               {"hub", "auth", "event"},
	"admin/ui":            {},
	"blob":                {"auth", "store"},
	"schema":              {"store"},
	"capture":             {"capture/avro", "capture/parquet", "capture/row", "hub", "amqp/message", "store", "event"},
	"capture/archive":     {"capture", "capture/avro", "capture/parquet", "capture/row", "event"},
	"capture/avro":        {"capture/row", "event"},
	"capture/azure":       {"capture"},
	"capture/capturetest": {"capture"},
	"capture/folder":      {"capture"},
	"capture/parquet":     {"capture/row", "event"},
	"capture/row":         {"amqp/message", "amqp/wire", "event"},
	"capture/s3":          {"capture"},
	"hub":                 {"auth", "store", "event"},
	"store/segment":       {"store", "event"},
	"store/storetest":     {"store", "event"},
	"store":               {"event"},
	"amqp/message":        {"amqp/wire", "event"},
	"once/fileledger":     {"once"},
	"once/ledgertest":     {"once"},
	"once/processor":      {"once"},
	"once/redisledger":    {"once"},
	"once/sqlledger":      {"once"},
	"auth":                {},
	"event":               {},
	"amqp/wire":           {},
	"once":                {},

	// Examples, in this module so that the gate builds them and "go run" starts them as
	// they are. They import what a user's own consumer would.
	"examples/once/consumer": {"once/processor", "once/redisledger"},
	"examples/once/producer": {},
}

// exempt are folders whose packages only tests use.
var exempt = []string{"internal/sim"}

// source is what a folder's non-test files say.
type source struct {
	imports  map[string]string // of ours, and one file that has it
	comments []string          // the files with a package comment
}

// sources reads the imports of the module, less modules inside it.
func sources(t *testing.T) map[string]*source {
	found := map[string]*source{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			if base := d.Name(); name != "." && (nested == nil || base == "testdata" || base == "node_modules" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(name))
		s := found[dir]
		if s == nil {
			s = &source{imports: map[string]string{}}
			found[dir] = s
		}
		if f.Doc != nil {
			s.comments = append(s.comments, name)
		}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if p == module {
				s.imports["."] = name
			} else if ours, ok := strings.CutPrefix(p, module+"/"); ok {
				s.imports[ours] = name
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestArrows holds the shape of the module: who knows whom.
func TestArrows(t *testing.T) {
	for dir, s := range sources(t) {
		if slices.Contains(exempt, dir) {
			continue
		}
		allowed, known := arrows[dir]
		if !known {
			t.Errorf("the package %s is not in the list of arrows: add it with what it may import, here and in docs/architecture.md", dir)
			continue
		}
		for _, p := range slices.Sorted(maps.Keys(s.imports)) {
			if !slices.Contains(allowed, p) {
				t.Errorf("%s imports %s, which %s must not know", s.imports[p], p, dir)
			}
		}
	}
}

// TestArrowsHaveNoCircle holds the list itself to something that compiles.
func TestArrowsHaveNoCircle(t *testing.T) {
	state := map[string]int{}
	var visit func(p string, trail []string)
	visit = func(p string, trail []string) {
		switch state[p] {
		case 1:
			t.Errorf("a circle: %s", strings.Join(append(trail, p), " → "))
			return
		case 2:
			return
		}
		state[p] = 1
		for _, q := range arrows[p] {
			if _, known := arrows[q]; !known {
				t.Errorf("%s may import %s, which has no entry of its own", p, q)
			}
			visit(q, append(trail, p))
		}
		state[p] = 2
	}
	for p := range arrows {
		visit(p, nil)
	}
}

// TestPackageComments wants each package to say once what it is.
func TestPackageComments(t *testing.T) {
	for dir, s := range sources(t) {
		if len(s.comments) != 1 {
			t.Errorf("%s has %d package comments, not one: %v", dir, len(s.comments), s.comments)
		}
	}
}
