package capture

import (
	"fmt"
	"io"

	"github.com/minio/crc64nvme"
)

// Sum is a writer in front of another that knows what has gone through it: enough
// to tell later whether a file is the one that was meant. The zero value, with W
// set, is ready.
type Sum struct {
	W    io.Writer
	Size int64 // bytes that W took
	// CRC64 is their checksum as Azure Storage has it in x-ms-content-crc64
	// (CRC-64/NVME: the polynomial 0x9A6C9329AC4BC9B5, reflected). It is made for
	// accidents, not against people.
	CRC64 uint64
}

// Write implements io.Writer.
func (s *Sum) Write(b []byte) (int, error) {
	n, err := s.W.Write(b)
	if n < 0 || n > len(b) {
		return 0, fmt.Errorf("a writer took %d of %d bytes", n, len(b))
	}
	s.Size += int64(n)
	s.CRC64 = crc64nvme.Update(s.CRC64, b[:n])
	return n, err
}
