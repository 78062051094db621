package millrace

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is what the TLS doors show. It is asked at every handshake, so
// that a renewed file, or a local certificate near its end, needs no restart.
type certificate struct {
	load  func() (*tls.Certificate, error)
	stale func() bool
	log   *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
}

// open loads the certificate for the first time.
func (c *certificate) open() (err error) {
	c.current, err = c.load()
	return err
}

// get implements tls.Config.GetCertificate. What can't be renewed is shown as
// long as it lasts.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale() {
		fresh, err := c.load()
		if err != nil {
			c.log.Warn("the TLS certificate can't be read again; the one before stays", "error", err)
		} else {
			c.current = fresh
			c.log.Info("the TLS certificate has been read again", "until", fresh.Leaf.NotAfter)
		}
	}
	return c.current, nil
}

// fileCertificate serves a certificate and a key that a person keeps.
func fileCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	files := []string{certFile, keyFile}
	seen := make([]fileState, len(files))
	c := &certificate{log: log}
	c.load = func() (*tls.Certificate, error) {
		for i, f := range files {
			seen[i] = stateOf(f)
		}
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("the certificate %s with the key %s can't be used: %w", certFile, keyFile, err)
		}
		return &pair, nil
	}
	c.stale = func() bool {
		for i, f := range files {
			if now := stateOf(f); now != seen[i] && now != (fileState{}) {
				return true
			}
		}
		return false
	}
	return c, c.open()
}

// fileState tells one content of a file from the next.
type fileState struct {
	changed time.Time
	size    int64
	mode    fs.FileMode
}

func stateOf(path string) fileState {
	st, err := os.Stat(path)
	if err != nil {
		return fileState{}
	}
	return fileState{st.ModTime(), st.Size(), st.Mode()}
}

// localCertificate serves one of the local authority.
func localCertificate(a *Authority, names []string, log *slog.Logger) (*certificate, error) {
	c := &certificate{log: log}
	var retry time.Time
	c.load = func() (*tls.Certificate, error) {
		retry = a.now().Add(time.Hour)
		return a.Server(names)
	}
	c.stale = func() bool {
		now := a.now()
		return now.Add(leafRenew).After(c.current.Leaf.NotAfter) && now.After(retry)
	}
	return c, c.open()
}

// localNames are the names under which this machine's broker may be reached.
func localNames(advertise string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && validHost(host) {
		names = append(names, host)
	}
	if advertise != "" {
		names = append(names, advertise)
	}
	return names
}

// tlsConfig is the configuration of a TLS door.
func (c *certificate) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: protocols}
}
