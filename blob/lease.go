package blob

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Lease Blob and Lease Container: PUT comp=lease with x-ms-lease-action acquire
// (201), renew, change, release (200) or break (202). A lease makes writes demand
// its id. Times: 15 to 60 s, or infinite. Source: blob.md 2.5; the service's own
// tables of lease states.

// lease is a lease once acquired; a nil one is available.
type lease struct {
	ID       string
	Duration int   // seconds, -1 for ever
	Expires  int64 `json:",omitempty"` // Unix milliseconds; 0 for never
	BreakAt  int64 `json:",omitempty"` // Unix milliseconds; 0 if it is not being broken
}

type leaseState string

const (
	leaseAvailable leaseState = "available"
	leaseLeased    leaseState = "leased"
	leaseExpired   leaseState = "expired"
	leaseBreaking  leaseState = "breaking"
	leaseBroken    leaseState = "broken"
)

func (l *lease) state(now time.Time) leaseState {
	ms := now.UnixMilli()
	switch {
	case l == nil:
		return leaseAvailable
	case l.BreakAt != 0 && ms < l.BreakAt:
		return leaseBreaking
	case l.BreakAt != 0:
		return leaseBroken
	case l.Expires != 0 && ms >= l.Expires:
		return leaseExpired
	}
	return leaseLeased
}

// active tells whether the lease still demands its id.
func (l *lease) active(now time.Time) bool {
	state := l.state(now)
	return state == leaseLeased || state == leaseBreaking
}

func (l *lease) is(id string) bool { return l != nil && sameGUID(l.ID, id) }

// setHeaders writes a lease's state, as GET and HEAD show it.
func (l *lease) setHeaders(req *request) {
	state, status := l.describe(req.now)
	req.set("x-ms-lease-state", state)
	req.set("x-ms-lease-status", status)
	if state == string(leaseLeased) {
		req.set("x-ms-lease-duration", l.kind())
	}
}

func (l *lease) describe(now time.Time) (state, status string) {
	status = "unlocked"
	if l.active(now) {
		status = "locked"
	}
	return string(l.state(now)), status
}

func (l *lease) kind() string {
	if l.Duration < 0 {
		return "infinite"
	}
	return "fixed"
}

// leaseKept is the lease that a write leaves on a blob: one that has ended goes,
// so that it can't be renewed over what has changed since.
func (r *blobRecord) leaseKept(now time.Time) *lease {
	if !r.live() || !r.Lease.active(now) {
		return nil
	}
	return r.Lease
}

// The checks of a request's x-ms-lease-id. A write needs the id of an active
// lease; a read, and most of what concerns a container, only a right one if any.

func (l *lease) checkBlobWrite(req *request) error {
	return l.check(req.leaseID(), req.now, codeLeaseIDMissing, codeLeaseNotPresentBlob, codeLeaseMismatchBlob)
}

func (l *lease) checkBlobRead(req *request) error {
	return l.check(req.leaseID(), req.now, "", codeLeaseNotPresentBlob, codeLeaseMismatchBlob)
}

func (l *lease) checkContainerDelete(req *request) error {
	return l.check(req.leaseID(), req.now, codeLeaseIDMissing, codeLeaseNotPresentCont, codeLeaseMismatchCont)
}

func (l *lease) checkContainerRead(req *request) error {
	return l.check(req.leaseID(), req.now, "", codeLeaseNotPresentCont, codeLeaseMismatchCont)
}

func (req *request) leaseID() string { return req.Header.Get("x-ms-lease-id") }

func (l *lease) check(id string, now time.Time, missing, absent, mismatch Code) error {
	switch {
	case id == "" && (missing == "" || !l.active(now)):
		return nil
	case id == "":
		return newError(missing, "There is currently a lease on the resource and no lease ID was specified in the request.")
	case l == nil:
		return newError(absent, "There is currently no lease on the resource.")
	case !l.is(id):
		return newError(mismatch, "The lease ID specified did not match the lease ID for the resource.")
	case !l.active(now):
		return newError(codeLeaseLost, "A lease ID was specified, but the lease for the resource has expired.")
	}
	return nil
}

// leaseRequest is what a lease operation asks for.
type leaseRequest struct {
	action       string
	id, proposed string
	duration     int // seconds, -1 for ever
	breakPeriod  int // seconds, -1 if not given
	now          time.Time
}

func readLeaseRequest(req *request) (q leaseRequest, err error) {
	h := req.Header
	q = leaseRequest{
		action: strings.ToLower(h.Get("x-ms-lease-action")), now: req.now,
		id: h.Get("x-ms-lease-id"), proposed: h.Get("x-ms-proposed-lease-id"), breakPeriod: -1,
	}
	bad := func(name string) error { return newError(codeInvalidHeader, "The value of %s is not valid.", name) }
	if q.id != "" && !isGUID(q.id) {
		return q, bad("x-ms-lease-id")
	}
	if q.proposed != "" && !isGUID(q.proposed) {
		return q, bad("x-ms-proposed-lease-id")
	}
	switch q.action {
	case "acquire":
		q.duration, err = strconv.Atoi(h.Get("x-ms-lease-duration"))
		if err != nil || q.duration != -1 && (q.duration < 15 || q.duration > 60) {
			return q, bad("x-ms-lease-duration")
		}
	case "renew", "release", "change":
		if q.id == "" || q.action == "change" && q.proposed == "" {
			return q, newError(codeMissingHeader, "The lease's id, or the proposed one, is missing.")
		}
	case "break":
		if text := h.Get("x-ms-lease-break-period"); text != "" {
			if q.breakPeriod, err = strconv.Atoi(text); err != nil || q.breakPeriod < 0 || q.breakPeriod > 60 {
				return q, bad("x-ms-lease-break-period")
			}
		}
	default:
		return q, bad("x-ms-lease-action")
	}
	return q, nil
}

// apply returns the lease that follows from an operation; l is not changed.
func (l *lease) apply(q leaseRequest) (*lease, error) {
	switch q.action {
	case "acquire":
		return l.acquire(q)
	case "renew":
		return l.renew(q)
	case "change":
		return l.change(q)
	case "release":
		if !l.is(q.id) {
			return nil, errLeaseMismatch(l)
		}
		return nil, nil
	}
	return l.breakUp(q)
}

func (q leaseRequest) granted(id string, duration int) *lease {
	l := &lease{ID: id, Duration: duration}
	if duration >= 0 {
		l.Expires = q.now.Add(time.Duration(duration) * time.Second).UnixMilli()
	}
	return l
}

func (l *lease) acquire(q leaseRequest) (*lease, error) {
	id := q.proposed
	if id == "" {
		id = newUUID()
	}
	switch state := l.state(q.now); {
	case state == leaseBreaking && l.is(id):
		return nil, newError(codeLeaseBreaking, "The lease is being broken and can't be acquired until it is.")
	case l.active(q.now) && !l.is(id):
		return nil, newError(codeLeaseAlreadyPresent, "There is already a lease present.")
	}
	return q.granted(id, q.duration), nil
}

func (l *lease) renew(q leaseRequest) (*lease, error) {
	switch {
	case !l.is(q.id):
		return nil, errLeaseMismatch(l)
	case l.BreakAt != 0:
		return nil, newError(codeLeaseBroken, "The lease has been broken and can't be renewed.")
	}
	return q.granted(l.ID, l.Duration), nil
}

func (l *lease) change(q leaseRequest) (*lease, error) {
	switch state := l.state(q.now); {
	case state == leaseAvailable || state == leaseExpired || state == leaseBroken:
		return nil, newError(codeLeaseNotPresent, "There is currently no lease on the resource.")
	case state == leaseBreaking:
		return nil, newError(codeLeaseBreakingChange, "The lease is being broken and can't be changed.")
	case !l.is(q.id) && !l.is(q.proposed): // the second is a retry
		return nil, errLeaseMismatch(l)
	}
	next := *l
	next.ID = q.proposed
	return &next, nil
}

// breakUp ends a lease: after the time left, or less if so asked; an infinite one
// at once, or as asked.
func (l *lease) breakUp(q leaseRequest) (*lease, error) {
	if l == nil {
		return nil, newError(codeLeaseNotPresent, "There is currently no lease on the resource.")
	}
	next := *l
	now := q.now.UnixMilli()
	var end int64
	switch l.state(q.now) {
	case leaseLeased:
		if end = l.Expires; end == 0 {
			end = now // infinite
		}
		if asked := now + int64(q.breakPeriod)*1000; q.breakPeriod >= 0 && (l.Expires == 0 || asked < end) {
			end = asked
		}
	case leaseBreaking:
		end = l.BreakAt
		if asked := now + int64(q.breakPeriod)*1000; q.breakPeriod >= 0 && asked < end {
			end = asked
		}
	default:
		end = now
	}
	next.BreakAt = max(end, 1)
	return &next, nil
}

func errLeaseMismatch(l *lease) error {
	if l == nil {
		return newError(codeLeaseMismatchLease, "There is no lease that the lease ID could match.")
	}
	return newError(codeLeaseMismatchLease, "The lease ID specified did not match the lease ID for the resource.")
}

// answer writes what a lease operation answers.
func (q leaseRequest) answer(req *request, l *lease) {
	switch q.action {
	case "acquire":
		req.set("x-ms-lease-id", l.ID)
		req.w.WriteHeader(http.StatusCreated)
	case "renew", "change":
		req.set("x-ms-lease-id", l.ID)
		req.w.WriteHeader(http.StatusOK)
	case "release":
		req.w.WriteHeader(http.StatusOK)
	case "break":
		left := max(0, l.BreakAt-q.now.UnixMilli())
		req.set("x-ms-lease-time", strconv.FormatInt((left+999)/1000, 10))
		req.w.WriteHeader(http.StatusAccepted)
	}
}

func (s *Service) leaseBlob(req *request) error {
	q, err := readLeaseRequest(req)
	if err != nil {
		return err
	}
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	_, key, err := s.find(req)
	if err != nil {
		return err
	}
	// A lease is no change of the blob: its ETag and Last-Modified stay.
	r, err := s.changeBlob(req.Context(), key, func(old *blobRecord) (*blobRecord, error) {
		if !old.live() {
			return nil, errBlobNotFound()
		}
		if err := cond.checkWrite(old.ETag, old.Modified); err != nil {
			return nil, err
		}
		next := *old
		next.Lease, err = old.Lease.apply(q)
		return &next, err
	})
	if err != nil {
		return err
	}
	req.setVersion(r.ETag, r.Modified)
	q.answer(req, r.Lease)
	return nil
}

func (s *Service) leaseContainer(req *request) error {
	q, err := readLeaseRequest(req)
	if err != nil {
		return err
	}
	cond, err := readConditions(req.Header, ownConditions)
	if err != nil {
		return err
	}
	c, err := s.changeContainer(req.Context(), req.addr.account, req.addr.container, func(c *containerRecord) error {
		if err := cond.checkWrite(c.ETag, c.Modified); err != nil {
			return err
		}
		next, err := c.Lease.apply(q)
		c.Lease = next
		return err
	})
	if err != nil {
		return err
	}
	req.setVersion(c.ETag, c.Modified)
	q.answer(req, c.Lease)
	return nil
}

// isGUID tells whether a text is a GUID in one of its usual spellings.
func isGUID(s string) bool {
	plain := plainGUID(s)
	return len(s) <= 68 && len(plain) == 32 && strings.Trim(plain, "0123456789abcdef") == ""
}

func sameGUID(a, b string) bool { return plainGUID(a) == plainGUID(b) }

func plainGUID(s string) string {
	return strings.NewReplacer("-", "", "{", "", "}", "", "(", "", ")", "").Replace(strings.ToLower(s))
}
