package avro

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/flate"

	"github.com/millrace/millrace/capture/row"
	"github.com/millrace/millrace/event"
)

// MaxEvent is how many bytes of text, names and bodies an event may have; more
// than any tier of the service takes. A file that says otherwise is refused.
const MaxEvent = 64 << 20

// maxProperties is how many properties of one kind an event may have.
const maxProperties = 1 << 20

// FormatError says where a file is not what a captured file has to be.
type FormatError struct {
	// Offset is the file's byte at which, or shortly after which, the error is.
	// Within a compressed block it is that of the block.
	Offset int64
	Detail string
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("not a captured Avro file, at byte %d: %s", e.Offset, e.Detail)
}

// Reader reads a captured file: ours, the service's, and any Avro container whose
// schema has the same fields with the same or like types, in whatever order; other
// fields of simple types are passed over. It keeps one event in memory, and takes
// no length in a file for true before the bytes are there. It is for one goroutine.
type Reader struct {
	file   input
	codec  Codec
	schema string
	sync   [SyncSize]byte
	fields []field

	block input         // the block's events
	start int64         // where the block begins
	left  int64         // events left in it
	open  bool          // a block has been begun
	flate io.Reader     // kept, and used again
	plain *bufio.Reader // in front of flate

	row      row.Row
	bytes    []byte // what the row has views into
	time     int64  // that timeText says: events have the same by the batch
	timeText []byte
	events   int64
	err      error
}

// NewReader reads a file's header from r. Errors: *FormatError, and what r returns.
func NewReader(r io.Reader) (*Reader, error) {
	rd := &Reader{file: input{r: bufio.NewReaderSize(r, BlockSize), left: -1}}
	if err := rd.header(); err != nil {
		return nil, rd.fail(err)
	}
	return rd, nil
}

// Codec is the file's.
func (r *Reader) Codec() Codec { return r.codec }

// Schema is the file's, as it stands there.
func (r *Reader) Schema() string { return r.schema }

// Offset is how many bytes of the file have been read.
func (r *Reader) Offset() int64 { return r.file.at }

// Next returns the next event, which lasts until the next call, and io.EOF after
// the last. Other errors: *FormatError, and what the file's reader returns; they
// are final.
func (r *Reader) Next() (*row.Row, error) {
	if r.err != nil {
		return nil, r.err
	}
	if err := r.next(); err != nil {
		r.err = r.fail(err)
		return nil, r.err
	}
	return &r.row, nil
}

// fail says where an error happened.
func (r *Reader) fail(err error) error {
	var f *FormatError
	switch {
	case errors.Is(err, io.EOF) || errors.As(err, &f):
		return err
	case errors.Is(err, errFormat):
		return &FormatError{r.where(), err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &FormatError{r.where(), "it ends in the middle"}
	}
	return fmt.Errorf("read a captured file at byte %d: %w", r.file.at, err)
}

func (r *Reader) where() int64 {
	if r.open && r.codec == CodecDeflate {
		return r.start
	}
	return r.file.at
}

// next reads the next event.
func (r *Reader) next() error {
	for r.left == 0 {
		if r.open {
			if err := r.end(); err != nil {
				return err
			}
		}
		if err := r.begin(); err != nil {
			return err
		}
	}
	r.left--
	if cap(r.bytes) > 1<<20 {
		r.bytes = nil
	}
	r.bytes = r.bytes[:0]
	r.row = row.Row{System: empty(r.row.System), Properties: empty(r.row.Properties)}
	for i := range r.fields {
		if err := r.field(&r.fields[i]); err != nil {
			return fmt.Errorf("event %d of the file, field %s: %w", r.events, r.fields[i].name, err)
		}
	}
	r.events++
	return nil
}

func empty(p []row.Property) []row.Property {
	if cap(p) > 1024 {
		return nil
	}
	return p[:0]
}

// begin reads a block's numbers; io.EOF at the end of the file.
func (r *Reader) begin() error {
	r.start = r.file.at
	if _, err := r.file.r.Peek(1); err != nil {
		return err
	}
	r.open = true
	count, err := r.file.long()
	if err != nil {
		return err
	}
	size, err := r.file.long()
	if err != nil {
		return err
	}
	if count < 0 || size < 0 || count > 0 && size == 0 {
		return bad("a block of %d events in %d bytes", count, size)
	}
	r.left = count
	if r.codec == CodecNull {
		if count > size { // an event has a byte at least
			return bad("a block of %d events in %d bytes", count, size)
		}
		r.file.left = size
		return nil
	}
	r.file.left = size
	if size == 0 { // the empty block, for which nothing was compressed
		r.plain.Reset(nothing{})
	} else {
		if err := r.flate.(flate.Resetter).Reset(&r.file, nil); err != nil {
			return err
		}
		r.plain.Reset(r.flate)
	}
	r.block = input{r: r.plain, left: -1, inner: true}
	return nil
}

type nothing struct{}

// Read implements io.Reader.
func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// end reads what follows a block's events.
func (r *Reader) end() error {
	if r.codec == CodecDeflate {
		if _, err := r.block.r.ReadByte(); err == nil {
			return bad("the block has more than its events")
		} else if !errors.Is(err, io.EOF) {
			return inBlock(err)
		}
	}
	if r.file.left > 0 {
		return bad("the block has %d bytes more than its events", r.file.left)
	}
	r.file.left = -1
	var sync [SyncSize]byte
	if err := r.file.full(sync[:]); err != nil {
		return err
	}
	if sync != r.sync {
		return bad("the sync marker after a block is not the file's")
	}
	r.open = false
	return nil
}

// inBlock says what an error of the decompressor is.
func inBlock(err error) error {
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) {
		return bad("a compressed block is damaged: %v", err)
	}
	return err
}

// data is where events are read from.
func (r *Reader) data() *input {
	if r.codec == CodecDeflate {
		return &r.block
	}
	return &r.file
}

// field reads one field of an event into the row.
func (r *Reader) field(f *field) error {
	if f.isMap {
		var into *[]row.Property
		switch f.name {
		case "SystemProperties":
			into = &r.row.System
		case "Properties":
			into = &r.row.Properties
		}
		return r.properties(&f.types, into)
	}
	v, err := r.value(&f.types)
	if err != nil {
		return err
	}
	switch f.name {
	case "SequenceNumber":
		r.row.Sequence = event.SequenceNumber(v.Long)
	case "Offset":
		if r.row.Offset = v.Text; v.Kind == row.Long {
			at := len(r.bytes)
			r.bytes = strconv.AppendInt(r.bytes, v.Long, 10)
			r.row.Offset = r.bytes[at:len(r.bytes):len(r.bytes)]
		}
	case "EnqueuedTimeUtc":
		if r.timeText == nil || !bytes.Equal(v.Text, r.timeText) {
			ms, ok := parseTime(v.Text)
			if !ok {
				return bad("%.40q is no time of the form M/d/yyyy h:mm:ss AM", v.Text)
			}
			r.time, r.timeText = ms, append(r.timeText[:0], v.Text...)
		}
		r.row.Enqueued = r.time
	case "Body":
		r.row.Body = v.Text
	}
	return nil
}

// properties reads a map; into is nil for a field that is passed over.
func (r *Reader) properties(values *types, into *[]row.Property) error {
	in := r.data()
	for total := 0; ; {
		n, err := in.long()
		if err != nil {
			return err
		}
		if n < 0 { // the block's size follows
			if _, err := in.long(); err != nil {
				return err
			}
			n = -n
		}
		if n == 0 {
			return nil
		}
		if n < 0 || n > int64(maxProperties-total) {
			return bad("a map of more than %d entries", maxProperties)
		}
		total += int(n)
		for range n {
			name, err := r.text()
			if err != nil {
				return err
			}
			v, err := r.value(values)
			if err != nil {
				return err
			}
			if into != nil && (v.Kind != row.Null || into != &r.row.System) {
				*into = append(*into, row.Property{Name: name, Value: v})
			}
		}
	}
}

// value reads a value of one of the types.
func (r *Reader) value(t *types) (row.Value, error) {
	in := r.data()
	of := t.of[0]
	if t.union {
		n, err := in.long()
		if err != nil {
			return row.Value{}, err
		}
		if n < 0 || n >= int64(len(t.of)) {
			return row.Value{}, bad("branch %d of a union of %d", n, len(t.of))
		}
		of = t.of[n]
	}
	switch of {
	case typeNull:
		return row.Value{}, nil
	case typeBoolean:
		err := in.full(in.fixed[:1])
		text := "False"
		if in.fixed[0] != 0 {
			text = "True"
		}
		return row.Value{Kind: row.String, Text: []byte(text)}, err
	case typeLong:
		n, err := in.long()
		return row.Value{Kind: row.Long, Long: n}, err
	case typeFloat, typeDouble:
		f, err := in.float(of == typeDouble)
		return row.Value{Kind: row.Double, Double: f}, err
	case typeString:
		text, err := r.text()
		return row.Value{Kind: row.String, Text: text}, err
	}
	text, err := r.text()
	return row.Value{Kind: row.Bytes, Text: text}, err
}

// text reads a string or bytes. It makes room as the bytes come.
func (r *Reader) text() ([]byte, error) {
	in := r.data()
	n, err := in.long()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(MaxEvent-len(r.bytes)) {
		return nil, bad("text or bytes of %d, where an event has %d at most", n, MaxEvent)
	}
	if in.left >= 0 && n > in.left {
		return nil, bad("text or bytes of %d, with %d left in the block", n, in.left)
	}
	if r.bytes == nil {
		r.bytes = make([]byte, 0, 4<<10)
	}
	at := len(r.bytes)
	if r.bytes, err = in.append(r.bytes, int(n)); err != nil {
		return nil, err
	}
	return r.bytes[at:len(r.bytes):len(r.bytes)], nil
}
