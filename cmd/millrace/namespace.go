package main

import (
	"fmt"
	"strconv"
	"strings"
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
	cmd.AddCommand(newNamespaceCreate(), newNamespaceList(), newNamespaceShow(), newNamespaceUpdate(), newNamespaceDelete(), newNamespacePlan())
	return cmd
}

// capacityFlags are the flags of a namespace's tier and units.
type capacityFlags struct {
	tier        string
	capacity    int
	autoInflate bool
	maximum     int
	allowIPs    []string
	noLocalAuth bool
}

func (f *capacityFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.tier, "tier", "", "quotas of `TIER` basic, standard, premium, dedicated or unlimited")
	cmd.Flags().IntVar(&f.capacity, "capacity", 0, "number of `UNITS`: throughput units of basic and standard, processing units of premium, capacity units of dedicated")
	cmd.Flags().BoolVar(&f.autoInflate, "auto-inflate", false, "raise the units with the load (standard)")
	cmd.Flags().IntVar(&f.maximum, "max-capacity", 0, "`UNITS` that auto-inflate goes up to")
	cmd.Flags().StringSliceVar(&f.allowIPs, "allow-ips", nil, "`ADDRESSES` and ranges from which alone clients may connect, such as 10.0.0.0/8,192.0.2.7; empty for all")
	cmd.Flags().BoolVar(&f.noLocalAuth, "disable-local-auth", false, "refuse keys and shared access signatures, and take Entra tokens alone")
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
	if cmd.Flags().Changed("allow-ips") {
		c.AllowedIPs = &f.allowIPs
	}
	if cmd.Flags().Changed("disable-local-auth") {
		c.DisableLocalAuth = &f.noLocalAuth
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
		from := "every address"
		if len(ns.AllowedIPs) > 0 {
			from = strings.Join(ns.AllowedIPs, ", ")
		}
		localAuth := "enabled"
		if ns.DisableLocalAuth {
			localAuth = "disabled: keys and shared access signatures are refused"
		}
		return table(cmd.OutOrStdout(), [][]string{
			{"Name", ns.Name},
			{"Capacity", capacityOf(&ns)},
			{"Open to", from},
			{"Local authentication", localAuth},
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
		Short:   "Change a namespace's tier and units, and who may connect, at once",
		Example: "  millrace namespace update payments --capacity 4\n  millrace namespace update localhost --tier standard --auto-inflate --max-capacity 10\n  millrace namespace update payments --disable-local-auth=true",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	flags.add(cmd)
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		change := flags.change(cmd)
		if change == (admin.NamespaceChange{}) {
			return misused("there is nothing to change; give --tier, --capacity, --auto-inflate, --max-capacity, --allow-ips or --disable-local-auth")
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

func newNamespacePlan() *cobra.Command {
	var since time.Duration
	var capacity int
	var all bool
	cmd := &cobra.Command{
		Use:   "plan NAME",
		Short: "Say which tier and how many units a namespace would have needed in Azure",
		Long: "Say, by the load of each minute that the broker has recorded and by the hubs that\n" +
			"there are, which tier and how many units the namespace would have needed in Azure,\n" +
			"and in which minutes it would have been throttled.",
		Example: "  millrace namespace plan localhost --since 24h\n  millrace namespace plan payments --capacity 2 --all",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	cmd.Flags().DurationVar(&since, "since", 7*24*time.Hour, "how far to look back; 31 days are kept")
	cmd.Flags().IntVar(&capacity, "capacity", 0, "throughput `UNITS` to compare with (default: those that the namespace has)")
	cmd.Flags().BoolVar(&all, "all", false, "list every minute, not only those that would have been throttled")
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		p, err := c.Plan(cmd.Context(), args[0], time.Now().Add(-since), capacity)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), p)
		}
		return printPlan(cmd, &p, all)
	})
}

func printPlan(cmd *cobra.Command, p *admin.Plan, all bool) error {
	w := cmd.OutOrStdout()
	needs := "tier " + p.Tier
	if p.Unit != "" {
		needs += ", " + count(p.Capacity, p.Unit)
	}
	fmt.Fprintf(w, "Since %s there was traffic in %s; the busiest second needed %s.\n",
		p.Since.Local().Format("2006-01-02 15:04"), count(len(p.Minutes), "minute"), count(p.Units, "throughput unit"))
	fmt.Fprintf(w, "It would have needed %s.\n", needs)
	for _, r := range p.Reasons {
		fmt.Fprintf(w, "  %s\n", r)
	}
	throttled := 0
	rows := [][]string{{"MINUTE", "UNITS", "PEAK IN/s", "BYTES IN/s", "PEAK OUT/s", "BYTES OUT/s", ""}}
	for _, l := range p.Minutes {
		mark := ""
		if l.Units > p.AtCapacity {
			throttled++
			mark = "throttled"
		} else if !all {
			continue
		}
		rows = append(rows, []string{l.Minute.Local().Format("2006-01-02 15:04"), strconv.Itoa(l.Units), strconv.FormatInt(l.PeakIncoming, 10),
			strconv.FormatInt(l.PeakIncomingBytes, 10), strconv.FormatInt(l.PeakOutgoing, 10), strconv.FormatInt(l.PeakOutgoingBytes, 10), mark})
	}
	fmt.Fprintf(w, "With %s it would have been throttled in %s.\n", count(p.AtCapacity, "throughput unit"), count(throttled, "minute"))
	if len(rows) == 1 {
		return nil
	}
	fmt.Fprintln(w)
	return table(w, rows)
}
