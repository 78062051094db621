package redisledger_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
	"github.com/millrace/millrace/once/redisledger"
)

// open starts a Redis in this process, whose clock is the test's.
func open(t testing.TB) (l *redisledger.Ledger, pass func(time.Duration)) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { client.Close() })
	var elapsed atomic.Int64
	server.SetTime(time.Unix(1e9, 0))
	return redisledger.New(client, redisledger.Options{KeepIDs: ledgertest.KeepIDs}), func(d time.Duration) {
		server.SetTime(time.Unix(1e9, elapsed.Add(int64(d))))
	}
}

func TestMiniredis(t *testing.T) {
	ledgertest.Run(t, ledgertest.Engine{Slow: true, New: func(t testing.TB) (once.Ledger, func(time.Duration)) { return open(t) }})
}

// TestForgetful has a Redis without persistence restart: what was marked is processed
// again, and a claimer from before does not mark over one from after.
func TestForgetful(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { client.Close() })
	l := redisledger.New(client, redisledger.Options{})
	e := []once.Event{{Stream: ledgertest.Stream("0"), Sequence: 3}}
	before, err := l.Claim(t.Context(), e, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	server.FlushAll()
	after, err := l.Claim(t.Context(), e, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if after[0].State != once.Claimed || after[0].Token <= before[0].Token {
		t.Fatalf("%+v follows %+v", after[0], before[0])
	}
	if _, lost := errors.AsType[*once.LostError](l.Mark(t.Context(), before)); !lost {
		t.Fatal("a claimer from before the restart marked over one from after")
	}
	if err := l.Mark(t.Context(), after); err != nil {
		t.Fatal(err)
	}
}

// TestUnreachable has the server go away: an error, and none that looks like an answer.
func TestUnreachable(t *testing.T) {
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	l := redisledger.New(client, redisledger.Options{})
	server.Close()
	ran, err := once.Do(t.Context(), l, once.Event{Stream: ledgertest.Stream("0")}, nil)
	if ran || err == nil {
		t.Fatal(ran, err)
	}
}
