package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // pgx
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite" // sqlite

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/fileledger"
	"github.com/millrace/millrace/once/redisledger"
	"github.com/millrace/millrace/once/sqlledger"
)

const onceHelp = "With --once a ledger is asked before events are processed, and told after: what a receiver has done that died before\n" +
	"its checkpoint is not done again. The command's effect and the mark are in two systems, so one batch may be repeated\n" +
	"for a receiver that dies between the two. URLs: redis://HOST:6379/0 (rediss:// over TLS), postgres://USER@HOST/DB,\n" +
	"mysql://USER:PASSWORD@HOST/DB, sqlite:///PATH, file:///PATH; the last two are for one machine, file:// for one process.\n" +
	"Tables are made if absent. docs/once.md says what each promises."

// openedLedger is the ledger of --once, or none.
type openedLedger struct {
	once.Ledger
	close func()
}

// openLedger opens what a URL names, and sees that it answers.
func openLedger(ctx context.Context, text string) (*openedLedger, error) {
	if text == "" {
		return &openedLedger{close: func() {}}, nil
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, misused("--once is a URL: redis://, postgres://, mysql://, sqlite:// or file://")
	}
	var l *openedLedger
	var err error
	switch scheme {
	case "redis", "rediss", "unix":
		l, err = openRedis(ctx, text)
	case "postgres", "postgresql":
		l, err = openSQL(ctx, sqlledger.PostgreSQL, "pgx", text)
	case "mysql":
		var dsn string
		if dsn, err = mysqlDSN(text); err == nil {
			l, err = openSQL(ctx, sqlledger.MySQL, "mysql", dsn)
		}
	case "sqlite":
		l, err = openSQL(ctx, sqlledger.SQLite, "sqlite", "file:"+(&url.URL{Path: rest}).EscapedPath()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	case "file":
		var f *fileledger.Ledger
		if f, err = fileledger.Open(filepath.FromSlash(rest), fileledger.Options{}); err == nil {
			l = &openedLedger{f, func() { f.Close() }} //nolint:errcheck // every mark is on disk
		}
	default:
		return nil, misused("--once %s:// is not known: there are redis://, postgres://, mysql://, sqlite:// and file://", scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("--once: the ledger can't be used: %w", err)
	}
	return l, nil
}

func openRedis(ctx context.Context, text string) (*openedLedger, error) {
	o, err := redis.ParseURL(text)
	if err != nil {
		return nil, err
	}
	redis.SetLogger(silent{}) // what it says on standard error is in its errors, too
	client := redis.NewClient(o)
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &openedLedger{redisledger.New(client, redisledger.Options{}), func() { client.Close() }}, nil //nolint:errcheck // every mark is answered
}

// silent is a logger for the Redis client that says nothing.
type silent struct{}

// Printf says nothing.
func (silent) Printf(context.Context, string, ...any) {}

func openSQL(ctx context.Context, d sqlledger.Dialect, driver, dsn string) (*openedLedger, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	l, err := sqlledger.New(db, d, sqlledger.Options{})
	if err == nil {
		err = l.CreateTables(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &openedLedger{l, func() { db.Close() }}, nil //nolint:errcheck // every mark is committed
}

// mysqlDSN is a URL as the driver wants it.
func mysqlDSN(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("the URL is not of the form mysql://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	c := mysql.NewConfig()
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.Net, c.Addr = "tcp", u.Host
	if u.Port() == "" {
		c.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	c.DBName = strings.TrimPrefix(u.Path, "/")
	dsn := c.FormatDSN()
	if u.RawQuery != "" { // parameters of the driver's own, such as tls=true
		separator := "?"
		if strings.Contains(dsn, "?") {
			separator = "&"
		}
		dsn += separator + u.RawQuery
	}
	if _, err := mysql.ParseDSN(dsn); err != nil {
		return "", err
	}
	return dsn, nil
}

// parseOnceID reads --once-id: what gives an event the id that the ledger knows it by. An
// event that has none is known by its partition and sequence number.
func parseOnceID(text string) (func(*azeventhubs.ReceivedEventData) string, error) {
	kind, name, named := strings.Cut(text, ":")
	switch {
	case text == "":
		return nil, nil
	case text == "message-id":
		return func(e *azeventhubs.ReceivedEventData) string {
			if e.MessageID == nil {
				return ""
			}
			return *e.MessageID
		}, nil
	case kind == "property" && named && name != "":
		return func(e *azeventhubs.ReceivedEventData) string { return idOf(e.Properties[name]) }, nil
	case kind == "json" && named && name != "":
		return func(e *azeventhubs.ReceivedEventData) string {
			var fields map[string]json.RawMessage
			var value any
			if json.Unmarshal(e.Body, &fields) != nil || json.Unmarshal(fields[name], &value) != nil {
				return ""
			}
			if _, number := value.(float64); number {
				return string(fields[name]) // all its digits
			}
			return idOf(value)
		}, nil
	}
	return nil, misused("--once-id %q is not one of message-id, property:NAME, json:NAME", text)
}

// idOf is a value as an id. What is neither text nor a number is none.
func idOf(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int8, int16, int32, int64, uint8, uint16, uint32, uint64, int, uint:
		return fmt.Sprint(v)
	case fmt.Stringer: // a UUID
		return v.String()
	}
	return ""
}
