//go:build !linux

package folder

import (
	"io/fs"
	"os"
)

// renameNew renames a file, unless there is one of the name: then fs.ErrExist. Nobody
// else makes files of the name.
func renameNew(from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return fs.ErrExist
	}
	return os.Rename(from, to)
}
