package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/capture/archive"
	"github.com/millrace/millrace/capture/row"
)

// catOptions are what the flags of capture cat say.
type catOptions struct {
	selectFlags
	format string
	count  int
}

func newCaptureCat() *cobra.Command {
	var o catOptions
	cmd := &cobra.Command{
		Use:   "cat LOCATION…",
		Short: "Print the events in captured files",
		Long: "Print the events in captured files as \"millrace receive\" prints them, and with their system properties:\n" +
			"partition after partition, each in order. In Avro, times have whole seconds; in Parquet, properties are text.\n" +
			"A damaged file ends the command with its name and the byte, unless --skip-damaged is given.\n\n" +
			"--format is a Go template as in \"millrace receive\", with SystemProperties beside.\n\n" + locationHelp,
		Example: "  millrace capture cat ./captured/localhost/orders -o json\n" +
			"  millrace capture cat ./captured --event-hub orders --partition 2 --from '#1000' --count 10",
		Args: arguments(cobra.MinimumNArgs(1)),
	}
	o.add(cmd)
	cmd.Flags().StringVar(&o.format, "format", "", "Go `TEMPLATE` for a line of output")
	cmd.Flags().IntVar(&o.count, "count", 0, "stop after this many events")
	out := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return o.run(cmd, args, *out) }
	return cmd
}

func (o *catOptions) run(cmd *cobra.Command, locations []string, out output) error {
	if o.count < 0 {
		return misused("--count can't be negative")
	}
	print, err := newPrinter(out, o.format)
	if err != nil {
		return err
	}
	q, err := o.query(time.Now())
	if err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd)
	defer cancel()
	files, _, err := o.list(ctx, locations)
	if err != nil {
		return err
	}
	if files, err = o.choose(files); err != nil {
		return err
	}
	if len(files) == 0 {
		return errNoFiles(locations)
	}
	w := bufio.NewWriter(cmd.OutOrStdout())
	damage := damageLog{skip: o.skipDamaged, to: cmd.ErrOrStderr()}
	printed := 0
	for e, err := range archive.Events(ctx, files, q) {
		if err == nil {
			err = print(w, readRow(partitionOf(e.File), e.Row))
			printed++
		} else {
			err = damage.take(err)
		}
		if err != nil {
			if ferr := w.Flush(); ferr != nil || ctx.Err() != nil {
				return ferr // Ctrl-C, or nobody reads any more
			}
			return err
		}
		if o.count > 0 && printed == o.count {
			break
		}
	}
	return errors.Join(w.Flush(), damage.end())
}

// readRow makes a captured event one that can be printed. What has a field of its
// own is not among the system properties.
func readRow(partition string, e *row.Row) *received {
	r := &received{Partition: partition, Sequence: int64(e.Sequence), Offset: string(e.Offset), Enqueued: time.UnixMilli(e.Enqueued).UTC()}
	for _, p := range e.Properties {
		if r.Properties == nil {
			r.Properties = map[string]any{}
		}
		r.Properties[string(p.Name)] = plainValue(p.Value)
	}
	for _, p := range e.System {
		text := p.Value.Kind == row.String
		switch name := string(p.Name); {
		case name == annotationKey && text:
			r.PartitionKey = string(p.Value.Text)
		case name == "message-id" && text:
			r.MessageID = string(p.Value.Text)
		case name == "content-type" && text:
			r.ContentType = string(p.Value.Text)
		case name == "correlation-id":
			r.CorrelationID = plainValue(p.Value)
		default:
			if r.SystemProperties == nil {
				r.SystemProperties = map[string]any{}
			}
			r.SystemProperties[name] = plainValue(p.Value)
		}
	}
	if utf8.Valid(e.Body) {
		r.Body = string(e.Body)
	} else {
		r.Base64 = base64.StdEncoding.EncodeToString(e.Body)
	}
	return r
}

// plainValue is a property's value as Go has it.
func plainValue(v row.Value) any {
	switch v.Kind {
	case row.Long:
		return v.Long
	case row.Double:
		return v.Double
	case row.String:
		return string(v.Text)
	case row.Bytes:
		return append([]byte{}, v.Text...)
	}
	return nil
}
