package once_test

import (
	"testing"
	"time"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
)

func BenchmarkMemory(b *testing.B) {
	ledgertest.Benchmark(b, once.NewMemory(time.Hour))
}

// BenchmarkWithout is what the others are to be compared with.
func BenchmarkWithout(b *testing.B) {
	ledgertest.Benchmark(b, nil)
}
