package main

import (
	"context"
	"runtime"
	"time"
)

// pace calls send for every event that is due, with the moment at which it was,
// and returns how many there were. A send that waits delays those after it,
// which then count as late: that is how a stall becomes visible.
func pace(ctx context.Context, rate int, d time.Duration, send func(i int, due time.Time)) int {
	runtime.LockOSThread() // sleeps shorter than a millisecond need the thread's own timer
	defer runtime.UnlockOSThread()
	gap := time.Duration(float64(time.Second) / float64(rate))
	total := max(1, int(float64(rate)*d.Seconds()))
	start := time.Now()
	for i := range total {
		due := start.Add(time.Duration(i) * gap)
		if wait := time.Until(due); wait > 0 {
			sleepExactly(wait)
		}
		if ctx.Err() != nil {
			return i
		}
		send(i, due)
	}
	return total
}

// arrivalTimeout is how long the last events may take to arrive.
const arrivalTimeout = 10 * time.Second

// awaitAll waits until everything has arrived, or it takes too long.
func awaitAll(ctx context.Context, arrivals *durations, total int) {
	ctx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for arrivals.len() < total {
		if pause(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}
