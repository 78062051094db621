package capture

import (
	"strconv"

	"github.com/millrace/millrace/event"
)

// Written is what is kept with a file about what was written into it.
type Written struct {
	// First and Last are the sequence numbers that the file is of; of a file without
	// events Last is before First.
	First, Last event.SequenceNumber
	// Events are fewer than those numbers where retention was faster than capture.
	Events int64
	// CRC64 is the checksum of the file's bytes, as Sum makes it.
	CRC64 uint64
}

// Written reads the object's metadata. It fails where the destination keeps none,
// and of files that are not ours.
func (o *Object) Written() (w Written, ok bool) {
	number := func(name string) int64 {
		n, err := strconv.ParseInt(o.Metadata[name], 10, 64)
		if err != nil {
			ok = false
		}
		return n
	}
	ok = true
	w.First = event.SequenceNumber(number(metaFirst))
	w.Last = event.SequenceNumber(number(metaLast))
	w.Events = number(metaCount)
	crc, err := strconv.ParseUint(o.Metadata[metaCRC64], 16, 64)
	if err != nil || w.Events < 0 || w.Last < w.First-1 {
		ok = false
	}
	w.CRC64 = crc
	return w, ok
}
