package amqp

import (
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// maxClaims bounds the tokens that a connection may hold.
const maxClaims = maxLinks

// verified is a token that has been looked at, behind the connection's back: a
// web token may need its issuer's keys.
type verified struct {
	l       *inLink
	id      wire.Value
	replyTo string
	path    string
	claims  *auth.Claims
	err     error
	manage  func(*verified) // what to do next, for a request that brought a token
}

// verify looks at a token. What it needs of the request is copied.
func (l *inLink) verify(m *verified, token string) {
	c := l.s.c
	m.l = l
	ns := c.ns.Name
	c.wg.Go(func() {
		m.claims, m.err = c.srv.o.Verifier.Verify(c.ctx, ns, token)
		c.post(m)
	})
}

func (m *verified) deliver(c *conn) {
	if c.over || m.l.s.in[m.l.handle] != m.l {
		return
	}
	if m.err == nil && m.claims.Local && c.ns.LocalAuthDisabled() { // since then
		m.claims, m.err = nil, auth.ErrLocalAuthDisabled
	}
	if m.err == nil {
		if m.err = c.mayConnect(m.claims); m.err != nil { // once that is answered the connection ends, as the service's does
			defer c.goodbye(c.amqpError(m.err, m.path))
		} else {
			c.trusted = true
		}
	}
	if m.manage != nil {
		m.manage(m)
		return
	}
	m.l.tokenPut(m)
}

func cloneValue(v wire.Value) wire.Value {
	if v.Full == nil {
		return v
	}
	return mustValue(append([]byte{}, v.Full...))
}

// putToken handles a request to $cbs (amqp.md 2.2). What kind of token it is
// says its text, not the type that the client declares.
func (l *inLink) putToken(r *request) {
	if op := r.text("operation"); !strings.EqualFold(op, "put-token") {
		p := reply{code: 400, condition: condArgument, description: "The operation '" + op + "' is not one of $cbs; put-token is." + l.s.c.trailer(nodeCBS)}
		l.answer(r.replyTo, p.encode(r.id))
		return
	}
	token, _ := r.body.Text()
	if token == nil {
		token = r.data
	}
	l.verify(&verified{id: cloneValue(r.id), replyTo: r.replyTo, path: auth.EntityPath(r.text("name"))}, string(token))
}

// tokenPut ends a put-token: the token is good, or not, and what it is for
// exists, or not. Rights are checked when a link is attached.
func (l *inLink) tokenPut(m *verified) {
	c := l.s.c
	err := m.err
	if err == nil {
		err = c.exists(m.path)
	}
	if err == nil && c.claims[m.path] == nil && len(c.claims) >= maxClaims {
		err = &hub.Error{Kind: hub.QuotaExceeded, Entity: m.path, Text: "The connection holds too many tokens."}
	}
	if err != nil {
		p := c.failure(err, m.path)
		l.answer(m.replyTo, p.encode(m.id))
		return
	}
	c.claims[m.path] = newer(c.claims[m.path], m.claims, c.now)
	c.local = c.local || m.claims.Local
	p := reply{code: 202, description: "Accepted"}
	l.answer(m.replyTo, p.encode(m.id))
}

// mayConnect tells why who is meant by claims may not use the namespace, if so.
func (c *conn) mayConnect(claims *auth.Claims) error {
	client := c.ns.Client(claims)
	return client.MayConnect()
}

// changed says that the settings of the namespace have.
type changed struct{}

// deliver implements posted: it ends what those have opened who may not use the
// namespace any more.
func (changed) deliver(c *conn) {
	if c.over || c.phase != established {
		return
	}
	c.checkKeys()
	for path, claims := range c.claims {
		if err := c.mayConnect(claims); err != nil {
			c.log.Info("a connection is closed", "reason", err)
			c.submit()
			c.goodbye(c.amqpError(err, path))
			return
		}
	}
}

// newer is the claims that hold for a path after a token was put for it: the
// new ones, unless the old outlive them with the same rights.
func newer(old, fresh *auth.Claims, now time.Time) *auth.Claims {
	if old != nil && !old.Expired(now) && !fresh.Expires.IsZero() && old.Expires.After(fresh.Expires) && old.Name == fresh.Name && old.Local == fresh.Local {
		return old
	}
	return fresh
}

// failure is the reply to a request that failed.
func (c *conn) failure(err error, path string) reply {
	e := c.amqpError(err, path)
	p := reply{code: status(err), condition: e.Condition, description: e.Description}
	var a *auth.Error
	if errors.As(err, &a) && a.Kind != auth.Unauthorized {
		p.condition = condAuthFailed
		if a.Kind == auth.Unavailable {
			p.condition = condBusy
		}
	}
	if p.code >= 500 {
		c.log.Warn("a request failed", "error", err)
	}
	return p
}

// exists tells whether the hub and the group exist that a token is put for. An
// empty path is the whole namespace.
func (c *conn) exists(path string) error {
	a, err := parseAddress(path)
	if path == "" || err != nil || a.hub == "" {
		return nil // not an entity: rights on it will help nobody
	}
	h, err := c.ns.EventHub(a.hub)
	if err != nil {
		return err
	}
	if a.group != "" {
		if _, err := h.Group(a.group); err != nil {
			return err
		}
	}
	return nil
}

// tokenCheck is how often links are compared with the tokens that are left.
const tokenCheck = 10 * time.Second

// checkTokens detaches links whose tokens have expired some time ago, and
// returns when to look again; zero for never.
func (c *conn) checkTokens() time.Time {
	expire := false
	for _, claims := range c.claims {
		expire = expire || !claims.Expires.IsZero()
	}
	if !expire {
		return time.Time{}
	}
	if c.now.Before(c.nextCheck) {
		return c.nextCheck
	}
	c.nextCheck = c.now.Add(tokenCheck)
	then := c.now.Add(-tokenGrace)
	c.endUnclaimed(then, func(path string) error {
		return c.fault(condUnauthorized, path, "ExpiredToken: The token is expired.")
	})
	for path, claims := range c.claims {
		if claims.Expired(then) {
			delete(c.claims, path)
		}
	}
	return c.nextCheck
}

// endUnclaimed detaches the links that no claims of a moment hold, for a reason.
func (c *conn) endUnclaimed(at time.Time, reason func(path string) error) {
	holds := func(right auth.Rights, path string) bool {
		for _, claims := range c.claims {
			if claims.Allows(right, path, at) {
				return true
			}
		}
		return false
	}
	for _, s := range c.sessions {
		for _, l := range s.in {
			if l.events != nil && !holds(auth.Send, l.events.path) {
				l.detach(c.amqpError(reason(l.events.path), l.events.path))
			}
		}
		for _, l := range s.out {
			switch d := l.events; {
			case d == nil || holds(auth.Listen, d.path):
			case l.attaching != nil: // then it is refused
				d.lost.Store(&lost{l, reason(d.path)})
			default:
				l.fail(reason(d.path))
			}
		}
	}
}

// checkKeys forgets the claims that keys brought, if the namespace no longer takes
// any, and ends what only they held.
func (c *conn) checkKeys() {
	if !c.local || !c.ns.LocalAuthDisabled() {
		return
	}
	c.local = false
	maps.DeleteFunc(c.claims, func(_ string, claims *auth.Claims) bool { return claims.Local })
	c.endUnclaimed(c.now, func(string) error { return auth.ErrLocalAuthDisabled })
}
