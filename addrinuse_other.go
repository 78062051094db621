//go:build !windows

package millrace

import "syscall"

// errAddressInUse is what listening on a taken port fails with.
const errAddressInUse = syscall.EADDRINUSE
