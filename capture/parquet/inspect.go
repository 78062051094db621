package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// What a file may say of itself. A writer's files stay far below.
const (
	maxFooter     = 8 << 20   // bytes
	maxPageHeader = 4 << 10   // bytes
	maxPage       = 128 << 20 // bytes, decompressed: a row group and the largest event
	maxPageValues = 8 << 20   // values: the properties of the largest event, and a page
	maxRows       = int64(1) << 40
)

// inspect reads a file's footer and the headers of all its pages before the library
// does, which makes room for whatever number it finds there.
func inspect(r io.ReaderAt, size int64) (*parquet.File, error) {
	if err := inspectFooter(r, size); err != nil {
		return nil, err
	}
	f, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if !parquet.EqualNodes(f.Schema(), schema) {
		return nil, bad("its columns are not those of a captured file")
	}
	groups := f.Metadata().RowGroups
	total := int64(0)
	for i := range groups {
		if n := groups[i].NumRows; n < 0 || n > maxRows || total > maxRows {
			return nil, bad("row group %d has %d rows", i, n)
		}
		total += groups[i].NumRows
		if len(groups[i].Columns) != leaves {
			return nil, bad("row group %d has %d columns", i, len(groups[i].Columns))
		}
		for j := range groups[i].Columns {
			if err := inspectColumn(r, size, &groups[i].Columns[j].MetaData); err != nil {
				return nil, fmt.Errorf("row group %d, column %d: %w", i, j, err)
			}
		}
	}
	return f, nil
}

// readFull reads from an offset; what is missing is the file's fault.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return bad("at byte %d: it ends too early", at+int64(n))
	}
	return fmt.Errorf("read a captured file at byte %d: %w", at, err)
}

func inspectFooter(r io.ReaderAt, size int64) error {
	const magic = "PAR1"
	if size < 12 {
		return bad("it has %d bytes", size)
	}
	var tail [8]byte
	if err := readFull(r, tail[:], size-8); err != nil {
		return err
	}
	if string(tail[4:]) != magic {
		return bad("it ends with % x, a Parquet file with % x", tail[4:], magic)
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	if n > maxFooter || n > size-12 {
		return bad("its footer has %d bytes, of %d in all", n, size)
	}
	footer := make([]byte, n)
	if err := readFull(r, footer, size-8-n); err != nil {
		return err
	}
	t := thrift{b: footer}
	if !t.structure(0, nil) || len(t.b) > 0 {
		return bad("its footer is damaged, %d bytes before the end of the file", len(t.b)+8)
	}
	return nil
}

// inspectColumn walks over a column chunk's pages.
func inspectColumn(r io.ReaderAt, size int64, m *format.ColumnMetaData) error {
	if m.Codec != format.Zstd {
		return bad("it is compressed with %s, not zstd", m.Codec)
	}
	at := m.DataPageOffset
	if m.DictionaryPageOffset != 0 {
		at = m.DictionaryPageOffset
	}
	if at < 4 || m.TotalCompressedSize < 0 || at > size || m.TotalCompressedSize > size-at ||
		m.DataPageOffset < at || m.DataPageOffset > at+m.TotalCompressedSize {
		return bad("its pages are said to lie from byte %d on, %d bytes, in a file of %d", at, m.TotalCompressedSize, size)
	}
	var buf [maxPageHeader]byte
	for end := at + m.TotalCompressedSize; at < end; {
		b := buf[:min(int64(len(buf)), end-at)]
		if err := readFull(r, b, at); err != nil {
			return err
		}
		var p page
		t := thrift{b: b}
		if !t.structure(0, p.field) {
			return bad("at byte %d: damaged, or no header of a page", at)
		}
		at += int64(len(b) - len(t.b))
		if err := p.check(end - at); err != nil {
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		if err := p.checkData(r, at); err != nil {
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		at += p.compressed
	}
	return nil
}

// page is what a page's header says.
type page struct {
	kind, uncompressed, compressed int64
	values, encoding               int64
	levels                         [2]int64 // bytes, not compressed
	plain                          bool     // not compressed
}

// field takes a number of the header, by its path: 5 and 8 are those of data pages,
// 7 of dictionaries.
func (p *page) field(parent, id int16, n int64) {
	switch {
	case parent == 0 && id == 1:
		p.kind = n
	case parent == 0 && id == 2:
		p.uncompressed = n
	case parent == 0 && id == 3:
		p.compressed = n
	case (parent == 5 || parent == 7 || parent == 8) && id == 1:
		p.values = n
	case (parent == 5 || parent == 7) && id == 2, parent == 8 && id == 4:
		p.encoding = n
	case parent == 8 && (id == 5 || id == 6):
		p.levels[id-5] = n
	case parent == 8 && id == 7:
		p.plain = n == 0
	}
}

func (p *page) check(left int64) error {
	kind := format.PageType(p.kind)
	switch {
	case kind != format.DataPageV2 && kind != format.DictionaryPage:
		return bad("a page of the kind %d", p.kind)
	case p.compressed < 0 || p.compressed > left || p.uncompressed < 0 || p.uncompressed > maxPage:
		return bad("a page of %d bytes, %d decompressed, where %d follow", p.compressed, p.uncompressed, left)
	case p.values < 0 || p.values > maxPageValues:
		return bad("a page of %d values", p.values)
	case p.levels[0] < 0 || p.levels[1] < 0 || p.levels[0]+p.levels[1] > min(p.compressed, p.uncompressed):
		return bad("a page of %d bytes, %d of them levels", p.compressed, p.levels[0]+p.levels[1])
	}
	switch format.Encoding(p.encoding) {
	case format.Plain, format.RLEDictionary:
		return nil
	}
	return bad("a page in the encoding %s", format.Encoding(p.encoding))
}

// maxBlock is what a block of zstd comes to at most.
const maxBlock = 128 << 10

// checkData looks at a page's frame of zstd: there must be one alone, it must end
// where the page does, and must not come to more than the page's header says, by
// what it says itself, to which the decompressor holds it, or else by its blocks.
func (p *page) checkData(r io.ReaderAt, at int64) error {
	levels := p.levels[0] + p.levels[1]
	size, want := p.compressed-levels, p.uncompressed-levels
	if p.plain || size == 0 {
		if size != want {
			return bad("a page of %d bytes, %d decompressed, that is not compressed", p.compressed, p.uncompressed)
		}
		return nil
	}
	at += levels
	b := make([]byte, min(size, zstd.HeaderMaxSize))
	if err := readFull(r, b, at); err != nil {
		return err
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return bad("a page that is not compressed with zstd: %v", err)
	}
	if h.Skippable || h.HasFCS && h.FrameContentSize != uint64(want) || h.DictionaryID != 0 {
		return bad("a page whose frame comes to %d bytes, not %d", h.FrameContentSize, want)
	}
	end, most := at+size, int64(0)
	for at, last := at+int64(h.HeaderSize), false; !last; {
		var head [3]byte
		if at+3 > end {
			return bad("a page whose frame is cut")
		}
		if err := readFull(r, head[:], at); err != nil {
			return err
		}
		x := int64(head[0]) | int64(head[1])<<8 | int64(head[2])<<16
		last = x&1 == 1
		n := x >> 3
		switch x >> 1 & 3 {
		case 0: // as it is
			most += n
		case 1: // a byte n times
			most += n
			n = 1
		default:
			most += maxBlock
		}
		if at += 3 + n; at > end || n > maxBlock {
			return bad("a page whose frame is cut")
		}
		if last && at != end && (!h.HasCheckSum || at+4 != end) {
			return bad("a page with something behind its frame")
		}
	}
	if !h.HasFCS && most > want+2*maxBlock {
		return bad("a page whose frame may come to %d bytes, where %d are announced", most, want)
	}
	return nil
}

// thrift walks over a structure in Thrift's compact protocol, which Parquet's footer
// and page headers are in.
type thrift struct {
	b     []byte
	items int // of lists, in all
}

const (
	maxThriftDepth = 16
	maxThriftItems = 1 << 17
)

// The compact protocol's types.
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI64    = 6 // 4 and 5 are shorter ones
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftStruct = 12
)

func (t *thrift) uvarint() (uint64, bool) {
	n, size := binary.Uvarint(t.b)
	if size <= 0 {
		return 0, false
	}
	t.b = t.b[size:]
	return n, true
}

func (t *thrift) skip(n uint64) bool {
	if n > uint64(len(t.b)) {
		return false
	}
	t.b = t.b[n:]
	return true
}

// structure walks over one, and calls number, if there is one, with the fields of
// the outermost structure and the one below that are integers and booleans.
func (t *thrift) structure(depth int, number func(parent, id int16, n int64)) bool {
	return t.fields(0, depth, number)
}

func (t *thrift) fields(parent int16, depth int, number func(parent, id int16, n int64)) bool {
	if depth > maxThriftDepth {
		return false
	}
	for id := int16(0); ; {
		if len(t.b) == 0 {
			return false
		}
		head := t.b[0]
		t.b = t.b[1:]
		if head == 0 {
			return true
		}
		if delta := head >> 4; delta != 0 {
			id += int16(delta)
		} else {
			n, ok := t.uvarint()
			if !ok {
				return false
			}
			id = int16(int64(n>>1) ^ -int64(n&1))
		}
		if !t.value(head&0xF, parent, id, depth, number) {
			return false
		}
	}
}

func (t *thrift) value(kind byte, parent, id int16, depth int, number func(parent, id int16, n int64)) bool {
	report := func(n int64) bool {
		if number != nil && depth < 2 {
			number(parent, id, n)
		}
		return true
	}
	switch kind {
	case thriftTrue:
		return report(1)
	case thriftFalse:
		return report(0)
	case thriftByte:
		return t.skip(1)
	case 4, 5, thriftI64:
		n, ok := t.uvarint()
		return ok && report(int64(n>>1)^-int64(n&1))
	case thriftDouble:
		return t.skip(8)
	case thriftBinary:
		n, ok := t.uvarint()
		return ok && t.skip(n)
	case thriftList, thriftSet:
		return t.list(depth)
	case thriftStruct:
		return t.fields(id, depth+1, number)
	}
	return false
}

func (t *thrift) list(depth int) bool {
	if len(t.b) == 0 {
		return false
	}
	head := t.b[0]
	t.b = t.b[1:]
	n := uint64(head >> 4)
	if n == 15 {
		var ok bool
		if n, ok = t.uvarint(); !ok {
			return false
		}
	}
	if n > uint64(maxThriftItems-t.items) || n > uint64(len(t.b)) { // each has a byte
		return false
	}
	t.items += int(n)
	for range n {
		kind := head & 0xF
		if kind == thriftTrue || kind == thriftFalse { // in lists a byte each
			kind = thriftByte
		}
		if !t.value(kind, -1, 0, depth+1, nil) {
			return false
		}
	}
	return true
}
