package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// resumeFile keeps how far a replay has come, so that another run goes on from
// there.
type resumeFile struct {
	path string
	resumeState
}

// resumeState is what the file has.
type resumeState struct {
	Version    int                         `json:"version"`
	Source     hubID                       `json:"source"`
	Target     hubID                       `json:"target"`
	From       string                      `json:"from"`
	Until      string                      `json:"until"`
	ByKey      bool                        `json:"byKey"`
	Partitions map[string]*resumePartition `json:"partitions"` // of the source
}

// resumePartition is what is left of a partition: Next is the first event that is
// not acknowledged, End the first that is not wanted.
type resumePartition struct {
	Next int64 `json:"next"`
	End  int64 `json:"end"`
	// TargetEnd is where the target's partition of the same number ends with what is
	// acknowledged, if nobody else sends to it. It is not kept with --by-key.
	TargetEnd int64 `json:"targetEnd"`
}

const resumeVersion = 1

// readResume reads the file of a replay; nil if there is none yet.
func readResume(path string) (*resumeFile, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	f := &resumeFile{path: path}
	if err := json.Unmarshal(b, &f.resumeState); err != nil || f.Version == 0 {
		return nil, fmt.Errorf("--resume: %s is not a file of \"millrace replay\"; for a new replay name one that is not there", path)
	}
	if f.Version != resumeVersion {
		return nil, fmt.Errorf("--resume: %s has version %d, and this program knows %d", path, f.Version, resumeVersion)
	}
	return f, nil
}

// fits wants the file to be of this replay. Hubs are told apart by when they were
// made, too: in another of the same name, the numbers mean other events.
func (f *resumeFile) fits(want resumeState, partitions []string) error {
	var has []string
	for id := range f.Partitions {
		has = append(has, id)
	}
	slices.Sort(has)
	wanted := slices.Sorted(slices.Values(partitions))
	for _, x := range []struct {
		what, has, want string
		same            bool
	}{
		{"from the event hub", f.Source.String(), want.Source.String(), f.Source.equal(want.Source)},
		{"to the event hub", f.Target.String(), want.Target.String(), f.Target.equal(want.Target)},
		{"with --from", f.From, want.From, f.From == want.From},
		{"with --until", f.Until, want.Until, f.Until == want.Until},
		{"with --by-key", fmt.Sprint(f.ByKey), fmt.Sprint(want.ByKey), f.ByKey == want.ByKey},
		{"of the partitions", strings.Join(has, ","), strings.Join(wanted, ","), slices.Equal(has, wanted)},
	} {
		if !x.same {
			return fmt.Errorf("--resume: %s is of a replay %s %q, and this one is %s %q: give the same flags to go on with that one, or another file for a new one",
				f.path, x.what, x.has, x.what, x.want)
		}
	}
	return nil
}

// save writes the file so that after a kill, or a loss of power, the old one is there
// or the new one.
func (f *resumeFile) save() error {
	b, err := json.MarshalIndent(f.resumeState, "", "  ")
	if err != nil {
		return err
	}
	if err := f.replace(append(b, '\n')); err != nil {
		return fmt.Errorf("what is acknowledged can't be kept in %s: %w", f.path, err)
	}
	return nil
}

func (f *resumeFile) replace(b []byte) error {
	made := f.path + ".new"
	w, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := os.Rename(made, f.path); err != nil {
		return err
	}
	if runtime.GOOS == "windows" { // which can't sync a folder
		return nil
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
