package message

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/amqp/wire"
)

// TestPlainAgreesWithNext: what the short way takes for a section, the long way
// takes for the same.
func TestPlainAgreesWithNext(t *testing.T) {
	codes := []byte{wire.DescHeader, wire.DescMessageAnn, wire.DescProperties, wire.DescAppProperties, wire.DescData, wire.DescValue, wire.DescFooter, 0}
	formats := []byte{wire.CodeList0, wire.CodeList8, wire.CodeList32, wire.CodeMap8, wire.CodeMap32, wire.CodeBinary8, wire.CodeBinary32, wire.CodeString8, wire.CodeNull}
	r := rand.New(rand.NewPCG(1, 2))
	taken := map[byte]int{}
	for range 500_000 {
		b := []byte{wire.CodeDescribed, wire.CodeSmallUlong, codes[r.IntN(len(codes))], formats[r.IntN(len(formats))]}
		for range r.IntN(16) {
			b = append(b, byte(r.IntN(12))*byte(r.IntN(2)))
		}
		n := plain(b)
		if n == 0 {
			continue
		}
		s, rest, err := Next(b)
		if err != nil || len(b)-len(rest) != n || s.Code != b[2] {
			t.Fatalf("% x: %d bytes, the long way %d, %v", b, n, len(b)-len(rest), err)
		}
		taken[s.Code]++
	}
	for _, code := range []byte{wire.DescProperties, wire.DescAppProperties, wire.DescData} {
		if taken[code] < 100 {
			t.Errorf("sections 0x%02x were taken %d times", code, taken[code])
		}
	}
}
