package millrace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// address is a parsed door address.
type address struct {
	off       bool
	localhost bool // 127.0.0.1 and ::1
	host      string
	port      int
}

// parseDoor reads a door's address.
func parseDoor(d Door, s string) (address, error) {
	a, err := parseAddress(s)
	if err == nil && !a.off && (d == Kafka || d == Kafkas) {
		err = errors.New("this version of Millrace has no Kafka door yet; the flag takes only \"off\"")
	}
	return a, err
}

func parseAddress(s string) (address, error) {
	if strings.EqualFold(s, "off") {
		return address{off: true}, nil
	}
	bad := fmt.Errorf("%q is not an address: give HOST:PORT, :PORT for every interface, localhost:PORT, or off; port 0 takes a free one", s)
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, bad
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strings.ContainsAny(host, " /") {
		return address{}, bad
	}
	return address{localhost: strings.EqualFold(host, "localhost"), host: host, port: int(n)}, nil
}

func isIP(host string) bool { return net.ParseIP(host) != nil }

// DoorError says why a door can't be opened.
type DoorError struct {
	Door    Door
	Address string
	// Owner is who has the port, as "process 12 (redis-server)"; "" if that is
	// not known, or not the reason.
	Owner string
	// Taken says that another program listens there.
	Taken bool
	Err   error
}

// Error says what to do.
func (e *DoorError) Error() string {
	if !e.Taken {
		return fmt.Sprintf("the %s door can't be opened at %s: %v; choose another address with --%s HOST:PORT, or close the door with --%s off", e.Door, e.Address, e.Err, e.Door, e.Door)
	}
	owner := "another program"
	if e.Owner != "" {
		owner = e.Owner
	}
	return fmt.Sprintf("the %s door can't be opened: %s is taken by %s; stop that program, choose another address with --%s HOST:PORT (port 0 takes a free one), or close the door with --%s off", e.Door, e.Address, owner, e.Door, e.Door)
}

// Unwrap returns the cause.
func (e *DoorError) Unwrap() error { return e.Err }

// door is an open one: its listeners are on the same port.
type door struct {
	name      Door
	listeners []net.Listener
}

// freePortTries is how often a port that is free on 127.0.0.1 may turn out to
// be taken on ::1.
const freePortTries = 32

// openDoor listens, on both loopback addresses if that is what a is.
func openDoor(ctx context.Context, d Door, a address) (*door, error) {
	if !a.localhost {
		ln, err := listen(ctx, d, "tcp", net.JoinHostPort(a.host, strconv.Itoa(a.port)))
		if err != nil {
			return nil, err
		}
		return &door{d, []net.Listener{ln}}, nil
	}
	var taken error
	for range freePortTries {
		four, err := listen(ctx, d, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(a.port)))
		if err != nil {
			return nil, err
		}
		six, err := listen(ctx, d, "tcp6", net.JoinHostPort("::1", strconv.Itoa(portOf(four))))
		if err == nil {
			return &door{d, []net.Listener{four, six}}, nil
		}
		if failure := (*DoorError)(nil); !errors.As(err, &failure) || !failure.Taken {
			return &door{d, []net.Listener{four}}, nil // a machine without IPv6
		}
		taken = err
		four.Close()
		if a.port != 0 {
			break
		}
	}
	return nil, taken
}

func listen(ctx context.Context, d Door, network, addr string) (net.Listener, error) {
	var c net.ListenConfig
	ln, err := c.Listen(ctx, network, addr)
	if err == nil {
		return ln, nil
	}
	e := &DoorError{Door: d, Address: addr, Err: err, Taken: errors.Is(err, errAddressInUse)}
	if e.Taken {
		e.Owner = portOwner(addr)
	} else if op := (*net.OpError)(nil); errors.As(err, &op) {
		e.Err = op.Err // the address is said already
	}
	return nil, e
}

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

// port is the port of all the door's listeners.
func (d *door) port() int { return portOf(d.listeners[0]) }

// loopback tells whether nobody beyond this machine can come in.
func (d *door) loopback() bool {
	for _, ln := range d.listeners {
		if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
			return false
		}
	}
	return true
}

// addr is where a program on this machine reaches the door.
func (d *door) addr() string {
	ip := d.listeners[0].Addr().(*net.TCPAddr).IP
	if ip.IsUnspecified() {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(d.port()))
}

// host is what clients are told to connect to.
func (d *door) host(a address, advertise string) string {
	ip := d.listeners[0].Addr().(*net.TCPAddr).IP
	switch {
	case advertise != "":
		return advertise
	case a.localhost || ip.IsUnspecified():
		return "localhost"
	}
	return ip.String()
}

func (d *door) close() {
	for _, ln := range d.listeners {
		ln.Close()
	}
}
