package millrace

import "golang.org/x/sys/windows"

// errAddressInUse is what listening on a taken port fails with.
const errAddressInUse = windows.WSAEADDRINUSE
