package rest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/hub"
)

// addBatch adds the events of a batch:
//
//	[{"Body": string, "IsBodyBase64": bool, "UserProperties": {…}, "BrokerProperties": {…}}, …]
//
// Body is needed, the rest is not. Names are in any case; others are ignored.
// The form is that of the service's HttpBrokeredMessage, as who wrote it
// describes it ("Azure Event Hub / Service Bus Performance - Http Batch Send 2",
// January 2015).
func (in *intake) addBatch(body []byte) error {
	r, err := newReader(body)
	if err != nil {
		return badBatch(err)
	}
	left := len(body)
	err = r.list("The batch", func(i int) error {
		in.draft.Reset()
		var broker brokerProperties
		if err := in.readEvent(r, &broker); err != nil {
			return fmt.Errorf("Event %d: %w", i, err)
		}
		if err := in.add(&broker, left); err != nil {
			return err
		}
		left = max(len(body)-int(r.d.InputOffset()), 0)
		if in.b.Size() > in.limit {
			return in.tooLarge()
		}
		return nil
	})
	if err == nil {
		err = r.end()
	}
	switch {
	case err == nil && in.b.Count() == 0:
		return invalid("The batch has no events.")
	case err == nil, errors.As(err, new(*hub.Error)):
		return err
	}
	return badBatch(err)
}

func badBatch(err error) error { return invalid("The batch can't be read. %s", err) }

// readEvent reads an event of a batch into in.draft.
func (in *intake) readEvent(r *reader, broker *brokerProperties) error {
	var body any
	encoded := false
	err := r.object("It", strings.ToLower, func(key string) (err error) {
		switch strings.ToLower(key) {
		case "body":
			if body, err = r.scalar("Body"); err == nil {
				if body == nil {
					body = ""
				}
				if _, text := body.(string); !text {
					err = errors.New("Body is not a string.")
				}
			}
		case "isbodybase64":
			var v any
			if v, err = r.scalar("IsBodyBase64"); err == nil && v != nil {
				var is bool
				if encoded, is = v.(bool); !is {
					err = errors.New("IsBodyBase64 is neither true nor false.")
				}
			}
		case "userproperties":
			err = userProperties(&in.draft, r)
		case "brokerproperties":
			err = broker.parse(r, "BrokerProperties")
		default:
			err = r.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	text, ok := body.(string)
	if !ok {
		return errors.New("It has no Body.")
	}
	in.draft.Body = []byte(text)
	if encoded {
		if in.draft.Body, err = base64.StdEncoding.DecodeString(text); err != nil {
			return errors.New("Body is not base64, which IsBodyBase64 says it is.")
		}
	}
	return nil
}
