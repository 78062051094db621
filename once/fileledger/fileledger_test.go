package fileledger

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
)

func openTest(t testing.TB, name string) *Ledger {
	l, err := Open(name, Options{KeepIDs: ledgertest.KeepIDs, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestFile(t *testing.T) {
	ledgertest.Run(t, ledgertest.Engine{New: func(t testing.TB) (once.Ledger, func(time.Duration)) {
		l := openTest(t, filepath.Join(t.TempDir(), "once.db"))
		var now atomic.Int64
		l.now = func() time.Time { return time.Unix(1e9, now.Load()) }
		return l, func(d time.Duration) { now.Add(int64(d)) }
	}})
}

// TestReopen has what was done known, and what was claimed free, after a restart.
func TestReopen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "once.db")
	l := openTest(t, name)
	s := ledgertest.Stream("0")
	events := []once.Event{{Stream: s, Sequence: 0}, {Stream: s, Sequence: 1}, {Stream: s, Sequence: 2}, {Stream: s, ID: "a"}, {Stream: s, ID: "b"}}
	before, err := l.Claim(t.Context(), events, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Mark(t.Context(), []once.Claim{before[0], before[2], before[3]}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name, Options{}); err == nil || !strings.Contains(err.Error(), "another process has "+name+" open") {
		t.Fatalf("opening the file a second time: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, name)
	if s, err := l.Status(t.Context(), s); err != nil || s != (once.Status{Settled: 0, Marks: 1}) {
		t.Fatalf("the status is %+v, %v", s, err)
	}
	after, err := l.Claim(t.Context(), events, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []once.State{once.Done, once.Claimed, once.Done, once.Done, once.Claimed} {
		if after[i].State != want {
			t.Errorf("%v is %v, want %v", after[i].Event, after[i].State, want)
		}
		if want == once.Claimed && after[i].Token <= before[i].Token {
			t.Errorf("the token %d follows %d", after[i].Token, before[i].Token)
		}
	}
}

func BenchmarkFile(b *testing.B) {
	l, err := Open(filepath.Join(b.TempDir(), "once.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ledgertest.Benchmark(b, l)
}
