package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/millrace/millrace/once/processor"
)

// Exit statuses of a command that say more than that it failed, as sysexits.h has them.
const (
	exitData        = 65 // EX_DATAERR: the input can't be processed
	exitUnavailable = 75 // EX_TEMPFAIL: something is away

	// Those of a shell that can't run the command: a name with a mistake in it, or a
	// program that is just being replaced, is no event's fault.
	exitNotExecutable = 126
	exitNotFound      = 127
)

const execHelp = "With --exec a command gets each batch on its standard input, an event a line, in JSON as -o json prints it. What it\n" +
	"prints is printed. Its exit status decides: 0, and the batch is done, and checkpointed; 75 (EX_TEMPFAIL), something\n" +
	"that it needs is away, and it is asked again until it is back; so with 126 and 127, by which the shell says that it\n" +
	"can't run it; 65 (EX_DATAERR), there is an event that it can never process; any other, it has failed. What fails is\n" +
	"given again after a pause, a batch event by event in the end. With --dead-letter-hub an event that has failed\n" +
	"--attempts times, or is alone in a batch with status 65, goes to that hub, with the reason; without, its partition\n" +
	"waits at it. The command finds MILLRACE_HUB, MILLRACE_GROUP, MILLRACE_PARTITION and MILLRACE_ATTEMPT in its\n" +
	"environment."

// graceful is how long a command may take to end when it is told to.
const graceful = 5 * time.Second

// execute has the command process a batch.
func (r *receiver) execute(ctx context.Context, b processor.Batch) error {
	var in bytes.Buffer
	for _, e := range b.Events {
		if err := printEventJSON(&in, readEvent(b.Partition, e)); err != nil {
			return &processor.PoisonError{Index: -1, Err: err}
		}
	}
	cmd := shell(ctx, r.exec)
	cmd.Stdin, cmd.Stderr = &in, r.errs
	out := &commandOutput{r: r}
	cmd.Stdout = out
	cmd.Env = append(os.Environ(), "MILLRACE_HUB="+r.hub, "MILLRACE_GROUP="+r.group,
		"MILLRACE_PARTITION="+b.Partition, "MILLRACE_ATTEMPT="+strconv.Itoa(b.Attempt))
	lead(cmd)
	cmd.Cancel = func() error { return interrupt(cmd) }
	cmd.WaitDelay = graceful
	err := cmd.Run()
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil, cmd.ProcessState != nil && cmd.ProcessState.Success():
		// Its status decides, also when it was told to end and came to the end first, or
		// has left something running that holds its output.
		return nil
	case ctx.Err() != nil:
		kill(cmd) // the events are given again, and nothing may be at them still
		return fmt.Errorf("the command was told to end (%w): %w", context.Cause(ctx), err)
	case exited && exit.ExitCode() == exitUnavailable:
		return processor.Unavailable(fmt.Errorf("the command ended with status %d", exitUnavailable))
	case exited && (exit.ExitCode() == exitNotExecutable || exit.ExitCode() == exitNotFound):
		return processor.Unavailable(fmt.Errorf("the shell can't run the command, or one of its own: exit status %d", exit.ExitCode()))
	case exited && exit.ExitCode() == exitData:
		return &processor.PoisonError{Index: -1, Err: fmt.Errorf("the command ended with status %d", exitData)}
	case exited:
		return fmt.Errorf("the command failed: %w", err)
	}
	return processor.Unavailable(fmt.Errorf("the command can't be run: %w", err))
}

// shell is a command for the system's shell.
func shell(ctx context.Context, command string) *exec.Cmd {
	if runtime.GOOS == "windows" {
		return exec.CommandContext(ctx, "cmd", "/C", command) //nolint:gosec // it is what the user asks for
	}
	return exec.CommandContext(ctx, "sh", "-c", command) //nolint:gosec // it is what the user asks for
}

// commandOutput passes on what commands print, those of one partition beside those of
// another.
type commandOutput struct{ r *receiver }

// Write implements [io.Writer].
func (o *commandOutput) Write(b []byte) (int, error) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	n, err := o.r.w.Write(b)
	if err = errors.Join(err, o.r.w.Flush()); err != nil {
		o.r.err = err
		o.r.stop() // as what can't be printed without a command
	}
	return n, err
}
