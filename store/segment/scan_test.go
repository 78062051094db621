package segment

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/millrace/millrace/event"
)

// countingReader counts the bytes that are read.
type countingReader struct {
	*bytes.Reader
	read int64
}

func (r *countingReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(b, off)
	r.read += int64(n)
	return n, err
}

// TestOldFramesAreReadOnce: past the end of a journal file that was used before,
// all the frames of its former life are passed over, and the file read once.
func TestOldFramesAreReadOnce(t *testing.T) {
	file := make([]byte, fileHeaderSize)
	for len(file) < 8<<20 {
		body := make([]byte, 1000)
		file = append(file, fuzzFrame(int64(len(file)), frame{log: fuzzLog}, event.Header{Count: 1, BodyLen: len(body)}, body)...)
	}
	f := &countingReader{Reader: bytes.NewReader(file)}
	sc := newScanner(f, fuzzSalt+1, fileHeaderSize, int64(len(file)))
	var x found
	if err := sc.next(&x); !notAFrame(err) {
		t.Fatalf("the first old frame is read as %+v, %v", x, err)
	}
	if err := sc.resync(sc.off+1, &x); !errors.Is(err, io.EOF) {
		t.Fatalf("an old frame is read as %+v, %v", x, err)
	}
	if f.read > int64(len(file))*3/2 {
		t.Errorf("to pass over %d bytes, %d were read", len(file), f.read)
	}
}
