package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/admin"
	"github.com/millrace/millrace/auth"
)

// The environment's variables that clients read.
const (
	envConnectionString = "EVENTHUB_CONNECTION_STRING"
	envStorage          = "AZURE_STORAGE_CONNECTION_STRING"
	envURL              = "MILLRACE_URL"
)

// defaultHub is the hub that is meant when neither a flag nor the connection
// string names one: a new broker's first.
const defaultHub = "events"

// brokerFlags are those of every command that talks to a broker.
type brokerFlags struct {
	connectionString, url, ca string
}

func (f *brokerFlags) add(cmd *cobra.Command, manage bool) {
	cmd.Flags().StringVar(&f.connectionString, "connection-string", "", "`STRING` of the namespace or event hub, the cloud's too (default $"+envConnectionString+", or else a broker on this machine)")
	cmd.Flags().StringVar(&f.ca, "ca", "", "`FILE` with the root certificate to trust, in PEM, such as \"millrace tls ca\" prints")
	if manage {
		cmd.Flags().StringVar(&f.url, "url", "", "`URL` of the broker's HTTP door (default $"+envURL+", or else port 5300 of the connection string's host)")
	}
}

// target is the broker that a command talks to.
type target struct {
	text string // the connection string
	cs   auth.ConnectionString
	tls  *tls.Config // nil: the system's trust
	url  string
}

func (f *brokerFlags) target() (*target, error) {
	t := &target{text: f.connectionString}
	from := "--connection-string"
	if t.text == "" {
		t.text, from = os.Getenv(envConnectionString), "$"+envConnectionString
	}
	if t.text == "" {
		t.text = millrace.DevConnectionString()
	}
	var err error
	if t.cs, err = auth.ParseConnectionString(t.text); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	if f.ca != "" {
		roots := x509.NewCertPool()
		b, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		if !roots.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("--ca: %s holds no certificate in PEM", f.ca)
		}
		// The SDK would take host and port for the name.
		t.tls = &tls.Config{RootCAs: roots, ServerName: t.cs.Host, MinVersion: tls.VersionTLS12}
	}
	if t.url = f.url; t.url == "" {
		t.url = os.Getenv(envURL)
	}
	if t.url == "" {
		scheme, port := "https", "5443"
		if t.cs.Emulator || t.local() {
			scheme, port = "http", "5300"
		}
		t.url = scheme + "://" + net.JoinHostPort(t.cs.Host, port)
	}
	return t, nil
}

// local tells whether the broker is on this machine.
func (t *target) local() bool {
	ip := net.ParseIP(t.cs.Host)
	return strings.EqualFold(t.cs.Host, "localhost") || ip != nil && ip.IsLoopback()
}

// hub decides between --hub and the connection string.
func (t *target) hub(flag string) (string, error) {
	switch {
	case t.cs.EntityPath == "" && flag == "":
		return defaultHub, nil
	case t.cs.EntityPath == "":
		return flag, nil
	case flag != "" && !strings.EqualFold(flag, t.cs.EntityPath):
		return "", misused("--hub names %s and the connection string is for %s alone", flag, t.cs.EntityPath)
	}
	return t.cs.EntityPath, nil
}

// namespace is the namespace's name as the SDK has it, and so checkpoints: the
// endpoint's host, with the port if there is one.
func (t *target) namespace() (string, error) {
	p, err := azeventhubs.ParseConnectionString(t.text)
	return p.FullyQualifiedNamespace, err
}

// forSDK is the hub's name as the SDK wants it: not twice.
func (t *target) forSDK(hub string) string {
	if t.cs.EntityPath != "" {
		return ""
	}
	return hub
}

// amqp is where the broker speaks AMQP, and the scheme of its URL.
func (t *target) amqp() (scheme, address string) {
	scheme, port := "amqps", 5671
	if t.cs.Emulator {
		scheme, port = "amqp", 5672
	}
	if t.cs.Port != 0 {
		port = t.cs.Port
	}
	return scheme, net.JoinHostPort(t.cs.Host, strconv.Itoa(port))
}

// dialTimeout is how long a broker may take to answer the first knock.
const dialTimeout = 10 * time.Second

// reach knocks before the SDK does, whose retries would take minutes to say that
// nobody is there.
func (t *target) reach(ctx context.Context) error {
	_, address := t.amqp()
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		advice := "check the connection string"
		if t.local() {
			advice = "start a broker with \"millrace serve\", or give another --connection-string"
		}
		return fmt.Errorf("no broker answers: %w; %s", err, advice)
	}
	return c.Close()
}

// retries are shorter than the SDK's own, whose first pause is four seconds.
var retries = azeventhubs.RetryOptions{MaxRetries: 5, RetryDelay: 250 * time.Millisecond, MaxRetryDelay: 5 * time.Second}

const applicationID = "millrace"

func (t *target) producer(hub string) (*azeventhubs.ProducerClient, error) {
	return azeventhubs.NewProducerClientFromConnectionString(t.text, t.forSDK(hub), &azeventhubs.ProducerClientOptions{
		ApplicationID: applicationID, TLSConfig: t.tls, RetryOptions: retries,
	})
}

func (t *target) consumer(hub, group, name string) (*azeventhubs.ConsumerClient, error) {
	return azeventhubs.NewConsumerClientFromConnectionString(t.text, t.forSDK(hub), group, &azeventhubs.ConsumerClientOptions{
		ApplicationID: applicationID, TLSConfig: t.tls, RetryOptions: retries, InstanceID: name,
	})
}

// inspector is a consumer that only looks events up. It gives up early: where others
// read with an owner level it is refused for as long as they do, which the SDK takes
// for a lost connection.
func (t *target) inspector(hub, group string) (*azeventhubs.ConsumerClient, error) {
	once := retries
	once.MaxRetries = 1
	return azeventhubs.NewConsumerClientFromConnectionString(t.text, t.forSDK(hub), group, &azeventhubs.ConsumerClientOptions{
		ApplicationID: applicationID, TLSConfig: t.tls, RetryOptions: once,
	})
}

// admin returns a client of the management interface.
func (t *target) admin() (*admin.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if t.tls != nil {
		transport.TLSClientConfig = t.tls.Clone()
		transport.TLSClientConfig.ServerName = "" // the URL says
	}
	return admin.NewClient(t.url, t.cs, &http.Client{Timeout: 30 * time.Second, Transport: transport})
}

// openHub finds out which broker and which of its event hubs the flags mean, and
// knocks.
func (f *brokerFlags) openHub(ctx context.Context, flag string) (t *target, hub string, err error) {
	if t, err = f.target(); err != nil {
		return nil, "", err
	}
	if hub, err = t.hub(flag); err != nil {
		return nil, "", err
	}
	return t, hub, t.reach(ctx)
}

// interruptible is the command's context, which Ctrl-C ends too.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// closing bounds the goodbye to a broker that may be gone.
func closing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*time.Second)
}

// goodbye closes one of the SDK's clients. What was sent is acknowledged by then, or
// has failed, and what was received is printed: there is nothing left to lose.
func goodbye(c interface{ Close(context.Context) error }) {
	bye, cancel := closing()
	defer cancel()
	c.Close(bye) //nolint:errcheck // see above
}
