package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/admin"
)

// captureFlags are what a command says of an event hub's capture.
type captureFlags struct {
	set                                                 *pflag.FlagSet
	on                                                  string
	interval                                            time.Duration
	size                                                int64
	skipEmpty, headerOnly, eventGrid                    bool
	format, nameFormat, destination, webhook, noticeHub string
}

func addCapture(cmd *cobra.Command) *captureFlags {
	f := &captureFlags{set: cmd.Flags()}
	f.set.StringVar(&f.on, "capture", "", "`on or off`: keep events as files, too")
	f.set.Lookup("capture").NoOptDefVal = "on"
	f.set.DurationVar(&f.interval, "capture-interval", 0, "longest `TIME` of a file, 1m to 15m (default 5m)")
	f.set.Var((*sizeFlag)(&f.size), "capture-size", "most data of a file, 10MiB to 500MiB (default 300MiB)")
	f.set.StringVar(&f.format, "capture-format", "", "`FORMAT` Avro, AvroDeflate or Parquet (default Avro)")
	f.set.StringVar(&f.destination, "capture-to", "", "`DESTINATION[/CONTAINER]` of the configuration, or /CONTAINER of the broker's own Blob endpoint (default /capture there)")
	f.set.StringVar(&f.nameFormat, "capture-name", "", "`PATTERN` of the files' names, with {Namespace} {EventHub} {PartitionId} {Year} {Month} {Day} {Hour} {Minute} {Second}")
	f.set.BoolVar(&f.skipEmpty, "capture-skip-empty", false, "write no files for windows without events")
	f.set.BoolVar(&f.headerOnly, "capture-header-only", false, "end such files after Avro's header, for readers that refuse the service's form")
	f.set.StringVar(&f.webhook, "capture-webhook", "", "`URL` that is told of each file; '' for none")
	f.set.StringVar(&f.noticeHub, "capture-notice-hub", "", "event `HUB` that is told of each file; '' for none")
	f.set.BoolVar(&f.eventGrid, "capture-event-grid", false, "tell in Event Grid's schema instead of CloudEvents")
	return f
}

// change is what the flags ask for; nil if none is given.
func (f *captureFlags) change() (*admin.CaptureChange, error) {
	var c admin.CaptureChange
	given := func(name string) bool { return f.set.Changed("capture" + name) }
	if given("") {
		on := f.on == "on"
		if !on && f.on != "off" {
			return nil, misused("--capture is on or off, not %q", f.on)
		}
		c.Enabled = &on
	}
	if given("-interval") {
		d := admin.Duration(f.interval)
		c.Interval = &d
	}
	if given("-to") {
		destination, container, _ := strings.Cut(f.destination, "/")
		c.Destination, c.Container = &destination, &container
	}
	for name, to := range map[string]struct {
		field **string
		value *string
	}{"-format": {&c.Format, &f.format}, "-name": {&c.NameFormat, &f.nameFormat}, "-webhook": {&c.Webhook, &f.webhook}, "-notice-hub": {&c.NoticeHub, &f.noticeHub}} {
		if given(name) {
			*to.field = to.value
		}
	}
	for name, to := range map[string]struct {
		field **bool
		value *bool
	}{"-skip-empty": {&c.SkipEmpty, &f.skipEmpty}, "-header-only": {&c.HeaderOnly, &f.headerOnly}, "-event-grid": {&c.EventGrid, &f.eventGrid}} {
		if given(name) {
			*to.field = to.value
		}
	}
	if given("-size") {
		c.Bytes = &f.size
	}
	if c == (admin.CaptureChange{}) {
		return nil, nil
	}
	return &c, nil
}

// describeCapture says what is kept as files, and where; "" if nothing is.
func describeCapture(c *admin.Capture) string {
	if c == nil {
		return ""
	}
	if !c.Enabled {
		return "off"
	}
	to := c.Destination
	if to == "" {
		to = "the broker's Blob endpoint"
	}
	if c.Container != "" {
		to += ", " + c.Container
	}
	return c.Format + " every " + c.Interval.String() + " to " + to
}
