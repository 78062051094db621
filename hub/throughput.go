package hub

import (
	"sync"
	"time"
)

// What a throughput unit allows in a second, whichever is reached first; the
// namespace's hubs share it. Source: features.md, section 4.
const (
	UnitIncomingBytes  = megabyte
	UnitIncomingEvents = 1000
	UnitOutgoingBytes  = 2 * megabyte
	UnitOutgoingEvents = 4096
)

// burst is how far ahead of its rate an idle namespace may get. It is short, so
// that what is accepted in any ten seconds is within a hundredth of the units.
const burst = 50 * time.Millisecond

// throughput holds a namespace's traffic to its units.
type throughput struct {
	now func() time.Duration // never goes back

	mu      sync.Mutex
	in, out allowance
	units   int
	pressed func(units int) // told when a request is refused or a delivery has to wait; it must not block
}

// allowance is a rate of bytes and one of events. Each is kept as the time at
// which what has been taken is paid for: something may be taken when that time
// has come, whatever its size, so that one large batch passes and the next waits
// for all of it.
type allowance struct {
	perByte, perEvent time.Duration // scaled by costScale
	bytes, events     time.Duration
}

// costScale keeps the cost of a byte at forty units, 24 ns, exact to a thousandth.
const costScale = 1 << 10

func newAllowance(bytes, events, units int) allowance {
	return allowance{
		perByte:  time.Second * costScale / time.Duration(bytes*units),
		perEvent: time.Second * costScale / time.Duration(events*units),
	}
}

// wait is how long it takes until something may be taken.
func (a *allowance) wait(now time.Duration) time.Duration {
	return max(a.bytes, a.events) - now
}

// take counts bytes and events.
func (a *allowance) take(now time.Duration, bytes, events int64) {
	a.bytes = max(a.bytes, now-burst) + time.Duration(bytes)*a.perByte/costScale
	a.events = max(a.events, now-burst) + time.Duration(events)*a.perEvent/costScale
}

// setUnits changes the rates. What has been taken and is not paid for is at the
// new ones.
func (t *throughput) setUnits(n int) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == t.units {
		return
	}
	in, out := newAllowance(UnitIncomingBytes, UnitIncomingEvents, n), newAllowance(UnitOutgoingBytes, UnitOutgoingEvents, n)
	if t.units > 0 {
		in.owe(now, &t.in, t.units, n)
		out.owe(now, &t.out, t.units, n)
	}
	t.in, t.out, t.units = in, out, n
}

// owe takes over what was taken of another allowance.
func (a *allowance) owe(now time.Duration, from *allowance, units, of int) {
	a.bytes = now + (from.bytes-now)*time.Duration(units)/time.Duration(of)
	a.events = now + (from.events-now)*time.Duration(units)/time.Duration(of)
}

// admit takes a batch in, or tells how long it would have to wait.
func (t *throughput) admit(bytes, events int64) (wait time.Duration) {
	now := t.now()
	t.mu.Lock()
	if wait = t.in.wait(now); wait <= 0 {
		t.in.take(now, bytes, events)
		t.mu.Unlock()
		return 0
	}
	units := t.units
	t.mu.Unlock()
	t.pressed(units)
	return wait
}

// delivered counts what has been delivered, and tells how long the next delivery
// has to wait.
func (t *throughput) delivered(bytes, events int64) (wait time.Duration) {
	now := t.now()
	t.mu.Lock()
	t.out.take(now, bytes, events)
	wait = t.out.wait(now)
	units := t.units
	t.mu.Unlock()
	if wait <= 0 {
		return 0
	}
	t.pressed(units)
	return wait
}

// throttled is worded as the service does; SDKs look for its number.
func throttled(namespace string, wait time.Duration) *Error {
	e := fail(Busy, "", "The request was terminated because the namespace %s is being throttled. Error code : 50002. Please wait %d seconds and try again.",
		namespace, max(4, int64((wait+time.Second-1)/time.Second)))
	e.RetryAfter = wait
	return e
}

// Limited tells whether the namespace's traffic is limited by its units.
func (ns *Namespace) Limited() bool { return ns.throughput.Load() != nil }

// Delivered counts what a receiver of the namespace has been sent, and tells how
// long it has to wait before it may be sent more. Deliveries are slowed down,
// and never refused.
func (ns *Namespace) Delivered(bytes, events int64) (wait time.Duration) {
	if t := ns.throughput.Load(); t != nil {
		return t.delivered(bytes, events)
	}
	return 0
}
