package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newPublisher() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publisher",
		Short: "Revoke and restore publishers of an event hub, and list those revoked",
		Long: "A publisher sends to HUB/Publishers/NAME, with a token for that path, and its\n" +
			"name is the partition key of its events. It need not be made. One that is\n" +
			"revoked is cut off at once on every door, until it is restored.",
	}
	list := &cobra.Command{Use: "list HUB", Aliases: []string{"ls"}, Short: "List the revoked publishers", Args: arguments(cobra.ExactArgs(1))}
	out := addOutput(list)
	cmd.AddCommand(
		manage(list, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			names, err := c.RevokedPublishers(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if *out == asJSON {
				return printJSON(cmd.OutOrStdout(), names)
			}
			for _, name := range names {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return nil
		}),
		manage(&cobra.Command{Use: "revoke HUB NAME", Short: "Keep a publisher from sending", Args: arguments(cobra.ExactArgs(2))},
			func(cmd *cobra.Command, c *admin.Client, args []string) error {
				if err := c.RevokePublisher(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "The publisher %s may no longer send to the event hub %s.\n", args[1], args[0])
				return nil
			}),
		manage(&cobra.Command{Use: "restore HUB NAME", Short: "Let a revoked publisher send again", Args: arguments(cobra.ExactArgs(2))},
			func(cmd *cobra.Command, c *admin.Client, args []string) error {
				if err := c.RestorePublisher(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "The publisher %s may send to the event hub %s again.\n", args[1], args[0])
				return nil
			}),
	)
	return cmd
}
