package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newAppGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app-group",
		Short: "Govern applications: limit what they send and receive, or shut them out",
		Long: "An application group is who uses one authorization rule, or one application of\n" +
			"Microsoft Entra. Its policies bound what its clients send and receive in a\n" +
			"second: senders beyond are told to come again, receivers are slowed down. A\n" +
			"disabled group's clients are cut off. The tiers premium, dedicated and\n" +
			"unlimited have application groups.",
	}
	cmd.AddCommand(newAppGroupSet(), newAppGroupList(), newAppGroupSwitch("enable", false, "Let the clients of an application group in again"),
		newAppGroupSwitch("disable", true, "Shut the clients of an application group out"), newAppGroupDelete())
	return cmd
}

func newAppGroupSet() *cobra.Command {
	var want admin.ApplicationGroup
	var limits map[string]string
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make an application group, or replace one",
		Example: "  millrace app-group set devices --client NamespaceSASKeyName=devices --limit IncomingBytes=1000000\n" +
			"  millrace app-group set reports --client AADAppID=4d1b… --limit OutgoingBytes=500000 --limit OutgoingMessages=2000",
		Args: arguments(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&want.Client, "client", "", "`WHO` is meant: NamespaceSASKeyName=RULE, EntitySASKeyName=RULE or AADAppID=ID")
	cmd.Flags().StringToStringVar(&limits, "limit", nil, "`METRIC=N` a second: IncomingBytes, OutgoingBytes, IncomingMessages or OutgoingMessages")
	cmd.Flags().BoolVar(&want.Disabled, "disabled", false, "shut its clients out")
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		want.Name, want.Policies = args[0], nil
		for metric, text := range limits {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return fmt.Errorf("--limit %s=%s: %q is not a number", metric, text, text)
			}
			want.Policies = append(want.Policies, admin.ThrottlingPolicy{Name: metric, Metric: metric, Limit: n})
		}
		slices.SortFunc(want.Policies, func(a, b admin.ThrottlingPolicy) int { return cmp.Compare(a.Name, b.Name) })
		g, err := c.PutApplicationGroup(cmd.Context(), want)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), g)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The application group %s is %s: %s.\n", g.Name, g.Client, describeAppGroup(&g))
		return nil
	})
}

// describeAppGroup says what a group's clients may do.
func describeAppGroup(g *admin.ApplicationGroup) string {
	var parts []string
	if g.Disabled {
		parts = append(parts, "disabled")
	}
	for _, p := range g.Policies {
		parts = append(parts, fmt.Sprintf("%s %d/s", p.Metric, p.Limit))
	}
	if parts == nil {
		return "no limits"
	}
	return strings.Join(parts, ", ")
}

func newAppGroupList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the application groups", Args: arguments(cobra.NoArgs)}
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		all, err := c.ApplicationGroups(cmd.Context())
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), all)
		}
		rows := [][]string{{"NAME", "CLIENT", "LIMITS"}}
		for _, g := range all {
			rows = append(rows, []string{g.Name, g.Client, describeAppGroup(&g)})
		}
		return table(cmd.OutOrStdout(), rows)
	})
}

func newAppGroupSwitch(use string, disabled bool, short string) *cobra.Command {
	cmd := &cobra.Command{Use: use + " NAME", Short: short, Args: arguments(cobra.ExactArgs(1))}
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		all, err := c.ApplicationGroups(cmd.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(g admin.ApplicationGroup) bool { return strings.EqualFold(g.Name, args[0]) })
		if i < 0 {
			return fmt.Errorf("there is no application group %q", args[0])
		}
		all[i].Disabled = disabled
		if _, err := c.PutApplicationGroup(cmd.Context(), all[i]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The application group %s is %sd.\n", all[i].Name, use)
		return nil
	})
}

func newAppGroupDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete an application group", Args: arguments(cobra.ExactArgs(1))}
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		if err := c.DeleteApplicationGroup(cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Deleted the application group %s.\n", args[0])
		return nil
	})
}
