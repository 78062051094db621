package rest

import (
	"net/http"
	"strings"
)

// scopeRoutes is what is answered where the path names nothing of the provider's:
// what az and Terraform ask for first.
func (c *armCall) scopeRoutes() armMethods {
	ours := strings.EqualFold(c.provider, provider)
	get := func(f func(*armCall) error) armMethods { return armMethods{http.MethodGet: f} }
	switch {
	case c.subscription == "", c.provider != "" && !ours, c.provider == "" && c.kind != "":
		return nil
	case ours && c.group != "": // what is below a group has a kind
		return nil
	case ours && c.kind == "register":
		return armMethods{http.MethodPost: (*armCall).showProvider}
	case ours:
		return get((*armCall).showProvider)
	case c.all == "providers":
		return get((*armCall).listProviders)
	case c.all == "resourceGroups":
		return get(func(c *armCall) error { return c.list(nil) })
	case c.group != "":
		return get((*armCall).showGroupOfResources)
	}
	return get((*armCall).showSubscription)
}

func (c *armCall) showSubscription() error {
	return c.reply(http.StatusOK, map[string]any{
		"id": c.scope(), "subscriptionId": c.subscription, "displayName": "Millrace", "state": "Enabled",
	})
}

// showGroupOfResources says that there is a resource group, whatever its name.
func (c *armCall) showGroupOfResources() error {
	return c.reply(http.StatusOK, map[string]any{
		"id": c.scope(), "name": c.group, "type": "Microsoft.Resources/resourceGroups", "location": anyLocation,
		"properties": map[string]string{"provisioningState": "Succeeded"},
	})
}

// armVersions are the api-versions that SDKs in use ask for.
var armVersions = []string{"2026-01-01", "2025-05-01-preview", "2024-05-01-preview", "2024-01-01", "2022-10-01-preview", "2021-11-01", "2017-04-01"}

func (c *armCall) describeProvider() map[string]any {
	type kind struct {
		ResourceType string   `json:"resourceType"`
		Locations    []string `json:"locations"`
		APIVersions  []string `json:"apiVersions"`
	}
	var kinds []kind
	for _, name := range []string{"namespaces", "namespaces/authorizationrules", "namespaces/networkrulesets", "namespaces/eventhubs",
		"namespaces/eventhubs/authorizationrules", "namespaces/eventhubs/consumergroups", "checkNameAvailability", "operations"} {
		kinds = append(kinds, kind{name, []string{anyLocation}, armVersions})
	}
	return map[string]any{
		"id": "/subscriptions/" + c.subscription + "/providers/" + provider, "namespace": provider,
		"registrationState": "Registered", "registrationPolicy": "RegistrationRequired", "resourceTypes": kinds,
	}
}

func (c *armCall) showProvider() error  { return c.reply(http.StatusOK, c.describeProvider()) }
func (c *armCall) listProviders() error { return c.list([]any{c.describeProvider()}) }

// operations lists what roles may be given. Programs don't ask; people do.
func (c *armCall) operations() error {
	type display struct {
		Provider    string `json:"provider"`
		Resource    string `json:"resource"`
		Operation   string `json:"operation"`
		Description string `json:"description"`
	}
	type operation struct {
		Name         string  `json:"name"`
		IsDataAction bool    `json:"isDataAction"`
		Display      display `json:"display"`
	}
	var all []any
	add := func(path, resource, verb, does string) {
		all = append(all, operation{Name: provider + "/" + path + "/" + verb,
			Display: display{"Millrace", resource, does + " " + resource, does + " " + resource + "."}})
	}
	add("checkNameAvailability", "namespace", "action", "Check the name of a")
	for _, x := range [][2]string{
		{"namespaces", "namespace"}, {"namespaces/authorizationRules", "authorization rule"}, {"namespaces/eventhubs", "event hub"},
		{"namespaces/eventhubs/authorizationRules", "authorization rule"}, {"namespaces/eventhubs/consumergroups", "consumer group"},
	} {
		for _, verb := range [][2]string{{"read", "Read a"}, {"write", "Make or change a"}, {"delete", "Delete a"}} {
			add(x[0], x[1], verb[0], verb[1])
		}
		if strings.HasSuffix(x[0], "Rules") {
			add(x[0]+"/listkeys", x[1], "action", "Read the keys of a")
			add(x[0]+"/regenerateKeys", x[1], "action", "Regenerate a key of a")
		}
	}
	return c.list(all)
}

func (c *armCall) checkName() error {
	var want struct {
		Name string `json:"name"`
	}
	if err := c.read(&want); err != nil {
		return err
	}
	type answer struct {
		NameAvailable bool    `json:"nameAvailable"`
		Reason        string  `json:"reason"`
		Message       *string `json:"message"`
	}
	out := answer{Reason: "None", NameAvailable: true}
	no := func(reason, text string) { out = answer{Reason: reason, Message: &text} }
	if _, err := c.s.o.Namespaces.Named(want.Name); err == nil {
		no("NameInUse", "The specified name is not available: there is a namespace '"+want.Name+"'.")
	} else if !namespaceName.MatchString(want.Name) {
		no("InvalidName", "The specified name is not valid: "+namespaceNames+".")
	}
	return c.reply(http.StatusOK, out)
}

// absentKind is a kind of resources of which there are none.
type absentKind struct {
	what, text string
}

var absentKinds = map[string]absentKind{
	"clusters":                             {"Cluster", "There are no clusters; the sku Dedicated has the quotas of one."},
	"availableclusterregions":              {"Cluster", "There are no clusters; the sku Dedicated has the quotas of one."},
	"namespaces/*/disasterrecoveryconfigs": {"DisasterRecovery", "Namespaces have no aliases."},
	"namespaces/*/networksecurityperimeterconfigurations": {"NetworkSecurityPerimeter", "There are no network security perimeters."},
	"namespaces/*/privateendpointconnections":             {"PrivateEndpoint", "There are no private endpoints."},
	"namespaces/*/privatelinkresources":                   {"PrivateEndpoint", "There are no private endpoints."},
	"namespaces/*/schemagroups":                           {"SchemaGroups", "There are no schema groups yet."},
}

// absent finds the kind of what the path names, or of what that is below.
func (c *armCall) absent() (absentKind, bool) {
	if !strings.EqualFold(c.provider, provider) {
		return absentKind{}, false
	}
	for kind, a := range absentKinds {
		rest, ok := strings.CutPrefix(c.kind, kind)
		if ok && (rest == "" || rest[0] == '/') && c.subscription != "" && (c.group != "" || !strings.HasPrefix(kind, "namespaces")) {
			return a, true
		}
	}
	return absentKind{}, false
}

// answer lists nothing, finds nothing, and makes nothing.
func (a absentKind) answer(c *armCall) error {
	if strings.HasPrefix(c.kind, "namespaces/") {
		if _, err := c.namespace(); err != nil {
			if c.Method == http.MethodDelete {
				err = c.gone(err)
			}
			return err
		}
	}
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		if strings.HasSuffix(c.kind, "*") {
			return c.missing(c.names[len(c.names)-1])
		}
		return c.list(nil)
	case http.MethodDelete:
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return unsupported(a.what, "", a.text)
}
