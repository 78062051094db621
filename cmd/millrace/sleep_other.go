//go:build !linux

package main

import "time"

// sleepExactly is as exact as the system's timers.
func sleepExactly(d time.Duration) { time.Sleep(d) }
