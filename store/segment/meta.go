package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"strings"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// meta is store.Meta over a KV. A value is stored behind twelve bytes: its
// version, and a CRC32C of key, version and value, since bbolt does not check
// its pages. Versions come from one counter, so that they grow over a deletion.
type meta struct{ kv KV }

const metaEnvelope = 12

func sealMeta(key string, v store.Version, value []byte) []byte {
	b := make([]byte, metaEnvelope+len(value))
	binary.LittleEndian.PutUint64(b[4:], uint64(v))
	copy(b[metaEnvelope:], value)
	binary.LittleEndian.PutUint32(b, metaCRC(key, b))
	return b
}

func metaCRC(key string, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), event.Castagnoli), event.Castagnoli, b[4:])
}

// openMeta reads what sealMeta made. The entry's value is a copy.
func openMeta(key string, b []byte) (store.Entry, error) {
	if len(b) < metaEnvelope || binary.LittleEndian.Uint32(b) != metaCRC(key, b) {
		return store.Entry{}, fmt.Errorf("%s: the value of %q does not match its checksum", kvFile, key)
	}
	return store.Entry{
		Key:     key,
		Version: store.Version(binary.LittleEndian.Uint64(b[4:])),
		Value:   append([]byte{}, b[metaEnvelope:]...),
	}, nil
}

// Get implements store.Meta.
func (m meta) Get(ctx context.Context, key string) (e store.Entry, err error) {
	if err := ctx.Err(); err != nil {
		return e, err
	}
	err = m.kv.View(func(tx KVTx) error {
		e, err = m.get(tx, key)
		return err
	})
	return e, err
}

func (m meta) get(tx KVTx, key string) (store.Entry, error) {
	b := tx.Get(bucketMeta, key)
	if b == nil {
		return store.Entry{}, fmt.Errorf("%w: %q", store.ErrNotFound, key)
	}
	return openMeta(key, b)
}

// change checks the expected version of key and, if it holds, runs fn with the
// next version. A conflict must not fail the transaction, which others share.
func (m meta) change(ctx context.Context, key string, expect store.Version, fn func(KVTx, store.Entry, store.Version) error) (store.Version, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if key == "" {
		return 0, errors.New("the empty key can't be used")
	}
	var v store.Version
	var conflict error
	err := m.kv.Update(func(tx KVTx) error {
		v, conflict = 0, nil
		old, err := m.get(tx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if expect != store.AnyVersion && old.Version != expect {
			conflict = &store.ConflictError{Key: key, Expect: expect, Found: old.Version}
			return nil
		}
		n, err := bump(tx, keyMetaVersion)
		if err != nil {
			return err
		}
		v = store.Version(n)
		return fn(tx, old, v)
	})
	if err == nil {
		err = conflict
	}
	return v, err
}

// Put implements store.Meta.
func (m meta) Put(ctx context.Context, key string, value []byte, expect store.Version) (store.Version, error) {
	return m.change(ctx, key, expect, func(tx KVTx, _ store.Entry, v store.Version) error {
		return tx.Put(bucketMeta, key, sealMeta(key, v, value))
	})
}

// Delete implements store.Meta.
func (m meta) Delete(ctx context.Context, key string, expect store.Version) error {
	_, err := m.change(ctx, key, expect, func(tx KVTx, old store.Entry, _ store.Version) error {
		if old.Version == 0 {
			return nil
		}
		return tx.Delete(bucketMeta, key)
	})
	return err
}

// List implements store.Meta.
func (m meta) List(ctx context.Context, prefix, after string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		from := max(prefix, after)
		var panicked any // in the loop's body: not to be taken for damage
		consume := func(e store.Entry) bool {
			defer func() {
				if panicked = recover(); panicked != nil {
					panic(panicked)
				}
			}()
			return yield(e, nil)
		}
		defer func() {
			if panicked != nil {
				panic(panicked)
			}
		}()
		err := m.kv.View(func(tx KVTx) error {
			var fault error
			tx.Each(bucketMeta, from, func(key string, b []byte) bool {
				if !strings.HasPrefix(key, prefix) {
					return false
				}
				if key <= after && after != "" {
					return true
				}
				if fault = ctx.Err(); fault != nil {
					return false
				}
				var e store.Entry
				if e, fault = openMeta(key, b); fault != nil {
					return false
				}
				if !consume(e) {
					fault = errStop
					return false
				}
				return true
			})
			return fault
		})
		if err != nil && panicked == nil && !errors.Is(err, errStop) {
			yield(store.Entry{}, err)
		}
	}
}

var errStop = errors.New("stop")
