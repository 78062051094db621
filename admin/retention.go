package admin

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Retention is how long a hub keeps its events, written as people do: "7d",
// "36h", "1d12h", "90m", "forever". The zero value means: not set. Negative
// means for ever, as in hub.Settings.
type Retention time.Duration

// Forever keeps events without limit of time.
const Forever Retention = -1

const day = 24 * time.Hour

var errRetention = errors.New("a retention is a time such as 7d, 36h, 1d12h or 90m, a minute at least, or the word forever")

// ParseRetention reads what String prints, and any mixture of a number of days
// and a Go duration.
func ParseRetention(s string) (Retention, error) {
	fail := func() (Retention, error) { return 0, fmt.Errorf("%q: %w", s, errRetention) }
	rest := strings.ToLower(strings.TrimSpace(s))
	if rest == "forever" {
		return Forever, nil
	}
	var sum time.Duration
	if days, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return fail()
		}
		sum, rest = time.Duration(n)*day, after
		if rest == "" {
			rest = "0s"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || sum > math.MaxInt64-d {
		return fail()
	}
	if sum += d; sum < time.Minute {
		return fail()
	}
	return Retention(sum), nil
}

// String prints whole days as days, and "" for a retention that is not set.
func (r Retention) String() string {
	d := time.Duration(r)
	switch {
	case d < 0:
		return "forever"
	case d == 0:
		return ""
	}
	days, rest := d/day, d%day
	text := ""
	if days > 0 {
		text = strconv.FormatInt(int64(days), 10) + "d"
		if rest == 0 {
			return text
		}
	}
	text += rest.String()
	// 36h0m0s says no more than 36h.
	if cut, ok := strings.CutSuffix(text, "m0s"); ok {
		text = cut + "m"
	}
	if cut, ok := strings.CutSuffix(text, "h0m"); ok {
		text = cut + "h"
	}
	return text
}

// MarshalText implements encoding.TextMarshaler.
func (r Retention) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: "" is not set.
func (r *Retention) UnmarshalText(b []byte) (err error) {
	*r = 0
	if len(b) > 0 {
		*r, err = ParseRetention(string(b))
	}
	return err
}
