package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/store"
)

// Load is what a namespace's traffic was in one minute.
type Load struct {
	Minute time.Time `json:"minute"` // when it began
	// In and Out are of the whole minute.
	In  Traffic `json:"in,omitzero"`
	Out Traffic `json:"out,omitzero"`
	// PeakIn and PeakOut are of its busiest second, each figure by itself.
	PeakIn  Traffic `json:"peakIn,omitzero"`
	PeakOut Traffic `json:"peakOut,omitzero"`
	// Throttled is how many requests were told to come again.
	Throttled int64 `json:"throttled,omitempty"`
}

// Traffic is an amount of events.
type Traffic struct {
	Bytes  int64 `json:"bytes,omitempty"`
	Events int64 `json:"events,omitempty"`
}

func (t Traffic) minus(u Traffic) Traffic { return Traffic{t.Bytes - u.Bytes, t.Events - u.Events} }
func (t Traffic) plus(u Traffic) Traffic  { return Traffic{t.Bytes + u.Bytes, t.Events + u.Events} }
func (t Traffic) max(u Traffic) Traffic {
	return Traffic{max(t.Bytes, u.Bytes), max(t.Events, u.Events)}
}

// per returns what t is in a second, having taken some time.
func (t Traffic) per(elapsed time.Duration) Traffic {
	s := elapsed.Seconds()
	return Traffic{int64(float64(t.Bytes) / s), int64(float64(t.Events) / s)}
}

// Units is how many throughput units the minute's busiest second needed, 1 at
// least.
func (l *Load) Units() int {
	n := int64(1)
	for _, x := range [][2]int64{
		{l.PeakIn.Bytes, UnitIncomingBytes}, {l.PeakIn.Events, UnitIncomingEvents},
		{l.PeakOut.Bytes, UnitOutgoingBytes}, {l.PeakOut.Events, UnitOutgoingEvents},
	} {
		n = max(n, (x[0]+x[1]-1)/x[1])
	}
	return int(n)
}

const (
	// loadEvery is how often the counters are read: a throughput unit is of a
	// second, too.
	loadEvery = time.Second
	// loadKept is how long the record of the load is kept.
	loadKept = 31 * 24 * time.Hour

	loadKeys = "load/" // + namespace, slash, hour: a list of Load
)

func loadKey(namespace string, hour time.Time) string {
	return loadKeys + strings.ToLower(namespace) + "/" + hour.UTC().Format("2006-01-02T15")
}

// meter follows the traffic of one namespace.
type meter struct {
	in, out   Traffic // totals when they were last read
	throttled int64
	at        time.Time
	now       Load
	hour      []Load // the minutes of this hour that had any traffic, but for the last
	loaded    bool   // hour has what a run before this one stored
	aged      bool   // an hour has passed: what is too old goes
}

// totals are a namespace's counters. The hubs that are deleted meanwhile take
// theirs with them, so that the sum can go back.
func (ns *Namespace) totals() (in, out Traffic, throttled int64) {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	for _, h := range ns.hubs {
		m := &h.Metrics
		in = in.plus(Traffic{m.IncomingBytes.Load(), m.IncomingMessages.Load()})
		out = out.plus(Traffic{m.OutgoingBytes.Load(), m.OutgoingMessages.Load()})
		throttled += m.Requests[ServerBusy].Load()
	}
	return in, out, throttled
}

// measure records the load until the namespaces are closed.
func (n *Namespaces) measure() {
	t := time.NewTicker(loadEvery)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			n.metering.Lock()
			for ns, m := range n.meters {
				n.note(context.WithoutCancel(n.ctx), ns, m)
			}
			n.metering.Unlock()
			return
		case <-t.C:
			n.sample()
		}
	}
}

// sample reads the counters once.
func (n *Namespaces) sample() {
	n.metering.Lock()
	defer n.metering.Unlock()
	now := n.o.Now().UTC()
	for ns := range n.meters {
		select {
		case <-ns.Ended():
			delete(n.meters, ns)
		default:
		}
	}
	for _, ns := range n.All() {
		m := n.meters[ns]
		if m == nil {
			m = &meter{at: now, now: Load{Minute: now.Truncate(time.Minute)}}
			n.meters[ns] = m
		}
		if now.Sub(m.at) < loadEvery {
			continue
		}
		in, out, throttled := ns.totals()
		if minute := now.Truncate(time.Minute); !minute.Equal(m.now.Minute) {
			n.note(n.ctx, ns, m)
			if m.now.busy() {
				m.hour = append(m.hour, m.now)
			}
			if !minute.Truncate(time.Hour).Equal(m.now.Minute.Truncate(time.Hour)) {
				m.hour, m.loaded, m.aged = nil, true, true
			}
			m.now = Load{Minute: minute}
		}
		m.add(now, in, out, throttled)
	}
	n.rate()
}

// add counts what has come since the last look.
func (m *meter) add(now time.Time, in, out Traffic, throttled int64) {
	elapsed := now.Sub(m.at)
	moreIn, moreOut := in.minus(m.in), out.minus(m.out)
	if moreIn.Events >= 0 && moreOut.Events >= 0 { // else a hub was deleted
		m.now.In, m.now.Out = m.now.In.plus(moreIn), m.now.Out.plus(moreOut)
		m.now.PeakIn, m.now.PeakOut = m.now.PeakIn.max(moreIn.per(elapsed)), m.now.PeakOut.max(moreOut.per(elapsed))
		m.now.Throttled += max(0, throttled-m.throttled)
	}
	m.in, m.out, m.throttled, m.at = in, out, throttled, now
}

func (l *Load) busy() bool { return l.In.Events > 0 || l.Out.Events > 0 || l.Throttled > 0 }

// merge adds what a run before this one recorded of the same minute.
func (l *Load) merge(o *Load) {
	l.In, l.Out, l.Throttled = l.In.plus(o.In), l.Out.plus(o.Out), l.Throttled+o.Throttled
	l.PeakIn, l.PeakOut = l.PeakIn.max(o.PeakIn), l.PeakOut.max(o.PeakOut)
}

// note stores the minutes of the hour so far, if the last had any traffic.
func (n *Namespaces) note(ctx context.Context, ns *Namespace, m *meter) {
	if !m.now.busy() {
		return
	}
	hour := m.now.Minute.Truncate(time.Hour)
	if !m.loaded {
		m.loaded = true
		if e, err := n.meta.Get(ctx, loadKey(ns.Name, hour)); err == nil {
			var before []Load
			if json.Unmarshal(e.Value, &before) == nil {
				if last := len(before) - 1; last >= 0 && before[last].Minute.Equal(m.now.Minute) {
					m.now.merge(&before[last])
					before = before[:last]
				}
				m.hour = append(before, m.hour...)
			}
		}
		m.aged = true
	}
	b, err := json.Marshal(append(m.hour[:len(m.hour):len(m.hour)], m.now))
	if err == nil {
		_, err = n.meta.Put(ctx, loadKey(ns.Name, hour), b, store.AnyVersion)
	}
	if err != nil {
		n.log.Warn("the record of a namespace's load can't be written", "namespace", ns.Name, "error", err)
	}
	if m.aged {
		m.aged = false
		n.forgetLoad(ctx, ns, hour)
	}
}

// forgetLoad removes what is too old.
func (n *Namespaces) forgetLoad(ctx context.Context, ns *Namespace, now time.Time) {
	oldest := loadKey(ns.Name, now.Add(-loadKept))
	var gone []string
	for e, err := range n.meta.List(ctx, loadKeys+strings.ToLower(ns.Name)+"/", "") {
		if err != nil || e.Key >= oldest {
			break
		}
		gone = append(gone, e.Key)
	}
	for _, key := range gone {
		n.meta.Delete(ctx, key, store.AnyVersion) //nolint:errcheck // the next hour tries again
	}
}

// Loads returns the recorded load from a time on, oldest first: the minutes that
// had any traffic. The current minute comes when it is over.
func (ns *Namespace) Loads(ctx context.Context, since time.Time) ([]Load, error) {
	var out []Load
	first := loadKey(ns.Name, since)
	for e, err := range ns.all.meta.List(ctx, loadKeys+strings.ToLower(ns.Name)+"/", "") {
		if err != nil {
			return nil, fmt.Errorf("read the load of namespace %s: %w", ns.Name, err)
		}
		if e.Key < first {
			continue
		}
		var hour []Load
		if err := json.Unmarshal(e.Value, &hour); err != nil {
			return nil, fmt.Errorf("read the load of namespace %s: the record %s: %w", ns.Name, e.Key, err)
		}
		for _, l := range hour {
			if !l.Minute.Before(since.Truncate(time.Minute)) {
				out = append(out, l)
			}
		}
	}
	return out, nil
}
