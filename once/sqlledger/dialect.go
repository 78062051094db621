package sqlledger

import (
	"fmt"
	"strconv"
	"strings"
)

// Dialect is the SQL of a database.
type Dialect uint8

// The databases that are known.
const (
	PostgreSQL Dialect = iota + 1 // 12 or later
	MySQL                         // MySQL 8 or MariaDB 10.5, or later, with InnoDB
	SQLite                        // 3.35 or later
)

// String returns the database's name.
func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	case SQLite:
		return "SQLite"
	}
	return "unknown dialect"
}

// now is the server's clock in milliseconds of Unix time. In a statement that has
// waited for a lock it is the time after.
func (d Dialect) now() string {
	switch d {
	case PostgreSQL:
		return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
	case MySQL:
		return "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)"
	}
	return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
}

// returning says that an UPDATE can answer.
func (d Dialect) returning() bool { return d != MySQL }

// latest is what a SELECT ends with, to see what has been committed before the book
// was locked, even if the transaction has read before.
func (d Dialect) latest() string {
	if d == MySQL {
		return " FOR UPDATE"
	}
	return "" // the others refuse to lock the book if it has changed since
}

// insert begins an INSERT that does nothing if the row exists, and ends it.
func (d Dialect) insert() (begin, end string) {
	if d == MySQL {
		return "INSERT IGNORE INTO ", ""
	}
	return "INSERT INTO ", " ON CONFLICT DO NOTHING"
}

// bind numbers the placeholders of a query as the database wants them.
func (d Dialect) bind(query string) string {
	if d != PostgreSQL {
		return query
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// Schema returns the statements that create the tables of a ledger, for a database
// whose tables are made by other means than [Ledger.CreateTables]. The prefix is that
// of [Options].
func Schema(d Dialect, prefix string) []string {
	if prefix == "" {
		prefix = defaultPrefix
	}
	hash, text, end := "VARCHAR(64)", "TEXT", ""
	if d == MySQL {
		hash = "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin"
		end = " ENGINE=InnoDB"
	}
	if d == SQLite {
		end = " WITHOUT ROWID"
	}
	return []string{
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %sbooks (
	book %s NOT NULL PRIMARY KEY,
	name %s NOT NULL,
	token BIGINT NOT NULL,
	settled BIGINT NOT NULL
)%s`, prefix, hash, text, end),
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %smarks (
	book %s NOT NULL,
	number BIGINT NOT NULL,
	id %s NOT NULL,
	token BIGINT NOT NULL,
	done SMALLINT NOT NULL,
	until BIGINT NOT NULL,
	gap BIGINT NOT NULL,
	PRIMARY KEY (book, number, id)
)%s`, prefix, hash, hash, end),
	}
}
