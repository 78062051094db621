package segment

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// KV is the transactional database that holds the small facts: the log's
// checkpoints, the journal's generations, and Meta. It is bbolt on a real disk;
// tests have one that crashes with the simulated disk.
type KV interface {
	// View runs fn on one snapshot.
	View(fn func(KVTx) error) error
	// Update runs fn in a transaction that is durable when Update returns nil,
	// and has not happened when it returns an error. Calls made at the same time
	// share a sync; fn may be run more than once.
	Update(fn func(KVTx) error) error
	Close() error
}

// KVTx is a transaction. Slices it returns are valid until it ends.
type KVTx interface {
	Get(bucket, key string) []byte
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	// Each calls fn for the keys of a bucket from the given one on, in byte
	// order, until fn returns false.
	Each(bucket, from string, fn func(key string, value []byte) bool)
}

// The buckets.
const (
	bucketEngine = "engine" // epoch, journal generations
	bucketLogs   = "logs"   // a checkpoint for each log
	bucketMeta   = "meta"   // store.Meta
)

var buckets = []string{bucketEngine, bucketLogs, bucketMeta}

// errLocked says that another process has the database open.
var errLocked = errors.New("the database is locked by another process")

type boltKV struct {
	db    *bbolt.DB
	fault error // found in its pages when it was opened to be read

	mu    sync.Mutex
	queue []*update // the first of them leads, unless a commit is under way
	busy  bool
}

// update is a caller of Update who waits.
type update struct {
	fn   func(KVTx) error
	err  error
	wake chan bool // true: done; false: lead the next commit
}

// maxWalked is how large a database may be for a start to look at all its pages:
// of some 50,000 partitions. That takes milliseconds.
const maxWalked = 16 << 20

func openBolt(path string, readOnly bool) (KV, error) {
	o := *bbolt.DefaultOptions
	o.Timeout = 100 * time.Millisecond // another broker holds the lock for as long as it lives
	o.FreelistType = bbolt.FreelistMapType
	o.ReadOnly, o.PreLoadFreelist = readOnly, true // so that Verify looks at the free pages too
	o.OpenFile = func(name string, flag int, perm os.FileMode) (*os.File, error) {
		return os.OpenFile(name, flag, perm)
	}
	var db *bbolt.DB
	err := guard(func() (err error) { db, err = bbolt.Open(path, 0o600, &o); return err })
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, errLocked
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	kv := &boltKV{db: db}
	var fault error
	if info, err := os.Stat(path); readOnly || err == nil && info.Size() <= maxWalked {
		fault = kv.view(kv.walk)
	}
	if readOnly {
		kv.fault = fault // Verify tells of all; a start meets only what it uses
	}
	if errors.Is(fault, errPageTwice) { // a search in it might never end
		db.Close()
		return nil, fmt.Errorf("open %s: the database is damaged: %w; restore the data folder from a backup", path, fault)
	}
	if err := kv.makeBuckets(readOnly); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return kv, nil
}

// makeBuckets makes the buckets of a new database. In one that is not new, all
// of them are there, or it is damaged.
func (k *boltKV) makeBuckets(readOnly bool) error {
	found := 0
	err := k.view(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			if tx.Bucket([]byte(b)) != nil {
				found++
			}
		}
		return nil
	})
	if err != nil || found == len(buckets) {
		return err
	}
	if found > 0 || readOnly {
		return fmt.Errorf("the database is damaged: it has %d of its %d buckets; restore the data folder from a backup", found, len(buckets))
	}
	return guard(func() error {
		return k.db.Update(func(tx *bbolt.Tx) error {
			for _, b := range buckets {
				if _, err := tx.CreateBucket([]byte(b)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// guard turns bbolt's panics on damaged pages into errors, and the faults when a
// page points outside the mapped file.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the database %s is damaged: %v", kvFile, p)
		}
	}()
	return fn()
}

func (k *boltKV) view(fn func(*bbolt.Tx) error) error {
	return guard(func() error { return k.db.View(fn) })
}

func (k *boltKV) View(fn func(KVTx) error) error {
	return k.view(func(tx *bbolt.Tx) error { return fn(boltTx{tx}) })
}

// Update gathers what is asked for while a commit syncs, and commits it as one.
func (k *boltKV) Update(fn func(KVTx) error) error {
	u := &update{fn: fn, wake: make(chan bool, 1)}
	k.mu.Lock()
	k.queue = append(k.queue, u)
	lead := !k.busy
	k.busy = true
	k.mu.Unlock()
	if !lead && <-u.wake {
		return u.err
	}
	k.mu.Lock()
	us := k.queue
	k.queue = nil
	k.mu.Unlock()
	k.commit(us)
	k.mu.Lock()
	if len(k.queue) > 0 {
		k.queue[0].wake <- false
	} else {
		k.busy = false
	}
	k.mu.Unlock()
	for _, x := range us {
		if x != u {
			x.wake <- true
		}
	}
	return u.err
}

// commit runs the updates in one transaction; if one of them fails, each in its
// own.
func (k *boltKV) commit(us []*update) {
	err := k.transact(us)
	if err == nil || len(us) == 1 {
		us[0].err = err
		return
	}
	for i := range us {
		us[i].err = k.transact(us[i : i+1])
	}
}

func (k *boltKV) transact(us []*update) error {
	return guard(func() error {
		return k.db.Update(func(tx *bbolt.Tx) error {
			for _, u := range us {
				if err := u.fn(boltTx{tx}); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (k *boltKV) Close() error { return k.db.Close() }

// check walks the whole database, which was opened only to be read, and returns
// the first fault. Where our own walk has found one, bbolt's must not be tried:
// see pageWalk.
func (k *boltKV) check() error {
	if k.fault != nil {
		return k.fault
	}
	return k.view(func(tx *bbolt.Tx) error {
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = err
			}
		}
		return first
	})
}

// walk checks the database's tree of pages.
func (k *boltKV) walk(tx *bbolt.Tx) error {
	f, err := os.Open(k.db.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	page := uint64(k.db.Info().PageSize)
	w := pageWalk{f: f, page: page, pages: uint64(tx.Size()) / page, seen: map[uint64]bool{}}
	return errors.Join(w.freelist(uint64(tx.ID())), w.walk(uint64(tx.Cursor().Bucket().Root())))
}

type boltTx struct{ tx *bbolt.Tx }

func (t boltTx) Get(bucket, key string) []byte {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.Get([]byte(key))
}

func (t boltTx) Put(bucket, key string, value []byte) error {
	return t.tx.Bucket([]byte(bucket)).Put([]byte(key), value)
}

func (t boltTx) Delete(bucket, key string) error {
	return t.tx.Bucket([]byte(bucket)).Delete([]byte(key))
}

func (t boltTx) Each(bucket, from string, fn func(string, []byte) bool) {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return
	}
	c := b.Cursor()
	for k, v := c.Seek([]byte(from)); k != nil; k, v = c.Next() {
		if !fn(string(k), v) {
			return
		}
	}
}

// MemoryKV is a KV in memory, for simulations: every Update is durable at once,
// and Clone is what a crash would leave.
type MemoryKV struct {
	mu sync.Mutex
	m  map[string][]byte // bucket, NUL, key; values are never changed in place

	fault func() error
}

// SetFault sets what is asked before each Update; its error is returned.
func (k *MemoryKV) SetFault(fn func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = fn
}

// NewMemoryKV returns an empty database.
func NewMemoryKV() *MemoryKV { return &MemoryKV{m: map[string][]byte{}} }

// Clone returns an independent copy of what has been committed.
func (k *MemoryKV) Clone() *MemoryKV {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := NewMemoryKV()
	maps.Copy(c.m, k.m)
	return c
}

// View implements KV.
func (k *MemoryKV) View(fn func(KVTx) error) error {
	return fn(memoryTx{k.Clone().m, nil})
}

// Update implements KV.
func (k *MemoryKV) Update(fn func(KVTx) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fault != nil {
		if err := k.fault(); err != nil {
			return err
		}
	}
	tx := memoryTx{k.m, map[string][]byte{}}
	if err := fn(tx); err != nil {
		return err
	}
	for key, v := range tx.changed {
		if v == nil {
			delete(k.m, key)
		} else {
			k.m[key] = v
		}
	}
	return nil
}

// Close implements KV.
func (k *MemoryKV) Close() error { return nil }

type memoryTx struct{ m, changed map[string][]byte } // in changed, nil means deleted

func (t memoryTx) Get(bucket, key string) []byte {
	k := bucket + "\x00" + key
	if v, ok := t.changed[k]; ok {
		return v
	}
	return t.m[k]
}

func (t memoryTx) Put(bucket, key string, value []byte) error {
	t.changed[bucket+"\x00"+key] = append([]byte{}, value...)
	return nil
}

func (t memoryTx) Delete(bucket, key string) error {
	t.changed[bucket+"\x00"+key] = nil
	return nil
}

func (t memoryTx) Each(bucket, from string, fn func(string, []byte) bool) {
	prefix := bucket + "\x00"
	var keys []string
	for k := range t.m {
		if len(k) >= len(prefix) && k[:len(prefix)] == prefix && k[len(prefix):] >= from {
			keys = append(keys, k)
		}
	}
	for k := range t.changed {
		if _, ok := t.m[k]; !ok && bytes.HasPrefix([]byte(k), []byte(prefix)) && k[len(prefix):] >= from {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if v := t.Get(bucket, k[len(prefix):]); v != nil && !fn(k[len(prefix):], v) {
			return
		}
	}
}
