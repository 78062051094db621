package amqp

import (
	"testing"
	"time"

	"github.com/millrace/millrace/event"
)

func TestAddress(t *testing.T) {
	for in, want := range map[string]address{
		"hub":                                    {hub: "hub"},
		"/hub/":                                  {hub: "hub"},
		"hub/Partitions/3":                       {hub: "hub", partition: "3"},
		"HUB/partitions/x":                       {hub: "HUB", partition: "x"},
		"amqps://host:5671/hub":                  {hub: "hub"},
		"sb://host/hub/Publishers/p%201":         {hub: "hub", publisher: "p 1"},
		"h/ConsumerGroups/$Default/Partitions/0": {hub: "h", group: "$Default", partition: "0"},
		"/h/consumergroups/%24default/partitions/0?x=y": {hub: "h", group: "$default", partition: "0"},
		"amqps://a.b/h/ConsumerGroups/g/Partitions/1":   {hub: "h", group: "g", partition: "1"},
		"$cbs":                           {node: nodeCBS},
		"/$CBS":                          {node: nodeCBS},
		"$management":                    {node: nodeManagement},
		"hub/$management":                {node: nodeManagement, hub: "hub"},
		"amqps://host/hub/%24management": {node: nodeManagement, hub: "hub"},
	} {
		got, err := parseAddress(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "/", "hub/Partitions", "hub/Partitions/", "hub/x/y", "hub/Partitions/1/Partitions/2", "a%zz", "sb://host"} {
		if got, err := parseAddress(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

func TestSelector(t *testing.T) {
	at := func(o event.Origin, n event.SequenceNumber, inc bool) event.Position {
		return event.Position{Origin: o, Sequence: n, Inclusive: inc}
	}
	ms := time.UnixMilli(1234567890123)
	for in, want := range map[string]event.Position{
		"amqp.annotation.x-opt-offset > '-1'":                    {},
		"amqp.annotation.x-opt-offset >= '-1'":                   {},
		"amqp.annotation.x-opt-offset > '@latest'":               {Origin: event.Latest},
		"amqp.annotation.x-opt-offset >= '@latest'":              {Origin: event.Latest},
		"amqp.annotation.x-opt-offset > '12'":                    at(event.AtOffset, 12, false),
		"amqp.annotation.x-opt-offset>='12'":                     at(event.AtOffset, 12, true),
		"  amqp.annotation.x-opt-offset   >   12  ":              at(event.AtOffset, 12, false),
		"amqp.annotation.x-opt-sequence-number > '7'":            at(event.AtSequence, 7, false),
		"amqp.annotation.x-opt-sequence-number >= 7":             at(event.AtSequence, 7, true),
		"amqp.annotation.x-opt-sequence-number > -1":             {},
		"amqp.annotation.x-opt-enqueued-time > '1234567890123'":  {Origin: event.AtEnqueued, Enqueued: ms},
		"amqp.annotation.x-opt-enqueued-time >= '1234567890123'": {Origin: event.AtEnqueued, Enqueued: ms, Inclusive: true},
	} {
		got, err := parseSelector(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "amqp.annotation.", "amqp.annotation.x-opt-offset", "amqp.annotation.x-opt-offset < '1'",
		"amqp.annotation.x-opt-offset > 'abc'", "amqp.annotation.x-opt-publisher > '1'", "amqp.annotation.x-opt-offset > '99999999999999999999'"} {
		if got, err := parseSelector(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}
