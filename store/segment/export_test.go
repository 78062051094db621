package segment

import "testing"

// SyncWholeFrom lowers the number of logs from which the disk is synced as a
// whole, for one test.
func SyncWholeFrom(t *testing.T, n int) {
	old := manyLogs
	manyLogs = n
	t.Cleanup(func() { manyLogs = old })
}
