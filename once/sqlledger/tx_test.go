package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
)

var errCrash = errors.New("the consumer is gone")

// effect writes that an event had its effect.
func effect(ctx context.Context, tx *sql.Tx, e once.Event) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO effects (partition_id, number) VALUES (?, ?)", e.Partition, e.Sequence)
	return err
}

func makeEffects(t testing.TB, db *sql.DB) {
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (partition_id TEXT, number BIGINT)"); err != nil {
		t.Fatal(err)
	}
}

// TestDoTxRandom has two consumers be delivered a partition's events again and again,
// from checkpoints behind, in batches, out of order, with transactions that are rolled
// back, and claims by Do between: each event has its effect once, and none is missing.
func TestDoTxRandom(t *testing.T) {
	db := openSQLite(t)
	makeEffects(t, db)
	l, pass := openLedger(t, db)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		s := ledgertest.Stream(fmt.Sprint(run))
		last := rapid.Int64Range(1, 30).Draw(rt, "last")
		ctx := t.Context()
		rt.Repeat(map[string]func(*rapid.T){
			"deliver": func(rt *rapid.T) {
				from := rapid.Int64Range(0, last).Draw(rt, "from")
				n := rapid.Int64Range(1, 8).Draw(rt, "n")
				var batch []once.Event
				for seq := from; seq < from+n && seq <= last; seq++ {
					batch = append(batch, once.Event{Stream: s, Sequence: seq})
				}
				batch = rapid.Permutation(batch).Draw(rt, "order")
				crash := rapid.IntRange(0, 2).Draw(rt, "crash") == 0
				err := l.DoBatchTx(ctx, batch, func(ctx context.Context, tx *sql.Tx, fresh []int) error {
					for _, i := range fresh {
						if err := effect(ctx, tx, batch[i]); err != nil {
							return err
						}
					}
					if crash {
						return errCrash
					}
					return nil
				})
				if _, busy := errors.AsType[*once.BusyError](err); err != nil && !busy && !errors.Is(err, errCrash) {
					rt.Fatal(err)
				}
			},
			"claim and vanish": func(rt *rapid.T) {
				seq := rapid.Int64Range(0, last).Draw(rt, "claimed")
				if _, err := l.Claim(ctx, []once.Event{{Stream: s, Sequence: seq}}, time.Second); err != nil {
					rt.Fatal(err)
				}
			},
			"pass": func(*rapid.T) { pass(time.Minute) },
		})
		pass(time.Minute)
		for seq := range last + 1 {
			e := once.Event{Stream: s, Sequence: seq}
			if _, err := l.DoTx(ctx, e, func(ctx context.Context, tx *sql.Tx) error { return effect(ctx, tx, e) }); err != nil {
				rt.Fatal(err)
			}
		}
		wantOnce(rt, db, s.Partition, last+1)
		if st, err := l.Status(ctx, s); err != nil || st != (once.Status{Settled: last}) {
			rt.Fatalf("the status is %+v, %v", st, err)
		}
	})
}

// wantOnce checks that a partition's events had their effects, and once.
func wantOnce(t interface{ Fatalf(string, ...any) }, db *sql.DB, partition string, events int64) {
	var n, distinct int64
	if err := db.QueryRowContext(context.Background(), "SELECT COUNT(*), COUNT(DISTINCT number) FROM effects WHERE partition_id = ?", partition).Scan(&n, &distinct); err != nil {
		t.Fatalf("%v", err)
	}
	if n != events || distinct != events {
		t.Fatalf("%d effects of %d events, want %d", n, distinct, events)
	}
}

// TestDoTxRace has consumers be delivered the same events at the same time, as while a
// partition moves, some of which vanish.
func TestDoTxRace(t *testing.T) {
	db := openSQLite(t)
	makeEffects(t, db)
	l, _ := openLedger(t, db)
	const last = 199
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(w, 1))
			order := once.NewOrder(ledgertest.Stream("0"))
			for seq := int64(0); seq <= last; {
				var batch []once.Event
				for n := 1 + random.Int64N(10); n > 0 && seq <= last; n-- {
					batch = append(batch, order.Event(seq))
					seq++
				}
				for done := false; !done; {
					err := l.DoBatchTx(t.Context(), batch, func(ctx context.Context, tx *sql.Tx, fresh []int) error {
						for _, i := range fresh {
							if err := effect(ctx, tx, batch[i]); err != nil {
								return err
							}
						}
						if random.IntN(3) == 0 {
							return errCrash
						}
						return nil
					})
					if err != nil && !errors.Is(err, errCrash) {
						t.Error(err)
						return
					}
					done = err == nil
				}
			}
		})
	}
	wg.Wait()
	wantOnce(t, db, "0", last+1)
}

// TestMarkTx has the caller's own transaction, and what is claimed meanwhile.
func TestMarkTx(t *testing.T) {
	db := openSQLite(t)
	l, pass := openLedger(t, db)
	batch := []once.Event{{Stream: ledgertest.Stream("0"), Sequence: 0}, {Stream: ledgertest.Stream("1"), Sequence: 4}, {Stream: ledgertest.Stream("0"), ID: "a"}}
	mark := func(commit bool) (fresh []int, err error) {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if fresh, err = l.MarkTx(t.Context(), tx, batch); err == nil && commit {
			err = tx.Commit()
		}
		return fresh, err
	}
	if _, err := l.Claim(t.Context(), batch[2:], time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := mark(true); err == nil {
		t.Fatal("a claimed event was marked")
	}
	pass(time.Minute)
	for _, commit := range []bool{false, true} {
		if fresh, err := mark(commit); err != nil || len(fresh) != 3 {
			t.Fatal(fresh, err)
		}
	}
	if fresh, err := mark(true); err != nil || len(fresh) != 0 {
		t.Fatal(fresh, err)
	}
}

// TestOptions has names of tables that are no names refused.
func TestOptions(t *testing.T) {
	if _, err := New(nil, SQLite, Options{Prefix: "x; DROP TABLE y; --"}); err == nil {
		t.Error("a prefix that is SQL was taken")
	}
	if _, err := New(nil, 0, Options{}); err == nil {
		t.Error("no dialect was taken")
	}
}
