//go:build !linux

package segment

// WriteAt writes the buffers one by one: correct everywhere, gathered on Linux.
func (f osFile) WriteAt(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		n, err := f.File.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
