package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// benchResult is one measurement.
type benchResult struct {
	Client          string  `json:"client"`
	Run             string  `json:"run"`
	Events          int     `json:"events"`
	Size            int     `json:"size"`
	Partitions      int     `json:"partitions"`
	Seconds         float64 `json:"seconds"`
	EventsPerSecond float64 `json:"eventsPerSecond"`
	MBPerSecond     float64 `json:"megabytesPerSecond"` // of payload, 1e6 bytes
	// BrokerCPU is the broker's processor time, in seconds for a million events.
	BrokerCPU     *float64 `json:"brokerCPUSecondsPerMillion,omitempty"`
	BrokerPeakRSS int64    `json:"brokerPeakBytes,omitempty"` // since it started
	Ack           *latency `json:"acknowledged,omitempty"`
	Arrival       *latency `json:"arrived,omitempty"`
}

// latency is in milliseconds, from when the event was due, so that a stall is
// not hidden by the sender's waiting.
type latency struct {
	P50 float64 `json:"p50Milliseconds"`
	P90 float64 `json:"p90Milliseconds"`
	P99 float64 `json:"p99Milliseconds"`
	Max float64 `json:"maxMilliseconds"`
}

// String is the line for a person.
func (r *benchResult) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-4s %-8s %6d B", r.Client, r.Run, r.Size)
	if r.Ack == nil {
		fmt.Fprintf(&b, " %10.0f events/s %8.1f MB/s", r.EventsPerSecond, r.MBPerSecond)
	} else {
		fmt.Fprintf(&b, " %10.0f events/s  acknowledged %s  arrived %s", r.EventsPerSecond, r.Ack, r.Arrival)
	}
	if r.BrokerCPU != nil {
		fmt.Fprintf(&b, "   broker %.2f cpu-s/M, at most %d MB", *r.BrokerCPU, r.BrokerPeakRSS/1e6)
	}
	return b.String()
}

// String is the three figures that people ask for.
func (l *latency) String() string {
	return fmt.Sprintf("p50 %.2f p99 %.2f max %.2f ms", l.P50, l.P99, l.Max)
}

// percentiles leaves out the first tenth, in which everything warms up.
func percentiles(d []time.Duration) *latency {
	d = slices.Clone(d[len(d)/10:])
	if len(d) == 0 {
		return nil
	}
	slices.Sort(d)
	at := func(q float64) float64 { return d[min(len(d)-1, int(q*float64(len(d))))].Seconds() * 1e3 }
	return &latency{P50: at(.5), P90: at(.9), P99: at(.99), Max: at(1)}
}

// payloads hands out bytes that don't compress, without making them each time.
type payloads struct {
	mu   sync.Mutex
	pool []byte
	size int
	at   int
}

func newPayloads(size int) *payloads {
	p := &payloads{pool: make([]byte, max(4<<20, 2*size)), size: size}
	rand.Read(p.pool)
	return p
}

// next returns a payload that is not to be written to.
func (p *payloads) next() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at+p.size > len(p.pool) {
		p.at = 0
	}
	b := p.pool[p.at : p.at+p.size : p.at+p.size]
	p.at += 61
	return b
}

// stamped returns a payload that begins with a moment.
func (p *payloads) stamped(t time.Time) []byte {
	b := slices.Clone(p.next())
	binary.LittleEndian.PutUint64(b, uint64(t.UnixNano()))
	return b
}

func stampOf(b []byte) time.Time {
	if len(b) < 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.LittleEndian.Uint64(b)))
}

// durations are gathered by many goroutines.
type durations struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *durations) add(x time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, x)
}

func (d *durations) take() []time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

func (d *durations) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all)
}
