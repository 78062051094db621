package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newFault() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Make a running broker fail on purpose, to test an application",
		Long:  "Make a running broker fail on purpose, to see how an application takes it. The\nbroker has to have been started with --allow-faults.",
		Example: "  millrace fault busy --hub trial --for 30s\n  millrace fault delay --delay 2s --for 1m\n" +
			"  millrace fault steal --hub trial --partition 0\n  millrace fault cut",
	}
	for _, f := range []struct {
		kind, short                  string
		lasts, delays, whole, steals bool
	}{
		{admin.FaultBusy, "Refuse events for a while, as throughput units do (server-busy, 50002)", true, false, false, false},
		{admin.FaultDelay, "Acknowledge events late for a while", true, true, false, false},
		{admin.FaultSlowDisk, "Make the disk slow for a while, for the whole broker", true, true, true, false},
		{admin.FaultDetach, "Detach links, as when an event hub moves", false, false, false, false},
		{admin.FaultClose, "Close connections with a goodbye, as an upgrade does", false, false, false, false},
		{admin.FaultCut, "Cut connections without a word, as a network does", false, false, false, false},
		{admin.FaultExpireTokens, "Have the tokens of connections expire", false, false, false, false},
		{admin.FaultSteal, "Take partitions from their readers, as one with a higher epoch does", false, false, false, true},
		{admin.FaultClear, "End what lasts a while", false, false, false, false},
	} {
		cmd.AddCommand(newFaultOf(f.kind, f.short, f.lasts, f.delays, f.whole, f.steals))
	}
	return cmd
}

func newFaultOf(kind, short string, lasts, delays, whole, steals bool) *cobra.Command {
	f := admin.Fault{Kind: kind}
	var lasting, delay time.Duration
	cmd := &cobra.Command{Use: kind, Short: short, Args: arguments(cobra.NoArgs)}
	if !whole {
		cmd.Flags().StringVar(&f.Hub, "hub", "", "event `HUB` that it happens to (default: all of the namespace)")
	}
	if lasts {
		cmd.Flags().DurationVar(&lasting, "for", 30*time.Second, "how long it lasts")
	}
	if delays {
		cmd.Flags().DurationVar(&delay, "delay", time.Second, "how much later")
	}
	if steals {
		cmd.Flags().StringVar(&f.Group, "group", "$Default", "consumer `GROUP`")
		cmd.Flags().StringVar(&f.Partition, "partition", "", "`PARTITION` (default: all)")
	}
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		f.For, f.Delay = admin.Duration(lasting), admin.Duration(delay)
		n, err := c.Inject(cmd.Context(), f)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d affected.\n", kind, n)
		return nil
	})
}
