package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/Azure/go-amqp"
)

// TestNumbersWrap: numbers follow each other, from the last to 0.
func TestNumbersWrap(t *testing.T) {
	for _, x := range []struct {
		last int32
		i    int
		want int32
	}{
		{-1, 0, 0}, // where the service begins
		{0, 0, 1},
		{5, 3, 9},
		{math.MaxInt32 - 1, 0, math.MaxInt32},
		{math.MaxInt32, 0, 0},
		{math.MaxInt32 - 1, 2, 1},
	} {
		n := numbering{last: x.last}
		if got := n.next(x.i); got != x.want {
			t.Errorf("after %d, event %d has number %d, want %d", x.last, x.i, got, x.want)
		}
	}
}

// TestPassing: a batch is sent again when that may help, and not when the broker
// has said no.
func TestPassing(t *testing.T) {
	for _, x := range []struct {
		err  error
		want bool
	}{
		{io.EOF, true},
		{&amqp.ConnError{}, true},
		{&amqp.LinkError{}, true},
		{&amqp.LinkError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondDetachForced}}, true},
		{&amqp.ConnError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondConnectionForced}}, true},
		{&amqp.Error{Condition: "com.microsoft:server-busy"}, true},
		{&amqp.Error{Condition: "com.microsoft:producer-epoch-stolen"}, false},
		{&amqp.Error{Condition: "com.microsoft:out-of-order-sequence"}, false},
		{&amqp.Error{Condition: "com.microsoft:entity-disabled"}, false},
		{&amqp.Error{Condition: amqp.ErrCondUnauthorizedAccess}, false},
		{fmt.Errorf("%w: it says nothing", errNotOffered), false},
		{errors.New("the outcome is strange"), true},
	} {
		if got := passing(x.err); got != x.want {
			t.Errorf("%v: %v", x.err, got)
		}
	}
}
