package millrace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/store/segment"
)

// Verdict is what the doctor thinks of one thing.
type Verdict string

// The verdicts.
const (
	Good    Verdict = "good"
	Warning Verdict = "warning" // works, but not as well as it could
	Bad     Verdict = "bad"     // the broker would not start, or lose what it promises
)

// Finding is one thing that the doctor looked at.
type Finding struct {
	Subject string  `json:"subject"`
	Verdict Verdict `json:"verdict"`
	// Text says what was found, and Advice what to do about it, if anything.
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// SyncCost is how long it takes to write 4 KiB and have it on stable storage.
type SyncCost struct {
	Samples int           `json:"samples"`
	P50     time.Duration `json:"p50Nanoseconds"`
	P99     time.Duration `json:"p99Nanoseconds"`
}

// Diagnosis is what the doctor found.
type Diagnosis struct {
	Findings []Finding `json:"findings"`
	// Append and Overwrite are the cost of a sync when a file grows, and when
	// its blocks are there already, as the broker's journal does it.
	Append    SyncCost `json:"append"`
	Overwrite SyncCost `json:"overwrite"`
}

// Worst is the gravest verdict.
func (d *Diagnosis) Worst() Verdict {
	worst := Good
	for _, f := range d.Findings {
		if f.Verdict == Bad || f.Verdict == Warning && worst == Good {
			worst = f.Verdict
		}
	}
	return worst
}

func (d *Diagnosis) add(subject string, v Verdict, advice, format string, args ...any) {
	d.Findings = append(d.Findings, Finding{subject, v, fmt.Sprintf(format, args...), advice})
}

// Doctor looks at what a broker with these options would need of this machine:
// its ports, disk, descriptors and clock, and the state of the data folder. It
// changes nothing; to measure the disk it makes a temporary file in the data
// folder, or above it where there is none yet, and removes it.
func Doctor(ctx context.Context, o Options) (*Diagnosis, error) {
	c, err := o.check()
	if err != nil {
		return nil, err
	}
	d := &Diagnosis{}
	running := d.checkFolder(c)
	d.checkPorts(ctx, c, running)
	dir := existing(c.Data)
	if c.Ephemeral {
		dir = os.TempDir()
	}
	d.checkSpace(c, dir)
	if err := d.measureSync(ctx, dir); err != nil {
		d.add("disk", Bad, "give the folder to the user that runs the broker, or choose another one with --data", "a file can't be written in %s: %v", dir, err)
	}
	d.checkDescriptors()
	d.checkClock(dir)
	return d, ctx.Err()
}

// existing is the folder itself, or the nearest one above it that is there.
func existing(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "."
	}
	for {
		if st, err := os.Stat(abs); err == nil && st.IsDir() {
			return abs
		}
		up := filepath.Dir(abs)
		if up == abs {
			return abs
		}
		abs = up
	}
}

// checkFolder returns the error that names the broker that has the folder open,
// if one has.
func (d *Diagnosis) checkFolder(c *checked) (running error) {
	const subject = "data folder"
	if c.Ephemeral {
		d.add(subject, Good, "", "temporary, below %s", os.TempDir())
		return nil
	}
	if _, err := os.Stat(c.Data); errors.Is(err, fs.ErrNotExist) {
		d.add(subject, Good, "", "%s is not there yet; the broker will make it", c.Data)
		return nil
	}
	// A context that has ended keeps Verify from reading the segments: what it
	// does before that is to look at the folder and its database.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := segment.Verify(ended, segment.Options{Dir: c.Data}, nil)
	const verify = "run millrace verify, and restore what it names from a backup"
	switch {
	case errors.Is(err, segment.ErrInUse):
		d.add(subject, Good, "", "%s is open in a running broker", c.Data)
		return err
	case errors.Is(err, segment.ErrNewer):
		d.add(subject, Bad, "run the newer version, or choose another folder with --data", "%v", err)
	case errors.Is(err, fs.ErrNotExist):
		d.add(subject, Good, "", "%s holds no events yet", c.Data)
	case err != nil && !errors.Is(err, context.Canceled):
		d.add(subject, Bad, verify, "%v", err)
	case len(r.Damage) > 0:
		d.add(subject, Bad, verify, "%s is damaged: %v", c.Data, r.Damage[0])
	case r.Unclean:
		d.add(subject, Good, "", "%s was left by a crash or a kill; the next start recovers it", c.Data)
	default:
		d.add(subject, Good, "", "%s was closed in good order", c.Data)
	}
	return nil
}

func (d *Diagnosis) checkPorts(ctx context.Context, c *checked, running error) {
	for _, name := range Doors() {
		a := c.listen[name]
		if a.off {
			continue
		}
		open, err := openDoor(ctx, name, a)
		if taken := (*DoorError)(nil); errors.As(err, &taken) && taken.ownedBy(running) {
			d.add("door "+string(name), Good, "", "%s is that broker's", taken.Address)
			continue
		}
		if err != nil {
			d.add("door "+string(name), Bad, "", "%v", err)
			continue
		}
		d.add("door "+string(name), Good, "", "%s is free", open.addr())
		open.close()
	}
}

// ownedBy tells whether the process that has the port is the one that an error of
// segment.ErrInUse names.
func (e *DoorError) ownedBy(running error) bool {
	process, _, ok := strings.Cut(e.Owner, " (")
	return ok && running != nil && strings.Contains(running.Error(), "("+process+")")
}

func (d *Diagnosis) checkSpace(c *checked, dir string) {
	free, total := freeSpace(dir)
	if total == 0 {
		d.add("disk space", Warning, "", "the system does not say how much space is free in %s", dir)
		return
	}
	reserve := min(uint64(1<<30), total/20)
	if c.Reserve != 0 {
		reserve = uint64(max(0, c.Reserve))
	}
	text := fmt.Sprintf("%s free of %s; events are refused below %s", bytesText(free), bytesText(total), bytesText(reserve))
	switch {
	case free <= reserve:
		d.add("disk space", Bad, "make room, or set a smaller reserve in the configuration file", "%s", text)
	case free < 2*reserve:
		d.add("disk space", Warning, "make room before it runs out", "%s", text)
	default:
		d.add("disk space", Good, "", "%s", text)
	}
}

func bytesText(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

const (
	syncSamples = 400
	syncBlock   = 4 << 10
)

// measureSync times writes with a sync each, with the calls that the broker uses.
func (d *Diagnosis) measureSync(ctx context.Context, dir string) error {
	tmp, err := os.MkdirTemp(dir, ".millrace-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	f, err := segment.NewDisk(tmp).Open("sync", true)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, syncBlock)
	pass := func() (SyncCost, error) {
		times := make([]time.Duration, 0, syncSamples)
		for i := range syncSamples {
			if err := ctx.Err(); err != nil {
				return SyncCost{}, err
			}
			start := time.Now()
			if err := f.WriteAt([][]byte{block}, int64(i)*syncBlock); err != nil {
				return SyncCost{}, err
			}
			if err := f.Sync(); err != nil {
				return SyncCost{}, err
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		return SyncCost{syncSamples, times[syncSamples/2], times[syncSamples*99/100]}, nil
	}
	if d.Append, err = pass(); err != nil {
		return err
	}
	if d.Overwrite, err = pass(); err != nil {
		return err
	}
	d.judgeSync()
	return nil
}

// A disk that syncs faster than this has not really done it, as far as any
// known to us; one that takes longer makes every producer wait.
const (
	syncTooFast = 10 * time.Microsecond
	syncSlow    = 10 * time.Millisecond
)

func (d *Diagnosis) judgeSync() {
	text := fmt.Sprintf("4 KiB written and synced: appending p50 %s, p99 %s; overwriting p50 %s, p99 %s",
		d.Append.P50.Round(time.Microsecond), d.Append.P99.Round(time.Microsecond), d.Overwrite.P50.Round(time.Microsecond), d.Overwrite.P99.Round(time.Microsecond))
	switch p50 := d.Overwrite.P50; {
	case p50 < syncTooFast:
		d.add("disk sync", Warning, "if the data must survive a loss of power, put the folder on a disk that is one", "%s: too fast for stable storage; is this memory, or a disk that lies?", text)
	case p50 > syncSlow:
		d.add("disk sync", Warning, "batch events, choose a faster disk, or accept a small loss on power failure with --sync interval=50ms", "%s: a producer that waits for each acknowledgement sends about %d batches a second", text, time.Second/p50)
	default:
		d.add("disk sync", Good, "", "%s: about %d acknowledged rounds a second, each for all who wait", text, time.Second/p50)
	}
}

// wantedDescriptors is what a thousand connections and partitions need.
const wantedDescriptors = 4096

func (d *Diagnosis) checkDescriptors() {
	soft, hard, ok := descriptorLimit()
	switch {
	case !ok:
	case hard < wantedDescriptors:
		d.add("file descriptors", Warning, fmt.Sprintf("raise it, as with ulimit -n %d or LimitNOFILE= in a service file", wantedDescriptors), "the limit is %d: each connection and each busy partition takes one", hard)
	default:
		d.add("file descriptors", Good, "", "the limit is %d (Go raises it to %d)", soft, hard)
	}
}

// clockTolerance is how far the clock may be from the disk's.
const clockTolerance = 2 * time.Second

// released is a time before which no clock can rightly stand.
var released = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (d *Diagnosis) checkClock(dir string) {
	const advice = "let the system keep time over the network: tokens and retention depend on it"
	now := time.Now()
	if now.Before(released) {
		d.add("clock", Bad, advice, "it stands at %s, before this program was written", now.UTC().Format(time.RFC3339))
		return
	}
	if f, err := os.CreateTemp(dir, ".millrace-doctor-*"); err == nil {
		st, err := f.Stat()
		f.Close()
		os.Remove(f.Name())
		if err == nil && st.ModTime().Sub(now).Abs() > clockTolerance {
			d.add("clock", Warning, advice, "it is %s away from that of the disk's machine", st.ModTime().Sub(now).Abs().Round(time.Second))
			return
		}
	}
	if synced, known := clockSynchronised(); known && !synced {
		d.add("clock", Warning, advice, "%s, and the system says that nothing keeps it right", now.UTC().Format(time.RFC3339))
		return
	}
	d.add("clock", Good, "", "%s", now.UTC().Format(time.RFC3339))
}
