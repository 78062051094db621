package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

// storageFlags say where checkpoints are kept.
type storageFlags struct {
	connectionString, container string
}

func (f *storageFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.connectionString, "storage-connection-string", "", "`STRING` of the storage account for checkpoints (default $"+envStorage+", or else the broker's on this machine)")
	cmd.Flags().StringVar(&f.container, "container", "checkpoints", "blob `CONTAINER` for checkpoints, made if absent")
}

// errNoStorage says that no storage account is known.
var errNoStorage = errors.New("there is nowhere to keep checkpoints: give --storage-connection-string")

// open returns the container for the checkpoints of a broker's groups. It need not
// be there.
func (f *storageFlags) open(t *target) (*container.Client, error) {
	cs := f.connectionString
	if cs == "" {
		cs = os.Getenv(envStorage)
	}
	if cs == "" && t.local() {
		cs = millrace.DevStorageConnectionString()
	}
	if cs == "" {
		return nil, errNoStorage
	}
	c, err := container.NewClientFromConnectionString(cs, f.container, nil)
	if err != nil {
		return nil, fmt.Errorf("--storage-connection-string: %w", err)
	}
	return c, nil
}

// create makes the container, unless it is there.
func (f *storageFlags) create(ctx context.Context, c *container.Client) error {
	if _, err := c.Create(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		return fmt.Errorf("the container %s can't be used for checkpoints: %w", f.container, explain(err))
	}
	return nil
}
