package capturetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/capture"
)

// race has eight put a file each under one name, at once, and returns whose it is.
func (f *fixture) race(name string, files []*file) *file {
	f.Helper()
	errs := make([]error, len(files))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, x := range files {
		wg.Go(func() {
			<-start
			errs[i] = f.Put(f.Context(), f.container, name, &x.File)
		})
	}
	close(start)
	wg.Wait()
	var winner *file
	for i, err := range errs {
		switch {
		case err == nil && winner == nil:
			winner = files[i]
		case err == nil:
			f.Errorf("%s: two have put it", name)
		case !errors.Is(err, capture.ErrExists):
			f.Errorf("%s: %v", name, err)
		}
	}
	if winner == nil {
		f.Fatalf("%s: nobody has put it: %v", name, errs)
	}
	return winner
}

func testRace(f *fixture) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for _, size := range []int{700, f.piece() / 5, f.large()} {
		for round := range rounds {
			files := make([]*file, 8)
			for i := range files {
				files[i] = f.file(size)
			}
			name := fmt.Sprintf("%d/%d.avro", size, round)
			winner := f.race(name, files)
			f.has(name, winner)
		}
	}
}

// testRaceOfTheSame is that of a broker and one that has taken its place: the same
// file from both.
func testRaceOfTheSame(f *fixture) {
	for _, size := range []int{700, f.large()} {
		x := f.file(size)
		name := fmt.Sprintf("%d.avro", size)
		f.has(name, f.race(name, slices.Repeat([]*file{x}, 8)))
	}
}

// testNeverPartial looks at a name while a file is being put there.
func testNeverPartial(f *fixture) {
	f.put("first.avro", f.file(1)) // so that there is a container
	for round := range 3 {
		x := f.file(f.large())
		name := fmt.Sprintf("%d.avro", round)
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for last := false; !last; {
				select {
				case <-done:
					last = true
				default:
				}
				f.wholeOrNothing(name, x)
			}
		})
		f.put(name, x)
		close(done)
		wg.Wait()
		f.has(name, x)
	}
}

// wholeOrNothing tells whether a file is there, and wants all of it if so.
func (f *fixture) wholeOrNothing(name string, x *file) bool {
	f.Helper()
	found := f.list(name)
	for _, o := range found {
		f.is.check(f.T, o, name, x)
	}
	o, err := f.Stat(f.Context(), f.container, name)
	if errors.Is(err, capture.ErrMissing) {
		if len(found) > 0 {
			f.Errorf("%s was in a list, and is gone", name)
		}
		return false
	}
	if err != nil {
		f.Errorf("Stat %s: %v", name, err)
		return false
	}
	f.is.check(f.T, o, name, x)
	if got, err := f.read(name); err != nil || !bytes.Equal(got, x.data) {
		f.Errorf("%s has %d bytes that are not the %d put: %v", name, len(got), len(x.data), err)
	}
	return true
}

// testCancel ends a Put in its middle, wherever that is: what is there then is the
// whole or nothing, and putting it again ends well.
func testCancel(f *fixture) {
	began := time.Now()
	f.put("first.avro", f.file(f.large()))
	took := time.Since(began)
	const steps = 12
	there := 0
	for i := range steps + 1 {
		x := f.file(f.large())
		name := fmt.Sprintf("%d.avro", i)
		ctx, cancel := context.WithTimeout(f.Context(), took*time.Duration(i)/steps)
		err := f.Put(ctx, f.container, name, &x.File)
		cancel()
		switch visible := f.wholeOrNothing(name, x); {
		case err == nil && !visible:
			f.Errorf("%s was put, and is not there", name)
		case err != nil && errors.Is(err, capture.ErrExists):
			// It went well, and then was tried again.
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			f.Errorf("%s: %v", name, err)
		case visible:
			there++
		}
		if err := f.Put(f.Context(), f.container, name, &x.File); err != nil && !errors.Is(err, capture.ErrExists) {
			f.Errorf("%s again: %v", name, err)
		}
		f.has(name, x)
	}
	f.Logf("a Put takes %v; %d of %d were done when they were ended", took, there, steps+1)
	if got := f.names(""); len(got) != steps+2 {
		f.Errorf("listed %q", got)
	}
}
