package millrace

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	ephemeralPrefix = "millrace-ephemeral-"
	ephemeralLock   = "lock"
	// ephemeralGrace is how old a folder without a lock file is at least before
	// it counts as left behind: its owner makes one next.
	ephemeralGrace = time.Hour
)

// ephemeralFolder is a data folder that ends with the broker.
type ephemeralFolder struct {
	path string
	lock *os.File
}

// newEphemeralFolder makes a folder below parent ("" means the system's), and
// removes those that dead processes left there.
func newEphemeralFolder(parent string) (*ephemeralFolder, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	sweepEphemeral(parent)
	path, err := os.MkdirTemp(parent, ephemeralPrefix)
	if err != nil {
		return nil, fmt.Errorf("the temporary folder can't be made: %w", err)
	}
	lock, err := lockFile(filepath.Join(path, ephemeralLock))
	if err != nil {
		os.RemoveAll(path)
		return nil, fmt.Errorf("the temporary folder can't be locked: %w", err)
	}
	return &ephemeralFolder{path, lock}, nil
}

// remove removes the folder. The lock goes last, so that no sweep comes between.
func (e *ephemeralFolder) remove() error {
	entries, err := os.ReadDir(e.path)
	if err != nil {
		e.lock.Close()
		return err
	}
	for _, entry := range entries {
		if entry.Name() != ephemeralLock {
			if err := os.RemoveAll(filepath.Join(e.path, entry.Name())); err != nil {
				e.lock.Close()
				return err
			}
		}
	}
	e.lock.Close()
	return os.RemoveAll(e.path)
}

// sweepEphemeral removes the folders whose owners were killed: those whose lock
// is free. What can't be removed now is left for the next time.
func sweepEphemeral(parent string) {
	paths, err := filepath.Glob(filepath.Join(parent, ephemeralPrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range paths {
		lock := filepath.Join(path, ephemeralLock)
		if _, err := os.Stat(lock); err != nil {
			st, err := os.Stat(path)
			if err == nil && st.IsDir() && time.Since(st.ModTime()) > ephemeralGrace {
				os.RemoveAll(path)
			}
			continue
		}
		f, err := lockFile(lock)
		if err != nil {
			continue // in use, or somebody else's
		}
		(&ephemeralFolder{path, f}).remove() //nolint:errcheck // left for the next time
	}
}
