package main

import (
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// explain says what an SDK's error is about, without the wrapping that it comes
// in.
func explain(err error) error {
	var remote *amqp.Error
	if errors.As(err, &remote) && remote.Description != "" {
		return &explained{remote.Description, err}
	}
	var storage *azcore.ResponseError
	if errors.As(err, &storage) && storage.ErrorCode != "" {
		return &explained{"the Blob service answered " + storage.ErrorCode, err}
	}
	var ours *azeventhubs.Error
	if errors.As(err, &ours) {
		text := strings.TrimPrefix(ours.Error(), "("+string(ours.Code)+"): ")
		switch ours.Code {
		case azeventhubs.ErrorCodeUnauthorizedAccess:
			return &explained{"the connection string gives no access: " + text, err}
		case azeventhubs.ErrorCodeConnectionLost:
			if strings.Contains(text, string(amqp.ErrCondStolen)) { // what the SDK makes of a refusal
				return &explained{"another reader of the group, with an owner level, has the partition", err}
			}
			return &explained{"the connection was lost: " + text, err}
		case azeventhubs.ErrorCodeOwnershipLost:
			return &explained{"another reader has taken the partition", err}
		}
	}
	return err
}

// explained is an error with a shorter text.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }
