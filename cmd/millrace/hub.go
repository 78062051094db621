package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/admin"
)

func newHub() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Create, list, change and delete event hubs of a running broker",
	}
	cmd.AddCommand(newHubCreate(), newHubList(), newHubShow(), newHubUpdate(), newHubDelete())
	return cmd
}

// manage gives a command the flags of a broker's management, and a client.
func manage(cmd *cobra.Command, do func(cmd *cobra.Command, c *admin.Client, args []string) error) *cobra.Command {
	var flags brokerFlags
	flags.add(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := flags.target()
		if err != nil {
			return err
		}
		c, err := t.admin()
		if err != nil {
			return err
		}
		return do(cmd, c, args)
	}
	return cmd
}

// retentionFlag is a pflag.Value.
type retentionFlag admin.Retention

func (r *retentionFlag) Set(s string) error {
	v, err := admin.ParseRetention(s)
	*r = retentionFlag(v)
	return err
}
func (r *retentionFlag) String() string { return admin.Retention(*r).String() }
func (r *retentionFlag) Type() string   { return "TIME" }

// sizeFlag is a pflag.Value: a size in bytes, or none.
type sizeFlag int64

func (v *sizeFlag) Set(s string) error {
	if s == "none" {
		*v = 0
		return nil
	}
	n, err := admin.ParseSize(s)
	*v = sizeFlag(n)
	return err
}
func (v *sizeFlag) String() string { return strconv.FormatInt(int64(*v), 10) }
func (v *sizeFlag) Type() string   { return "SIZE" }

const sizeUsage = "how much is kept, the oldest going first: 500MB, 20GiB, none"

const retentionUsage = "how long events are kept: 7d, 36h, 90m, forever"

func newHubCreate() *cobra.Command {
	var want admin.NewHub
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create an event hub",
		Example: "  millrace hub create trial --partitions 2 --retention 1d --group audit",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	cmd.Flags().IntVar(&want.Partitions, "partitions", admin.DefaultPartitions, "number of partitions; there can be more later, never fewer")
	cmd.Flags().Var((*retentionFlag)(&want.Retention), "retention", retentionUsage+" (default 7d)")
	cmd.Flags().Var((*sizeFlag)(&want.MaxBytes), "max-size", sizeUsage+" (default none)")
	cmd.Flags().StringVar(&want.Metadata, "metadata", "", "`TEXT` of your own")
	cmd.Flags().StringArrayVar(&want.Groups, "group", nil, "consumer `GROUP` beside $Default; may be repeated")
	captured, out := addCapture(cmd), addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		want.Name = args[0]
		if want.Partitions < 1 {
			return misused("--partitions is 1 at least")
		}
		var err error
		if want.Capture, err = captured.change(); err != nil {
			return err
		}
		h, err := c.CreateHub(cmd.Context(), want)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), h)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Created the event hub %s with %s, which keeps events %s.\n", h.Name, count(h.Partitions, "partition"), keeps(h.Retention))
		return nil
	})
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func keeps(r admin.Retention) string {
	if r < 0 {
		return "forever"
	}
	return "for " + r.String()
}

func newHubList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the event hubs", Args: arguments(cobra.NoArgs)}
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		hubs, err := c.Hubs(cmd.Context())
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), hubs)
		}
		rows := [][]string{{"NAME", "PARTITIONS", "RETENTION", "GROUPS"}}
		for _, h := range hubs {
			rows = append(rows, []string{h.Name, strconv.Itoa(h.Partitions), h.Retention.String(), strings.Join(h.Groups, ", ")})
		}
		return table(cmd.OutOrStdout(), rows)
	})
}

// hubDetails is what hub show prints.
type hubDetails struct {
	admin.Hub
	PartitionDetails []admin.Partition `json:"partitionDetails"`
	Receivers        []admin.Receiver  `json:"receivers"`
}

func newHubShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show an event hub, what its partitions hold, and who reads them", Args: arguments(cobra.ExactArgs(1))}
	out := addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		var d hubDetails
		var err error
		if d.Hub, err = c.Hub(cmd.Context(), args[0]); err != nil {
			return err
		}
		if d.PartitionDetails, err = c.Partitions(cmd.Context(), args[0]); err != nil {
			return err
		}
		if d.Receivers, err = c.Receivers(cmd.Context(), args[0]); err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), d)
		}
		return d.print(cmd)
	})
}

func (d *hubDetails) print(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	rows := [][]string{
		{"Name", d.Name},
		{"Namespace", d.Namespace},
		{"Partitions", strconv.Itoa(d.Partitions)},
		{"Retention", d.Retention.String()},
		{"Status", d.Status},
		{"Groups", strings.Join(d.Groups, ", ")},
		{"Created", d.Created.Format(time.RFC3339)},
		{"Updated", d.Updated.Format(time.RFC3339)},
	}
	if d.MaxBytes > 0 {
		rows = append(rows, []string{"Size limit", strconv.FormatInt(d.MaxBytes, 10) + " bytes"})
	}
	if text := describeCapture(d.Capture); text != "" {
		rows = append(rows, []string{"Capture", text})
	}
	if d.Metadata != "" {
		rows = append(rows, []string{"Metadata", d.Metadata})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	rows = [][]string{{"PARTITION", "FIRST", "LAST", "ENQUEUED", "BYTES", "RECEIVERS"}}
	for _, p := range d.PartitionDetails {
		if p.Error != "" {
			rows = append(rows, []string{p.ID, "-", "-", "-", "-", p.Error})
			continue
		}
		first, enqueued := "-", "-"
		if !p.Empty {
			first = strconv.FormatInt(p.First, 10)
		}
		if p.LastEnqueued != nil {
			enqueued = p.LastEnqueued.Format(time.RFC3339)
		}
		rows = append(rows, []string{p.ID, first, strconv.FormatInt(p.Last, 10), enqueued, strconv.FormatInt(p.Bytes, 10), d.readers(p.ID)})
	}
	return table(w, rows)
}

// readers names who reads a partition.
func (d *hubDetails) readers(partition string) string {
	var names []string
	for _, r := range d.Receivers {
		if r.Partition != partition {
			continue
		}
		name := r.Group
		if r.Name != "" {
			name += ":" + r.Name
		}
		if r.Epoch != nil {
			name += fmt.Sprintf(" (epoch %d)", *r.Epoch)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func newHubUpdate() *cobra.Command {
	var change admin.HubChange
	var metadata string
	var maxBytes int64
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change an event hub",
		Example: "  millrace hub update trial --retention 1d\n  millrace hub update trial --status SendDisabled",
		Args:    arguments(cobra.ExactArgs(1)),
	}
	cmd.Flags().Var((*retentionFlag)(&change.Retention), "retention", retentionUsage)
	cmd.Flags().IntVar(&change.Partitions, "partitions", 0, "`NUMBER` of partitions: more than there are; keys may then mean others")
	cmd.Flags().Var((*sizeFlag)(&maxBytes), "max-size", sizeUsage)
	cmd.Flags().StringVar(&change.Status, "status", "", "`STATUS` Active, Disabled, SendDisabled or ReceiveDisabled")
	cmd.Flags().StringVar(&metadata, "metadata", "", "`TEXT` of your own")
	captured, out := addCapture(cmd), addOutput(cmd)
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		var err error
		if change.Capture, err = captured.change(); err != nil {
			return err
		}
		if cmd.Flags().Changed("metadata") {
			change.Metadata = &metadata
		}
		if cmd.Flags().Changed("max-size") {
			change.MaxBytes = &maxBytes
		}
		if change == (admin.HubChange{}) {
			return misused("there is nothing to change; give --partitions, --retention, --max-size, --status, --metadata or --capture")
		}
		h, err := c.UpdateHub(cmd.Context(), args[0], change)
		if err != nil {
			return err
		}
		if *out == asJSON {
			return printJSON(cmd.OutOrStdout(), h)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The event hub %s has %s, keeps events %s, and is %s.\n", h.Name, count(h.Partitions, "partition"), keeps(h.Retention), h.Status)
		return nil
	})
}

func newHubDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete an event hub with all its events", Args: arguments(cobra.ExactArgs(1))}
	return manage(cmd, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		if err := c.DeleteHub(cmd.Context(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Deleted the event hub %s.\n", args[0])
		return nil
	})
}
