package admin

import (
	"testing"
	"time"
)

func TestRetention(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Duration
		text string
	}{
		{"7d", 7 * day, "7d"},
		{" 36H ", 36 * time.Hour, "1d12h"},
		{"1d12h", 36 * time.Hour, "1d12h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"1m30s", 90 * time.Second, "1m30s"},
		{"1m20.5s", 80*time.Second + 500*time.Millisecond, "1m20.5s"},
		{"1h", time.Hour, "1h"},
		{"10m", 10 * time.Minute, "10m"},
		{"100d", 100 * day, "100d"},
		{"forever", time.Duration(Forever), "forever"},
	} {
		r, err := ParseRetention(c.in)
		if err != nil || time.Duration(r) != c.want || r.String() != c.text {
			t.Errorf("%q: %v %q, %v; want %v %q", c.in, time.Duration(r), r, err, c.want, c.text)
		}
		if back, err := ParseRetention(r.String()); err != nil || back != r {
			t.Errorf("%q does not read back: %v, %v", r, back, err)
		}
	}
	for _, bad := range []string{"", "7", "d", "-1d", "7d-1h", "59s", "0d", "7x", "1.5d", "999999999d", "106751d24h", "ever"} {
		if r, err := ParseRetention(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, r)
		}
	}
}
