//go:build unix

package millrace

import "golang.org/x/sys/unix"

// descriptorLimit is how many files this process may open, and how far it may
// raise that.
func descriptorLimit() (soft, hard uint64, ok bool) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, false
	}
	return uint64(r.Cur), uint64(r.Max), true //nolint:unconvert // signed on some systems
}
