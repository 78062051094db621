package millrace

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/hub"
)

func TestMakeEntities(t *testing.T) {
	ctx := t.Context()
	meta := newStageMeta()
	all, err := hub.Open(ctx, hub.Options{Store: stage{meta}})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	want := []Namespace{{Hubs: []EventHub{{Name: "trial", Partitions: 2, Retention: time.Hour, Groups: []string{"a", "$Default"}}, {Name: "plain"}}}, {Name: "second"}}
	if err := makeEntities(ctx, all, want); err != nil {
		t.Fatal(err)
	}
	trial, err := all.Default().EventHub("trial")
	if err != nil || trial.Partitions() != 2 || trial.Settings().Retention != time.Hour || len(trial.Groups()) != 2 {
		t.Fatalf("%+v, %v", trial, err)
	}
	if plain, err := all.Default().EventHub("plain"); err != nil || plain.Partitions() != 4 || plain.Settings().Retention != hub.DefaultRetention {
		t.Errorf("%+v, %v", plain, err)
	}
	if findNamespace(all, "SECOND") == nil || findNamespace(all, "third") != nil {
		t.Error("the second namespace")
	}

	// At run time things change; the file adds, and never takes away.
	if err := trial.CreateGroup(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := all.Default().CreateEventHub(ctx, "more", 1, hub.Settings{}); err != nil {
		t.Fatal(err)
	}
	want[0].Hubs[0].Groups = []string{"A", "c"}
	want[0].Hubs[0].Retention = 0
	if err := makeEntities(ctx, all, want); err != nil {
		t.Fatal(err)
	}
	if g := trial.Groups(); len(g) != 4 || trial.Settings().Retention != time.Hour || len(all.Default().EventHubs()) != 3 {
		t.Errorf("%+v %v", g, trial.Settings().Retention)
	}

	// The same file again writes nothing.
	before := trial.Updated()
	if err := makeEntities(ctx, all, want); err != nil || trial.Updated() != before {
		t.Error("written for nothing", err)
	}

	// Another number of partitions refuses everything.
	want[0].Hubs[1].Partitions = 8
	want[0].Hubs = append(want[0].Hubs, EventHub{Name: "new"})
	err = makeEntities(ctx, all, want)
	if err == nil || !strings.Contains(err.Error(), "plain has 4 partitions and is asked for with 8") || !strings.Contains(err.Error(), "millrace hub delete plain") {
		t.Error(err)
	}
	if _, err := all.Default().EventHub("new"); err == nil {
		t.Error("half of the file was followed")
	}
}

func TestFirstHub(t *testing.T) {
	ctx := t.Context()
	all, err := hub.Open(ctx, hub.Options{Store: stage{newStageMeta()}})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if err := makeFirstHub(ctx, all); err != nil {
		t.Fatal(err)
	}
	if hubs := all.Default().EventHubs(); len(hubs) != 1 || hubs[0].Name != "events" || hubs[0].Partitions() != 4 {
		t.Errorf("%+v", hubs)
	}
	if _, err := all.Default().CreateEventHub(ctx, "own", 1, hub.Settings{}); err != nil {
		t.Fatal(err)
	}
	if err := all.Default().DeleteEventHub(ctx, "events"); err != nil {
		t.Fatal(err)
	}
	if err := makeFirstHub(ctx, all); err != nil || len(all.Default().EventHubs()) != 1 {
		t.Error("the first hub comes back", err)
	}
}
