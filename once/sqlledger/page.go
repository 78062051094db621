package sqlledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/once"
)

// chunk is how many rows a statement reads or writes at most: SQLite takes 32,766
// parameters, PostgreSQL 65,535.
const chunk = 500

// key is what a row of a book is known by: a number, or the hash of an id.
type key struct {
	number int64
	id     string
}

// entry is a row: a claim, or a mark.
type entry struct {
	token int64
	done  bool
	until int64 // milliseconds; of the mark of an id, when it is forgotten
	gap   int64
}

// page is a book that a transaction has locked, and so much of it as it needs. What is
// changed in it is written by flush.
type page struct {
	l       *Ledger
	tx      *sql.Tx
	book    string // the hash of its name
	ids     bool
	settled int64
	was     int64 // settled, when it was locked
	token   int64
	now     int64
	entries map[key]entry
	stored  map[key]bool // the rows that there are of these
	changed map[key]bool
	clear   bool // there may be rows of what is settled
	freed   bool // a claim has been given up
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func keyOf(e once.Event) key {
	if e.ID != "" {
		return key{id: hash(e.ID)}
	}
	return key{number: e.Sequence}
}

// lock locks a book, which must be the first that a transaction reads of it, and gives
// it its next token. The row is made if there is none.
func (l *Ledger) lock(ctx context.Context, tx *sql.Tx, b once.Book) (*page, error) {
	p := &page{l: l, tx: tx, book: hash(b.Name), ids: b.IDs,
		entries: map[key]entry{}, stored: map[key]bool{}, changed: map[key]bool{}}
	for range 2 {
		err := p.take(ctx)
		if err == nil {
			p.was = p.settled
			if l.now != nil {
				p.now = l.now().UnixMilli()
			}
			return p, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("sqlledger: lock: %w", err)
		}
		if _, err := tx.ExecContext(ctx, l.makeBook(), p.book, b.Name); err != nil {
			return nil, fmt.Errorf("sqlledger: lock: %w", err)
		}
	}
	return nil, errors.New("sqlledger: lock: the transaction does not see a book that another has just made; try again")
}

// take locks the row of the book, by writing to it.
func (p *page) take(ctx context.Context) error {
	update := "UPDATE {books} SET token = token + 1 WHERE book = ?"
	answer := "settled, token, " + p.l.dialect.now()
	if p.l.dialect.returning() {
		return p.tx.QueryRowContext(ctx, p.l.sql(update+" RETURNING "+answer), p.book).Scan(&p.settled, &p.token, &p.now)
	}
	if _, err := p.tx.ExecContext(ctx, p.l.sql(update), p.book); err != nil {
		return err
	}
	return p.tx.QueryRowContext(ctx, p.l.sql("SELECT "+answer+" FROM {books} WHERE book = ?"+p.l.dialect.latest()), p.book).Scan(&p.settled, &p.token, &p.now)
}

// load reads the rows of the events that it is called for.
func (p *page) load(ctx context.Context, events []once.Event) error {
	const columns = "SELECT number, id, token, done, until, gap FROM {marks} WHERE book = ?"
	if !p.ids {
		least, most := events[0].Sequence, events[0].Sequence
		for _, e := range events {
			least, most = min(least, e.Sequence), max(most, e.Sequence)
		}
		if least = max(least, p.settled+1); least > most {
			return nil
		}
		_, err := p.read(ctx, columns+" AND number BETWEEN ? AND ?", p.book, least, most)
		return err
	}
	if p.token%64 == 0 {
		if err := p.exec(ctx, "DELETE FROM {marks} WHERE book = ? AND until <= ?", p.book, p.now); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(events, chunk) {
		args := []any{p.book}
		for _, e := range part {
			args = append(args, keyOf(e).id)
		}
		if _, err := p.read(ctx, columns+" AND number = 0 AND id IN ("+marks(len(part))+")", args...); err != nil {
			return err
		}
	}
	return nil
}

// marks returns n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// read adds rows to the entries, and returns their numbers, in their order.
func (p *page) read(ctx context.Context, query string, args ...any) ([]int64, error) {
	rows, err := p.tx.QueryContext(ctx, p.l.sql(query+p.l.dialect.latest()), args...)
	if err != nil {
		return nil, fmt.Errorf("sqlledger: read: %w", err)
	}
	defer rows.Close()
	var numbers []int64
	for rows.Next() {
		var k key
		var x entry
		if err := rows.Scan(&k.number, &k.id, &x.token, &x.done, &x.until, &x.gap); err != nil {
			return nil, fmt.Errorf("sqlledger: read: %w", err)
		}
		p.entries[k], p.stored[k] = x, true
		numbers = append(numbers, k.number)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlledger: read: %w", err)
	}
	return numbers, nil
}

func (p *page) exec(ctx context.Context, query string, args ...any) error {
	if _, err := p.tx.ExecContext(ctx, p.l.sql(query), args...); err != nil {
		return fmt.Errorf("sqlledger: write: %w", err)
	}
	return nil
}

// get returns what is known of an event that is not settled.
func (p *page) get(k key) (entry, bool) {
	x, ok := p.entries[k]
	if ok && p.ids && x.until <= p.now {
		return entry{}, false
	}
	return x, ok
}

func (p *page) put(k key, x entry) {
	p.entries[k], p.changed[k] = x, true
}

// isSettled says that an event is not above the mark.
func (p *page) isSettled(e once.Event) bool { return !p.ids && e.Sequence <= p.settled }

// claim claims an event, and answers.
func (p *page) claim(ctx context.Context, e once.Event, until int64) (once.Claim, error) {
	state, busy, err := p.look(ctx, e)
	if err != nil || state != once.Claimed {
		return once.Claim{Event: e, State: state, Until: busy}, err
	}
	p.put(keyOf(e), entry{token: p.token, until: until})
	return once.Claim{Event: e, State: once.Claimed, Token: p.token, Until: time.UnixMilli(until)}, nil
}

// look says what an event is to who asks: Claimed is that it is free.
func (p *page) look(ctx context.Context, e once.Event) (once.State, time.Time, error) {
	if p.isSettled(e) {
		return once.Done, time.Time{}, nil
	}
	k := keyOf(e)
	switch x, ok := p.get(k); {
	case ok && x.done:
		if !p.ids && e.Gap > x.gap {
			x.gap = e.Gap
			return once.Done, time.Time{}, p.mark(ctx, k, x)
		}
		return once.Done, time.Time{}, nil
	case ok && x.until > p.now:
		return once.Busy, time.UnixMilli(x.until), nil
	}
	return once.Claimed, time.Time{}, nil
}

// mark marks an event that is not settled.
func (p *page) mark(ctx context.Context, k key, x entry) error {
	if p.ids {
		p.put(k, x)
		return nil
	}
	begin := k.number - x.gap
	if begin > p.settled+1 {
		if x.gap > 0 {
			if err := p.drop(ctx, begin, k.number-1); err != nil {
				return err
			}
		}
		p.put(k, x)
		return nil
	}
	p.settle(k.number, x.gap > 0)
	return nil
}

// drop deletes the rows of numbers that do not come.
func (p *page) drop(ctx context.Context, from, through int64) error {
	for k := range p.entries {
		if k.number >= from && k.number <= through {
			p.forget(k)
		}
	}
	return p.exec(ctx, "DELETE FROM {marks} WHERE book = ? AND number BETWEEN ? AND ?", p.book, from, through)
}

func (p *page) forget(k key) {
	delete(p.entries, k)
	delete(p.stored, k)
	delete(p.changed, k)
}

// settle moves the mark to a number. There may be rows below it that were not loaded,
// if it goes over others.
func (p *page) settle(through int64, over bool) {
	p.settled = through
	if !over {
		k := key{number: through}
		p.clear = p.clear || p.stored[k]
		p.forget(k)
		return
	}
	p.clear = true
	for k := range p.entries {
		if k.number <= through {
			p.forget(k)
		}
	}
}

// release deletes a claim, if it is the one.
func (p *page) release(ctx context.Context, c once.Claim) error {
	k := keyOf(c.Event)
	if x, ok := p.entries[k]; !ok || x.done || x.token != c.Token {
		return nil
	}
	p.forget(k)
	p.freed = true
	return p.exec(ctx, "DELETE FROM {marks} WHERE book = ? AND number = ? AND id = ?", p.book, k.number, k.id)
}

// flush writes what was changed, and moves the mark on over the marks that follow it.
func (p *page) flush(ctx context.Context) error {
	if err := p.write(ctx); err != nil {
		return err
	}
	if p.ids {
		return nil
	}
	if err := p.follow(ctx); err != nil || p.settled == p.was {
		return err
	}
	if p.clear {
		if err := p.exec(ctx, "DELETE FROM {marks} WHERE book = ? AND number <= ?", p.book, p.settled); err != nil {
			return err
		}
	}
	return p.exec(ctx, "UPDATE {books} SET settled = ? WHERE book = ?", p.settled, p.book)
}

// write replaces the rows that were changed.
func (p *page) write(ctx context.Context) error {
	all := make([]key, 0, len(p.changed))
	for k := range p.changed {
		all = append(all, k)
	}
	for part := range slices.Chunk(all, chunk) {
		old, rows := []any{p.book}, make([]any, 0, 7*len(part))
		for _, k := range part {
			x := p.entries[k]
			rows = append(rows, p.book, k.number, k.id, x.token, bit(x.done), x.until, x.gap)
			if p.stored[k] && p.ids {
				old = append(old, k.id)
			} else if p.stored[k] {
				old = append(old, k.number)
			}
		}
		if len(old) > 1 {
			column := "number"
			if p.ids {
				column = "number = 0 AND id"
			}
			if err := p.exec(ctx, "DELETE FROM {marks} WHERE book = ? AND "+column+" IN ("+marks(len(old)-1)+")", old...); err != nil {
				return err
			}
		}
		values := strings.TrimSuffix(strings.Repeat("(?, ?, ?, ?, ?, ?, ?), ", len(part)), ", ")
		if err := p.exec(ctx, "INSERT INTO {marks} (book, number, id, token, done, until, gap) VALUES "+values, rows...); err != nil {
			return err
		}
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// follow moves the mark on over the marks that follow it, page by page.
func (p *page) follow(ctx context.Context) error {
	if !p.freed && p.settled == p.was {
		return nil
	}
	for limit := 8; ; limit = chunk {
		clear(p.entries)
		numbers, err := p.read(ctx, fmt.Sprintf("SELECT number, id, token, done, until, gap FROM {marks} WHERE book = ? AND number > ? ORDER BY number LIMIT %d", limit), p.book, p.settled)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			if x := p.entries[key{number: n}]; !x.done || n-x.gap > p.settled+1 {
				return nil
			}
			p.settled, p.clear = n, true
		}
		if len(numbers) < limit {
			return nil
		}
	}
}
