// Package capturetest is the suite that every destination of captured files passes:
// what [capture.Destination] promises, tried from outside. A destination's test calls
// Run.
//
// It knows the contract alone, and no destination.
package capturetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	mrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/capture"
)

// Destination is what Run tries.
type Destination struct {
	// New returns one, which makes the containers that it needs. Each test uses a
	// container of its own, with a name of lower-case letters, digits and dashes that
	// no other run has had; so New may return the same destination always.
	New func(t *testing.T) capture.Destination
	// Metadata tells that it keeps metadata, and ListsMetadata that lists have it.
	Metadata, ListsMetadata bool
	// Piece is how large a file may be that it puts in one piece: the suite's files
	// are chosen by it, and it is best small. 0 is 5 MiB, the least of S3.
	Piece int
	// OneWriter leaves out what has several put files of one name at once.
	OneWriter bool
	// Secrets must be in no error and in no URL.
	Secrets []string
}

// Run runs the suite.
func Run(t *testing.T, d Destination) {
	for _, c := range []struct {
		name string
		test func(*fixture)
	}{
		{"Sizes", testSizes},
		{"Missing", testMissing},
		{"Exists", testExists},
		{"Metadata", testMetadata},
		{"Names", testNames},
		{"List", testList},
		{"WrongSize", testWrongSize},
		{"Race", testRace},
		{"RaceOfTheSame", testRaceOfTheSame},
		{"NeverPartial", testNeverPartial},
		{"Cancel", testCancel},
		{"Secrets", testSecrets},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d.OneWriter && strings.HasPrefix(c.name, "Race") {
				t.Skip("the destination is for one writer")
			}
			id := make([]byte, 6)
			rand.Read(id)
			c.test(&fixture{T: t, Destination: d.New(t), is: d, container: "capturetest-" + hex.EncodeToString(id)})
		})
	}
}

type fixture struct {
	*testing.T
	capture.Destination
	is        Destination
	container string
}

// piece and large are sizes of files: one that goes in one piece, just so, and one
// that goes in several.
func (f *fixture) piece() int { return cmp.Or(f.is.Piece, 5<<20) }
func (f *fixture) large() int { return f.piece() * 13 / 5 }

// file is a file to be put, and what is in it.
type file struct {
	capture.File
	data []byte
}

// file makes one of a size, of chance.
func (f *fixture) file(size int) *file {
	f.Helper()
	var seed [32]byte
	rand.Read(seed[:])
	data := make([]byte, size)
	mrand.NewChaCha8(seed).Read(data) //nolint:errcheck // it has none
	return f.fileOf(data)
}

func (f *fixture) fileOf(data []byte) *file {
	f.Helper()
	path := filepath.Join(f.TempDir(), "spool")
	if err := os.WriteFile(path, data, 0o640); err != nil {
		f.Fatal(err)
	}
	id := make([]byte, 8)
	rand.Read(id)
	return &file{capture.File{
		Path: path, Size: int64(len(data)), ContentType: "application/avro",
		Metadata: map[string]string{"firstseq": "0", "lastseq": "9223372036854775807", "count": "12", "crc64": hex.EncodeToString(id)},
	}, data}
}

// put puts a file, which must go well.
func (f *fixture) put(name string, x *file) {
	f.Helper()
	if err := f.Put(f.Context(), f.container, name, &x.File); err != nil {
		f.Fatalf("Put %q: %v", name, err)
	}
}

// has wants the whole file under a name.
func (f *fixture) has(name string, x *file) {
	f.Helper()
	o, err := f.Stat(f.Context(), f.container, name)
	if err != nil {
		f.Errorf("Stat %q: %v", name, err)
		return
	}
	f.is.check(f.T, o, name, x)
	if f.is.Metadata && !maps.Equal(o.Metadata, x.Metadata) {
		f.Errorf("the metadata of %q is %v, not %v", name, o.Metadata, x.Metadata)
	}
	if got, err := f.read(name); err != nil || !bytes.Equal(got, x.data) {
		f.Errorf("%q has %d bytes that are not the %d put: %v", name, len(got), len(x.data), err)
	}
}

func (d Destination) check(t *testing.T, o capture.Object, name string, x *file) {
	t.Helper()
	if o.Name != name || o.Size != x.Size || time.Since(o.Modified).Abs() > time.Hour {
		t.Errorf("%q of %d bytes is described as %+v", name, x.Size, o)
	}
	if !d.Metadata && o.Metadata != nil {
		t.Errorf("%q has metadata, of a destination that keeps none: %v", name, o.Metadata)
	}
}

func (f *fixture) read(name string) ([]byte, error) {
	r, err := f.Open(f.Context(), f.container, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// list is what a list has.
func (f *fixture) list(prefix string) []capture.Object {
	f.Helper()
	var out []capture.Object
	for o, err := range f.List(f.Context(), f.container, prefix) {
		if err != nil {
			f.Errorf("List %q: %v", prefix, err)
			return out
		}
		out = append(out, o)
	}
	return out
}

// names are those of a list.
func (f *fixture) names(prefix string) []string {
	f.Helper()
	var out []string
	for _, o := range f.list(prefix) {
		out = append(out, o.Name)
	}
	return out
}

func testSizes(f *fixture) {
	for _, size := range []int{0, 1, 508, f.piece() - 1, f.piece(), f.piece() + 1, f.large()} {
		name := fmt.Sprintf("ns/hub/0/2026/03/14/%d.avro", size)
		x := f.file(size)
		f.put(name, x)
		f.has(name, x)
		if have, err := os.ReadFile(x.Path); err != nil || !bytes.Equal(have, x.data) {
			f.Errorf("the file that was put is not what it was: %v", err)
		}
		// Its owner may do with the file as it likes.
		if err := os.Remove(x.Path); err != nil {
			f.Error(err)
		}
		f.has(name, x)
	}
}

func testMissing(f *fixture) {
	look := func() {
		f.Helper()
		if o, err := f.Stat(f.Context(), f.container, "a/missing.avro"); !errors.Is(err, capture.ErrMissing) {
			f.Errorf("Stat: %+v, %v", o, err)
		}
		if r, err := f.Open(f.Context(), f.container, "a/missing.avro"); !errors.Is(err, capture.ErrMissing) {
			f.Errorf("Open: %v, %v", r, err)
		}
		if got := f.names("a/missing"); got != nil {
			f.Errorf("List: %q", got)
		}
	}
	look() // in a container that is missing
	f.put("a/there.avro", f.file(10))
	look()
	f.put("a/missing.avro.other", f.file(10))
	if _, err := f.Stat(f.Context(), f.container, "a/missing.avro"); !errors.Is(err, capture.ErrMissing) {
		f.Errorf("with a longer name there: %v", err)
	}
	if _, err := f.Stat(f.Context(), f.container, "a"); !errors.Is(err, capture.ErrMissing) {
		f.Errorf("Stat of a folder: %v", err)
	}
	if r, err := f.Open(f.Context(), f.container, "a"); !errors.Is(err, capture.ErrMissing) {
		f.Errorf("Open of a folder: %v, %v", r, err)
	}
}

func testExists(f *fixture) {
	for _, first := range []int{0, 700, f.large()} {
		for _, second := range []int{0, 700, 701, f.large()} {
			name := fmt.Sprintf("%d-%d.avro", first, second)
			x, y := f.file(first), f.file(second)
			f.put(name, x)
			if err := f.Put(f.Context(), f.container, name, &y.File); !errors.Is(err, capture.ErrExists) {
				f.Errorf("%s: %v", name, err)
			}
			f.has(name, x)
			if err := f.Put(f.Context(), f.container, name, &x.File); !errors.Is(err, capture.ErrExists) {
				f.Errorf("%s, the same again: %v", name, err)
			}
			f.has(name, x)
		}
	}
}

func testMetadata(f *fixture) {
	for _, size := range []int{10, f.large()} {
		for i, m := range []map[string]string{nil, {"a": "b"}, {"crc64": "0", "first_seq": "-1", "x1": `a "quoted" text; with = and, commas`}} {
			x := f.file(size)
			x.Metadata = m
			name := fmt.Sprintf("%d-%d.avro", size, i)
			f.put(name, x)
			f.has(name, x)
			found := f.list(name)
			if len(found) != 1 {
				f.Fatalf("listed %+v", found)
			}
			f.is.check(f.T, found[0], name, x)
			if f.is.ListsMetadata && !maps.Equal(found[0].Metadata, m) {
				f.Errorf("listed with the metadata %v, not %v", found[0].Metadata, m)
			}
		}
	}
}

// names are what a name's format may make (capture.ParseNameFormat).
func names() []string {
	format := func(literal string) string {
		nf, err := capture.ParseNameFormat("{Namespace}/" + literal + "/{EventHub}/{PartitionId}/{Year}-{Month}-{Day}T{Hour}/{Minute}{Second}" + literal)
		if err != nil {
			panic(err)
		}
		name, err := nf.Expand(capture.Name{Namespace: "ns", EventHub: "my.hub-1_x", Partition: 31, Start: time.Unix(1_772_000_000, 0), Suffix: capture.SuffixAvro})
		if err != nil {
			panic(err)
		}
		return name
	}
	out := []string{"x", ".hidden", "a.tmp", "a/.b.avro", "~", "-", "a/-rf", "..a/b..c", "CON", "a b/ c /d", "0", strings.Repeat("long/", 100) + "end", strings.Repeat("n", 250) + ".avro"}
	var all strings.Builder
	for c := ' '; c < 0x7f; c++ {
		if c == '/' || c == '\\' || c == '.' || c == '{' || c == '}' {
			continue
		}
		all.WriteRune(c)
		out = append(out, format("x"+string(c)+"y"))
	}
	for _, s := range []string{
		all.String(), "%2F", "%", "%zz", "100%25", "a+b", "a?b=c&d", "#x", "ü", "u\u0308", "日本語", "😀", "ß", "İ", "\u00a0", "\u2028", "\u202e", "\ufeff", "a\u200bb",
		"é?%#+ 漢", "'", `"`, "<&>", ";", ":", "=", "*",
	} {
		out = append(out, format(s))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func testNames(f *fixture) {
	want := names()
	files := map[string]*file{}
	for _, name := range want {
		x := f.fileOf([]byte(name))
		files[name] = x
		if err := f.Put(f.Context(), f.container, name, &x.File); err != nil {
			f.Errorf("Put %q: %v", name, err)
			delete(files, name)
		}
	}
	for name, x := range files {
		f.has(name, x)
		if u, err := url.Parse(f.URL(f.container, name)); err != nil || u.Scheme == "" || u.RawQuery != "" || u.Fragment != "" || !strings.HasSuffix(u.Path, f.container+"/"+name) {
			f.Errorf("the URL of %q is %q: %v", name, f.URL(f.container, name), err)
		}
		if found := f.names(name); !slices.Contains(found, name) {
			f.Errorf("%q is not in the list of what begins so: %q", name, found)
		}
	}
	got := f.names("")
	slices.Sort(got)
	if kept := slices.Sorted(maps.Keys(files)); !slices.Equal(got, kept) {
		f.Errorf("listed\n%q\nnot\n%q", got, kept)
	}
}

func testList(f *fixture) {
	if got := f.names(""); got != nil {
		f.Errorf("in a container that is missing: %q", got)
	}
	var want []string
	for hub := range 3 {
		for part := range 4 {
			for second := range 3 {
				name := fmt.Sprintf("ns/hub%d/%d/2026/%02d.avro", hub, part, second)
				f.put(name, f.file(hub*100+part*10+second))
				want = append(want, name)
			}
		}
	}
	for _, prefix := range []string{"", "n", "ns", "ns/", "ns/hub", "ns/hub1", "ns/hub1/2/2026/0", "ns/hub1/2/2026/01.avro", "ns/hub1/2/2026/01.avro/", "ns/hub1/22", "hub", "/"} {
		var expect []string
		for _, name := range want {
			if strings.HasPrefix(name, prefix) {
				expect = append(expect, name)
			}
		}
		got := f.names(prefix)
		if again := f.names(prefix); !slices.Equal(got, again) {
			f.Errorf("the prefix %q lists in the order %q, and then %q", prefix, got, again)
		}
		slices.Sort(got)
		if !slices.Equal(got, expect) {
			f.Errorf("the prefix %q lists %q", prefix, got)
		}
	}
	for _, o := range f.list("ns/hub2/3/") {
		if want := int64(230) + int64(o.Name[len(o.Name)-len("0.avro")]-'0'); o.Size != want {
			f.Errorf("listed %+v, of %d bytes", o, want)
		}
	}
	n := 0
	for _, err := range f.List(f.Context(), f.container, "") {
		if err != nil {
			f.Error(err)
		}
		if n++; n == 2 {
			break
		}
	}
	// A list that is ended says so, at its begin and in its middle: it is not taken for
	// a shorter one.
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	n = 0
	ended := false
	for _, err := range f.List(ctx, f.container, "") {
		if err != nil {
			ended = true
		} else if n++; n == 2 {
			cancel()
		}
	}
	if !ended && n < len(want) {
		f.Errorf("a list that was ended has %d names and no error", n)
	}
	n = 0
	for _, err := range f.List(ctx, f.container, "") {
		if err == nil {
			f.Error("a list goes on after its context has ended")
		} else if n++; !errors.Is(err, context.Canceled) {
			f.Errorf("after its context has ended: %v", err)
		}
	}
	if n != 1 {
		f.Errorf("a list whose context has ended yields %d errors", n)
	}
}

// testWrongSize puts a file that is not what was written: somebody cut it, or added
// to it.
func testWrongSize(f *fixture) {
	for _, size := range []int{100, f.large()} {
		for _, more := range []int64{-1, 1} {
			x := f.file(size)
			x.Size += more
			if err := f.Put(f.Context(), f.container, "x.avro", &x.File); err == nil {
				f.Errorf("a file of %d bytes was put as one of %d", size, x.Size)
			}
		}
	}
	if _, err := f.Stat(f.Context(), f.container, "x.avro"); !errors.Is(err, capture.ErrMissing) {
		f.Errorf("it is there: %v", err)
	}
	x := f.file(0)
	x.Path += "-gone"
	if err := f.Put(f.Context(), f.container, "x.avro", &x.File); err == nil || errors.Is(err, capture.ErrMissing) {
		f.Errorf("a file that is missing: %v", err)
	}
}

func testSecrets(f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	x := f.file(1)
	list := func(ctx context.Context, container string) error {
		for _, err := range f.List(ctx, container, "") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	_, stat := f.Stat(ctx, f.container, "x.avro")
	_, open := f.Open(ctx, f.container, "x.avro")
	_, bad := f.Stat(f.Context(), "../A?b", "x.avro")
	texts := []string{f.URL(f.container, "a/b.avro"), f.URL("", "a/b.avro")}
	for i, err := range []error{
		f.Put(ctx, f.container, "x.avro", &x.File), stat, open, list(ctx, f.container),
		f.Put(f.Context(), "../A?b", "x.avro", &x.File), bad, list(f.Context(), "../A?b"),
	} {
		if err != nil {
			texts = append(texts, fmt.Sprintf("%v %+v %#v", err, err, err))
		} else if i == 0 || i == 4 {
			f.Errorf("%d: a Put with a context that has ended, or into %q, went well", i, "../A?b")
		}
	}
	for _, text := range texts {
		for _, secret := range f.is.Secrets {
			if secret == "" {
				panic("an empty secret is in every text")
			}
			if strings.Contains(text, secret) || strings.Contains(text, url.QueryEscape(secret)) {
				f.Errorf("a secret is told: %s", text)
			}
		}
	}
}
