package compat

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/fileledger"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/redisledger"
	"github.com/millrace/millrace/once/sqlledger"
)

var ledgerTable = flag.Bool("ledger-table", false, "measure what the ledgers cost, and print it as a table")

// effects has the effects of events, together.
type effects = func(ctx context.Context, events []once.Event) error

// TestLedgerTable prints how many events a second go through one consumer, with each
// ledger and without one, one by one and in batches of 500, where the effect is nothing
// and where it is something that is as durable as the ledger.
func TestLedgerTable(t *testing.T) {
	if !*ledgerTable {
		t.Skip("it is for a quiet machine: -ledger-table")
	}
	fmt.Println("| effect | ledger | one at a time | batches of 500 |\n| --- | --- | ---: | ---: |")
	row := func(of, ledger string, do effects) {
		t.Helper()
		fmt.Printf("| %s | %s |", of, ledger)
		for _, size := range ledgertest.Sizes {
			var failed error
			r := testing.Benchmark(func(b *testing.B) {
				ledgertest.Measure(b, size, func(ctx context.Context, events []once.Event) error {
					failed = do(ctx, events)
					return failed
				})
			})
			if failed != nil {
				t.Fatal(failed)
			}
			fmt.Printf(" %s |", digits(r.Extra["events/s"]))
		}
		fmt.Println()
	}
	none := func(of string, e effects) { row(of, "none", e) }
	over := func(of, name string, l once.Ledger, e effects) { row(of, name, ledgertest.Claims(l, e)) }

	none("nothing", ledgertest.Nothing)
	over("nothing", "memory", once.NewMemory(time.Hour), ledgertest.Nothing)
	file := fileFor(t)
	over("nothing", "file, synced", file, ledgertest.Nothing)
	redisOf := map[string]*redis.Client{}
	for _, durable := range []string{"always", "everysec", "no persistence"} {
		redisOf[durable] = redisFor(t, durable)
		over("nothing", "Redis, "+durable, redisledger.New(redisOf[durable], redisledger.Options{}), ledgertest.Nothing)
	}
	redisOnly := redisOf["always"]
	keys := func(ctx context.Context, events []once.Event) error {
		_, err := redisOnly.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, e := range events {
				p.Set(ctx, fmt.Sprint("effect:", e.Sequence), "", 0)
			}
			return nil
		})
		return err
	}
	none("a key in Redis, always", keys)
	over("a key in Redis, always", "the same Redis", redisledger.New(redisOnly, redisledger.Options{}), keys)

	for _, c := range []database{sqliteFor(t), postgresFor(t), mysqlFor(t)} {
		if _, err := c.db.ExecContext(t.Context(), "CREATE TABLE effects (number BIGINT)"); err != nil {
			t.Fatal(err)
		}
		over("nothing", c.name+", `Do`", c.ledger, ledgertest.Nothing)
		row("nothing", c.name+", `DoTx`", inTx(c.ledger, noRows))
		of := "a row in " + c.name
		rows := func(ctx context.Context, events []once.Event) error { return insert(ctx, c.db, events) }
		none(of, rows)
		over(of, "the same, `Do`", c.ledger, rows)
		row(of, "the same, `DoTx`", inTx(c.ledger, func(ctx context.Context, tx *sql.Tx, events []once.Event) error { return insert(ctx, tx, events) }))
		over(of, "Redis, always", redisledger.New(redisOnly, redisledger.Options{}), rows)
	}
}

// digits writes a rate with three significant digits, and commas.
func digits(rate float64) string {
	n, unit := int64(rate), int64(1)
	for n/unit >= 1000 {
		unit *= 10
	}
	text := fmt.Sprint((n + unit/2) / unit * unit)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// insert writes a row for each event, in one statement.
func insert(ctx context.Context, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, events []once.Event) error {
	var values []string
	for _, e := range events {
		values = append(values, fmt.Sprintf("(%d)", e.Sequence))
	}
	_, err := db.ExecContext(ctx, "INSERT INTO effects VALUES "+strings.Join(values, ", "))
	return err
}

// noRows is an effect in a transaction that there is none of.
func noRows(context.Context, *sql.Tx, []once.Event) error { return nil }

// inTx has effects in one transaction with their marks.
func inTx(l *sqlledger.Ledger, e func(ctx context.Context, tx *sql.Tx, events []once.Event) error) effects {
	return func(ctx context.Context, events []once.Event) error {
		return l.DoBatchTx(ctx, events, func(ctx context.Context, tx *sql.Tx, fresh []int) error {
			if len(fresh) != len(events) {
				return fmt.Errorf("%d of %d events are new", len(fresh), len(events))
			}
			return e(ctx, tx, events)
		})
	}
}

func fileFor(t *testing.T) once.Ledger {
	l, err := fileledger.Open(filepath.Join(t.TempDir(), "once.db"), fileledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func redisFor(t *testing.T, durable string) *redis.Client {
	args := []string{"--appendfsync", durable}
	if durable == "no persistence" {
		args = []string{"--appendonly", "no"}
	}
	address, _ := redisServer(t, args...)
	client := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { client.Close() })
	return client
}

// database is one that has a ledger.
type database struct {
	name   string
	db     *sql.DB
	ledger *sqlledger.Ledger
}

func sqliteFor(t *testing.T) database {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "once.db")+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l, err := sqlledger.New(db, sqlledger.SQLite, sqlledger.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CreateTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	return database{"SQLite", db, l}
}

func postgresFor(t *testing.T) database {
	db := startPostgres(t)
	return database{"PostgreSQL", db, ledgerIn(t, db, sqlledger.PostgreSQL, "once_")}
}

func mysqlFor(t *testing.T) database {
	db := startMySQL(t)
	return database{"MariaDB", db, ledgerIn(t, db, sqlledger.MySQL, "once_")}
}
