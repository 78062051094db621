package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/capture/archive"
)

// listOptions are what the flags of capture ls say.
type listOptions struct {
	captureFiles
	details, check bool
}

func newCaptureList() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:     "ls LOCATION…",
		Aliases: []string{"list"},
		Short:   "List captured files, and what is missing between them",
		Long: "List the captured files of locations by partition and window. Which events a file has is known where the\n" +
			"destination keeps that with it (folders don't); --details reads the files. What is then known to be missing between\n" +
			"two files of a partition, or to be in both, is said; with --check the command fails for it. Events that came\n" +
			"while capture was off are missing like others. A damaged file is named with the byte, and fails the command.\n\n" + locationHelp,
		Example: "  millrace capture ls ./captured\n" +
			"  millrace capture ls ./captured/localhost/orders/0 --check",
		Args: arguments(cobra.MinimumNArgs(1)),
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&o.details, "details", false, "read the files, whole, and so find damage")
	cmd.Flags().BoolVar(&o.check, "check", false, "fail if events are missing or there twice; files are read where that is not known")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return o.run(cmd, args, *out) }
	return cmd
}

// listing is what capture ls prints.
type listing struct {
	Files    []listedFile    `json:"files"`
	Bytes    int64           `json:"bytes"`
	Events   *int64          `json:"events,omitempty"` // unless some files' are not known
	Others   int             `json:"otherFiles"`
	Problems []listedProblem `json:"problems"`
	Damage   []listedDamage  `json:"damage"`

	partitions map[archive.Partition]bool
	nameless   error
}

type listedFile struct {
	Name      string     `json:"name"`
	Namespace string     `json:"namespace,omitempty"`
	EventHub  string     `json:"eventHub,omitempty"`
	Partition string     `json:"partition,omitempty"`
	Start     *time.Time `json:"windowStart,omitempty"`
	Bytes     int64      `json:"bytes"`
	Events    *int64     `json:"events,omitempty"`
	First     *int64     `json:"firstSequenceNumber,omitempty"`
	Last      *int64     `json:"lastSequenceNumber,omitempty"`

	damaged bool
}

type listedProblem struct {
	Kind      archive.Kind `json:"kind"`
	Partition string       `json:"partition"`
	First     int64        `json:"firstSequenceNumber"`
	Last      int64        `json:"lastSequenceNumber"`
	Before    string       `json:"before"`
	After     string       `json:"after"`
	Detail    string       `json:"detail"`
}

type listedDamage struct {
	Name   string `json:"name"`
	Detail string `json:"detail"`
}

func (o *listOptions) run(cmd *cobra.Command, locations []string, out output) error {
	ctx := cmd.Context()
	files, others, err := o.list(ctx, locations)
	if err != nil {
		return err
	}
	l := &listing{Files: []listedFile{}, Problems: []listedProblem{}, Damage: []listedDamage{}, Others: others, partitions: map[archive.Partition]bool{}}
	for _, f := range files {
		damaged := false
		var err error
		switch {
		case o.details:
			err = f.Count(ctx)
		case o.check:
			err = f.Learn(ctx)
		}
		var damage *archive.DamageError
		if errors.As(err, &damage) {
			damaged = true
			l.Damage = append(l.Damage, listedDamage{f.Place(), damage.Err.Error()})
		} else if err != nil {
			return err
		}
		l.add(f, damaged)
	}
	for _, p := range archive.Check(files) {
		l.Problems = append(l.Problems, listedProblem{
			p.Kind, strconv.FormatUint(uint64(p.Partition.Number), 10), int64(p.First), int64(p.Last), p.Before.Place(), p.After.Place(), p.String(),
		})
	}
	if o.check {
		l.nameless = nameless(files, "not everything can be checked")
	}
	if out == asJSON {
		err = printJSON(cmd.OutOrStdout(), l)
	} else {
		err = l.print(cmd)
	}
	switch {
	case err != nil:
		return err
	case len(l.Damage) > 0, o.check && len(l.Problems) > 0:
		return errSaid
	}
	return l.nameless
}

func (l *listing) add(f *archive.File, damaged bool) {
	x := listedFile{Name: f.Place(), Bytes: f.Size, damaged: damaged}
	if of, named := f.Partition(); named {
		x.Namespace, x.EventHub, x.Partition, x.Start = of.Namespace, of.EventHub, partitionOf(f), &f.Of.Start
		l.partitions[of] = true
	}
	if f.Counted {
		x.Events = &f.Events
		if f.Events > 0 {
			first, last := int64(f.First), int64(f.Last)
			x.First, x.Last = &first, &last
		}
	}
	if len(l.Files) == 0 {
		l.Events = new(int64)
	}
	if l.Events != nil && x.Events != nil {
		*l.Events += *x.Events
	} else {
		l.Events = nil
	}
	l.Bytes += f.Size
	l.Files = append(l.Files, x)
}

func (l *listing) print(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	rows := [][]string{{"NAME", "PARTITION", "WINDOW", "BYTES", "EVENTS", "FIRST", "LAST"}}
	for _, f := range l.Files {
		rows = append(rows, f.row())
	}
	if err := table(w, rows); err != nil {
		return err
	}
	total := fmt.Sprintf("%s of %s, %d bytes", count(len(l.Files), "file"), count(len(l.partitions), "partition"), l.Bytes)
	if l.Events != nil {
		total += ", " + count(int(*l.Events), "event")
	}
	if l.Others > 0 {
		total += fmt.Sprintf("; and %s that capture did not write", count(l.Others, "file"))
	}
	fmt.Fprintf(w, "\n%s.\n", total)
	for _, d := range l.Damage {
		fmt.Fprintf(w, "DAMAGED %s: %s\n", d.Name, d.Detail)
	}
	for _, p := range l.Problems {
		fmt.Fprintf(w, "%s %s\n", map[archive.Kind]string{archive.Gap: "MISSING", archive.Hole: "MISSING", archive.Overlap: "TWICE"}[p.Kind], p.Detail)
	}
	return nil
}

func (f *listedFile) row() []string {
	r := []string{f.Name, "?", "-", strconv.FormatInt(f.Bytes, 10), "-", "-", "-"}
	if f.Start != nil {
		r[1], r[2] = f.Partition, f.Start.Format(time.RFC3339)
	}
	for i, n := range []*int64{f.Events, f.First, f.Last} {
		if n != nil {
			r[4+i] = strconv.FormatInt(*n, 10)
		}
	}
	if f.damaged {
		r[4] = "damaged"
	}
	return r
}
