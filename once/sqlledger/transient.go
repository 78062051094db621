package sqlledger

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
)

// Transient says whether an error is the database's and not the statement's, so that the
// same may succeed the next time: the connection is lost or refused, a resource is short,
// the server goes down or takes reads alone, as after a failover, or a transaction was
// ended since it met another. Of drivers only those texts and methods are known that
// those of PostgreSQL (pgx, lib/pq), MySQL (go-sql-driver) and SQLite have.
func (l *Ledger) Transient(err error) bool {
	var unreachable *net.OpError
	if errors.As(err, &unreachable) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, sql.ErrTxDone) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	if state, ok := sqlState(err); ok {
		switch {
		case len(state) < 2:
			return false
		case state == "25006": // read-only
			return true
		}
		switch state[:2] {
		case "08", "40", "53", "57", "58": // connection, rollback, resources, intervention, system
			return true
		}
		return false
	}
	return err != nil && contains(err.Error(), transient[l.dialect])
}

// transient are what errors have in them, of drivers that don't give the SQL state.
var transient = map[Dialect][]string{
	MySQL: {
		"Error 1040", "Error 1203", "Error 1226", // too many connections
		"Error 1021", "Error 1041", "Error 1114", // disk, memory, a table is full
		"Error 1053", "Error 1077", "Error 1927", // it goes down, or has ended the connection
		"Error 1205", "Error 1213", // a lock, a deadlock
		"Error 1290", "Error 1792", "Error 1836", // read-only
		"invalid connection", "busy buffer",
	},
	SQLite: {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "database is locked", "database table is locked", "disk is full"},
}

func contains(text string, any []string) bool {
	for _, x := range any {
		at := strings.Index(text, x)
		if at < 0 {
			continue
		}
		end := at + len(x)
		if !strings.HasPrefix(x, "Error ") || end == len(text) || text[end] < '0' || text[end] > '9' {
			return true
		}
	}
	return false
}

// sqlState is an error's, as the drivers of PostgreSQL have it.
func sqlState(err error) (string, bool) {
	var coded interface{ SQLState() string }
	if !errors.As(err, &coded) {
		return "", false
	}
	return coded.SQLState(), true
}

// deadlock says that a transaction was ended since it met others, and is right to be
// tried again. MySQL has gaps between rows that transactions of other books lock.
func deadlock(err error) bool {
	if state, ok := sqlState(err); ok {
		return state == "40001" || state == "40P01"
	}
	return contains(err.Error(), []string{"Error 1213"})
}
