package amqp

import (
	"errors"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
)

// replies is what a link is for on which a node's replies are received.
type replies struct {
	node, target, name string
	queue              [][]byte // waiting for credit
}

// maxReplies bounds the replies that wait on a link.
const maxReplies = 1000

// request is a message to a node: its parts that matter.
type request struct {
	id      wire.Value // message-id, of any type
	replyTo string
	app     map[string]wire.Value
	body    wire.Value // of an amqp-value section
	data    []byte     // of a data section
}

// parseRequest reads a message to a node. Its values are views.
func parseRequest(msg []byte) (*request, error) {
	r := &request{app: map[string]wire.Value{}}
	if len(msg) == 0 {
		return nil, errors.New("the request is empty")
	}
	for rest := msg; len(rest) > 0; {
		s, after, err := message.Next(rest)
		if err != nil {
			return nil, err
		}
		switch s.Code {
		case wire.DescProperties:
			it, err := s.Body.List()
			if err != nil {
				return nil, err
			}
			r.id = it.Next()
			it.Next() // user-id
			it.Next() // to
			it.Next() // subject
			to, _ := it.Next().Text()
			r.replyTo = string(to)
			if it.Err() != nil {
				return nil, it.Err()
			}
		case wire.DescAppProperties:
			it, err := s.Body.Map()
			if err != nil {
				return nil, err
			}
			for it.Len() > 0 {
				k, v := it.Next(), it.Next()
				key, _ := k.Text()
				r.app[string(key)] = v
			}
			if it.Err() != nil {
				return nil, it.Err()
			}
		case wire.DescValue:
			r.body = s.Body
		case wire.DescData:
			r.data, _ = s.Body.Binary()
		}
		rest = after
	}
	return r, nil
}

// text is an application property as a string, "" if it is absent or no text.
func (r *request) text(key string) string {
	b, _ := r.app[key].Text()
	return string(b)
}

// reply is what a node answers.
type reply struct {
	code        int32
	description string
	condition   string
	operation   string
	body        []byte // encoded; nil for none
}

// encode writes the reply to a request: the correlation id in the type that the
// request's message id had, application properties, and a body if there is one
// (amqp.md 2.4, 3.3).
func (p *reply) encode(id wire.Value) []byte {
	b, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescProperties), 13)
	b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull)
	b = wire.AppendValue(b, id)
	b = append(b, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull, wire.CodeNull)
	wire.EndCompound(b, at)

	n := 2
	for _, s := range []string{p.operation, p.description, p.condition} {
		if s != "" {
			n += 2
		}
	}
	b, at = wire.BeginMap(wire.AppendDescriptor(b, wire.DescAppProperties), n)
	if p.operation != "" {
		b = wire.AppendString(wire.AppendString(b, "operation"), p.operation)
	}
	b = wire.AppendInt(wire.AppendString(b, "status-code"), p.code)
	if p.description != "" {
		b = wire.AppendString(wire.AppendString(b, "status-description"), p.description)
	}
	if p.condition != "" {
		b = wire.AppendSymbol(wire.AppendString(b, "error-condition"), p.condition)
	}
	wire.EndCompound(b, at)
	if p.body != nil {
		b = append(wire.AppendDescriptor(b, wire.DescValue), p.body...)
	}
	return b
}

// answer sends a reply on the link that the request's sender expects it on; if
// there is none it is dropped. A reply waits for credit: Java gives it one by
// one, after the request.
func (l *inLink) answer(replyTo string, msg []byte) {
	to := l.replyLink(replyTo)
	if to == nil {
		l.s.c.log.Debug("a reply has no link to go to", "node", l.node, "reply-to", replyTo)
		return
	}
	if len(to.replies.queue) >= maxReplies {
		l.s.c.goodbye(l.s.c.fault(condQuota, l.node, "%d replies wait for credit.", maxReplies))
		return
	}
	to.replies.queue = append(to.replies.queue, msg)
	to.wake()
}

// replyLink finds where replies go: to the link whose target, or else whose
// name, is the reply-to; or else to one of the same node, on the same session
// if there is one (amqp.md 3.1).
func (l *inLink) replyLink(replyTo string) *outLink {
	var best *outLink
	rank := 0
	for _, s := range l.s.c.sessions {
		for _, o := range s.out {
			if o.replies == nil || o.replies.node != l.node {
				continue
			}
			r := 1
			switch {
			case replyTo != "" && o.replies.target == replyTo:
				r = 4
			case replyTo != "" && o.replies.name == replyTo:
				r = 3
			case s == l.s:
				r = 2
			}
			if r > rank || r == rank && r == 2 && o.handle > best.handle {
				best, rank = o, r
			}
		}
	}
	return best
}

// sendReplies sends what the credit allows, and tells whether there is more
// that could be sent.
func (l *outLink) sendReplies() bool {
	q := &l.replies.queue
	for {
		if l.sending != nil && !l.sendFrames() {
			return false
		}
		if l.credit == 0 || len(*q) == 0 {
			if l.drain {
				l.drained()
			}
			return false
		}
		l.begin()
		l.sending, l.first = (*q)[0], true
		*q = (*q)[1:]
	}
}

// request handles a message to the link's node.
func (l *inLink) request(msg []byte) {
	c := l.s.c
	r, err := parseRequest(msg)
	if err != nil {
		c.log.Info("a request can't be read", "node", l.node, "error", err)
		return // there is no id to answer to
	}
	switch l.node {
	case nodeCBS:
		l.putToken(r)
	case nodeManagement:
		l.manage(r)
	}
}
