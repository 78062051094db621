package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// parsePosition reads where to start, as a flag has it: earliest, latest, @OFFSET,
// #SEQUENCE (both mean that event itself), -DURATION before now, or a moment in RFC
// 3339.
func parsePosition(flag, s string, now time.Time) (azeventhubs.StartPosition, error) {
	bad := fmt.Errorf("--%s %q is not one of earliest, latest, @OFFSET, #SEQUENCE, -DURATION (as in -15m), or a time such as %s", flag, s, now.UTC().Format(time.RFC3339))
	p := azeventhubs.StartPosition{Inclusive: true}
	yes := true
	switch {
	case s == "earliest":
		return azeventhubs.StartPosition{Earliest: &yes}, nil
	case s == "latest":
		return azeventhubs.StartPosition{Latest: &yes}, nil
	case strings.HasPrefix(s, "@"):
		// The cloud's offsets need not be numbers.
		offset := s[1:]
		if offset == "" || strings.ContainsAny(offset, "' ") {
			return p, bad
		}
		p.Offset = &offset
	case strings.HasPrefix(s, "#"):
		n, err := strconv.ParseInt(s[1:], 10, 64)
		if err != nil || n < 0 {
			return p, bad
		}
		p.SequenceNumber = &n
	case strings.HasPrefix(s, "-"):
		d, err := time.ParseDuration(s[1:])
		if err != nil || d < 0 {
			return p, bad
		}
		at := now.Add(-d)
		p.EnqueuedTime = &at
	default:
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return p, bad
		}
		p.EnqueuedTime = &at
	}
	return p, nil
}
