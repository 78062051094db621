package compat

import (
	"database/sql"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/sqlledger"
)

// startMySQL starts a MariaDB, and opens it.
func startMySQL(t testing.TB) *sql.DB {
	db, _ := mysqlServer(t)
	return db
}

func mysqlServer(t testing.TB) (*sql.DB, *process) {
	install, daemon := onPath(t, "mariadb-install-db"), onPath(t, "mariadbd")
	data := filepath.Join(t.TempDir(), "data")
	if text, err := exec.CommandContext(t.Context(), install, "--no-defaults", "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--user=root").CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v: %s", err, text)
	}
	host, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", "root@tcp("+net.JoinHostPort(host, port)+")/mysql")
	if err != nil {
		t.Fatal(err)
	}
	if err := mysql.SetLogger(&mysql.NopLogger{}); err != nil { // it is not ready at first
		t.Fatal(err)
	}
	p := server(t, nil, func() error { return db.PingContext(t.Context()) }, daemon, "--no-defaults", "--user=root",
		"--datadir="+data, "--bind-address="+host, "--port="+port, "--socket="+filepath.Join(data, "socket"))
	t.Cleanup(func() { db.Close() }) // before the server is stopped
	return db, p
}

func TestLedgerInMySQL(t *testing.T) {
	db := startMySQL(t)
	var n atomic.Int64
	ledgertest.Run(t, ledgertest.Engine{Wall: true, New: func(t testing.TB) (once.Ledger, func(time.Duration)) {
		return ledgerIn(t, db, sqlledger.MySQL, fmt.Sprintf("test%d_", n.Add(1))), time.Sleep
	}})
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		t.Run("ExactlyOnce/"+level.String(), func(t *testing.T) {
			exactlyOnce(t, db, ledgerIn(t, db, sqlledger.MySQL, fmt.Sprintf("test%d_", n.Add(1))), level)
		})
	}
}

func BenchmarkLedgerInMySQL(b *testing.B) {
	l := ledgerIn(b, startMySQL(b), sqlledger.MySQL, "once_")
	b.Run("Do", func(b *testing.B) { ledgertest.Benchmark(b, l) })
	b.Run("DoTx", func(b *testing.B) { ledgertest.BenchmarkFunc(b, inTx(l, noRows)) })
}
