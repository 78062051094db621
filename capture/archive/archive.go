// Package archive reads captured files back, wherever they lie: which there are,
// of which partition, what is missing between them, and the events in them.
//
// It knows destinations, files' names and formats, and nothing of hubs or of how
// files come to be written.
package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/event"
)

// Location is where captured files lie: a destination's container, or a part of it.
type Location struct {
	Destination capture.Destination
	Container   string
	// Within is a folder of the container, or one file in it; "" is all of it.
	Within string
	// Text is what people write before a file's name to say where it is, as
	// "lake/" or "blob://capture/".
	Text string
	// Above is what stands before the names as those who named the files saw them:
	// of a folder in a folder of captured files, its path.
	Above string
}

// Partition is a partition of an event hub.
type Partition struct {
	Namespace, EventHub string
	Number              uint32
}

// String is how a partition is called in messages.
func (p Partition) String() string {
	return fmt.Sprintf("%s/%s partition %d", p.Namespace, p.EventHub, p.Number)
}

// File is a captured file.
type File struct {
	capture.Object
	// Of is what its name says, if it follows the format: then Named is set.
	Of    capture.Name
	Named bool
	// Facts are known if Counted is set.
	Facts
	Counted bool

	at    *Location
	crc64 uint64 // of its bytes, if sum is set
	sum   bool
	asked bool // for what is kept with it
}

// Facts are what there is in a file.
type Facts struct {
	Events int64
	// First and Last are sequence numbers. They say nothing of a file without events.
	First, Last event.SequenceNumber
}

// Missing is how many events between the first and the last are not there.
func (f Facts) Missing() int64 {
	if f.Events == 0 {
		return 0
	}
	return int64(f.Last-f.First) + 1 - f.Events
}

// Place says where the file is, with its location.
func (f *File) Place() string { return f.at.Text + f.Name }

// Partition is the one that the file is of, if its name says so.
func (f *File) Partition() (p Partition, ok bool) {
	return Partition{f.Of.Namespace, f.Of.EventHub, f.Of.Partition}, f.Named
}

// List returns the location's captured files, sorted, and how many others it has.
// A name that does not follow the format is not an error: the file is then of
// nobody knows which partition. What precedes the format's own segments in a name
// is passed over.
func (l *Location) List(ctx context.Context, format capture.NameFormat) (files []*File, others int, err error) {
	segments := strings.Count(format.String(), "/") + 1
	for o, err := range l.Destination.List(ctx, l.Container, l.Within) {
		if err != nil {
			return nil, 0, err
		}
		rest, ok := strings.CutPrefix(o.Name, strings.TrimSuffix(l.Within, "/"))
		if !ok || l.Within != "" && rest != "" && rest[0] != '/' {
			continue // a prefix that is no folder
		}
		if suffix := path.Ext(o.Name); suffix != capture.SuffixAvro && suffix != capture.SuffixParquet {
			others++
			continue
		}
		f := &File{Object: o, at: l}
		f.Of, err = format.Parse(tail(l.Above+o.Name, segments))
		switch {
		case err == nil:
			f.Named = true
		case !errors.Is(err, capture.ErrOtherName):
			return nil, 0, err
		}
		f.take(&o)
		files = append(files, f)
	}
	Sort(files)
	return files, others, nil
}

// take takes what is kept with the file for its facts.
func (f *File) take(o *capture.Object) {
	if w, ok := o.Written(); ok {
		f.Facts = Facts{w.Events, w.First, w.Last}
		f.Counted, f.crc64, f.sum, f.asked = true, w.CRC64, true, true
	}
}

// ask asks the destination for what is kept with the file, once, if the list did not
// have it.
func (f *File) ask(ctx context.Context) error {
	if f.asked {
		return nil
	}
	o, err := f.at.Destination.Stat(ctx, f.at.Container, f.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Place(), err)
	}
	f.asked = true
	f.take(&o)
	return nil
}

// tail is the last segments of a path.
func tail(name string, segments int) string {
	at := len(name)
	for range segments {
		if at = strings.LastIndexByte(name[:at], '/'); at < 0 {
			return name
		}
	}
	return name[at+1:]
}

// Sort puts the files of a partition one after the other, as their windows were;
// files whose names don't say what they are of come last, by their names.
func Sort(files []*File) {
	slices.SortFunc(files, func(a, b *File) int {
		switch {
		case a.Named != b.Named && a.Named:
			return -1
		case a.Named != b.Named:
			return 1
		}
		return cmp.Or(
			cmp.Compare(a.Of.Namespace, b.Of.Namespace),
			cmp.Compare(a.Of.EventHub, b.Of.EventHub),
			cmp.Compare(a.Of.Partition, b.Of.Partition),
			a.Of.Start.Compare(b.Of.Start),
			cmp.Compare(a.Place(), b.Place()))
	})
}
