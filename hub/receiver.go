package hub

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// ConsumerGroup is a view of a hub: who of its readers holds which partition.
// That state lives with the receivers; nothing of it is stored.
type ConsumerGroup struct {
	Name string

	hub   *EventHub
	mu    sync.Mutex
	seats map[int]*seats // by partition
	ended error
}

// seats are the receivers of one partition in one group: up to MaxReceivers
// without epoch, or one with.
type seats struct {
	plain []*Receiver
	owner *Receiver
}

// Receiver is a reader's place in a consumer group.
type Receiver struct {
	Partition *Partition

	o     ReceiverOptions
	group *ConsumerGroup
	gone  bool
}

// ReceiverOptions says who wants to read.
type ReceiverOptions struct {
	// Name is the receiver's own, for messages; "" when it has none.
	Name string
	// Exclusive says that there is an owner level, and Epoch which: the highest
	// has the partition to itself, and of equals the last.
	Exclusive bool
	Epoch     int64
	// Lost is called once if the receiver loses its place to another, or its
	// group or hub is deleted. It must not block.
	Lost func(error)
}

func (o *ReceiverOptions) name() string {
	if o.Name == "" {
		return "nil"
	}
	return o.Name
}

// Join takes a place at a partition, or says why there is none: an *Error of
// kind Stolen or QuotaExceeded. The rules and texts are the service's (amqp.md
// 5.6). Call Leave when the reader is gone.
func (g *ConsumerGroup) Join(p *Partition, o ReceiverOptions) (*Receiver, error) {
	r := &Receiver{Partition: p, o: o, group: g}
	g.mu.Lock()
	if err := g.hub.mayReceive(); err != nil { // under the lock: a change of status detaches those that are seated
		g.mu.Unlock()
		return nil, err
	}
	if g.ended != nil {
		g.mu.Unlock()
		return nil, g.ended
	}
	s := g.seats[p.index]
	if s == nil {
		s = &seats{}
		g.seats[p.index] = s
	}
	lost, err := s.join(r)
	g.mu.Unlock()
	if err != nil {
		err.Entity = g.entity(p)
		return nil, err
	}
	for _, x := range lost {
		x.o.Lost(g.displaced(x, &r.o))
	}
	return r, nil
}

// displaced is what a receiver is told that loses its place to another.
func (g *ConsumerGroup) displaced(x *Receiver, by *ReceiverOptions) *Error {
	return fail(Stolen, g.entity(x.Partition),
		"New receiver '%s' with higher epoch of '%d' is created hence current receiver '%s' with epoch '%s' is getting disconnected. If you are recreating the receiver, make sure a higher epoch is used.",
		by.name(), by.Epoch, x.o.name(), x.epoch())
}

func (g *ConsumerGroup) entity(p *Partition) string {
	return fmt.Sprintf("%s/ConsumerGroups/%s/Partitions/%d", g.hub.Name, g.Name, p.index)
}

func (r *Receiver) epoch() string {
	if !r.o.Exclusive {
		return ""
	}
	return strconv.FormatInt(r.o.Epoch, 10)
}

// join seats r and returns who had to go for it.
func (s *seats) join(r *Receiver) (lost []*Receiver, err *Error) {
	switch {
	case !r.o.Exclusive && s.owner != nil:
		return nil, fail(Stolen, "",
			"At least one receiver for the endpoint is created with epoch of '%d', and so non-epoch receiver is not allowed. Either reconnect with a higher epoch, or make sure all epoch receivers are closed or disconnected.",
			s.owner.o.Epoch)
	case !r.o.Exclusive:
		if len(s.plain) >= MaxReceivers {
			var names []string
			for _, x := range s.plain {
				names = append(names, x.o.name())
			}
			return nil, fail(QuotaExceeded, "",
				"Exceeded the maximum number of allowed receivers per partition in a consumer group which is %d. List of connected receivers - %s.",
				MaxReceivers, strings.Join(names, ", "))
		}
		s.plain = append(s.plain, r)
		return nil, nil
	case s.owner != nil && s.owner.o.Epoch > r.o.Epoch:
		return nil, fail(Stolen, "",
			"Receiver '%s' with a higher epoch '%d' already exists. Receiver '%s' with epoch %d cannot be created. Make sure you are creating receiver with increasing epoch value to ensure connectivity, or ensure all old epoch receivers are closed or disconnected.",
			s.owner.o.name(), s.owner.o.Epoch, r.o.name(), r.o.Epoch)
	}
	lost = s.plain
	if s.owner != nil {
		lost = append(lost, s.owner)
	}
	for _, x := range lost {
		x.gone = true
	}
	s.plain, s.owner = nil, r
	return lost, nil
}

// Leave gives the place back. Leaving twice, or after the place was lost, does
// nothing.
func (r *Receiver) Leave() {
	g := r.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.gone {
		return
	}
	r.gone = true
	s := g.seats[r.Partition.index]
	if s.owner == r {
		s.owner = nil
	}
	for i, x := range s.plain {
		if x == r {
			s.plain = append(s.plain[:i:i], s.plain[i+1:]...)
			break
		}
	}
	if s.owner == nil && len(s.plain) == 0 {
		delete(g.seats, r.Partition.index)
	}
}

// Seat describes a receiver, for people.
type Seat struct {
	Partition int
	Name      string
	Exclusive bool
	Epoch     int64
}

// Seats lists the receivers of the group.
func (g *ConsumerGroup) Seats() []Seat {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Seat
	for p := range g.hub.partitions() {
		s := g.seats[p]
		if s == nil {
			continue
		}
		rs := s.plain
		if s.owner != nil {
			rs = append(rs[:len(rs):len(rs)], s.owner)
		}
		for _, r := range rs {
			out = append(out, Seat{Partition: p, Name: r.o.Name, Exclusive: r.o.Exclusive, Epoch: r.o.Epoch})
		}
	}
	return out
}

// end detaches every receiver and lets none join.
func (g *ConsumerGroup) end(err error) {
	g.mu.Lock()
	g.ended = err
	g.mu.Unlock()
	g.detach(err)
}

// detach has every receiver lose its place.
func (g *ConsumerGroup) detach(err error) {
	g.mu.Lock()
	var lost []*Receiver
	for _, s := range g.seats {
		lost = append(lost, s.plain...)
		if s.owner != nil {
			lost = append(lost, s.owner)
		}
	}
	for _, r := range lost {
		r.gone = true
	}
	g.seats = map[int]*seats{}
	g.mu.Unlock()
	for _, r := range lost {
		r.o.Lost(err)
	}
}
