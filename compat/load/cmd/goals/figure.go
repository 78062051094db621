package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// figure is one number that a goal is about, with its samples: one a round.
type figure struct {
	Goal  string    `json:"goal"`
	What  string    `json:"what"`
	Unit  string    `json:"unit"`
	Ours  []float64 `json:"ours"`
	Floor []float64 `json:"floor,omitempty"` // of the same rounds
	Than  string    `json:"than,omitempty"`  // what the floor is

	// Limit is on the median of the rounds' ratios where there is a floor and
	// Slack is not set, else on the median of ours.
	Limit float64 `json:"limit,omitempty"`
	// Slack: the limit is the floor's median and as much again as this.
	Slack   []float64 `json:"slack,omitempty"`
	AtLeast bool      `json:"atLeast,omitempty"`
	// Quiet is the absolute value of ours on a machine with nothing else to do;
	// it gates nothing.
	Quiet float64 `json:"quiet,omitempty"`

	Median      float64 `json:"median"`
	FloorMedian float64 `json:"floorMedian,omitempty"`
	Ratio       float64 `json:"ratio,omitempty"`
	Met         *bool   `json:"met,omitempty"` // nil: told for information
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// judge computes the medians and the verdict.
func (f *figure) judge() {
	f.Median, f.FloorMedian = median(f.Ours), median(f.Floor)
	var ratios []float64
	for i := range min(len(f.Ours), len(f.Floor)) {
		if f.Floor[i] > 0 {
			ratios = append(ratios, f.Ours[i]/f.Floor[i])
		}
	}
	f.Ratio = median(ratios)
	value, limit := f.Median, f.Limit
	switch {
	case len(f.Slack) > 0:
		limit = f.FloorMedian + median(f.Slack)
	case f.Limit == 0:
		return
	case len(f.Floor) > 0:
		value = f.Ratio
	}
	met := value <= limit
	if f.AtLeast {
		met = value >= limit
	}
	f.Met = &met
}

// goal is the limit in words.
func (f *figure) goal() string {
	sign := "<="
	if f.AtLeast {
		sign = ">="
	}
	var s string
	switch {
	case len(f.Slack) > 0:
		s = fmt.Sprintf("<= %s", number(f.FloorMedian+median(f.Slack)))
	case f.Limit > 0 && len(f.Floor) > 0:
		s = fmt.Sprintf("%s %gx", sign, f.Limit)
	case f.Limit > 0:
		s = fmt.Sprintf("%s %s", sign, number(f.Limit))
	}
	if f.Quiet > 0 {
		s += fmt.Sprintf(" (quiet: %s)", number(f.Quiet))
	}
	return s
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func samples(v []float64) string {
	if len(v) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s [%s-%s]", number(median(v)), number(slices.Min(v)), number(slices.Max(v)))
}

// report is what one run of the command found.
type report struct {
	Rounds  int       `json:"rounds"`
	CPUs    int       `json:"cpus"`
	Loads   []string  `json:"loads"` // the load average before the first and after each round
	Figures []*figure `json:"figures"`
}

func (r *report) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%d rounds on %d CPUs; load average (1 minute) %s\n\n", r.Rounds, r.CPUs, strings.Join(r.Loads, " "))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "goal\twhat\tunit\tours\tfloor\tthe floor is\tratio\tgoal\t")
	for _, f := range r.Figures {
		ratio, verdict := "-", "-"
		if f.Ratio > 0 {
			ratio = fmt.Sprintf("%.2fx", f.Ratio)
		}
		if f.Met != nil {
			verdict = "missed"
			if *f.Met {
				verdict = "met"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Goal, f.What, f.Unit, samples(f.Ours), samples(f.Floor), f.Than, ratio, f.goal(), verdict)
	}
	return t.Flush()
}

// figure returns the figure of that name, made as described when it is new.
func (r *report) figure(f figure) *figure {
	for _, x := range r.Figures {
		if x.Goal == f.Goal && x.What == f.What {
			return x
		}
	}
	r.Figures = append(r.Figures, &f)
	return &f
}

// add records one round's samples.
func (f *figure) add(ours float64, floor ...float64) {
	f.Ours = append(f.Ours, ours)
	if len(floor) > 0 {
		sum := 0.0
		for _, v := range floor {
			sum += v
		}
		f.Floor = append(f.Floor, sum)
	}
}
