//go:build !linux

package main

// dropStartPages does nothing: the system takes unused pages by itself.
func dropStartPages() {}
