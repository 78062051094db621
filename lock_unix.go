//go:build unix

package millrace

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFile opens a file and takes it for this process, until it is closed or the
// process ends. It does not wait.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
