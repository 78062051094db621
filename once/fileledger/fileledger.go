// Package fileledger keeps a ledger in a file of one machine, which one process has open
// at a time. Many goroutines and consumers of it may use the ledger.
//
// Every call is a transaction that is on disk when it returns; calls at the same time
// share one. What was marked is marked whatever crashes. Effects are elsewhere than the
// marks, so an event is processed once but for who dies between the two, or after a lease
// is over (package once). Claims do not outlive the process: nobody can hold one when the
// file is opened, and so after a crash nothing waits for a lease.
//
// The clock is the machine's. Setting it back makes claims of the moment last longer.
package fileledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/millrace/millrace/once"
)

const defaultKeepIDs = 7 * 24 * time.Hour

// Options says how a ledger is kept. The zero value is usable.
type Options struct {
	KeepIDs time.Duration // how long ids that are done are known: seven days if it is zero

	// NoSync leaves it to the system when marks reach the disk. A crash of the process
	// loses none, one of the machine may lose some or damage the file.
	NoSync bool
}

// Ledger is a [once.Ledger] in a file. Make it with Open.
type Ledger struct {
	db   *bbolt.DB
	keep time.Duration
	now  func() time.Time
}

var _ once.Ledger = (*Ledger)(nil)

// Open opens the ledger in a file, which is made if there is none, and drops the claims
// that are in it. While another process has it open, Open waits for a second and fails.
func Open(name string, o Options) (*Ledger, error) {
	if o.KeepIDs == 0 {
		o.KeepIDs = defaultKeepIDs
	}
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{Timeout: time.Second, NoSync: o.NoSync, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("fileledger: another process has %s open, and a file serves one at a time: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fileledger: open %s: %w", name, err)
	}
	db.MaxBatchDelay = time.Millisecond // calls that are under way at the same time share a sync
	l := &Ledger{db: db, keep: o.KeepIDs, now: time.Now}
	if err := db.Update(dropClaims); err != nil {
		db.Close()
		return nil, fmt.Errorf("fileledger: open %s: %w", name, err)
	}
	return l, nil
}

// Close closes the file, when the calls under way have ended. What is claimed is free.
func (l *Ledger) Close() error { return l.db.Close() }

// dropClaims deletes the claims of all books.
func dropClaims(tx *bbolt.Tx) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		p, err := open(tx, string(name), bytes.HasPrefix(name, []byte("i/")))
		if err != nil {
			return err
		}
		var claims [][]byte
		err = p.entries.ForEach(func(k, v []byte) error {
			if x, err := decode(v); err != nil || x.done {
				return err
			}
			claims = append(claims, bytes.Clone(k))
			return nil
		})
		for _, k := range claims {
			err = errors.Join(err, p.entries.Delete(k))
		}
		if err != nil {
			return err
		}
		return p.close()
	})
}

// update calls fn in a transaction that others may be in too: it may be called again.
func (l *Ledger) update(ctx context.Context, fn func(tx *bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.db.Batch(fn); err != nil {
		return fmt.Errorf("fileledger: %w", err)
	}
	return nil
}

// each opens the books of events, and calls fn with each.
func each(tx *bbolt.Tx, books []once.Book, now time.Time, fn func(p *page, at []int) error) error {
	for _, b := range books {
		p, err := open(tx, b.Name, b.IDs)
		if err != nil {
			return err
		}
		p.now = now.UnixMilli()
		if err := fn(p, b.Events); err != nil {
			return err
		}
		if err := p.close(); err != nil {
			return err
		}
	}
	return nil
}

// Claim implements [once.Ledger], all or nothing.
func (l *Ledger) Claim(ctx context.Context, events []once.Event, lease time.Duration) ([]once.Claim, error) {
	books, err := once.Books(events)
	if err != nil {
		return nil, err
	}
	if lease < time.Millisecond {
		return nil, once.ErrShortLease
	}
	claims := make([]once.Claim, len(events))
	err = l.update(ctx, func(tx *bbolt.Tx) error {
		return each(tx, books, l.now(), func(p *page, at []int) (err error) {
			p.token++
			if err := p.forget(1000); err != nil {
				return err
			}
			for _, i := range at {
				if claims[i], err = p.claim(events[i], p.now+lease.Milliseconds()); err != nil {
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

// Mark implements [once.Ledger], all or nothing but for what is lost.
func (l *Ledger) Mark(ctx context.Context, claims []once.Claim) error {
	books, err := once.BooksOfClaims(claims)
	if err != nil {
		return err
	}
	var lost []once.Claim
	err = l.update(ctx, func(tx *bbolt.Tx) error {
		lost = nil
		return each(tx, books, l.now(), func(p *page, at []int) error {
			for _, i := range at {
				held, err := p.finish(claims[i], p.now+l.keep.Milliseconds())
				if err != nil {
					return err
				}
				if !held {
					lost = append(lost, claims[i])
				}
			}
			return nil
		})
	})
	if err == nil && len(lost) > 0 {
		return &once.LostError{Claims: lost}
	}
	return err
}

// Extend implements [once.Ledger], all or nothing but for what is lost.
func (l *Ledger) Extend(ctx context.Context, claims []once.Claim, lease time.Duration) ([]once.Claim, error) {
	books, err := once.BooksOfClaims(claims)
	if err != nil {
		return nil, err
	}
	if lease < time.Millisecond {
		return nil, once.ErrShortLease
	}
	var extended, lost []once.Claim
	err = l.update(ctx, func(tx *bbolt.Tx) error {
		extended, lost = slices.Clone(claims), nil
		return each(tx, books, l.now(), func(p *page, at []int) error {
			for _, i := range at {
				until := p.now + lease.Milliseconds()
				held, err := p.extend(claims[i], until)
				if err != nil {
					return err
				}
				if held {
					extended[i].Until = time.UnixMilli(until)
				} else {
					lost = append(lost, claims[i])
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		return extended, &once.LostError{Claims: lost}
	}
	return extended, nil
}

// Release implements [once.Ledger].
func (l *Ledger) Release(ctx context.Context, claims []once.Claim) error {
	books, err := once.BooksOfClaims(claims)
	if err != nil {
		return err
	}
	return l.update(ctx, func(tx *bbolt.Tx) error {
		return each(tx, books, l.now(), func(p *page, at []int) error {
			for _, i := range at {
				k := keyOf(claims[i].Event)
				x, ok, err := p.get(k)
				if err != nil {
					return err
				}
				if ok && !x.done && x.token == claims[i].Token {
					if err := p.remove(k, x); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// Settle implements [once.Ledger].
func (l *Ledger) Settle(ctx context.Context, s once.Stream, through int64) error {
	books, err := once.Books([]once.Event{{Stream: s, Sequence: through}})
	if err != nil {
		return err
	}
	return l.update(ctx, func(tx *bbolt.Tx) error {
		return each(tx, books, l.now(), func(p *page, _ []int) error {
			if through <= p.settled {
				return nil
			}
			p.settled = through
			return p.drop(0, through)
		})
	})
}

// Status implements [once.Ledger].
func (l *Ledger) Status(ctx context.Context, s once.Stream) (once.Status, error) {
	st := once.Status{Settled: -1}
	if err := (once.Event{Stream: s}).Validate(); err != nil {
		return st, err
	}
	if err := ctx.Err(); err != nil {
		return st, err
	}
	err := l.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(s.Book()))
		if b == nil {
			return nil
		}
		if v := b.Get(headKey); len(v) == 16 {
			st.Settled = int64(binary.BigEndian.Uint64(v))
		}
		return b.Bucket(entriesKey).ForEach(func(_, v []byte) error {
			x, err := decode(v)
			if x.done {
				st.Marks++
			} else {
				st.Claims++
			}
			return err
		})
	})
	if err != nil {
		return st, fmt.Errorf("fileledger: %w", err)
	}
	return st, nil
}
