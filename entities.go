package millrace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/hub"
)

// The hub that a broker starts with when it is told of none.
const (
	firstHub           = "events"
	firstHubPartitions = 4
)

// makeEntities adds what is asked for to what there is. Nothing is changed
// unless everything can be.
//
// A hub that has another number of partitions stops the start. Going on with a
// warning would leave programs, and the tests that count on them, with partitions
// that nobody asked for; and following the file would move keys to other
// partitions, or delete events.
func makeEntities(ctx context.Context, all *hub.Namespaces, spaces []Namespace) error {
	errs := []error{findTwins(spaces)}
	for _, want := range spaces {
		ns := findNamespace(all, want.Name)
		if ns == nil {
			continue
		}
		for _, w := range want.Hubs {
			h, err := ns.EventHub(w.Name)
			if err == nil && w.Partitions != 0 && w.Partitions != h.Partitions() {
				errs = append(errs, fmt.Errorf("%sthe event hub %s has %d partitions and is asked for with %d; events stay in the partitions that they were sent to, so the file does not change that number: ask for %d, "+
					"or leave the number out and add partitions with \"millrace hub update %s --partitions N\"; for fewer, delete the hub with its events with \"millrace hub delete %s\", or use another data folder", w.at, w.Name, h.Partitions(), w.Partitions, h.Partitions(), w.Name, w.Name))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, want := range spaces {
		if err := makeNamespace(ctx, all, want); err != nil {
			return err
		}
	}
	return nil
}

// findTwins refuses hubs that are asked for twice.
func findTwins(spaces []Namespace) error {
	var errs []error
	first := map[[2]string]EventHub{}
	for _, ns := range spaces {
		for _, h := range ns.Hubs {
			key := [2]string{strings.ToLower(ns.Name), strings.ToLower(h.Name)}
			if before, twice := first[key]; twice {
				errs = append(errs, fmt.Errorf("%sthe event hub %s is there already, as %s", h.at, h.Name, before.Name))
			}
			first[key] = h
		}
	}
	return errors.Join(errs...)
}

// findNamespace returns the namespace of a name, the default one of none; nil
// if there is none.
func findNamespace(all *hub.Namespaces, name string) *hub.Namespace {
	if name == "" {
		return all.Default()
	}
	for _, ns := range all.All() {
		if strings.EqualFold(ns.Name, name) {
			return ns
		}
	}
	return nil
}

func makeNamespace(ctx context.Context, all *hub.Namespaces, want Namespace) error {
	ns := findNamespace(all, want.Name)
	if ns == nil {
		s := hub.NamespaceSettings{}
		want.change(&s)
		var err error
		if ns, err = all.Create(ctx, want.Name, s); err != nil {
			return fmt.Errorf("%s%w", want.at, err)
		}
	} else if s := ns.Settings(); want.change(&s) {
		err := ns.Update(ctx, func(s *hub.NamespaceSettings) error {
			want.change(s)
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s%w", want.at, err)
		}
	}
	for _, w := range want.Hubs {
		if err := makeHub(ctx, ns, w); err != nil {
			return fmt.Errorf("%s%w", w.at, err)
		}
	}
	return nil
}

// change puts what is asked for into s, and tells whether that differs.
func (n *Namespace) change(s *hub.NamespaceSettings) bool {
	before := *s
	if n.Tier != "" {
		s.Tier = n.Tier
	}
	if n.AutoInflate != nil {
		s.AutoInflate = *n.AutoInflate
	}
	if n.MaximumCapacity != 0 {
		s.MaximumCapacity = n.MaximumCapacity
	}
	if n.DisableLocalAuth != nil {
		s.DisableLocalAuth = *n.DisableLocalAuth
	}
	switch {
	case n.Capacity == 0:
	case s.AutoInflate && s.Tier == before.Tier:
		s.Capacity = max(s.Capacity, n.Capacity)
	default:
		s.Capacity = n.Capacity
	}
	return s.Tier != before.Tier || s.Capacity != before.Capacity || s.AutoInflate != before.AutoInflate || s.MaximumCapacity != before.MaximumCapacity ||
		s.DisableLocalAuth != before.DisableLocalAuth
}

func makeHub(ctx context.Context, ns *hub.Namespace, want EventHub) error {
	change := func(s *hub.Settings) error {
		if want.Retention != 0 {
			s.Retention = want.Retention
		}
		if want.MaxBytes != 0 {
			s.MaxBytes = want.MaxBytes
		}
		addGroups(s, want.Groups)
		if want.Capture != nil {
			c := *want.Capture
			if s.Capture != nil { // what resource managers call it is theirs
				c.Resource = s.Capture.Resource
			}
			s.Capture = &c
		}
		return nil
	}
	h, err := ns.EventHub(want.Name)
	if err == nil {
		if unchanged(h.Settings(), change) {
			return nil // and nothing is written
		}
		return h.Update(ctx, change)
	}
	var s hub.Settings
	if err := change(&s); err != nil {
		return err
	}
	partitions := want.Partitions
	if partitions == 0 {
		partitions = firstHubPartitions
	}
	_, err = ns.CreateEventHub(ctx, want.Name, partitions, s)
	return err
}

// addGroups adds the groups that are not there. $Default always is, so it may be
// named.
func addGroups(s *hub.Settings, names []string) {
	for _, name := range names {
		known := slices.ContainsFunc(s.Groups, func(g hub.Group) bool { return strings.EqualFold(g.Name, name) })
		if !known && !strings.EqualFold(name, hub.DefaultGroup) {
			s.Groups = append(s.Groups, hub.Group{Name: name, Created: time.Now().UTC().Truncate(time.Millisecond)})
		}
	}
}

func unchanged(s hub.Settings, change func(*hub.Settings) error) bool {
	after := s
	after.Groups = slices.Clone(s.Groups)
	return change(&after) == nil && sameCapture(s.Capture, after.Capture) && after.Retention == s.Retention && after.MaxBytes == s.MaxBytes && len(after.Groups) == len(s.Groups)
}

// sameCapture compares what a hub has with what a file asks for, where 0 is the
// default.
func sameCapture(have, want *hub.Capture) bool {
	if have == nil || want == nil {
		return have == want
	}
	w := *want
	w.Interval, w.Bytes = cmp.Or(w.Interval, hub.DefaultCaptureInterval), cmp.Or(w.Bytes, hub.DefaultCaptureBytes)
	w.Format = cmp.Or(w.Format, hub.CaptureAvro)
	return *have == w
}

// makeFirstHub makes sure that there is something to send to.
func makeFirstHub(ctx context.Context, all *hub.Namespaces) error {
	for _, ns := range all.All() {
		if len(ns.EventHubs()) > 0 {
			return nil
		}
	}
	_, err := all.Default().CreateEventHub(ctx, firstHub, firstHubPartitions, hub.Settings{})
	return err
}
