package sqlledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestTransient(t *testing.T) {
	my := func(n uint16) error {
		return &mysql.MySQLError{Number: n, SQLState: [5]byte([]byte("HY000")), Message: "x"}
	}
	for _, c := range []struct {
		dialect Dialect
		err     error
		want    bool
	}{
		{PostgreSQL, &pgconn.PgError{Code: "40P01"}, true},
		{PostgreSQL, &pgconn.PgError{Code: "57P01"}, true},
		{PostgreSQL, &pgconn.PgError{Code: "53100"}, true},
		{PostgreSQL, &pgconn.PgError{Code: "25006"}, true},
		{PostgreSQL, &pgconn.PgError{Code: "23505"}, false},
		{PostgreSQL, &pgconn.PgError{Code: "42P01"}, false},
		{PostgreSQL, driver.ErrBadConn, true},
		{PostgreSQL, sql.ErrTxDone, true},
		{PostgreSQL, &net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		{PostgreSQL, errors.New("Error 1213"), false},
		{MySQL, my(1213), true},
		{MySQL, my(1205), true},
		{MySQL, my(1040), true},
		{MySQL, my(1290), true},
		{MySQL, my(1062), false},
		{MySQL, mysql.ErrInvalidConn, true},
		{MySQL, errors.New("Error 12130 (HY000): of another number"), false},
		{SQLite, errors.New("rotten"), false},
		{SQLite, nil, false},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("wrapped: %w", err)
		}
		if got := (&Ledger{dialect: c.dialect}).Transient(err); got != c.want {
			t.Errorf("%s, %v: %t", c.dialect, c.err, got)
		}
	}
}

// TestTransientSQLite has the error come from a SQLite that somebody else has locked.
func TestTransientSQLite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.db")
	var dbs [2]*sql.DB
	for i := range dbs {
		db, err := sql.Open("sqlite", "file:"+name+"?_txlock=immediate")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		dbs[i] = db
	}
	tx, err := dbs[0].BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	_, err = dbs[1].BeginTx(context.Background(), nil)
	if !(&Ledger{dialect: SQLite}).Transient(err) {
		t.Errorf("%v", err)
	}
	_, err = dbs[1].ExecContext(t.Context(), "SELECT nonsense")
	if err == nil || (&Ledger{dialect: SQLite}).Transient(err) {
		t.Errorf("%v", err)
	}
}
