package millrace

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner names the process that listens where addr says, as far as Linux's
// /proc tells; elsewhere, and for other users' processes, it is "".
func portOwner(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	ip := net.ParseIP(host)
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listeningSockets(table, ip, uint16(n), sockets)
	}
	if len(sockets) == 0 {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !sockets[target] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
	}
	return ""
}

// listeningSockets collects, as their descriptors' links read, the sockets of a
// table of /proc/net that listen on a port, at ip or at every address:
//
//	sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
//	 0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000   0       0 41205 …
func listeningSockets(table string, ip net.IP, port uint16, found map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	const listening = "0A"
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != listening {
			continue
		}
		local, p, ok := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(p, 16, 16); !ok || err != nil || uint16(n) != port {
			continue
		}
		if at := procIP(local); ip == nil || at == nil || at.IsUnspecified() || ip.IsUnspecified() || at.Equal(ip) {
			found["socket:["+fields[9]+"]"] = true
		}
	}
}

// procIP reads an address as the kernel prints it: 32-bit words in the
// machine's byte order, which is little endian wherever this broker runs.
func procIP(s string) net.IP {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return nil
	}
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	return net.IP(b)
}
