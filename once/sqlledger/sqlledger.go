// Package sqlledger keeps a ledger in a database: PostgreSQL, MySQL or SQLite.
//
// Its own form, [Ledger.DoTx], keeps the mark where the effect is. Both are in one
// transaction, so that there is never one without the other: each event has its effect
// exactly once, whoever dies, and whenever. That holds for what the function does
// through the transaction that it is given, and for nothing else: a mail that it sends
// is sent again if the commit fails.
//
// The forms of package once, with claims, work too, for effects elsewhere. Their claims
// and marks are durable as the database is.
//
// Each transaction locks the book of its partition and group first, so those of one
// partition follow one another; and when a partition moves, the old owner's last and
// the new owner's first do. Different partitions do not meet.
//
// The package needs two tables ([Schema]), and no driver: it is handed a *sql.DB. SQLite
// needs a busy timeout in its connection string, since it has one writer at a time.
package sqlledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/once"
)

const (
	defaultPrefix  = "once_"
	defaultKeepIDs = 7 * 24 * time.Hour
)

// Options says how a ledger is kept. The zero value is usable.
type Options struct {
	Prefix  string        // what the names of the tables begin with: once_ if it is empty
	KeepIDs time.Duration // how long ids that are done are known: seven days if it is zero
}

// Ledger is a [once.Ledger] in a database. Make it with New.
type Ledger struct {
	db      *sql.DB
	dialect Dialect
	prefix  string
	keep    time.Duration
	now     func() time.Time // the server's clock, if nil
	made    sync.Map         // the names of the books that have been seen
}

var _ once.Ledger = (*Ledger)(nil)

// New returns the ledger that is in a database, which stays the caller's to close. It
// talks to nobody.
func New(db *sql.DB, d Dialect, o Options) (*Ledger, error) {
	if d < PostgreSQL || d > SQLite {
		return nil, errors.New("sqlledger: a dialect is needed")
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if strings.Trim(o.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != "" {
		return nil, fmt.Errorf("sqlledger: the prefix %q has more than letters, digits, _ and a dot", o.Prefix)
	}
	if o.KeepIDs == 0 {
		o.KeepIDs = defaultKeepIDs
	}
	return &Ledger{db: db, dialect: d, prefix: o.Prefix, keep: o.KeepIDs}, nil
}

// CreateTables makes the tables, if they are not there.
func (l *Ledger) CreateTables(ctx context.Context) error {
	for _, s := range Schema(l.dialect, l.prefix) {
		if _, err := l.db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("sqlledger: create tables: %w", err)
		}
	}
	return nil
}

// sql is a query in the dialect, with the names of the tables.
func (l *Ledger) sql(query string) string {
	query = strings.ReplaceAll(query, "{books}", l.prefix+"books")
	query = strings.ReplaceAll(query, "{marks}", l.prefix+"marks")
	return l.dialect.bind(query)
}

// inTx calls fn in a transaction, in which it locks the books of events, and again when
// the database has ended it for a deadlock, unless stop says that it may not. Books that
// may not be there are made before: making them meets deadlocks, too.
func (l *Ledger) inTx(ctx context.Context, events []once.Event, stop *bool, fn func(tx *sql.Tx) error) error {
	books, err := once.Books(events)
	if err != nil {
		return err
	}
	for _, b := range books {
		if _, made := l.made.Load(b.Name); made {
			continue
		}
		if _, err := l.db.ExecContext(ctx, l.makeBook(), hash(b.Name), b.Name); err != nil {
			return fmt.Errorf("sqlledger: make a book: %w", err)
		}
		l.made.Store(b.Name, true)
	}
	for tries := 1; ; tries++ {
		err := l.begin(ctx, fn)
		if err == nil || !deadlock(err) || tries == 20 || (stop != nil && *stop) {
			return err
		}
		select {
		case <-time.After(rand.N(time.Duration(tries) * time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

// makeBook is the statement that makes a book, if it is not there.
func (l *Ledger) makeBook() string {
	begin, end := l.dialect.insert()
	return l.sql(begin + "{books} (book, name, token, settled) VALUES (?, ?, 0, -1)" + end)
}

// begin calls fn in a transaction.
func (l *Ledger) begin(ctx context.Context, fn func(tx *sql.Tx) error) error {
	o := &sql.TxOptions{Isolation: sql.LevelReadCommitted} // the lock of the book is what isolates
	if l.dialect == SQLite {
		o = nil // which has one kind
	}
	tx, err := l.db.BeginTx(ctx, o)
	if err != nil {
		return fmt.Errorf("sqlledger: begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // of no effect once it is committed
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqlledger: commit: %w", err)
	}
	return nil
}

// each locks the books of events, in their order, and calls fn with each.
func (l *Ledger) each(ctx context.Context, tx *sql.Tx, events []once.Event, fn func(p *page, at []int) error) error {
	books, err := once.Books(events)
	if err != nil {
		return err
	}
	for _, b := range books {
		p, err := l.lock(ctx, tx, b)
		if err != nil {
			return err
		}
		of := make([]once.Event, len(b.Events))
		for i, at := range b.Events {
			of[i] = events[at]
		}
		if err := p.load(ctx, of); err != nil {
			return err
		}
		if err := fn(p, b.Events); err != nil {
			return err
		}
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Claim implements [once.Ledger], all or nothing.
func (l *Ledger) Claim(ctx context.Context, events []once.Event, lease time.Duration) ([]once.Claim, error) {
	if lease < time.Millisecond {
		return nil, once.ErrShortLease
	}
	if len(events) == 0 {
		return nil, ctx.Err()
	}
	claims := make([]once.Claim, len(events))
	err := l.inTx(ctx, events, nil, func(tx *sql.Tx) error {
		return l.each(ctx, tx, events, func(p *page, at []int) (err error) {
			for _, i := range at {
				if claims[i], err = p.claim(ctx, events[i], p.now+lease.Milliseconds()); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// withClaims is each in a transaction, for the events of claims.
func (l *Ledger) withClaims(ctx context.Context, claims []once.Claim, fn func(p *page, at []int) error) error {
	if len(claims) == 0 {
		return ctx.Err()
	}
	events := make([]once.Event, len(claims))
	for i, c := range claims {
		events[i] = c.Event
	}
	return l.inTx(ctx, events, nil, func(tx *sql.Tx) error { return l.each(ctx, tx, events, fn) })
}

// Mark implements [once.Ledger], all or nothing but for what is lost.
func (l *Ledger) Mark(ctx context.Context, claims []once.Claim) error {
	isLost := make([]bool, len(claims)) // by the last try
	err := l.withClaims(ctx, claims, func(p *page, at []int) (err error) {
		for _, i := range at {
			if isLost[i], err = p.finish(ctx, claims[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return lostOf(claims, isLost)
}

// Extend implements [once.Ledger], all or nothing but for what is lost.
func (l *Ledger) Extend(ctx context.Context, claims []once.Claim, lease time.Duration) ([]once.Claim, error) {
	if lease < time.Millisecond {
		return nil, once.ErrShortLease
	}
	isLost := make([]bool, len(claims)) // by the last try, as these
	extended := slices.Clone(claims)
	err := l.withClaims(ctx, claims, func(p *page, at []int) error {
		for _, i := range at {
			until := p.now + lease.Milliseconds()
			if isLost[i] = p.extend(claims[i], until); !isLost[i] {
				extended[i].Until = time.UnixMilli(until)
			} else {
				extended[i] = claims[i]
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return extended, lostOf(claims, isLost)
}

// lostOf is the error of a call that has found claims lost, or nil.
func lostOf(claims []once.Claim, isLost []bool) error {
	var lost []once.Claim
	for i, c := range claims {
		if isLost[i] {
			lost = append(lost, c)
		}
	}
	if len(lost) > 0 {
		return &once.LostError{Claims: lost}
	}
	return nil
}

// whose says whether a claim is lost, and whether nothing is left to be done for it.
func (p *page) whose(c once.Claim) (lost, done bool) {
	if p.isSettled(c.Event) {
		return c.Until.UnixMilli() < p.now, true
	}
	x, ok := p.get(keyOf(c.Event))
	return ok && x.token != c.Token, x.done
}

// finish marks a claim, unless it is lost.
func (p *page) finish(ctx context.Context, c once.Claim) (lost bool, err error) {
	lost, done := p.whose(c)
	if lost || done {
		return lost, nil
	}
	return false, p.mark(ctx, keyOf(c.Event), p.l.done(p, c.Event, c.Token))
}

// extend has a claim last until a time, unless it is lost.
func (p *page) extend(c once.Claim, until int64) (lost bool) {
	lost, done := p.whose(c)
	if !lost && !done {
		p.put(keyOf(c.Event), entry{token: c.Token, until: until})
	}
	return lost
}

// done is the mark of an event.
func (l *Ledger) done(p *page, e once.Event, token int64) entry {
	return entry{token: token, done: true, until: p.now + l.keep.Milliseconds(), gap: e.Gap}
}

// Release implements [once.Ledger].
func (l *Ledger) Release(ctx context.Context, claims []once.Claim) error {
	return l.withClaims(ctx, claims, func(p *page, at []int) error {
		for _, i := range at {
			if err := p.release(ctx, claims[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Settle implements [once.Ledger].
func (l *Ledger) Settle(ctx context.Context, s once.Stream, through int64) error {
	e := []once.Event{{Stream: s, Sequence: through}}
	return l.inTx(ctx, e, nil, func(tx *sql.Tx) error { return l.SettleTx(ctx, tx, s, through) })
}

// SettleTx is Settle in a transaction of the caller's.
func (l *Ledger) SettleTx(ctx context.Context, tx *sql.Tx, s once.Stream, through int64) error {
	return l.each(ctx, tx, []once.Event{{Stream: s, Sequence: through}}, func(p *page, _ []int) error {
		if through > p.settled {
			p.settle(through, true)
		}
		return nil
	})
}

// Status implements [once.Ledger].
func (l *Ledger) Status(ctx context.Context, s once.Stream) (once.Status, error) {
	st := once.Status{Settled: -1}
	if err := (once.Event{Stream: s}).Validate(); err != nil {
		return st, err
	}
	book := hash(s.Book())
	err := l.db.QueryRowContext(ctx, l.sql(`SELECT settled,
	(SELECT COUNT(*) FROM {marks} WHERE book = ? AND done = 1),
	(SELECT COUNT(*) FROM {marks} WHERE book = ? AND done = 0)
FROM {books} WHERE book = ?`), book, book, book).Scan(&st.Settled, &st.Marks, &st.Claims)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return st, fmt.Errorf("sqlledger: status: %w", err)
	}
	return st, nil
}
