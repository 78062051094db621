package segment

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Disk is the file system below the data folder, as a value, so that tests can
// lose, tear and reorder what was not synced. Names use forward slashes and are
// relative to the data folder. Errors satisfy errors.Is with fs.ErrNotExist
// and its like.
type Disk interface {
	// Open opens a file for reading and writing, creating it if create is set.
	Open(name string, create bool) (File, error)
	MkdirAll(name string) error
	// List returns the names in a folder, sorted; fs.ErrNotExist if there is none.
	List(name string) ([]string, error)
	Remove(name string) error
	RemoveAll(name string) error
	Rename(from, to string) error
	// SyncDir makes the entries of a folder durable.
	SyncDir(name string) error
	// Free is the space that is left for data and the size of the disk, in bytes.
	Free() (free, total uint64, err error)
}

// File is an open file of a Disk.
type File interface {
	io.ReaderAt
	// WriteAt writes the buffers one after the other, beginning at off. What it
	// wrote survives the process, not yet a loss of power.
	WriteAt(bufs [][]byte, off int64) error
	// Sync makes what has been written durable, and the length with it.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// directDisk is a Disk that can write past the system's cache. Such a file is
// written in whole blocks of journalBlock at multiples of it.
type directDisk interface {
	OpenDirect(name string, create bool) (File, error)
}

// wholeDisk is a Disk that can make everything that was written durable at once,
// folders included: one call for a thousand files. It returns errNotWhole if it
// can't after all.
type wholeDisk interface {
	SyncAll() error
}

var errNotWhole = errors.New("this disk can't be synced as a whole")

// cachedReader is a File that can read without ever waiting for the disk.
type cachedReader interface {
	// ReadCached reads what of b's length at off is in the system's cache: all
	// of it, a part, or nothing.
	ReadCached(b []byte, off int64) int
}

// NewDisk returns the Disk that is the folder dir of this machine, which exists.
func NewDisk(dir string) Disk {
	// Held open from the start: a sync of the whole file system tells of the
	// failed writes since then, and of no earlier ones.
	whole, err := os.Open(dir)
	if err != nil {
		whole = nil
	}
	return &osDisk{dir: dir, whole: whole}
}

type osDisk struct {
	dir   string
	whole *os.File // nil: it can't be synced as a whole
}

// Close gives back what the disk itself holds.
func (d *osDisk) Close() error {
	if d.whole == nil {
		return nil
	}
	return d.whole.Close()
}

func (d *osDisk) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

func (d *osDisk) Open(name string, create bool) (File, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	f, err := os.OpenFile(d.path(name), flag, 0o600)
	if err != nil {
		return nil, err
	}
	return newFile(f)
}

func (d *osDisk) MkdirAll(name string) error  { return os.MkdirAll(d.path(name), 0o700) }
func (d *osDisk) Remove(name string) error    { return os.Remove(d.path(name)) }
func (d *osDisk) RemoveAll(name string) error { return os.RemoveAll(d.path(name)) }
func (d *osDisk) Rename(from, to string) error {
	return os.Rename(d.path(from), d.path(to))
}

func (d *osDisk) List(name string) ([]string, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (d *osDisk) Free() (free, total uint64, err error) { return freeSpace(d.dir) }

// Size implements File.
func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
