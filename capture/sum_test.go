package capture_test

import (
	"bytes"
	"hash/crc64"
	"testing"

	"github.com/millrace/millrace/capture"
)

// TestSum compares with the checksum as the Azure SDKs compute it.
func TestSum(t *testing.T) {
	data := bytes.Repeat([]byte("captured "), 5000)
	var out bytes.Buffer
	s := capture.Sum{W: &out}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+len(rest)/3)
		if m, err := s.Write(rest[:n]); m != n || err != nil {
			t.Fatal(m, err)
		}
		rest = rest[n:]
	}
	want := crc64.Checksum(data, crc64.MakeTable(0x9A6C9329AC4BC9B5))
	if s.CRC64 != want || s.Size != int64(len(data)) || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%x, %d bytes; not %x, %d", s.CRC64, s.Size, want, len(data))
	}
	if check := crc64.Checksum([]byte("123456789"), crc64.MakeTable(0x9A6C9329AC4BC9B5)); check != 0xAE8B14860A799888 {
		t.Errorf("the catalogue's check value is not %x", check)
	}
}
