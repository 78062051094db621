package sqlledger

import (
	"strings"
	"testing"
)

// TestDialects has the statements that differ, by their text.
func TestDialects(t *testing.T) {
	for _, c := range []struct {
		dialect Dialect
		query   string
		want    string
	}{
		{PostgreSQL, "SELECT a FROM {marks} WHERE b = ? AND c = ?", "SELECT a FROM x_marks WHERE b = $1 AND c = $2"},
		{MySQL, "SELECT a FROM {books} WHERE b = ? AND c = ?", "SELECT a FROM x_books WHERE b = ? AND c = ?"},
		{SQLite, "DELETE FROM {marks}", "DELETE FROM x_marks"},
	} {
		l, err := New(nil, c.dialect, Options{Prefix: "x_"})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.sql(c.query); got != c.want {
			t.Errorf("%v: %s, want %s", c.dialect, got, c.want)
		}
	}
	if begin, end := MySQL.insert(); begin != "INSERT IGNORE INTO " || end != "" {
		t.Error(begin, end)
	}
	if MySQL.returning() || MySQL.latest() != " FOR UPDATE" {
		t.Error("MySQL has no UPDATE … RETURNING, and reads an old view unless it locks")
	}
}

// TestSchemas has what each database needs of the tables.
func TestSchemas(t *testing.T) {
	for d, want := range map[Dialect]string{
		PostgreSQL: "book VARCHAR(64) NOT NULL",
		MySQL:      "id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL", // ids differ by case
		SQLite:     "WITHOUT ROWID",
	} {
		all := strings.Join(Schema(d, "x_"), ";")
		if !strings.Contains(all, want) || !strings.Contains(all, "x_marks") || !strings.Contains(all, "x_books") {
			t.Errorf("%v: %s", d, all)
		}
		if d == MySQL && strings.Count(all, "ENGINE=InnoDB") != 2 {
			t.Errorf("%v: a table without transactions", d)
		}
	}
}
