// Package lg holds what every load generator shares: flags, broker process
// accounting from /proc, latency percentiles, pacing and one-line JSON results.
package lg

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config is the set of flags common to all generators.
type Config struct {
	Label, Addr, Topic, Mode string
	N, Size, Parts           int
	Rate                     int
	Duration                 time.Duration
	Settle                   time.Duration
	PIDs, DataDir            string
	Procs                    int
	Out                      string
}

// Flags registers the common flags; call flag.Parse afterwards.
func Flags(defAddr string) *Config {
	c := &Config{}
	flag.StringVar(&c.Label, "label", "peer", "name of the broker under test, copied to the result")
	flag.StringVar(&c.Addr, "addr", defAddr, "broker address")
	flag.StringVar(&c.Topic, "topic", "bench", "topic / event hub / stream / queue name")
	flag.StringVar(&c.Mode, "mode", "produce", "setup | produce | consume | latency (see README)")
	flag.IntVar(&c.N, "n", 1_000_000, "events to produce or consume")
	flag.IntVar(&c.Size, "size", 1024, "payload bytes per event")
	flag.IntVar(&c.Parts, "partitions", 1, "partitions (or streams/keys where the peer has none)")
	flag.IntVar(&c.Rate, "rate", 1000, "events/s in latency mode")
	flag.DurationVar(&c.Duration, "duration", 10*time.Second, "length of latency mode")
	flag.DurationVar(&c.Settle, "settle", 300*time.Millisecond, "wait before the closing broker sample, so that deferred work is counted")
	flag.StringVar(&c.PIDs, "pid", "", "broker pid(s), comma separated: CPU, RSS and write bytes are accounted")
	flag.StringVar(&c.DataDir, "datadir", "", "broker data directory: growth is reported as disk bytes per event")
	flag.IntVar(&c.Procs, "procs", 0, "client GOMAXPROCS (0: default)")
	flag.StringVar(&c.Out, "out", "", "append the JSON result to this file too")
	return c
}

// Parse parses flags and applies process-wide settings.
func (c *Config) Parse() {
	flag.Parse()
	if c.Procs > 0 {
		runtime.GOMAXPROCS(c.Procs)
	}
	debug.SetGCPercent(400) // the client is not what is measured
}

// Result is printed as one JSON line.
type Result struct {
	Tool, Label, Mode string
	Note              string `json:",omitempty"`
	Size, Partitions  int
	Events            int64
	WallS             float64
	EventsPerS        float64
	MBPerS            float64
	ClientCPUs        float64
	ClientCPUPerM     float64        // CPU seconds per million events
	BrokerCPUs        float64        `json:",omitempty"`
	BrokerCPUPerM     float64        `json:",omitempty"`
	BrokerUserPct     float64        `json:",omitempty"`
	RSSStartMB        float64        `json:",omitempty"`
	RSSPeakMB         float64        `json:",omitempty"`
	RSSEndMB          float64        `json:",omitempty"`
	WriteBPerEvent    float64        `json:",omitempty"` // block-layer write_bytes
	DiskBPerEvent     float64        `json:",omitempty"` // growth of -datadir
	Lat               map[string]Pct `json:",omitempty"`
	Time              string
}

// Pct is a set of latency percentiles in milliseconds.
type Pct struct {
	N                              int
	P50, P90, P99, P999, Max, Mean float64
}

// ProcSample is one reading of /proc for a set of pids.
type ProcSample struct {
	User, Sys  float64
	RSS        int64
	WriteBytes int64
}

// SamplePIDs sums /proc readings over pids.
func SamplePIDs(pids []int) (s ProcSample) {
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		t := string(b)
		f := strings.Fields(t[strings.LastIndexByte(t, ')')+2:])
		u, _ := strconv.ParseFloat(f[11], 64)
		k, _ := strconv.ParseFloat(f[12], 64)
		r, _ := strconv.ParseInt(f[21], 10, 64)
		s.User += u / 100
		s.Sys += k / 100
		s.RSS += r * int64(os.Getpagesize())
		if io, err := os.Open(fmt.Sprintf("/proc/%d/io", p)); err == nil {
			sc := bufio.NewScanner(io)
			for sc.Scan() {
				if v, ok := strings.CutPrefix(sc.Text(), "write_bytes: "); ok {
					n, _ := strconv.ParseInt(v, 10, 64)
					s.WriteBytes += n
				}
			}
			io.Close()
		}
	}
	return s
}

func selfCPU() float64 {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return float64(ru.Utime.Sec+ru.Stime.Sec) + float64(ru.Utime.Usec+ru.Stime.Usec)/1e6
}

// DirSize is the apparent size of the files under dir in bytes.
func DirSize(dir string) (n int64) {
	if dir == "" {
		return 0
	}
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if fi, err := d.Info(); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				n += st.Size // apparent: delayed allocation hides blocks that are not flushed yet
			}
		}
		return nil
	})
	return n
}

// Run is one measured interval.
type Run struct {
	c     *Config
	tool  string
	pids  []int
	start time.Time
	self0 float64
	p0    ProcSample
	disk0 int64
	peak  atomic.Int64
	stop  chan struct{}
	wg    sync.WaitGroup
	Note  string
}

// Begin opens a measured interval.
func (c *Config) Begin(tool string) *Run {
	r := &Run{c: c, tool: tool, stop: make(chan struct{})}
	for f := range strings.SplitSeq(c.PIDs, ",") {
		if n, err := strconv.Atoi(strings.TrimSpace(f)); err == nil {
			r.pids = append(r.pids, n)
		}
	}
	r.disk0 = DirSize(c.DataDir)
	runtime.GC()
	r.p0 = SamplePIDs(r.pids)
	r.peak.Store(r.p0.RSS)
	if len(r.pids) > 0 {
		r.wg.Go(func() {
			t := time.NewTicker(200 * time.Millisecond)
			defer t.Stop()
			for {
				select {
				case <-r.stop:
					return
				case <-t.C:
					if s := SamplePIDs(r.pids); s.RSS > r.peak.Load() {
						r.peak.Store(s.RSS)
					}
				}
			}
		})
	}
	r.self0 = selfCPU()
	r.start = time.Now()
	return r
}

// End closes the interval and prints the result.
func (r *Run) End(events int64, lat map[string]Pct) Result {
	wall := time.Since(r.start).Seconds()
	self := selfCPU() - r.self0
	if len(r.pids) > 0 {
		time.Sleep(r.c.Settle)
	}
	p1 := SamplePIDs(r.pids)
	close(r.stop)
	r.wg.Wait()
	res := Result{
		Tool: r.tool, Label: r.c.Label, Mode: r.c.Mode, Note: r.Note, Size: r.c.Size, Partitions: r.c.Parts,
		Events: events, WallS: wall, EventsPerS: float64(events) / wall,
		MBPerS:     float64(events) * float64(r.c.Size) / wall / 1e6,
		ClientCPUs: self, ClientCPUPerM: self / float64(events) * 1e6,
		Lat: lat, Time: time.Now().UTC().Format(time.RFC3339),
	}
	if len(r.pids) > 0 {
		u, k := p1.User-r.p0.User, p1.Sys-r.p0.Sys
		res.BrokerCPUs = u + k
		res.BrokerCPUPerM = (u + k) / float64(events) * 1e6
		if u+k > 0 {
			res.BrokerUserPct = 100 * u / (u + k)
		}
		res.RSSStartMB = float64(r.p0.RSS) / 1e6
		res.RSSPeakMB = float64(max(r.peak.Load(), p1.RSS)) / 1e6
		res.RSSEndMB = float64(p1.RSS) / 1e6
		res.WriteBPerEvent = float64(p1.WriteBytes-r.p0.WriteBytes) / float64(events)
	}
	if r.c.DataDir != "" {
		res.DiskBPerEvent = float64(DirSize(r.c.DataDir)-r.disk0) / float64(events)
	}
	b, _ := json.Marshal(res)
	fmt.Println(string(b))
	if r.c.Out != "" {
		if f, err := os.OpenFile(r.c.Out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
			f.Write(append(b, '\n'))
			f.Close()
		}
	}
	fmt.Fprintf(os.Stderr, "%-12s %-8s %6dB p%-3d %9.0f ev/s %8.1f MB/s  client %.2f cpu-s/M  broker %.2f cpu-s/M  rss %.0f→%.0f MB\n",
		res.Label, res.Mode, res.Size, res.Partitions, res.EventsPerS, res.MBPerS, res.ClientCPUPerM, res.BrokerCPUPerM, res.RSSStartMB, res.RSSPeakMB)
	return res
}

// Payloads hands out incompressible payloads without per-event generation cost.
type Payloads struct {
	buf  []byte
	size int
	off  int
}

// NewPayloads makes a source of payloads of size bytes.
func NewPayloads(size int) *Payloads {
	b := make([]byte, max(4<<20, size*2))
	rand.Read(b)
	return &Payloads{buf: b, size: size}
}

// Next returns a shared, read-only payload.
func (p *Payloads) Next() []byte {
	if p.off+p.size > len(p.buf) {
		p.off = 0
	}
	b := p.buf[p.off : p.off+p.size : p.off+p.size]
	p.off += 61
	return b
}

// Stamped returns a fresh payload that starts with t in nanoseconds.
func (p *Payloads) Stamped(t time.Time) []byte {
	b := make([]byte, max(p.size, 8))
	copy(b, p.Next())
	binary.LittleEndian.PutUint64(b, uint64(t.UnixNano()))
	return b
}

// Stamp reads the time written by Stamped.
func Stamp(b []byte) (time.Time, bool) {
	if len(b) < 8 {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.LittleEndian.Uint64(b))), true
}

// Recorder collects latencies.
type Recorder struct {
	mu sync.Mutex
	v  []time.Duration
}

// Add records one latency.
func (r *Recorder) Add(d time.Duration) { r.mu.Lock(); r.v = append(r.v, d); r.mu.Unlock() }

// Len is the number of records.
func (r *Recorder) Len() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.v) }

// Pct computes percentiles, dropping the first skip fraction as warm-up.
func (r *Recorder) Pct(skip float64) Pct {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := slices.Clone(r.v[int(float64(len(r.v))*skip):])
	if len(v) == 0 {
		return Pct{}
	}
	slices.Sort(v)
	at := func(q float64) float64 { return ms(v[min(len(v)-1, int(q*float64(len(v))))]) }
	var sum time.Duration
	for _, d := range v {
		sum += d
	}
	return Pct{N: len(v), P50: at(.5), P90: at(.9), P99: at(.99), P999: at(.999), Max: ms(v[len(v)-1]), Mean: ms(sum) / float64(len(v))}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// Pace calls send for every event due, giving it the time at which the event
// was scheduled (so that a stalled broker shows as latency: no coordinated omission).
func Pace(rate int, d time.Duration, send func(i int, due time.Time)) int {
	// time.Sleep rounds waits below a millisecond up to one; nanosleep does not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	gap := time.Duration(float64(time.Second) / float64(rate))
	total := int(float64(rate) * d.Seconds())
	for i := range total {
		due := start.Add(time.Duration(i) * gap)
		if w := time.Until(due); w > 0 {
			ts := syscall.NsecToTimespec(int64(w))
			_ = syscall.Nanosleep(&ts, nil)
		}
		send(i, due)
	}
	return total
}

// Die prints err and exits.
func Die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
