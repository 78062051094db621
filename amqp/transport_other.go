//go:build !unix

package amqp

// writeNow leaves all to the writer.
func writeNow(uintptr, []byte) int { return 0 }
