package segment

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/store"
)

// TestSealedDuringCheckpoint: the keeper syncs a file outside the log's lock,
// and the committer may seal and close that file first. What it holds was synced
// then, so the checkpoint goes on, and the log lives.
func TestSealedDuringCheckpoint(t *testing.T) {
	s, err := Open(t.Context(), Options{Dir: t.TempDir(), Sync: Sync{Policy: SyncNever}, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opened, err := s.Open(t.Context(), store.LogID{Hub: 1}, store.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l := opened.(*owner).log
	add := func() {
		t.Helper()
		b := event.NewBatch(event.EncodingKafka)
		b.AddRecord(event.NewSlab(event.Headroom+100), event.Headroom+100, 1)
		ack := make(chan error, 1)
		l.Append(b, func(err error) { ack <- err })
		if err := <-ack; err != nil {
			t.Fatal(err)
		}
		b.Release()
	}
	s.keeping.Lock() // the keeper's own checkpoint, which it begins with, may come late
	defer s.keeping.Unlock()
	add()
	u, err := s.flushLog(l)
	if err != nil {
		t.Fatal(err)
	}
	if u.f == nil {
		t.Fatal("nothing is left to sync; the test needs a file that is written and not synced")
	}
	l.files.Lock()
	err = l.seal()
	l.files.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.sync(); err != nil {
		t.Errorf("a file sealed meanwhile: %v", err)
	}
	u.synced()
	add()
	if err := l.Err(); err != nil {
		t.Errorf("the log has ended: %v", err)
	}
}

// unsyncedDisk is a disk whose files can't be synced for a while, but which takes
// a sync as a whole: as a system does that has dropped what it could not write.
type unsyncedDisk struct {
	Disk
	fails atomic.Bool
}

func (d *unsyncedDisk) Open(name string, create bool) (File, error) {
	f, err := d.Disk.Open(name, create)
	return &unsyncedFile{f, d}, err
}

func (d *unsyncedDisk) SyncAll() error { return nil }

type unsyncedFile struct {
	File
	d *unsyncedDisk
}

var errUnsynced = errors.New("it can't be synced")

func (f *unsyncedFile) Sync() error {
	if f.d.fails.Load() {
		return errUnsynced
	}
	return f.File.Sync()
}

// TestWholeSyncAfterAFailure: the committer's sync of a file fails between the
// keeper's flush of it and the sync of the whole disk. That this succeeds says
// nothing of the file, so that no checkpoint may cover it.
func TestWholeSyncAfterAFailure(t *testing.T) {
	SyncWholeFrom(t, 1)
	d := &unsyncedDisk{Disk: NewDisk(t.TempDir())}
	s, err := Open(t.Context(), Options{Disk: d, KV: NewMemoryKV(), Sync: Sync{Policy: SyncNever}, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opened, err := s.Open(t.Context(), store.LogID{Hub: 1}, store.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l := opened.(*owner).log
	s.keeping.Lock()
	defer s.keeping.Unlock()
	b := event.NewBatch(event.EncodingKafka)
	b.AddRecord(event.NewSlab(event.Headroom+100), event.Headroom+100, 1)
	ack := make(chan error, 1)
	l.Append(b, func(err error) { ack <- err })
	if err := <-ack; err != nil {
		t.Fatal(err)
	}
	b.Release()

	d.fails.Store(true)
	l.files.Lock()
	err = l.syncLocked()
	l.files.Unlock()
	if !errors.Is(err, errUnsynced) {
		t.Fatal(err)
	}
	d.fails.Store(false)
	states, failed, err := s.bringUpAll(map[*log]struct{}{l: {}})
	if err == nil || !failed[l] || len(states) != 0 {
		t.Errorf("the checkpoint has %+v, %v", states, err)
	}
	if l.Err() == nil {
		t.Error("the log goes on with a file that can't be trusted")
	}
}
