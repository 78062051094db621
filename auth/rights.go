package auth

import (
	"fmt"
	"strings"
)

// Rights is a set of claims on an entity. Manage implies the other two, so it
// contains their bits; build a set with |, and ask it with Has.
// Source: amqp.md 2.3.
type Rights uint8

// The rights.
const (
	// Listen allows to receive events and to read what describes a hub.
	Listen Rights = 1 << 0
	// Send allows to send events.
	Send Rights = 1 << 1
	// Manage allows to create, change and delete entities; it includes Listen
	// and Send.
	Manage Rights = 1<<2 | Listen | Send
)

// Has tells whether every right in want is in r. Wanting nothing is granted to
// all.
func (r Rights) Has(want Rights) bool { return r&want == want }

// String lists the rights as Azure's resource manager does, comma-separated:
// "Listen", "Listen,Send", "Listen,Send,Manage"; an empty set is "".
func (r Rights) String() string {
	var names []string
	if r.Has(Listen) {
		names = append(names, "Listen")
	}
	if r.Has(Send) {
		names = append(names, "Send")
	}
	if r.Has(Manage) {
		names = append(names, "Manage")
	}
	return strings.Join(names, ",")
}

// ParseRights reads names separated by commas or spaces, in any case; no name
// at all is the empty set. The error names the part that is no right.
func ParseRights(s string) (Rights, error) {
	var r Rights
	for name := range strings.FieldsFuncSeq(s, func(c rune) bool { return c == ',' || c == ' ' }) {
		switch {
		case strings.EqualFold(name, "Listen"):
			r |= Listen
		case strings.EqualFold(name, "Send"):
			r |= Send
		case strings.EqualFold(name, "Manage"):
			r |= Manage
		default:
			return 0, fmt.Errorf("%q is not a right; the rights are Listen, Send and Manage", name)
		}
	}
	return r, nil
}

// MarshalText writes what String returns.
func (r Rights) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRights accepts.
func (r *Rights) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRights(string(text))
	return err
}
