package millrace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// nearest is a hint at the known key that was probably meant, or a list of all
// if none is near.
func nearest[V any](key string, known map[string]V) string {
	names := slices.Sorted(maps.Keys(known))
	best, least := "", max(2, len(key)/3)+1
	for _, name := range names {
		if d := distance(strings.ToLower(key), name, least); d < least {
			best, least = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; it can have " + strings.Join(names, ", ")
}

// distance is how many letters have to be put in, taken out, exchanged or
// swapped with their neighbour to turn a into b, if that is less than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
