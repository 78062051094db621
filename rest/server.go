package rest

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// Options configure a Server. Namespaces and Verifier are required.
type Options struct {
	Namespaces *hub.Namespaces
	Verifier   *auth.Verifier
	// Endpoint says how connection strings name a namespace: host, port and
	// whether it is the emulator's way, for the door with TLS if secure. Default:
	// the namespace's own name.
	Endpoint func(ns *hub.Namespace, secure bool) auth.ConnectionString
	// Logger is told of failures of our own. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Server answers every path of the service's HTTP interface, and with an error
// all others. It may be used by many goroutines.
type Server struct {
	o    Options
	log  *slog.Logger
	held atomic.Int64 // bytes of bodies that are being read or stored
}

// NewServer returns a server; it needs no closing.
func NewServer(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{o: o, log: o.Logger}
}

// call is one request on its way.
type call struct {
	*http.Request
	s      *Server
	w      http.ResponseWriter
	ns     *hub.Namespace
	target target
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.serve(w, r); err != nil {
		s.fail(w, r, err)
	}
}

// serve finds what a path means. The words of paths are in any case, as the
// service has them.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	seg, err := segments(r.URL)
	if err != nil {
		return err
	}
	c := &call{Request: r, s: s, w: w, ns: s.o.Namespaces.Lookup(r.Host)}
	t, ok := parseTarget(seg)
	if !ok {
		if p, ok := parseARM(seg); ok {
			s.serveARM(w, r, p)
			return nil
		}
		if res, ok := parseResource(seg); ok {
			return c.manage(res)
		}
		return &refusal{http.StatusNotFound, "There is nothing at '" + r.URL.Path + "'. Events are sent with POST to '/HUB/messages', '/HUB/partitions/ID/messages' or '/HUB/publishers/NAME/messages'."}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &refusal{http.StatusMethodNotAllowed, "The method " + r.Method + " is not allowed for '" + r.URL.Path + "': events are sent with POST, and can't be received over HTTP."}
	}
	c.target = t
	return c.send()
}

// segments are the steps of a path, decoded. One slash at its end is allowed.
func segments(u *url.URL) ([]string, error) {
	path := strings.TrimSuffix(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	seg := strings.Split(path, "/")
	for i := range seg {
		d, err := url.PathUnescape(seg[i])
		if err != nil {
			return nil, &refusal{http.StatusBadRequest, "The path is not percent-encoded correctly."}
		}
		seg[i] = d
	}
	return seg, nil
}

// verify returns what the request's token claims, where the namespace is open to
// the peer. Errors are *auth.Error, *hub.Error, or the context's.
func (c *call) verify() (*auth.Claims, error) {
	if err := c.ns.Admits(c.RemoteAddr); err != nil {
		return nil, err
	}
	token := c.Header.Get("Authorization")
	if token == "" {
		return nil, &auth.Error{Kind: auth.Malformed, Text: "MissingToken: The Authorization header is missing: it holds a shared access signature, or Bearer and a token."}
	}
	return c.s.o.Verifier.Verify(c.Context(), c.ns.Name, token)
}
