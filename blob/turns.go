package blob

import (
	"context"
	"sync"
)

// turns lets one of this process's writers at a time change a key. The
// conditional Put alone is what makes a change right; turns spare writers of one
// blob the rounds, each a sync of the disk, that all but one of them would lose.
type turns struct {
	mu   sync.Mutex
	keys map[string]*turn
}

type turn struct {
	taken   chan struct{} // holds one token while somebody has the turn
	holders int           // and who waits; the last one removes the turn
}

// take waits for the turn of a key. The caller calls done; it takes no other turn
// meanwhile.
func (t *turns) take(ctx context.Context, key string) (done func(), err error) {
	t.mu.Lock()
	if t.keys == nil {
		t.keys = map[string]*turn{}
	}
	k := t.keys[key]
	if k == nil {
		k = &turn{taken: make(chan struct{}, 1)}
		t.keys[key] = k
	}
	k.holders++
	t.mu.Unlock()

	select {
	case k.taken <- struct{}{}:
		return func() { <-k.taken; t.leave(key, k) }, nil
	case <-ctx.Done():
		t.leave(key, k)
		return nil, storageError("waiting for another writer", ctx.Err())
	}
}

func (t *turns) leave(key string, k *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.holders--; k.holders == 0 {
		delete(t.keys, key)
	}
}
