package amqp

import (
	"bytes"
	"errors"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/amqp/wire"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
)

// FuzzAddress reads whatever comes as an address: what can be read names an
// entity or a node, and its path, as claims are compared with, reads the same.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{
		"hub", "/hub/", "hub/Partitions/3", "amqps://host:5671/hub", "sb://host/hub/Publishers/p%201", "$cbs", "hub/$management",
		"/h/consumergroups/%24default/partitions/0?x=y", "amqps://host/hub/ConsumerGroups/$Default/Partitions/0", "a%zz", "hub/x/y", "sb://host",
		"hub/Partitions/1/Partitions/2", "%2F%2F", "hub%2FPartitions%2F1", "//", "h/Partitions/%2F", "?", "://",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		if a.node == "" && a.hub == "" {
			t.Fatalf("%q names no entity", s)
		}
		for _, part := range []string{a.hub, a.group, a.partition, a.publisher} {
			if len(part) > len(s) {
				t.Fatalf("%q is longer than %q", part, s)
			}
		}
		if a.node != "" {
			return
		}
		escape := func(p string) string { return url.PathEscape(p) }
		var path strings.Builder
		path.WriteString(escape(a.hub))
		for _, part := range [][2]string{{"ConsumerGroups", a.group}, {"Publishers", a.publisher}, {"Partitions", a.partition}} {
			if part[1] != "" {
				path.WriteString("/" + part[0] + "/" + escape(part[1]))
			}
		}
		if again, err := parseAddress(path.String()); err != nil || again != a {
			t.Fatalf("%q is %+v, and %q is %+v, %v", s, a, path.String(), again, err)
		}
		if unescaped, err := url.PathUnescape(path.String()); err != nil || unescaped != a.path() {
			t.Fatalf("the path is %q, not %q", a.path(), unescaped)
		}
	})
}

// FuzzSelector reads whatever comes as a selector, and as the filter around it:
// what is read is a position from which a log can be read, and in the broker's
// own words it is the same.
func FuzzSelector(f *testing.F) {
	for _, s := range []string{
		"amqp.annotation.x-opt-offset > '-1'", "amqp.annotation.x-opt-offset > '@latest'", "amqp.annotation.x-opt-offset>='12'",
		"  amqp.annotation.x-opt-offset   >   12  ", "amqp.annotation.x-opt-sequence-number >= 7", "amqp.annotation.x-opt-enqueued-time > '1234567890123'",
		"amqp.annotation.x-opt-enqueued-time >= '-9223372036854775808'", "amqp.annotation.x-opt-offset > '99999999999999999999'",
		"amqp.annotation.x-opt-offset < '1'", "amqp.annotation.>", "amqp.annotation.x-opt-offset >''", "amqp.annotation.x-opt-offset > '",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseSelector(s)
		text, _, _ := wire.Read(wire.AppendString(nil, s))
		b, at := wire.BeginMap(nil, 2)
		b = wire.AppendSymbol(b, selectorFilter)
		b = wire.AppendValue(append(b, wire.CodeDescribed, wire.CodeUlong, 0, 0, 0x46, 0x8c, 0, 0, 0, 4), text)
		wire.EndCompound(b, at)
		filters, _, err2 := wire.Read(b)
		if err2 != nil {
			t.Fatal(err2)
		}
		if q, err2 := startOf(filters); q != p || (err == nil) != (err2 == nil) {
			t.Fatalf("%q is %+v, %v; in a filter %+v, %v", s, p, err, q, err2)
		}
		if err != nil {
			return
		}
		if p.Sequence < 0 {
			t.Fatalf("%q starts at %d", s, p.Sequence)
		}
		if again, err := parseSelector(selector(p)); err != nil || again != p {
			t.Fatalf("%q is %+v, and %q is %+v, %v", s, p, selector(p), again, err)
		}
	})
}

// selector writes a position as clients do.
func selector(p event.Position) string {
	op := " > "
	if p.Inclusive {
		op = " >= "
	}
	switch p.Origin {
	case event.Latest:
		return "amqp.annotation.x-opt-offset > '@latest'"
	case event.AtOffset:
		return "amqp.annotation.x-opt-offset" + op + "'" + strconv.FormatInt(int64(p.Sequence), 10) + "'"
	case event.AtSequence:
		return "amqp.annotation.x-opt-sequence-number" + op + strconv.FormatInt(int64(p.Sequence), 10)
	case event.AtEnqueued:
		return "amqp.annotation.x-opt-enqueued-time" + op + strconv.FormatInt(p.Enqueued.UnixMilli(), 10)
	}
	return "amqp.annotation.x-opt-offset > '-1'"
}

// FuzzFilters reads whatever comes as a source's filters.
func FuzzFilters(f *testing.F) {
	entry := func(key, value []byte) []byte {
		b, at := wire.BeginMap(nil, 2)
		b = append(append(b, key...), value...)
		wire.EndCompound(b, at)
		return b
	}
	key, text := wire.AppendSymbol(nil, selectorFilter), wire.AppendString(nil, "amqp.annotation.x-opt-offset > '5'")
	described := append([]byte{wire.CodeDescribed, wire.CodeUlong, 0, 0, 0x46, 0x8c, 0, 0, 0, 4}, text...)
	dotNet := append([]byte{wire.CodeDescribed, wire.CodeUlong, 0, 0, 0, 0x13, 0x70, 0, 0, 0x0a}, text...)
	symbolic := append(append([]byte{wire.CodeDescribed}, key...), text...)
	for _, b := range [][]byte{
		entry(key, text), entry(key, described), entry(wire.AppendSymbol(nil, "x"), dotNet), entry(wire.AppendString(nil, "x"), symbolic),
		entry(key, wire.AppendNull(nil)), entry(key, wire.AppendUint(nil, 5)), wire.AppendNull(nil), entry(key, []byte{wire.CodeDescribed}),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, _, err := wire.Read(b)
		if err != nil {
			return
		}
		p, err := startOf(v)
		if err == nil && p.Sequence < 0 || err != nil && p != (event.Position{}) {
			t.Fatalf("%+v, %v", p, err)
		}
	})
}

// FuzzRequest reads whatever comes as a request to $cbs or $management, and
// answers it: the answer has the request's id, and reads as a message.
func FuzzRequest(f *testing.F) {
	props, at := wire.BeginList(wire.AppendDescriptor(nil, wire.DescProperties), 5)
	props = append(wire.AppendUlong(props, 7), wire.CodeNull, wire.CodeNull, wire.CodeNull)
	props = wire.AppendString(props, "reply-here")
	wire.EndCompound(props, at)
	app, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescAppProperties), 4)
	app = wire.AppendString(wire.AppendString(app, "operation"), "put-token")
	app = wire.AppendString(wire.AppendString(app, "name"), "sb://localhost/hub")
	wire.EndCompound(app, at)
	token := wire.AppendString(wire.AppendDescriptor(nil, wire.DescValue), "SharedAccessSignature sr=hub&sig=AA&se=1&skn=n")
	whole := bytes.Join([][]byte{props, app, token}, nil)
	f.Add(whole)
	f.Add(append(append([]byte{}, app...), wire.AppendBinary(wire.AppendDescriptor(nil, wire.DescData), []byte("token"))...))
	f.Add(props)
	f.Add(whole[:len(whole)-1])
	f.Add(append(append([]byte{}, props...), props...))
	f.Add([]byte{0, 0x53, 0x74, 0xc1, 2, 1, 0x40})
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, err := parseRequest(msg)
		if err != nil {
			if len(msg) > 0 && !errors.Is(err, wire.ErrDecode) {
				t.Fatalf("%v is not the decoder's", err)
			}
			return
		}
		if len(r.app) > len(msg) || len(r.replyTo) > len(msg) {
			t.Fatalf("%d properties in %d bytes", len(r.app), len(msg))
		}
		_ = r.text("operation")
		p := reply{code: 202, description: "Accepted", condition: r.text("name"), body: []byte{wire.CodeNull}}
		answer := p.encode(r.id)
		if id := correlation(t, answer); !bytes.Equal(id.Full, r.id.Full) && !(id.IsNull() && r.id.IsNull()) {
			t.Fatalf("the request %x is answered as % x", r.id.Full, id.Full)
		}
		again, err := parseRequest(answer)
		if code, ok := again.app["status-code"].Int(); err != nil || !ok || code != 202 || !again.body.IsNull() {
			t.Fatalf("%+v, %v", again, err)
		}
		if c := cloneValue(r.id); !bytes.Equal(c.Full, r.id.Full) {
			t.Fatalf("% x is cloned as % x", r.id.Full, c.Full)
		}
	})
}

// correlation is the correlation id of a reply.
func correlation(t *testing.T, msg []byte) wire.Value {
	s, _, err := message.Next(msg)
	if err != nil || s.Code != wire.DescProperties {
		t.Fatalf("a reply begins with section 0x%x, %v", s.Code, err)
	}
	it, err := s.Body.List()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		it.Next()
	}
	return it.Next()
}

// FuzzBatch takes whatever comes as a transfer of many events, once whole and
// once in pieces, as frames cut it: the same events, or the same refusal.
func FuzzBatch(f *testing.F) {
	data := func(b []byte) []byte { return wire.AppendBinary(wire.AppendDescriptor(nil, wire.DescData), b) }
	key, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescMessageAnn), 2)
	key = wire.AppendString(wire.AppendSymbol(key, message.AnnotationPartitionKey), "k")
	wire.EndCompound(key, at)
	symbolic := append(append([]byte{wire.CodeDescribed}, wire.AppendSymbol(nil, "amqp:data:binary")...), wire.AppendBinary(nil, data([]byte("third")))...)
	long, at := wire.BeginMap(wire.AppendDescriptor(nil, wire.DescMessageAnn), 2)
	long = wire.AppendString(wire.AppendSymbol(long, message.AnnotationPartitionKey), strings.Repeat("k", hub.MaxPartitionKey))
	wire.EndCompound(long, at)
	batch := bytes.Join([][]byte{key, data(data([]byte("first"))), data(data(bytes.Repeat([]byte("s"), 300))), symbolic}, nil)
	for _, pieces := range []uint16{1, 7, 250} {
		f.Add(batch, pieces)
		f.Add(batch[:len(batch)-1], pieces)
		f.Add(data(append(append([]byte{}, key...), data([]byte("keyed"))...)), pieces)
		f.Add(append(bytes.Clone(long), bytes.Repeat(data(data(nil)), 50)...), pieces)
		f.Add(data(nil), pieces)
		f.Add(data([]byte("no message")), pieces)
		f.Add([]byte{0, 0x53, 0x75, 0xb0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}, pieces)
		f.Add([]byte{0, 0x53, 0x77, 0x40}, pieces)
		f.Add([]byte{0, 0xa3, 1, 'x', 0x40, 0x3f}, pieces)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		if len(b) > 1<<18 {
			return
		}
		whole := receive(b, len(b))
		parts := receive(b, max(int(piece), 1))
		if !reflect.DeepEqual(whole, parts) {
			t.Fatalf("whole: %+v\nin pieces of %d: %+v", whole, piece, parts)
		}
		// Each event is stored with the batch's key.
		if len(whole.stored) > 2*len(b)+(64+len(whole.key))*whole.count || whole.count > len(b) {
			t.Fatalf("%d events in %d bytes, of a batch of %d", whole.count, len(whole.stored), len(b))
		}
	})
}

// received is what is left of a batch.
type received struct {
	refused, ended  string
	count           int
	stored          []byte
	key, route      string
	carried         int
	partial, global int64
}

// receive takes a batch in pieces, and ends it: but for the append itself, what
// a link does.
func receive(b []byte, piece int) (r received) {
	c := &conn{srv: &Server{}}
	e := &ingest{path: "hub"}
	l := &inLink{s: &session{c: c}, events: e, format: message.BatchFormat}
	for first := true; first || len(b) > 0; first = false {
		n := min(piece, len(b))
		// Bytes that come with a frame don't outlive it.
		part := append([]byte{}, b[:n]...)
		err := e.take(l, part, true)
		clear(part)
		if err != nil {
			r.refused = why(err)
			break
		}
		b = b[n:]
	}
	x := e.batch
	r.count, r.carried, r.key, r.route = x.b.Count(), len(l.carry), string(e.key), string(e.routeKey)
	n := int64(len(l.carry)) - l.held // how far a buffer has grown depends on the pieces
	r.partial, r.global = c.partial.Load()+n, c.srv.partial.Load()+n
	if batch := x.b.Batch(); batch != nil {
		for i := range batch.Records {
			r.stored = append(r.stored, batch.Records[i].Body...)
		}
		batch.Release()
	}
	if r.refused == "" && r.carried > 0 {
		r.ended = "within a section"
	}
	if r.refused != "" { // the rest of it was not looked at
		r.carried, r.partial, r.global = 0, 0, 0
	}
	l.dropMessage()
	if c.partial.Load() < 0 || c.srv.partial.Load() != c.partial.Load() {
		r.ended += ", and counted wrongly"
	}
	return r
}

func why(err error) string {
	var e *hub.Error
	if !errors.As(err, &e) {
		return "no *hub.Error: " + err.Error()
	}
	text, _, _ := strings.Cut(e.Text, ":")
	return text
}
