// Package sim has what simulations need: a disk that forgets what was not
// synced, and the workloads and checkers that run against it. Only tests
// import it.
package sim

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/millrace/millrace/store/segment"
)

// Disk is a segment.Disk in memory that knows what has been synced. Crash
// returns what a loss of power would leave of it: unsynced writes are lost,
// torn and reordered, and so are unsynced entries of folders.
type Disk struct {
	mu      sync.Mutex
	names   map[string]*inode // as programs see it
	durable map[string]*inode // as a crash leaves it
	pending []nameOp
	dirs    map[string]bool

	// Capacity bounds the bytes of all files; 0 means no bound.
	Capacity int64
	onOp     func(op, name string) error
}

// SetCapacity changes Capacity while the disk is in use.
func (d *Disk) SetCapacity(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Capacity = n
}

// SetFault sets what is asked before each write ("write"), sync ("sync"),
// creation ("create") and folder sync ("syncdir"); its error is returned. What
// a failed sync leaves unsynced is lost for good, as with Linux's page cache:
// later syncs of the file succeed without it.
func (d *Disk) SetFault(fn func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onOp = fn
}

type inode struct {
	data   []byte // what a read sees
	synced []byte // what a crash leaves for certain
	writes []write
	lost   error // some unsynced writes were lost, and nobody was told yet
}

// write is one unsynced write, or with data nil, a truncation to off.
type write struct {
	off  int64
	data []byte
}

// nameOp is an unsynced change to a folder.
type nameOp struct {
	dir  string
	name string
	node *inode // nil: removed
	// A rename is two operations that a crash does not separate.
	also *nameOp
}

// NewDisk returns an empty disk.
func NewDisk() *Disk {
	return &Disk{names: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{".": true}}
}

func (d *Disk) fault(op, name string) error {
	if d.onOp == nil {
		return nil
	}
	return d.onOp(op, name)
}

// Open implements segment.Disk.
func (d *Disk) Open(name string, create bool) (segment.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil {
		if !create {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if err := d.fault("create", name); err != nil {
			return nil, err
		}
		if !d.dirs[path.Dir(name)] {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		n = &inode{}
		d.names[name] = n
		d.pending = append(d.pending, nameOp{dir: path.Dir(name), name: name, node: n})
	}
	return &file{d: d, n: n, name: name}, nil
}

// MkdirAll implements segment.Disk. Folders themselves are durable at once;
// what they contain is not.
func (d *Disk) MkdirAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; name != "."; name = path.Dir(name) {
		d.dirs[name] = true
	}
	return nil
}

// List implements segment.Disk.
func (d *Disk) List(name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dirs[name] {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	seen := map[string]bool{}
	add := func(p string) {
		if rest, ok := strings.CutPrefix(p, name+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			seen[first] = true
		}
	}
	for p := range d.names {
		add(p)
	}
	for p := range d.dirs {
		add(p)
	}
	var out []string
	for n := range seen {
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}

// Remove implements segment.Disk.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remove(name)
}

func (d *Disk) remove(name string) error {
	if d.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(d.names, name)
	d.pending = append(d.pending, nameOp{dir: path.Dir(name), name: name})
	return nil
}

// RemoveAll implements segment.Disk.
func (d *Disk) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.names {
		if p == name || strings.HasPrefix(p, name+"/") {
			if err := d.remove(p); err != nil {
				return err
			}
		}
	}
	for p := range d.dirs {
		if p == name || strings.HasPrefix(p, name+"/") {
			delete(d.dirs, p)
		}
	}
	return nil
}

// Rename implements segment.Disk.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	delete(d.names, from)
	d.names[to] = n
	d.pending = append(d.pending, nameOp{dir: path.Dir(to), name: to, node: n, also: &nameOp{name: from}})
	return nil
}

// SyncDir implements segment.Disk.
func (d *Disk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.fault("syncdir", name); err != nil {
		return err
	}
	kept := d.pending[:0]
	for _, op := range d.pending {
		if op.dir != name {
			kept = append(kept, op)
			continue
		}
		op.apply(d.durable)
	}
	d.pending = kept
	return nil
}

func (op *nameOp) apply(m map[string]*inode) {
	if op.node == nil {
		delete(m, op.name)
	} else {
		m[op.name] = op.node
	}
	if op.also != nil {
		op.also.apply(m)
	}
}

// Free implements segment.Disk.
func (d *Disk) Free() (free, total uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.Capacity == 0 {
		return 1 << 40, 1 << 41, nil
	}
	return uint64(max(0, d.Capacity-d.used())), uint64(d.Capacity), nil
}

func (d *Disk) used() (n int64) {
	for _, f := range d.names {
		n += int64(len(f.data))
	}
	return n
}

// Crash returns a disk as a loss of power might leave this one, chosen by rng.
// meanwhile, if not nil, runs while nothing can be written: what it looks at
// and the disk are of one moment.
func (d *Disk) Crash(rng *rand.Rand, meanwhile func()) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if meanwhile != nil {
		meanwhile()
	}
	c := NewDisk()
	c.Capacity = d.Capacity
	for p := range d.dirs {
		c.dirs[p] = true
	}
	names := map[string]*inode{}
	maps.Copy(names, d.durable)
	lost := rng.Float64() // this crash's share of what is lost
	for _, op := range d.pending {
		if rng.Float64() >= lost {
			op.apply(names)
		}
	}
	sector := []int64{64, 512, 4096}[rng.IntN(3)]
	for _, p := range sorted(names) {
		n := names[p].crash(rng, lost, sector)
		c.names[p], c.durable[p] = n, n
	}
	return c
}

func sorted(m map[string]*inode) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// crash is the inode after a crash: what was synced, and of the writes since,
// some sectors.
func (n *inode) crash(rng *rand.Rand, lost float64, sector int64) *inode {
	data := slices.Clone(n.synced)
	for _, w := range n.writes {
		if w.data == nil {
			if rng.Float64() >= lost {
				data = resize(data, w.off)
			}
			continue
		}
		for at := w.off; at < w.off+int64(len(w.data)); {
			to := min((at/sector+1)*sector, w.off+int64(len(w.data)))
			if rng.Float64() >= lost {
				if int64(len(data)) < to {
					data = resize(data, to)
				}
				copy(data[at:to], w.data[at-w.off:to-w.off])
			}
			at = to
		}
	}
	return &inode{data: data, synced: slices.Clone(data)}
}

func resize(b []byte, n int64) []byte {
	if int64(len(b)) >= n {
		return b[:n:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

// Damage changes one byte of a file, in a way that a later read sees.
func (d *Disk) Damage(name string, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	n.data = slices.Clone(n.data)
	n.data[off] ^= 0x40
	n.synced = slices.Clone(n.data)
	n.writes = nil
}

// Files returns the names of all files with their sizes.
func (d *Disk) Files() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := map[string]int64{}
	for p, n := range d.names {
		m[p] = int64(len(n.data))
	}
	return m
}

type file struct {
	d    *Disk
	n    *inode
	name string
}

// ReadAt implements segment.File.
func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// ErrNoSpace is what a write gets when the capacity is used up.
var ErrNoSpace = fmt.Errorf("the simulated disk: %w", syscall.ENOSPC)

// WriteAt implements segment.File.
func (f *file) WriteAt(bufs [][]byte, off int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.fault("write", f.name); err != nil {
		return err
	}
	for _, b := range bufs {
		end := off + int64(len(b))
		if grow := end - int64(len(f.n.data)); grow > 0 {
			if f.d.Capacity > 0 && f.d.used()+grow > f.d.Capacity {
				return fmt.Errorf("write %s: %w", f.name, ErrNoSpace)
			}
			f.n.data = resize(f.n.data, end)
		}
		copy(f.n.data[off:], b)
		f.n.writes = append(f.n.writes, write{off, slices.Clone(b)})
		off = end
	}
	return nil
}

// Sync implements segment.File.
func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.fault("sync", f.name); err != nil {
		f.n.writes = nil // the kernel marks the pages clean and forgets them
		return err
	}
	if err := f.n.lost; err != nil {
		f.n.lost = nil
		return err
	}
	f.n.sync()
	return nil
}

func (n *inode) sync() {
	for _, w := range n.writes {
		if w.data == nil {
			n.synced = resize(n.synced, w.off)
			continue
		}
		if end := w.off + int64(len(w.data)); int64(len(n.synced)) < end {
			n.synced = resize(n.synced, end)
		}
		copy(n.synced[w.off:], w.data)
	}
	n.writes = nil
}

// SyncAll makes everything durable, as syncfs does. When it fails, it does so
// for some files and not for others; the next sync of such a file tells.
func (d *Disk) SyncAll() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.fault("sync", "everything")
	for i, p := range sorted(d.names) {
		n := d.names[p]
		if err != nil && i%2 == 0 && len(n.writes) > 0 {
			n.writes, n.lost = nil, err
			continue
		}
		n.sync()
	}
	for _, op := range d.pending {
		op.apply(d.durable)
	}
	d.pending = nil
	return err
}

// Truncate implements segment.File.
func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.data = resize(f.n.data, size)
	f.n.writes = append(f.n.writes, write{off: size})
	return nil
}

// Size implements segment.File.
func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

// Close implements segment.File.
func (f *file) Close() error { return nil }
