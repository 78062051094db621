package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/capture/archive"
)

// damageLog is what becomes of damaged files.
type damageLog struct {
	skip  bool
	to    io.Writer
	files int
}

// take returns the error that ends the reading: nil, if it is damage to be skipped,
// which is said.
func (d *damageLog) take(err error) error {
	var damage *archive.DamageError
	switch {
	case !errors.As(err, &damage):
		return err
	case !d.skip:
		return fmt.Errorf("%w; --skip-damaged goes on with the next file", err)
	}
	d.files++
	fmt.Fprintf(d.to, "%s; what follows in this file is left out\n", err)
	return nil
}

// end is the error of a reading that has left something out.
func (d *damageLog) end() error {
	if d.files == 0 {
		return nil
	}
	return fmt.Errorf("%s damaged: not every event was read", were(d.files, "file"))
}

func were(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return fmt.Sprintf("%d %ss were", n, noun)
}
