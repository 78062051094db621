package wire

import (
	"math/rand/v2"
	"testing"
)

// TestTransferInCommonForm: whatever the short way to a transfer's fields reads,
// the long way reads the same.
func TestTransferInCommonForm(t *testing.T) {
	pieces := [][]byte{
		{CodeNull}, {CodeUint0}, {CodeSmallUint, 7}, {CodeUint, 1, 2, 3, 4}, {CodeTrue}, {CodeFalse}, {CodeBool, 1},
		{CodeBinary8, 2, 'a', 'b'}, {CodeBinary8, 0}, {CodeBinary32, 0, 0, 0, 1, 'x'}, {CodeUbyte, 0}, {CodeSmallUlong, 9},
		{CodeDescribed, CodeSmallUlong, DescAccepted, CodeList0}, {0x3F}, {CodeUint, 1}, {CodeBinary8, 200},
	}
	likely := [][]byte{{CodeSmallUint, 1}, {CodeUint, 0, 0, 1, 0}, {CodeBinary8, 1, 'x'}, {CodeUint0}, {CodeFalse}, {CodeTrue}, {CodeNull}, {CodeNull}, {CodeNull}, {CodeTrue}}
	r := rand.New(rand.NewPCG(1, 2))
	common := 0
	for range 200_000 {
		n := r.IntN(12)
		var items Items
		for i := range n {
			piece := pieces[r.IntN(len(pieces))]
			if i < len(likely) && r.IntN(4) > 0 {
				piece = likely[i]
			}
			items.rest = append(items.rest, piece...)
		}
		items.left = n + r.IntN(8)/7
		var short, long Transfer
		if !short.decodeCommon(items) {
			continue
		}
		common++
		if err := long.decodeAny(items); err != nil || short != long {
			t.Fatalf("% x, %d items: %+v, the long way %+v, %v", items.rest, items.left, short, long, err)
		}
	}
	if common < 1000 {
		t.Errorf("the short way was taken %d times", common)
	}
}
