package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// spool is a file that is being made. It is open only while it is written to:
// there may be a thousand.
type spool struct {
	path string
	f    *os.File
	sum  Sum
}

func newSpool(path string) *spool { return &spool{path: path} }

// open makes the file ready to be written to, where it was left.
func (s *spool) open() error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o750); err != nil {
		return fmt.Errorf("make the folder of unfinished captured files: %w", err)
	}
	flags := os.O_RDWR
	if s.sum.Size == 0 { // anew: what had the name may have another at its destination
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin a captured file anew: %w", err)
		}
		flags |= os.O_CREATE | os.O_EXCL
	} else if !s.whole() { // or there would be a hole in it
		return fmt.Errorf("go on with an unfinished captured file: somebody has removed or changed %s; it is written again", s.path)
	}
	f, err := os.OpenFile(s.path, flags, 0o640)
	if err != nil {
		return fmt.Errorf("open an unfinished captured file: %w", err)
	}
	if _, err := f.Seek(s.sum.Size, 0); err != nil {
		f.Close()
		return fmt.Errorf("go on with an unfinished captured file: %w", err)
	}
	s.f, s.sum.W = f, f
	return nil
}

// whole tells whether the file is as long as what was written to it.
func (s *spool) whole() bool {
	i, err := os.Stat(s.path)
	return err == nil && i.Size() == s.sum.Size
}

// close leaves the file for now.
func (s *spool) close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f, s.sum.W = nil, nil
	if err != nil {
		return fmt.Errorf("write an unfinished captured file: %w", err)
	}
	return nil
}

// remove ends the file.
func (s *spool) remove() {
	s.close()         //nolint:errcheck // it is thrown away
	os.Remove(s.path) //nolint:errcheck // the next start empties the folder
}
