// Package folder keeps captured files in a folder of the machine.
//
// It knows files and names, and nothing of events or of what the files hold.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/millrace/millrace/capture"
)

// Folder is a [capture.Destination]. A container is a folder in it.
type Folder struct{ dir string }

// New returns the destination. The folder is made when the first file comes.
func New(dir string) (*Folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("the folder %q for captured files: %w", dir, err)
	}
	return &Folder{abs}, nil
}

// unfinished is what the names of files begin and end with that are being written.
const (
	unfinishedPrefix = "."
	unfinishedSuffix = ".tmp"
)

// path is where a file is. It refuses names that would leave the folder.
func (f *Folder) path(container, name string) (string, error) {
	local := path.Join(container, name)
	if container != "" && !filepath.IsLocal(container) || !filepath.IsLocal(name) || local == "." {
		return "", fmt.Errorf("%q in %q is not a name in a folder", name, container)
	}
	return filepath.Join(f.dir, filepath.FromSlash(local)), nil
}

// Put implements capture.Destination: the file is given a second name, or copied
// where that can't be, and never in part.
func (f *Folder) Put(ctx context.Context, container, name string, file *capture.File) error {
	to, err := f.path(container, name)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return capture.ErrExists
	}
	made, err := makeFolders(filepath.Dir(to))
	if err != nil {
		return err
	}
	if err := sync(file.Path); err != nil {
		return err
	}
	switch err := os.Link(file.Path, to); {
	case err == nil:
	case errors.Is(err, fs.ErrExist):
		return capture.ErrExists
	case errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EMLINK):
		if err := copyTo(ctx, file.Path, to); err != nil {
			return err
		}
	default:
		return fmt.Errorf("name a captured file: %w", err)
	}
	for _, dir := range append(made, filepath.Dir(to)) {
		if err := sync(dir); err != nil {
			return err
		}
	}
	return nil
}

// makeFolders makes a folder and those above that are missing, and returns those
// whose entries have changed.
func makeFolders(dir string) (changed []string, err error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		changed = append(changed, filepath.Dir(d))
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make a folder for captured files: %w", err)
	}
	return changed, nil
}

// sync has a file or a folder be on disk.
func sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync a captured file: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync a captured file: %w", err)
	}
	return nil
}

// copyTo copies to another disk: under a name that nobody looks at, and then, if
// there is none of the name, under that.
func copyTo(ctx context.Context, from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy a captured file: %w", err)
	}
	defer src.Close()
	dir, base := filepath.Split(to)
	tmp := filepath.Join(dir, unfinishedPrefix+base+unfinishedSuffix)
	dst, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("copy a captured file: %w", err)
	}
	defer os.Remove(tmp) //nolint:errcheck // it has the other name, or is worth nothing
	_, err = io.Copy(dst, &interruptible{ctx, src})
	if err == nil {
		err = dst.Sync()
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("copy a captured file: %w", err)
	}
	switch err := os.Link(tmp, to); {
	case errors.Is(err, fs.ErrExist):
		return capture.ErrExists
	case err == nil:
		return nil
	}
	// A file system without links: its names are ours alone.
	if _, err := os.Lstat(to); err == nil {
		return capture.ErrExists
	}
	if err := os.Rename(tmp, to); err != nil {
		return fmt.Errorf("name a captured file: %w", err)
	}
	return nil
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

// Stat implements capture.Destination. A folder keeps no metadata.
func (f *Folder) Stat(_ context.Context, container, name string) (capture.Object, error) {
	at, err := f.path(container, name)
	if err != nil {
		return capture.Object{}, err
	}
	i, err := os.Stat(at)
	if err != nil {
		return capture.Object{}, missing(err)
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
	return file, nil
}

// List implements capture.Destination. Files that are being written are not in it.
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
			if err != nil {
				if at == root && errors.Is(err, fs.ErrNotExist) {
					return fs.SkipAll
				}
				return err
			}
			if err := ctx.Err(); err != nil {
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
			if !d.Type().IsRegular() || !strings.HasPrefix(name, prefix) || strings.HasPrefix(d.Name(), unfinishedPrefix) && strings.HasSuffix(d.Name(), unfinishedSuffix) {
				return nil
			}
			i, err := d.Info()
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
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(at)}).String()
}
