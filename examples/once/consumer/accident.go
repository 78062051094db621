package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

// This file is not for taking along: it kills the process where it hurts most.

// accident is where the process dies.
type accident struct {
	checkpoint bool         // in place of the first checkpoint
	effects    atomic.Int64 // how many there are left until it dies after one; 0: it does not
}

// newAccident reads $DIE: "checkpoint", "effect:7" for the seventh, or nothing.
func newAccident(text string) (*accident, error) {
	a := &accident{}
	n, isEffect := strings.CutPrefix(text, "effect:")
	switch {
	case text == "checkpoint":
		a.checkpoint = true
	case isEffect:
		var left int64
		if _, err := fmt.Sscan(n, &left); err != nil || left < 1 {
			return nil, fmt.Errorf("$DIE: %q is no number of effects", n)
		}
		a.effects.Store(left)
	case text != "":
		return nil, fmt.Errorf("$DIE is checkpoint or effect:N, not %q", text)
	}
	return a, nil
}

// afterEffect dies if it was the effect to die after.
func (a *accident) afterEffect() {
	if a.effects.Load() > 0 && a.effects.Add(-1) == 0 {
		die()
	}
}

// at returns a store of checkpoints that is never told one, if that is the accident.
func (a *accident) at(s azeventhubs.CheckpointStore) azeventhubs.CheckpointStore {
	if a.checkpoint {
		return deadly{s}
	}
	return s
}

type deadly struct{ azeventhubs.CheckpointStore }

// SetCheckpoint does not return.
func (deadly) SetCheckpoint(context.Context, azeventhubs.Checkpoint, *azeventhubs.SetCheckpointOptions) error {
	die()
	return nil
}

// die ends the process as kill -9 does: nothing is flushed, nothing deferred runs.
func die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		self.Kill() //nolint:errcheck // there is nobody left to look
	}
	select {}
}
