package rest

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"github.com/millrace/millrace/hub"
)

// armSKU is a namespace's tier and capacity.
type armSKU struct {
	Name     string `json:"name"`
	Tier     string `json:"tier,omitempty"`
	Capacity *int   `json:"capacity,omitempty"`
}

// armNamespace is a namespace as the resource manager shows it.
type armNamespace struct {
	SKU        armSKU                 `json:"sku"`
	ID         string                 `json:"id"`
	Name       string                 `json:"name"`
	Type       string                 `json:"type"`
	Location   string                 `json:"location"`
	Tags       map[string]string      `json:"tags"`
	Properties armNamespaceProperties `json:"properties"`
}

type armNamespaceProperties struct {
	MinimumTLSVersion      string `json:"minimumTlsVersion"`
	PublicNetworkAccess    string `json:"publicNetworkAccess"`
	DisableLocalAuth       bool   `json:"disableLocalAuth"`
	ZoneRedundant          bool   `json:"zoneRedundant"`
	IsAutoInflateEnabled   bool   `json:"isAutoInflateEnabled"`
	MaximumThroughputUnits int    `json:"maximumThroughputUnits"`
	KafkaEnabled           bool   `json:"kafkaEnabled"`
	ProvisioningState      string `json:"provisioningState"`
	MetricID               string `json:"metricId"`
	CreatedAt              string `json:"createdAt"`
	UpdatedAt              string `json:"updatedAt"`
	ServiceBusEndpoint     string `json:"serviceBusEndpoint"`
	Status                 string `json:"status"`
}

// What is said where nothing was asked for.
const (
	anyLocation = "local"
	minimumTLS  = "1.2" // which is also what the doors hold clients to
)

func location(ns *hub.Namespace) string {
	if l := ns.Settings().Resource.Location; l != "" {
		return l
	}
	return anyLocation
}

func (c *armCall) describeNamespace(ns *hub.Namespace) armNamespace {
	s := ns.Settings()
	out := armNamespace{
		SKU: armSKU{Name: s.Tier.Title(), Tier: s.Tier.Title(), Capacity: &s.Capacity},
		ID:  c.id(ns), Name: ns.Name, Type: provider + "/Namespaces", Location: location(ns), Tags: s.Resource.Tags,
		Properties: armNamespaceProperties{
			MinimumTLSVersion: s.Resource.MinimumTLS, DisableLocalAuth: s.DisableLocalAuth, PublicNetworkAccess: "Enabled", ZoneRedundant: s.Resource.ZoneRedundant,
			IsAutoInflateEnabled: s.AutoInflate, MaximumThroughputUnits: s.MaximumCapacity,
			ProvisioningState: "Succeeded", MetricID: c.subscription + ":" + strings.ToLower(ns.Name),
			CreatedAt: stamp(ns.Created), UpdatedAt: stamp(ns.Updated()),
			ServiceBusEndpoint: c.scheme() + "://" + c.Host + "/", Status: "Active",
		},
	}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	if out.Properties.MinimumTLSVersion == "" {
		out.Properties.MinimumTLSVersion = minimumTLS
	}
	return out
}

func (c *armCall) listNamespaces() error {
	var all []any
	for _, ns := range c.s.o.Namespaces.All() {
		all = append(all, c.describeNamespace(ns))
	}
	return c.list(all)
}

func (c *armCall) showNamespace() error {
	ns, err := c.namespace()
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeNamespace(ns))
}

func (c *armCall) deleteNamespace() error {
	return c.gone(c.s.o.Namespaces.Delete(c.Context(), c.names[0]))
}

// namespaceName is what the resource manager takes for one.
var namespaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{4,48}[A-Za-z0-9]$`)

const namespaceNames = "a namespace has from 6 to 50 letters, digits and hyphens, begins with a letter, and ends with a letter or a digit"

// putNamespace is PUT, which makes a namespace or changes it, and PATCH, which
// changes it. The answer's status is 200 in any case, as the service's.
func (c *armCall) putNamespace() error {
	var want namespaceBody
	if err := c.read(&want); err != nil {
		return err
	}
	if err := want.check(); err != nil {
		return err
	}
	ns, err := c.namespace()
	switch {
	case err == nil:
		err = ns.Update(c.Context(), func(s *hub.NamespaceSettings) error { return want.change(s, c.Method == http.MethodPut) })
	case c.Method == http.MethodPut:
		ns, err = c.createNamespace(&want)
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, c.describeNamespace(ns))
}

func (c *armCall) createNamespace(want *namespaceBody) (*hub.Namespace, error) {
	if !namespaceName.MatchString(c.names[0]) {
		return nil, badRequest("name", "The specified name '%s' is not valid: %s.", excerpt(c.names[0]), namespaceNames)
	}
	var s hub.NamespaceSettings
	if err := want.change(&s, true); err != nil {
		return nil, err
	}
	if s.Tier == "" {
		s.Tier = hub.Standard // the service's own default
	}
	return c.s.o.Namespaces.Create(c.Context(), c.names[0], s)
}

// namespaceBody asks for a namespace, or for a change of one. What is nil stays,
// save tags with PUT.
type namespaceBody struct {
	Location   *string           `json:"location"`
	Tags       map[string]string `json:"tags"`
	SKU        *armSKU           `json:"sku"`
	Identity   *armIdentity      `json:"identity"`
	Properties struct {
		IsAutoInflateEnabled   *bool   `json:"isAutoInflateEnabled"`
		MaximumThroughputUnits *int    `json:"maximumThroughputUnits"`
		ZoneRedundant          *bool   `json:"zoneRedundant"`
		MinimumTLSVersion      *string `json:"minimumTlsVersion"`
		DisableLocalAuth       *bool   `json:"disableLocalAuth"`

		PublicNetworkAccess        string          `json:"publicNetworkAccess"`
		AlternateName              string          `json:"alternateName"`
		ClusterArmID               string          `json:"clusterArmId"`
		Encryption                 json.RawMessage `json:"encryption"`
		GeoDataReplication         json.RawMessage `json:"geoDataReplication"`
		PrivateEndpointConnections json.RawMessage `json:"privateEndpointConnections"`
		PlatformCapabilities       struct {
			ConfidentialCompute struct {
				Mode string `json:"mode"`
			} `json:"confidentialCompute"`
		} `json:"platformCapabilities"`
	} `json:"properties"`
}

const publicAccess = "publicNetworkAccess has to be Enabled: what can reach the broker is decided by the addresses of its doors, and by IP rules."

type armIdentity struct {
	Type string `json:"type"`
}

// Limits of tags, the resource manager's own.
const (
	maxTags     = 50
	maxTagName  = 512
	maxTagValue = 256
	maxLocation = 64
)

// check refuses what the broker does not do. What only says where and how the
// service runs is kept instead: zoneRedundant, and a TLS version that the doors
// are stricter than.
func (b *namespaceBody) check() error {
	p := &b.Properties
	switch {
	case p.PublicNetworkAccess != "" && !strings.EqualFold(p.PublicNetworkAccess, "Enabled"):
		return unsupported("PublicNetworkAccess", "properties.publicNetworkAccess", publicAccess)
	case p.AlternateName != "":
		return unsupported("AlternateName", "properties.alternateName", "A namespace has one name.")
	case p.ClusterArmID != "":
		return unsupported("Cluster", "properties.clusterArmId", "There are no clusters; the sku Dedicated has the quotas of one.")
	case asked(p.Encryption):
		return unsupported("Encryption", "properties.encryption", "Events are not encrypted on disk with keys of the customer's.")
	case asked(p.GeoDataReplication):
		return unsupported("GeoDataReplication", "properties.geoDataReplication", "Namespaces are not replicated to other locations.")
	case asked(p.PrivateEndpointConnections):
		return unsupported("PrivateEndpoint", "properties.privateEndpointConnections", "There are no private endpoints.")
	case strings.EqualFold(p.PlatformCapabilities.ConfidentialCompute.Mode, "Enabled"):
		return unsupported("ConfidentialCompute", "properties.platformCapabilities.confidentialCompute", "There is no confidential computing.")
	case b.Identity != nil && b.Identity.Type != "" && !strings.EqualFold(b.Identity.Type, "None"):
		return unsupported("Identity", "identity", "Namespaces have no managed identity.")
	case p.MinimumTLSVersion != nil && *p.MinimumTLSVersion != "1.0" && *p.MinimumTLSVersion != "1.1" && *p.MinimumTLSVersion != "1.2":
		return badRequest("properties.minimumTlsVersion", "minimumTlsVersion is 1.0, 1.1 or 1.2. Whatever it says, clients need TLS 1.2 or later.")
	case b.Location != nil && len(*b.Location) > maxLocation:
		return badRequest("location", "A location has up to %d bytes.", maxLocation)
	case len(b.Tags) > maxTags:
		return badRequest("tags", "A resource has up to %d tags, not %d.", maxTags, len(b.Tags))
	case b.SKU != nil && b.SKU.Name == "":
		return badRequest("sku.name", "The sku has no name.")
	}
	for name, value := range b.Tags {
		if name == "" || len(name) > maxTagName || len(value) > maxTagValue {
			return badRequest("tags", "A tag has a name of 1 to %d bytes and a value of up to %d.", maxTagName, maxTagValue)
		}
	}
	return nil
}

// of is the tier that is asked for where there is another one, "" for none. Name
// and tier say the same; but az sends what it has read, and one of them changed
// ("az eventhubs namespace update --sku"): then that is what is asked for.
func (sku *armSKU) of(now hub.Tier) (hub.Tier, error) {
	name, err := hub.ParseTier(sku.Name)
	if err != nil || sku.Tier == "" {
		return name, err
	}
	tier, err := hub.ParseTier(sku.Tier)
	switch {
	case err != nil:
		return "", err
	case name == tier, tier == now:
		return name, nil
	case name == now:
		return tier, nil
	}
	return "", badRequest("sku.tier", "The sku's name %s and tier %s differ.", name.Title(), tier.Title())
}

// change puts what is asked for into s; whole says that it replaces the tags even
// where there are none.
func (b *namespaceBody) change(s *hub.NamespaceSettings, whole bool) error {
	if sku := b.SKU; sku != nil {
		t, err := sku.of(s.Tier)
		if err != nil {
			return err
		}
		if s.Tier != t {
			s.Tier, s.Capacity = t, 1 // units of one tier are not those of another
		}
		if sku.Capacity != nil {
			s.Capacity = *sku.Capacity
		}
	}
	p := &b.Properties
	if p.IsAutoInflateEnabled != nil {
		s.AutoInflate = *p.IsAutoInflateEnabled
	}
	if p.MaximumThroughputUnits != nil {
		s.MaximumCapacity = *p.MaximumThroughputUnits
	}
	if !s.AutoInflate {
		s.MaximumCapacity = 0
	}
	if p.DisableLocalAuth != nil {
		s.DisableLocalAuth = *p.DisableLocalAuth
	}
	r := &s.Resource
	if whole || b.Tags != nil {
		r.Tags = b.Tags
	}
	if b.Location != nil {
		r.Location = *b.Location
	}
	if p.ZoneRedundant != nil {
		r.ZoneRedundant = *p.ZoneRedundant
	}
	if p.MinimumTLSVersion != nil {
		r.MinimumTLS = *p.MinimumTLSVersion
	}
	return nil
}
