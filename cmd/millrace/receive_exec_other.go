//go:build !unix

package main

import "os/exec"

// interrupt ends a command, which here can't be told to end.
func interrupt(cmd *exec.Cmd) error { return cmd.Process.Kill() }
