package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "group",
		Short: "Create, list and delete consumer groups of a running broker",
	}
	cmd.AddCommand(newGroupCreate(), newGroupList(), newGroupDelete())
	return cmd
}

// inHub gives a command the flag --hub, and takes the hub as first argument as
// well: names is how many arguments follow it.
func inHub(cmd *cobra.Command, names int, do func(cmd *cobra.Command, c *admin.Client, hub string, args []string) error) *cobra.Command {
	var flag string
	cmd.Flags().StringVar(&flag, "hub", "", "event `HUB` (default "+defaultHub+", or the connection string's)")
	cmd.Args = arguments(cobra.RangeArgs(names, names+1))
	var flags brokerFlags
	flags.add(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := flags.target()
		if err != nil {
			return err
		}
		if len(args) > names {
			if flag != "" {
				return misused("the event hub is named twice: %s and --hub %s", args[0], flag)
			}
			flag, args = args[0], args[1:]
		}
		hub, err := t.hub(flag)
		if err != nil {
			return err
		}
		c, err := t.admin()
		if err != nil {
			return err
		}
		return do(cmd, c, hub, args)
	}
	return cmd
}

func newGroupCreate() *cobra.Command {
	cmd := &cobra.Command{Use: "create [HUB] NAME", Short: "Create a consumer group", Example: "  millrace group create audit --hub trial"}
	out := addOutput(cmd)
	return inHub(cmd, 1, func(cmd *cobra.Command, c *admin.Client, hub string, args []string) error {
		g, err := c.CreateGroup(cmd.Context(), hub, args[0])
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), g)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Created the consumer group %s of the event hub %s.\n", g.Name, hub)
		return nil
	})
}

func newGroupList() *cobra.Command {
	cmd := &cobra.Command{Use: "list [HUB]", Aliases: []string{"ls"}, Short: "List the consumer groups of an event hub"}
	out := addOutput(cmd)
	return inHub(cmd, 0, func(cmd *cobra.Command, c *admin.Client, hub string, _ []string) error {
		groups, err := c.Groups(cmd.Context(), hub)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), groups)
		}
		rows := [][]string{{"NAME", "CREATED"}}
		for _, g := range groups {
			rows = append(rows, []string{g.Name, g.Created.Format(time.RFC3339)})
		}
		return table(cmd.OutOrStdout(), rows)
	})
}

func newGroupDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete [HUB] NAME", Aliases: []string{"rm"}, Short: "Delete a consumer group"}
	return inHub(cmd, 1, func(cmd *cobra.Command, c *admin.Client, hub string, args []string) error {
		if err := c.DeleteGroup(cmd.Context(), hub, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Deleted the consumer group %s of the event hub %s.\n", args[0], hub)
		return nil
	})
}
