package once_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/once"
	"github.com/millrace/millrace/once/ledgertest"
)

func TestMemory(t *testing.T) {
	ledgertest.Run(t, ledgertest.Engine{New: func(testing.TB) (once.Ledger, func(time.Duration)) {
		var now atomic.Int64
		l := once.NewMemoryClock(ledgertest.KeepIDs, func() time.Time { return time.Unix(1e9, now.Load()) })
		return l, func(d time.Duration) { now.Add(int64(d)) }
	}})
}
