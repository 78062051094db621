//go:build !unix

package main

import "os/exec"

// lead does nothing: here a command can't be ended with all that it has started.
func lead(*exec.Cmd) {}

// interrupt ends a command, which here can't be told to end.
func interrupt(cmd *exec.Cmd) error { return cmd.Process.Kill() }

// kill does nothing: the command has ended.
func kill(*exec.Cmd) {}
