package millrace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store"
)

// rehearse makes the namespaces in memory, where nothing is touched, so that a
// name or number that the hub refuses is found before the data folder is
// opened, and the hub's rules need not be known here.
func rehearse(ctx context.Context, spaces []Namespace, capturer hub.Capturer) error {
	all, err := hub.Open(ctx, hub.Options{Store: stage{newStageMeta()}, Capturer: capturer})
	if err != nil {
		return err
	}
	defer all.Close()
	return makeEntities(ctx, all, spaces)
}

// stage is a store that keeps small facts until it is forgotten, and no events.
type stage struct{ meta *stageMeta }

var errStage = errors.New("a rehearsal stores no events")

func (stage) Open(context.Context, store.LogID, store.LogConfig) (store.Log, error) {
	return nil, errStage
}
func (stage) OpenReader(context.Context, store.LogID) (store.Reader, error) { return nil, errStage }
func (stage) Delete(context.Context, store.LogID) error                     { return nil }
func (s stage) Meta() store.Meta                                            { return s.meta }
func (stage) Close() error                                                  { return nil }

type stageMeta struct {
	mu      sync.Mutex
	entries map[string]store.Entry
}

func newStageMeta() *stageMeta { return &stageMeta{entries: map[string]store.Entry{}} }

func (m *stageMeta) Get(_ context.Context, key string) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return e, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return e, nil
}

func (m *stageMeta) Put(_ context.Context, key string, value []byte, expect store.Version) (store.Version, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.entries[key].Version
	if expect != store.AnyVersion && v != expect {
		return 0, &store.ConflictError{Key: key, Expect: expect, Found: v}
	}
	m.entries[key] = store.Entry{Key: key, Value: value, Version: v + 1}
	return v + 1, nil
}

func (m *stageMeta) Delete(_ context.Context, key string, _ store.Version) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
	return nil
}

func (m *stageMeta) List(_ context.Context, prefix, after string) iter.Seq2[store.Entry, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries := maps.Clone(m.entries)
	return func(yield func(store.Entry, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			if strings.HasPrefix(key, prefix) && key > after && !yield(entries[key], nil) {
				return
			}
		}
	}
}
