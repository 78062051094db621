package rest

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// The namespaces of elements.
const (
	atomSpace     = "http://www.w3.org/2005/Atom"
	serviceSpace  = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
	instanceSpace = "http://www.w3.org/2001/XMLSchema-instance"
	arraySpace    = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
)

const (
	// maxEntry is the longest entry that is read, in bytes: twelve rules and
	// their metadata have room in it, escaped.
	maxEntry = 128 << 10
	// maxNested and maxElements bound what is made of it.
	maxNested   = 12
	maxElements = 1024
)

// hubDescription is an EventHubDescription, as far as it can be set.
type hubDescription struct {
	days       int64 // forEver; 0 is not set
	rules      []hub.Rule
	hasRules   bool
	status     string
	metadata   string
	partitions *int                // nil is not set
	capture    *captureDescription // nil is not set
}

// groupDescription is a ConsumerGroupDescription.
type groupDescription struct{ metadata string }

// revokedDescription is a RevokedPublisherDescription.
type revokedDescription struct{ name string }

// whole is a context for changes: one that has begun is ended, even if its
// client is gone.
func (m *managing) whole() context.Context { return context.WithoutCancel(m.Context()) }

// readEntry reads the request's body, an Atom entry, and what parse makes of its
// content.
func readEntry[T any](c *call, parse func([]byte) (*T, error)) (*T, error) {
	defer c.s.held.Add(-maxEntry)
	if c.s.held.Add(maxEntry) > maxHeld {
		return nil, busy(busyFor, "The server is busy. Please wait and retry the operation.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, maxEntry))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		if c.Header.Get("Expect") == "" {
			io.CopyN(io.Discard, c.Body, maxDrain) //nolint:errcheck // the error is known
		}
		return nil, &hub.Error{Kind: hub.TooLarge, Text: fmt.Sprintf("The request exceeds the limit of %d bytes currently allowed.", maxEntry)}
	case err != nil:
		return nil, &refusal{http.StatusBadRequest, "The body of the request ends before it is complete, or came too slowly."}
	}
	return parse(body)
}

// element is a piece of an XML document.
type element struct {
	name xml.Name
	attr []xml.Attr
	text []byte // its own
	kids []*element
}

// parseXML reads a document: elements and text, no more. What XML can do beyond
// that, such as to define entities, no client does.
func parseXML(doc []byte) (*element, error) {
	doc = bytes.TrimPrefix(doc, []byte("\ufeff"))
	if len(bytes.TrimSpace(doc)) == 0 {
		return nil, invalid("The request has no body; it is to hold an Atom entry.")
	}
	d := xml.NewDecoder(bytes.NewReader(doc))
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) { return nil, errors.New("it is not UTF-8") }
	top := &element{}
	stack := []*element{top}
	for elements := 0; ; {
		t, err := d.Token()
		in := stack[len(stack)-1]
		switch t := t.(type) {
		case xml.StartElement:
			elements++
			if len(stack) > maxNested || elements > maxElements {
				return nil, invalid("The XML of the request has more than %d elements, or they are nested deeper than %d.", maxElements, maxNested)
			}
			e := &element{name: t.Name, attr: t.Attr}
			in.kids = append(in.kids, e)
			stack = append(stack, e)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		case xml.CharData:
			in.text = append(in.text, t...)
		case xml.Directive:
			return nil, invalid("The XML of the request has a document type; that is not allowed.")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, invalid("The XML of the request can't be read: %s.", strings.TrimPrefix(err.Error(), "XML syntax error "))
		}
	}
	if len(top.kids) != 1 || !blank(top.text) {
		return nil, invalid("The XML of the request is not one element.")
	}
	return top.kids[0], nil
}

func blank(text []byte) bool { return len(bytes.TrimSpace(text)) == 0 }

// where names an element for messages.
func (e *element) where() string {
	if e.name.Space == "" {
		return "'" + e.name.Local + "' without a namespace"
	}
	return "'" + e.name.Local + "' of the namespace '" + e.name.Space + "'"
}

// is checks an element's name, and that it holds elements alone.
func (e *element) is(space, local string) error {
	switch {
	case e.name != xml.Name{Space: space, Local: local}:
		return invalid("The XML of the request has the element %s; '%s' of the namespace '%s' belongs there.", e.where(), local, space)
	case !blank(e.text):
		return invalid("The element '%s' holds text, where elements belong.", local)
	}
	return nil
}

// empty tells that an element says that it has no value.
func (e *element) empty() bool {
	return slices.ContainsFunc(e.attr, func(a xml.Attr) bool {
		return a.Name == xml.Name{Space: instanceSpace, Local: "nil"} && (a.Value == "true" || a.Value == "1")
	})
}

// value is the text of an element that holds no other.
func (e *element) value() (string, error) {
	if len(e.kids) > 0 {
		return "", invalid("The element '%s' holds elements, where text belongs.", e.name.Local)
	}
	return string(e.text), nil
}

// number reads a whole number within limits.
func (e *element) number(least, most int64) (int64, error) {
	s, err := e.value()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < least || n > most {
		return 0, invalid("%s is a number from %d to %d, not '%s'.", e.name.Local, least, most, s)
	}
	return n, nil
}

// atomNames are the elements of an entry beside its content. They say nothing
// that the path doesn't.
var atomNames = []string{"author", "category", "contributor", "id", "link", "published", "rights", "source", "summary", "title", "updated"}

// content is the description of the given name in an entry.
func content(doc []byte, name string) (*element, error) {
	entry, err := parseXML(doc)
	if err != nil {
		return nil, err
	}
	if err := entry.is(atomSpace, "entry"); err != nil {
		return nil, err
	}
	var found *element
	for _, e := range entry.kids {
		if e.name.Space == atomSpace && slices.Contains(atomNames, e.name.Local) {
			continue
		}
		if err := e.is(atomSpace, "content"); err != nil {
			return nil, err
		}
		if found != nil || len(e.kids) != 1 {
			return nil, invalid("The entry has to have one content, and that one %s.", name)
		}
		found = e.kids[0]
	}
	if found == nil {
		return nil, invalid("The entry has no content; it has to have one %s.", name)
	}
	return found, found.is(serviceSpace, name)
}

// field is an element that a description may have.
type field struct {
	name string
	set  func(*element) error // nil: it can be read alone, and what is sent is ignored
}

// fields sets what the children of an element say, each of which is there once.
// Those of ordered that can be set have to stand in that order: the service's parser
// skips what stands elsewhere without a word, and a hub would not be as it was asked
// for. Those of free, whose order in the service is not known, may stand anywhere.
func (e *element) fields(ordered []field, free ...field) error {
	list := slices.Concat(ordered, free)
	at := -1
	seen := map[string]bool{}
	for _, kid := range e.kids {
		i := slices.IndexFunc(list, func(f field) bool { return kid.name == xml.Name{Space: serviceSpace, Local: f.name} })
		switch {
		case i < 0:
			return invalid("The element %s is not known in '%s'.", kid.where(), e.name.Local)
		case seen[kid.name.Local]:
			return invalid("The element '%s' is there twice.", kid.name.Local)
		}
		seen[kid.name.Local] = true
		if list[i].set == nil {
			continue
		}
		if i < at {
			return invalid("The element '%s' has to stand before '%s': the order matters, and the service would ignore it.", kid.name.Local, list[at].name)
		}
		if i < len(ordered) {
			at = i
		}
		if kid.empty() {
			continue
		}
		if err := list[i].set(kid); err != nil {
			return err
		}
	}
	return nil
}

// text sets a string to an element's.
func text(to *string) func(*element) error {
	return func(e *element) (err error) {
		*to, err = e.value()
		return err
	}
}

// parseHub reads an entry around an EventHubDescription.
func parseHub(doc []byte) (*hubDescription, error) {
	e, err := content(doc, "EventHubDescription")
	if err != nil {
		return nil, err
	}
	d := &hubDescription{}
	return d, e.fields([]field{
		{"MessageRetentionInDays", func(e *element) (err error) {
			d.days, err = e.number(forEver, maxDays)
			return err
		}},
		{"SizeInBytes", nil},
		{"AuthorizationRules", d.parseRules},
		{"Status", text(&d.status)},
		{"CreatedAt", nil},
		{"UpdatedAt", nil},
		{"AccessedAt", nil},
		{"UserMetadata", text(&d.metadata)},
		{"PartitionCount", func(e *element) error {
			n, err := e.number(0, hub.MaxPartitions)
			d.partitions = new(int(n))
			return err
		}},
		{"PartitionIds", nil},
		{"EntityAvailabilityStatus", nil},
	}, field{"CaptureDescription", func(e *element) (err error) {
		d.capture, err = parseCapture(e)
		return err
	}})
}

func (d *hubDescription) parseRules(e *element) error {
	if !blank(e.text) {
		return invalid("The element 'AuthorizationRules' holds text, where elements belong.")
	}
	d.hasRules = true
	for _, kid := range e.kids {
		if err := kid.is(serviceSpace, "AuthorizationRule"); err != nil {
			return err
		}
		r, err := parseRule(kid)
		if err != nil {
			return err
		}
		d.rules = append(d.rules, r)
	}
	return nil
}

// sharedAccess is the one type of rule that there is.
const sharedAccess = "SharedAccessAuthorizationRule"

func parseRule(e *element) (r hub.Rule, err error) {
	for _, a := range e.attr {
		if a.Name != (xml.Name{Space: instanceSpace, Local: "type"}) {
			continue
		}
		if a.Value[strings.LastIndex(a.Value, ":")+1:] != sharedAccess { // with or without a prefix
			return r, invalid("An authorization rule is a %s, not a '%s'.", sharedAccess, a.Value)
		}
	}
	claimType, claimValue := "SharedAccessKey", "None"
	err = e.fields([]field{
		{"ClaimType", text(&claimType)},
		{"ClaimValue", text(&claimValue)},
		{"Rights", func(e *element) error {
			for _, kid := range e.kids {
				name, err := kid.value()
				if kid.name != (xml.Name{Space: serviceSpace, Local: "AccessRights"}) || err != nil {
					return invalid("The element %s is not known in 'Rights'; AccessRights is.", kid.where())
				}
				right, err := auth.ParseRights(name)
				if err != nil {
					return invalid("The AccessRights '%s' are not Manage, Send or Listen.", name)
				}
				r.Rights |= right
			}
			return nil
		}},
		{"CreatedTime", nil},
		{"ModifiedTime", nil},
		{"KeyName", text(&r.Name)},
		{"PrimaryKey", text(&r.Primary)},
		{"SecondaryKey", text(&r.Secondary)},
	})
	if err == nil && (claimType != "SharedAccessKey" || claimValue != "None") {
		err = invalid("An authorization rule has the ClaimType SharedAccessKey and the ClaimValue None.")
	}
	return r, err
}

// parseGroup reads an entry around a ConsumerGroupDescription.
func parseGroup(doc []byte) (*groupDescription, error) {
	e, err := content(doc, "ConsumerGroupDescription")
	if err != nil {
		return nil, err
	}
	d := &groupDescription{}
	return d, e.fields([]field{{"CreatedAt", nil}, {"UpdatedAt", nil}, {"EnableCheckpoint", nil}, {"UserMetadata", text(&d.metadata)}})
}

// parseRevoked reads an entry around a RevokedPublisherDescription.
func parseRevoked(doc []byte) (*revokedDescription, error) {
	e, err := content(doc, "RevokedPublisherDescription")
	if err != nil {
		return nil, err
	}
	d := &revokedDescription{}
	return d, e.fields([]field{{"Name", text(&d.name)}})
}
