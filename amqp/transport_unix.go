//go:build unix

package amqp

import "syscall"

// writeNow writes to a socket that does not block, and returns how much it took.
func writeNow(fd uintptr, b []byte) int {
	n, err := syscall.Write(int(fd), b)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
