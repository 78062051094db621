package millrace

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/rest"
)

// Limits of the HTTP doors. A WebSocket is past them: it has the connection to
// itself, without deadlines.
const (
	httpHeaderTimeout = 10 * time.Second
	httpTimeout       = time.Minute // of a request, and again of its answer
	httpIdleTimeout   = 2 * time.Minute
	httpMaxHeader     = 64 << 10
	// blobTimeout bounds the answer of a Blob request, which may be a large
	// download over a slow line; uploads have a limit for each pause (package
	// blob).
	blobTimeout = time.Hour
)

// webServers are the HTTP servers, one for each kind of door.
type webServers struct {
	http, https, blob *http.Server
}

func (b *Broker) newWebServers(v *auth.Verifier, cert *certificate) *webServers {
	web := func(h http.Handler, protocol *tls.Config) *http.Server {
		return &http.Server{
			Handler: h, TLSConfig: protocol,
			ReadHeaderTimeout: httpHeaderTimeout, ReadTimeout: httpTimeout, WriteTimeout: httpTimeout,
			IdleTimeout: httpIdleTimeout, MaxHeaderBytes: httpMaxHeader,
			ErrorLog: slog.NewLogLogger(b.log.With("server", "http").Handler(), slog.LevelDebug),
		}
	}
	mux := b.newMux(v)
	w := &webServers{http: web(mux, nil), blob: web(b.blobs, nil)}
	rest.KeepNames(w.http)
	w.blob.ReadTimeout, w.blob.WriteTimeout = 0, blobTimeout
	if cert != nil {
		// Not HTTP/2: names of headers are lower case in it, and they name the
		// properties of events that are sent.
		w.https = web(mux, cert.tlsConfig("http/1.1"))
		rest.KeepNames(w.https)
		b.amqps = cert.tlsConfig()
	}
	return w
}

// newMux puts what the HTTP doors serve in its places.
func (b *Broker) newMux(v *auth.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", b.health)
	mux.Handle("GET /metrics", b.metrics())
	mux.Handle("GET /$servicebus/websocket", b.amqp.WebSocket())
	mux.Handle("GET /$servicebus/websocket/{$}", b.amqp.WebSocket()) // as .NET asks for it
	mux.Handle(admin.Root, admin.NewServer(admin.Options{
		Namespaces: b.hubs, Verifier: v, Status: b.status, Logger: b.log.With("server", "admin"), Now: b.o.Now,
		Inject: b.injector(),
	}))
	mux.HandleFunc("GET /{$}", b.front)
	mux.HandleFunc("/health", readOnly)
	mux.HandleFunc("/metrics", readOnly)
	// The service's own interface has what is left: any first step may be a hub's
	// name, and an unknown path is answered in the service's form.
	service := rest.NewServer(rest.Options{
		Namespaces: b.hubs, Verifier: v, Logger: b.log.With("server", "rest"), Now: b.o.Now,
	})
	mux.Handle("/", service)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect a path such as //hub/messages, and lose the body.
		if p := r.URL.EscapedPath(); p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/") {
			service.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// health answers as the emulator does. Source: emulator.md section 1.
func (b *Broker) health(w http.ResponseWriter, _ *http.Request) {
	status, body := http.StatusOK, `{"status":"healthy","message":"Service is healthy."}`
	if b.draining.Load() {
		status, body = http.StatusServiceUnavailable, `{"status":"unhealthy","message":"Service not available. Please try after some time."}`
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, body) //nolint:errcheck // the client is gone
}

func (b *Broker) front(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	//nolint:errcheck // the client is gone
	io.WriteString(w, "This is Millrace "+b.o.Version+", an event streaming broker that speaks the protocols of Azure Event Hubs.\n\n"+
		"  /health                 whether it is well\n"+
		"  /metrics                its figures, for Prometheus\n"+
		"  /admin/v1/              management, as the commands \"millrace hub\" and \"millrace group\" use it\n"+
		"  /$servicebus/websocket  AMQP over WebSocket\n"+
		"  /HUB/messages           send with POST, as to Event Hubs\n")
}

// readOnly refuses other methods than those that are served.
func readOnly(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, r.URL.Path+" is read with GET; "+r.Method+" can't be done to it.", http.StatusMethodNotAllowed)
}

// status is what the broker tells the management interface.
func (b *Broker) status(context.Context) admin.Status {
	now := b.o.Now()
	st := admin.Status{
		Version: b.o.Version, Started: b.started.UTC(), Uptime: now.Sub(b.started).Seconds(),
		Data: b.dir, Disposed: b.ephemeral != nil, Sync: b.o.sync.String(), Full: b.store.Full(), Doors: map[string]string{},
	}
	st.DiskFree, st.DiskSize = freeSpace(b.dir)
	for name := range b.doors {
		st.Doors[string(name)] = b.Address(name)
	}
	return st
}

// serve accepts at a listener of a door until it is closed.
func (w *webServers) serve(b *Broker, name Door, ln net.Listener) error {
	var err error
	switch name {
	case AMQP:
		err = b.amqp.Serve(ln)
	case AMQPS:
		err = b.amqp.Serve(tls.NewListener(ln, b.amqps))
	case HTTP:
		err = w.http.Serve(rest.Listener(ln))
	case HTTPS:
		err = w.https.Serve(rest.Listener(tls.NewListener(ln, w.https.TLSConfig)))
	case Blob:
		err = w.blob.Serve(ln)
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// shutdown lets requests end, and cuts them when ctx does.
func (w *webServers) shutdown(ctx context.Context) error {
	var errs []error
	for _, s := range []*http.Server{w.http, w.https, w.blob} {
		if s == nil {
			continue
		}
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, err, s.Close())
		}
	}
	return errors.Join(errs...)
}
