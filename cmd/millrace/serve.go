package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: "Run the broker until SIGINT or SIGTERM, which drain it: the doors close, appends in flight are stored.\n\n" +
			"With no arguments it works: data in ./" + millrace.DefaultData + ", every door on loopback, and an event hub\n" +
			"\"events\" with 4 partitions if there is none. Each flag has a twin in the environment, MILLRACE_ and its\n" +
			"name in capitals, and in the configuration file, a key of its name; the flag comes first, then the\n" +
			"environment, then the file.",
		Args: arguments(cobra.NoArgs),
		RunE: serve,
	}
	addSettings(cmd)
	return cmd
}

// addSettings gives a command the flags of serve.
func addSettings(cmd *cobra.Command) {
	for _, s := range millrace.Settings() {
		if s.Switch() {
			cmd.Flags().Bool(s.Name, false, s.Usage)
		} else {
			cmd.Flags().Var(&settingFlag{s.Value, s.Default}, s.Name, s.Usage)
		}
	}
	cmd.Flags().SortFlags = false
}

// settingFlag is a pflag.Value that is called in --help what it stands for.
type settingFlag struct{ kind, value string }

func (f *settingFlag) Set(s string) error { f.value = s; return nil }
func (f *settingFlag) String() string     { return f.value }
func (f *settingFlag) Type() string       { return f.kind }

// memoryLimit keeps a broker below 150 MB under any load, of which some 20 MB
// are the program's and the database's pages. It costs nothing until it is near:
// then garbage is collected more often.
const memoryLimit = 104 << 20

func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

func serve(cmd *cobra.Command, _ []string) error {
	limitMemory()
	ctx, cancel := interruptible(cmd)
	defer cancel()
	o, err := millrace.Load(millrace.Sources{Flags: givenFlags(cmd), Stderr: cmd.ErrOrStderr()})
	if err != nil {
		return err
	}
	b, err := millrace.Start(ctx, o)
	if err != nil {
		return err
	}
	if err := b.WriteBanner(cmd.OutOrStdout()); err == nil {
		fmt.Fprintln(cmd.OutOrStdout(), millrace.ReadyLine)
	}
	debug.FreeOSMemory() // what only the start needed
	dropStartPages()
	select {
	case <-b.Done():
		return b.Err()
	case <-ctx.Done():
	}
	cancel() // from now on, a second signal kills
	o.Logger.Info("stopping: connections are told goodbye, and the log is synced")
	if err := b.Close(); err != nil && !errors.Is(err, context.DeadlineExceeded) { // which was logged, and cost nothing
		return err
	}
	return nil
}

// givenFlags are the settings' flags that stand on the command line.
func givenFlags(cmd *cobra.Command, others ...string) map[string]string {
	given := map[string]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(others, f.Name) {
			given[f.Name] = f.Value.String()
		}
	})
	return given
}
