package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// bbolt believes what its pages say: it follows a page number out of the file,
// or round in a circle, and its own check does so on a goroutine of its own,
// where a fault ends the program. So Verify first walks the tree with the code
// below, which believes nothing:
//
//	0    8       10      12         16
//	┌────┬───────┬───────┬──────────┬───────────────────────────┬───────────────┐
//	│ id │ flags │ count │ overflow │ count elements, 16 bytes: │ keys, values  │
//	└────┴───────┴───────┴──────────┴───────────────────────────┴───────────────┘
//	branch: position u32, key size u32, page u64
//	leaf:   flags u32, position u32, key size u32, value size u32
//
// A position counts from its element. Keys and values follow each other without a
// gap, and a page within a value ends with them: that a page has more elements than
// it says is seen by that. A value with flag 1 is a bucket: its root
// page u64, a sequence u64 and, if the root is 0, a leaf page within the value.
const (
	pageHead    = 16
	pageElement = 16
	pageBranch  = 1
	pageLeaf    = 2
	bucketValue = 1
)

// errPageTwice says that the tree leads to a page a second time.
var errPageTwice = errors.New("it is used twice")

// pageWalk walks the pages of a database.
type pageWalk struct {
	f     io.ReaderAt
	page  uint64 // the size of one
	pages uint64 // how many there are
	seen  map[uint64]bool
}

// walk checks the tree below a page.
func (w *pageWalk) walk(id uint64) error {
	if err := w.node(id); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (w *pageWalk) node(id uint64) error {
	if id < 2 || id >= w.pages {
		return fmt.Errorf("it is not one of the %d", w.pages)
	}
	head := make([]byte, pageHead)
	if _, err := w.f.ReadAt(head, int64(id*w.page)); err != nil {
		return err
	}
	le := binary.LittleEndian
	n := 1 + uint64(le.Uint32(head[12:]))
	if got := le.Uint64(head); got != id || n > w.pages-id {
		return fmt.Errorf("it calls itself %d, and says that it takes up %d", got, n)
	}
	for i := range n {
		if w.seen[id+i] {
			return errPageTwice
		}
		w.seen[id+i] = true
	}
	b := make([]byte, n*w.page)
	if _, err := w.f.ReadAt(b, int64(id*w.page)); err != nil {
		return err
	}
	return w.elements(b, true)
}

// elements checks a page and what it leads to. outer is false for a page within
// a value, which leads nowhere.
func (w *pageWalk) elements(b []byte, outer bool) error {
	if len(b) < pageHead {
		return errors.New("it is cut off")
	}
	le := binary.LittleEndian
	kind, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	branch := kind == pageBranch && outer && count > 0
	if !branch && kind != pageLeaf || pageHead+pageElement*count > len(b) {
		return fmt.Errorf("it is of kind %d, with %d elements in %d bytes", kind, count, len(b))
	}
	var last []byte
	next := uint64(pageHead + pageElement*count)
	for i := range count {
		at := pageHead + pageElement*i
		var pos, key, value uint32
		if branch {
			pos, key = le.Uint32(b[at:]), le.Uint32(b[at+4:])
		} else {
			pos, key, value = le.Uint32(b[at+4:]), le.Uint32(b[at+8:]), le.Uint32(b[at+12:])
		}
		from := uint64(at) + uint64(pos)
		if from != next {
			return fmt.Errorf("element %d does not follow on those before it", i)
		}
		if next += uint64(key) + uint64(value); next > uint64(len(b)) {
			return fmt.Errorf("element %d reaches beyond it", i)
		}
		k := b[from : from+uint64(key)]
		if i > 0 && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("element %d is out of order", i)
		}
		last = k
		var err error
		if v := b[from+uint64(key):][:value]; branch {
			err = w.walk(le.Uint64(b[at+8:]))
		} else if le.Uint32(b[at:])&bucketValue != 0 {
			err = w.bucket(v, outer)
		}
		if err != nil {
			return err
		}
	}
	if rest := b[next:]; len(rest) > 0 && (!outer || count == 0 && len(bytes.TrimLeft(rest, "\x00")) > 0) {
		return fmt.Errorf("it has more than the %d elements that it tells of", count)
	}
	return nil
}

// freelist checks the length that the list of free pages has by its own account:
// the list of the transaction given, whose number stands in one of two places.
func (w *pageWalk) freelist(tx uint64) error {
	le := binary.LittleEndian
	b := make([]byte, pageHead+64)
	for meta := range uint64(2) {
		if _, err := w.f.ReadAt(b, int64(meta*w.page)); err != nil {
			return err
		}
		id := le.Uint64(b[pageHead+32:])
		if le.Uint64(b[pageHead+48:]) != tx || id == 1<<64-1 { // there may be none
			continue
		}
		if id >= w.pages {
			return fmt.Errorf("page %d, the list of free pages, is not one of the %d", id, w.pages)
		}
		if _, err := w.f.ReadAt(b[:pageHead+8], int64(id*w.page)); err != nil {
			return err
		}
		size, count := 1+uint64(le.Uint32(b[12:])), uint64(le.Uint16(b[10:]))
		if count == 1<<16-1 {
			count = le.Uint64(b[pageHead:]) // it comes first, where it is large
		}
		if size > w.pages-id || count > size*w.page/8 {
			return fmt.Errorf("page %d, the list of free pages, says that it takes up %d and has %d", id, size, count)
		}
	}
	return nil
}

func (w *pageWalk) bucket(v []byte, outer bool) error {
	if len(v) < 16 || !outer {
		return errors.New("a bucket is cut off, or where none can be")
	}
	if root := binary.LittleEndian.Uint64(v); root != 0 {
		return w.walk(root)
	}
	return w.elements(v[16:], false)
}
