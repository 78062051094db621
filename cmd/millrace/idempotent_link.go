package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/millrace/millrace/auth"
)

// What an idempotent producer and the broker say to each other in the properties
// of a link and the annotations of a message (amqp.md 6.1).
const (
	capIdempotent    = "com.microsoft:idempotent-producer"
	producerID       = "com.microsoft:producer-id"
	producerEpoch    = "com.microsoft:producer-epoch"
	producerSequence = "com.microsoft:producer-sequence-number"
)

// errNotOffered says that a broker lets the link be an ordinary one.
var errNotOffered = errors.New("the broker has no idempotent producers")

const (
	// tokenLife is how long the signature of a connection holds.
	tokenLife = 2 * time.Hour
	// connectionLife is after what time a connection is left for a new one, with a
	// new signature: between two batches that costs next to nothing.
	connectionLife = time.Hour
)

// publishing is a connection with a link for each partition that is sent to.
type publishing struct {
	conn    *amqp.Conn
	session *amqp.Session
	hub     string
	links   map[string]*amqp.Sender
	opened  time.Time
}

func openPublishing(ctx context.Context, t *target, hub string) (*publishing, error) {
	scheme, address := t.amqp()
	conn, err := amqp.Dial(ctx, scheme+"://"+address, &amqp.ConnOptions{
		SASLType: amqp.SASLTypeAnonymous(), TLSConfig: t.tls, ContainerID: applicationID, HostName: t.cs.Host,
	})
	if err != nil {
		return nil, err
	}
	p := &publishing{conn: conn, hub: hub, links: map[string]*amqp.Sender{}, opened: time.Now()}
	if err = p.putToken(ctx, t.cs); err == nil {
		p.session, err = conn.NewSession(ctx, nil)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *publishing) close() { p.conn.Close() } //nolint:errcheck // everything is acknowledged, or will be sent again

func (p *publishing) old() bool { return time.Since(p.opened) > connectionLife }

// putToken shows the broker what allows to send to the hub (amqp.md 2.2). Its
// links end with the connection.
func (p *publishing) putToken(ctx context.Context, cs auth.ConnectionString) error {
	const node = "$cbs"
	resource := "amqps://" + cs.Host + "/" + p.hub
	token := cs.Signature
	if token == "" {
		token = auth.SignSAS(resource, cs.KeyName, cs.Key, p.opened.Add(tokenLife))
	}
	s, err := p.conn.NewSession(ctx, nil)
	if err != nil {
		return err
	}
	replyTo := "cbs-" + newUUID()
	settled := amqp.SenderSettleModeSettled
	answers, err := s.NewReceiver(ctx, node, &amqp.ReceiverOptions{TargetAddress: replyTo, RequestedSenderSettleMode: &settled})
	if err != nil {
		return err
	}
	requests, err := s.NewSender(ctx, node, nil)
	if err != nil {
		return err
	}
	err = deliver(ctx, requests, &amqp.Message{
		Properties: &amqp.MessageProperties{MessageID: newUUID(), ReplyTo: &replyTo},
		ApplicationProperties: map[string]any{
			"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": resource,
		},
		Value: token,
	})
	if err != nil {
		return err
	}
	answer, err := answers.Receive(ctx, nil)
	if err != nil {
		return err
	}
	code, _ := answer.ApplicationProperties["status-code"].(int32)
	if code >= 200 && code < 300 {
		return nil
	}
	text, _ := answer.ApplicationProperties["status-description"].(string)
	condition, _ := answer.ApplicationProperties["error-condition"].(amqp.Symbol)
	if condition == "" {
		condition = amqp.Symbol(amqp.ErrCondUnauthorizedAccess)
	}
	return &amqp.Error{Condition: amqp.ErrCond(condition), Description: fmt.Sprintf("the broker refused the connection string's token: %s (%d)", text, code)}
}

// attach returns the link to a partition. At the first the broker says who the
// producer is; from then on the producer says it.
func (p *publishing) attach(ctx context.Context, n *numbering) (*amqp.Sender, error) {
	if link := p.links[n.partition]; link != nil {
		return link, nil
	}
	o := &amqp.SenderOptions{DesiredCapabilities: []string{capIdempotent}}
	if n.known {
		o.Properties = map[string]any{producerID: n.id, producerEpoch: n.epoch}
		if n.last >= 0 { // the service begins at -1, and is said to take no number below 0 (amqp.md 6.2, 6.4)
			o.Properties[producerSequence] = n.last
		}
	}
	link, err := p.session.NewSender(ctx, p.hub+"/Partitions/"+n.partition, o)
	if err != nil {
		return nil, err
	}
	said := link.Properties()
	id, hasID := said[producerID].(int64)
	epoch, hasEpoch := said[producerEpoch].(int16)
	last, hasLast := said[producerSequence].(int32)
	switch {
	case !hasID || !hasEpoch || !hasLast:
		return nil, fmt.Errorf("%w: it did not say which number to begin with", errNotOffered)
	case !n.known:
		n.known, n.id, n.epoch, n.last = true, id, epoch, last
	case id != n.id || epoch != n.epoch:
		return nil, fmt.Errorf("%w: it takes producer %d, epoch %d, for %d, epoch %d", errNotOffered, n.id, n.epoch, id, epoch)
	}
	p.links[n.partition] = link
	return link, nil
}
