package hub

import "time"

// rateWindow is how long a partition's traffic is counted until it becomes a rate.
const rateWindow = 5 * time.Second

// byteTotals are bytes that have come and gone since the start.
type byteTotals struct{ in, out int64 }

// Rates is how many bytes a second the partition has taken in and given out, on
// the average of the last whole five seconds. Bytes are those of Metrics.
func (p *Partition) Rates() (in, out int64) { return p.inRate.Load(), p.outRate.Load() }

// Delivered counts what a receiver of the partition has been sent.
func (p *Partition) Delivered(bytes int64) { p.out.Add(bytes) }

// rate brings the rates of all partitions up to date, if it is time. n.metering
// is held.
func (n *Namespaces) rate() {
	now := n.elapsed()
	elapsed := now - n.rated
	if elapsed >= 0 && elapsed < rateWindow {
		return
	}
	n.rated = now
	if elapsed < 0 {
		return // the clock was set back; the next window has what came since
	}
	for _, ns := range n.All() {
		for _, h := range ns.EventHubs() {
			h.rate(elapsed)
		}
	}
}

// rate is that of one hub. A hub without traffic costs a look at its totals.
func (h *EventHub) rate(elapsed time.Duration) {
	now := byteTotals{h.Metrics.IncomingBytes.Load(), h.Metrics.OutgoingBytes.Load()}
	quiet := now == h.last
	if quiet && h.quiet {
		return
	}
	h.last, h.quiet = now, quiet
	for _, p := range h.partitions() {
		p.rate(elapsed)
	}
}

func (p *Partition) rate(elapsed time.Duration) {
	now := byteTotals{p.in.Load(), p.out.Load()}
	s := elapsed.Seconds()
	p.inRate.Store(int64(float64(now.in-p.last.in) / s))
	p.outRate.Store(int64(float64(now.out-p.last.out) / s))
	p.last = now
}
