// goals measures what the broker must reach: it builds the broker and the
// floors, starts them all, and has load generators drive them in turn, round
// after round. A busy machine slows all of a round alike, so that the ratios
// hold where the figures don't.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// bench is one run of the command.
type bench struct {
	ctx     context.Context //nolint:containedctx // of the whole command
	dir     string
	bins    string
	verbose bool
	scale   float64
	small   int64 // backlogs whose starts are compared, in bytes
	large   int64
	running []*process
	report  report

	// Brokers and floors, up all the time.
	always, never     *process
	stub, stub100     *process
	rawNone, rawGroup *process
	hubs              int // made so far
	wantedGoals       []string
}

func (b *bench) bin(name string) string { return filepath.Join(b.bins, name) }

func (b *bench) wants(goal string) bool {
	return len(b.wantedGoals) == 0 || slices.Contains(b.wantedGoals, goal)
}

// events scales a number of events.
func (b *bench) events(n int) int { return max(1000, int(float64(n)*b.scale)) }

func main() {
	b := &bench{}
	rounds := flag.Int("rounds", 5, "rounds; a figure is the median of them")
	only := flag.String("only", "", "measure these goals alone, as in G2,G5")
	dir := flag.String("dir", "", "folder for the data (default: a new one among the temporary files)")
	broker := flag.String("broker", "", "measure this broker instead of building one")
	output := flag.String("o", "table", "table | json")
	small := flag.Float64("backlog", 1, "G9: the small backlog, in GB")
	large := flag.Float64("large-backlog", 8, "G9: the large backlog, in GB; the goal is meant for 50")
	flag.Float64Var(&b.scale, "scale", 1, "multiplies the number of events of each measurement")
	flag.BoolVar(&b.verbose, "v", false, "tell what every generator found")
	flag.Parse()
	b.small, b.large = int64(*small*1e9), int64(*large*1e9)
	if *only != "" {
		b.wantedGoals = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx = ctx
	if err := b.run(*rounds, *dir, *broker, *output); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

func (b *bench) run(rounds int, dir, broker, output string) (err error) {
	if output != "table" && output != "json" {
		return errors.New("-o is one of table, json")
	}
	if runtime.GOOS != "linux" {
		return errors.New("processor time is read from /proc, which only Linux has")
	}
	if b.dir, err = os.MkdirTemp(dir, "millrace-goals-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.bins = filepath.Join(b.dir, "bin")
	if err := os.Mkdir(b.bins, 0o755); err != nil {
		return err
	}
	if err := build(b.ctx, b.bins, broker); err != nil {
		return err
	}
	defer func() {
		for _, p := range b.running {
			p.kill()
		}
	}()
	b.report.Rounds, b.report.CPUs = rounds, runtime.NumCPU()
	b.noteLoad()
	if err := b.idle(); err != nil {
		return err
	}
	if err := b.startAll(); err != nil {
		return err
	}
	for i := range rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d, load average %s\n", i+1, rounds, b.report.Loads[len(b.report.Loads)-1])
		for _, m := range []struct {
			goals string
			run   func() error
		}{
			{"G2,G5", b.sdk}, {"G3", b.single}, {"G6", b.durable}, {"G8", b.latencies}, {"G11", b.spread},
		} {
			if slices.ContainsFunc(strings.Split(m.goals, ","), b.wants) {
				if err := m.run(); err != nil {
					return err
				}
			}
		}
		b.noteLoad()
	}
	if b.wants("G10") {
		if err := b.peak(); err != nil {
			return err
		}
	}
	b.stopAll()
	if b.wants("G9") {
		if err := b.starts(rounds); err != nil {
			return err
		}
		b.noteLoad()
	}
	slices.SortStableFunc(b.report.Figures, func(x, y *figure) int { return goalNumber(x.Goal) - goalNumber(y.Goal) })
	for _, f := range b.report.Figures {
		f.judge()
	}
	if output == "json" {
		return b.report.json(os.Stdout)
	}
	return b.report.table(os.Stdout)
}

func goalNumber(s string) (n int) {
	fmt.Sscanf(s, "G%d", &n) //nolint:errcheck // goals are named in this program
	return n
}

func (b *bench) noteLoad() {
	load := "?"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	b.report.Loads = append(b.report.Loads, load)
}
