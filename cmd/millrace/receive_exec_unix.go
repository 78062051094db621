//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// interrupt tells a command to end.
func interrupt(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) }
