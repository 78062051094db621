package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/coder/websocket"
)

func overTLS(ctx context.Context, h *hub) (string, error) {
	config, err := trust()
	if err != nil {
		return "", err
	}
	connection := os.Getenv("MILLRACE_TLS_CONNECTION_STRING")
	// The SDK wants a port of the Endpoint in the certificate's name. What it
	// has for a port other than 5671 is a custom endpoint.
	endpoint := regexp.MustCompile(`sb://([^;/]*):(\d+)`)
	custom := endpoint.FindStringSubmatch(connection)
	if custom == nil {
		return "", fmt.Errorf("the connection string %q has no port", connection)
	}
	connection = endpoint.ReplaceAllString(connection, "sb://$1")
	options := eventhubs.ProducerClientOptions{TLSConfig: config, CustomEndpoint: custom[1] + ":" + custom[2]}
	if err := roundTrip(ctx, h, connection, options); err != nil {
		return "", err
	}
	// Without the authority there must be no connection.
	options.TLSConfig, options.RetryOptions.MaxRetries = &tls.Config{RootCAs: x509.NewCertPool()}, -1
	err = roundTrip(ctx, h, connection, options)
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		return "", fmt.Errorf("without the authority: %w", err)
	}
	return "port 5671, or another by CustomEndpoint", nil
}

func overWebSocket(ctx context.Context, h *hub) (string, error) {
	config, err := trust()
	if err != nil {
		return "", err
	}
	dials := 0
	dial := func(ctx context.Context, args eventhubs.WebSocketConnParams) (net.Conn, error) {
		dials++
		conn, _, err := websocket.Dial(ctx, args.Host, &websocket.DialOptions{
			Subprotocols: []string{"AMQPWSB10"},
			HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: config}},
		})
		if err != nil {
			return nil, err
		}
		return websocket.NetConn(context.WithoutCancel(ctx), conn, websocket.MessageBinary), nil
	}
	// The SDK dials the namespace's host, so the Endpoint names the WebSocket's.
	connection := regexp.MustCompile(`sb://[^;]*`).ReplaceAllString(os.Getenv("MILLRACE_TLS_CONNECTION_STRING"), "sb://"+os.Getenv("MILLRACE_WS_ENDPOINT"))
	if err := roundTrip(ctx, h, connection, eventhubs.ProducerClientOptions{NewWebSocketConn: dial}); err != nil {
		return "", err
	}
	if dials != 2 {
		return "", fmt.Errorf("the producer and the consumer dialled %d WebSockets", dials)
	}
	return "", nil
}

// trust is the configuration that trusts the broker's authority and no other.
func trust() (*tls.Config, error) {
	pem, err := os.ReadFile(os.Getenv("MILLRACE_CA_FILE"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the authority's file holds no certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// roundTrip sends some events, a large one among them, and receives them.
func roundTrip(ctx context.Context, h *hub, connection string, options eventhubs.ProducerClientOptions) error {
	p, err := eventhubs.NewProducerClientFromConnectionString(connection, h.name, &options)
	if err != nil {
		return err
	}
	defer p.Close(ctx)
	c, err := eventhubs.NewConsumerClientFromConnectionString(connection, h.name, eventhubs.DefaultConsumerGroup, &eventhubs.ConsumerClientOptions{
		TLSConfig: options.TLSConfig, CustomEndpoint: options.CustomEndpoint, NewWebSocketConn: options.NewWebSocketConn, RetryOptions: options.RetryOptions})
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	over := &hub{name: h.name, shared: p, reader: c}
	defer over.close()
	want := []string{"one", string(make([]byte, 500_000)), "three"}
	if err := over.send(ctx, toPartition(0), text(want[0]), text(want[1])); err != nil {
		return err
	}
	if err := over.send(ctx, toPartition(0), text(want[2])); err != nil {
		return err
	}
	events, err := over.all(ctx, 0)
	if err != nil {
		return err
	}
	return wantTexts(events, want)
}
