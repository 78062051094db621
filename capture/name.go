package capture

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// DefaultNameFormat is the service's own.
const DefaultNameFormat = "{Namespace}/{EventHub}/{PartitionId}/{Year}/{Month}/{Day}/{Hour}/{Minute}/{Second}"

// Suffixes of captured files. They are not part of a name format.
const (
	SuffixAvro    = ".avro"
	SuffixParquet = ".parquet"
)

// Limits of the Blob service on names, which captured files keep to wherever they
// go. It allows paths of more segments, and of longer ones, only in part of its
// interfaces.
const (
	maxName     = 1024 // characters
	maxSegments = 254
)

// Name is what the name of a captured file says.
type Name struct {
	Namespace string // the short name
	EventHub  string
	Partition uint32
	Start     time.Time // of the window; whole seconds in UTC count
	Suffix    string    // SuffixAvro or SuffixParquet
}

// token is one of the nine parts of a name that change.
type token uint8

const (
	literal token = iota
	tokenNamespace
	tokenEventHub
	tokenPartition
	tokenYear
	tokenMonth
	tokenDay
	tokenHour
	tokenMinute
	tokenSecond
	tokens
)

var tokenNames = [tokens]string{
	tokenNamespace: "{Namespace}", tokenEventHub: "{EventHub}", tokenPartition: "{PartitionId}",
	tokenYear: "{Year}", tokenMonth: "{Month}", tokenDay: "{Day}",
	tokenHour: "{Hour}", tokenMinute: "{Minute}", tokenSecond: "{Second}",
}

// part is a literal or a token.
type part struct {
	token token
	text  string // of a literal
}

// NameFormat says how captured files are named (features.md, section 6): literal
// text and the nine tokens {Namespace}, {EventHub}, {PartitionId}, {Year},
// {Month}, {Day}, {Hour}, {Minute} and {Second}, in any order, each at least once.
// The zero value is not usable: ParseNameFormat makes one.
type NameFormat struct {
	text  string
	parts []part
}

// ParseNameFormat reads a format. It refuses one that lacks a token, has an
// unknown one or a brace of another kind, or whose names could not be those of
// blobs: too long, a character that they can't have, an empty path segment, one
// that ends in a dot.
func ParseNameFormat(s string) (NameFormat, error) {
	f := NameFormat{text: s}
	fail := func(format string, args ...any) (NameFormat, error) {
		return NameFormat{}, fmt.Errorf("the capture name format %.200q %w", s, fmt.Errorf(format, args...))
	}
	for rest := s; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i != 0 {
			if i < 0 {
				i = len(rest)
			}
			f.parts = append(f.parts, part{text: rest[:i]})
			rest = rest[i:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if end <= 0 {
			return fail("has a brace that is not a token's: %.20q", rest)
		}
		t := slices.Index(tokenNames[1:], rest[:end+1]) + 1
		if t == 0 {
			for i, name := range tokenNames[1:] {
				if strings.EqualFold(name, rest[:end+1]) {
					return fail("has the token %s, which is written %s", rest[:end+1], tokenNames[i+1])
				}
			}
			return fail("has the token %.40s; there are %s", rest[:end+1], strings.Join(tokenNames[1:], " "))
		}
		f.parts = append(f.parts, part{token: token(t)})
		rest = rest[end+1:]
	}
	var missing []string
	for t := tokenNamespace; t < tokens; t++ {
		if !slices.ContainsFunc(f.parts, func(p part) bool { return p.token == t }) {
			missing = append(missing, tokenNames[t])
		}
	}
	if missing != nil {
		return fail("lacks %s: each token must be in it", strings.Join(missing, " "))
	}
	// A name as short as any shows what the literals would make of all.
	if err := checkName(f.expand(Name{Namespace: "n", EventHub: "h", Suffix: SuffixAvro})); err != nil {
		return fail("makes no names of blobs: %w", err)
	}
	return f, nil
}

// String is the format as it was given.
func (f NameFormat) String() string { return f.text }

// Expand makes a file's name. It fails when that can't be a blob's, because the
// hub's name makes it too long, or for what ParseNameFormat can't foresee.
func (f NameFormat) Expand(n Name) (string, error) {
	if year := n.Start.UTC().Year(); year < 0 || year > 9999 {
		return "", fmt.Errorf("a captured file can't be named after the year %d", year)
	}
	if n.Suffix != SuffixAvro && n.Suffix != SuffixParquet {
		return "", fmt.Errorf("a captured file's name can't end in %.20q", n.Suffix)
	}
	s := f.expand(n)
	if err := checkName(s); err != nil {
		return "", fmt.Errorf("%.80q can't be the name of a captured file: %w", s, err)
	}
	return s, nil
}

func (f NameFormat) expand(n Name) string {
	var values [tokens]string
	t := n.Start.UTC()
	values[tokenNamespace], values[tokenEventHub] = n.Namespace, n.EventHub
	values[tokenPartition] = strconv.FormatUint(uint64(n.Partition), 10)
	values[tokenYear] = fmt.Sprintf("%04d", t.Year())
	for i, x := range []int{int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
		values[tokenMonth+token(i)] = fmt.Sprintf("%02d", x)
	}
	var b strings.Builder
	for _, p := range f.parts {
		if p.token == literal {
			b.WriteString(p.text)
		} else {
			b.WriteString(values[p.token])
		}
	}
	return b.String() + n.Suffix
}

// checkName tells whether a blob can have the name, and a file in a folder can
// have it too, without a way out of that.
func checkName(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("it is not UTF-8")
	}
	for _, r := range s {
		if r == '\\' || unicode.IsControl(r) || r >= 0xE000 && r <= 0xF8FF || r&0xFFFE == 0xFFFE {
			return fmt.Errorf("it has the character %q", r)
		}
	}
	if n := utf8.RuneCountInString(s); n > maxName {
		return fmt.Errorf("it has %d characters, %d more than a blob's may have", n, n-maxName)
	}
	segments := strings.Split(s, "/")
	if len(segments) > maxSegments {
		return fmt.Errorf("it has %d path segments; a blob's may have %d", len(segments), maxSegments)
	}
	for _, x := range segments {
		switch {
		case x == "":
			return errors.New("a path segment in it is empty")
		case strings.HasSuffix(x, "."):
			return fmt.Errorf("its path segment %.40q ends in a dot", x)
		}
	}
	return nil
}

// ErrOtherName says of a name that it was not made with a format.
var ErrOtherName = errors.New("the name does not follow the format")

// ErrAmbiguousName says of a name that a format makes it of more than one
// partition or time.
var ErrAmbiguousName = errors.New("the name can be read in more than one way")

// Parse is the reverse of Expand. Errors wrap ErrOtherName or ErrAmbiguousName.
func (f NameFormat) Parse(name string) (Name, error) {
	m := matcher{format: f, values: [tokens]string{}}
	suffix := path.Ext(name)
	if suffix != SuffixAvro && suffix != SuffixParquet || len(name) > utf8.UTFMax*maxName {
		return Name{}, fmt.Errorf("%.80q: %w %s", name, ErrOtherName, f.text)
	}
	m.suffix = suffix
	m.match(f.parts, strings.TrimSuffix(name, suffix))
	switch {
	case m.found == 0:
		return Name{}, fmt.Errorf("%.80q: %w %s", name, ErrOtherName, f.text)
	case m.found > 1:
		return Name{}, fmt.Errorf("%.80q: %w, with the format %s", name, ErrAmbiguousName, f.text)
	}
	return m.name, nil
}

// matcher looks for all the ways to read a name, and stops at the second.
type matcher struct {
	format NameFormat
	suffix string
	values [tokens]string // of tokens met so far; empty: not met
	name   Name
	found  int
}

func (m *matcher) match(parts []part, s string) {
	if m.found > 1 {
		return
	}
	if len(parts) == 0 {
		if s == "" {
			m.accept()
		}
		return
	}
	p := parts[0]
	if p.token == literal || m.values[p.token] != "" {
		text := p.text
		if p.token != literal {
			text = m.values[p.token]
		}
		if rest, ok := strings.CutPrefix(s, text); ok {
			m.match(parts[1:], rest)
		}
		return
	}
	least, most := 1, len(s)
	switch p.token {
	case tokenNamespace:
		most = min(most, 260)
	case tokenEventHub:
		most = min(most, 260)
	case tokenPartition:
		most = min(most, len("4294967295"))
	case tokenYear:
		least, most = 4, min(most, 4)
	default:
		least, most = 2, min(most, 2)
	}
	for n := least; n <= most && tokenAllows(p.token, s[:n]); n++ {
		m.values[p.token] = s[:n]
		m.match(parts[1:], s[n:])
	}
	m.values[p.token] = ""
}

// tokenAllows tells whether a token's value may begin with s, whose last character
// alone has not been looked at.
func tokenAllows(t token, s string) bool {
	if t >= tokenPartition {
		return strings.Trim(s, "0123456789") == "" && (t != tokenPartition || len(s) == 1 || s[0] != '0')
	}
	return s[len(s)-1] != '/'
}

// accept takes what has been matched, if it is a time and a partition.
func (m *matcher) accept() {
	var x [tokens]int
	for t := tokenYear; t < tokens; t++ {
		x[t], _ = strconv.Atoi(m.values[t]) // two or four digits
	}
	partition, err := strconv.ParseUint(m.values[tokenPartition], 10, 32)
	if err != nil {
		return
	}
	n := Name{
		Namespace: m.values[tokenNamespace],
		EventHub:  m.values[tokenEventHub],
		Partition: uint32(partition),
		Start: time.Date(x[tokenYear], time.Month(x[tokenMonth]), x[tokenDay],
			x[tokenHour], x[tokenMinute], x[tokenSecond], 0, time.UTC),
		Suffix: m.suffix,
	}
	var s strings.Builder
	for _, p := range m.format.parts {
		if p.token == literal {
			s.WriteString(p.text)
		} else {
			s.WriteString(m.values[p.token])
		}
	}
	// The 31st of June, and names that Expand refuses to make.
	if made, err := m.format.Expand(n); err != nil || made != s.String()+m.suffix {
		return
	}
	if m.found > 0 && n == m.name {
		return
	}
	m.name = n
	m.found++
}

// NextStart is the time that a partition's next file is named after: the start of
// its window, or the second after the last file's, whichever is later. Two windows
// may begin in one second, and a clock may step back; names, which have whole
// seconds in UTC, never repeat. A last of zero means that there is no file yet.
func NextStart(window, last time.Time) time.Time {
	start := window.UTC().Truncate(time.Second)
	if last.IsZero() {
		return start
	}
	if next := last.UTC().Truncate(time.Second).Add(time.Second); next.After(start) {
		return next
	}
	return start
}
