package auth

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode"
)

// ConnectionString is what an Event Hubs connection string says. It has either
// a key (KeyName and Key) or a ready-made Signature. It holds a secret: %v
// prints it whole, slog prints it without.
// Source: amqp.md 1.2; Azure/azure-sdk-for-go
// sdk/messaging/azeventhubs/internal/exported/connection_string_properties.go.
type ConnectionString struct {
	// Host is the namespace's host name as written, without brackets.
	Host string
	// Port is the port as written, 0 when there is none.
	Port int
	// KeyName and Key are an authorization rule's name and key text.
	KeyName, Key string
	// Signature is a shared access signature, with its leading word.
	Signature string
	// EntityPath is the hub's name, or "" for the namespace.
	EntityPath string
	// Emulator is UseDevelopmentEmulator: connect without TLS.
	Emulator bool
}

// ConnectionStringError says which part of a connection string is at fault. It
// never repeats what the string holds, since any of it may be a secret.
type ConnectionStringError struct {
	Part    string // a part's name, or its place, such as "part 2"
	Problem string
}

// Error implements error.
func (e *ConnectionStringError) Error() string {
	return "connection string: " + e.Part + " " + e.Problem
}

// The names of the parts, as Azure prints them.
const (
	partEndpoint  = "Endpoint"
	partKeyName   = "SharedAccessKeyName"
	partKey       = "SharedAccessKey"
	partSignature = "SharedAccessSignature"
	partEntity    = "EntityPath"
	partEmulator  = "UseDevelopmentEmulator"
)

var parts = []string{partEndpoint, partKeyName, partKey, partSignature, partEntity, partEmulator}

// ParseConnectionString reads a connection string: parts in any order, their
// names in any case, with or without a trailing ';' or a '/' after the host.
// Parts that we don't know (TransportType, OperationTimeout, …) are passed
// over, as the SDKs do. The error is a *ConnectionStringError.
func ParseConnectionString(s string) (ConnectionString, error) {
	values, err := splitParts(s)
	if err != nil {
		return ConnectionString{}, err
	}
	var c ConnectionString
	if err := c.readEndpoint(values[partEndpoint]); err != nil {
		return ConnectionString{}, err
	}
	c.KeyName, c.Key, c.Signature = values[partKeyName], values[partKey], values[partSignature]
	if err := c.checkSecret(); err != nil {
		return ConnectionString{}, err
	}
	c.EntityPath = strings.TrimFunc(values[partEntity], func(r rune) bool { return r == '/' || unicode.IsSpace(r) })
	switch flag := strings.ToLower(values[partEmulator]); flag {
	case "", "false":
	case "true":
		c.Emulator = true
	default:
		return ConnectionString{}, &ConnectionStringError{partEmulator, "is neither true nor false"}
	}
	return c, nil
}

// splitParts returns the known parts under their canonical names.
func splitParts(s string) (map[string]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, &ConnectionStringError{"the whole", "is empty"}
	}
	values := map[string]string{}
	n := 0
	for part := range strings.SplitSeq(s, ";") {
		n++
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, &ConnectionStringError{fmt.Sprintf("part %d", n), "has no '='"}
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		for _, known := range parts {
			if !strings.EqualFold(name, known) {
				continue
			}
			if _, twice := values[known]; twice {
				return nil, &ConnectionStringError{known, "is there twice"}
			}
			if value == "" && known != partEntity {
				return nil, &ConnectionStringError{known, "is empty"}
			}
			values[known] = value
		}
	}
	return values, nil
}

func (c *ConnectionString) readEndpoint(value string) error {
	bad := func(problem string) error { return &ConnectionStringError{partEndpoint, problem} }
	if value == "" {
		return bad("is missing")
	}
	u, err := url.Parse(value)
	if err != nil {
		return bad("is not a URL")
	}
	switch u.Scheme {
	case "sb", "amqp", "amqps", "http", "https":
	default:
		return bad("must start with sb://")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return bad("must have nothing but a host and a port; a hub belongs in " + partEntity)
	}
	if c.Host = u.Hostname(); c.Host == "" || strings.ContainsAny(c.Host, ":%[]") && net.ParseIP(c.Host) == nil {
		return bad("has no valid host")
	}
	if p := u.Port(); p != "" {
		if c.Port, err = strconv.Atoi(p); err != nil || c.Port < 1 || c.Port > 65535 {
			return bad("has a port that is not from 1 to 65535")
		}
	}
	return nil
}

func (c *ConnectionString) checkSecret() error {
	switch {
	case c.Signature != "" && (c.Key != "" || c.KeyName != ""):
		return &ConnectionStringError{partSignature, "stands beside " + partKey + "; one or the other"}
	case c.Signature != "" && !isSAS(c.Signature):
		return &ConnectionStringError{partSignature, "does not start with the word SharedAccessSignature"}
	case c.Signature != "":
		return nil
	case c.KeyName == "":
		return &ConnectionStringError{partKeyName, "is missing"}
	case c.Key == "":
		return &ConnectionStringError{partKey, "is missing"}
	}
	return nil
}

// Address is host and port joined; without a port it is the host alone, in
// brackets if it is an IPv6 address.
func (c ConnectionString) Address() string {
	if c.Port != 0 {
		return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	}
	if strings.Contains(c.Host, ":") {
		return "[" + c.Host + "]"
	}
	return c.Host
}

// String prints the connection string, secret and all, in the form that every
// SDK reads: that of the portal, or the emulator's when Emulator is set.
func (c ConnectionString) String() string { return c.print(c.Key, c.Signature) }

// LogValue prints the connection string with the secret left out.
func (c ConnectionString) LogValue() slog.Value {
	const hidden = "…"
	key, signature := c.Key, c.Signature
	if key != "" {
		key = hidden
	}
	if signature != "" {
		signature = hidden
	}
	return slog.StringValue(c.print(key, signature))
}

func (c ConnectionString) print(key, signature string) string {
	var b strings.Builder
	b.WriteString(partEndpoint + "=sb://" + c.Address())
	if !c.Emulator {
		b.WriteByte('/')
	}
	if signature != "" {
		b.WriteString(";" + partSignature + "=" + signature)
	} else {
		b.WriteString(";" + partKeyName + "=" + c.KeyName + ";" + partKey + "=" + key)
	}
	if c.EntityPath != "" {
		b.WriteString(";" + partEntity + "=" + c.EntityPath)
	}
	if c.Emulator {
		// The emulator's own documentation ends with the semicolon.
		b.WriteString(";" + partEmulator + "=true;")
	}
	return b.String()
}
