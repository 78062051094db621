package segment

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxVectors is the kernel's limit on the buffers of one pwritev (IOV_MAX).
const maxVectors = 1024

// WriteAt gathers the buffers into as few system calls as the kernel allows.
func (f osFile) WriteAt(bufs [][]byte, off int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for len(bufs) > 0 {
		batch := bufs[:min(len(bufs), maxVectors)]
		want := 0
		for _, b := range batch {
			want += len(b)
		}
		var n int
		var werr error
		err := raw.Control(func(fd uintptr) {
			for {
				n, werr = unix.Pwritev(int(fd), batch, off)
				if !errors.Is(werr, unix.EINTR) {
					return
				}
			}
		})
		if err == nil {
			err = werr
		}
		if err != nil {
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		if n < want { // a short write: finish it buffer by buffer, which finds the error
			return f.writeRest(bufs, off, n)
		}
		off += int64(n)
		bufs = bufs[len(batch):]
	}
	return nil
}

func (f osFile) writeRest(bufs [][]byte, off int64, done int) error {
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
func (f osFile) Sync() error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		for {
			serr = unix.Fdatasync(int(fd))
			if !errors.Is(serr, unix.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = serr
	}
	if err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

func (d osDisk) SyncDir(name string) error {
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
