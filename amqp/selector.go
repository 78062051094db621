package amqp

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
)

// The filter that receivers name their start with, and the descriptors that the
// clients give it (amqp.md 5.2).
const (
	selectorFilter     = "apache.org:selector-filter:string"
	selectorCode       = 0x0000468C00000004
	selectorCodeDotNet = 0x000000137000000A
)

// startOf returns the position that a source's filters ask for: earliest when
// there is no selector. Other filters are ignored.
func startOf(filters wire.Value) (event.Position, error) {
	it, err := filters.Map()
	if err != nil {
		return event.Position{}, err
	}
	for it.Len() > 0 {
		key, v := it.Next(), it.Next()
		if err := it.Err(); err != nil {
			return event.Position{}, err
		}
		name, _ := key.Text()
		selector := string(name) == selectorFilter
		if v.Code == wire.CodeDescribed && !v.IsNull() {
			code, sym, inner, err := v.Described()
			if err != nil {
				return event.Position{}, err
			}
			selector = selector || string(sym) == selectorFilter || code == selectorCode || code == selectorCodeDotNet
			v = inner
		}
		if !selector || v.IsNull() {
			continue
		}
		text, ok := v.Text()
		if !ok {
			return event.Position{}, fmt.Errorf("the selector filter is not a string, but of format code 0x%02x", v.Code)
		}
		return parseSelector(string(text))
	}
	return event.Position{}, nil
}

// parseSelector reads "amqp.annotation.NAME > 'VALUE'", or with >=, or with the
// value bare, as .NET writes it (amqp.md 5.4).
func parseSelector(s string) (event.Position, error) {
	bad := func(why string) (event.Position, error) {
		return event.Position{}, fmt.Errorf("the selector \"%s\" %s; a selector is \"amqp.annotation.NAME > 'VALUE'\", or with >=, where NAME is x-opt-offset, x-opt-sequence-number or x-opt-enqueued-time", s, why)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), "amqp.annotation.")
	if !ok {
		return bad("does not begin with an annotation")
	}
	i := strings.IndexAny(rest, " \t>")
	if i < 0 {
		return bad("has no comparison")
	}
	name := rest[:i]
	rest, ok = strings.CutPrefix(strings.TrimSpace(rest[i:]), ">")
	if !ok {
		return bad("does not compare with > or >=")
	}
	var p event.Position
	rest, p.Inclusive = strings.CutPrefix(rest, "=")
	value := strings.TrimSpace(rest)
	if n := len(value); n >= 2 && value[0] == '\'' && value[n-1] == '\'' {
		value = value[1 : n-1]
	}
	if name == "x-opt-offset" && value == "@latest" {
		return event.Position{Origin: event.Latest}, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return bad("compares with something that is not a number")
	}
	switch name {
	case "x-opt-offset":
		if n < 0 {
			return event.Position{}, nil // -1 is before the first event
		}
		p.Origin, p.Sequence = event.AtOffset, event.SequenceNumber(n)
	case "x-opt-sequence-number":
		if n < 0 {
			return event.Position{}, nil
		}
		p.Origin, p.Sequence = event.AtSequence, event.SequenceNumber(n)
	case "x-opt-enqueued-time":
		p.Origin, p.Enqueued = event.AtEnqueued, time.UnixMilli(n)
	default:
		return bad("names an annotation that can't be selected by")
	}
	return p, nil
}
