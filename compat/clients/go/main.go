// The client program of the Go SDK, azeventhubs: it runs the cases that it is
// asked for against the broker that its environment names, and prints a line of
// JSON for each. ../../README.md has the rules.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// caseTimeout is what a case may take before it counts as hanging.
const caseTimeout = 75 * time.Second

// skip is what a case returns that this client cannot do.
type skip string

func (s skip) Error() string { return string(s) }

// cases are the cases of the README's table. What a case returns goes into
// "detail".
var cases = map[string]func(context.Context, *hub) (string, error){
	"single":               single,
	"batch":                batch,
	"partition-id":         partitionID,
	"partition-key":        partitionKey,
	"round-robin":          roundRobin,
	"one-byte":             oneByte,
	"large":                large,
	"positions":            positions,
	"hub-properties":       hubProperties,
	"partition-properties": partitionProperties,
	"last-enqueued":        lastEnqueued,
	"bodies":               bodies,
	"properties":           properties,
	"processor":            processor,
	"takeover":             takeover,
	"checkpoint":           checkpoint,
	"seek":                 seek,
	"tls":                  overTLS,
	"websocket":            overWebSocket,
	"wrong-key":            wrongKey,
	"unknown-hub":          unknownHub,
	"unknown-group":        unknownGroup,
	"bad-partition":        badPartition,
	"listen-only-send":     listenOnlySend,
	"send-only-receive":    sendOnlyReceive,
	"sixth-receiver":       sixthReceiver,
	"owner-level":          ownerLevel,
	"too-large":            tooLarge,
	"beyond-end":           beyondEnd,
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == victimArg {
		if err := victim(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	for _, name := range os.Args[1:] {
		report(name)
	}
}

// report runs a case and prints its line.
func report(name string) {
	line := struct {
		Case   string `json:"case"`
		OK     bool   `json:"ok"`
		Detail string `json:"detail"`
		Skip   string `json:"skip,omitempty"`
	}{Case: name}
	var err error
	if run, ok := cases[name]; ok {
		line.Detail, err = attempt(run, os.Getenv("MILLRACE_HUB")+name)
	} else {
		err = errors.New("this client does not know the case")
	}
	var skipped skip
	switch {
	case err == nil:
		line.OK = true
	case errors.As(err, &skipped):
		line.Skip = string(skipped)
	default:
		line.Detail = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(line) //nolint:errcheck // nobody is left to tell
}

// attempt runs a case and takes a panic or a case that ignores its context for
// a failure, so that the others still run.
func attempt(run func(context.Context, *hub) (string, error), name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	defer cancel()
	type outcome struct {
		detail string
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if r := recover(); r != nil {
				o.err = fmt.Errorf("panic: %v", r)
			}
			done <- o
		}()
		h := &hub{name: name, connection: os.Getenv("MILLRACE_CONNECTION_STRING")}
		defer h.close()
		o.detail, o.err = run(ctx, h)
	}()
	select {
	case o := <-done:
		return o.detail, o.err
	case <-time.After(caseTimeout + 15*time.Second):
		return "", errors.New("the case hangs")
	}
}

// describe names an error as a user of the SDK tells it from others: its type,
// the SDK's code, and the AMQP condition or the status inside.
func describe(err error) string {
	out := strings.Replace(fmt.Sprintf("%T", err), "*exported.", "*azeventhubs.", 1)
	if errors.Is(err, eventhubs.ErrEventDataTooLarge) {
		out = "azeventhubs.ErrEventDataTooLarge"
	}
	var sdk *eventhubs.Error
	if errors.As(err, &sdk) {
		out += fmt.Sprintf(" Code %s", sdk.Code)
	}
	if c := condition(err); c != "" {
		out += ", " + string(c)
	}
	var rpc interface{ RPCCode() int }
	if errors.As(err, &rpc) {
		out += fmt.Sprintf(", status %d", rpc.RPCCode())
	}
	return out
}

// condition is the AMQP condition of an error, or empty.
func condition(err error) amqp.ErrCond {
	var link *amqp.LinkError
	if errors.As(err, &link) && link.RemoteErr != nil {
		return link.RemoteErr.Condition
	}
	var plain *amqp.Error
	if errors.As(err, &plain) {
		return plain.Condition
	}
	return ""
}
