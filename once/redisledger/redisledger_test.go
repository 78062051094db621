package redisledger_test

import (
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
