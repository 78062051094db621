package millrace

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/amqp"
	"github.com/millrace/millrace/amqp/message"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/blob"
	"github.com/millrace/millrace/capture"
	"github.com/millrace/millrace/event"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/store/segment"
)

// Broker is a running broker. Close or Shutdown it.
type Broker struct {
	o       *checked
	log     *slog.Logger
	started time.Time
	dir     string // the data folder, absolute
	public  bool   // the development keys work
	faults  faults

	// Opened in this order, closed in the opposite one.
	doors     map[Door]*door
	ephemeral *ephemeralFolder
	store     *segment.Store
	blobs     *blob.Service
	hubs      *hub.Namespaces
	capture   *capture.Engine
	keys      *keys
	amqp      *amqp.Server
	amqps     *tls.Config
	web       *webServers
	endpoints Endpoints

	serving  sync.WaitGroup // the doors' goroutines
	draining atomic.Bool
	stop     sync.Once
	stopped  chan struct{}
	err      error // readable once stopped is closed
}

// closeTimeout is how long Close lets connections drain: less than the ten
// seconds after which containers are killed.
const closeTimeout = 8 * time.Second

// Start opens a broker: its doors, its data folder, its servers. When it
// returns, every door accepts, and the endpoints file is there. ctx bounds the
// start alone.
//
// Errors say what to do, and come before anything is touched: options that can't
// be, a taken port (*DoorError), a data folder that can't be written to, that a
// newer version wrote (segment.ErrNewer), or that another broker has open
// (segment.ErrInUse).
func Start(ctx context.Context, o Options) (*Broker, error) {
	c, err := o.check()
	if err != nil {
		return nil, err
	}
	destinations, err := captureDestinations(&o, nil)
	if err != nil {
		return nil, err
	}
	if err := rehearse(ctx, o.Namespaces, capture.New(capture.Options{Destinations: destinations})); err != nil {
		return nil, err
	}
	for name, keys := range o.BlobAccounts {
		if err := checkAccount(name, keys); err != nil {
			return nil, err
		}
	}
	b := &Broker{o: c, log: c.logging, started: c.Now(), doors: map[Door]*door{}, stopped: make(chan struct{})}
	if err := b.open(ctx); err != nil {
		b.undo()
		return nil, err
	}
	b.serve()
	if o.Endpoints != "" {
		if err := b.endpoints.write(o.Endpoints, b.public); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// open opens everything, and serves nothing yet: connections wait.
func (b *Broker) open(ctx context.Context) error {
	if err := b.openDoors(ctx); err != nil {
		return err
	}
	var cert *certificate
	if b.o.TLSCert != "" && b.needsTLS() {
		var err error
		if cert, err = fileCertificate(b.o.TLSCert, b.o.TLSKey, b.log); err != nil {
			return err
		}
	}
	if err := b.openStore(ctx); err != nil {
		return err
	}
	var err error
	if b.keys, err = chooseKeys(b.dir, b.public); err != nil {
		return err
	}
	if cert == nil && b.needsTLS() {
		authority, err := OpenAuthority(b.dir, b.o.Now)
		if err != nil {
			return err
		}
		if cert, err = localCertificate(authority, localNames(b.o.Advertise), b.log); err != nil {
			return err
		}
	}
	if err := b.openBlobs(); err != nil {
		return err
	}
	if err := b.openHubs(ctx); err != nil {
		return err
	}
	book := &ruleBook{b.hubs, b.public}
	verifier, err := auth.NewVerifier(auth.Options{Keys: book, Entra: b.o.Entra, Now: b.o.Now})
	if err != nil {
		return err
	}
	b.watchLocalAuth()
	b.amqp = amqp.NewServer(amqp.Options{Namespaces: b.hubs, Verifier: verifier, Logger: b.log.With("server", "amqp"), Now: b.o.Now})
	b.web = b.newWebServers(verifier, cert)
	b.endpoints = b.describe()
	return nil
}

// openDoors listens, and judges what the addresses mean for safety.
func (b *Broker) openDoors(ctx context.Context) error {
	for _, name := range Doors() {
		a := b.o.listen[name]
		if a.off {
			continue
		}
		d, err := openDoor(ctx, name, a)
		if err != nil {
			return err
		}
		b.doors[name] = d
	}
	return b.judgeDoors()
}

// judgeDoors decides whether the development keys work, and refuses what would
// be open to everybody.
func (b *Broker) judgeDoors() error {
	loopback := b.allLoopback()
	b.public = loopback || b.o.InsecureDevKeys
	if loopback {
		return nil
	}
	if b.o.Entra.AcceptAny {
		return errors.New("--entra accept-any takes any token from anybody, so it works only while every door is on loopback; name an issuer, or close the doors that are open beyond")
	}
	if !b.public {
		return refusePublicKeys(&b.o.Options)
	}
	b.log.Warn("INSECURE: a door is open beyond loopback and the public development keys work, so whoever reaches this machine can read, send and delete everything; " +
		"without --insecure-dev-keys (or ACCEPT_EULA=Y) the broker makes keys of its own")
	return nil
}

func (b *Broker) needsTLS() bool { return b.doors[AMQPS] != nil || b.doors[HTTPS] != nil }

func (b *Broker) openStore(ctx context.Context) error {
	o := segment.Options{Dir: b.o.Data, Stall: b.faults.stall(b.o.AllowFaults), Sync: b.o.sync, Reserve: b.o.Reserve, Now: b.o.Now, Logger: b.log.With("part", "store")}
	if b.o.Ephemeral {
		var err error
		if b.ephemeral, err = newEphemeralFolder(""); err != nil {
			return err
		}
		o.Dir = b.ephemeral.path
	}
	var err error
	if b.dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if b.store, err = segment.Open(ctx, o); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; give the folder to the user that runs the broker, or choose another one with --data", err)
	}
	return err
}

// watchLocalAuth warns of namespaces that nobody can connect to, now or later.
func (b *Broker) watchLocalAuth() {
	if b.o.Entra.AcceptAny || b.o.Entra.Issuer != "" {
		return
	}
	warn := func(ns *hub.Namespace) {
		b.log.Warn("local authentication is disabled for a namespace, and the broker takes no Entra tokens (--entra): nobody can connect to it", "namespace", ns.Name)
	}
	for _, ns := range b.hubs.All() {
		if ns.LocalAuthDisabled() {
			warn(ns)
		}
	}
	b.hubs.OnLocalAuthDisabled(warn)
}

// openBlobs opens the Blob endpoint, to which captured files go, too.
func (b *Broker) openBlobs() error {
	var err error
	b.blobs, err = blob.New(blob.Options{
		Meta: b.store.Meta(), Dir: filepath.Join(b.dir, "blobs"), Accounts: b.keys.accounts(b.o.BlobAccounts),
		Now: b.o.Now, Logger: b.log.With("server", "blob"),
	})
	if err != nil {
		return fmt.Errorf("the Blob service can't be opened: %w", err)
	}
	return nil
}

func (b *Broker) openHubs(ctx context.Context) error {
	destinations, err := captureDestinations(&b.o.Options, b)
	if err != nil {
		return err
	}
	b.capture = capture.New(capture.Options{
		Meta: b.store.Meta(), Spool: filepath.Join(b.dir, "capture"), Destinations: destinations, Room: b.hasRoom, Now: b.o.Now, Logger: b.log.With("part", "capture"),
	})
	b.hubs, err = hub.Open(ctx, hub.Options{
		Store: b.store, Codecs: map[event.Encoding]event.Codec{event.EncodingAMQP: message.Codec{}},
		Rules: []hub.Rule{b.keys.rule()}, Configured: configured(b.o.Namespaces), Capturer: b.capture, Now: b.o.Now, Logger: b.log.With("part", "hub"),
	})
	if err != nil {
		return err
	}
	if err := makeEntities(ctx, b.hubs, b.o.Namespaces); err != nil {
		return err
	}
	if err := makeFirstHub(ctx, b.hubs); err != nil {
		return err
	}
	return b.capture.Start(ctx, b.hubs)
}

// undo closes what a failed start has opened.
func (b *Broker) undo() {
	for _, d := range b.doors {
		d.close()
	}
	if err := b.closeData(); err != nil {
		b.log.Warn("what a failed start had opened could not be closed", "error", err)
	}
}

// closeData closes what the servers have used.
func (b *Broker) closeData() error {
	var errs []error
	if b.capture != nil {
		b.capture.Close()
	}
	if b.blobs != nil {
		errs = append(errs, b.blobs.Close())
	}
	if b.hubs != nil {
		b.hubs.Close()
	}
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	if b.ephemeral != nil {
		errs = append(errs, b.ephemeral.remove())
	}
	return errors.Join(errs...)
}

// serve lets the servers take what comes in.
func (b *Broker) serve() {
	for name, d := range b.doors {
		for _, ln := range d.listeners {
			b.serving.Go(func() {
				err := b.web.serve(b, name, ln)
				if err != nil && !b.draining.Load() {
					b.log.Error("a door has failed; the broker stops", "door", name, "error", err)
					go b.end(&DoorError{Door: name, Address: ln.Addr().String(), Err: err}, closeTimeout) //nolint:errcheck // Err has it
				}
			})
		}
	}
}

// Shutdown drains the broker and closes it: the doors close, AMQP connections
// are told goodbye once their appends are acknowledged, requests end, the log is
// synced. When ctx ends, what still waits is cut; the log is closed all the
// same. The error is that of the data folder, or else ctx's.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.stop.Do(func() { b.shutdown(ctx, nil) })
	<-b.stopped
	return b.err
}

// Close is Shutdown with eight seconds for what is in flight.
func (b *Broker) Close() error { return b.end(nil, closeTimeout) }

func (b *Broker) end(cause error, patience time.Duration) error {
	b.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		b.shutdown(ctx, cause)
	})
	<-b.stopped
	return b.err
}

func (b *Broker) shutdown(ctx context.Context, cause error) {
	b.draining.Store(true) // /health says so from now on
	for name, d := range b.doors {
		if name == AMQP || name == AMQPS {
			d.close()
		}
	}
	late := b.amqp.Shutdown(ctx)
	late = errors.Join(late, b.web.shutdown(ctx))
	b.serving.Wait()
	err := b.closeData()
	if b.o.Endpoints != "" {
		b.endpoints.remove(b.o.Endpoints)
	}
	if late != nil {
		b.log.Warn("connections were cut, since they did not end in time", "error", late)
	}
	b.err = errors.Join(cause, err)
	if b.err == nil {
		b.err = late
	}
	close(b.stopped)
}

// Done is closed when the broker has stopped, asked to or not.
func (b *Broker) Done() <-chan struct{} { return b.stopped }

// Err is why the broker stopped: nil while it runs and after a clean stop.
func (b *Broker) Err() error {
	select {
	case <-b.stopped:
		return b.err
	default:
		return nil
	}
}

// Namespaces are the broker's entities, for tests that look inside. They are the
// broker's to close.
func (b *Broker) Namespaces() *hub.Namespaces { return b.hubs }

// Data is the data folder.
func (b *Broker) Data() string { return b.dir }

// Address is where a program on this machine reaches a door, as host and port;
// "" if the door is off.
func (b *Broker) Address(d Door) string {
	if open := b.doors[d]; open != nil {
		return open.addr()
	}
	return ""
}

// freeSpace is the space on the data folder's disk, in bytes; zeros if the
// system doesn't say.
func freeSpace(dir string) (free, total uint64) {
	if _, err := os.Stat(dir); err != nil {
		return 0, 0
	}
	free, total, err := segment.NewDisk(dir).Free()
	if err != nil {
		return 0, 0
	}
	return free, total
}
