package compat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/redisledger"
	"github.com/millrace/millrace/once/sqlledger"
)

// server starts a program of the machine in a folder of the test's, waits until ready
// is nil, and stops it by its process id. A program that is not there is a skip, with
// CI set too: .ci/run installs none.
func server(t testing.TB, as *syscall.Credential, ready func() error, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	log := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	})
	for range 600 {
		if err = ready(); err == nil {
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(log)
			t.Fatalf("%s ended: %s", name, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s is not ready: %v", name, err)
}

func onPath(t testing.TB, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not on this machine", name)
	}
	return path
}

// startRedis starts a Redis that keeps what it answers, and returns a client of it.
func startRedis(t testing.TB) *redis.Client {
	path := onPath(t, "redis-server")
	host, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort(host, port)})
	t.Cleanup(func() { client.Close() })
	server(t, nil, func() error { return client.Ping(t.Context()).Err() }, path,
		"--bind", host, "--port", port, "--dir", t.TempDir(), "--appendonly", "yes", "--appendfsync", "always", "--save", "")
	return client
}

func TestLedgerInRedis(t *testing.T) {
	client := startRedis(t)
	var n atomic.Int64
	ledgertest.Run(t, ledgertest.Engine{Wall: true, New: func(testing.TB) (once.Ledger, func(time.Duration)) {
		o := redisledger.Options{Prefix: fmt.Sprintf("test%d:", n.Add(1)), KeepIDs: ledgertest.KeepIDs}
		return redisledger.New(client, o), time.Sleep
	}})
}

// startPostgres starts a PostgreSQL, which refuses to run as root, and opens it.
func startPostgres(t testing.TB) *sql.DB {
	initdb, postgres := onPath(t, "initdb"), onPath(t, "postgres")
	dir, err := os.MkdirTemp("", "millrace-postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var as *syscall.Credential
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("PostgreSQL does not run as root, and there is no user for it: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(t.Context(), initdb, "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, text)
	}
	host, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", fmt.Sprintf("postgres://test@%s/postgres?sslmode=disable", net.JoinHostPort(host, port)))
	if err != nil {
		t.Fatal(err)
	}
	server(t, as, func() error { return db.PingContext(t.Context()) }, postgres,
		"-D", data, "-h", host, "-p", port, "-k", dir, "-c", "max_connections=50")
	t.Cleanup(func() { db.Close() }) // before the server is stopped
	return db
}

func postgresLedger(t testing.TB, db *sql.DB, prefix string) *sqlledger.Ledger {
	l, err := sqlledger.New(db, sqlledger.PostgreSQL, sqlledger.Options{Prefix: prefix, KeepIDs: ledgertest.KeepIDs})
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
		return postgresLedger(t, db, fmt.Sprintf("test%d_", n.Add(1))), time.Sleep
	}})
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run("ExactlyOnce/"+level.String(), func(t *testing.T) {
			exactlyOnce(t, db, postgresLedger(t, db, fmt.Sprintf("test%d_", n.Add(1))), level)
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
	l := postgresLedger(b, startPostgres(b), "once_")
	b.Run("Do", func(b *testing.B) { ledgertest.Benchmark(b, l) })
	b.Run("DoTx", func(b *testing.B) { ledgertest.BenchmarkFunc(b, withoutEffect(l)) })
}

// withoutEffect marks events in transactions that do nothing else.
func withoutEffect(l *sqlledger.Ledger) func(ctx context.Context, events []once.Event) error {
	return func(ctx context.Context, events []once.Event) error {
		return l.DoBatchTx(ctx, events, func(context.Context, *sql.Tx, []int) error { return nil })
	}
}
