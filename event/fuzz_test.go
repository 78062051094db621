package event_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/millrace/millrace/event"
)

// FuzzHeader reads whatever comes as a record's header, as it is and with a
// checksum that matches: it is refused with an error of ours, or is the same
// when it is written and read again. A body is taken only as long as announced.
func FuzzHeader(f *testing.F) {
	for _, h := range []event.Header{
		{},
		{Encoding: event.EncodingAMQP, Flags: event.FlagBatchStart | event.FlagBatchEnd, Count: 3, First: 7, Enqueued: 1_790_000_000_000, Epoch: 2, BodyLen: 5, BodyCRC: 1},
		{Count: 1<<32 - 1}, {BodyLen: 1<<32 - 1}, {First: -1}, {First: 1<<63 - 1, Count: 1},
		{Encoding: event.EncodingKafka, Count: 1<<31 - 1, First: 1 << 62, Enqueued: -1, Epoch: 1<<64 - 1, BodyLen: 1<<31 - 1,
			Producer: event.Producer{ID: -1, Epoch: -1, Sequence: -1, Set: true}},
	} {
		b := make([]byte, event.RecordHeaderSize)
		h.Encode(b)
		f.Add(b, []byte("body"))
		f.Add(b[:len(b)-1], []byte(nil))
		newer := bytes.Clone(b)
		newer[12]++
		f.Add(newer, []byte(nil))
	}
	f.Fuzz(func(t *testing.T, b, body []byte) {
		var h event.Header
		if err := h.Decode(b); err != nil && !errors.Is(err, event.ErrHeader) && !errors.Is(err, event.ErrVersion) {
			t.Fatal(err)
		}
		if len(b) < event.RecordHeaderSize {
			if err := h.Decode(b); !errors.Is(err, event.ErrHeader) {
				t.Fatalf("a header of %d bytes: %v", len(b), err)
			}
			return
		}
		b = bytes.Clone(b[:event.RecordHeaderSize])
		binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(body, event.Castagnoli))
		binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], event.Castagnoli))
		if err := h.Decode(b); err != nil {
			newer := b[12] != event.RecordVersion
			absurd := int8(b[8+3]) < 0 || int8(b[16+3]) < 0 || b[24+7] >= 0x7f // a number's highest byte
			if newer != errors.Is(err, event.ErrVersion) || !newer && (!absurd || !errors.Is(err, event.ErrHeader)) {
				t.Fatal(err)
			}
			return
		}
		if h.BodyLen < 0 || h.Count < 0 || h.First < 0 || h.Next() < h.First {
			t.Fatalf("%+v", h)
		}
		again := make([]byte, event.RecordHeaderSize)
		h.Encode(again)
		var x event.Header
		if err := x.Decode(again); err != nil || x != h {
			t.Fatalf("%+v becomes %+v, %v", h, x, err)
		}
		r := event.Record{Header: h, Body: body}
		if err := r.Check(); (err == nil) != (h.BodyLen == len(body)) || err != nil && !errors.Is(err, event.ErrBody) {
			t.Fatalf("a body of %d bytes, where %d are announced: %v", len(body), h.BodyLen, err)
		}
	})
}
