package admin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseSize reads a size in bytes, with or without a unit: 500MB, 2GiB.
func ParseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "kKmMgGtTiIbB ")
	units := map[string]float64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
		"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
	unit, ok := units[strings.ToLower(strings.TrimSpace(s[len(number):]))]
	v, err := strconv.ParseFloat(number, 64)
	if size := v * unit; ok && err == nil && size >= 1 && size < math.MaxInt64/2 {
		return int64(size), nil
	}
	return 0, fmt.Errorf("%q is not a size such as 500MB or 2GiB", s)
}
