package blob

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/millrace/millrace/store"
)

// The account and the key that every storage emulator has. The key is public
// knowledge (Microsoft documents it), so it guards nothing: use it on loopback
// alone.
const (
	DevelopmentAccount = "devstoreaccount1"
	DevelopmentKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// Options configure a [Service].
type Options struct {
	// Meta holds the records, under keys that begin with "blob/". Required; it
	// stays the caller's and must outlive the service.
	Meta store.Meta
	// Dir is the folder for content above 64 KiB, made if absent. Required; no
	// other process may use it.
	Dir string
	// Accounts maps an account's name to one or two base64 keys. Required; see
	// [DevelopmentAccount].
	Accounts map[string][]string
	// MaxBodySize is the largest single Put Blob, Put Block or Append Block, in
	// bytes. Default 256 MiB. A blob of many blocks may be larger.
	MaxBodySize int64
	// BodyTimeout is how long a request's body may pause before the request is
	// given up. Default one minute; negative for ever.
	BodyTimeout time.Duration
	// StagedFor is how long a staged block waits for its Put Block List.
	// Default 7 days, as the service's.
	StagedFor time.Duration
	// SweepEvery is the pause between sweeps of what nothing refers to; the
	// first is at the start. Default one hour; negative for never.
	SweepEvery time.Duration
	// SkipDateCheck takes signed requests whose date is more than 15 minutes
	// off, for machines that sleep.
	SkipDateCheck bool
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger gets a line per request at debug level, and failures of our own at
	// error level. Default: none.
	Logger *slog.Logger
}

// Service serves Blob REST. It may be used by many goroutines. Its one own
// goroutine clears away what nothing refers to; Close ends it.
type Service struct {
	meta     store.Meta
	files    *folder
	accounts map[string][][]byte // decoded keys
	o        Options
	now      func() time.Time
	log      *slog.Logger

	ticks tickCounter
	turns turns

	cancel  context.CancelFunc
	cleaner sync.WaitGroup
	work    chan cleanJob
}

// New opens the service. The error says which option is wrong, or why the
// folder can't be used. The caller closes the service after its HTTP server.
func New(o Options) (*Service, error) {
	if o.Meta == nil || o.Dir == "" || len(o.Accounts) == 0 {
		return nil, errors.New("blob: Options.Meta, Dir and Accounts are required")
	}
	accounts, err := decodeAccounts(o.Accounts)
	if err != nil {
		return nil, err
	}
	setDefault(&o.MaxBodySize, 256<<20)
	setDefault(&o.BodyTimeout, time.Minute)
	setDefault(&o.StagedFor, 7*24*time.Hour)
	setDefault(&o.SweepEvery, time.Hour)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	files, err := openFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{
		meta: o.Meta, files: files, accounts: accounts, o: o, now: o.Now, log: o.Logger,
		cancel: cancel, work: make(chan cleanJob, 256),
	}
	if err := s.ticks.load(ctx, o.Meta); err != nil {
		cancel()
		return nil, err
	}
	s.cleaner.Go(func() { s.clean(ctx) })
	return s, nil
}

func setDefault[T int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

func decodeAccounts(given map[string][]string) (map[string][][]byte, error) {
	accounts := map[string][][]byte{}
	for name, keys := range given {
		if !validAccount(name) {
			return nil, fmt.Errorf("blob: %q is not an account name: 3 to 24 lower-case letters and digits", name)
		}
		if len(keys) < 1 || len(keys) > 2 {
			return nil, fmt.Errorf("blob: account %s has %d keys, not one or two", name, len(keys))
		}
		for i, key := range keys {
			b, err := base64.StdEncoding.DecodeString(key)
			if err != nil || len(b) == 0 {
				return nil, fmt.Errorf("blob: key %d of account %s is not base64", i+1, name)
			}
			accounts[name] = append(accounts[name], b)
		}
	}
	return accounts, nil
}

// Close stops the cleaning and waits for it. Requests in flight are the HTTP
// server's to end first.
func (s *Service) Close() error {
	s.cancel()
	s.cleaner.Wait()
	return nil
}

// ConnectionString is the storage connection string, in the long form that
// every SDK reads, for an account behind the given host and port. Hosts are
// addressed in path style, which works for names and addresses alike.
func ConnectionString(account, key, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		address = net.JoinHostPort(host, port)
	}
	return "DefaultEndpointsProtocol=http;AccountName=" + account + ";AccountKey=" + key +
		";BlobEndpoint=http://" + address + "/" + account + ";"
}

// ServeHTTP answers one request of the Blob service.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := s.newRequest(w, r)
	began := time.Now()
	s.expectBody(req)
	err := s.serve(req)
	if err != nil {
		err = s.writeError(req, err)
	}
	s.logRequest(req, err, time.Since(began))
}

// serve routes, authorizes and runs a request. Nothing has been written when it
// returns an error.
func (s *Service) serve(req *request) error {
	if err := req.read(s); err != nil {
		return err
	}
	if req.Method == http.MethodOptions {
		return s.preflight(req)
	}
	op, err := route(req)
	if err != nil {
		return err
	}
	req.op = op
	if err := s.authorize(req); err != nil {
		return err
	}
	if req.addr.secondary && op.write {
		return newError(codeReadOnly, "The secondary endpoint takes no write operations.")
	}
	s.allowOrigin(req)
	return op.run(s, req)
}

func (s *Service) logRequest(req *request, err error, took time.Duration) {
	level, code := slog.LevelDebug, ""
	var e *Error
	if errors.As(err, &e) {
		code = string(e.Code)
		if e.Status >= 500 && e.Status != http.StatusNotImplemented {
			level = slog.LevelError
		}
	}
	if !s.log.Enabled(req.Context(), level) {
		return
	}
	// The query may hold a signature; the path holds names alone.
	attrs := []slog.Attr{
		slog.String("method", req.Method), slog.String("path", req.addr.rawPath),
		slog.String("comp", req.query.get("comp")), slog.String("id", req.id), slog.Duration("took", took),
	}
	if err != nil {
		attrs = append(attrs, slog.String("code", code), slog.Any("error", err))
	}
	s.log.LogAttrs(req.Context(), level, "blob request", attrs...)
}

func validAccount(name string) bool {
	return len(name) >= 3 && len(name) <= 24 &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
