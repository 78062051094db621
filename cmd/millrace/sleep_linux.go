package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepExactly sleeps by the thread's own timer: Go's rounds waits below a
// millisecond up to one.
func sleepExactly(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil) //nolint:errcheck // woken early is early enough
}
