package blob

import (
	"testing"
	"time"
)

const (
	lease1 = "11111111-1111-1111-1111-111111111111"
	lease2 = "22222222-2222-2222-2222-222222222222"
)

// lease performs a lease operation, on a container if target has a query.
func (b *bench) lease(target, action string, headers ...string) *answer {
	b.t.Helper()
	return b.do("PUT", target+"comp=lease", "", append([]string{"x-ms-lease-action", action}, headers...)...)
}

func TestLeaseStates(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	put := b.put(c+"/x", "abc").must(201)
	for _, target := range []string{c + "/x?", c + "?restype=container&"} {
		at := func(state, status string) {
			t.Helper()
			a := b.do("HEAD", target, "").must(200)
			if a.get("x-ms-lease-state") != state || a.get("x-ms-lease-status") != status {
				t.Errorf("%s: %s, %s, want %s, %s", target, a.get("x-ms-lease-state"), a.get("x-ms-lease-status"), state, status)
			}
		}
		acquire := func(id, duration string) *answer {
			return b.lease(target, "acquire", "x-ms-lease-duration", duration, "x-ms-proposed-lease-id", id)
		}
		own := func(action, id string, more ...string) *answer {
			return b.lease(target, action, append([]string{"x-ms-lease-id", id}, more...)...)
		}
		at("available", "unlocked")
		own("renew", lease1).want(409, codeLeaseMismatchLease)
		own("release", lease1).want(409, codeLeaseMismatchLease)
		b.lease(target, "break").want(409, codeLeaseNotPresent)
		own("change", lease1, "x-ms-proposed-lease-id", lease2).want(409, codeLeaseNotPresent)

		if a := acquire(lease1, "15").want(201, ""); a.get("x-ms-lease-id") != lease1 {
			t.Errorf("lease id %q", a.get("x-ms-lease-id"))
		}
		at("leased", "locked")
		acquire(lease2, "15").want(409, codeLeaseAlreadyPresent)
		acquire(lease1, "20").want(201, "") // one's own, with another time
		own("renew", lease2).want(409, codeLeaseMismatchLease)
		b.clock.move(19 * time.Second)
		own("renew", lease1).want(200, "")
		b.clock.move(20 * time.Second)
		at("expired", "unlocked")
		own("renew", lease1).want(200, "") // nothing has changed meanwhile
		own("change", lease1, "x-ms-proposed-lease-id", lease2).want(200, "")
		own("change", lease1, "x-ms-proposed-lease-id", lease2).want(200, "") // a retry
		own("release", lease1).want(409, codeLeaseMismatchLease)
		own("release", lease2).want(200, "")
		at("available", "unlocked")

		acquire(lease1, "-1").want(201, "")
		b.clock.move(1000 * time.Hour)
		at("leased", "locked")
		if a := b.lease(target, "break", "x-ms-lease-break-period", "10").want(202, ""); a.get("x-ms-lease-time") != "10" {
			t.Errorf("lease time %q", a.get("x-ms-lease-time"))
		}
		at("breaking", "locked")
		acquire(lease1, "15").want(409, codeLeaseBreaking)
		acquire(lease2, "15").want(409, codeLeaseAlreadyPresent)
		own("renew", lease1).want(409, codeLeaseBroken)
		own("change", lease1, "x-ms-proposed-lease-id", lease2).want(409, codeLeaseBreakingChange)
		b.clock.move(4 * time.Second)
		if a := b.lease(target, "break", "x-ms-lease-break-period", "60").want(202, ""); a.get("x-ms-lease-time") != "6" {
			t.Errorf("breaking again for longer: %q", a.get("x-ms-lease-time"))
		}
		if a := b.lease(target, "break", "x-ms-lease-break-period", "0").want(202, ""); a.get("x-ms-lease-time") != "0" {
			t.Errorf("breaking at once: %q", a.get("x-ms-lease-time"))
		}
		at("broken", "unlocked")
		own("renew", lease1).want(409, codeLeaseBroken)
		b.lease(target, "break").want(202, "")
		acquire(lease2, "60").want(201, "")
		if a := b.lease(target, "break").want(202, ""); a.get("x-ms-lease-time") != "60" { // what is left of it
			t.Errorf("breaking a fixed one: %q", a.get("x-ms-lease-time"))
		}
		own("release", lease2).want(200, "")

		if a := b.lease(target, "acquire", "x-ms-lease-duration", "15").want(201, ""); !isGUID(a.get("x-ms-lease-id")) {
			t.Errorf("an id of our own: %q", a.get("x-ms-lease-id"))
		}
		b.lease(target, "break", "x-ms-lease-break-period", "0").want(202, "")
		for _, bad := range [][]string{
			{"acquire"}, {"acquire", "x-ms-lease-duration", "14"}, {"acquire", "x-ms-lease-duration", "61"}, {"acquire", "x-ms-lease-duration", "15", "x-ms-proposed-lease-id", "me"},
			{"steal"}, {"renew", "x-ms-lease-id", "me"}, {"break", "x-ms-lease-break-period", "61"},
		} {
			b.lease(target, bad[0], bad[1:]...).want(400, codeInvalidHeader)
		}
		b.lease(target, "renew").want(400, codeMissingHeader)
		b.lease(target, "change", "x-ms-lease-id", lease1).want(400, codeMissingHeader)
	}
	if a := b.do("HEAD", c+"/x", ""); a.get("ETag") != put.get("ETag") || a.get("Last-Modified") != put.get("Last-Modified") {
		t.Error("a lease has changed the blob's ETag")
	}
	b.lease(c+"/none?", "acquire", "x-ms-lease-duration", "15").want(404, BlobNotFound)
	b.lease("/none?restype=container&", "acquire", "x-ms-lease-duration", "15").want(404, ContainerNotFound)
	b.lease(c+"/x?", "acquire", "x-ms-lease-duration", "15", "If-Match", `"0x0"`).want(412, ConditionNotMet)
}

func TestLeaseGuardsWrites(t *testing.T) {
	b := newBench(t)
	c := b.container("con")
	x := c + "/x"
	b.put(x, "abc").must(201)
	b.put(c+"/source", "s").must(201)
	b.stage(x, 1, "one").must(201)
	b.lease(x+"?", "acquire", "x-ms-lease-duration", "15", "x-ms-proposed-lease-id", lease1).must(201)
	writes := map[string]func(headers ...string) *answer{
		"put":        func(h ...string) *answer { return b.put(x, "new", h...) },
		"metadata":   func(h ...string) *answer { return b.do("PUT", x+"?comp=metadata", "", h...) },
		"properties": func(h ...string) *answer { return b.do("PUT", x+"?comp=properties", "", h...) },
		"block":      func(h ...string) *answer { return b.stage(x, 2, "two", h...) },
		"list":       func(h ...string) *answer { return b.commit(x, nil, h...) },
		"copy": func(h ...string) *answer {
			return b.do("PUT", x, "", append(h, "x-ms-copy-source", "http://127.0.0.1:10000/devstoreaccount1/con/source")...)
		},
		"delete": func(h ...string) *answer { return b.do("DELETE", x, "", h...) },
	}
	for name, write := range writes {
		write().want(412, codeLeaseIDMissing)
		write("x-ms-lease-id", lease2).want(412, codeLeaseMismatchBlob)
		if name == "delete" {
			continue
		}
		if a := write("x-ms-lease-id", lease1); a.status >= 300 {
			t.Errorf("%s with the lease: %d %s", name, a.status, a.code())
		}
		if a := b.do("HEAD", x, "").must(200); a.get("x-ms-lease-state") != "leased" || a.get("x-ms-lease-duration") != "fixed" {
			t.Errorf("%s has taken the lease away", name)
		}
	}
	b.do("GET", x, "").want(200, "")
	b.do("GET", x, "", "x-ms-lease-id", lease1).want(200, "")
	b.do("GET", x, "", "x-ms-lease-id", lease2).want(412, codeLeaseMismatchBlob)
	b.do("GET", c+"/source", "", "x-ms-lease-id", lease2).want(412, codeLeaseNotPresentBlob)
	if err := b.Remove(t.Context(), testAccount, "con", "x"); err == nil {
		t.Error("the direct way passes the lease by")
	}

	b.clock.move(15 * time.Second)
	b.do("PUT", x+"?comp=metadata", "", "x-ms-lease-id", lease1).want(412, codeLeaseLost)
	b.do("PUT", x+"?comp=metadata", "").want(200, "") // takes the expired lease away
	b.lease(x+"?", "renew", "x-ms-lease-id", lease1).want(409, codeLeaseMismatchLease)
	b.lease(x+"?", "acquire", "x-ms-lease-duration", "-1", "x-ms-proposed-lease-id", lease2).want(201, "")
	b.do("DELETE", x, "", "x-ms-lease-id", lease2).want(202, "")
	b.put(x, "", "x-ms-lease-id", lease2).want(412, codeLeaseNotPresentBlob)

	k := c + "?restype=container"
	b.lease(k+"&", "acquire", "x-ms-lease-duration", "-1", "x-ms-proposed-lease-id", lease1).want(201, "")
	b.do("GET", k, "", "x-ms-lease-id", lease2).want(412, codeLeaseMismatchCont)
	b.put(x, "blobs are not covered").want(201, "")
	b.do("DELETE", k, "").want(412, codeLeaseIDMissing)
	b.do("DELETE", k, "", "x-ms-lease-id", lease1).want(202, "")
}
