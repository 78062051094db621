package amqp

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// Entity types that $management reads.
const (
	typeHub       = "com.microsoft:eventhub"
	typePartition = "com.microsoft:partition"
)

// read is a request to $management: its parts, copied.
type read struct {
	l                  *inLink
	id                 wire.Value
	replyTo            string
	operation, kind    string
	hubName, partition string
	reply              reply
}

// manage handles a request to $management. It is authorized by a token that was
// put on the connection, or by the one that it brings: Java and .NET put none,
// and pyamqp 5.11.0 brings something that is no token (amqp.md 3.2).
func (l *inLink) manage(r *request) {
	c := l.s.c
	q := &read{
		l: l, id: cloneValue(r.id), replyTo: r.replyTo,
		operation: r.text("operation"), kind: r.text("type"), hubName: r.text("name"), partition: r.text("partition"),
	}
	if q.hubName == "" {
		q.hubName = l.nodeHub
	}
	token := r.text("security_token")
	if c.mayDescribe(q.hubName, nil) == nil || token == "" {
		l.read(q, &verified{})
		return
	}
	l.verify(&verified{manage: func(m *verified) { l.read(q, m) }}, token)
}

// mayDescribe tells whether some claim on the hub is held: any will do.
func (c *conn) mayDescribe(hubName string, brought *auth.Claims) error {
	for _, right := range []auth.Rights{auth.Listen, auth.Send} {
		if _, err := c.allowed(right, hubName); err == nil || brought.Allows(right, hubName, c.now) {
			return nil
		}
	}
	_, err := c.allowed(auth.Listen, hubName)
	return err
}

// read answers a request to read what describes an entity.
func (l *inLink) read(q *read, brought *verified) {
	c := l.s.c
	err := c.mayDescribe(q.hubName, brought.claims)
	if err != nil && brought.err != nil {
		err = brought.err // that the key is wrong says more than that a right is missing
	}
	var h *hub.EventHub
	if err == nil {
		h, err = c.ns.EventHub(q.hubName)
	}
	if err == nil {
		if err = c.ns.MayDescribe(); err != nil {
			h.Metrics.Failed(err)
		}
	}
	switch {
	case err != nil:
	case !strings.EqualFold(q.operation, "READ"):
		err = c.fault(condNotImplemented, q.hubName, "The operation '%s' is not one of $management; READ is.", q.operation)
	case q.kind == typeHub:
		q.reply = reply{code: 200, operation: q.operation, body: describeHub(h)}
	case q.kind == typePartition:
		var p *hub.Partition
		if p, err = h.Partition(q.partition); err == nil {
			m := &described{q: q, p: p}
			c.wg.Go(func() {
				m.read(c.ctx)
				c.post(m)
			})
			return
		}
	default:
		err = c.fault(condNotImplemented, q.hubName, "Entities of type '%s' can't be read.", q.kind)
	}
	q.finish(c, err)
}

// finish sends the reply.
func (q *read) finish(c *conn, err error) {
	if err != nil {
		q.reply = c.failure(err, q.hubName)
		q.reply.operation = ""
		if q.reply.condition == condNotImplemented {
			q.reply.code = 501
		}
	}
	q.l.answer(q.replyTo, q.reply.encode(q.id))
}

// described is a partition's description, gathered behind the connection's back.
type described struct {
	q   *read
	p   *hub.Partition
	err error
}

func (m *described) deliver(c *conn) {
	if c.over || m.q.l.s.in[m.q.l.handle] != m.q.l {
		return
	}
	m.q.finish(c, m.err)
}

// describeHub is the body of a reply about a hub: the types are those that the
// SDKs cast to (amqp.md 3.3).
func describeHub(h *hub.EventHub) []byte {
	ids := make([]string, h.Partitions())
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	b, at := wire.BeginMap(nil, 12)
	b = wire.AppendString(wire.AppendString(b, "name"), h.Name)
	b = wire.AppendString(wire.AppendString(b, "type"), typeHub)
	b = wire.AppendTimestamp(wire.AppendString(b, "created_at"), h.Created.UnixMilli())
	b = wire.AppendInt(wire.AppendString(b, "partition_count"), int32(len(ids)))
	b = wire.AppendStrings(wire.AppendString(b, "partition_ids"), ids...)
	b = wire.AppendInt(wire.AppendString(b, "georeplication_factor"), 1)
	wire.EndCompound(b, at)
	return b
}

// neverEnqueued is the year 1, as clients expect of an empty partition.
var neverEnqueued = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)

func (m *described) read(ctx context.Context) {
	i, err := m.p.Info(ctx)
	if err != nil {
		m.err = err
		return
	}
	first, enqueued := int64(i.First), i.LastEnqueued
	if i.Next == 0 {
		first, enqueued = -1, neverEnqueued
	}
	last := int64(i.Last())
	b, at := wire.BeginMap(nil, 20)
	b = wire.AppendString(wire.AppendString(b, "name"), m.p.Hub().Name)
	b = wire.AppendString(wire.AppendString(b, "partition"), strconv.Itoa(m.p.Index()))
	b = wire.AppendString(wire.AppendString(b, "type"), typePartition)
	b = append(wire.AppendString(b, "begin_sequence_number_epoch"), wire.CodeSmallInt, 0xFF)
	b = wire.AppendLong(wire.AppendString(b, "begin_sequence_number"), first)
	b = append(wire.AppendString(b, "last_enqueued_sequence_number_epoch"), wire.CodeSmallInt, 0xFF)
	b = wire.AppendLong(wire.AppendString(b, "last_enqueued_sequence_number"), last)
	b = wire.AppendString(wire.AppendString(b, "last_enqueued_offset"), strconv.FormatInt(last, 10))
	b = wire.AppendTimestamp(wire.AppendString(b, "last_enqueued_time_utc"), enqueued.UnixMilli())
	b = wire.AppendBool(wire.AppendString(b, "is_partition_empty"), i.Empty)
	wire.EndCompound(b, at)
	m.q.reply = reply{code: 200, operation: m.q.operation, body: b}
}
