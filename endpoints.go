package millrace

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/blob"
	"github.com/millrace/millrace/hub"
)

// Endpoints is how to reach a broker; it is what the endpoints file holds. Each
// door's field is host and port for a program on the same machine, "" if the
// door is off.
type Endpoints struct {
	AMQP   string `json:"amqp,omitempty"`
	AMQPS  string `json:"amqps,omitempty"`
	Kafka  string `json:"kafka,omitempty"`
	Kafkas string `json:"kafkas,omitempty"`
	HTTP   string `json:"http,omitempty"`
	HTTPS  string `json:"https,omitempty"`
	Blob   string `json:"blob,omitempty"`
	// ConnectionString is for the plain AMQP door, or else for the one with TLS.
	ConnectionString        string `json:"connectionString,omitempty"`
	StorageConnectionString string `json:"storageConnectionString,omitempty"`
}

// ReadyLine is printed when every door accepts. It is the emulator's, and what
// Testcontainers and others wait for.
const ReadyLine = "Emulator Service is Successfully Up!"

func (b *Broker) describe() Endpoints {
	e := Endpoints{
		AMQP: b.Address(AMQP), AMQPS: b.Address(AMQPS), Kafka: b.Address(Kafka), Kafkas: b.Address(Kafkas),
		HTTP: b.Address(HTTP), HTTPS: b.Address(HTTPS), Blob: b.Address(Blob),
		ConnectionString: b.connectionString(AMQP),
	}
	if e.ConnectionString == "" {
		e.ConnectionString = b.connectionString(AMQPS)
	}
	if d := b.doors[Blob]; d != nil {
		address := d.addr() // needs no name resolved, unlike localhost
		if b.o.Advertise != "" {
			address = net.JoinHostPort(b.o.Advertise, strconv.Itoa(d.port()))
		}
		e.StorageConnectionString = blob.ConnectionString(blob.DevelopmentAccount, b.keys.accounts(b.o.BlobAccounts)[blob.DevelopmentAccount][0], address)
	}
	return e
}

// connectionString is the one for a door, "" if it is off. The default port of
// the protocol is left out, as in the emulator's own.
func (b *Broker) connectionString(name Door) string {
	cs, ok := b.endpointAt(name)
	if !ok {
		return ""
	}
	cs.KeyName, cs.Key = RootRule, b.keys.Primary
	return cs.String()
}

// endpointAt is what connection strings for a door have in common; false if it
// is off.
func (b *Broker) endpointAt(name Door) (auth.ConnectionString, bool) {
	d := b.doors[name]
	if d == nil {
		return auth.ConnectionString{}, false
	}
	cs := auth.ConnectionString{Host: d.host(b.o.listen[name], b.o.Advertise), Port: d.port(), Emulator: name == AMQP}
	if name == AMQP && cs.Port == 5672 || name == AMQPS && cs.Port == 5671 {
		cs.Port = 0
	}
	return cs, true
}

// endpointOf is how connection strings name a namespace: by the AMQP door, with
// TLS if secure, or the other one where that is off. Namespaces beside the default
// one are told apart by the first label of the host.
func (b *Broker) endpointOf(ns *hub.Namespace, secure bool) auth.ConnectionString {
	doors := []Door{AMQP, AMQPS}
	if secure {
		slices.Reverse(doors)
	}
	for _, name := range doors {
		cs, ok := b.endpointAt(name)
		if !ok {
			continue
		}
		switch {
		case ns == b.hubs.Default():
		case net.ParseIP(cs.Host) != nil:
			cs.Host = ns.Name // an address has no labels
		default:
			cs.Host = ns.Name + "." + cs.Host
		}
		return cs
	}
	return auth.ConnectionString{Host: ns.Name}
}

// Endpoints is how to reach the broker.
func (b *Broker) Endpoints() Endpoints { return b.endpoints }

// ConnectionString is what an Event Hubs SDK takes.
func (b *Broker) ConnectionString() string { return b.endpoints.ConnectionString }

// StorageConnectionString is what a storage SDK takes.
func (b *Broker) StorageConnectionString() string { return b.endpoints.StorageConnectionString }

func (e Endpoints) encode() []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.Encode(e) //nolint:errcheck,errchkjson // strings alone, into memory
	return buf.Bytes()
}

// write puts the file in its place by rename. Keys of the broker's own are for
// its user's eyes.
func (e Endpoints) write(path string, public bool) error {
	mode := fs.FileMode(0o644)
	if !public {
		mode = 0o600
	}
	if err := writeFile(path, e.encode(), mode); err != nil {
		return fmt.Errorf("the endpoints file can't be written: %w; choose another place with --endpoints", err)
	}
	return nil
}

// remove removes the file, unless another broker has written it meanwhile.
func (e Endpoints) remove(path string) {
	if b, err := os.ReadFile(path); err == nil && bytes.Equal(b, e.encode()) {
		os.Remove(path)
	}
}

// WriteBanner prints what a person wants to know of a broker that has just
// started. It holds keys.
func (b *Broker) WriteBanner(w io.Writer) error {
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "Millrace %s\n\n", b.o.Version)
	t := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "  %s\t%s\n", name, value)
		}
	}
	row("Connection string", b.connectionString(AMQP))
	row("… over TLS", b.connectionString(AMQPS))
	row("Storage", b.StorageConnectionString())
	if d := b.doors[HTTP]; d != nil {
		row("Web", "http://"+net.JoinHostPort(d.host(b.o.listen[HTTP], b.o.Advertise), strconv.Itoa(d.port())))
	}
	if d := b.doors[HTTPS]; d != nil {
		row("… over TLS", "https://"+net.JoinHostPort(d.host(b.o.listen[HTTPS], b.o.Advertise), strconv.Itoa(d.port())))
	}
	row("Event hubs", b.listHubs())
	data := b.dir
	if b.ephemeral != nil {
		data += " (temporary: removed when the broker stops)"
	}
	row("Data folder", data)
	row("Durability", durability(b.o.sync.String()))
	if b.public && !b.allLoopback() {
		row("WARNING", "the keys above are public, and doors are open beyond this machine: anybody who reaches it can do anything")
	}
	t.Flush() //nolint:errcheck // a buffer takes everything
	buf.WriteByte('\n')
	_, err := w.Write(buf.Bytes())
	return err
}

func (b *Broker) allLoopback() bool {
	for _, d := range b.doors {
		if !d.loopback() {
			return false
		}
	}
	return true
}

// bannerHubs is how many event hubs the banner names.
const bannerHubs = 6

func (b *Broker) listHubs() string {
	var names []string
	for _, ns := range b.hubs.All() {
		for _, h := range ns.EventHubs() {
			partitions := "1 partition"
			if n := h.Partitions(); n != 1 {
				partitions = fmt.Sprintf("%d partitions", n)
			}
			name := h.Name
			if ns != b.hubs.Default() {
				name = ns.Name + "/" + name
			}
			names = append(names, fmt.Sprintf("%s (%s)", name, partitions))
		}
	}
	if n := len(names); n > bannerHubs {
		names = append(names[:bannerHubs], fmt.Sprintf("and %d more", n-bannerHubs))
	}
	return strings.Join(names, ", ")
}

func durability(policy string) string {
	switch every, interval := strings.CutPrefix(policy, "interval="); {
	case interval:
		return "on disk at most " + every + " after it is acknowledged: a loss of power may cost that much (--sync " + policy + ")"
	case policy == "never":
		return "the system writes to disk when it likes: a loss of power may cost events (--sync never)"
	}
	return "an event is on disk before it is acknowledged (--sync always)"
}

// DevConnectionString is the connection string of a broker on this machine that
// was started with no arguments.
func DevConnectionString() string {
	return auth.ConnectionString{Host: "localhost", KeyName: RootRule, Key: DevKey, Emulator: true}.String()
}

// DevStorageConnectionString is the same for its Blob service.
func DevStorageConnectionString() string {
	return blob.ConnectionString(blob.DevelopmentAccount, blob.DevelopmentKey, "127.0.0.1:10000")
}
