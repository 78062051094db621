package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// output is how a command prints data: for people, or as JSON.
type output string

const (
	asText output = "text"
	asJSON output = "json"
)

// addOutput gives a command the flag -o.
func addOutput(cmd *cobra.Command) *output {
	o := asText
	cmd.Flags().VarP(&o, "output", "o", "text or json")
	cmd.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { //nolint:errcheck // the flag is there
		return []string{string(asText), string(asJSON)}, cobra.ShellCompDirectiveNoFileComp
	})
	return &o
}

// Set implements pflag.Value.
func (o *output) Set(s string) error {
	switch output(s) {
	case asText, asJSON:
		*o = output(s)
		return nil
	}
	return fmt.Errorf("it is text or json")
}

// String implements pflag.Value.
func (o *output) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *output) Type() string { return "FORMAT" }

// printJSON prints a value, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows in columns. The first row is the heading.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

// isTerminal tells whether a person sits behind a stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
