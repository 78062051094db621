package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// scanner walks the frames of a file.
type scanner struct {
	f    io.ReaderAt
	salt salt
	off  int64 // of the next frame
	end  int64 // of the file
	step int   // how much to read at once
	// block, if not 0, is what frames may be padded to with zeros: the journal's.
	block int64

	buf  []byte // holds the file from base on
	base int64
}

const scanStep = 256 << 10

func newScanner(f io.ReaderAt, s salt, off, end int64) *scanner {
	return &scanner{f: f, salt: s, off: off, end: end, step: scanStep}
}

// window returns n bytes from off, fewer at the end of the file. They are valid
// until the next call.
func (sc *scanner) window(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), sc.end-off))
	if n <= 0 {
		return nil, nil
	}
	if at := off - sc.base; at >= 0 && at+int64(n) <= int64(len(sc.buf)) {
		return sc.buf[at : at+int64(n)], nil
	}
	size := int(min(int64(max(n, sc.step)), sc.end-off))
	if cap(sc.buf) < size {
		sc.buf = make([]byte, size)
	}
	sc.buf, sc.base = sc.buf[:size], off
	if m, err := sc.f.ReadAt(sc.buf, off); err != nil && !(errors.Is(err, io.EOF) && m == size) {
		sc.buf = sc.buf[:0]
		return nil, err
	}
	return sc.buf[:n], nil
}

// ahead returns what is in memory from off on, after reading more if that is
// less than a frame's beginning. It is valid until the next call.
func (sc *scanner) ahead(off int64) ([]byte, error) {
	b, err := sc.window(off, frameOverhead)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return sc.buf[off-sc.base:], nil
}

// found is one frame, with views into the scanner's buffer.
type found struct {
	frame
	event.Header
	off  int64
	size int    // in the file, frame and padding included
	run  []byte // all of it
	body []byte
}

// at decodes the frame at off, which must be whole and match its checksums.
// errFrame and event.ErrBody say that it isn't; other errors come from the disk.
func (sc *scanner) at(off int64, x *found) error {
	b, err := sc.window(off, frameOverhead)
	if err != nil {
		return err
	}
	if err := x.frame.decode(&x.Header, b, sc.salt, off); err != nil {
		return err
	}
	size := frameSize(x.BodyLen)
	if off+int64(size) > sc.end {
		return errFrame
	}
	if b, err = sc.window(off, size); err != nil {
		return err
	}
	x.off, x.size, x.run = off, size, b
	x.body = b[frameOverhead : frameOverhead+x.BodyLen]
	r := event.Record{Header: x.Header, Body: x.body}
	if err := r.Check(); err != nil {
		return err
	}
	for _, p := range b[frameOverhead+x.BodyLen:] {
		if p != 0 {
			return event.ErrBody
		}
	}
	return nil
}

// next reads the next frame. At the end of the file it returns io.EOF.
func (sc *scanner) next(x *found) error {
	if sc.off >= sc.end {
		return io.EOF
	}
	err := sc.at(sc.off, x)
	if notAFrame(err) && sc.block > 0 && sc.padded() {
		sc.off = alignBlock(sc.off)
		return sc.next(x)
	}
	if err == nil {
		sc.off += int64(x.size)
	}
	return err
}

// padded tells whether what is left of the block is zero.
func (sc *scanner) padded() bool {
	n := alignBlock(sc.off) - sc.off
	b, err := sc.window(sc.off, int(n))
	if err != nil || n == 0 || len(b) == 0 {
		return false
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// notAFrame tells a mismatch from an error of the disk.
func notAFrame(err error) bool {
	return errors.Is(err, errFrame) || errors.Is(err, event.ErrHeader) || errors.Is(err, event.ErrBody) || errors.Is(err, event.ErrVersion)
}

var magicBytes = binary.LittleEndian.AppendUint32(nil, frameMagic)

// resync looks for the first whole frame at or after off.
func (sc *scanner) resync(off int64, x *found) error {
	off = (off + frameAlign - 1) &^ (frameAlign - 1)
	for off < sc.end {
		// Between here and the next frame there may be thousands that were written
		// before the file was used again: each is looked at where it is in memory.
		b, err := sc.ahead(off)
		if err != nil {
			return err
		}
		i := bytes.Index(b, magicBytes)
		if i < 0 {
			off += int64(max(len(b)-frameAlign, frameAlign)) &^ (frameAlign - 1)
			continue
		}
		at := off + int64(i)
		if at%frameAlign == 0 {
			switch err := sc.at(at, x); {
			case err == nil:
				sc.off = at + int64(x.size)
				return nil
			case !notAFrame(err):
				return err
			}
		}
		off = (at + frameAlign) &^ (frameAlign - 1)
	}
	return io.EOF
}

// damage looks past a place where no frame is for a frame that was written when
// that place was durable: then it is damaged, and not the torn tail of a write
// that nobody was told of. known is what the database says was durable.
func (sc *scanner) damaged(at, known int64) (bool, error) {
	if at < known {
		return true, nil
	}
	var x found
	for off := at + 1; ; {
		err := sc.resync(off, &x)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if x.durable > at {
			return true, nil
		}
		off = sc.off
	}
}

// batchTail follows records and knows where the last whole batch ended.
type batchTail struct {
	next  event.SequenceNumber // what the next record must start with
	epoch uint64               // no record may be of an older owner
	inner bool                 // within a batch

	// After the last whole batch:
	end      int64 // offset
	whole    event.SequenceNumber
	enqueued int64
}

// follow tells whether x continues the log.
func (t *batchTail) follow(x *found, id store.LogID) bool {
	if x.kind != kindRecord || x.log != id || x.First != t.next || x.Epoch < t.epoch || x.Count <= 0 {
		return false
	}
	if start := x.Flags&event.FlagBatchStart != 0; start == t.inner {
		return false
	}
	t.next, t.epoch = x.Next(), x.Epoch
	t.inner = x.Flags&event.FlagBatchEnd == 0
	if !t.inner {
		t.end, t.whole, t.enqueued = x.off+int64(x.size), x.Next(), x.Enqueued
	}
	return true
}
