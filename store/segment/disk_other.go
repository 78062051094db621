//go:build !linux

package segment

import "os"

// osFile is a file of this machine.
type osFile struct{ *os.File }

func newFile(f *os.File) (File, error) { return &osFile{f}, nil }

// WriteAt writes the buffers one by one: correct everywhere, gathered on Linux.
func (f *osFile) WriteAt(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		n, err := f.File.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
