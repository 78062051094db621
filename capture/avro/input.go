package avro

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// errFormat is what every error about the bytes of a file is, until it is known
// where it happened.
var errFormat = errors.New("")

func bad(format string, args ...any) error {
	return fmt.Errorf(format+"%w", append(args, errFormat)...)
}

// input is a file, or a block's content, as it is read.
type input struct {
	r    *bufio.Reader
	at   int64 // bytes read
	left int64 // bytes to be read before the end of the block; -1: any number

	inner bool    // a decompressed block
	fixed [8]byte // for values of fixed length
}

// ReadByte implements io.ByteReader; io.EOF at the end of the block, for the
// decompressor. All others ask within a value, and get io.ErrUnexpectedEOF from
// the methods below.
func (in *input) ReadByte() (byte, error) {
	if in.left == 0 {
		return 0, io.EOF
	}
	c, err := in.r.ReadByte()
	if err == nil {
		in.took(1)
	}
	return c, err
}

// Read implements io.Reader, likewise.
func (in *input) Read(b []byte) (int, error) {
	if in.left == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	if in.left >= 0 && int64(len(b)) > in.left {
		b = b[:in.left]
	}
	n, err := in.r.Read(b)
	in.took(n)
	return n, err
}

func (in *input) took(n int) {
	in.at += int64(n)
	if in.left >= 0 {
		in.left -= int64(n)
	}
}

// cut is the error for an end in the middle of a value.
func (in *input) cut(err error) error {
	if !errors.Is(err, io.EOF) {
		return inBlock(err)
	}
	if in.left == 0 || in.inner {
		return bad("a block ends in the middle of an event")
	}
	return io.ErrUnexpectedEOF
}

// full fills b.
func (in *input) full(b []byte) error {
	for n := 0; n < len(b); {
		m, err := in.Read(b[n:])
		if n += m; err != nil && n < len(b) {
			return in.cut(err)
		}
	}
	return nil
}

// append adds n bytes to b, making room for no more than twice what has come.
func (in *input) append(b []byte, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, BlockSize)
		b = slices.Grow(b, step)
		b = b[:len(b)+step]
		if err := in.full(b[len(b)-step:]); err != nil {
			return b, err
		}
		n -= step
	}
	return b, nil
}

// long reads an Avro int or long.
func (in *input) long() (int64, error) {
	var u uint64
	for shift := 0; ; shift += 7 {
		c, err := in.ReadByte()
		if err != nil {
			return 0, in.cut(err)
		}
		if shift == 63 && c > 1 {
			return 0, bad("a number of more than 64 bits")
		}
		u |= uint64(c&0x7F) << shift
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), nil
		}
	}
}

// float reads a float or double.
func (in *input) float(double bool) (float64, error) {
	b := in.fixed[:]
	if !double {
		err := in.full(b[:4])
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), err
	}
	err := in.full(b)
	return math.Float64frombits(binary.LittleEndian.Uint64(b)), err
}

// parseTime reads an enqueued time, to Unix milliseconds. Newer Windows and .NET
// put a narrow no-break space before AM.
func parseTime(text []byte) (int64, bool) {
	const narrow = "\u202f"
	s := string(text)
	if i := len(s) - len(narrow) - 2; i > 0 && s[i:i+len(narrow)] == narrow {
		s = s[:i] + " " + s[i+len(narrow):]
	}
	t, err := time.Parse(timeFormat, s)
	if err != nil {
		return 0, false
	}
	return t.UnixMilli(), true
}
