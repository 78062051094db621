package compat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestReplayElsewhere captures a hub's events to other people's servers, and reads
// them from there with the commands: listed, printed, and sent again to a hub that is
// captured there too.
func TestReplayElsewhere(t *testing.T) {
	t.Run("Azurite", func(t *testing.T) {
		const account, key = "capture", "Y2FwdHVyZSBzZWNyZXQga2V5"
		address := freeAddress(t)
		host, port, _ := net.SplitHostPort(address)
		loadClient(t, "azurite/client.json").serve(t, address,
			[]string{"--blobHost", host, "--blobPort", port, "--location", t.TempDir(), "--silent", "--disableTelemetry", "--skipApiVersionCheck"},
			[]string{"AZURITE_ACCOUNTS=" + account + ":" + key})
		storage := fmt.Sprintf("DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=http://%s/%[1]s;", account, key, address)
		replayElsewhere(t, fmt.Sprintf("kind: azure, connection-string: %q", storage), "blob://events", "AZURE_STORAGE_CONNECTION_STRING="+storage)
	})
	t.Run("S3", func(t *testing.T) {
		const access, secret = "captureaccess", "capturesecret/key+1"
		address := freeAddress(t)
		loadClient(t, "versitygw/client.json").serve(t, address, []string{"--port", address, "--quiet", "posix", t.TempDir()},
			[]string{"ROOT_ACCESS_KEY=" + access, "ROOT_SECRET_KEY=" + secret})
		replayElsewhere(t, fmt.Sprintf("kind: s3, endpoint: %q, region: us-east-1, access-key: %q, secret-key: %q", "http://"+address, access, secret), "s3://events",
			"AWS_ENDPOINT_URL=http://"+address, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID="+access, "AWS_SECRET_ACCESS_KEY="+secret)
	})
}

func replayElsewhere(t *testing.T, destination, location string, env ...string) {
	const events = 300
	b := StartWith(t, "capture-destinations:\n  - {name: elsewhere, "+destination+", container: events}\n")
	env = append(env, "EVENTHUB_CONNECTION_STRING="+b.ConnectionString, "MILLRACE_URL=http://"+b.HTTP)
	millrace := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), Binary(t), args...)
		cmd.Env = append(os.Environ(), env...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("millrace %q: %v\n%s%s", args, err, out.String(), errs.String())
		}
		return out.String()
	}
	// captured turns the capture of a hub off, and returns what the files then have.
	captured := func(hub string) string {
		t.Helper()
		millrace("hub", "update", hub, "--capture=off")
		for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			var listing struct {
				Events   int
				Problems []any
			}
			if err := json.Unmarshal([]byte(millrace("capture", "ls", location, "--event-hub", hub, "--check", "-o", "json")), &listing); err != nil {
				t.Fatal(err)
			}
			if listing.Events == events {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d events of %s are in files", listing.Events, events, hub)
			}
		}
		millrace("capture", "ls", location, "--event-hub", hub, "--details") // every byte
		return millrace("capture", "cat", location+"/localhost/"+hub, "--format", "{{.Partition}} {{.Sequence}} {{.MessageID}} {{json .Properties}} {{.Body}}")
	}
	for hub, format := range map[string]string{"orders": "AvroDeflate", "again": "Parquet"} {
		millrace("hub", "create", hub, "--partitions", "3", "--capture", "--capture-to", "elsewhere", "--capture-format", format)
	}
	millrace("send", "--hub", "orders", "--count", fmt.Sprint(events), "--property", "kind=sample", "-q")
	want := captured("orders")
	millrace("replay", "--from-capture", location, "--event-hub", "orders", "--hub", "again", "-q")
	if got := captured("again"); got != want || strings.Count(got, "\n") != events {
		t.Errorf("%d events of %d are the same in the end", strings.Count(got, "\n"), events)
	}
}
