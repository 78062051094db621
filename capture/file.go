package capture

import (
	"fmt"
	"os"
)

// Open opens the file for a destination, which closes it. It fails if the file has
// not Size bytes: what would be put is not what was meant.
func (f *File) Open() (*os.File, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, fmt.Errorf("open a captured file: %w", err)
	}
	i, err := file.Stat()
	if err == nil && i.Size() != f.Size {
		err = fmt.Errorf("%s has %d bytes, not the %d that were written", f.Path, i.Size(), f.Size)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open a captured file: %w", err)
	}
	return file, nil
}
