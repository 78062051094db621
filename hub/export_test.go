package hub

import (
	"time"

	"github.com/millrace/millrace/event"
)

// MaxProducers is how many producers a partition remembers.
const MaxProducers = maxProducers

// Throughput is a namespace's limiter, for tests.
type Throughput struct{ t *throughput }

func NewThroughput(ns *Namespace) Throughput { return Throughput{ns.throughput.Load()} }

func (t Throughput) Admit(bytes, events int64) time.Duration { return t.t.admit(bytes, events) }

func (n *Namespaces) Pressures() chan pressure { return n.pressures }

func (p *Partition) Admit(b *event.Batch) error { return p.admit(int64(b.Size()), int64(b.Count), nil) }

// AdmitFrom is what an append by a client asks first.
func (p *Partition) AdmitFrom(c *Client, b *event.Batch) error {
	return p.admit(int64(b.Size()), int64(b.Count), c.governedBy())
}

func (n *Namespaces) Sample() { n.sample() }
