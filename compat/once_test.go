package compat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/redisledger"
	"github.com/millrace/millrace/once/sqlledger"
)

func TestLedgerInRedis(t *testing.T) {
	client := startRedis(t)
	var n atomic.Int64
	ledgertest.Run(t, ledgertest.Engine{Wall: true, New: func(testing.TB) (once.Ledger, func(time.Duration)) {
		o := redisledger.Options{Prefix: fmt.Sprintf("test%d:", n.Add(1)), KeepIDs: ledgertest.KeepIDs}
		return redisledger.New(client, o), time.Sleep
	}})
}

// ledgerIn makes a ledger in a database.
func ledgerIn(t testing.TB, db *sql.DB, d sqlledger.Dialect, prefix string) *sqlledger.Ledger {
	l, err := sqlledger.New(db, d, sqlledger.Options{Prefix: prefix, KeepIDs: ledgertest.KeepIDs})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CreateTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedgerInPostgres(t *testing.T) {
	db := startPostgres(t)
	var n atomic.Int64
	ledgertest.Run(t, ledgertest.Engine{Wall: true, New: func(t testing.TB) (once.Ledger, func(time.Duration)) {
		return ledgerIn(t, db, sqlledger.PostgreSQL, fmt.Sprintf("test%d_", n.Add(1))), time.Sleep
	}})
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run("ExactlyOnce/"+level.String(), func(t *testing.T) {
			exactlyOnce(t, db, ledgerIn(t, db, sqlledger.PostgreSQL, fmt.Sprintf("test%d_", n.Add(1))), level)
		})
	}
}

var errGone = errors.New("the consumer is gone")

// exactlyOnce has consumers be delivered the same events at the same time, and vanish
// before they commit, in transactions of their own that have read before.
func exactlyOnce(t *testing.T, db *sql.DB, l *sqlledger.Ledger, level sql.IsolationLevel) {
	ctx := t.Context()
	for _, s := range []string{"DROP TABLE IF EXISTS effects", "CREATE TABLE effects (number BIGINT)"} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	const last, consumers = 299, 6
	deliver := func(batch []once.Event, vanish bool) error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM effects").Scan(&n); err != nil {
			return err
		}
		fresh, err := l.MarkTx(ctx, tx, batch)
		if err != nil {
			return err
		}
		for _, i := range fresh {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO effects VALUES (%d)", batch[i].Sequence)); err != nil {
				return err
			}
		}
		if vanish {
			return errGone
		}
		return tx.Commit()
	}
	var again atomic.Int64
	var wg sync.WaitGroup
	for c := range uint64(consumers) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(c, 1))
			order := once.NewOrder(ledgertest.Stream("0"))
			for seq := int64(0); seq <= last && ctx.Err() == nil; {
				var batch []once.Event
				for n := 1 + random.Int64N(12); n > 0 && seq <= last; n-- {
					batch = append(batch, order.Event(seq))
					seq++
				}
				for ctx.Err() == nil && deliver(batch, random.IntN(4) == 0) != nil {
					again.Add(1)
				}
			}
		})
	}
	wg.Wait()
	var n, distinct int
	if err := db.QueryRowContext(context.WithoutCancel(ctx), "SELECT COUNT(*), COUNT(DISTINCT number) FROM effects").Scan(&n, &distinct); err != nil {
		t.Fatal(err)
	}
	if n != last+1 || distinct != last+1 {
		t.Errorf("%d effects of %d events, want %d", n, distinct, last+1)
	}
	t.Logf("%d transactions were tried again", again.Load())
}

func BenchmarkLedgerInRedis(b *testing.B) {
	ledgertest.Benchmark(b, redisledger.New(startRedis(b), redisledger.Options{}))
}

func BenchmarkLedgerInPostgres(b *testing.B) {
	l := ledgerIn(b, startPostgres(b), sqlledger.PostgreSQL, "once_")
	b.Run("Do", func(b *testing.B) { ledgertest.Benchmark(b, l) })
	b.Run("DoTx", func(b *testing.B) { ledgertest.BenchmarkFunc(b, inTx(l, noRows)) })
}
