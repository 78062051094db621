package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	eventhubs "github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// refusal is what one operation must end with.
type refusal struct {
	operation string
	err       error
	code      eventhubs.ErrorCode // of azeventhubs.Error, which hides what it wraps; empty: another type
	condition amqp.ErrCond        // the error's, or of the one that azeventhubs.Error tells only in its text
	status    int                 // of a management or token reply, instead of a condition
	text      string              // that the message must hold
}

// refusals checks each and describes them.
func refusals(all ...refusal) (string, error) {
	var out []string
	for _, r := range all {
		if r.err == nil {
			return "", fmt.Errorf("%s: it succeeded", r.operation)
		}
		if !r.met() {
			return "", fmt.Errorf("%s: %s: %w", r.operation, describe(r.err), r.err)
		}
		out = append(out, r.operation+": "+describe(r.err))
	}
	return strings.Join(out, "; "), nil
}

func (r refusal) met() bool {
	message := r.err.Error()
	if !strings.Contains(message, r.text) {
		return false
	}
	var sdk *eventhubs.Error
	if errors.As(r.err, &sdk) {
		return sdk.Code == r.code &&
			(r.condition == "" || strings.Contains(message, fmt.Sprintf("Condition: %s,", r.condition))) &&
			(r.status == 0 || strings.Contains(message, fmt.Sprintf("status code %d ", r.status)))
	}
	status := 0
	var rpc interface{ RPCCode() int }
	if errors.As(r.err, &rpc) {
		status = rpc.RPCCode()
	}
	return r.code == "" && condition(r.err) == r.condition && status == r.status
}

// try sends to and receives from a partition, and returns both errors.
func try(ctx context.Context, h *hub, partition string) (sending, receiving, properties error) {
	sending = h.send(ctx, &target{PartitionID: &partition}, text("x"))
	return sending, read(ctx, h, partition, from(earliest)), ask(ctx, h, partition)
}

// read opens a receiver and waits for one event.
func read(ctx context.Context, h *hub, partition string, options *eventhubs.PartitionClientOptions) error {
	r, err := h.open(partition, options)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	return one(ctx, r)
}

// one waits for an event, and returns the SDK's error as it is.
func one(ctx context.Context, r *eventhubs.PartitionClient) error {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	_, err := r.ReceiveEvents(ctx, 1, nil)
	return err
}

func ask(ctx context.Context, h *hub, partition string) error {
	c, err := h.consumer()
	if err != nil {
		return err
	}
	_, err = c.GetPartitionProperties(ctx, partition, nil)
	return err
}

func wrongKey(ctx context.Context, h *hub) (string, error) {
	h.connection = regexp.MustCompile(`SharedAccessKey=[^;]*`).ReplaceAllString(h.connection, "SharedAccessKey=wrong")
	s, r, p := try(ctx, h, "0")
	const code = eventhubs.ErrorCodeUnauthorizedAccess
	return refusals(refusal{operation: "send", err: s, code: code, status: 401, text: "InvalidSignature"},
		refusal{operation: "receive", err: r, code: code, status: 401, text: "InvalidSignature"},
		refusal{operation: "properties", err: p, status: 401, text: "InvalidSignature"})
}

func unknownHub(ctx context.Context, h *hub) (string, error) {
	h.name += "-absent"
	s, r, p := try(ctx, h, "0")
	const text = "could not be found"
	return refusals(refusal{operation: "send", err: s, status: 404, text: text},
		refusal{operation: "receive", err: r, status: 404, text: text},
		refusal{operation: "properties", err: p, status: 404, text: text})
}

func unknownGroup(ctx context.Context, h *hub) (string, error) {
	c, err := h.newConsumer("absent")
	if err != nil {
		return "", err
	}
	h.reader = c
	err = read(ctx, h, "0", from(earliest))
	r := refusal{operation: "receive", err: err, text: "could not be found"}
	if condition(err) == amqp.ErrCondNotFound {
		r.condition = amqp.ErrCondNotFound
	} else {
		r.status = 404 // refused with the token already
	}
	return refusals(r)
}

func badPartition(ctx context.Context, h *hub) (string, error) {
	h.retry = eventhubs.RetryOptions{MaxRetries: -1} // the SDK tries again after a management reply of 400
	s, r, p := try(ctx, h, "99")
	const condition, text = "com.microsoft:argument-out-of-range", "The specified partition is invalid"
	return refusals(refusal{operation: "send", err: s, condition: condition, text: text},
		refusal{operation: "receive", err: r, condition: condition, text: text},
		refusal{operation: "properties", err: p, code: eventhubs.ErrorCodeConnectionLost, status: 400, text: text})
}

func listenOnlySend(ctx context.Context, h *hub) (string, error) {
	h.connection = os.Getenv("MILLRACE_LISTEN_CONNECTION_STRING")
	if err := ask(ctx, h, "0"); err != nil {
		return "", fmt.Errorf("properties: %w", err)
	}
	return refusals(refusal{operation: "send", err: h.send(ctx, toPartition(0), text("x")), code: eventhubs.ErrorCodeUnauthorizedAccess, condition: amqp.ErrCondUnauthorizedAccess,
		text: "Unauthorized access. 'Send' claim(s) are required to perform this operation."})
}

func sendOnlyReceive(ctx context.Context, h *hub) (string, error) {
	h.connection = os.Getenv("MILLRACE_SEND_CONNECTION_STRING")
	s, r, p := try(ctx, h, "0")
	if err := errors.Join(s, p); err != nil {
		return "", err
	}
	return refusals(refusal{operation: "receive", err: r, code: eventhubs.ErrorCodeUnauthorizedAccess, condition: amqp.ErrCondUnauthorizedAccess,
		text: "Unauthorized access. 'Listen' claim(s) are required to perform this operation."})
}

func sixthReceiver(ctx context.Context, h *hub) (string, error) {
	if err := h.send(ctx, toPartition(0), text("x")); err != nil {
		return "", err
	}
	var receivers []*eventhubs.PartitionClient
	for range 5 {
		r, err := h.open("0", from(earliest))
		if err != nil {
			return "", err
		}
		if _, err := next(ctx, r, 1); err != nil {
			return "", err
		}
		receivers = append(receivers, r)
	}
	detail, err := refusals(refusal{operation: "receive", err: read(ctx, h, "0", from(earliest)), condition: amqp.ErrCondResourceLimitExceeded,
		text: "Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5"})
	if err != nil {
		return "", err
	}
	// A place that comes free can be taken.
	if err := receivers[2].Close(ctx); err != nil {
		return "", err
	}
	return detail, read(ctx, h, "0", from(earliest))
}

func ownerLevel(ctx context.Context, h *hub) (string, error) {
	h.retry = eventhubs.RetryOptions{MaxRetries: -1}
	if err := h.send(ctx, toPartition(0), text("x")); err != nil {
		return "", err
	}
	at := func(level int64) *eventhubs.PartitionClientOptions {
		return &eventhubs.PartitionClientOptions{StartPosition: earliest, OwnerLevel: &level}
	}
	var owners []*eventhubs.PartitionClient
	for _, options := range []*eventhubs.PartitionClientOptions{from(earliest), at(1), at(2)} {
		r, err := h.open("0", options)
		if err != nil {
			return "", err
		}
		if _, err := next(ctx, r, 1); err != nil {
			return "", err
		}
		owners = append(owners, r)
	}
	const stolen = amqp.ErrCond("amqp:link:stolen")
	detail, err := refusals(
		refusal{operation: "loser", err: one(ctx, owners[1]), code: eventhubs.ErrorCodeOwnershipLost, condition: stolen, text: "with higher epoch of '2' is created"},
		refusal{operation: "loser without level", err: one(ctx, owners[0]), code: eventhubs.ErrorCodeOwnershipLost, condition: stolen, text: "with higher epoch of '1' is created"},
		refusal{operation: "lower level", err: read(ctx, h, "0", at(1)), code: eventhubs.ErrorCodeConnectionLost, condition: stolen,
			text: "Make sure you are creating receiver with increasing epoch value"},
		refusal{operation: "no level", err: read(ctx, h, "0", from(earliest)), code: eventhubs.ErrorCodeConnectionLost, condition: stolen,
			text: "At least one receiver for the endpoint is created with epoch of '2'"})
	if err != nil {
		return "", err
	}
	// The owner keeps the partition all the while.
	if err := h.send(ctx, toPartition(0), text("y")); err != nil {
		return "", err
	}
	got, err := next(ctx, owners[2], 1)
	if err != nil {
		return "", fmt.Errorf("the owner: %w", err)
	}
	return detail, wantTexts(got, []string{"y"})
}

func tooLarge(ctx context.Context, h *hub) (string, error) {
	// The client holds the limit that the broker announces.
	err := h.send(ctx, toPartition(0), &eventhubs.EventData{Body: make([]byte, 1<<20)})
	if !errors.Is(err, eventhubs.ErrEventDataTooLarge) {
		return "", fmt.Errorf("1 MiB: %w", err)
	}
	if err := h.send(ctx, toPartition(0), &eventhubs.EventData{Body: make([]byte, 1<<20-512)}); err != nil {
		return "", fmt.Errorf("512 bytes less than 1 MiB: %w", err)
	}
	return describe(err) + ", from the client", nil
}

func beyondEnd(ctx context.Context, h *hub) (string, error) {
	h.retry = eventhubs.RetryOptions{MaxRetries: 1, RetryDelay: 50 * time.Millisecond}
	if err := h.send(ctx, toPartition(0), text("0"), text("1"), text("2")); err != nil {
		return "", err
	}
	// The SDK takes the condition for a lost connection and tries again.
	const code, condition = eventhubs.ErrorCodeConnectionLost, "com.microsoft:argument-error"
	return refusals(
		refusal{operation: "offset", err: read(ctx, h, "0", from(eventhubs.StartPosition{Offset: new("1000")})), code: code, condition: condition,
			text: "The supplied offset '1000' is invalid. The last offset in the system is '2'"},
		refusal{operation: "sequence number", err: read(ctx, h, "0", from(eventhubs.StartPosition{SequenceNumber: to.Ptr[int64](1000)})), code: code, condition: condition,
			text: "The supplied sequence number '1000' is invalid. The last sequence number in the system is '2'"})
}
