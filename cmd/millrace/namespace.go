package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newNamespace() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "namespace",
		Aliases: []string{"ns"},
		Short:   "Create, list, change and delete namespaces of a running broker",
	}
	cmd.AddCommand(newNamespaceCreate(), newNamespaceList(), newNamespaceShow(), newNamespaceUpdate(), newNamespaceDelete())
	return cmd
}

// capacityFlags are the flags of a namespace's tier and units.
type capacityFlags struct {
	tier        string
	capacity    int
	autoInflate bool
	maximum     int
}

func (f *capacityFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.tier, "tier", "", "quotas of `TIER` basic, standard, premium, dedicated or unlimited")
	cmd.Flags().IntVar(&f.capacity, "capacity", 0, "number of `UNITS`: throughput units of basic and standard, processing units of premium, capacity units of dedicated")
	cmd.Flags().BoolVar(&f.autoInflate, "auto-inflate", false, "raise the units with the load (standard)")
	cmd.Flags().IntVar(&f.maximum, "max-capacity", 0, "`UNITS` that auto-inflate goes up to")
	cmd.RegisterFlagCompletionFunc("tier", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { //nolint:errcheck // the flag is there
		return admin.Tiers(), cobra.ShellCompDirectiveNoFileComp
	})
}

// change is what the given flags ask for.
func (f *capacityFlags) change(cmd *cobra.Command) admin.NamespaceChange {
	var c admin.NamespaceChange
	if cmd.Flags().Changed("tier") {
		c.Tier = &f.tier
	}
	if cmd.Flags().Changed("capacity") {
		c.Capacity = &f.capacity
	}
	if cmd.Flags().Changed("auto-inflate") {
		c.AutoInflate = &f.autoInflate
	}
	if cmd.Flags().Changed("max-capacity") {
		c.MaximumCapacity = &f.maximum
	}
	return c
}

func newNamespaceCreate() *cobra.Command {
	var flags capacityFlags
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a namespace; clients reach it by a host of that name, or one that begins with it",
		Example: "  millrace namespace create payments --tier standard --capacity 2 --auto-inflate --max-capacity 10",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	flags.add(cmd)
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		ns, err := c.CreateNamespace(cmd.Context(), admin.NewNamespace{Name: args[0], NamespaceChange: flags.change(cmd)})
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), ns)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Created the namespace %s: %s.\n", ns.Name, capacityOf(&ns))
		return nil
	})
}

// capacityOf says what a namespace has, in words.
func capacityOf(ns *admin.Namespace) string {
	s := "tier " + ns.Tier
	if ns.Unit != "" {
		s += ", " + count(ns.Capacity, ns.Unit)
	}
	if ns.AutoInflate {
		s += fmt.Sprintf(", raised with the load up to %d", ns.MaximumCapacity)
	}
	return s
}

func newNamespaceList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the namespaces", Args: arguments(cobra.NoArgs)}
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		all, err := c.Namespaces(cmd.Context())
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), all)
		}
		rows := [][]string{{"NAME", "TIER", "CAPACITY", "HUBS", "PARTITIONS", "CONNECTIONS"}}
		for _, ns := range all {
			rows = append(rows, []string{ns.Name, ns.Tier, strconv.Itoa(ns.Capacity), strconv.Itoa(ns.Hubs), strconv.Itoa(ns.Partitions), strconv.FormatInt(ns.Connections, 10)})
		}
		return table(cmd.OutOrStdout(), rows)
	})
}

func newNamespaceShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a namespace", Args: arguments(cobra.ExactArgs(1))}
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		ns, err := c.Namespace(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), ns)
		}
		return table(cmd.OutOrStdout(), [][]string{
			{"Name", ns.Name},
			{"Capacity", capacityOf(&ns)},
			{"Event hubs", strconv.Itoa(ns.Hubs)},
			{"Partitions", strconv.Itoa(ns.Partitions)},
			{"Connections", strconv.FormatInt(ns.Connections, 10)},
			{"Throttled", strconv.FormatInt(ns.Throttled, 10) + " requests since the start"},
			{"Created", ns.Created.Format(time.RFC3339)},
			{"Updated", ns.Updated.Format(time.RFC3339)},
		})
	})
}

func newNamespaceUpdate() *cobra.Command {
	var flags capacityFlags
	cmd := &cobra.Command{
		Use:     "update NAME",
		Short:   "Change a namespace's tier and units, at once",
		Example: "  millrace namespace update payments --capacity 4\n  millrace namespace update localhost --tier standard --auto-inflate --max-capacity 10",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	flags.add(cmd)
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		change := flags.change(cmd)
		if change == (admin.NamespaceChange{}) {
			return misused("there is nothing to change; give --tier, --capacity, --auto-inflate or --max-capacity")
		}
		ns, err := c.UpdateNamespace(cmd.Context(), args[0], change)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), ns)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The namespace %s has now: %s.\n", ns.Name, capacityOf(&ns))
		return nil
	})
}

func newNamespaceDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a namespace with all its event hubs and their events", Args: arguments(cobra.ExactArgs(1))}
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		if err := c.DeleteNamespace(cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Deleted the namespace %s.\n", args[0])
		return nil
	})
}
