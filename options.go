package millrace

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/segment"
)

// Door names one of the broker's listening points. It is also the name of the
// flag that says where.
type Door string

// The doors.
const (
	AMQP   Door = "amqp"   // AMQP, plain
	AMQPS  Door = "amqps"  // AMQP over TLS
	Kafka  Door = "kafka"  // not in this version
	Kafkas Door = "kafkas" // not in this version
	HTTP   Door = "http"   // health, metrics, management, AMQP over WebSocket
	HTTPS  Door = "https"  // the same over TLS
	Blob   Door = "blob"   // Blob REST
)

// Doors returns every door, in the order in which they are listed to people.
func Doors() []Door { return []Door{AMQP, AMQPS, Kafka, Kafkas, HTTP, HTTPS, Blob} }

// Options say what to start. The zero value with Data or Ephemeral set is a
// broker on free ports of loopback.
type Options struct {
	// Data is the data folder, made if absent. Required unless Ephemeral.
	Data string
	// Ephemeral keeps everything in a temporary folder, never synced, that is
	// removed when the broker stops. Data and Sync are then to be empty.
	Ephemeral bool
	// Sync is the durability policy: "always" (durable before the
	// acknowledgement), "interval=DURATION" or "never". "" means always.
	Sync string
	// Reserve is the free disk space, in bytes, below which appends are refused;
	// 0 means the smaller of 1 GiB and 5 % of the disk, a negative number none.
	Reserve int64

	// Listen says where each door listens: "off", "HOST:PORT", ":PORT" for every
	// interface, or "localhost:PORT" for 127.0.0.1 and, where there is one, ::1.
	// Port 0 takes a free one. A door that is not in the map listens on
	// localhost:0; Kafka's are off, since this version has none.
	Listen map[Door]string
	// Advertise is the host that clients are told to connect to. "" means
	// localhost, or the address that a door is bound to.
	Advertise string
	// TLSCert and TLSKey are files in PEM of the certificate to serve; changed
	// files are read again. "" means a certificate of the authority in the data
	// folder, see Authority.
	TLSCert, TLSKey string
	// Entra says what becomes of Microsoft Entra and other bearer tokens.
	Entra auth.Entra
	// InsecureDevKeys lets the public development keys work although a door is
	// open beyond loopback.
	InsecureDevKeys bool
	// AllowFaults lets faults be injected through the management interface.
	AllowFaults bool

	// Namespaces are made, with their event hubs, unless they exist.
	Namespaces []Namespace
	// BlobAccounts are further storage accounts: name to one or two base64 keys.
	BlobAccounts map[string][]string
	// CaptureDestinations are where captured files can go, beside the broker's own
	// Blob endpoint.
	CaptureDestinations []CaptureDestination

	// Endpoints is a file to write, by rename, once every door accepts.
	Endpoints string
	// Version is what the broker says it is; "" means the version in the
	// program's build information.
	Version string
	// Logger; nil means none.
	Logger *slog.Logger
	// Now is the clock of everything but the network; nil means time.Now.
	Now func() time.Time
}

// Namespace asks for a namespace. One that exists is kept as it is, less what is
// said here.
type Namespace struct {
	// Name is a host's name, or its first label. "" means the default namespace,
	// which answers to every host that names no other.
	Name string
	// Rules are authorization rules. They hold beside those that the namespace
	// has, and before one of the same name, for as long as the broker runs: they
	// are not stored, so that a key that is taken out of the file is gone.
	Rules []hub.Rule
	Hubs  []EventHub
	// Tier, Capacity, AutoInflate and MaximumCapacity are as in
	// hub.NamespaceSettings. Those that are given become the namespace's; a
	// capacity that auto-inflate has raised stays.
	Tier            hub.Tier
	Capacity        int
	AutoInflate     *bool
	MaximumCapacity int
	// DisableLocalAuth has keys, and what they have signed, be refused: those of
	// Rules, too. Nil leaves it to the namespace.
	DisableLocalAuth *bool

	at position
}

// EventHub asks for an event hub. Of one that exists, the number of partitions
// must be the same, the retention becomes what is said here, and groups are
// added. Nothing is ever deleted.
type EventHub struct {
	Name string
	// Partitions is from 1 to hub.MaxPartitions; 0 means 4, or what the hub has.
	Partitions int
	// Retention; 0 means what the hub has, or hub.DefaultRetention; negative for
	// ever.
	Retention time.Duration
	// MaxBytes is how much is kept of it; 0 means what the hub has, or all.
	MaxBytes int64
	// Groups are the consumer groups beside $Default, which may be named.
	Groups []string
	// Rules are as those of a Namespace.
	Rules []hub.Rule
	// Capture becomes the hub's, if it is given.
	Capture *hub.Capture

	at position
}

// position is a place in a configuration file, for messages; the zero value is
// nowhere.
type position struct {
	file string
	line int
}

func (p position) String() string {
	if p.file == "" {
		return ""
	}
	if p.line == 0 {
		return p.file + ": "
	}
	return fmt.Sprintf("%s:%d: ", p.file, p.line)
}

// checked are Options whose texts have been understood.
type checked struct {
	Options
	sync    segment.Sync
	listen  map[Door]address
	logging *slog.Logger
}

// check looks at everything that can be wrong without touching disk or network.
func (o Options) check() (*checked, error) {
	c := &checked{Options: o, listen: map[Door]address{}, logging: o.Logger}
	if c.logging == nil {
		c.logging = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Version == "" {
		c.Version = BuildVersion()
	}
	if err := c.checkData(); err != nil {
		return nil, err
	}
	if err := c.checkDoors(); err != nil {
		return nil, err
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return nil, fmt.Errorf("--tls-cert and --tls-key go together: a certificate and its key, each a file in PEM")
	}
	if strings.ContainsAny(o.Advertise, "/ :[]") && !isIP(o.Advertise) {
		return nil, fmt.Errorf("--advertise takes a host name or an address without a port, and %q is neither", o.Advertise)
	}
	return c, nil
}

func (c *checked) checkData() error {
	switch {
	case c.Ephemeral && c.Data != "":
		return fmt.Errorf("an ephemeral broker has no data folder of its own: give either --ephemeral or --data %s", c.Data)
	case c.Ephemeral && c.Sync != "" && c.Sync != "never":
		return fmt.Errorf("an ephemeral broker never syncs its temporary folder: give either --ephemeral or --sync %s", c.Sync)
	case c.Ephemeral:
		c.sync = segment.Sync{Policy: segment.SyncNever}
		return nil
	case c.Data == "":
		return fmt.Errorf("no data folder is given: name one with --data DIR, or use --ephemeral")
	case c.Sync == "":
		return nil
	}
	var err error
	if c.sync, err = segment.ParseSync(c.Sync); err != nil {
		return fmt.Errorf("--sync: %w", err)
	}
	return nil
}

func (c *checked) checkDoors() error {
	for d := range c.Options.Listen {
		if !isDoor(d) {
			return fmt.Errorf("there is no door %q", d)
		}
	}
	open := false
	for _, d := range Doors() {
		text, given := c.Options.Listen[d]
		if !given {
			text = "localhost:0"
			if d == Kafka || d == Kafkas {
				text = "off"
			}
		}
		a, err := parseDoor(d, text)
		if err != nil {
			return fmt.Errorf("--%s: %w", d, err)
		}
		c.listen[d] = a
		open = open || !a.off
	}
	if !open {
		return fmt.Errorf("every door is off, so nobody could reach this broker: open one, as with --amqp localhost:5672")
	}
	return nil
}

func isDoor(d Door) bool {
	return slices.Contains(Doors(), d)
}
