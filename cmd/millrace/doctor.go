package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check ports, disk, the cost of a sync, descriptors, the clock, and the data folder",
		Long: "Check what a broker would need of this machine: free ports, disk space, the cost of a sync, file descriptors,\n" +
			"the clock, and the state of the data folder. It reads the same flags, environment and configuration file as\n" +
			"\"millrace serve\", changes nothing, and exits with 1 if the broker would not start.",
		Args: arguments(cobra.NoArgs),
	}
	addSettings(cmd)
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := millrace.Load(millrace.Sources{Flags: givenFlags(cmd, "output"), Stderr: cmd.ErrOrStderr()})
		if err != nil {
			return err
		}
		d, err := millrace.Doctor(cmd.Context(), o)
		if err != nil {
			return err
		}
		if *out == asJSON {
			err = printJSON(cmd.OutOrStdout(), d)
		} else {
			err = printDiagnosis(cmd, d)
		}
		if err == nil && d.Worst() == millrace.Bad {
			err = errSaid
		}
		return err
	}
	return cmd
}

func printDiagnosis(cmd *cobra.Command, d *millrace.Diagnosis) error {
	marks := map[millrace.Verdict]string{millrace.Good: "ok", millrace.Warning: "WARNING", millrace.Bad: "BAD"}
	var rows [][]string
	for _, f := range d.Findings {
		rows = append(rows, []string{marks[f.Verdict], f.Subject, f.Text})
		if f.Advice != "" {
			rows = append(rows, []string{"", "", "→ " + f.Advice})
		}
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	last := map[millrace.Verdict]string{
		millrace.Good:    "All is well.",
		millrace.Warning: "A broker would run; see the warnings.",
		millrace.Bad:     "A broker would not start here like this.",
	}[d.Worst()]
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", last)
	return err
}
