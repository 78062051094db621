// Package redisledger keeps a ledger in Redis, or in what speaks its protocol and runs
// its Lua scripts. Each call is one script for each book, hence atomic, and one round
// trip, however many events.
//
// # What a Redis can promise
//
// Effects are elsewhere than the marks, so at best an event is processed once but for
// who dies between the two (package once). Beyond that, the ledger is as durable as the
// Redis is:
//
//   - With appendonly yes and appendfsync always, what was answered is kept.
//   - With appendfsync everysec, the default once appendonly is on, a crash of the
//     machine takes up to the last second or two of marks. Those events may be processed
//     again, if they are delivered again: as they would be without a ledger.
//   - Without persistence, a restart takes all marks. What is delivered again after it,
//     which is what lies behind the checkpoint, may be processed again.
//   - A failover takes what had not been replicated: replication does not wait.
//   - With a maxmemory-policy that evicts, marks vanish when it likes. Use noeviction.
//
// In no case is an event lost by that: what a ledger forgets is processed again, never
// skipped. Nor does a claimer from before mark over one from after, since tokens are made
// from the server's time: they grow over a restart, too, unless its clock is set back.
//
// Where the effect is in a database, package sqlledger is the better ledger.
package redisledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/once"
)

const (
	defaultPrefix  = "once:"
	defaultKeepIDs = 7 * 24 * time.Hour
)

// Options says how a ledger is kept. The zero value is usable.
type Options struct {
	Prefix  string        // what the names of its keys begin with: once: if it is empty
	KeepIDs time.Duration // how long ids that are done are known: seven days if it is zero
}

// Ledger is a [once.Ledger] in Redis. Make it with New.
type Ledger struct {
	client redis.Scripter
	prefix string
	keep   time.Duration
}

var _ once.Ledger = (*Ledger)(nil)

// New returns the ledger that a client reaches: a server, a sentinel's, or a cluster. The
// client stays the caller's to close. It talks to nobody.
func New(client redis.Scripter, o Options) *Ledger {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.KeepIDs == 0 {
		o.KeepIDs = defaultKeepIDs
	}
	return &Ledger{client: client, prefix: o.Prefix, keep: o.KeepIDs}
}

// keys are those of a book. They are in one slot of a cluster, by what is in braces.
func (l *Ledger) keys(book string) []string {
	book = strings.NewReplacer("{", "%7B", "}", "%7D").Replace(book)
	name := l.prefix + "{" + book + "}"
	return []string{name + ":b", name + ":m", name + ":z"}
}

func kind(b once.Book) string {
	if b.IDs {
		return "i"
	}
	return "n"
}

func name(e once.Event) string {
	if e.ID != "" {
		return e.ID
	}
	return strconv.FormatInt(e.Sequence, 10)
}

// gap is the event's, which those with an id have none of.
func gap(e once.Event) int64 {
	if e.ID != "" {
		return 0
	}
	return e.Gap
}

// run runs a script, sending its text where the server does not know it.
func (l *Ledger) run(ctx context.Context, s *redis.Script, book string, args ...any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer, err := s.Run(ctx, l.client, l.keys(book), args...).Result()
	if err != nil {
		return nil, fmt.Errorf("redisledger: %w", err)
	}
	return answer, nil
}

// Claim implements [once.Ledger]. Each book is claimed in one step.
func (l *Ledger) Claim(ctx context.Context, events []once.Event, lease time.Duration) ([]once.Claim, error) {
	books, err := once.Books(events)
	if err != nil {
		return nil, err
	}
	if lease < time.Millisecond {
		return nil, once.ErrShortLease
	}
	claims := make([]once.Claim, len(events))
	for _, b := range books {
		args := []any{kind(b), lease.Milliseconds()}
		for _, i := range b.Events {
			args = append(args, name(events[i]), gap(events[i]))
		}
		answer, err := l.run(ctx, claim, b.Name, args...)
		if err != nil {
			return nil, err
		}
		list, _ := answer.([]any)
		if len(list) != len(b.Events) {
			return nil, fmt.Errorf("redisledger: %d answers for %d events", len(list), len(b.Events))
		}
		for n, i := range b.Events {
			text, _ := list[n].(string)
			if claims[i], err = parse(events[i], text); err != nil {
				return nil, err
			}
		}
	}
	return claims, nil
}

// parse reads what the script claim answers of an event.
func parse(e once.Event, text string) (once.Claim, error) {
	c := once.Claim{Event: e}
	if text == "d" {
		c.State = once.Done
		return c, nil
	}
	if text == "" {
		return c, errors.New("redisledger: an empty answer")
	}
	until, token, held := strings.Cut(text[1:], ":")
	ms, err := strconv.ParseInt(until, 10, 64)
	if err != nil {
		return c, fmt.Errorf("redisledger: the answer %q", text)
	}
	c.State, c.Until = once.Busy, time.UnixMilli(ms)
	if held {
		c.State = once.Claimed
		if c.Token, err = strconv.ParseInt(token, 10, 64); err != nil {
			return c, fmt.Errorf("redisledger: the answer %q", text)
		}
	}
	return c, nil
}

// Mark implements [once.Ledger]. Each book is marked in one step.
func (l *Ledger) Mark(ctx context.Context, claims []once.Claim) error {
	books, err := once.BooksOfClaims(claims)
	if err != nil {
		return err
	}
	var lost []once.Claim
	for _, b := range books {
		args := []any{kind(b), l.keep.Milliseconds()}
		for _, i := range b.Events {
			c := claims[i]
			args = append(args, name(c.Event), gap(c.Event), c.Token, max(c.Until.UnixMilli(), 0))
		}
		answer, err := l.run(ctx, marks, b.Name, args...)
		if err != nil {
			return err
		}
		list, _ := answer.([]any)
		for _, i := range places(b, list) {
			lost = append(lost, claims[i])
		}
	}
	if len(lost) > 0 {
		return &once.LostError{Claims: lost}
	}
	return nil
}

// Extend implements [once.Ledger]. The claims of each book are extended in one step.
func (l *Ledger) Extend(ctx context.Context, claims []once.Claim, lease time.Duration) ([]once.Claim, error) {
	books, err := once.BooksOfClaims(claims)
	if err != nil {
		return nil, err
	}
	if lease < time.Millisecond {
		return nil, once.ErrShortLease
	}
	extended := slices.Clone(claims)
	var lost []once.Claim
	for _, b := range books {
		args := []any{kind(b), lease.Milliseconds()}
		for _, i := range b.Events {
			c := claims[i]
			args = append(args, name(c.Event), c.Token, max(c.Until.UnixMilli(), 0))
		}
		answer, err := l.run(ctx, extend, b.Name, args...)
		if err != nil {
			return nil, err
		}
		list, _ := answer.([]any)
		if len(list) == 0 {
			return nil, errors.New("redisledger: an empty answer")
		}
		text, _ := list[0].(string)
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("redisledger: the answer %q", text)
		}
		for _, i := range b.Events {
			extended[i].Until = time.UnixMilli(ms)
		}
		for _, i := range places(b, list[1:]) {
			extended[i] = claims[i]
			lost = append(lost, claims[i])
		}
	}
	if len(lost) > 0 {
		return extended, &once.LostError{Claims: lost}
	}
	return extended, nil
}

// places reads what a script answers of claims that are lost: their indexes.
func places(b once.Book, list []any) (at []int) {
	for _, place := range list {
		if n, ok := place.(int64); ok && n >= 0 && n < int64(len(b.Events)) {
			at = append(at, b.Events[n])
		}
	}
	return at
}

// Release implements [once.Ledger].
func (l *Ledger) Release(ctx context.Context, claims []once.Claim) error {
	books, err := once.BooksOfClaims(claims)
	if err != nil {
		return err
	}
	for _, b := range books {
		args := []any{kind(b)}
		for _, i := range b.Events {
			args = append(args, name(claims[i].Event), claims[i].Token)
		}
		if _, err := l.run(ctx, release, b.Name, args...); err != nil {
			return err
		}
	}
	return nil
}

// Settle implements [once.Ledger].
func (l *Ledger) Settle(ctx context.Context, s once.Stream, through int64) error {
	if err := (once.Event{Stream: s, Sequence: through}).Validate(); err != nil {
		return err
	}
	_, err := l.run(ctx, settle, s.Book(), "n", through)
	return err
}

// Status implements [once.Ledger].
func (l *Ledger) Status(ctx context.Context, s once.Stream) (once.Status, error) {
	st := once.Status{Settled: -1}
	if err := (once.Event{Stream: s}).Validate(); err != nil {
		return st, err
	}
	answer, err := l.run(ctx, status, s.Book(), "n")
	if err != nil {
		return st, err
	}
	list, _ := answer.([]any)
	if len(list) != 3 {
		return st, fmt.Errorf("redisledger: the answer %v", answer)
	}
	text, _ := list[0].(string)
	done, _ := list[1].(int64)
	claims, _ := list[2].(int64)
	st.Marks, st.Claims = int(done), int(claims)
	if st.Settled, err = strconv.ParseInt(text, 10, 64); err != nil {
		return st, fmt.Errorf("redisledger: the answer %v", answer)
	}
	return st, nil
}
