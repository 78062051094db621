package compat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/sqlledger"
)

// inTransactions is an outage whose effects are rows of the ledger's own database.
type inTransactions struct {
	*outage
	db     *sql.DB
	ledger *sqlledger.Ledger
}

func newInTransactions(t *testing.T, db *sql.DB, events int64) *inTransactions {
	t.Helper()
	o := &inTransactions{newOutage(t, events), db, ledgerIn(t, db, sqlledger.PostgreSQL, "once_")}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (number BIGINT, padding TEXT)"); err != nil {
		t.Fatal(err)
	}
	return o
}

// run has consumers be delivered all events while fault breaks things, and checks that
// each had its effect once.
func (o *inTransactions) run(consumers int, padding string, fault func()) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for c := range uint64(consumers) {
		wg.Go(func() { o.consume(ctx, padding, rand.New(rand.NewPCG(c, 2))) })
	}
	fault()
	wg.Wait()
	o.consistent()
	var n, distinct int64
	if err := o.db.QueryRowContext(o.t.Context(), "SELECT COUNT(*), COUNT(DISTINCT number) FROM effects").Scan(&n, &distinct); err != nil {
		o.t.Fatal(err)
	}
	if n != o.last+1 || distinct != o.last+1 {
		o.t.Errorf("%d effects of %d events, want %d", n, distinct, o.last+1)
	}
	o.settledAt(o.ledger)
	o.t.Logf("%d events, %d effects; errors met: %v", distinct, n, o.failures)
}

// consume reads the partition to its end, in batches, each as often as it takes.
func (o *inTransactions) consume(ctx context.Context, padding string, random *rand.Rand) {
	order := once.NewOrder(ledgertest.Stream("0"))
	for next := int64(0); next <= o.last && ctx.Err() == nil; {
		var batch []once.Event
		for n := 1 + random.Int64N(8); n > 0 && next <= o.last; n-- {
			batch = append(batch, order.Event(next))
			next++
		}
		for err := errors.New("not yet"); err != nil && ctx.Err() == nil; {
			wrong := random.IntN(10) == 0
			var fresh []int
			err = o.ledger.DoBatchTx(ctx, batch, func(ctx context.Context, tx *sql.Tx, at []int) error {
				for _, i := range at {
					if _, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ($1, $2)", batch[i].Sequence, padding); err != nil {
						return err
					}
				}
				fresh = at
				if wrong {
					return errGone
				}
				return nil
			})
			o.outcome(nil, err)
			if err == nil {
				o.effect(batch, fresh) // for progress: the table is what counts
				continue
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// consistent checks, in one view of the database, that all that is settled had its
// effect, and that nothing else had.
func (o *inTransactions) consistent() {
	o.t.Helper()
	var settled, effects, marks int64
	err := o.db.QueryRowContext(o.t.Context(), `SELECT b.settled, (SELECT COUNT(DISTINCT number) FROM effects),
		(SELECT COUNT(*) FROM once_marks WHERE done = 1) FROM once_books b`).Scan(&settled, &effects, &marks)
	if err != nil || settled+1+marks != effects {
		o.t.Errorf("%d are settled and %d marked, with %d effects: %v", settled+1, marks, effects, err)
	}
}

// postgresRunner is of a consumer that keeps its claims in PostgreSQL, and effects
// elsewhere.
func postgresRunner(t testing.TB, db *sql.DB) once.Runner {
	return once.Runner{Ledger: ledgerIn(t, db, sqlledger.PostgreSQL, "once_"), Lease: 2 * impatient, Wait: true}
}

// TestOutagePostgresKilled has a PostgreSQL be killed, be shut down without a
// checkpoint, and crash since one of its processes is killed, amid transactions, and
// start again.
func TestOutagePostgresKilled(t *testing.T) {
	ways := []struct {
		name string
		end  func(t *testing.T, p *process)
	}{
		{"killed", func(t *testing.T, p *process) {
			p.kill()
		}},
		{"immediate shutdown", func(t *testing.T, p *process) {
			p.signal(syscall.SIGQUIT)
		}},
		{"one process killed", func(t *testing.T, p *process) { // the others end, and it starts again by itself
			for _, pid := range p.workers() {
				text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if strings.Contains(string(text), "checkpointer") {
					syscall.Kill(pid, syscall.SIGKILL)
					return
				}
			}
			t.Error("it has no checkpointer")
		}},
	}
	faults := func(t *testing.T, o *outage, p *process, check func()) {
		for range 2 {
			for _, w := range ways {
				o.progress(60)
				check()
				w.end(t, p)
				o.noticed(1)
				if p.running() {
					continue
				}
				p.start(t)
			}
		}
	}
	t.Run("DoTx", func(t *testing.T) {
		db, p := postgresServer(t, postgresFolder(t))
		o := newInTransactions(t, db, 1000)
		o.run(3, "", func() { faults(t, o.outage, p, o.consistent) })
	})
	t.Run("Do", func(t *testing.T) {
		db, p := postgresServer(t, postgresFolder(t))
		o := newOutage(t, 1000)
		r := postgresRunner(t, db)
		o.run([]once.Runner{r, r, r}, func() { faults(t, o, p, func() {}) })
		o.settledAt(r.Ledger)
	})
}

// refuseWrites has a PostgreSQL say that its disk is full, when something is written to a
// table, until it is called back.
func refuseWrites(t *testing.T, db *sql.DB, table string) (callBack func()) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), `CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON `+table+` EXECUTE FUNCTION full_disk()`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := db.ExecContext(t.Context(), "DROP TRIGGER full_disk ON "+table); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOutagePostgresRefuses has statements of the ledger be refused, each in turn, and of
// the effects: none is there without the other.
func TestOutagePostgresRefuses(t *testing.T) {
	tables := []string{"once_books", "once_marks"}
	faults := func(o *outage, db *sql.DB, tables []string) {
		for range 2 {
			for _, table := range tables {
				o.progress(60)
				callBack := refuseWrites(t, db, table)
				o.noticed(3)
				callBack()
			}
		}
		for met := range o.failures {
			if strings.Contains(met, "No space left") {
				return
			}
		}
		t.Errorf("the errors met are %v", o.failures)
	}
	t.Run("DoTx", func(t *testing.T) {
		db := startPostgres(t)
		o := newInTransactions(t, db, 1000)
		o.run(3, "", func() { faults(o.outage, db, []string{"once_books", "effects"}) })
	})
	t.Run("Do", func(t *testing.T) {
		db := startPostgres(t)
		o := newOutage(t, 1000)
		r := postgresRunner(t, db)
		o.run([]once.Runner{r, r, r}, func() { faults(o, db, tables) })
		o.settledAt(r.Ledger)
	})
}

// TestOutagePostgresFullDisk fills the disk below a PostgreSQL, which then refuses what
// it can't write, or ends.
func TestOutagePostgresFullDisk(t *testing.T) {
	disk := smallDisk(t)
	if err := os.Chmod(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(disk); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // its user has to reach it
			t.Fatal(err)
		}
	}
	dir := filepath.Join(disk, "postgres")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db, p := postgresServer(t, dir, "min_wal_size=32MB", "max_wal_size=32MB")
	o := newInTransactions(t, db, 2000)
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE effects ALTER COLUMN padding SET STORAGE EXTERNAL"); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	o.run(3, strings.Repeat("x", 16<<10), func() {
		for range 2 {
			o.progress(60)
			fillDisk(t, filler, 0)
			o.noticed(5)
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			if !p.running() {
				p.start(t)
			}
		}
	})
	full := false
	for met := range o.failures {
		full = full || strings.Contains(met, "No space left")
	}
	if !full {
		t.Errorf("the errors met are %v", o.failures)
	}
}

// TestOutagePostgresConnections has others take all connections that a PostgreSQL has:
// consumers that need a new one for each call wait for them.
func TestOutagePostgresConnections(t *testing.T) {
	db := startPostgres(t)
	db.SetMaxIdleConns(-1)
	o := newInTransactions(t, db, 600)
	o.run(3, "", func() {
		for range 3 {
			o.progress(30)
			refused := o.willNotice(3)
			var taken []*sql.Conn
			for !refused() { // those that consumers have are taken when they give them back
				c, err := db.Conn(t.Context())
				if err == nil {
					taken = append(taken, c)
					continue
				}
				select {
				case <-time.After(5 * time.Millisecond):
				case <-t.Context().Done():
					t.Fatal(err)
				}
			}
			t.Logf("%d connections were taken", len(taken))
			for _, c := range taken {
				c.Close()
			}
		}
	})
}
