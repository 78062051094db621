// Command millrace is an event streaming broker that speaks the protocols of
// Azure Event Hubs, and the tools around it. It talks to brokers through public
// SDKs and the management interface (package admin); of the broker itself it
// knows package millrace. It must not know the insides of any server.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program, less the process around it. It returns the exit
// status.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSaid):
		return 1
	}
	fmt.Fprintf(errs, "millrace: %s\n", err)
	if usage := (*usageError)(nil); errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(errs, "See \"%s --help\".\n", cmd.CommandPath())
	}
	return 1
}

// errSaid ends a command with status 1 when everything has been said.
var errSaid = errors.New("the command failed")

// usageError is a mistake in how a command was called.
type usageError struct{ error }

// Unwrap returns the cause.
func (e *usageError) Unwrap() error { return e.error }

func misused(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// arguments makes a cobra check of the arguments answer as a usageError.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "millrace",
		Short: "An event streaming broker that speaks the protocols of Azure Event Hubs",
		Long: "Millrace is an event streaming broker that speaks the protocols of Azure Event Hubs.\n\n" +
			"Start one with \"millrace serve\"; it prints the connection strings to use.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		newServe(), newSend(), newReceive(), newReplay(), newSeek(), newCapture(), newNamespace(), newHub(), newGroup(), newPublisher(), newKey(), newAppGroup(), newFault(),
		newBench(), newDoctor(), newVerify(), newTLS(), newHealthcheck(), newVersion(),
	)
	return root
}
