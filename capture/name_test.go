package capture_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/capture"
)

func format(t testing.TB, s string) capture.NameFormat {
	t.Helper()
	f, err := capture.ParseNameFormat(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const times = "{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"

func TestExpand(t *testing.T) {
	name := capture.Name{
		Namespace: "ns", EventHub: "my.hub", Partition: 7, Suffix: capture.SuffixAvro,
		Start: time.Date(2026, 1, 2, 3, 4, 5, 999, time.FixedZone("", 3600)),
	}
	for _, c := range []struct{ format, want string }{
		{capture.DefaultNameFormat, "ns/my.hub/7/2026/01/02/02/04/05.avro"},
		{"raw/{EventHub}-{PartitionId}/y={Year}/{Month}-{Day}T{Hour}{Minute}{Second}/{Namespace}", "raw/my.hub-7/y=2026/01-02T020405/ns.avro"},
		{"{Namespace}{EventHub}{PartitionId}{Year}{Month}{Day}{Hour}{Minute}{Second}{Year}", "nsmy.hub7202601020204052026.avro"},
		{"é €/{Namespace}/{EventHub}/{PartitionId}/" + times, "é €/ns/my.hub/7/2026/01/02/02/04/05.avro"},
	} {
		f := format(t, c.format)
		if got, err := f.Expand(name); err != nil || got != c.want || f.String() != c.format {
			t.Errorf("%s: %q, %v; not %q", f, got, err, c.want)
		}
	}
	name.Suffix = capture.SuffixParquet
	if got, _ := format(t, capture.DefaultNameFormat).Expand(name); !strings.HasSuffix(got, "/05.parquet") {
		t.Error(got)
	}
}

func TestFormatsThatAreRefused(t *testing.T) {
	const rest = "{EventHub}/{PartitionId}/" + times
	for _, c := range []struct{ format, want string }{
		{"", "lacks {Namespace} {EventHub} {PartitionId} {Year} {Month} {Day} {Hour} {Minute} {Second}"},
		{strings.Replace(capture.DefaultNameFormat, "/{Second}", "", 1), "lacks {Second}:"},
		{"{Namespaces}/" + rest, "has the token {Namespaces}; there are {Namespace} "},
		{"{namespace}/" + rest, "has the token {namespace}, which is written {Namespace}"},
		{"{Namespace/" + rest, "has the token {Namespace/{EventHub}"},
		{"Namespace}/" + rest, "a brace that is not a token's"},
		{"{Namespace}/" + rest + "{", "a brace that is not a token's"},
		{"/{Namespace}/" + rest, "a path segment in it is empty"},
		{"{Namespace}//" + rest, "a path segment in it is empty"},
		{"../{Namespace}/" + rest, `path segment ".." ends in a dot`},
		{"{Namespace}/./" + rest, `path segment "." ends in a dot`},
		{"{Namespace}./" + rest, `path segment "n." ends in a dot`},
		{`{Namespace}\` + rest, `has the character '\\'`},
		{"{Namespace}\x00/" + rest, `has the character '\x00'`},
		{"{Namespace}\u0085/" + rest, `has the character '\u0085'`},
		{"{Namespace}\uE000/" + rest, `has the character '\ue000'`},
		{"{Namespace}\uFFFF/" + rest, `has the character '\uffff'`},
		{"{Namespace}\xff/" + rest, "not UTF-8"},
		{"{Namespace}/" + strings.Repeat("x", 1024) + rest, "characters, 30 more than"},
		{strings.Repeat("a/", 250) + "{Namespace}/" + rest, "path segments; a blob's may have 254"},
	} {
		_, err := capture.ParseNameFormat(c.format)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "the capture name format ") {
			t.Errorf("%.80q: %v", c.format, err)
		}
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	f := format(t, strings.Repeat("{EventHub}/", 5)+"{Namespace}/{PartitionId}/"+times)
	good := capture.Name{Namespace: "ns", EventHub: strings.Repeat("h", 190), Start: time.Unix(0, 0), Suffix: capture.SuffixAvro}
	if _, err := f.Expand(good); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*capture.Name){
		"more than a blob's may have": func(n *capture.Name) { n.EventHub = strings.Repeat("h", 200) },
		"ends in a dot":               func(n *capture.Name) { n.EventHub = ".." },
		"is empty":                    func(n *capture.Name) { n.Namespace = "" },
		"can't end in \".csv\"":       func(n *capture.Name) { n.Suffix = ".csv" },
		"the year 10000":              func(n *capture.Name) { n.Start = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		n := good
		change(&n)
		if s, err := f.Expand(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %.40q, %v", want, s, err)
		}
	}
}

func TestParse(t *testing.T) {
	ambiguous := "{Namespace}-{EventHub}/{PartitionId}/" + times
	dense := "{Namespace}/{EventHub}/{PartitionId}{Year}{Month}{Day}{Hour}{Minute}{Second}"
	for _, c := range []struct {
		format, name string
		want         string
		err          error
	}{
		{capture.DefaultNameFormat, "ns/h/0/2026/01/02/03/04/05.avro", "ns h 0 2026-01-02 03:04:05 .avro", nil},
		{capture.DefaultNameFormat, "ns/h/4294967295/2026/01/02/03/04/05.parquet", "ns h 4294967295 2026-01-02 03:04:05 .parquet", nil},
		{capture.DefaultNameFormat, "ns/h/4294967296/2026/01/02/03/04/05.avro", "", capture.ErrOtherName},
		{capture.DefaultNameFormat, "ns/h/00/2026/01/02/03/04/05.avro", "", capture.ErrOtherName},
		{capture.DefaultNameFormat, "ns/h/0/2026/02/30/03/04/05.avro", "", capture.ErrOtherName},
		{capture.DefaultNameFormat, "ns/h/0/2026/01/02/03/04/05.csv", "", capture.ErrOtherName},
		{capture.DefaultNameFormat, "ns/h/0/2026/01/02/03/04/05", "", capture.ErrOtherName},
		{capture.DefaultNameFormat, "a/ns/h/0/2026/01/02/03/04/05.avro", "", capture.ErrOtherName},
		{capture.DefaultNameFormat, "", "", capture.ErrOtherName},
		{dense, "ns/h/120260102030405.avro", "ns h 1 2026-01-02 03:04:05 .avro", nil},
		{ambiguous, "a-b/0/2026/01/02/03/04/05.avro", "a b 0 2026-01-02 03:04:05 .avro", nil},
		{ambiguous, "a-b-c/0/2026/01/02/03/04/05.avro", "", capture.ErrAmbiguousName},
		{ambiguous + "/{EventHub}", "a-b-c/0/2026/01/02/03/04/05/c.avro", "a-b c 0 2026-01-02 03:04:05 .avro", nil},
	} {
		n, err := format(t, c.format).Parse(c.name)
		got := ""
		if err == nil {
			got = fmt.Sprint(n.Namespace, " ", n.EventHub, " ", n.Partition, " ", n.Start.Format(time.DateTime), " ", n.Suffix)
		}
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

var formats = []string{
	capture.DefaultNameFormat,
	"x/{PartitionId}/{EventHub}/{Namespace}/{Second}{Minute}{Hour}_{Day}{Month}{Year}",
	"{Year}-{Month}-{Day}/{Namespace}/{EventHub}/{PartitionId}/{Hour}/{Minute}/{Second}/{EventHub}",
}

var names = rapid.Custom(func(t *rapid.T) capture.Name {
	return capture.Name{
		Namespace: rapid.StringMatching(`[a-z][a-z0-9-]{0,20}`).Draw(t, "namespace"),
		EventHub:  rapid.StringMatching(`[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?`).Draw(t, "hub"),
		Partition: rapid.Uint32().Draw(t, "partition"),
		Start:     time.Unix(rapid.Int64Range(0, 250_000_000_000).Draw(t, "start"), 0).UTC(),
		Suffix:    rapid.SampledFrom([]string{capture.SuffixAvro, capture.SuffixParquet}).Draw(t, "suffix"),
	}
})

// TestNamesComeBack: what a format makes, it reads; and if one is ambiguous, then
// because of the format.
func TestNamesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, err := capture.ParseNameFormat(rapid.SampledFrom(formats).Draw(t, "format"))
		if err != nil {
			t.Fatal(err)
		}
		want := names.Draw(t, "name")
		s, err := f.Expand(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Parse(s); err != nil || got != want {
			t.Fatalf("%s: %+v, %v; not %+v", s, got, err, want)
		}
	})
}

// TestNextStart: whatever windows begin when, names of a partition are different,
// in order, never before their window, and no later than they need be.
func TestNextStart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := time.Unix(1_800_000_000, 0)
		var last time.Time
		for range rapid.IntRange(1, 40).Draw(t, "windows") {
			// Clocks also step back.
			clock = clock.Add(time.Duration(rapid.Int64Range(-5_000, 10_000).Draw(t, "step")) * time.Millisecond)
			got := capture.NextStart(clock, last)
			if got.Location() != time.UTC || got.Nanosecond() != 0 {
				t.Fatalf("%v is not a second in UTC", got)
			}
			if got.Add(time.Second).Before(clock) || got.Before(clock.Truncate(time.Second)) {
				t.Fatalf("%v is before its window, %v", got, clock)
			}
			if !last.IsZero() && !got.After(last) {
				t.Fatalf("%v follows %v", got, last)
			}
			before := got.Add(-time.Second)
			if !before.Before(clock.Truncate(time.Second)) && (last.IsZero() || before.After(last)) {
				t.Fatalf("%v, where %v would do after %v", got, before, last)
			}
			last = got
		}
	})
}

// FuzzNameFormat: any text is a format or refused, and a format's names are what
// it reads again, or ambiguous.
func FuzzNameFormat(f *testing.F) {
	for _, s := range formats {
		f.Add(s, "ns", "hub", "ns/h/0/2026/01/02/03/04/05.avro")
	}
	f.Add(capture.DefaultNameFormat, "n", "h", "00/0\x86\x86/0/0000/01/01/00/00/00.avro")
	f.Add("{Namespace}{EventHub}{PartitionId}{Year}{Month}{Day}{Hour}{Minute}{Second}{Year}", "n", "1.2", "120260102030405.avro")
	f.Fuzz(func(t *testing.T, text, namespace, hub, other string) {
		nf, err := capture.ParseNameFormat(text)
		if err != nil {
			return
		}
		if n, err := nf.Parse(other); err == nil {
			if s, err := nf.Expand(n); err != nil || s != other {
				t.Fatalf("%q is read as %+v, which is %q, %v", other, n, s, err)
			}
		}
		r := rand.New(rand.NewPCG(uint64(len(text)), uint64(len(hub))))
		want := capture.Name{Namespace: namespace, EventHub: hub, Partition: r.Uint32(), Start: time.Unix(r.Int64N(200_000_000_000), 0).UTC(), Suffix: capture.SuffixAvro}
		s, err := nf.Expand(want)
		if err != nil || strings.Contains(namespace+hub, "/") || len(namespace) > 260 || len(hub) > 260 || namespace == "" || hub == "" {
			return
		}
		if got, err := nf.Parse(s); !errors.Is(err, capture.ErrAmbiguousName) && (err != nil || got != want) {
			t.Fatalf("%q: %+v, %v; not %+v", s, got, err, want)
		}
	})
}
