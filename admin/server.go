package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// Options configure a Server. Namespaces and Verifier are required.
type Options struct {
	Namespaces *hub.Namespaces
	Verifier   *auth.Verifier
	// Status is what the broker says of itself; Server adds the counts of
	// entities and connections. Nil means an empty one.
	Status func(context.Context) Status
	// Inject has a fault happen to a namespace, and returns to how many connections,
	// receivers or event hubs. Nil says that faults are not allowed.
	Inject func(context.Context, *hub.Namespace, Fault) (int, error)
	// Logger is told of failures of our own. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Server answers below Root. It may be used by many goroutines.
type Server struct {
	o   Options
	log *slog.Logger
	mux *http.ServeMux
}

// NewServer returns a server; it needs no closing.
func NewServer(o Options) *Server {
	if o.Status == nil {
		o.Status = func(context.Context) Status { return Status{} }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	// Whoever runs the broker has to be able to enable local authentication again.
	o.Verifier = o.Verifier.Except(func(c *auth.Claims) bool { return c.OfNamespace && o.Namespaces.IsOwn(c.Name) })
	s := &Server{o: o, log: o.Logger, mux: http.NewServeMux()}
	for pattern, serve := range map[string]func(*call) error{
		"GET status":                                      s.status,
		"GET namespaces":                                  s.listNamespaces,
		"POST namespaces":                                 s.createNamespace,
		"GET namespaces/{namespace}":                      s.showNamespace,
		"PATCH namespaces/{namespace}":                    s.updateNamespace,
		"DELETE namespaces/{namespace}":                   s.deleteNamespace,
		"GET namespaces/{namespace}/plan":                 s.planNamespace,
		"POST faults":                                     s.injectFault,
		"GET hubs":                                        s.listHubs,
		"POST hubs":                                       s.createHub,
		"GET hubs/{hub}":                                  s.showHub,
		"PATCH hubs/{hub}":                                s.updateHub,
		"DELETE hubs/{hub}":                               s.deleteHub,
		"GET hubs/{hub}/partitions":                       s.listPartitions,
		"GET hubs/{hub}/receivers":                        s.listReceivers,
		"GET hubs/{hub}/revokedpublishers":                s.listRevoked,
		"PUT hubs/{hub}/revokedpublishers/{publisher}":    s.revokePublisher,
		"DELETE hubs/{hub}/revokedpublishers/{publisher}": s.restorePublisher,
		"GET applicationgroups":                           s.listApplicationGroups,
		"PUT applicationgroups/{group}":                   s.putApplicationGroup,
		"DELETE applicationgroups/{group}":                s.deleteApplicationGroup,
		"GET rules":                                       s.listRules,
		"GET rules/{rule}":                                s.showRule,
		"PUT rules/{rule}":                                s.putRule,
		"DELETE rules/{rule}":                             s.deleteRule,
		"POST rules/{rule}/regenerate":                    s.regenerateKey,
		"GET hubs/{hub}/rules":                            s.listRules,
		"GET hubs/{hub}/rules/{rule}":                     s.showRule,
		"PUT hubs/{hub}/rules/{rule}":                     s.putRule,
		"DELETE hubs/{hub}/rules/{rule}":                  s.deleteRule,
		"POST hubs/{hub}/rules/{rule}/regenerate":         s.regenerateKey,
		"GET hubs/{hub}/groups":                           s.listGroups,
		"POST hubs/{hub}/groups":                          s.createGroup,
		"DELETE hubs/{hub}/groups/{group}":                s.deleteGroup,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		s.mux.HandleFunc(method+" "+Root+path, func(w http.ResponseWriter, r *http.Request) {
			if err := s.serve(w, r, serve); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	// The mux knows which methods there are, but answers in plain text.
	var refusal header
	h.ServeHTTP(&refusal, r)
	e := &Error{Status: http.StatusNotFound, Kind: "NoSuchPath", Message: fmt.Sprintf("There is nothing at %s.", r.URL.Path)}
	if refusal.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", refusal.Header().Get("Allow"))
		e = &Error{Status: refusal.status, Kind: "MethodNotAllowed", Message: fmt.Sprintf("%s can't be done to %s; what can be is %s.", r.Method, r.URL.Path, refusal.Header().Get("Allow"))}
	}
	s.fail(w, r, e)
}

// header keeps what stands above a response's body.
type header struct {
	h      http.Header
	status int
}

func (h *header) Header() http.Header {
	if h.h == nil {
		h.h = http.Header{}
	}
	return h.h
}

func (h *header) Write(b []byte) (int, error) { return len(b), nil }
func (h *header) WriteHeader(status int)      { h.status = status }

// call is one request, once it is known who makes it.
type call struct {
	*http.Request
	w      http.ResponseWriter
	ns     *hub.Namespace
	claims *auth.Claims
	now    time.Time
}

// serve authenticates the caller and lets a handler answer.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, handle func(*call) error) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return &Error{Status: http.StatusForbidden, Kind: hub.Forbidden.String(), Message: "A page of another site may not change anything here."}
	}
	ns := s.o.Namespaces.Lookup(r.Host)
	claims, err := s.authenticate(r, ns)
	if err != nil {
		return err
	}
	return handle(&call{Request: r, w: w, ns: ns, claims: claims, now: s.o.Now()})
}

func (s *Server) authenticate(r *http.Request, ns *hub.Namespace) (*auth.Claims, error) {
	if name, key, ok := r.BasicAuth(); ok {
		claims, err := s.o.Verifier.VerifyKey(ns.Name, "", name, key)
		if err == nil || r.PathValue("hub") == "" {
			return claims, err
		}
		return s.o.Verifier.VerifyKey(ns.Name, r.PathValue("hub"), name, key)
	}
	token := r.Header.Get("Authorization")
	if token == "" {
		return nil, &auth.Error{Kind: auth.Malformed, Text: "The Authorization header is missing: it holds a shared access signature, Bearer and a token, or a rule's name and key as HTTP Basic."}
	}
	return s.o.Verifier.Verify(r.Context(), ns.Name, token)
}

// may tells whether the caller has a right on a path; "" is the namespace.
func (c *call) may(right auth.Rights, path string) error { return c.claims.Check(right, path, c.now) }

// hub returns the event hub that the path names, to callers with the right.
func (c *call) hub(right auth.Rights) (*hub.EventHub, error) {
	name := c.PathValue("hub")
	if err := c.may(right, name); err != nil {
		return nil, err
	}
	return c.ns.EventHub(name)
}

// read decodes the request's body: one JSON value with known keys alone.
func (c *call) read(v any) error {
	d := json.NewDecoder(http.MaxBytesReader(c.w, c.Body, MaxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("something follows the JSON value")
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return &Error{Status: http.StatusRequestEntityTooLarge, Kind: hub.TooLarge.String(), Message: fmt.Sprintf("The request is longer than %d bytes.", MaxBody)}
	}
	if errors.Is(err, io.EOF) {
		return badRequest("The request has no body; it is to hold JSON.")
	}
	return badRequest("The request's body can't be read: " + strings.TrimPrefix(err.Error(), "json: ") + ".")
}

func (c *call) reply(status int, v any) error {
	reply(c.w, status, v)
	return nil
}

func (s *Server) status(c *call) error {
	if err := c.may(auth.Listen, ""); err != nil {
		return err
	}
	st := s.o.Status(c.Context())
	for _, ns := range s.o.Namespaces.All() {
		st.Namespaces++
		st.Connections += ns.Metrics.ActiveConnections.Load()
		for _, h := range ns.EventHubs() {
			st.Hubs++
			st.Partitions += h.Partitions()
		}
	}
	return c.reply(http.StatusOK, st)
}
