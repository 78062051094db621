package blob

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// recordVersion is the first byte of every record.
const recordVersion = 1

// pair is a metadata name, in lower case, and its value.
type pair [2]string

// The types of blobs, as x-ms-blob-type and lists spell them.
const (
	blockBlob  = "BlockBlob"
	appendBlob = "AppendBlob"
)

// blobRecord is a blob. Its bytes in Meta are
//
//	version 1 | uvarint: length of JSON | JSON | content, if it is inline
type blobRecord struct {
	Type     string
	ETag     uint64 // a tick
	Created  int64  // Unix milliseconds
	Modified int64  // Unix milliseconds, never backwards
	Size     int64

	ContentType     string `json:",omitempty"`
	ContentEncoding string `json:",omitempty"`
	ContentLanguage string `json:",omitempty"`
	CacheControl    string `json:",omitempty"`
	Disposition     string `json:",omitempty"`
	MD5             []byte `json:",omitempty"`
	Metadata        []pair `json:",omitempty"` // sorted by name

	// Segments are the files that make up the content; none if it is inline.
	Segments []segment `json:",omitempty"`
	// Appends counts the blocks of an append blob.
	Appends int `json:",omitempty"`

	Copy  *copyInfo `json:",omitempty"`
	Lease *lease    `json:",omitempty"`

	// BlocksBefore makes staged blocks up to this tick invisible: they have been
	// committed or dropped, and wait for the cleaner.
	BlocksBefore uint64 `json:",omitempty"`
	// Deleted keeps BlocksBefore of a blob that is gone until the cleaner is
	// done with its blocks.
	Deleted bool `json:",omitempty"`

	inline []byte
}

// segment is a run of a blob's content: a whole file.
type segment struct {
	Block string `json:",omitempty"` // its id, in a blob made by Put Block List
	File  string
	Size  int64
}

// copyInfo tells of the Copy Blob that made a blob.
type copyInfo struct {
	ID     string
	Source string
	At     int64 // Unix milliseconds
}

// stagedRecord is a block that waits for Put Block List; JSON after the version
// byte.
type stagedRecord struct {
	File  string
	Size  int64
	Stamp uint64 // a tick
	At    int64  // Unix milliseconds
}

// containerRecord is a container; JSON after the version byte.
type containerRecord struct {
	ID       string // part of the keys of its blobs
	ETag     uint64
	Modified int64    // Unix milliseconds
	Metadata []pair   `json:",omitempty"`
	Policies []policy `json:",omitempty"`
	Lease    *lease   `json:",omitempty"`
}

// policy is a stored access policy, as Set Container ACL names them.
type policy struct {
	ID, Start, Expiry, Permission string
}

func (r *blobRecord) encode() []byte {
	header := mustJSON(r)
	b := make([]byte, 0, 1+binary.MaxVarintLen64+len(header)+len(r.inline))
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, uint64(len(header)))
	b = append(b, header...)
	return append(b, r.inline...)
}

var errBadRecord = errors.New("a record in the store is damaged")

func decodeBlob(b []byte) (*blobRecord, error) {
	if len(b) < 2 || b[0] != recordVersion {
		return nil, fmt.Errorf("%w: unknown version", errBadRecord)
	}
	size, n := binary.Uvarint(b[1:])
	if n <= 0 || size > uint64(len(b)-1-n) {
		return nil, fmt.Errorf("%w: its header is cut off", errBadRecord)
	}
	header, inline := b[1+n:1+n+int(size)], b[1+n+int(size):]
	r := new(blobRecord)
	if err := json.Unmarshal(header, r); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadRecord, err)
	}
	if len(inline) > 0 {
		r.inline = inline
	}
	total := int64(len(inline))
	for _, s := range r.Segments {
		if s.Size < 0 || !validFileID(s.File) {
			return nil, fmt.Errorf("%w: it has an impossible segment", errBadRecord)
		}
		total += s.Size
	}
	if total != r.Size || len(inline) > 0 && len(r.Segments) > 0 {
		return nil, fmt.Errorf("%w: its content has %d bytes, not %d", errBadRecord, total, r.Size)
	}
	return r, nil
}

// encodeJSON and decodeJSON are for the records without content.
func encodeJSON(v any) []byte { return append([]byte{recordVersion}, mustJSON(v)...) }

func decodeJSON(b []byte, v any) error {
	if len(b) == 0 || b[0] != recordVersion {
		return fmt.Errorf("%w: unknown version", errBadRecord)
	}
	if err := json.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("%w: %w", errBadRecord, err)
	}
	return nil
}

// mustJSON encodes our own records, which hold nothing that JSON can't.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// live tells whether there is a blob: r may be nil, or keep the place of a
// deleted one.
func (r *blobRecord) live() bool { return r != nil && !r.Deleted }

// stamp gives a record a new ETag and its times. old is what it replaces, nil
// for nothing.
func (s *Service) stamp(ctx context.Context, r, old *blobRecord) (err error) {
	now := s.now().UnixMilli()
	r.Created, r.Modified = now, now
	var after uint64
	if old != nil {
		after = old.ETag
		r.BlocksBefore = max(r.BlocksBefore, old.BlocksBefore)
		// Last-Modified must not step back with the clock: owners of partitions
		// would look expired.
		r.Modified = max(now, old.Modified)
		if !old.Deleted {
			r.Created = old.Created
		}
	}
	r.ETag, err = s.tick(ctx, after)
	return err
}

// etagText is an ETag without quotes: "0x" and at least 15 upper-case
// hexadecimal digits.
func etagText(tick uint64) string {
	hex := strings.ToUpper(strconv.FormatUint(tick, 16))
	return "0x" + strings.Repeat("0", max(0, 15-len(hex))) + hex
}

// httpTime is a time of a record as headers and lists write it.
func httpTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(http.TimeFormat) }

const (
	metaPrefix  = "x-ms-meta-"
	maxMetadata = 8 << 10
)

// readMetadata takes a blob's or container's metadata from request headers:
// names in lower case (net/http has lost their case), sorted; values as sent,
// empty ones too. Source: blob.md 1.2, 2.1, 5.14.
func readMetadata(h http.Header) ([]pair, error) {
	var m []pair
	size := 0
	for name, values := range h {
		lower := strings.ToLower(name)
		key, ok := strings.CutPrefix(lower, metaPrefix)
		if !ok {
			continue
		}
		value := strings.TrimSpace(strings.Join(values, ","))
		if key == "" {
			return nil, newError(codeEmptyMetadataKey, "The key for one of the metadata key-value pairs is empty.")
		}
		if !validIdentifier(key) || !validMetadataValue(value) {
			return nil, newError(codeInvalidMetadata, "The specified metadata is invalid. It includes characters that are not permitted.")
		}
		size += len(key) + len(value)
		m = append(m, pair{key, value})
	}
	if size > maxMetadata {
		return nil, newError(codeMetadataTooLarge, "The metadata takes up %d bytes, more than %d.", size, maxMetadata)
	}
	slices.SortFunc(m, func(a, b pair) int { return strings.Compare(a[0], b[0]) })
	return m, nil
}

// validIdentifier tells whether a name is one of C#'s, of those that a header
// can hold.
func validIdentifier(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func validMetadataValue(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x7f || s[i] < ' ' && s[i] != '\t' {
			return false
		}
	}
	return true
}

// setMetadata writes metadata as response headers.
func (req *request) setMetadata(m []pair) {
	for _, p := range m {
		req.set(metaPrefix+p[0], p[1])
	}
}

// setVersion writes the headers that tell one state from another.
func (req *request) setVersion(etag uint64, modified int64) {
	req.set("ETag", `"`+etagText(etag)+`"`)
	req.set("Last-Modified", httpTime(modified))
}
