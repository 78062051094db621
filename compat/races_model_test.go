package compat

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/anishathalye/porcupine"
)

// raceGroups is how many consumer groups each hub may have beside $Default.
const raceGroups = 3

func groupName(i int) string { return fmt.Sprintf("group-%d", i) }

// raceHub is what there is of one hub. The zero value is a hub that is not there.
type raceHub struct {
	Partitions int
	Metadata   string
	Groups     [raceGroups]string // the metadata of each, noMetadata if it has none; "" if it is not there
	Events     int                // in partition 0, counted from sequence number 0
}

const noMetadata = "-"

func (h raceHub) there() bool { return h.Partitions > 0 }

// verb is what a client asks for.
type verb int

const (
	createHub verb = iota // and fail if it is there
	putHub                // create or change
	changeHub
	deleteHub
	createGroup
	putGroup
	changeGroup
	deleteGroup
	sendEvent
	look    // for the hub's metadata
	observe // all of it, while nothing changes
	verbs
)

// String is the verb, for people.
func (v verb) String() string {
	return [...]string{"create", "put", "change", "delete", "create group", "put group", "change group", "delete group", "send", "look", "observe"}[v]
}

// raceOp is one thing that a client asks for.
type raceOp struct {
	verb       verb
	face, hub  string
	partitions int
	metadata   string
	group      int
}

// raceAnswer is what it was answered: OK, NotFound, Conflict, BadRequest, or 0 if
// it was not answered. A look has seen the metadata, an observation all.
type raceAnswer struct {
	status int
	seen   raceHub
}

// after is what an operation that happens makes of a hub, and its answer.
func (h raceHub) after(op *raceOp) (raceHub, int) {
	switch op.verb {
	case createHub, putHub, changeHub:
		return h.afterHubOp(op)
	}
	if !h.there() {
		return h, http.StatusNotFound
	}
	g := &h.Groups[op.group]
	switch op.verb {
	case deleteHub:
		return raceHub{}, http.StatusOK
	case sendEvent:
		h.Events++
	case createGroup:
		if *g != "" {
			return h, http.StatusConflict
		}
		*g = op.metadata
	case changeGroup:
		if *g == "" {
			return h, http.StatusNotFound
		}
		*g = op.metadata
	case putGroup:
		*g = op.metadata
	case deleteGroup:
		if *g == "" {
			return h, http.StatusNotFound
		}
		*g = ""
	}
	return h, http.StatusOK
}

func (h raceHub) afterHubOp(op *raceOp) (raceHub, int) {
	switch {
	case h.there() && op.verb == createHub:
		return h, http.StatusConflict
	case !h.there() && op.verb == changeHub:
		return h, http.StatusNotFound
	case !h.there():
		return raceHub{Partitions: op.partitions, Metadata: op.metadata}, http.StatusOK
	case op.partitions < h.Partitions:
		return h, http.StatusBadRequest
	}
	h.Partitions, h.Metadata = op.partitions, op.metadata
	return h, http.StatusOK
}

// stepHub returns what a hub can be after an operation with its answer; nothing if
// that can't have been the answer.
func stepHub(state, input, output any) []any {
	h, op, got := state.(raceHub), input.(*raceOp), output.(raceAnswer)
	next, status := h.after(op)
	switch {
	case op.verb == observe && h == got.seen, got.status == 0 && next == h:
		return []any{h}
	case op.verb == observe:
		return nil
	case got.status == 0: // the broker died: it happened or not
		return []any{h, next}
	case op.verb == look && got.status == http.StatusOK && got.seen.Metadata != h.Metadata:
		return nil
	case got.status == status:
		return []any{next}
	}
	// A put looks first, and then creates or changes: what comes in between makes
	// it fail as that alone would.
	there := h.there()
	if op.verb == putGroup {
		there = there && h.Groups[op.group] != ""
	}
	if put := op.verb == putHub || op.verb == putGroup; put && (got.status == http.StatusConflict && there || got.status == http.StatusNotFound && !there) {
		return []any{h}
	}
	return nil
}

// raceModel is the model of one hub that begins as it was seen to be.
func raceModel(from raceHub) porcupine.Model {
	m := porcupine.NondeterministicModel{Init: func() []any { return []any{from} }, Step: stepHub}
	return m.ToModel()
}

// history is what a hub's operations were, for people.
func history(from raceHub, ops []porcupine.Operation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "it began as %+v\n", from)
	for _, o := range ops {
		op, got := o.Input.(*raceOp), o.Output.(raceAnswer)
		fmt.Fprintf(&b, "%9.3f to %9.3f ms: %-5s %-12s partitions %d, metadata %q, group %d: %d", float64(o.Call)/1e6, float64(o.Return)/1e6, op.face, op.verb, op.partitions, op.metadata, op.group, got.status)
		if op.verb == look || op.verb == observe {
			fmt.Fprintf(&b, " %+v", got.seen)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
