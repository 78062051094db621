package millrace

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/millrace/millrace/hub"
)

// The emulator's Config.json, whose keys are compared in any case, as .NET does:
//
//	{"UserConfig": {
//	    "NamespaceConfig": [
//	      {"Type": "EventHub", "Name": "emulatorNs1",
//	       "Entities": [
//	         {"Name": "eh1", "PartitionCount": "2",
//	          "ConsumerGroups": [{"Name": "cg1"}]}]}],
//	    "LoggingConfig": {"Type": "File"}}}
//
// Its one namespace is our default one, since the emulator's clients connect to
// localhost or a container's name. Source: emulator.md section 2;
// Azure/azure-event-hubs-emulator-installer EventHub-Emulator/Schema.

// isEmulatorConfig tells the emulator's file from our own.
func isEmulatorConfig(n *yaml.Node) bool { return lookupKey(n, "UserConfig") != nil }

// lookupKey returns the value of a mapping's key, in any case; nil if there is
// none.
func lookupKey(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if strings.EqualFold(n.Content[i].Value, key) {
			return n.Content[i+1]
		}
	}
	return nil
}

// readEmulator reads what of the file concerns us; keys that it may have beside
// are passed over, as the emulator does.
func (f *configFile) readEmulator(n *yaml.Node) error {
	user := lookupKey(n, "UserConfig")
	configs := lookupKey(user, "NamespaceConfig")
	if configs == nil || configs.Kind != yaml.SequenceNode || len(configs.Content) == 0 {
		return f.fail(user, "UserConfig needs NamespaceConfig, a list of one namespace with its Entities")
	}
	for _, c := range configs.Content {
		if t := lookupKey(c, "Type"); t != nil && !strings.EqualFold(t.Value, "EventHub") {
			return f.fail(t, "the Type of a namespace is EventHub, not %s", kindOf(t))
		}
		ns := Namespace{at: f.at(c)}
		if len(configs.Content) > 1 { // several, which only we allow, need their names
			if name := lookupKey(c, "Name"); name != nil {
				ns.Name = name.Value
			}
		}
		entities := lookupKey(c, "Entities")
		switch {
		case entities == nil:
			return f.fail(c, "the namespace has no Entities; list an event hub, such as {\"Name\": \"eh1\", \"PartitionCount\": 2}")
		case entities.Kind != yaml.SequenceNode || len(entities.Content) == 0:
			return f.fail(entities, "Entities is to be a list of event hubs, not %s; list one, such as {\"Name\": \"eh1\", \"PartitionCount\": 2}", emptyOr(entities))
		}
		for _, e := range entities.Content {
			h, err := f.readEntity(e)
			if err != nil {
				return err
			}
			ns.Hubs = append(ns.Hubs, h)
		}
		f.namespaces = append(f.namespaces, ns)
	}
	return nil
}

func emptyOr(n *yaml.Node) string {
	if n.Kind == yaml.SequenceNode {
		return "an empty one"
	}
	return kindOf(n)
}

func (f *configFile) readEntity(n *yaml.Node) (EventHub, error) {
	h := EventHub{at: f.at(n)}
	name := lookupKey(n, "Name")
	if name == nil || name.Kind != yaml.ScalarNode || name.Tag == "!!null" || name.Value == "" {
		return h, f.fail(n, "an entity needs a Name")
	}
	h.Name = name.Value
	count := lookupKey(n, "PartitionCount")
	if count == nil {
		return h, f.fail(n, "the entity %s needs a PartitionCount", h.Name)
	}
	// A number, or, in early samples, a string of digits.
	v, err := strconv.Atoi(strings.TrimSpace(count.Value))
	if count.Kind != yaml.ScalarNode || err != nil || v < 1 || v > hub.MaxPartitions {
		return h, f.fail(count, "the PartitionCount of %s is from 1 to %d, not %s", h.Name, hub.MaxPartitions, kindOf(count))
	}
	h.Partitions = v
	groups := lookupKey(n, "ConsumerGroups")
	if groups == nil {
		return h, nil
	}
	return h, f.items(groups, "the ConsumerGroups of "+h.Name, func(g *yaml.Node) error {
		name := lookupKey(g, "Name")
		if name == nil || name.Kind != yaml.ScalarNode || name.Value == "" {
			return f.fail(g, "a consumer group of %s needs a Name", h.Name)
		}
		h.Groups = append(h.Groups, name.Value)
		return nil
	})
}
