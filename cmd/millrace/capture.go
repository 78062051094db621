package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/capture/archive"
)

func newCapture() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "capture",
		Short: "Look at captured files, and read the events in them",
		Long: "Look at the files that event hubs are captured to, the cloud's too, and read the events in them.\n" +
			"\"millrace hub update HUB --capture\" turns capture on, \"millrace replay\" sends captured events again.",
	}
	cmd.AddCommand(newCaptureList(), newCaptureCat())
	return cmd
}

// selectFlags say which captured events a command is about.
type selectFlags struct {
	captureFiles
	partitions  []uint
	from, until string
	skipDamaged bool
}

func (f *selectFlags) add(cmd *cobra.Command) {
	f.captureFiles.add(cmd)
	set := cmd.Flags()
	set.UintSliceVar(&f.partitions, "partition", nil, "`NUMBER` of the one partition that is wanted; may be repeated")
	set.StringVar(&f.from, "from", "earliest", "`POSITION` to begin at: earliest, #SEQUENCE, -15m, or a time in RFC 3339")
	set.StringVar(&f.until, "until", "", "`TIME` of the first event that is not wanted, -15m or in RFC 3339")
	set.BoolVar(&f.skipDamaged, "skip-damaged", false, "go on after a damaged file, and fail at the end")
}

// query is what the flags ask for.
func (f *selectFlags) query(now time.Time) (q archive.Query, err error) {
	p, err := parsePosition("from", f.from, now)
	switch {
	case err != nil:
		return q, &usageError{err}
	case p.Latest != nil || p.Offset != nil:
		return q, misused("--from is earliest, #SEQUENCE, -DURATION or a time for captured files, not %s", f.from)
	case p.SequenceNumber != nil:
		q.From = *p.SequenceNumber
	case p.EnqueuedTime != nil:
		q.Since = *p.EnqueuedTime
	}
	if f.until == "" {
		return q, nil
	}
	if p, err = parsePosition("until", f.until, now); err != nil || p.EnqueuedTime == nil {
		return q, misused("--until %q is not -DURATION (as in -15m), or a time such as %s", f.until, now.UTC().Format(time.RFC3339))
	}
	q.Until = *p.EnqueuedTime
	return q, nil
}

// choose leaves the files of the partitions that are wanted.
func (f *selectFlags) choose(files []*archive.File) ([]*archive.File, error) {
	if len(f.partitions) == 0 {
		return files, nil
	}
	var kept []*archive.File
	for _, x := range files {
		switch of, named := x.Partition(); {
		case !named:
			return nil, nameless(files, "--partition can't be looked for")
		case slices.Contains(f.partitions, uint(of.Number)):
			kept = append(kept, x)
		}
	}
	return kept, nil
}

// nameless says that the partition of some files is not known.
func nameless(files []*archive.File, so string) error {
	n, first := 0, ""
	for _, f := range files {
		if !f.Named {
			if n++; n == 1 {
				first = f.Place()
			}
		}
	}
	if n == 0 {
		return nil
	}
	text := first
	if n > 1 {
		text = fmt.Sprintf("%s and %d more", first, n-1)
	}
	return fmt.Errorf("%s: the partition is not known of %s: give the pattern of the names with --name-format", so, text)
}

// partitionOf is the number of a file's partition, as it is printed.
func partitionOf(f *archive.File) string {
	of, named := f.Partition()
	if !named {
		return "?"
	}
	return strconv.FormatUint(uint64(of.Number), 10)
}
