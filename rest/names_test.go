package rest_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestNamesKeepTheirCase sends one request after the other on one connection, as
// clients do, with bodies of every kind between them.
func TestNamesKeepTheirCase(t *testing.T) {
	w := newWorld(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	head := "POST /trial/partitions/0/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + token("http://localhost/", "sender", "sender key") + "\r\n"
	answer := func(status int) {
		t.Helper()
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != status {
			t.Errorf("%s; want %d", resp.Status, status)
		}
	}
	spoof := "x\r\n\r\nwindALERT: 1\r\n" + strings.Repeat("y", 10_000)
	var want []string
	for i := range 3 {
		name := fmt.Sprintf("WindAlert-%d", i)
		fmt.Fprintf(c, "%s%s: a\r\nContent-Length: %d\r\n\r\n%s", head, name, len(spoof), spoof)
		answer(201)
		fmt.Fprintf(c, "%sX-%sX: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", head, name)
		answer(201)
		fmt.Fprintf(c, "%s%s: c\r\n%s: d\r\n\r\n", head, strings.ToLower(name), name)
		answer(201)
		fmt.Fprintf(c, "GET /trial/unknown HTTP/1.1\r\nHost: localhost\r\n%s: e\r\n\r\n", name)
		answer(404)
		want = append(want, name+" a", "X-"+name+"X b", strings.ToLower(name)+" c,d")
	}
	// Two that are sent without waiting: the second may lose the case of its name.
	fmt.Fprintf(c, "%sWindAlert: f\r\n\r\n%sWindAlert: g\r\n\r\n", head, head)
	answer(201)
	answer(201)
	var got []string
	for _, m := range w.stored(0) {
		for k, v := range m.ApplicationProperties {
			got = append(got, fmt.Sprint(k, " ", v))
		}
	}
	if len(got) != len(want)+2 {
		t.Fatalf("%q", got)
	}
	if !slices.Equal(got[:len(want)], want) || got[len(want)] != "WindAlert f" || !strings.EqualFold(got[len(want)+1], "WindAlert g") {
		t.Errorf("%q", got)
	}
}
