package blob

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// sasFields are the parameters that a shared access signature may have. None of
// them may be repeated.
var sasFields = []string{
	"sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr", "si", "sig", "ses",
	"rscc", "rscd", "rsce", "rscl", "rsct",
	"skoid", "sktid", "skt", "ske", "sks", "skv",
}

// authorizeSAS checks an account's or a service's shared access signature.
// Source: blob.md 2.3.
func (s *Service) authorizeSAS(req *request) error {
	createOnly, err := s.checkSAS(req, req.query, req.addr, req.op)
	req.bySAS, req.createOnly = true, createOnly
	return err
}

// checkSAS checks the signature in a query for an operation on an address.
// createOnly tells that it may create blobs, and not replace them.
func (s *Service) checkSAS(req *request, q query, a address, op *operation) (createOnly bool, err error) {
	seen := map[string]bool{}
	for _, p := range q {
		if slices.Contains(sasFields, p.name) && seen[p.name] {
			return false, errAuthFailed("The signature's " + p.name + " is there twice.")
		}
		seen[p.name] = true
	}
	if seen["skoid"] {
		return false, errAuthFailed("User delegation signatures are not offered here.")
	}
	version := q.get("sv")
	if _, err := time.Parse(time.DateOnly, version); err != nil || version < "2015-04-05" {
		return false, errAuthFailed("The signature's sv is not a version from 2015-04-05 on.")
	}
	signature, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(q.get("sig"), " ", "+"))
	if err != nil {
		return false, errAuthFailed("The signature is not base64.")
	}
	account := seen["ss"] || seen["srt"]
	if !account && (q.get("sr") != "c" && (q.get("sr") != "b" || a.blob == "")) {
		return false, errAuthFailed("The signature's sr is neither c, nor b with a blob addressed.")
	}
	good := false
	for _, literal := range []bool{false, true} {
		text := serviceSASText(q, a, version, literal)
		if account {
			text = accountSASText(q, a.account, version, literal)
		}
		good = good || s.signedBy(a.account, text, signature)
	}
	if !good {
		return false, errAuthFailed("Signature did not match.")
	}
	return s.checkSASTerms(req, q, a, op, account)
}

// field reads a parameter for signing, in one of the two readings of a plus.
func (q query) field(name string, literal bool) string {
	for _, p := range q {
		if p.name == name {
			if literal {
				return p.literal
			}
			return p.value
		}
	}
	return ""
}

func accountSASText(q query, account, version string, literal bool) string {
	lines := []string{account}
	names := []string{"sp", "ss", "srt", "st", "se", "sip", "spr", "sv"}
	if version >= "2020-12-06" {
		names = append(names, "ses")
	}
	for _, name := range names {
		lines = append(lines, q.field(name, literal))
	}
	return strings.Join(lines, "\n") + "\n"
}

func serviceSASText(q query, a address, version string, literal bool) string {
	f := func(names ...string) (lines []string) {
		for _, name := range names {
			lines = append(lines, q.field(name, literal))
		}
		return lines
	}
	lines := f("sp", "st", "se")
	lines = append(lines, a.canonicalName(q.get("sr") == "b"))
	lines = append(lines, f("si", "sip", "spr", "sv")...)
	if version >= "2018-11-09" {
		lines = append(lines, q.field("sr", literal), "") // no snapshots
	}
	if version >= "2020-12-06" {
		lines = append(lines, f("ses")...)
	}
	lines = append(lines, f("rscc", "rscd", "rsce", "rscl", "rsct")...)
	return strings.Join(lines, "\n")
}

// sasTerms is what a signature says of itself, or its stored policy for it.
type sasTerms struct{ start, expiry, permission string }

func (s *Service) checkSASTerms(req *request, q query, a address, op *operation, account bool) (createOnly bool, err error) {
	t := sasTerms{q.get("st"), q.get("se"), q.get("sp")}
	if id := q.get("si"); id != "" && !account {
		if err := s.applyPolicy(req, a, id, &t); err != nil {
			return false, err
		}
	}
	if err := t.checkTime(req.now); err != nil {
		return false, err
	}
	if spr := q.get("spr"); spr != "" && req.TLS == nil && !slices.Contains(strings.Split(spr, ","), "http") {
		return false, newError(codeProtocol, "This request is not authorized to perform this operation using this protocol.")
	}
	if !fromAllowed(q.get("sip"), req.RemoteAddr) {
		return false, newError(codeSourceIP, "This request is not authorized to perform this operation using this source IP %s.", req.RemoteAddr)
	}
	if account {
		if !strings.Contains(q.get("ss"), "b") {
			return false, newError(codeSAService, "This request is not authorized to perform this operation using this service.")
		}
		if !strings.ContainsRune(q.get("srt"), rune(op.resource)) {
			return false, newError(codeResourceType, "This request is not authorized to perform this operation using this resource type.")
		}
	} else if op.resource != 'o' && !op.list {
		return false, errPermission()
	}
	if !strings.ContainsAny(t.permission, op.permissions) {
		return false, errPermission()
	}
	createOnly = strings.Contains(op.permissions, "c") && !strings.Contains(t.permission, "w")
	return createOnly, nil
}

func errPermission() *Error {
	return newError(codePermission, "This request is not authorized to perform this operation using this permission.")
}

// applyPolicy fills in what a stored access policy says. What it says, the
// signature must not say again.
func (s *Service) applyPolicy(req *request, a address, id string, t *sasTerms) error {
	c, _, err := s.getContainer(req.Context(), a.account, a.container)
	if err != nil {
		if e := storageError("", err); e.Code != ContainerNotFound {
			return e
		}
		return errAuthFailed("There is no container with such a policy.")
	}
	for _, p := range c.Policies {
		if p.ID != id {
			continue
		}
		for _, f := range []struct {
			own    *string
			policy string
		}{{&t.start, p.Start}, {&t.expiry, p.Expiry}, {&t.permission, p.Permission}} {
			if *f.own != "" && f.policy != "" {
				return errAuthFailed("The signature and its stored access policy say the same thing twice.")
			}
			*f.own += f.policy
		}
		return nil
	}
	return errAuthFailed("There is no stored access policy of that name.")
}

func (t sasTerms) checkTime(now time.Time) error {
	if t.start != "" {
		start, ok := parseSASTime(t.start)
		if !ok {
			return errAuthFailed("The signature's st is not a date.")
		}
		if now.Before(start) {
			return errAuthFailed("Signature not valid in the specified time frame: it starts at " + t.start + ".")
		}
	}
	expiry, ok := parseSASTime(t.expiry)
	if !ok {
		return errAuthFailed("The signature's se is not a date.")
	}
	if now.After(expiry) {
		return errAuthFailed("Signature not valid in the specified time frame: it expired at " + t.expiry + ".")
	}
	return nil
}

// parseSASTime reads the forms of ISO 8601 that signatures use; fractions of
// seconds are accepted.
func parseSASTime(s string) (time.Time, bool) {
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04Z07:00", time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// fromAllowed tells whether a client's address is in a signature's sip: one
// address, or two with a dash between; empty for all.
func fromAllowed(sip, remote string) bool {
	if sip == "" {
		return true
	}
	client, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	low, high, isRange := strings.Cut(sip, "-")
	if !isRange {
		high = low
	}
	from, err1 := netip.ParseAddr(strings.TrimSpace(low))
	to, err2 := netip.ParseAddr(strings.TrimSpace(high))
	at := client.Addr().Unmap().WithZone("")
	return err1 == nil && err2 == nil && from.Unmap().Compare(at) <= 0 && at.Compare(to.Unmap()) <= 0
}
