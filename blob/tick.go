package blob

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace/millrace/store"
)

// A tick is a number that grows: 100 ns of the clock since the year 1, so that
// ETags made of ticks look as the service's do, but at least one more than the
// tick before. ETags and the order of staged blocks are ticks. No tick is given
// twice, even if the clock steps back across a restart: a blob that was deleted
// and made again must not meet its old ETag. So ticks are given below a ceiling
// that is stored first, and a start goes on above it.

const (
	tickKey = "blob/t" // version byte, ceiling as 8 bytes big-endian

	// unixTicks is the tick of 1970.
	unixTicks = 621355968000000000
	// reserve is how far above the present tick the ceiling is raised: 10
	// minutes, so that is how often a busy service stores it.
	reserve = 10 * 60 * 10_000_000
)

type tickCounter struct {
	mu      sync.Mutex
	last    uint64
	ceiling uint64
}

// load reads the ceiling of the last run.
func (c *tickCounter) load(ctx context.Context, meta store.Meta) error {
	e, err := meta.Get(ctx, tickKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil && (len(e.Value) != 9 || e.Value[0] != recordVersion) {
		err = errBadRecord
	}
	if err != nil {
		return fmt.Errorf("blob: reading the ceiling of ETags: %w", err)
	}
	c.ceiling = binary.BigEndian.Uint64(e.Value[1:])
	c.last = c.ceiling
	return nil
}

// tick returns the next tick, higher than after too. The error is that of storing
// the ceiling, which whoever else wants a tick waits for as well.
func (s *Service) tick(ctx context.Context, after uint64) (uint64, error) {
	c := &s.ticks
	c.mu.Lock()
	defer c.mu.Unlock()
	next := max(c.last+1, after+1, uint64(unixTicks+s.now().UnixNano()/100))
	if next > c.ceiling {
		value := binary.BigEndian.AppendUint64([]byte{recordVersion}, next+reserve)
		if _, err := s.meta.Put(context.WithoutCancel(ctx), tickKey, value, store.AnyVersion); err != nil {
			return 0, storageError("reserving ETags", err)
		}
		c.ceiling = next + reserve
	}
	c.last = next
	return next, nil
}
