package segment

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Policy says when an append is acknowledged.
type Policy uint8

// The policies.
const (
	// SyncAlways acknowledges what is on stable storage. It is the default.
	SyncAlways Policy = iota
	// SyncInterval acknowledges what the operating system has, and syncs every
	// interval: a loss of power costs at most that much.
	SyncInterval
	// SyncNever leaves it to the operating system when to write back.
	SyncNever
)

// Sync is a policy with its interval.
type Sync struct {
	Policy   Policy
	Interval time.Duration // for SyncInterval
}

// ParseSync reads "always", "interval=DURATION" or "never".
func ParseSync(s string) (Sync, error) {
	switch {
	case s == "always":
		return Sync{}, nil
	case s == "never":
		return Sync{Policy: SyncNever}, nil
	case strings.HasPrefix(s, "interval="):
		d, err := time.ParseDuration(s[len("interval="):])
		if err == nil && d > 0 {
			return Sync{Policy: SyncInterval, Interval: d}, nil
		}
	}
	return Sync{}, fmt.Errorf("the sync policy %q is not one of always, interval=DURATION (as in interval=50ms), never", s)
}

// String is what ParseSync reads.
func (s Sync) String() string {
	switch s.Policy {
	case SyncInterval:
		return "interval=" + s.Interval.String()
	case SyncNever:
		return "never"
	}
	return "always"
}

// Options says how to open a store. Only Dir, or else Disk and KV, is needed.
type Options struct {
	// Dir is the data folder. It is made if absent.
	Dir string
	// Disk and KV replace the folder, for simulations.
	Disk Disk
	KV   KV
	// Sync is the durability policy; the zero value is SyncAlways.
	Sync Sync
	// Reserve is the free space, in bytes, below which appends are refused; 0
	// means the smaller of 1 GiB and 5 % of the disk, a negative number none.
	Reserve int64
	// SegmentBytes is the size at which a segment file rolls; 0 means 64 MiB.
	SegmentBytes int64
	// JournalBytes is the size of the first journal files; 0 means 16 MiB. Under
	// load they grow to four times that.
	JournalBytes int64
	// CacheBytes bounds the memory that keeps the newest records of all logs;
	// 0 means 16 MiB.
	CacheBytes int64
	// Stall, if not nil, is called before each round of appends is written: for
	// tests of a disk that is slow.
	Stall func()
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger is told of recoveries, damage and full disks; nil means nobody is.
	Logger *slog.Logger
}

const (
	// MaxBatch is the largest batch that a log accepts, in bytes of its records:
	// room for the largest publication of any tier, 20 MiB, and its marks.
	MaxBatch = 24 << 20

	// maxRound is how much a group commit takes at most, one batch more at most:
	// larger groups leave the core's cache and add latency (engine.md 3.2).
	maxRound = 1 << 20

	// directBytes is what a round must bring for one log for the round to go
	// straight to its segment, and be written once instead of twice.
	directBytes = 64 << 10
	// directFew is how many logs of a round may do so at that size: each costs
	// a sync of its own. Beyond, only those of directMuch.
	directFew  = 2
	directMuch = 512 << 10

	// copyBelow is the size of a record below which it is copied into the
	// round's slab instead of being kept in its own.
	copyBelow = 8 << 10

	// flushBytes is how much a log may have in the journal and in memory, and
	// not yet in its segment.
	flushBytes = 256 << 10

	// minRoll is the least age at which a segment rolls for its retention's sake.
	minRoll = 5 * time.Minute
	// sizeParts is into how many segments a limit of bytes is divided, none of them
	// smaller than minSegment.
	sizeParts  = 8
	minSegment = 128 << 10
	// rollParts is into how many segments, by age, a retention is divided.
	rollParts = 16
)

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.JournalBytes == 0 {
		o.JournalBytes = 16 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
