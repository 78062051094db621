package millrace

import (
	"runtime/debug"
	"strings"
)

// BuildVersion is the version of the program, as far as its build information
// says: a release's number, or the revision that it was built from.
func BuildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	if revision == "" {
		return "devel"
	}
	return strings.Join([]string{"devel-", revision[:min(12, len(revision))], changed}, "")
}
