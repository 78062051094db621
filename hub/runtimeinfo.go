package hub

import (
	"sync"
	"time"
)

// calls remembers the last calls that were let in, to hold them to so many in any
// second.
type calls struct {
	mu   sync.Mutex
	at   []time.Duration
	next int // the place of the oldest
}

// allow lets a call in, or not.
func (c *calls) allow(now time.Duration, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.at) != most {
		c.at, c.next = make([]time.Duration, most), 0
		for i := range c.at {
			c.at[i] = now - time.Second
		}
	}
	if now-c.at[c.next] < time.Second {
		return false
	}
	c.at[c.next] = now
	c.next = (c.next + 1) % most
	return true
}

// runtimeInfoPause is what the service tells those to wait that ask too often.
const runtimeInfoPause = 10 * time.Second

// MayDescribe counts a client's asking what a hub or a partition is, or refuses it
// with Busy when there were as many in the last second as the tier allows. It is
// worded as the service does; the number tells it from other throttling (features.md,
// sections 0 and 4).
func (ns *Namespace) MayDescribe() error {
	most := ns.Quotas().RuntimeInfo
	if most == 0 || ns.described.allow(ns.all.elapsed(), most) {
		return nil
	}
	e := fail(Busy, "", "The request was terminated because the namespace %s is being throttled. Error code : 50001. Please wait %d seconds and try again.",
		ns.Name, int64(runtimeInfoPause/time.Second))
	e.RetryAfter = runtimeInfoPause
	return e
}
