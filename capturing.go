package millrace

import (
	"fmt"
	"math"

	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/capture/folder"
)

// captureContainer is where files go in a destination that is told of no container.
const captureContainer = "capture"

// captureDestinations makes the destinations of the configuration, and the broker's
// own Blob endpoint; b is nil while there is no broker yet, and only names count.
func captureDestinations(all []CaptureDestination, b *Broker) (map[string]capture.Destination, error) {
	out := map[string]capture.Destination{}
	for _, d := range all {
		to, err := d.open()
		if err != nil {
			return nil, fmt.Errorf("%sthe capture destination %s: %w", d.at, d.Name, err)
		}
		out[d.Name] = to
	}
	return out, nil
}

// open makes the destination. Nothing is asked of it yet.
func (d *CaptureDestination) open() (capture.Destination, error) {
	switch d.Kind {
	case "folder":
		return folder.New(d.Folder)
	}
	return nil, fmt.Errorf("there is no kind %q", d.Kind)
}

// roomy is a destination on the data folder's own disk: events come first.
type roomy struct {
	capture.Destination
	room func() bool
}

// errNoRoom has a file be put again later.
var errNoRoom = errors.New("the disk of the data folder has too little room for captured files")

// Put implements capture.Destination.
func (r roomy) Put(ctx context.Context, container, name string, f *capture.File) error {
	if !r.room() {
		return errNoRoom
	}
	return r.Destination.Put(ctx, container, name, f)
}

// hasRoom tells whether unfinished files may take up space of the data folder's
// disk: events come first, which are refused below the reserve.
func (b *Broker) hasRoom() bool {
	free, total := freeSpace(b.dir)
	if total == 0 {
		return true
	}
	reserve := uint64(math.Max(0, float64(b.o.Reserve)))
	if b.o.Reserve == 0 {
		reserve = min(1<<30, total/20)
	}
	return free > 2*reserve
}
