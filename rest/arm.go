package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/auth"
	"github.com/millrace/millrace/hub"
)

// This file and arm_*.go are Azure Resource Manager's view of the namespaces, as
// the management SDKs, az and Terraform ask for it:
//
//	/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.EventHub/namespaces/{ns}/…
//
// A namespace is in the path, never the host's. Any subscription and resource
// group is taken, and said back in ids. Every change is done when it is answered,
// so that no poller waits. One shape serves all api-versions.
//
// Sources: recordings of the service in azure-sdk-for-go (armeventhub, 2022) and
// azure-cli (eventhubs, 2022); the models of armeventhub 1.3.0 and
// azure-mgmt-eventhub 12.0.0 (api-version 2026-01-01); features.md, section 11.

// provider is the resource provider that we are.
const provider = "Microsoft.EventHub"

// armPath is what a path of the resource manager names.
type armPath struct {
	subscription, group string
	provider            string
	all                 string   // "resourceGroups" or "providers", where none is named
	kind                string   // types in lower case, * for names: "namespaces/*/eventhubs"
	names               []string // what stood at the asterisks
}

// parseARM reads the steps of a path; false for one that is a hub's. A hub may be
// named "subscriptions", and what is asked of it has other words.
func parseARM(seg []string) (p armPath, ok bool) {
	is := func(i int, word string) bool { return i < len(seg) && strings.EqualFold(seg[i], word) }
	at := 0
	switch {
	case is(0, "providers") && is(1, provider):
	case is(0, "subscriptions") && len(seg) > 1 && seg[1] != "":
		p.subscription, at = seg[1], 2
		switch {
		case is(2, "resourceGroups"):
			if len(seg) == 3 {
				p.all = "resourceGroups"
				return p, true
			}
			p.group, at = seg[3], 4
		case len(seg) == 2:
			return p, !slices.Contains(hubWords, strings.ToLower(seg[1]))
		case !is(2, "providers"):
			return p, false
		}
	default:
		return p, false
	}
	if is(at, "providers") {
		if at++; at == len(seg) {
			p.all = "providers"
			return p, true
		}
		p.provider = seg[at]
		at++
	}
	p.setKind(seg[at:])
	return p, true
}

// hubWords are what can follow the name of a hub.
var hubWords = []string{"messages", "partitions", "publisher", "publishers", "consumergroups", "revokedpublishers"}

func (p *armPath) setKind(steps []string) {
	words := make([]string, len(steps))
	for i, step := range steps {
		if words[i] = strings.ToLower(step); i%2 == 1 {
			words[i] = "*"
			p.names = append(p.names, step)
		}
	}
	p.kind = strings.Join(words, "/")
}

// scope is where the path's provider is.
func (p *armPath) scope() string {
	id := ""
	if p.subscription != "" {
		id = "/subscriptions/" + p.subscription
	}
	if p.group != "" {
		id += "/resourceGroups/" + p.group
	}
	return id
}

// anyGroup is said for the resource group of a namespace where the request names
// none.
const anyGroup = "millrace"

// id is the resource id of a namespace, or of what is below it.
func (p *armPath) id(ns *hub.Namespace, below ...string) string {
	in := *p
	if in.group == "" {
		in.group = anyGroup
	}
	return strings.Join(append([]string{in.scope() + "/providers/" + provider + "/namespaces/" + ns.Name}, below...), "/")
}

// armCall is one request to the resource manager.
type armCall struct {
	*http.Request
	armPath
	s        *Server
	w        http.ResponseWriter
	tracking string // the request's id
}

// armMethods is who answers which method; nil is nobody.
type armMethods map[string]func(*armCall) error

// armRoutes has the methods of each kind.
var armRoutes = makeARMRoutes()

func makeARMRoutes() map[string]armMethods {
	item := func(get, put, del func(*armCall) error) armMethods {
		return armMethods{http.MethodGet: get, http.MethodPut: put, http.MethodDelete: del}
	}
	get := func(f func(*armCall) error) armMethods { return armMethods{http.MethodGet: f} }
	post := func(f func(*armCall) error) armMethods { return armMethods{http.MethodPost: f} }
	routes := map[string]armMethods{
		"operations":                                get((*armCall).operations),
		"checknameavailability":                     post((*armCall).checkName),
		"namespaces":                                get((*armCall).listNamespaces),
		"namespaces/*":                              item((*armCall).showNamespace, (*armCall).putNamespace, (*armCall).deleteNamespace),
		"namespaces/*/networkrulesets":              get((*armCall).listNetworkRules),
		"namespaces/*/networkrulesets/*":            item((*armCall).showNetworkRules, (*armCall).putNetworkRules, nil),
		"namespaces/*/applicationgroups":            get((*armCall).listApplicationGroups),
		"namespaces/*/applicationgroups/*":          item((*armCall).showApplicationGroup, (*armCall).putApplicationGroup, (*armCall).deleteApplicationGroup),
		"namespaces/*/eventhubs":                    get((*armCall).listHubs),
		"namespaces/*/eventhubs/*":                  item((*armCall).showHub, (*armCall).putHub, (*armCall).deleteHub),
		"namespaces/*/eventhubs/*/consumergroups":   get((*armCall).listGroups),
		"namespaces/*/eventhubs/*/consumergroups/*": item((*armCall).showGroup, (*armCall).putGroup, (*armCall).deleteGroup),
	}
	routes["namespaces/*"][http.MethodPatch] = (*armCall).putNamespace
	for _, on := range []string{"namespaces/*", "namespaces/*/eventhubs/*"} {
		routes[on+"/authorizationrules"] = get((*armCall).listRules)
		routes[on+"/authorizationrules/*"] = item((*armCall).showRule, (*armCall).putRule, (*armCall).deleteRule)
		routes[on+"/authorizationrules/*/listkeys"] = post((*armCall).listKeys)
		routes[on+"/authorizationrules/*/regeneratekeys"] = post((*armCall).regenerateKeys)
	}
	return routes
}

// serveARM answers a request to the resource manager.
func (s *Server) serveARM(w http.ResponseWriter, r *http.Request, p armPath) {
	c := &armCall{Request: r, armPath: p, s: s, w: w, tracking: trackingID()}
	w.Header().Set("X-Ms-Request-Id", c.tracking)
	w.Header().Set("X-Ms-Correlation-Request-Id", c.tracking)
	err := c.authorize()
	if err == nil {
		err = c.checkVersion()
	}
	if err == nil {
		err = c.route()
	}
	if err != nil {
		c.fail(err)
	}
}

// authorize checks that the bearer token gives Manage on the default namespace,
// and so on all.
func (c *armCall) authorize() error {
	header := c.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		return &armError{status: http.StatusUnauthorized, code: "AuthenticationFailed", text: "Authentication failed. The 'Authorization' header is missing."}
	case !strings.EqualFold(scheme, "Bearer"), strings.HasPrefix(strings.ToLower(strings.TrimSpace(token)), "sharedaccesssignature"):
		return &armError{status: http.StatusUnauthorized, code: "AuthenticationFailedInvalidHeader",
			text: "Authentication failed. The 'Authorization' header is provided in an invalid format: it has to be Bearer and a token; shared access signatures are for the event hubs themselves."}
	}
	ns := c.s.o.Namespaces.Default()
	claims, err := c.s.o.Verifier.Verify(c.Context(), ns.Name, token)
	if err != nil {
		return err
	}
	if now := c.s.o.Now(); !claims.Expired(now) && !claims.Allows(auth.Manage, "", now) {
		return &armError{status: http.StatusForbidden, code: "AuthorizationFailed",
			text: "The client '" + claims.Name + "' does not have authorization to perform the action over scope '" + c.URL.Path + "': it needs Manage on the namespace " + ns.Name + ", as the role Azure Event Hubs Data Owner has."}
	}
	return claims.Check(auth.Manage, "", c.s.o.Now())
}

// query returns a query parameter, whose name is in any case.
func (c *armCall) query(name string) string {
	for key, values := range c.URL.Query() {
		if strings.EqualFold(key, name) {
			return values[0]
		}
	}
	return ""
}

// checkVersion wants an api-version of the form of one.
func (c *armCall) checkVersion() error {
	v := c.query("api-version")
	if v == "" {
		return &armError{status: http.StatusBadRequest, code: "MissingApiVersionParameter", text: "The api-version query parameter (?api-version=) is required for all requests."}
	}
	date, stage := v, ""
	if len(v) > len(time.DateOnly) {
		date, stage = v[:len(time.DateOnly)], v[len(time.DateOnly):]
	}
	if _, err := time.Parse(time.DateOnly, date); err != nil || stage != "" && !strings.EqualFold(stage, "-preview") {
		return &armError{status: http.StatusBadRequest, code: "InvalidApiVersionParameter", text: "The api-version '" + excerpt(v) + "' is invalid: it has the form of 2024-01-01 or 2024-05-01-preview, and any such is taken."}
	}
	return nil
}

// route lets whoever the path means answer.
func (c *armCall) route() error {
	methods := armRoutes[c.kind]
	switch {
	case c.provider == "" || c.kind == "" || c.kind == "register":
		methods = c.scopeRoutes()
	case !strings.EqualFold(c.provider, provider):
		return &armError{status: http.StatusNotFound, code: "InvalidResourceNamespace", text: "The resource namespace '" + excerpt(c.provider) + "' is invalid: there is " + provider + " alone."}
	case c.kind == "operations":
	case c.subscription == "", c.group == "" && strings.Contains(c.kind, "/"), c.group != "" && c.kind == "checknameavailability":
		methods = nil
	}
	if slices.Contains(c.names, "") {
		methods = nil
	}
	if methods == nil {
		if a, ok := c.absent(); ok {
			return a.answer(c)
		}
		return &armError{status: http.StatusNotFound, code: "InvalidResourceType",
			text: "The resource type at '" + c.URL.Path + "' could not be found in the namespace '" + provider + "' for api version '" + excerpt(c.query("api-version")) + "'."}
	}
	method := c.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if f := methods[method]; f != nil {
		return f(c)
	}
	var allowed []string
	for m, f := range methods {
		if f != nil {
			allowed = append(allowed, m)
		}
	}
	slices.Sort(allowed)
	c.w.Header().Set("Allow", strings.Join(allowed, ", "))
	return &armError{status: http.StatusMethodNotAllowed, code: "MethodNotAllowed", text: "The method " + c.Method + " is not allowed for '" + c.URL.Path + "'; what is allowed is " + strings.Join(allowed, ", ") + "."}
}

// page is a list's answer.
type page struct {
	Value    []any  `json:"value"`
	NextLink string `json:"nextLink,omitempty"`
}

// list answers with the resources that $skip and $top leave.
func (c *armCall) list(all []any) error {
	skip, err := c.count("$skip", 0)
	if err != nil {
		return err
	}
	top, err := c.count("$top", len(all))
	if err != nil {
		return err
	}
	from := min(skip, len(all))
	to := min(from+top, len(all))
	p := page{Value: append([]any{}, all[from:to]...)}
	if to < len(all) && to > from {
		q := c.URL.Query()
		for key := range q {
			if strings.EqualFold(key, "$skip") {
				q.Del(key)
			}
		}
		q.Set("$skip", strconv.Itoa(to))
		next := url.URL{Scheme: c.scheme(), Host: c.Host, Path: c.URL.Path, RawPath: c.URL.RawPath, RawQuery: q.Encode()}
		p.NextLink = next.String()
	}
	return c.reply(http.StatusOK, p)
}

func (c *armCall) scheme() string {
	if c.TLS != nil {
		return "https"
	}
	return "http"
}

func (c *armCall) count(parameter string, otherwise int) (int, error) {
	v := c.query(parameter)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, badRequest(parameter, "The query parameter %s is a number, 0 or more.", parameter)
	}
	return min(n, otherwise+1<<20), nil
}

// namespace returns the namespace that the path names.
func (c *armCall) namespace() (*hub.Namespace, error) {
	ns, err := c.s.o.Namespaces.Named(c.names[0])
	switch {
	case err == nil:
		return ns, nil
	case len(c.names) > 1 || strings.Count(c.kind, "/") > 1:
		return nil, &armError{status: http.StatusNotFound, code: "ParentResourceNotFound", text: "Can not perform requested operation on nested resource. Parent resource '" + excerpt(c.names[0]) + "' not found."}
	}
	return nil, &armError{status: http.StatusNotFound, code: "ResourceNotFound",
		text: "The Resource '" + provider + "/namespaces/" + excerpt(c.names[0]) + "' under resource group '" + c.group + "' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"}
}

// hub returns the event hub that the path names.
func (c *armCall) hub() (*hub.EventHub, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	h, err := ns.EventHub(c.names[1])
	if err != nil {
		return nil, c.missing(c.names[1])
	}
	return h, nil
}

// missing is what the service says of a hub, a group or a rule that isn't there.
func (c *armCall) missing(name string) error {
	return &armError{status: http.StatusNotFound, code: "NotFound", text: "The requested resource " + excerpt(name) + " does not exist. CorrelationId: " + c.tracking}
}

// gone answers a deletion: what was not there need not be deleted.
func (c *armCall) gone(err error) error {
	status := http.StatusOK
	if isMissing(err) {
		status, err = http.StatusNoContent, nil
	}
	if err == nil {
		c.w.WriteHeader(status)
	}
	return err
}

// stamp is a time as the service writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999Z") }

// excerpt is the beginning of what a stranger wrote, short enough to repeat.
func excerpt(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
