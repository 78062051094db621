package rest

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// The management interface of a namespace, in Atom (RFC 4287) as the .NET
// NamespaceManager, Service Bus Explorer and the REST pages use it:
//
//	/$Resources/EventHubs                                GET
//	/$namespaceinfo                                      GET
//	/{hub}                                               GET PUT DELETE
//	/{hub}/partitions[/{id}]                             GET
//	/{hub}/consumergroups                                GET
//	/{hub}/consumergroups/{group}                        GET PUT DELETE
//	/{hub}/consumergroups/{group}/partitions[/{id}]      GET
//	/{hub}/revokedpublishers                             GET
//	/{hub}/revokedpublishers/{name}                      GET PUT DELETE
//
// PUT creates; with "If-Match: *" it changes what is there. Sources: the
// service's pages "Create Event Hub", "Update Event Hub", "List Event Hubs",
// "Create consumer group", "Get partition runtime metadata", "Revoke publisher"
// and their neighbours.

// DefaultPartitions is how many partitions a hub gets whose description has no
// PartitionCount ("Create Event Hub", Properties).
const DefaultPartitions = 16

// kind is what sort of thing a resource is.
type kind int

const (
	hubFeed kind = iota + 1
	namespaceInfo
	oneHub
	partitionFeed
	onePartition
	groupFeed
	oneGroup
	revokedFeed
	oneRevoked
)

// resource is what a path of the management interface names.
type resource struct {
	kind                             kind
	hub, group, partition, publisher string
}

// parseResource reads the steps of a path.
func parseResource(seg []string) (r resource, ok bool) {
	if len(seg) > 2 && seg[1] == "" { // the pages' own example has /hub//consumergroups
		seg = slices.Concat(seg[:1], seg[2:])
	}
	if slices.Contains(seg, "") {
		return r, false
	}
	switch {
	case strings.EqualFold(seg[0], "$Resources"):
		r.kind = hubFeed
		return r, len(seg) == 2 && strings.EqualFold(seg[1], "EventHubs")
	case strings.EqualFold(seg[0], "$namespaceinfo"):
		r.kind = namespaceInfo
		return r, len(seg) == 1
	}
	r.hub = seg[0]
	return r, r.below(seg[1:])
}

// below reads what follows the hub in a path.
func (r *resource) below(seg []string) bool {
	if len(seg) == 0 {
		r.kind = oneHub
		return true
	}
	word, feed := seg[0], len(seg) == 1
	switch {
	case strings.EqualFold(word, "partitions"):
		return r.partitions(seg)
	case strings.EqualFold(word, "consumergroups"):
		if feed {
			r.kind = groupFeed
			return true
		}
		r.kind, r.group = oneGroup, seg[1]
		return len(seg) == 2 || strings.EqualFold(seg[2], "partitions") && r.partitions(seg[2:])
	case strings.EqualFold(word, "revokedpublishers"):
		if feed {
			r.kind = revokedFeed
			return true
		}
		r.kind, r.publisher = oneRevoked, seg[1]
		return len(seg) == 2
	}
	return false
}

func (r *resource) partitions(seg []string) bool {
	if len(seg) == 1 {
		r.kind = partitionFeed
		return true
	}
	r.kind, r.partition = onePartition, seg[1]
	return len(seg) == 2
}

// path is the resource as claims are compared with it.
func (r *resource) path() string {
	path := r.hub
	switch r.kind {
	case hubFeed:
		return "$Resources/EventHubs"
	case namespaceInfo:
		return "$namespaceinfo"
	case revokedFeed, oneRevoked:
		return path + "/RevokedPublishers"
	}
	if r.group != "" {
		path += "/ConsumerGroups/" + r.group
	}
	if r.partition != "" {
		path += "/Partitions/" + r.partition
	}
	return path
}

// methods are the ones that a resource has.
func (r *resource) methods() []string {
	switch r.kind {
	case oneHub, oneGroup, oneRevoked:
		return []string{http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodPut}
	}
	return []string{http.MethodGet, http.MethodHead}
}

// managing is a request of the management interface.
type managing struct {
	*call
	r      resource
	claims *auth.Claims
	skip   int
	top    int // negative: all
}

// manage answers such a request.
func (c *call) manage(r resource) error {
	if !slices.Contains(r.methods(), c.Method) {
		allow := strings.Join(r.methods(), ", ")
		c.w.Header().Set("Allow", allow)
		return &refusal{http.StatusMethodNotAllowed, "The method " + c.Method + " is not allowed for '" + c.URL.Path + "'; what can be is " + allow + "."}
	}
	claims, err := c.verify()
	if err != nil {
		return err
	}
	m := &managing{call: c, r: r, claims: claims}
	if err := m.parameters(); err != nil {
		return err
	}
	switch c.Method {
	case http.MethodPut:
		return m.put()
	case http.MethodDelete:
		return m.remove()
	}
	return m.get()
}

// parameters reads those of the query. Which version of the interface is asked
// for does not matter; a change is waited for however long it takes.
func (m *managing) parameters() (err error) {
	q := m.URL.Query()
	if _, err := timeout(q.Get("timeout")); err != nil {
		return err
	}
	for _, p := range []struct {
		name  string
		to    *int
		unset int
	}{{"$skip", &m.skip, 0}, {"$top", &m.top, -1}} {
		s := q.Get(p.name)
		if s == "" {
			*p.to = p.unset
			continue
		}
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return invalid("The parameter %s is a number, not '%s'.", p.name, s)
		}
		*p.to = int(n)
	}
	return nil
}

// page is the part of n things that a feed shows: from, and up to.
func (m *managing) page(n int) (from, to int) {
	from, to = min(m.skip, n), n
	if m.top >= 0 {
		to = min(from+m.top, n)
	}
	return from, to
}

// may checks the caller's claims on the resource itself.
func (m *managing) may(right auth.Rights) error {
	path := m.r.path()
	if m.r.hub == "" {
		return m.mayOnNamespace(right, path)
	}
	return m.claims.Check(right, path, m.s.o.Now())
}

// mayOnNamespace checks claims on the namespace. A signature for a path below
// will do when a rule of the namespace made it: clients sign for the address
// that they ask.
func (m *managing) mayOnNamespace(right auth.Rights, path string) error {
	err := m.claims.Check(right, "", m.s.o.Now())
	if err != nil && m.claims.OfNamespace && m.claims.Check(right, path, m.s.o.Now()) == nil {
		return nil
	}
	return err
}

// mayChange checks what a change takes: Manage, of the namespace for hubs that
// come and go, and else of the hub.
func (m *managing) mayChange() error {
	if m.r.kind == oneHub && (m.Method == http.MethodDelete || !m.updates()) {
		return m.mayOnNamespace(auth.Manage, m.r.hub)
	}
	return m.claims.Check(auth.Manage, m.r.hub, m.s.o.Now())
}

// updates tells whether a PUT is to change what is there.
func (m *managing) updates() bool { return m.Header.Get("If-Match") != "" }

func (m *managing) get() error {
	if err := m.may(auth.Listen); err != nil {
		return err
	}
	switch m.r.kind {
	case hubFeed:
		return m.listHubs()
	case namespaceInfo:
		return m.describeNamespace()
	}
	h, err := m.ns.EventHub(m.r.hub)
	if err != nil {
		return err
	}
	switch m.r.kind {
	case oneHub:
		return m.answerHub(http.StatusOK, h)
	case groupFeed:
		return m.listGroups(h)
	case oneGroup:
		g, err := h.GroupRecord(m.r.group)
		if err != nil {
			return err
		}
		return m.answerGroup(http.StatusOK, &g)
	case revokedFeed:
		return m.listRevoked(h)
	case oneRevoked:
		return m.getRevoked(h)
	}
	if m.r.group != "" {
		if _, err := h.GroupRecord(m.r.group); err != nil {
			return err
		}
	}
	if m.r.kind == onePartition {
		return m.getPartition(h)
	}
	return m.listPartitions(h)
}

func (m *managing) put() error {
	if err := m.mayChange(); err != nil {
		return err
	}
	if match := m.Header.Values("If-Match"); m.updates() && !slices.Equal(match, []string{"*"}) {
		return invalid("If-Match may be '*' alone, to change what is there.")
	}
	switch m.r.kind {
	case oneHub:
		return m.putHub()
	case oneGroup:
		return m.putGroup()
	}
	return m.revoke()
}

func (m *managing) remove() error {
	if err := m.mayChange(); err != nil {
		return err
	}
	if err := m.removeIt(); err != nil {
		return err
	}
	m.w.Header().Set("Content-Type", contentXML)
	m.w.Header().Set("Content-Length", "0")
	m.w.WriteHeader(http.StatusOK)
	return nil
}

func (m *managing) removeIt() error {
	if m.r.kind == oneHub {
		return m.ns.DeleteEventHub(m.whole(), m.r.hub)
	}
	h, err := m.ns.EventHub(m.r.hub)
	if err != nil {
		return err
	}
	if m.r.kind == oneGroup {
		if err := m.notDefault(); err != nil {
			return err
		}
		return h.DeleteGroup(m.whole(), m.r.group)
	}
	return h.Restore(m.whole(), m.r.publisher)
}

func (m *managing) putHub() error {
	want, err := readEntry(m.call, parseHub)
	if err != nil {
		return err
	}
	if !m.updates() {
		s := hub.Settings{Retention: want.retention(0), Status: hub.Status(want.status), Metadata: want.metadata}
		if s.Rules, err = m.ns.NewRules(m.r.hub, want.rules); err != nil {
			return err
		}
		if err := want.capture.change(&s); err != nil {
			return err
		}
		partitions := DefaultPartitions
		if want.partitions != nil {
			partitions = *want.partitions
		}
		h, err := m.ns.CreateEventHub(m.whole(), m.r.hub, partitions, s)
		if err != nil {
			return err
		}
		return m.answerHub(http.StatusCreated, h)
	}
	h, err := m.ns.EventHub(m.r.hub)
	if err != nil {
		return err
	}
	partitions := 0 // as it is
	if want.partitions != nil {
		if partitions = *want.partitions; partitions == 0 {
			return invalid("The PartitionCount of an event hub is 1 at least.")
		}
	}
	err = h.Change(m.whole(), partitions, func(s *hub.Settings) (err error) {
		s.Retention = want.retention(s.Retention)
		s.Status, s.Metadata = hub.Status(want.status), want.metadata
		if want.hasRules { // else they stay: nobody loses a key by leaving it out
			if s.Rules, err = h.ReplaceRules(s.Rules, want.rules); err != nil {
				return err
			}
		}
		return want.capture.change(s) // without a description it stays, too
	})
	if err != nil {
		return err
	}
	return m.answerHub(http.StatusOK, h)
}

// days is a retention as MessageRetentionInDays has it: begun days, and forEver.
func days(d time.Duration) int64 {
	if d < 0 {
		return forEver
	}
	return int64((d + day - 1) / day)
}

const (
	day     = 24 * time.Hour
	forEver = -1
	// maxDays is the largest number of days that is taken: a hundred years.
	maxDays = 36_500
)

// retention is what a description asks for, where there is one now (0: none).
// Who sends back the number that he was shown keeps the retention to the minute.
func (d *hubDescription) retention(now time.Duration) time.Duration {
	switch {
	case d.days == 0:
		return 0 // the default
	case now != 0 && d.days == days(now):
		return now
	case d.days == forEver:
		return -1
	}
	return time.Duration(d.days) * day
}

func (m *managing) putGroup() error {
	want, err := readEntry(m.call, parseGroup)
	if err != nil {
		return err
	}
	h, err := m.ns.EventHub(m.r.hub)
	if err != nil {
		return err
	}
	if m.updates() {
		if err := m.notDefault(); err != nil {
			return err
		}
		g, err := h.ChangeGroup(m.whole(), m.r.group, want.metadata)
		if err != nil {
			return err
		}
		return m.answerGroup(http.StatusOK, &g)
	}
	if hub.SameName(m.r.group, hub.DefaultGroup) {
		return &hub.Error{Kind: hub.AlreadyExists, Text: "The consumer group " + hub.DefaultGroup + " always exists."}
	}
	g, err := h.AddGroup(m.whole(), hub.Group{Name: m.r.group, Metadata: want.metadata})
	if err != nil {
		return err
	}
	return m.answerGroup(http.StatusCreated, &g)
}

// notDefault refuses what can't be done to $Default: 400, as the service has it.
func (m *managing) notDefault() error {
	if hub.SameName(m.r.group, hub.DefaultGroup) {
		return invalid("The consumer group %s can neither be changed nor deleted.", hub.DefaultGroup)
	}
	return nil
}

func (m *managing) revoke() error {
	want, err := readEntry(m.call, parseRevoked)
	if err != nil {
		return err
	}
	switch {
	case m.updates():
		return invalid("A revoked publisher can't be changed; it can be restored with DELETE.")
	case want.name != "" && want.name != m.r.publisher:
		return invalid("The Name '%s' is not that of the path, '%s'.", want.name, m.r.publisher)
	case !printable(m.r.publisher):
		return invalid("The publisher's name is not text that XML can hold.")
	}
	h, err := m.ns.EventHub(m.r.hub)
	if err != nil {
		return err
	}
	if err := h.Revoke(m.whole(), m.r.publisher); err != nil {
		return err
	}
	return m.answerRevoked(http.StatusCreated)
}

func (m *managing) getRevoked(h *hub.EventHub) error {
	err := h.MayPublish(m.r.publisher)
	var he *hub.Error
	if errors.As(err, &he) && he.Kind == hub.Revoked {
		return m.answerRevoked(http.StatusOK)
	}
	if err != nil {
		return err
	}
	return m.missing(h.Name + "/RevokedPublishers/" + m.r.publisher)
}

// missing is a 404, in the service's words.
func (m *managing) missing(entity string) error {
	return &hub.Error{Kind: hub.NotFound, Entity: entity, Text: "The messaging entity 'sb://" + m.ns.Name + "/" + entity + "' could not be found."}
}

// address is the request's own, with its query.
func (m *managing) address() string {
	u := m.root() + m.URL.EscapedPath()
	if m.URL.RawQuery != "" {
		u += "?" + m.URL.RawQuery
	}
	return u
}

// root is the namespace's address, as the client has it.
func (m *managing) root() string {
	if m.TLS != nil {
		return "https://" + m.Host
	}
	return "http://" + m.Host
}

// version is the query of an entry's address in a feed.
func (m *managing) version() string {
	if v := m.URL.Query().Get("api-version"); v != "" {
		return "?api-version=" + url.QueryEscape(v)
	}
	return ""
}
