package folder_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/capturetest"
	"github.com/millrace/millrace/capture/folder"
)

// links are the ways in which a file system gives second names, or doesn't.
var links = map[string]func(from, to string) error{
	"links": nil,
	"another disk": func(from, to string) error { // from the spool; inside the folder it can
		if filepath.Dir(from) != filepath.Dir(to) {
			return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EXDEV}
		}
		return os.Link(from, to)
	},
	"no links": func(from, to string) error {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM}
	},
}

func newFolder(t *testing.T, dir string, link func(from, to string) error) *folder.Folder {
	t.Helper()
	f, err := folder.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if link != nil {
		f.SetLink(link)
	}
	return f
}

func TestConformance(t *testing.T) {
	for name, link := range links {
		t.Run(name, func(t *testing.T) {
			capturetest.Run(t, capturetest.Destination{Piece: 256 << 10, New: func(t *testing.T) capture.Destination {
				return newFolder(t, filepath.Join(t.TempDir(), "a", "b"), link)
			}})
		})
	}
}

// TestConformanceAcrossDisks is the same with two disks that are two.
func TestConformanceAcrossDisks(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "millrace-")
	if err != nil {
		t.Skip("there is no second file system:", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	probe := filepath.Join(t.TempDir(), "x")
	write(t, probe, "x")
	if err := os.Link(probe, filepath.Join(dir, "x")); !errors.Is(err, syscall.EXDEV) {
		t.Skip("it is not a second one:", err)
	}
	capturetest.Run(t, capturetest.Destination{Piece: 256 << 10, New: func(t *testing.T) capture.Destination { return newFolder(t, dir, nil) }})
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}

// file is one to be put.
func file(t *testing.T, content string) *capture.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "spool")
	write(t, name, content)
	return &capture.File{Path: name, Size: int64(len(content))}
}

func want(t *testing.T, name, content string) {
	t.Helper()
	if got, err := os.ReadFile(name); err != nil || string(got) != content {
		t.Errorf("%s has %q, not %q: %v", name, got, content, err)
	}
}

func listed(t *testing.T, f *folder.Folder, container, prefix string) (names []string) {
	t.Helper()
	for o, err := range f.List(t.Context(), container, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	return names
}

func TestNew(t *testing.T) {
	if _, err := folder.New(""); err == nil {
		t.Error("a folder without a name is one")
	}
	dir := filepath.Join(t.TempDir(), "later")
	f := newFolder(t, dir, nil)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is made before there is a file: %v", err)
	}
	if names := listed(t, f, "", ""); names != nil {
		t.Errorf("listed %q", names)
	}
}

// TestLinked puts a file on its own disk: it takes no room.
func TestLinked(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir, nil)
	x := file(t, "captured")
	if err := f.Put(t.Context(), "c", "a/b.avro", x); err != nil {
		t.Fatal(err)
	}
	i, err := os.Stat(x.Path)
	if err != nil {
		t.Fatal(err)
	}
	j, err := os.Stat(filepath.Join(dir, "c", "a", "b.avro"))
	if err != nil || !os.SameFile(i, j) {
		t.Errorf("it was copied: %v", err)
	}
}

// TestNamesStayInside tries what would leave the folder, or name the folder itself.
func TestNamesStayInside(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "captured")
	write(t, filepath.Join(base, "outside"), "secret")
	write(t, filepath.Join(dir, "c", "inside"), "x")
	f := newFolder(t, dir, nil)
	x := file(t, "x")
	for _, n := range [][2]string{
		{"", ""}, {"", "."}, {"", ".."}, {"", "../outside"}, {"c", "../../outside"}, {"c", "a/../../../outside"}, {"..", "outside"}, {"../captured/..", "outside"},
		{"c", "/etc/passwd"}, {"/etc", "passwd"}, {"", "/outside"}, {"c", ""}, {"c", "."}, {"c/..", "../outside"}, {".", ".."}, {"c", "a/../../.."},
	} {
		if err := f.Put(t.Context(), n[0], n[1], x); err == nil || errors.Is(err, capture.ErrExists) {
			t.Errorf("Put %q in %q: %v", n[1], n[0], err)
		}
		if _, err := f.Stat(t.Context(), n[0], n[1]); err == nil {
			t.Errorf("Stat %q in %q finds something", n[1], n[0])
		}
		if r, err := f.Open(t.Context(), n[0], n[1]); err == nil {
			r.Close()
			t.Errorf("Open %q in %q finds something", n[1], n[0])
		}
		if u := f.URL(n[0], n[1]); u != "" {
			t.Errorf("the URL of %q in %q is %s", n[1], n[0], u)
		}
	}
	for _, container := range []string{"..", "../captured", "/", "c/../.."} {
		for o, err := range f.List(t.Context(), container, "") {
			if err == nil {
				t.Errorf("List %q has %+v", container, o)
			}
		}
	}
	got, err := os.ReadDir(base)
	if err != nil || len(got) != 2 {
		t.Errorf("there are %v outside: %v", got, err)
	}
}

// TestCutOff has what a crash leaves of a copy be thrown away by the next one, and
// never be listed.
func TestCutOff(t *testing.T) {
	for _, way := range []string{"another disk", "no links"} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			f := newFolder(t, dir, links[way])
			long := strings.Repeat("n", 250) + ".avro"
			for _, base := range []string{"a.avro", long} {
				tmp := filepath.Join(dir, "c", folder.Unfinished(base))
				write(t, tmp, "this is longer than what comes")
				if names := listed(t, f, "c", ""); names != nil {
					t.Errorf("listed %q", names)
				}
				if err := f.Put(t.Context(), "c", base, file(t, "whole")); err != nil {
					t.Fatal(err)
				}
				want(t, filepath.Join(dir, "c", base), "whole")
				if _, err := os.Stat(tmp); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("what was cut off is there: %v", err)
				}
				if err := os.Remove(filepath.Join(dir, "c", base)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestCutOffAfterTheName is a crash between the second name and the end of the first,
// after which somebody moved the file: it is his.
func TestCutOffAfterTheName(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir, links["another disk"])
	tmp, moved := filepath.Join(dir, folder.Unfinished("a.avro")), filepath.Join(dir, "archive")
	write(t, tmp, "the first")
	if err := os.Link(tmp, moved); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), "", "a.avro", file(t, "2nd")); err != nil {
		t.Fatal(err)
	}
	want(t, moved, "the first")
	want(t, filepath.Join(dir, "a.avro"), "2nd")
}

// TestNothingLeft has a copy that fails leave nothing behind.
func TestNothingLeft(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir, links["another disk"])
	if err := os.MkdirAll(filepath.Join(dir, folder.Unfinished("a.avro"), "full"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), "", "a.avro", file(t, "x")); err == nil || !strings.Contains(err.Error(), folder.Unfinished("a.avro")) {
		t.Errorf("with a folder where the copy would be: %v", err)
	}
	if err := f.Put(t.Context(), "", "a/b.avro", file(t, "x")); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), "", "a/b.avro/c.avro", file(t, "x")); err == nil || errors.Is(err, capture.ErrExists) {
		t.Errorf("below a file: %v", err)
	}
	if _, err := f.Stat(t.Context(), "", "a/b.avro/c.avro"); !errors.Is(err, capture.ErrMissing) {
		t.Errorf("below a file: %v", err)
	}
	if names := listed(t, f, "", ""); !slices.Equal(names, []string{"a/b.avro"}) {
		t.Errorf("listed %q", names)
	}
}

// TestForeign has what else may be in a folder.
func TestForeign(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links")
	}
	dir := t.TempDir()
	f := newFolder(t, dir, nil)
	write(t, filepath.Join(dir, "there.avro"), "x")
	for name, to := range map[string]string{"link.avro": "there.avro", "loop.avro": "loop.avro", "dangling.avro": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := f.Put(t.Context(), "", name, file(t, "y")); !errors.Is(err, capture.ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.avro"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), "", "folder.avro", file(t, "y")); !errors.Is(err, capture.ErrExists) {
		t.Errorf("a folder: %v", err)
	}
	want(t, filepath.Join(dir, "there.avro"), "x")
	if names := listed(t, f, "", ""); !slices.Equal(names, []string{"there.avro"}) {
		t.Errorf("listed %q", names)
	}
}

// TestListWhileFilesGo deletes files while they are listed.
func TestListWhileFilesGo(t *testing.T) {
	dir := t.TempDir()
	f := newFolder(t, dir, nil)
	for i := range 200 {
		write(t, filepath.Join(dir, "c", fmt.Sprint(i%10), fmt.Sprint(i)), "x")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 10 {
			os.RemoveAll(filepath.Join(dir, "c", fmt.Sprint(i)))
		}
	})
	for range 20 {
		listed(t, f, "c", "")
	}
	wg.Wait()
	// For certain: one that goes while its folder's list is at hand.
	write(t, filepath.Join(dir, "c", "1"), "x")
	write(t, filepath.Join(dir, "c", "2"), "x")
	n := 0
	for o, err := range f.List(t.Context(), "c", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; o.Name == "1" {
			os.Remove(filepath.Join(dir, "c", "2"))
		}
	}
	if n != 1 {
		t.Errorf("listed %d", n)
	}
}

func TestRenameNew(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "a")
	write(t, b, "b")
	if err := folder.RenameNew(a, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	want(t, b, "b")
	if err := folder.RenameNew(a, filepath.Join(dir, "c")); err != nil {
		t.Error(err)
	}
	want(t, filepath.Join(dir, "c"), "a")
}

func TestURL(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths of another kind")
	}
	f := newFolder(t, "/var/captured files", nil)
	if u := f.URL("c", "a b/%/ü?#.avro"); u != "file:///var/captured%20files/c/a%20b/%25/%C3%BC%3F%23.avro" {
		t.Error(u)
	}
}

// mount mounts a file system of its own.
func mount(t *testing.T, options string) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounting a file system needs root on Linux")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a file system can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := mount(t, "size=1m")
	f := newFolder(t, dir, nil)
	x := file(t, string(bytes.Repeat([]byte("x"), 3<<20)))
	err := f.Put(t.Context(), "c", "a.avro", x)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("on a full disk: %v", err)
	}
	t.Log(err)
	if _, err := f.Stat(t.Context(), "c", "a.avro"); !errors.Is(err, capture.ErrMissing) {
		t.Errorf("it is there: %v", err)
	}
	small := file(t, "x")
	if err := f.Put(t.Context(), "c", "a.avro", small); err != nil {
		t.Errorf("what was not finished still takes its room: %v", err)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := mount(t, "size=1m")
	f := newFolder(t, dir, nil)
	if err := f.Put(t.Context(), "c", "a.avro", file(t, "x")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		t.Skipf("remount: %v: %s", err, out)
	}
	for _, name := range []string{"b.avro", "d/b.avro"} {
		err := f.Put(t.Context(), "c", name, file(t, "x"))
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		t.Log(err)
	}
	if err := f.Put(t.Context(), "c", "a.avro", file(t, "x")); !errors.Is(err, capture.ErrExists) {
		t.Errorf("what is there: %v", err)
	}
	if o, err := f.Stat(t.Context(), "c", "a.avro"); err != nil || o.Size != 1 {
		t.Errorf("Stat: %+v, %v", o, err)
	}
	r, err := f.Open(t.Context(), "c", "a.avro")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "x" {
		t.Errorf("read %q: %v", got, err)
	}
}
