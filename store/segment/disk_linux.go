package segment

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osFile is a file of this machine. Its system calls go through the file's
// RawConn, which keeps the descriptor from being closed, and perhaps reused,
// under them. The closures are made once, so that a write allocates nothing.
type osFile struct {
	*os.File
	raw syscall.RawConn

	writing sync.Mutex // guards the arguments and results of writev
	vectors []unix.Iovec
	off     int64
	n       int
	werr    error
	writev  func(fd uintptr)

	syncing  sync.Mutex
	serr     error
	datasync func(fd uintptr)

	reading sync.Mutex // guards the argument and result of readv
	into    unix.Iovec
	from    int64
	got     int
	readv   func(fd uintptr)
}

func newFile(f *os.File) (File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	o := &osFile{File: f, raw: raw}
	o.writev = func(fd uintptr) {
		for {
			n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, fd, uintptr(unsafe.Pointer(&o.vectors[0])),
				uintptr(len(o.vectors)), uintptr(o.off), uintptr(o.off>>32), 0)
			o.n, o.werr = int(n), nil
			if errno != 0 {
				o.n, o.werr = 0, errno
			}
			if errno != unix.EINTR {
				return
			}
		}
	}
	o.datasync = func(fd uintptr) {
		for {
			if o.serr = unix.Fdatasync(int(fd)); !errors.Is(o.serr, unix.EINTR) {
				return
			}
		}
	}
	o.readv = func(fd uintptr) {
		n, _, errno := unix.Syscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&o.into)), 1,
			uintptr(o.from), uintptr(o.from>>32), unix.RWF_NOWAIT)
		if o.got = int(n); errno != 0 { // EAGAIN, mostly; a plain read finds out what else
			o.got = 0
		}
	}
	return o, nil
}

// ReadCached implements cachedReader.
func (f *osFile) ReadCached(b []byte, off int64) int {
	if len(b) == 0 {
		return 0
	}
	f.reading.Lock()
	defer f.reading.Unlock()
	f.into = unix.Iovec{Base: &b[0]}
	f.into.SetLen(len(b))
	f.from, f.got = off, 0
	if err := f.raw.Control(f.readv); err != nil {
		return 0
	}
	f.into = unix.Iovec{}
	return f.got
}

// maxVectors is the kernel's limit on the buffers of one pwritev (IOV_MAX).
const maxVectors = 1024

// WriteAt gathers the buffers into as few system calls as the kernel allows.
func (f *osFile) WriteAt(bufs [][]byte, off int64) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	for len(bufs) > 0 {
		batch := bufs[:min(len(bufs), maxVectors)]
		bufs = bufs[len(batch):]
		want := 0
		f.vectors, f.off = f.vectors[:0], off
		for _, b := range batch {
			if len(b) == 0 {
				continue
			}
			v := unix.Iovec{Base: &b[0]}
			v.SetLen(len(b))
			f.vectors = append(f.vectors, v)
			want += len(b)
		}
		if want == 0 {
			continue
		}
		err := f.raw.Control(f.writev)
		clear(f.vectors)
		if err == nil {
			err = f.werr
		}
		if err != nil {
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		if f.n < want { // a short write: finish it buffer by buffer, which finds the error
			if err := f.writeRest(batch, off, f.n); err != nil {
				return err
			}
		}
		off += int64(want)
	}
	return nil
}

func (f *osFile) writeRest(bufs [][]byte, off int64, done int) error {
	off += int64(done)
	for _, b := range bufs {
		skip := min(done, len(b))
		done -= skip
		n, err := f.File.WriteAt(b[skip:], off)
		if err != nil {
			return err
		}
		if n < len(b)-skip {
			return io.ErrShortWrite
		}
		off += int64(n)
	}
	return nil
}

// Sync is fdatasync: the data and the length, without the times.
func (f *osFile) Sync() error {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	var err error
	if closed := f.raw.Control(f.datasync); closed != nil { // it fails for no other reason, with an error that nobody can name
		err = os.ErrClosed
	} else {
		err = f.serr
	}
	if err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

// directFile is a file opened with O_DIRECT. What it writes is gathered in a
// buffer aligned for the device; a copy within the core's cache costs a tenth of
// one to the system's.
type directFile struct {
	*osFile
	mu  sync.Mutex
	buf []byte
}

// OpenDirect implements directDisk. Where the file system knows no direct I/O it
// is as Open.
func (d *osDisk) OpenDirect(name string, create bool) (File, error) {
	flag := os.O_RDWR | unix.O_DIRECT
	if create {
		flag |= os.O_CREATE
	}
	f, err := os.OpenFile(d.path(name), flag, 0o600)
	if errors.Is(err, unix.EINVAL) {
		return d.Open(name, create)
	}
	if err != nil {
		return nil, err
	}
	o, err := newFile(f)
	if err != nil {
		return nil, err
	}
	return &directFile{osFile: o.(*osFile)}, nil
}

// WriteAt implements File, for off and the sum of the lengths multiples of
// journalBlock.
func (f *directFile) WriteAt(bufs [][]byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, b := range bufs {
		n += len(b)
	}
	if cap(f.buf) < n {
		f.buf = alignedBuffer(max(n, 64<<10))
	}
	buf := f.buf[:0]
	for _, b := range bufs {
		buf = append(buf, b...)
	}
	_, err := f.File.WriteAt(buf, off)
	if cap(f.buf) > 4<<20 {
		f.buf = nil
	}
	return err
}

// alignedBuffer returns n bytes at an address that direct I/O takes.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+journalBlock)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (journalBlock - 1))
	return b[skip : skip+n : skip+n]
}

// SyncAll implements wholeDisk.
func (d *osDisk) SyncAll() error {
	if d.whole == nil {
		return errNotWhole
	}
	raw, err := d.whole.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) { _, _, errno = unix.Syscall(unix.SYS_SYNCFS, fd, 0, 0) })
	if err == nil && errno != 0 {
		err = &os.PathError{Op: "sync the file system of", Path: d.dir, Err: errno}
	}
	return err
}

func (d *osDisk) SyncDir(name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func freeSpace(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
