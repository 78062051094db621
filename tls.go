package millrace

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Authority is the local certificate authority: an ECDSA P-256 key and a root
// certificate in a data folder, made when they are first needed. Clients that
// trust its root trust this broker's TLS doors, and nothing else does. It may be
// used by many goroutines.
type Authority struct {
	// Root is the root certificate in PEM, for clients' trust stores.
	Root []byte
	// RootFile is where it lies.
	RootFile string

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	now  func() time.Time
}

// Files below the data folder.
const (
	tlsDir        = "tls"
	authorityFile = "authority.pem" // key and certificate together, so that they can't part
	rootFile      = "ca.pem"
	leafFile      = "server.pem" // the broker's own certificate and key
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// leafLife stays below the 398 days beyond which some clients refuse.
	leafLife = 397 * 24 * time.Hour
	// leafRenew is how long before its end a certificate is made anew.
	leafRenew = 30 * 24 * time.Hour
	// backdate allows for clients' clocks that are behind.
	backdate = time.Hour
)

// OpenAuthority returns the authority of a data folder, making it, and the
// folder, if there is none. now is the clock; nil means time.Now.
func OpenAuthority(data string, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	a := &Authority{dir: filepath.Join(data, tlsDir), now: now}
	a.RootFile = filepath.Join(a.dir, rootFile)
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the folder for certificates can't be made: %w", err)
	}
	path := filepath.Join(a.dir, authorityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = a.create(path); err != nil {
			return nil, fmt.Errorf("the certificate authority can't be made: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("the certificate authority can't be read: %w", err)
	}
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore it from a backup, or delete it to have a new authority made, which clients then have to trust anew", path, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of a kind that Millrace doesn't make", path)
	}
	a.cert, a.key = pair.Leaf, key
	a.Root = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if have, err := os.ReadFile(a.RootFile); err != nil || !bytes.Equal(have, a.Root) {
		if err := writeFile(a.RootFile, a.Root, 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// create makes key and root, and leaves alone what another process made first.
func (a *Authority) create(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	now := a.now()
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{Organization: []string{"Millrace"}, CommonName: "Millrace local authority on " + host},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	b, err := encodePair(key, der)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(a.dir, ".authority-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, authorityFile)
	if err := writeFile(made, b, 0o600); err != nil {
		return nil, err
	}
	if err := os.Link(made, path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links: the last one wins.
		if err := os.Rename(made, path); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(path)
}

func serialNumber() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n.Add(n, big.NewInt(1))
}

func encodePair(key *ecdsa.PrivateKey, chain ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return out, nil
}

// Issue signs a server's certificate for names and IP addresses, good for 397
// days, and returns it, followed by the root, and its key, each in PEM.
func (a *Authority) Issue(names []string) (cert, key []byte, err error) {
	if len(names) == 0 {
		return nil, nil, errors.New("a certificate needs at least one name or address")
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := a.now()
	t := &x509.Certificate{
		SerialNumber: serialNumber(),
		Subject:      pkix.Name{Organization: []string{"Millrace"}, CommonName: names[0]},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(t.Subject.CommonName) > 64 { // X.520's limit; the names below are what counts
		t.Subject.CommonName = "Millrace"
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		if !validHost(name) {
			return nil, nil, fmt.Errorf("%q is neither a host name nor an address", name)
		}
		t.DNSNames = append(t.DNSNames, name)
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &k.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	both, err := encodePair(k, der)
	if err != nil {
		return nil, nil, err
	}
	block, rest := pem.Decode(both)
	return append(rest, a.Root...), pem.EncodeToMemory(block), nil
}

// validHost takes what may stand in a certificate: labels of letters, digits,
// hyphens and underscores, the first perhaps a star.
func validHost(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// Server returns the broker's own certificate, made anew when it is near its
// end, of another authority, or without one of the names.
func (a *Authority) Server(names []string) (*tls.Certificate, error) {
	path := filepath.Join(a.dir, leafFile)
	if b, err := os.ReadFile(path); err == nil {
		if c, err := tls.X509KeyPair(b, b); err == nil && a.good(c.Leaf, names) {
			return &c, nil
		}
	}
	cert, key, err := a.Issue(names)
	if err != nil {
		return nil, err
	}
	b := append(key, cert...)
	if err := writeFile(path, b, 0o600); err != nil {
		return nil, fmt.Errorf("the certificate can't be stored: %w", err)
	}
	c, err := tls.X509KeyPair(b, b)
	return &c, err
}

func (a *Authority) good(leaf *x509.Certificate, names []string) bool {
	if leaf.CheckSignatureFrom(a.cert) != nil || a.now().Add(leafRenew).After(leaf.NotAfter) {
		return false
	}
	for _, name := range names {
		covered := slices.Contains(leaf.DNSNames, name)
		if ip := net.ParseIP(name); ip != nil {
			covered = slices.ContainsFunc(leaf.IPAddresses, ip.Equal)
		}
		if !covered {
			return false
		}
	}
	return true
}
