package parquet

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// codec compresses pages with zstd, as the library's own does, but with a window
// that fits a page: the usual 8 MiB would have each encoder keep 16 MiB.
type codec struct{}

// windowSize is how far back a page's repetitions are looked for. Larger pages are
// those with large bodies.
const windowSize = 1 << 20

var encoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(windowSize),
		zstd.WithLowerEncoderMem(true),
		zstd.WithZeroFrames(true),
		zstd.WithEncoderCRC(false), // a page's header has one
	)
	if err != nil {
		return err
	}
	return e
}}

var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage))
	if err != nil {
		return err
	}
	return d
}}

// String is the codec's name.
func (codec) String() string { return "ZSTD" }

// CompressionCodec is the codec's number in a file.
func (codec) CompressionCodec() format.CompressionCodec { return format.Zstd }

// Encode compresses src into dst, which may grow.
func (codec) Encode(dst, src []byte) ([]byte, error) {
	x := encoders.Get()
	e, ok := x.(*zstd.Encoder)
	if !ok {
		err, _ := x.(error)
		return nil, fmt.Errorf("zstd: %w", err)
	}
	defer encoders.Put(e)
	return e.EncodeAll(src, dst[:0]), nil
}

// Decode decompresses src into dst, which may grow.
func (codec) Decode(dst, src []byte) ([]byte, error) {
	x := decoders.Get()
	d, ok := x.(*zstd.Decoder)
	if !ok {
		err, _ := x.(error)
		return nil, fmt.Errorf("zstd: %w", err)
	}
	defer decoders.Put(d)
	return d.DecodeAll(src, dst[:0])
}
