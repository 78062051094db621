package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace"
)

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check every stored byte of a data folder",
		Long: "Read every stored byte of a data folder's log and every event in it, while no broker has it open, and change\n" +
			"nothing. Damage is named by file and offset, and ends the command with 1.",
		Args: arguments(cobra.NoArgs),
	}
	data := dataFlag(cmd)
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := millrace.Verify(cmd.Context(), *data)
		if err != nil {
			return err
		}
		if *out == asJSON {
			err = printJSON(cmd.OutOrStdout(), r)
		} else {
			err = printReport(cmd, r)
		}
		if err == nil && len(r.Damage) > 0 {
			err = errSaid
		}
		return err
	}
	return cmd
}

func printReport(cmd *cobra.Command, r *millrace.VerifyReport) error {
	state := "yes"
	if r.Unclean {
		state = fmt.Sprintf("no: the next start recovers %s from the journal", count(int(r.JournalRecords), "record"))
	}
	rows := [][]string{
		{"Partitions", strconv.Itoa(r.Partitions)},
		{"Segments", strconv.Itoa(r.Segments)},
		{"Records", strconv.FormatInt(r.Records, 10)},
		{"Events", strconv.FormatInt(r.Events, 10)},
		{"Bytes", strconv.FormatInt(r.Bytes, 10)},
		{"Closed in order", state},
	}
	if r.Unfinished > 0 {
		rows = append(rows, []string{"Unfinished", fmt.Sprintf("%d bytes of writes that a crash cut, never acknowledged", r.Unfinished)})
	}
	w := cmd.OutOrStdout()
	if err := table(w, rows); err != nil {
		return err
	}
	if len(r.Damage) == 0 {
		_, err := fmt.Fprintln(w, "\nEverything is as it was written.")
		return err
	}
	fmt.Fprintf(w, "\nDAMAGED in %s:\n", count(len(r.Damage), "place"))
	for _, d := range r.Damage {
		where := d.File
		if where != "" {
			where += fmt.Sprintf(" at offset %d: ", d.Offset)
		}
		fmt.Fprintf(w, "  %s%s\n", where, d.Detail)
	}
	_, err := fmt.Fprintln(w, "Restore what is named from a backup. The partitions that it does not touch can be used as they are.")
	return err
}
