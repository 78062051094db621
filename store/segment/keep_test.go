package segment

import (
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
