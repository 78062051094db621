package millrace

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func leafOf(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenAuthority(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, tlsDir, authorityFile)); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Error("the authority's key is readable", err)
	}
	if b, err := os.ReadFile(a.RootFile); err != nil || string(b) != string(a.Root) || strings.Contains(string(b), "PRIVATE") {
		t.Error("the root file does not hold the root alone", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.Root)
	cert, key, err := a.Issue([]string{"broker.lan", "192.0.2.1", "::1", "*.apps.lan"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		t.Error(err)
	}
	leaf := leafOf(t, cert)
	for _, name := range []string{"broker.lan", "192.0.2.1", "::1", "x.apps.lan"} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "other.lan", Roots: roots}); err == nil {
		t.Error("good for any name")
	}
	for _, bad := range [][]string{nil, {""}, {"a b"}, {"a..b"}, {"http://x"}, {strings.Repeat("a", 64)}} {
		if _, _, err := a.Issue(bad); err == nil {
			t.Errorf("issued for %q", bad)
		}
	}
	again, err := OpenAuthority(dir, nil)
	if err != nil || string(again.Root) != string(a.Root) {
		t.Error("another root at the second start", err)
	}
	if err := os.WriteFile(filepath.Join(dir, tlsDir, authorityFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(dir, nil); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

// TestAuthorityIsMadeOnce: whoever comes at the same time gets the same one.
func TestAuthorityIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	roots := make([]string, 8)
	for i := range roots {
		wg.Go(func() {
			a, err := OpenAuthority(dir, nil)
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = string(a.Root)
		})
	}
	wg.Wait()
	if len(slices.Compact(roots)) != 1 {
		t.Error("several authorities")
	}
}

func TestServerCertificateIsRenewed(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	a, err := OpenAuthority(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"localhost", "127.0.0.1"}
	c, err := localCertificate(a, names, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	show := func() *x509.Certificate {
		t.Helper()
		shown, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return shown.Leaf
	}
	first := show()
	if show() != first {
		t.Error("made anew for no reason")
	}
	if kept, err := a.Server(names); err != nil || !kept.Leaf.Equal(first) {
		t.Error("made anew at the next start", err)
	}
	if more, err := a.Server(append(names, "broker.lan")); err != nil || more.Leaf.Equal(first) || more.Leaf.VerifyHostname("broker.lan") != nil {
		t.Error("not made anew for another name", err)
	}
	now = first.NotAfter.Add(-leafRenew + time.Hour)
	if second := show(); second.Equal(first) || !second.NotAfter.After(first.NotAfter) {
		t.Error("not renewed near its end")
	}
	now = a.cert.NotAfter.Add(-time.Hour)
	if last := show(); last.NotAfter.After(a.cert.NotAfter) {
		t.Error("good for longer than its authority")
	}
}

func TestChangedCertificateFile(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenAuthority(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	put := func(name string, when time.Time) {
		t.Helper()
		cert, key, err := a.Issue([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string][]byte{certFile: cert, keyFile: key} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("one", time.Unix(1000, 0))
	c, err := fileCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		t.Helper()
		s, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.Leaf.DNSNames[0]
	}
	if shown() != "one" {
		t.Error(shown())
	}
	put("two", time.Unix(2000, 0))
	if shown() != "two" {
		t.Error("a changed file is not read")
	}
	if err := os.WriteFile(certFile, []byte("half a f"), 0o600); err != nil {
		t.Fatal(err)
	}
	if shown() != "two" {
		t.Error("a broken file takes the good certificate away")
	}
	put("three", time.Unix(3000, 0))
	if shown() != "three" {
		t.Error("not read once it is whole")
	}
	os.Remove(keyFile)
	if shown() != "three" {
		t.Error("gone with the file")
	}
	if _, err := fileCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), keyFile) {
		t.Error(err)
	}
}
