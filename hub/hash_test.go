package hub

import "testing"

// The vectors are those of the SDKs' tests (amqp.md 4.9).
func TestKeyHash(t *testing.T) {
	for key, want := range map[string]int16{
		"7": -15263, "131": 30562, "7149583486996073602": 12977, "FWfAT": -22341, "sOdeEAsyQoEuEFPGerWO": -6503,
		"!c*_!I@1^c": 15372, "$0cb": 26269, "-4189260826195535198": 453, "p4*!jioeO/z-!-;w:dh": -3104,
	} {
		if got := keyHash(key); got != want {
			t.Errorf("keyHash(%q) = %d, want %d", key, got, want)
		}
	}
	for _, c := range []struct {
		key     string
		n, want int
	}{{"alphabet", 3, 0}, {"alphabet", 11, 4}, {"TheBestParitionEver", 4, 2}} {
		if got := PartitionOf(c.key, c.n); got != c.want {
			t.Errorf("PartitionOf(%q, %d) = %d, want %d", c.key, c.n, got, c.want)
		}
	}
}
