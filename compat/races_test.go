package compat

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/anishathalye/porcupine"
)

var (
	races    = flag.Int("races", 25, "how often a broker is killed while clients race to manage it")
	raceSeed = flag.Uint64("race-seed", uint64(time.Now().UnixNano()), "seed of what they do, and of the moments at which it is killed")
)

const (
	raceClients = 50
	raceHubs    = 12
	raceParts   = 4 // the most partitions of a hub
)

// race is a broker that many clients manage at the same time.
type race struct {
	*manager
	seed   uint64
	faces  []face
	began  time.Time
	number atomic.Int64 // makes every metadata another
	dying  atomic.Bool  // it is being killed: who gets no answer knows why

	mu       sync.Mutex
	ops      map[string][]porcupine.Operation // of this round, by hub
	answered [verbs]map[int]int               // by status
}

// TestManagementRacesAndKills has 50 clients make, change and delete the same few
// event hubs and consumer groups over ATOM, the resource manager's interface and
// the commands', and kills the broker at any moment. After each restart what there
// is has to be what some order of the answered changes has made, with those that
// were not answered in it or not; every face has to show the same; and no hub may
// be half there.
func TestManagementRacesAndKills(t *testing.T) {
	t.Logf("-race-seed %d", *raceSeed)
	m := newManager(t, policy.RetryOptions{MaxRetries: -1})
	r := &race{manager: m, seed: *raceSeed, began: time.Now()}
	r.faces = []face{newAtomFace(m.Broker, "localhost"), &armFace{m}, newAdminFace(m.Broker)}
	for i := range r.answered {
		r.answered[i] = map[int]int{}
	}
	rng := rand.New(rand.NewPCG(r.seed, 0))
	state := r.look() // nothing yet
	changes, lost, starts := 0, 0, 0
	for round := range *races {
		r.ops = map[string][]porcupine.Operation{}
		r.run(round, time.Duration(30+rng.IntN(300))*time.Millisecond)
		for rng.IntN(4) == 0 { // it also dies while it recovers
			r.RestartAndKill(time.Duration(rng.IntN(60)) * time.Millisecond)
			starts++
		}
		r.Restart()
		state = r.check(state)
		for _, ops := range r.ops {
			for _, o := range ops {
				switch got := o.Output.(raceAnswer); {
				case got.status == 0:
					lost++
				case got.status == http.StatusOK && o.Input.(*raceOp).verb < sendEvent:
					changes++
				}
			}
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d kills and %d of a start; %d changes were answered, %d requests were not", *races, starts, changes, lost)
	for v, n := range r.answered {
		if v := verb(v); v != observe {
			t.Logf("%-12s %v", v, n)
			if n[http.StatusOK] == 0 && changes > 1000 {
				t.Errorf("no %s succeeded: the test saw too little", v)
			}
		}
	}
	if lost == 0 || changes < 2**races {
		t.Error("the broker was killed more often than it was used: the test saw too little")
	}
	r.Stop()
	if out, err := exec.Command(Binary(t), "verify", "--data", r.Data).CombinedOutput(); err != nil {
		t.Errorf("millrace verify: %v\n%s", err, out)
	}
	if log := r.Broker.Log(); strings.Contains(log, "panic") || strings.Contains(log, "ERROR") {
		t.Error("the broker's log has an error in it")
	}
}

func hubName(i int) string { return fmt.Sprintf("race-%02d", i) }

// run has the clients at it for a while, and kills the broker.
func (r *race) run(round int, length time.Duration) {
	r.dying.Store(false)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range raceClients {
		rng := rand.New(rand.NewPCG(r.seed, uint64(1+round*raceClients+i)))
		f := r.faces[[...]int{0, 1, 0, 2}[i%4]]
		wg.Go(func() {
			for !stop.Load() && r.do(f, r.draw(rng, f)) {
			}
		})
	}
	time.Sleep(length) // of load
	r.dying.Store(true)
	r.Kill()
	stop.Store(true)
	wg.Wait()
	end := r.now() // what was not answered has happened by then, or never will
	for _, ops := range r.ops {
		for i := range ops {
			if ops[i].Output.(raceAnswer).status == 0 {
				ops[i].Return = end
			}
		}
	}
}

func (r *race) now() int64 { return int64(time.Since(r.began)) }

// draw chooses what a client does next, among what its interface can.
func (r *race) draw(rng *rand.Rand, f face) *raceOp {
	op := &raceOp{
		face: f.name(), hub: hubName(rng.IntN(raceHubs)), partitions: 1 + rng.IntN(raceParts),
		metadata: fmt.Sprintf("m%d", r.number.Add(1)), group: rng.IntN(raceGroups),
	}
	can := f.verbs()
	op.verb = can[rng.IntN(len(can))]
	if op.verb == createGroup && op.face == "admin" {
		op.metadata = noMetadata
	}
	return op
}

// do does one operation, and tells whether it was answered.
func (r *race) do(f face, op *raceOp) bool {
	call := r.now()
	got, err := f.do(op)
	o := porcupine.Operation{Input: op, Call: call, Output: got, Return: r.now()}
	switch got.status {
	case http.StatusOK, http.StatusNotFound, http.StatusConflict, http.StatusBadRequest:
	case 0:
		if !r.dying.Load() {
			r.Errorf("%s %s of %s was not answered: %v", op.face, op.verb, op.hub, err)
		}
	default:
		r.Errorf("%s %s of %s was answered %d: %v", op.face, op.verb, op.hub, got.status, err)
		got.status = 0
		o.Output = got
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops[op.hub] = append(r.ops[op.hub], o)
	r.answered[op.verb][got.status]++
	return got.status != 0
}

// check looks at what there is after a restart, and whether that can be.
func (r *race) check(before map[string]raceHub) map[string]raceHub {
	r.Helper()
	now := r.look()
	for i := range raceHubs {
		hub := hubName(i)
		at := r.now()
		ops := append(r.ops[hub], porcupine.Operation{Input: &raceOp{verb: observe, hub: hub}, Call: at, Output: raceAnswer{seen: now[hub]}, Return: at})
		if porcupine.CheckOperationsTimeout(raceModel(before[hub]), ops, time.Minute) != porcupine.Ok {
			slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			r.Errorf("%s can't be what it is after what was answered: %s", hub, history(before[hub], ops))
		}
	}
	// A hub that is gone has left nothing behind.
	left := map[string]int{} // files, by the hub's folder
	logs := os.DirFS(filepath.Join(r.Data, "logs"))
	dirs := must(fs.ReadDir(logs, "."))(r)
	for _, dir := range dirs {
		left[dir.Name()] = len(must(fs.Glob(logs, dir.Name()+"/*/*"))(r))
	}
	if there := len(now) + 1; len(left) > there { // and the first one, events
		r.Errorf("there are %d event hubs, and the folders of %d: %v", there, len(left), left)
	}
	return now
}

// look asks every face what there is, and holds them to one another.
func (r *race) look() map[string]raceHub {
	r.Helper()
	first := r.faces[0]
	want, err := first.all()
	if err != nil {
		r.Fatalf("%s: %v", first.name(), err)
	}
	for _, f := range r.faces[1:] {
		have, err := f.all()
		if err != nil {
			r.Fatalf("%s: %v", f.name(), err)
		}
		if f.name() == "arm" {
			r.agree(first.name(), f.name(), want, have)
			continue
		}
		r.agree(first.name(), f.name(), withoutGroups(want), have)
	}
	have, err := r.command()
	if err != nil {
		r.Fatal(err)
	}
	r.agree(first.name(), "the command", withoutGroups(want), have)
	for i := range raceHubs {
		hub := hubName(i)
		h := want[hub]
		r.overAMQP(hub, &h)
		if h.there() {
			want[hub] = h
		}
	}
	return want
}

// agree wants two faces to show the same.
func (r *race) agree(one, other string, a, b map[string]raceHub) {
	r.Helper()
	for i := range raceHubs {
		if hub := hubName(i); a[hub] != b[hub] {
			r.Errorf("%s: %s shows %+v, and %s %+v", hub, one, a[hub], other, b[hub])
		}
	}
}

// withoutGroups leaves of the groups what the commands show: that they are there.
func withoutGroups(hubs map[string]raceHub) map[string]raceHub {
	out := map[string]raceHub{}
	for name, h := range hubs {
		for i := range h.Groups {
			if h.Groups[i] != "" {
				h.Groups[i] = noMetadata
			}
		}
		out[name] = h
	}
	return out
}
