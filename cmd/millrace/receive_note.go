package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// noteHandler prints a processor's log for a person: what happened to which partition, a
// line each, without times and levels.
type noteHandler struct {
	to   io.Writer // written to a line at a time
	with []slog.Attr
}

// Enabled implements [slog.Handler].
func (h *noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements [slog.Handler].
func (h *noteHandler) Handle(_ context.Context, r slog.Record) error {
	var partition, rest, reason string
	note := func(a slog.Attr) bool {
		switch err, isErr := a.Value.Any().(error); {
		case a.Key == "partition":
			partition = "partition " + a.Value.String() + ": "
		case isErr:
			reason = ": " + explain(err).Error()
		case a.Key == "stack": // ours, and of no use to who reads this
		default:
			rest += fmt.Sprintf(", %s %s", a.Key, a.Value)
		}
		return true
	}
	for _, a := range h.with {
		note(a)
	}
	r.Attrs(note)
	if rest != "" {
		rest = " (" + strings.TrimPrefix(rest, ", ") + ")"
	}
	_, err := io.WriteString(h.to, partition+r.Message+rest+reason+"\n")
	return err
}

// WithAttrs implements [slog.Handler].
func (h *noteHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return &noteHandler{to: h.to, with: append(slices.Clip(h.with), as...)}
}

// WithGroup implements [slog.Handler]; the processor makes none.
func (h *noteHandler) WithGroup(string) slog.Handler { return h }
