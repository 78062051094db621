package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const healthTimeout = 5 * time.Second

func newHealthcheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Exit with 0 when the broker is well, for containers without a shell",
		Args:  arguments(cobra.NoArgs),
	}
	url := cmd.Flags().String("url", "", "`URL` of the broker's HTTP door (default $"+envURL+", or else where $MILLRACE_HTTP says, or port 5300 of this machine)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *url == "" {
			*url = healthURL(os.Getenv)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
		defer cancel()
		message, err := health(ctx, *url)
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), message)
		return nil
	}
	return cmd
}

// healthURL finds the door of a broker that has the same environment, as in its
// container.
func healthURL(env func(string) string) string {
	if u := env(envURL); u != "" {
		return u
	}
	host, port, err := net.SplitHostPort(env("MILLRACE_HTTP"))
	if err != nil {
		return "http://127.0.0.1:5300"
	}
	if ip := net.ParseIP(host); host == "" || strings.EqualFold(host, "localhost") || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// health asks once.
func health(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(url, "/")+"/health", nil)
	if err != nil {
		return "", fmt.Errorf("--url: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("no broker answers: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return "", fmt.Errorf("the broker does not answer: %w", err)
	}
	var answer struct{ Status, Message string }
	if json.Unmarshal(b, &answer) != nil || answer.Status == "" {
		return "", fmt.Errorf("%s is not a Millrace broker's HTTP door: it answered %s", url, resp.Status)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the broker is %s: %s", answer.Status, answer.Message)
	}
	return answer.Message, nil
}
