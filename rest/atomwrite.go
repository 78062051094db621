package rest

import (
	"bytes"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// The answers. The order of elements matters: .NET's DataContractSerializer
// skips without a word what stands in another place than its class has it.

// writer makes an Atom document, on one line as the service's are.
type writer struct{ bytes.Buffer }

// text writes an element that holds text.
func (w *writer) text(name, value string) {
	w.WriteString("<" + name + ">")
	w.escape(value)
	w.WriteString("</" + name + ">")
}

func (w *writer) number(name string, n int64) { w.text(name, strconv.FormatInt(n, 10)) }

func (w *writer) escape(s string) {
	xml.EscapeText(w, []byte(s)) //nolint:errcheck // a Buffer takes all
}

// instant writes a time as the service's descriptions have it.
func (w *writer) instant(name string, t time.Time) {
	w.text(name, t.UTC().Format("2006-01-02T15:04:05.9999999Z"))
}

// seconds writes a time as Atom's own elements have it.
func (w *writer) seconds(name string, t time.Time) {
	w.text(name, t.UTC().Format("2006-01-02T15:04:05Z"))
}

// self writes the link of that name.
func (w *writer) self(address string) {
	w.WriteString(`<link rel="self" href="`)
	w.escape(address)
	w.WriteString(`"/>`)
}

// entry is an Atom entry around a description.
type entry struct {
	id, link           string
	title              string
	published, updated time.Time // published may be zero
	author             string    // may be ""
	kind               string    // such as EventHubDescription
	content            func(*writer)
}

// write writes an entry, the document itself or part of the feed at base.
func (e *entry) write(w *writer, base string) {
	if base == "" {
		w.WriteString(`<entry xmlns="` + atomSpace + `">`)
	} else {
		w.WriteString(`<entry xml:base="`)
		w.escape(base)
		w.WriteString(`">`)
	}
	w.text("id", e.id)
	w.WriteString(`<title type="text">`)
	w.escape(e.title)
	w.WriteString(`</title>`)
	if !e.published.IsZero() {
		w.seconds("published", e.published)
	}
	w.seconds("updated", e.updated)
	if e.author != "" {
		w.WriteString(`<author>`)
		w.text("name", e.author)
		w.WriteString(`</author>`)
	}
	w.self(e.link)
	w.WriteString(`<content type="application/xml"><` + e.kind + ` xmlns="` + serviceSpace + `" xmlns:i="` + instanceSpace + `">`)
	e.content(w)
	w.WriteString(`</` + e.kind + `></content></entry>`)
}

// reply sends a document of a type: "entry" or "feed".
func (m *managing) reply(status int, kind string, w *writer) error {
	h := m.w.Header()
	h.Set("Content-Type", "application/atom+xml;type="+kind+";charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(w.Len()))
	m.w.WriteHeader(status)
	m.w.Write(w.Bytes()) //nolint:errcheck // the client is gone
	return nil
}

// answer sends one entry, at the request's own address.
func (m *managing) answer(status int, e *entry) error {
	e.id = m.address()
	e.link = e.id
	var w writer
	e.write(&w, "")
	return m.reply(status, "entry", &w)
}

// feed sends the entries of a page. parent is the path that their names are
// below, link the same from the feed's address.
func (m *managing) feed(title, parent, link string, entries []entry) error {
	var w writer
	address := m.address()
	w.WriteString(`<feed xmlns="` + atomSpace + `"><title type="text">` + title + `</title>`)
	w.text("id", address)
	w.seconds("updated", m.s.o.Now())
	w.self(address)
	for _, e := range entries {
		name := url.PathEscape(e.title) + m.version()
		e.id, e.link = m.root()+parent+name, link+name
		e.write(&w, address)
	}
	w.WriteString(`</feed>`)
	return m.reply(http.StatusOK, "feed", &w)
}

// hubEntry describes a hub. Its rules, with their keys, are for whoever may
// change them: who manages it.
func (m *managing) hubEntry(h *hub.EventHub, manages bool) entry {
	return entry{title: h.Name, published: h.Created, updated: h.Updated(), author: m.ns.Name, kind: "EventHubDescription", content: func(w *writer) {
		s, n := h.Settings(), h.Partitions()
		w.number("MessageRetentionInDays", days(s.Retention))
		w.WriteString("<AuthorizationRules>")
		if manages {
			for _, r := range h.Rules().AsMade() {
				w.rule(&r, h)
			}
		}
		w.WriteString("</AuthorizationRules>")
		w.text("Status", string(h.Status()))
		w.instant("CreatedAt", h.Created)
		w.instant("UpdatedAt", h.Updated())
		if s.Metadata != "" {
			w.text("UserMetadata", s.Metadata)
		}
		w.number("PartitionCount", int64(n))
		w.WriteString(`<PartitionIds xmlns:d2p1="` + arraySpace + `">`)
		for i := range n {
			w.number("d2p1:string", int64(i))
		}
		w.WriteString(`</PartitionIds>`)
		w.capture(s.Capture, manages)
	}}
}

// rule writes an authorization rule. When one was made and changed is not known
// on its own: it was while its hub was.
func (w *writer) rule(r *hub.Rule, h *hub.EventHub) {
	w.WriteString(`<AuthorizationRule i:type="` + sharedAccess + `">`)
	w.text("ClaimType", "SharedAccessKey")
	w.text("ClaimValue", "None")
	w.WriteString("<Rights>")
	for _, right := range []auth.Rights{auth.Manage, auth.Send, auth.Listen} {
		if r.Rights.Has(right) {
			name := "Manage"
			if right != auth.Manage {
				name = right.String()
			}
			w.text("AccessRights", name)
		}
	}
	w.WriteString("</Rights>")
	w.instant("CreatedTime", h.Created)
	w.instant("ModifiedTime", h.Updated())
	w.text("KeyName", r.Name)
	w.text("PrimaryKey", r.Primary)
	if r.Secondary != "" {
		w.text("SecondaryKey", r.Secondary)
	}
	w.WriteString("</AuthorizationRule>")
}

func (m *managing) answerHub(status int, h *hub.EventHub) error {
	e := m.hubEntry(h, m.may(auth.Manage) == nil)
	return m.answer(status, &e)
}

func (m *managing) listHubs() error {
	manages := m.may(auth.Manage) == nil
	hubs := m.ns.EventHubs()
	from, to := m.page(len(hubs))
	var entries []entry
	for _, h := range hubs[from:to] {
		entries = append(entries, m.hubEntry(h, manages))
	}
	return m.feed("EventHubs", "/", "../", entries)
}

func groupEntry(g *hub.Group) entry {
	return entry{title: g.Name, published: g.Created, updated: g.Changed(), kind: "ConsumerGroupDescription", content: func(w *writer) {
		w.instant("CreatedAt", g.Created)
		w.instant("UpdatedAt", g.Changed())
		if g.Metadata != "" {
			w.text("UserMetadata", g.Metadata)
		}
	}}
}

func (m *managing) answerGroup(status int, g *hub.Group) error {
	e := groupEntry(g)
	return m.answer(status, &e)
}

func (m *managing) listGroups(h *hub.EventHub) error {
	groups := h.Groups()
	from, to := m.page(len(groups))
	var entries []entry
	for _, g := range groups[from:to] {
		entries = append(entries, groupEntry(&g))
	}
	return m.feed("ConsumerGroups", "/"+url.PathEscape(h.Name)+"/consumergroups/", "consumergroups/", entries)
}

// partitionEntry describes what a partition holds, and how many bytes a second
// have come and gone lately.
func (m *managing) partitionEntry(p *hub.Partition) (entry, error) {
	info, err := p.Info(m.Context())
	h := p.Hub()
	in, out := p.Rates()
	return entry{title: strconv.Itoa(p.Index()), published: h.Created, updated: h.Created, kind: "PartitionDescription", content: func(w *writer) {
		w.number("SizeInBytes", info.Bytes)
		w.number("BeginSequenceNumber", int64(info.First))
		w.number("EndSequenceNumber", int64(info.Last()))
		w.number("IncomingBytesPerSecond", in)
		w.number("OutgoingBytesPerSecond", out)
		w.number("LastEnqueuedOffset", int64(info.Last()))
		w.instant("LastEnqueuedTimeUtc", info.LastEnqueued)
	}}, err
}

func (m *managing) getPartition(h *hub.EventHub) error {
	p, err := h.Partition(m.r.partition)
	if err != nil {
		return m.missing(h.Name + "/Partitions/" + m.r.partition)
	}
	e, err := m.partitionEntry(p)
	if err != nil {
		return err
	}
	return m.answer(http.StatusOK, &e)
}

func (m *managing) listPartitions(h *hub.EventHub) error {
	from, to := m.page(h.Partitions())
	var entries []entry
	for i := from; i < to; i++ {
		e, err := m.partitionEntry(h.At(i))
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	parent := "/" + url.PathEscape(h.Name)
	if m.r.group != "" {
		parent += "/consumergroups/" + url.PathEscape(m.r.group)
	}
	return m.feed("Partitions", parent+"/partitions/", "partitions/", entries)
}

func (m *managing) revokedEntry(name string) entry {
	return entry{title: name, updated: m.s.o.Now(), kind: "RevokedPublisherDescription", content: func(w *writer) { w.text("Name", name) }}
}

func (m *managing) answerRevoked(status int) error {
	e := m.revokedEntry(m.r.publisher)
	return m.answer(status, &e)
}

func (m *managing) listRevoked(h *hub.EventHub) error {
	names := h.Settings().Revoked
	from, to := m.page(len(names))
	var entries []entry
	for _, name := range names[from:to] {
		entries = append(entries, m.revokedEntry(name))
	}
	return m.feed("RevokedPublishers", "/"+url.PathEscape(h.Name)+"/revokedpublishers/", "revokedpublishers/", entries)
}

// describeNamespace answers with a NamespaceInfo, its elements by name as the
// service has them. The tiers that Service Bus has no word for are Premium.
func (m *managing) describeNamespace() error {
	s := m.ns.Settings()
	sku, units := s.Tier, 0
	switch s.Tier {
	case hub.Basic, hub.Standard:
	default:
		sku, units = hub.Premium, s.Capacity
	}
	return m.answer(http.StatusOK, &entry{title: m.ns.Name, updated: m.ns.Updated(), author: m.ns.Name, kind: "NamespaceInfo", content: func(w *writer) {
		w.instant("CreatedTime", m.ns.Created)
		w.text("MessagingSKU", sku.Title())
		if units > 0 {
			w.number("MessagingUnits", int64(units))
		}
		w.instant("ModifiedTime", m.ns.Updated())
		w.text("Name", m.ns.Name)
		w.text("NamespaceType", "EventHub")
	}})
}

// printable tells whether XML can hold a text as it is.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return true
}
