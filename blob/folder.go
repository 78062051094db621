package blob

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// folder holds content in files that are written once and never changed:
//
//	DIR/tmp/ID      being written
//	DIR/xx/ID       whole and synced; xx are the id's first two digits
//
// A file is pinned while somebody reads it, or while the record that will refer
// to it is still to come; a pinned file is never removed.
type folder struct {
	dir    string
	create func(path string) (writeFile, error) // os.OpenFile; tests fill the disk
	second func(path, second string) error      // os.Link; some file systems can't

	mu   sync.Mutex
	pins map[string]*pin
}

// writeFile is what is needed of a file that is being written.
type writeFile interface {
	io.WriteCloser
	Sync() error
}

type pin struct {
	holders int
	dropped bool // to be removed by the last holder
}

// openFolder makes the folder if need be, and empties tmp: what is there was
// never finished.
func openFolder(dir string) (*folder, error) {
	f := &folder{dir: dir, pins: map[string]*pin{}, second: os.Link, create: func(path string) (writeFile, error) {
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return nil, fmt.Errorf("blob: making the folder for content: %w", err)
	}
	// Its own name must last as long as what is stored in it; a parent that we may
	// not open was there before us.
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		return nil, fmt.Errorf("blob: reading the folder for content: %w", err)
	}
	for _, e := range left {
		if err := os.Remove(filepath.Join(dir, "tmp", e.Name())); err != nil {
			return nil, fmt.Errorf("blob: removing an unfinished file: %w", err)
		}
	}
	return f, nil
}

// newFileID returns a random name: 32 hexadecimal digits.
func newFileID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// validFileID guards paths against what a damaged record may hold.
func validFileID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

func (f *folder) path(id string) string { return filepath.Join(f.dir, id[:2], id) }

// write stores what fill writes as a new file, synced, and pinned once for the
// caller. Nothing is left of it if there is an error.
func (f *folder) write(fill func(w io.Writer) error) (id string, err error) {
	name := newFileID()
	f.pin(name)
	tmp := filepath.Join(f.dir, "tmp", name)
	defer func() {
		if err != nil {
			os.Remove(tmp)
			f.drop(name)
			f.unpin(name)
		}
	}()
	file, err := f.create(tmp)
	if err != nil {
		return "", fmt.Errorf("creating a file for content: %w", err)
	}
	err = fill(file)
	if err == nil {
		if err = file.Sync(); err != nil {
			err = fmt.Errorf("syncing a file of content: %w", err)
		}
	}
	if cerr := file.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("closing a file of content: %w", cerr)
	}
	if err == nil {
		err = f.publish(name, func(path string) error { return os.Rename(tmp, path) })
	}
	if err != nil {
		return "", err
	}
	return name, nil
}

// link stores the content of a file under a second, new id, without copying it
// where the file system can. The new id is pinned once for the caller.
func (f *folder) link(from string) (id string, err error) {
	id = newFileID()
	f.pin(id)
	err = f.publish(id, func(path string) error { return f.second(f.path(from), path) })
	if err == nil {
		return id, nil
	}
	f.unpin(id)
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return f.write(func(w io.Writer) error {
		in, err := os.Open(f.path(from))
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
}

// publish brings a file to its place, durably.
func (f *folder) publish(id string, put func(path string) error) error {
	path := f.path(id)
	err := put(path)
	if errors.Is(err, fs.ErrNotExist) { // the first one below xx
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making a folder for content: %w", err)
		}
		if err := syncDir(f.dir); err != nil {
			return err
		}
		err = put(path)
	}
	if err != nil {
		return fmt.Errorf("publishing a file of content: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names in a folder durable. Windows can't, and doesn't need to.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing a folder of content: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing a folder of content: %w", err)
	}
	return nil
}

// open opens a file that the caller has pinned.
func (f *folder) open(id string) (*os.File, error) { return os.Open(f.path(id)) }

// exists tells whether a file, which the caller has pinned, is there.
func (f *folder) exists(id string) bool {
	_, err := os.Stat(f.path(id))
	return err == nil
}

// pin keeps a file from being removed until unpin.
func (f *folder) pin(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pins[id] == nil {
		f.pins[id] = new(pin)
	}
	f.pins[id].holders++
}

// unpin undoes one pin.
func (f *folder) unpin(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pins[id]
	if p.holders--; p.holders > 0 {
		return
	}
	delete(f.pins, id)
	if p.dropped {
		os.Remove(f.path(id)) // the sweeper tries again if this fails
	}
}

// drop removes a file that no record refers to any more, as soon as nobody has
// it pinned.
func (f *folder) drop(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pins[id]; p != nil {
		p.dropped = true
		return
	}
	os.Remove(f.path(id)) // the sweeper tries again if this fails
}

// sweep removes a file that is not pinned at this moment.
func (f *folder) sweep(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pins[id] != nil {
		return nil
	}
	if err := os.Remove(f.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unpinned lists the files that nobody has pinned. The listing of the folder
// comes first: a file that is listed, and no longer pinned after, has its record
// already if it will ever have one.
func (f *folder) unpinned() (map[string]bool, error) {
	ids := map[string]bool{}
	dirs, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the folder for content: %w", err)
	}
	for _, d := range dirs {
		if !d.IsDir() || len(d.Name()) != 2 {
			continue
		}
		files, err := os.ReadDir(filepath.Join(f.dir, d.Name()))
		if err != nil {
			return nil, fmt.Errorf("listing the folder for content: %w", err)
		}
		for _, file := range files {
			if id := file.Name(); validFileID(id) && id[:2] == d.Name() {
				ids[id] = true
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.pins {
		delete(ids, id)
	}
	return ids, nil
}

// isDiskFull tells whether a write failed for want of space.
func isDiskFull(err error) bool {
	const windowsDiskFull = syscall.Errno(112)
	return errors.Is(err, syscall.ENOSPC) || runtime.GOOS == "windows" && errors.Is(err, windowsDiskFull)
}
