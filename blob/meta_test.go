package blob

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/store"
)

// memMeta is a store.Meta in memory. Its versions are one counter, so they grow
// over deletions too.
type memMeta struct {
	mu      sync.Mutex
	entries map[string]store.Entry
	last    store.Version

	// beforePut, if set, is asked before each Put, outside the lock; what it
	// returns is the Put's error.
	beforePut func(key string) error
	// lie, if set, is the error of each Put that was done.
	lie error
}

func newMemMeta() *memMeta { return &memMeta{entries: map[string]store.Entry{}} }

func (m *memMeta) Get(ctx context.Context, key string) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return store.Entry{}, store.ErrNotFound
	}
	e.Value = bytes.Clone(e.Value)
	return e, ctx.Err()
}

func (m *memMeta) Put(ctx context.Context, key string, value []byte, expect store.Version) (store.Version, error) {
	if m.beforePut != nil {
		if err := m.beforePut(key); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(key, expect); err != nil {
		return 0, err
	}
	m.last++
	m.entries[key] = store.Entry{Key: key, Value: bytes.Clone(value), Version: m.last}
	return m.last, errors.Join(ctx.Err(), m.lie)
}

func (m *memMeta) Delete(ctx context.Context, key string, expect store.Version) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(key, expect); err != nil {
		return err
	}
	delete(m.entries, key)
	return ctx.Err()
}

func (m *memMeta) check(key string, expect store.Version) error {
	if found := m.entries[key].Version; expect != store.AnyVersion && expect != found {
		return &store.ConflictError{Key: key, Expect: expect, Found: found}
	}
	return nil
}

func (m *memMeta) List(ctx context.Context, prefix, after string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		m.mu.Lock()
		snapshot := maps.Clone(m.entries)
		m.mu.Unlock()
		for _, key := range slices.Sorted(maps.Keys(snapshot)) {
			if !strings.HasPrefix(key, prefix) || after != "" && key <= after {
				continue
			}
			e := snapshot[key]
			e.Value = bytes.Clone(e.Value)
			if !yield(e, ctx.Err()) {
				return
			}
		}
	}
}

// keys lists the keys below a prefix.
func (m *memMeta) keys(prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for key := range m.entries {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	return keys
}
