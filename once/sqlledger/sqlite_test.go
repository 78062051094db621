package sqlledger

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
)

// openSQLite opens a database in a file of its own.
func openSQLite(t testing.TB) *sql.DB {
	name := filepath.Join(t.TempDir(), "ledger.db")
	db, err := sql.Open("sqlite", "file:"+name+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// openLedger makes a ledger on it, with a clock of the test's.
func openLedger(t testing.TB, db *sql.DB) (l *Ledger, pass func(time.Duration)) {
	l, err := New(db, SQLite, Options{KeepIDs: ledgertest.KeepIDs})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CreateTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	var now atomic.Int64
	l.now = func() time.Time { return time.Unix(1e9, now.Load()) }
	return l, func(d time.Duration) { now.Add(int64(d)) }
}

func TestSQLite(t *testing.T) {
	ledgertest.Run(t, ledgertest.Engine{New: func(t testing.TB) (once.Ledger, func(time.Duration)) {
		return openLedger(t, openSQLite(t))
	}})
}

func BenchmarkSQLite(b *testing.B) {
	l, _ := openLedger(b, openSQLite(b))
	b.Run("Do", func(b *testing.B) { ledgertest.Benchmark(b, l) })
	b.Run("DoTx", func(b *testing.B) {
		ledgertest.BenchmarkFunc(b, func(ctx context.Context, events []once.Event) error {
			return l.DoBatchTx(ctx, events, func(context.Context, *sql.Tx, []int) error { return nil })
		})
	})
}
