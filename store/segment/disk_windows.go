package segment

import (
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir does nothing: NTFS journals folder entries itself, and Windows does
// not flush a folder handle.
func (d *osDisk) SyncDir(string) error { return nil }

func freeSpace(dir string) (free, total uint64, err error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	var all uint64
	if err := windows.GetDiskFreeSpaceEx(p, &free, &total, &all); err != nil {
		return 0, 0, &os.PathError{Op: "free space", Path: dir, Err: err}
	}
	return free, total, nil
}
