//go:build unix

package amqp

import (
	"io"
	"syscall"
)

// plainSockets says that the loop may read and write a socket itself.
const plainSockets = true

// writeNow writes to a socket that does not block, and returns how much it took.
func writeNow(fd uintptr, b []byte) int {
	n, err := syscall.Write(int(fd), b)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// readNow reads from a socket that does not block: errNothing if there is
// nothing to read yet.
func readNow(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == syscall.EAGAIN: //nolint:errorlint // as the call returns it
			return 0, errNothing
		case err != syscall.EINTR: //nolint:errorlint // likewise
			return 0, err
		}
	}
}
