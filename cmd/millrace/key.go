package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Create, list, show, regenerate and delete the keys of authorization rules",
		Long: "An authorization rule has a name, rights (Listen, Send, Manage) and two keys,\n" +
			"both good. It is the namespace's, or that of one event hub (--hub).",
	}
	cmd.AddCommand(newKeyCreate(), newKeyList(), newKeyShow(), newKeyRegenerate(), newKeyDelete())
	return cmd
}

func ruleOf(cmd *cobra.Command) *string {
	return cmd.Flags().String("hub", "", "event `HUB` whose rule it is (default: the namespace)")
}

// configurationFile is where a rule stands that can be changed there alone.
const configurationFile = "the configuration file"

func printRule(cmd *cobra.Command, out output, r *admin.Rule) error {
	if out == asJSON {
		return printJSON(cmd.OutOrStdout(), r)
	}
	rows := [][]string{{"Name", r.Name}, {"Rights", r.Rights}, {"Primary key", r.Primary}, {"Secondary key", r.Secondary}}
	if r.Configured {
		rows = append(rows, []string{"Stands in", configurationFile})
	}
	return table(cmd.OutOrStdout(), rows)
}

func newKeyCreate() *cobra.Command {
	var want admin.Rule
	cmd := &cobra.Command{
		Use: "create NAME", Aliases: []string{"set"}, Short: "Make an authorization rule with two new keys, or change one's rights",
		Example: "  millrace key create ingest --rights Send\n  millrace key create billing --hub orders --rights Listen",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&want.Rights, "rights", "", "`RIGHTS` of Listen, Send and Manage, separated by commas")
	cmd.Flags().StringVar(&want.Primary, "primary", "", "a `KEY` of your own instead of a random one")
	cmd.Flags().StringVar(&want.Secondary, "secondary", "", "the other `KEY`")
	hub, out := ruleOf(cmd), addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		want.Name = args[0]
		r, err := c.PutRule(cmd.Context(), *hub, want)
		if err != nil {
			return err
		}
		return printRule(cmd, *out, &r)
	})
}

func newKeyList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the authorization rules", Args: arguments(cobra.NoArgs)}
	hub, out := ruleOf(cmd), addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		rules, err := c.Rules(cmd.Context(), *hub)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), rules)
		}
		rows := [][]string{{"NAME", "RIGHTS"}}
		for _, r := range rules {
			row := []string{r.Name, r.Rights}
			if r.Configured {
				row = append(row, "in "+configurationFile)
			}
			rows = append(rows, row)
		}
		return table(cmd.OutOrStdout(), rows)
	})
}

func newKeyShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show an authorization rule with its keys", Args: arguments(cobra.ExactArgs(1))}
	hub, out := ruleOf(cmd), addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		r, err := c.Rule(cmd.Context(), *hub, args[0])
		if err != nil {
			return err
		}
		return printRule(cmd, *out, &r)
	})
}

func newKeyRegenerate() *cobra.Command {
	var change admin.KeyChange
	cmd := &cobra.Command{
		Use: "regenerate NAME", Short: "Replace a key of an authorization rule",
		Long: "Replace a key of an authorization rule. Tokens that the old one signed are\nrefused from then on; links that were opened with them last until they expire.",
		Args: arguments(cobra.ExactArgs(1)),
	}
	cmd.Flags().StringVar(&change.Which, "which", admin.PrimaryKey, "`KEY` to replace: primary or secondary")
	cmd.Flags().StringVar(&change.Key, "key", "", "a `KEY` of your own instead of a random one")
	hub, out := ruleOf(cmd), addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		r, err := c.RegenerateKey(cmd.Context(), *hub, args[0], change)
		if err != nil {
			return err
		}
		return printRule(cmd, *out, &r)
	})
}

func newKeyDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete an authorization rule", Args: arguments(cobra.ExactArgs(1))}
	hub := ruleOf(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		if err := c.DeleteRule(cmd.Context(), *hub, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Deleted the authorization rule %s.\n", args[0])
		return nil
	})
}
