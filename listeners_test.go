package millrace

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		in   string
		want address
	}{
		{"off", address{off: true}},
		{"OFF", address{off: true}},
		{"localhost:5672", address{localhost: true, host: "localhost", port: 5672}},
		{"LocalHost:0", address{localhost: true, host: "LocalHost"}},
		{":5672", address{port: 5672}},
		{"0.0.0.0:65535", address{host: "0.0.0.0", port: 65535}},
		{"[::1]:1", address{host: "::1", port: 1}},
		{"broker.example:5672", address{host: "broker.example", port: 5672}},
	} {
		if a, err := parseAddress(c.in); err != nil || a != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.in, a, err, c.want)
		}
	}
	for _, bad := range []string{"", "5672", "localhost", "localhost:", "localhost:65536", "localhost:-1", "localhost:amqp", "::1:5672", "a b:1", "http://x:1", "on"} {
		if a, err := parseAddress(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, a)
		} else if !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%q: the error does not repeat it: %v", bad, err)
		}
	}
	if _, err := parseDoor(Kafka, "localhost:9092"); err == nil || !strings.Contains(err.Error(), "no Kafka door yet") {
		t.Error(err)
	}
	if a, err := parseDoor(Kafkas, "off"); err != nil || !a.off {
		t.Error(a, err)
	}
}

func TestLocalhostIsBothAddresses(t *testing.T) {
	d, err := openDoor(t.Context(), AMQP, address{localhost: true, host: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if !d.loopback() || d.port() == 0 || d.addr() != "127.0.0.1:"+strconv.Itoa(d.port()) {
		t.Errorf("%v %d %s", d.loopback(), d.port(), d.addr())
	}
	if probe, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		probe.Close()
		if len(d.listeners) != 2 || portOf(d.listeners[1]) != d.port() {
			t.Errorf("%d listeners", len(d.listeners))
		}
	}
}

func TestTakenPort(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		host := map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"}[network]
		ln, err := net.Listen(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Logf("no %s here: %v", network, err)
			continue
		}
		defer ln.Close()
		_, err = openDoor(t.Context(), Blob, address{localhost: true, host: "localhost", port: portOf(ln)})
		var e *DoorError
		if !errors.As(err, &e) || !e.Taken || e.Door != Blob {
			t.Fatalf("%v", err)
		}
		for _, want := range []string{"blob door", ln.Addr().String() + " is taken", "--blob"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error does not say %q: %v", want, err)
			}
		}
		if runtime.GOOS == "linux" && !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
			t.Errorf("the error does not name this process: %v", err)
		}
	}
}

func TestUnusableAddress(t *testing.T) {
	_, err := openDoor(t.Context(), HTTP, address{host: "192.0.2.1", port: 0}) // documentation's address, nobody's
	var e *DoorError
	if !errors.As(err, &e) || e.Taken || !strings.Contains(err.Error(), "--http") {
		t.Errorf("%v", err)
	}
}

func TestProcIP(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F":                         "127.0.0.1",
		"00000000":                         "0.0.0.0",
		"00000000000000000000000001000000": "::1",
		"0000000000000000FFFF00000100007F": "127.0.0.1",
	} {
		if ip := procIP(in); ip.String() != want {
			t.Errorf("%s: %s; want %s", in, ip, want)
		}
	}
	if procIP("xyz") != nil || procIP("00") != nil {
		t.Error("nonsense is an address")
	}
}

// fakeListener stands for a door that is open at some address.
type fakeListener struct {
	net.Listener
	at string
}

func (f fakeListener) Addr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", f.at)
	if err != nil {
		panic(err)
	}
	return a
}

func TestDoorHosts(t *testing.T) {
	for _, c := range []struct {
		at, listen, advertise string
		host, addr            string
		loopback              bool
	}{
		{"127.0.0.1:5672", "localhost:5672", "", "localhost", "127.0.0.1:5672", true},
		{"127.0.0.1:5672", "127.0.0.1:5672", "", "127.0.0.1", "127.0.0.1:5672", true},
		{"[::1]:5672", "[::1]:5672", "", "::1", "[::1]:5672", true},
		{"[::]:5672", ":5672", "", "localhost", "127.0.0.1:5672", false},
		{"0.0.0.0:5672", "0.0.0.0:5672", "broker.lan", "broker.lan", "127.0.0.1:5672", false},
		{"192.0.2.7:5672", "192.0.2.7:5672", "", "192.0.2.7", "192.0.2.7:5672", false},
	} {
		a, err := parseAddress(c.listen)
		if err != nil {
			t.Fatal(err)
		}
		d := &door{AMQP, []net.Listener{fakeListener{at: c.at}}}
		if d.host(a, c.advertise) != c.host || d.addr() != c.addr || d.loopback() != c.loopback {
			t.Errorf("%s: %s %s %v", c.at, d.host(a, c.advertise), d.addr(), d.loopback())
		}
	}
}
