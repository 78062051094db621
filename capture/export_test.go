package capture

import (
	"context"
	"time"

	"github.com/millrace/millrace/hub"
)

// Partition is a partition's capture, which a test steps by itself.
type Partition struct{ p *partition }

// Manual is the capture of a partition that nobody runs.
func (e *Engine) Manual(h *hub.EventHub, index int) Partition {
	return Partition{newPartition(e, h, index)}
}

// Step does what there is to do, and tells how long there is nothing; -1 for until
// something changes.
func (p Partition) Step(ctx context.Context) (time.Duration, error) {
	wait, err := p.p.step(ctx)
	if wait == forGood {
		wait = -1
	}
	return wait, err
}

// Close ends it.
func (p Partition) Close() { p.p.cancel(); p.p.close() }

// Reads tells whether it holds a reader of the log.
func (p Partition) Reads() bool { return p.p.reader != nil }

// Deliver tries each notice once.
func (e *Engine) Deliver(ctx context.Context, all *hub.Namespaces) (bool, error) {
	return e.deliverAll(ctx, all)
}

// Slack is how long a window is kept open after its end.
const Slack = slack
