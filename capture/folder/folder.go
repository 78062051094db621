// Package folder keeps captured files in a folder of the machine.
//
// A file that is put gets a second name, where the folder is on the disk that it was
// written to: that takes no room, and no time. Elsewhere it is copied, under a name
// that begins with a dot and ends in .tmp, which lists leave out, and then renamed.
// Either way it has its name when it is whole and on disk, and nothing that has a name
// is ever replaced. What a copy left that was cut off is thrown away by the next one of
// that name.
//
// A folder keeps no metadata. One broker may write to it; others may read, move and
// delete what is there.
//
// It knows files and names, and nothing of events or of what the files hold.
package folder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/millrace/millrace/capture"
)

// Folder is a [capture.Destination]. A container is a folder in it. Make it with New.
type Folder struct {
	dir  string
	link func(from, to string) error // os.Link

	mu   sync.Mutex
	busy map[string]chan struct{} // names that files are being copied to; closed when done
}

// New returns the destination. The folder is made when the first file comes.
func New(dir string) (*Folder, error) {
	if dir == "" {
		return nil, errors.New("the folder for captured files has no name")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("the folder %q for captured files: %w", dir, err)
	}
	return &Folder{dir: abs, link: os.Link, busy: map[string]chan struct{}{}}, nil
}

// unfinished is what the names of files begin and end with that are being written.
const (
	unfinishedPrefix = "."
	unfinishedSuffix = ".tmp"
)

// maxBase is how long the last part of a name may be, in bytes, on most file systems.
const maxBase = 255

// unfinished is the name of a file while it is being written.
func unfinished(base string) string {
	if len(unfinishedPrefix+base+unfinishedSuffix) > maxBase {
		sum := sha256.Sum256([]byte(base))
		base = hex.EncodeToString(sum[:])
	}
	return unfinishedPrefix + base + unfinishedSuffix
}

// path is where a file is. It refuses names that would leave the folder.
func (f *Folder) path(container, name string) (string, error) {
	local := path.Join(container, name)
	if container != "" && !filepath.IsLocal(container) || !filepath.IsLocal(name) || path.Clean(name) == "." {
		return "", fmt.Errorf("%q in %q is not a name in a folder", name, container)
	}
	return filepath.Join(f.dir, filepath.FromSlash(local)), nil
}

// Put implements capture.Destination. That of a disk that is full or can't be written
// to is the system's error, with the name of the file or folder.
func (f *Folder) Put(ctx context.Context, container, name string, file *capture.File) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put a captured file: %w", err)
	}
	to, err := f.path(container, name)
	if err != nil {
		return err
	}
	src, err := file.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := os.Lstat(to); err == nil {
		return capture.ErrExists
	}
	top := existing(filepath.Dir(to))
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return fmt.Errorf("make a folder for captured files: %w", err)
	}
	if err := syncFile(src); err != nil {
		return fmt.Errorf("sync a captured file: %w", err)
	}
	switch err := f.link(file.Path, to); {
	case errors.Is(err, fs.ErrExist):
		return capture.ErrExists
	case err != nil: // another disk, or a file system without links: if it is anything else, a copy tells too
		if err := f.copy(ctx, src, to); err != nil {
			return err
		}
	}
	return f.settle(to, top)
}

// existing is the nearest folder above that there is, or the folder itself.
func existing(dir string) string {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	return dir
}

// syncFile has a file's content be on disk. Windows syncs no file that can't be
// written to.
func syncFile(f *os.File) error {
	if runtime.GOOS == "windows" {
		w, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer w.Close()
		f = w
	}
	return f.Sync()
}

// settle has the names be on disk that lead to a file, from the folder itself or from
// top, whichever is higher: they may be new with it.
func (f *Folder) settle(name, top string) error {
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		if err := syncFolder(dir); err != nil {
			return err
		}
		if len(dir) < len(f.dir) && len(dir) <= len(top) || dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// syncFolder has what is in a folder be on disk. Windows does that by itself.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync a folder of captured files: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync a folder of captured files: %w", err)
	}
	return nil
}

// alone waits until nobody copies to a name, and returns what ends that of the caller.
// Two copies at once would write to one file.
func (f *Folder) alone(ctx context.Context, name string) (func(), error) {
	for {
		f.mu.Lock()
		other, taken := f.busy[name]
		if !taken {
			mine := make(chan struct{})
			f.busy[name] = mine
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.busy, name)
				close(mine)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-other:
		}
	}
}

// copy copies a file to a name: under one that nobody looks at, and then, if there is
// none of the name, under that.
func (f *Folder) copy(ctx context.Context, src *os.File, to string) error {
	leave, err := f.alone(ctx, to)
	if err != nil {
		return fmt.Errorf("copy a captured file: %w", err)
	}
	defer leave()
	if _, err := os.Lstat(to); err == nil { // of the one before
		return capture.ErrExists
	}
	dir, base := filepath.Split(to)
	tmp := filepath.Join(dir, unfinished(base))
	// What is there was cut off. It is not written over: it may have another name, if
	// it had come that far.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear away a captured file that was cut off: %w", err)
	}
	if err := write(ctx, src, tmp); err != nil {
		os.Remove(tmp) //nolint:errcheck // it is worth nothing, and the next one tries
		return fmt.Errorf("copy a captured file: %w", err)
	}
	defer os.Remove(tmp) //nolint:errcheck // it has the other name, or is worth nothing
	switch err := f.link(tmp, to); {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return capture.ErrExists
	}
	switch err := renameNew(tmp, to); { // a file system without links
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist):
		return capture.ErrExists
	default:
		return fmt.Errorf("name a captured file: %w", err)
	}
}

// write makes a file that is on disk.
func write(ctx context.Context, src io.Reader, name string) error {
	dst, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, &interruptible{ctx, src})
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx context.Context //nolint:containedctx // of one call
	r   io.Reader
}

// Read implements io.Reader.
func (i *interruptible) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(b)
}

// Stat implements capture.Destination. A file that it finds is on disk under its name:
// the Put of it may have been cut off just before it made sure of that.
func (f *Folder) Stat(_ context.Context, container, name string) (capture.Object, error) {
	at, err := f.path(container, name)
	if err != nil {
		return capture.Object{}, err
	}
	i, err := os.Stat(at)
	if err != nil {
		return capture.Object{}, missing(err)
	}
	if !i.Mode().IsRegular() {
		return capture.Object{}, capture.ErrMissing
	}
	if err := f.settle(at, f.dir); err != nil {
		return capture.Object{}, err
	}
	return capture.Object{Name: name, Size: i.Size(), Modified: i.ModTime()}, nil
}

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return capture.ErrMissing
	}
	return fmt.Errorf("read a captured file: %w", err)
}

// Open implements capture.Destination.
func (f *Folder) Open(_ context.Context, container, name string) (io.ReadCloser, error) {
	at, err := f.path(container, name)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(at)
	if err != nil {
		return nil, missing(err)
	}
	if i, err := file.Stat(); err != nil || !i.Mode().IsRegular() {
		file.Close()
		if err != nil {
			return nil, missing(err)
		}
		return nil, capture.ErrMissing
	}
	return file, nil
}

// List implements capture.Destination, folder by folder. Files that are being written
// are not in it.
func (f *Folder) List(ctx context.Context, container, prefix string) iter.Seq2[capture.Object, error] {
	return func(yield func(capture.Object, error) bool) {
		root := f.dir
		if container != "" {
			var err error
			if root, err = f.path("", container); err != nil {
				yield(capture.Object{}, err)
				return
			}
		}
		err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
			if cerr := ctx.Err(); cerr != nil {
				return cerr
			}
			if errors.Is(err, fs.ErrNotExist) { // there is nothing yet, or somebody took it away
				return nil
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, at)
			if err != nil {
				return err
			}
			name := filepath.ToSlash(rel)
			if d.IsDir() {
				if dir := name + "/"; name != "." && !strings.HasPrefix(dir, prefix) && !strings.HasPrefix(prefix, dir) {
					return fs.SkipDir
				}
				return nil
			}
			base := d.Name()
			if !d.Type().IsRegular() || !strings.HasPrefix(name, prefix) || strings.HasPrefix(base, unfinishedPrefix) && strings.HasSuffix(base, unfinishedSuffix) {
				return nil
			}
			i, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if !yield(capture.Object{Name: name, Size: i.Size(), Modified: i.ModTime()}, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(capture.Object{}, fmt.Errorf("list captured files: %w", err))
		}
	}
}

// URL implements capture.Destination.
func (f *Folder) URL(container, name string) string {
	at, err := f.path(container, name)
	if err != nil {
		return ""
	}
	p := filepath.ToSlash(at)
	if !strings.HasPrefix(p, "/") { // a drive's letter
		p = "/" + p
	}
	return (&url.URL{Scheme: "file", Path: p}).String()
}
