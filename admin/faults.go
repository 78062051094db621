package admin

import (
	"net/http"
	"slices"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// The kinds of faults.
const (
	FaultBusy         = "busy"          // appends are refused as by throughput units, For a while
	FaultDelay        = "delay"         // appends are acknowledged later by Delay, For a while
	FaultSlowDisk     = "slow-disk"     // each write to disk takes longer by Delay, For a while; of the whole broker
	FaultDetach       = "detach"        // links are detached
	FaultClose        = "close"         // connections are closed with a goodbye
	FaultCut          = "cut"           // connections are cut without a word
	FaultExpireTokens = "expire-tokens" // tokens that connections were given have expired
	FaultSteal        = "steal"         // readers of Group lose Partition, or all partitions
	FaultClear        = "clear"         // what lasts a while ends
)

// FaultKinds returns every kind.
func FaultKinds() []string {
	return []string{FaultBusy, FaultDelay, FaultSlowDisk, FaultDetach, FaultClose, FaultCut, FaultExpireTokens, FaultSteal, FaultClear}
}

// MaxFault is the longest that a fault lasts or delays.
const MaxFault = 24 * time.Hour

// Fault asks for a fault. Without a hub it happens to the whole namespace.
type Fault struct {
	Kind      string   `json:"kind"`
	Hub       string   `json:"hub,omitempty"`
	Group     string   `json:"group,omitempty"`
	Partition string   `json:"partition,omitempty"`
	For       Duration `json:"for,omitempty"`
	Delay     Duration `json:"delay,omitempty"`
}

// FaultDone says to how many connections, receivers or event hubs it happens.
type FaultDone struct {
	Affected int `json:"affected"`
}

// Duration is a time as Go writes it, such as "30s" or "1m30s".
type Duration time.Duration

// String is as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes what String returns.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what String returns.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// check tells what is missing of a request.
func (f *Fault) check() error {
	lasts := f.Kind == FaultBusy || f.Kind == FaultDelay || f.Kind == FaultSlowDisk
	delays := f.Kind == FaultDelay || f.Kind == FaultSlowDisk
	switch {
	case !slices.Contains(FaultKinds(), f.Kind):
		return badRequest("There is no fault '" + f.Kind + "'.")
	case lasts != (f.For > 0) || f.For < 0 || time.Duration(f.For) > MaxFault:
		return badRequest("The faults busy, delay and slow-disk last for a time, 24 hours at most; others have none.")
	case delays != (f.Delay > 0) || f.Delay < 0 || time.Duration(f.Delay) > MaxFault:
		return badRequest("The faults delay and slow-disk have a delay, 24 hours at most; others have none.")
	case f.Kind == FaultSteal && f.Hub == "":
		return badRequest("The fault steal is of an event hub.")
	case f.Kind != FaultSteal && (f.Group != "" || f.Partition != ""):
		return badRequest("Of the faults only steal has a group and a partition.")
	}
	if f.Kind == FaultSteal && f.Group == "" {
		f.Group = hub.DefaultGroup
	}
	return nil
}

func (s *Server) injectFault(c *call) error {
	if err := c.may(auth.Manage, ""); err != nil {
		return err
	}
	if s.o.Inject == nil {
		return &Error{Status: http.StatusForbidden, Kind: hub.Forbidden.String(), Message: "Faults are not allowed; start the broker with --allow-faults."}
	}
	var f Fault
	if err := c.read(&f); err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	n, err := s.o.Inject(c.Context(), c.ns, f)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, FaultDone{n})
}
