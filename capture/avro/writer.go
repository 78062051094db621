package avro

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

// Schema is the schema of a captured file as the service writes it, to the byte.
const Schema = `{"type":"record","name":"EventData","namespace":"Microsoft.ServiceBus.Messaging","fields":[` +
	`{"name":"SequenceNumber","type":"long"},` +
	`{"name":"Offset","type":"string"},` +
	`{"name":"EnqueuedTimeUtc","type":"string"},` +
	`{"name":"SystemProperties","type":{"type":"map","values":["long","double","string","bytes"]}},` +
	`{"name":"Properties","type":{"type":"map","values":["long","double","string","bytes","null"]}},` +
	`{"name":"Body","type":["null","bytes"]}]}`

const (
	// HeaderSize is the length of what stands before the first block, with
	// CodecNull. It is also that of an empty file with Options.HeaderOnly.
	HeaderSize = 490
	// EmptySize is the length of a file without events, with CodecNull: the header
	// and an empty block.
	EmptySize = HeaderSize + 2 + SyncSize
	// SyncSize is the length of a sync marker.
	SyncSize = 16
	// BlockSize is where a block ends: with the event that makes its events,
	// before they are compressed, that many bytes or more.
	BlockSize = 64 << 10
)

// Codec is how blocks are compressed. Its text is Avro's name for it.
type Codec string

// The codecs that the service writes: EncodingType Avro and AvroDeflate.
const (
	CodecNull    Codec = "null"
	CodecDeflate Codec = "deflate"
)

// Options say what a file is like beside its events.
type Options struct {
	// Codec is CodecNull if empty.
	Codec Codec
	// Sync is the sync marker: Marker's, for a file that must be the same when it
	// is written again.
	Sync [SyncSize]byte
	// HeaderOnly makes a file without events end after its header. The service's
	// has one empty block there, which some readers refuse (linkedin/goavro, some
	// releases of Spark).
	HeaderOnly bool
}

// Marker is the sync marker of the file whose window begins with an event of a
// partition: a hash of these, so that the file is the same when it is written
// again, and no two files' blocks are taken for each other's.
func Marker(namespace, hub string, partition uint32, first event.SequenceNumber) [SyncSize]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s %d:%s %d %d", len(namespace), namespace, len(hub), hub, partition, first))
	return [SyncSize]byte(sum[:])
}

// branches are those of the schema's unions, encoded.
var branches = [...]byte{row.Long: 0 << 1, row.Double: 1 << 1, row.String: 2 << 1, row.Bytes: 3 << 1, row.Null: 4 << 1}

// headRoom is for a block's two numbers, before its events.
const headRoom = 2 * binary.MaxVarintLen64

// passSize is the length from which the body that ends a block is written from
// where it lies.
const passSize = 16 << 10

var errClosed = errors.New("the captured file has been closed")

// Writer writes one file. It holds a block of about 64 KiB, and an event's
// properties, in memory, whatever the file's size and that of bodies; with
// CodecDeflate also a block compressed. It is for one goroutine. Every error is
// final: the file is then to be written anew.
type Writer struct {
	w    io.Writer
	opts Options
	err  error

	buf    []byte // headRoom, and the block's events
	count  int64  // events in the block
	events int64
	size   int64 // bytes written
	begun  bool

	second int64 // that time is the text of
	time   []byte
}

// NewWriter returns a writer of a file to w, which it neither buffers, beyond a
// block, nor closes. A codec that it does not know is the error of the first call.
func NewWriter(w io.Writer, opts Options) *Writer {
	wr := &Writer{w: w, opts: opts}
	switch opts.Codec {
	case "":
		wr.opts.Codec = CodecNull
	case CodecNull, CodecDeflate:
	default:
		wr.err = fmt.Errorf("captured files are not written with the codec %q", opts.Codec)
	}
	return wr
}

// Reset makes the writer one that goes on with a file to which the blocks of so
// many events have been written, or begins one if there are none; it keeps its
// memory. Size then counts from there.
func (w *Writer) Reset(to io.Writer, opts Options, events int64) {
	buf := w.buf
	*w = *NewWriter(to, opts)
	w.events, w.begun = events, events > 0
	if buf != nil {
		w.buf = buf[:headRoom]
	}
}

// Held is how many events have been added since the last whole block was written.
func (w *Writer) Held() int64 { return w.count }

// Size is how many bytes have been written so far; after Close, the file's size.
func (w *Writer) Size() int64 { return w.size }

// Events is how many events have been added.
func (w *Writer) Events() int64 { return w.events }

// Write adds an event, of which it keeps nothing. It fails for a row that the
// schema has no place for (a system property that is null), and when w fails.
func (w *Writer) Write(r *row.Row) error {
	if w.err != nil {
		return w.err
	}
	if w.buf == nil {
		w.buf = make([]byte, headRoom, headRoom+BlockSize+passSize+SyncSize)
	}
	b := binary.AppendVarint(w.buf, int64(r.Sequence))
	b = appendBytes(b, r.Offset)
	b = w.appendTime(b, r.Enqueued)
	for i := range r.System {
		if r.System[i].Value.Kind == row.Null {
			w.err = fmt.Errorf("event %d: the system property %q is null, which a captured file has no place for", r.Sequence, r.System[i].Name)
			return w.err
		}
	}
	b = appendMap(b, r.System)
	b = appendMap(b, r.Properties)
	if r.Body == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendVarint(append(b, 1<<1), int64(len(r.Body)))
	}
	w.count++
	w.events++
	full := len(b)-headRoom+len(r.Body) >= BlockSize
	if full && len(r.Body) >= passSize {
		w.buf = b
		w.flush(r.Body)
		return w.err
	}
	if w.buf = append(b, r.Body...); full {
		w.flush(nil)
	}
	return w.err
}

// Close writes what is left, and for a file without events the form that such a
// file has. It does not close what it writes to.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	switch {
	case w.count > 0:
		w.flush(nil)
	case w.events == 0 && w.opts.HeaderOnly:
		w.begin()
	case w.events == 0:
		w.buf = make([]byte, headRoom, headRoom+SyncSize)
		w.flush(nil)
	}
	if w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

// begin writes the header, once.
func (w *Writer) begin() {
	if w.begun {
		return
	}
	w.begun = true
	b := append(make([]byte, 0, HeaderSize+8), "Obj\x01"...)
	b = binary.AppendVarint(b, 2)
	b = appendBytes(appendBytes(b, "avro.codec"), string(w.opts.Codec))
	b = appendBytes(appendBytes(b, "avro.schema"), Schema)
	b = append(b, 0)
	w.put(append(b, w.opts.Sync[:]...))
}

// flush writes the block, of which body is the end if that is not in the buffer.
func (w *Writer) flush(body []byte) {
	w.begin()
	if w.opts.Codec == CodecDeflate {
		w.deflate(body)
	} else {
		b := w.head(w.buf, len(w.buf)-headRoom+len(body))
		if len(body) > 0 {
			w.put(b)
			w.put(body)
			w.put(w.opts.Sync[:])
		} else {
			w.put(append(b, w.opts.Sync[:]...))
		}
	}
	w.buf, w.count = w.buf[:headRoom], 0
	if cap(w.buf) > 4*BlockSize { // an event with very large properties
		w.buf = nil
	}
}

// head writes a block's numbers before the bytes that follow headRoom in b, and
// returns both.
func (w *Writer) head(b []byte, size int) []byte {
	var numbers [headRoom]byte
	n := len(binary.AppendVarint(binary.AppendVarint(numbers[:0], w.count), int64(size)))
	copy(b[headRoom-n:], numbers[:n])
	return b[headRoom-n:]
}

func (w *Writer) put(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.size += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write a captured file: %w", err)
	}
}

// appendBytes adds Avro's string or bytes. Its long is Go's varint.
func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func appendMap(b []byte, p []row.Property) []byte {
	if len(p) == 0 {
		return append(b, 0)
	}
	b = binary.AppendVarint(b, int64(len(p)))
	for i := range p {
		b = appendBytes(b, p[i].Name)
		v := &p[i].Value
		b = append(b, branches[v.Kind])
		switch v.Kind {
		case row.Long:
			b = binary.AppendVarint(b, v.Long)
		case row.Double:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Double))
		case row.String, row.Bytes:
			b = appendBytes(b, v.Text)
		}
	}
	return append(b, 0)
}

// appendTime adds the enqueued time as the service writes it: en-US, in UTC, cut
// to whole seconds. Events of a batch have the same, which is made once.
func (w *Writer) appendTime(b []byte, ms int64) []byte {
	second := ms / 1000
	if ms < second*1000 {
		second--
	}
	if second != w.second || w.time == nil {
		w.second = second
		w.time = time.Unix(second, 0).UTC().AppendFormat(w.time[:0], timeFormat)
	}
	return appendBytes(b, w.time)
}

// timeFormat is M/d/yyyy h:mm:ss tt in .NET.
const timeFormat = "1/2/2006 3:04:05 PM"
